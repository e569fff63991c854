//! What a device and a driver do in one go, access by access.

use vhost_core::{
    Buffer, Chain, DeviceQueue, DriverQueue, GuestAddress, GuestRange, RingAddresses, RingLayout, RingParts, RingUser,
    VirtioFeatures,
};

use super::memory::{Piece, Window};
use super::system::{Plan, ROOM, Widened};

/// Where buffers are; nobody touches them.
const BUFFERS: u64 = 0x10_0000;

/// Bytes of each buffer.
pub(super) const LENGTH: u32 = 100;

/// Operations of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Serve {
    Pop,
    /// Gives back one of the chains it holds.
    Finish(usize),
    /// Gives back all of them at once.
    FinishAll,
    EnableKicks,
    DisableKicks,
}

/// Operations of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Drive {
    Add(u8),
    Poll,
    EnableCalls,
    DisableCalls,
}

/// What an operation of the device has brought.
pub(super) enum Served {
    Popped(Chain),
    Empty,
    Finished(core::ops::Range<usize>, bool),
    More(bool),
    KicksDisabled,
}

pub(super) fn serve_whole(
    queue: &mut DeviceQueue<Piece<'_>>,
    window: &Window,
    serve: Serve,
    next: u8,
    held: Vec<(Chain, u8)>,
    plan: Plan,
) -> Result<Served, String> {
    let failed = |error: &dyn core::fmt::Display| format!("device {serve:?}: {error}");
    Ok(match serve {
        Serve::Pop => {
            let mut pieces = pieces();
            match queue.pop(&window, &mut pieces) {
                Ok(Some(chain)) if pieces.iter().all(|piece| piece.guest_address() == buffer(next).address) => {
                    Served::Popped(chain)
                }
                Ok(Some(chain)) => return Err(format!("{chain:?} is not buffer {next}: {pieces:?}")),
                Ok(None) => Served::Empty,
                Err(error) => return Err(failed(&error)),
            }
        }
        Serve::Finish(_) | Serve::FinishAll => {
            let range = if let Serve::Finish(at) = serve { at..at + 1 } else { 0..held.len() };
            let mut call = false;
            // One used entry for all of them.
            let batch = serve == Serve::FinishAll && plan.features.contains(VirtioFeatures::IN_ORDER);
            let one_by_one = if batch { 0..0 } else { range.clone() };
            if batch {
                queue.stage_filled(held.iter().map(|(chain, _)| chain.clone())).map_err(|error| failed(&error))?;
            }
            for (chain, number) in &held[one_by_one] {
                queue.stage(chain.clone(), u32::from(*number) + 1).map_err(|error| failed(&error))?;
                if plan.widened == Widened::DeviceRepeats {
                    queue.stage(chain.clone(), u32::from(*number) + 1).map_err(|error| failed(&error))?;
                }
            }
            if plan.widened == Widened::AsksTooEarly {
                call = queue.needs_call().map_err(|error| failed(&error))?;
            }
            queue.publish().map_err(|error| failed(&error))?;
            if plan.widened != Widened::AsksTooEarly {
                call = queue.needs_call().map_err(|error| failed(&error))?;
            }
            Served::Finished(range, call)
        }
        Serve::EnableKicks => Served::More(queue.enable_kicks().map_err(|error| failed(&error))?),
        Serve::DisableKicks => {
            queue.disable_kicks().map_err(|error| failed(&error))?;
            Served::KicksDisabled
        }
    })
}

/// What an operation of the driver has brought.
pub(super) enum Driven {
    Added(Vec<u16>, bool),
    Polled(u16, u32),
    Empty,
    More(bool),
    CallsDisabled,
}

pub(super) fn drive_whole(
    queue: &mut DriverQueue<Piece<'_>, ROOM>,
    drive: Drive,
    first: u8,
    plan: Plan,
) -> Result<Driven, String> {
    let failed = |error: &dyn core::fmt::Display| format!("driver {drive:?}: {error}");
    Ok(match drive {
        Drive::Add(count) => {
            let mut tokens = Vec::new();
            for number in first..first + count {
                let buffers: Vec<_> = (0..plan.descriptors).map(|_| buffer(number)).collect();
                tokens.push(queue.add(&[], &buffers).map_err(|error| failed(&error))?);
            }
            queue.publish().map_err(|error| failed(&error))?;
            Driven::Added(tokens, queue.needs_kick().map_err(|error| failed(&error))?)
        }
        Drive::Poll => match queue.poll().map_err(|error| failed(&error))? {
            Some(used) => Driven::Polled(used.token, used.written),
            None => Driven::Empty,
        },
        Drive::EnableCalls => Driven::More(queue.enable_calls().map_err(|error| failed(&error))?),
        Drive::DisableCalls => {
            queue.disable_calls().map_err(|error| failed(&error))?;
            Driven::CallsDisabled
        }
    })
}

pub(super) fn added_by(drive: Drive) -> u8 {
    if let Drive::Add(count) = drive { count } else { 0 }
}

pub(super) fn buffer(number: u8) -> Buffer {
    Buffer { address: GuestAddress(BUFFERS + 0x100 * u64::from(number)), length: LENGTH }
}

pub(super) fn pieces<'w>() -> heapless::Vec<Piece<'w>, ROOM> {
    heapless::Vec::new()
}

pub(super) fn parts(window: &Window, plan: Plan) -> RingParts<Piece<'_>> {
    let addresses =
        RingAddresses { descriptor: GuestAddress(0), driver: GuestAddress(0x40), device: GuestAddress(0x50) };
    let layout = RingLayout::of(plan.features);
    RingParts::translate(&window, addresses, layout, plan.size.into(), RingUser::Device).unwrap()
}
