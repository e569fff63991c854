//! The device's ring, and what the device does: it gives back every byte inverted.

use heapless::Vec;
use vhost_core::{
    DeviceQueue, GuestAddress, GuestRange, RingAddress, RingAddresses, RingLayout, RingParts, RingUser, VirtioFeatures,
    WordMemory, WordRange, wire::vring::VringBase,
};

use crate::ram::Region;

/// The most pieces of one request.
const PIECES: usize = 16;
/// The most requests that are done before the line is looked at again.
const BATCH: usize = 256;

/// What the front-end has told of a ring, and the ring once it runs.
#[derive(Default)]
pub(crate) struct Ring {
    pub(crate) size: u32,
    pub(crate) base: u32,
    pub(crate) addresses: Option<[RingAddress; 3]>,
    queue: Option<DeviceQueue<WordRange<'static>>>,
}

/// What a turn of the ring has left to do.
#[derive(Default)]
pub(crate) struct Turn {
    /// The driver wants to hear of it.
    pub(crate) call: bool,
    /// There may be more requests, for which no kick comes.
    pub(crate) more: bool,
}

/// The ring is broken, or does not lie in memory.
#[derive(Debug)]
pub(crate) struct Broken;

impl Ring {
    /// Begins where the front-end says.
    pub(crate) fn start(&mut self, region: &Region, features: VirtioFeatures) -> Result<(), Broken> {
        let layout = RingLayout::of(features);
        let [descriptor, driver, device] =
            self.addresses.ok_or(Broken)?.map(|at| region.guest_address(at).map(GuestAddress));
        let (Some(descriptor), Some(driver), Some(device)) = (descriptor, driver, device) else { return Err(Broken) };
        let addresses = RingAddresses { descriptor, driver, device };
        let parts = RingParts::translate(&region.memory, addresses, layout, self.size, RingUser::Device);
        let base = match layout {
            RingLayout::Split => VringBase::split(self.base),
            RingLayout::Packed => VringBase::packed(self.base),
        };
        self.queue = Some(DeviceQueue::new(parts.map_err(|_| Broken)?, self.size, features, base).map_err(|_| Broken)?);
        Ok(())
    }

    pub(crate) fn runs(&self) -> bool {
        self.queue.is_some()
    }

    /// Stops; where the next device goes on.
    pub(crate) fn stop(&mut self) -> u32 {
        if let Some(queue) = self.queue.take() {
            self.base = queue.base().to_num();
        }
        self.base
    }

    /// Does what is there to do, but not for ever.
    pub(crate) fn process(&mut self, memory: &WordMemory<'static>) -> Result<Turn, Broken> {
        let Some(queue) = &mut self.queue else { return Ok(Turn::default()) };
        let mut more = true;
        for _ in 0..BATCH {
            let mut pieces = Vec::<WordRange<'static>, PIECES>::new();
            let Some(chain) = queue.pop(memory, &mut pieces).map_err(|_| Broken)? else {
                // What the driver adds from now on, it kicks for; what it has added before, it may not.
                match queue.enable_kicks().map_err(|_| Broken)? {
                    true => continue,
                    false => {
                        more = false;
                        break;
                    }
                }
            };
            let (readable, writable) = chain.split(&pieces);
            let written = invert(readable, writable);
            queue.push(chain, written).map_err(|_| Broken)?;
        }
        Ok(Turn { call: queue.needs_call().map_err(|_| Broken)?, more })
    }
}

/// Copies byte by byte until one side ends; the bytes that were copied.
pub(crate) fn invert<R: GuestRange>(readable: &[R], writable: &[R]) -> u32 {
    let mut places = writable.iter().flat_map(|piece| (0..piece.len()).map(move |offset| (piece, offset)));
    let bytes = readable.iter().flat_map(|piece| (0..piece.len()).filter_map(|offset| piece.read::<1>(offset)));
    let mut written = 0_u32;
    for [byte] in bytes {
        let Some((piece, offset)) = places.next() else { break };
        if piece.write_from(offset, &[!byte]).is_none() {
            break;
        }
        written = written.wrapping_add(1);
    }
    written
}
