//! One life of a device with an inflight record, and the driver that outlives it.

use vhost_core::{
    Access, Buffer, Chain, DeviceQueue, DriverQueue, DriverQueueState, GuestAddress, GuestMemory, GuestRange,
    Resubmission, RingAddresses, RingLayout, RingParts, RingUser, VirtioFeatures,
};

use super::arena::{Arena, Piece, View};
use crate::guest::first_base;

const SIZE: u16 = 4;
const ROOM: usize = 4;

const ADDRESSES: RingAddresses<GuestAddress> =
    RingAddresses { descriptor: GuestAddress(0), driver: GuestAddress(0x40), device: GuestAddress(0x60) };

/// Where the record is.
const RECORD: u64 = 0x100;

/// Where buffers are; nobody touches them.
const BUFFERS: u64 = 0x10_0000;

/// What a device does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Pop,
    PopAll,
    /// Gives back a chain; the driver does not see it yet.
    StageOldest,
    FinishOldest,
    FinishNewest,
    /// Gives back all chains at once.
    FinishAll,
    /// The driver takes what came back and fills the ring again.
    DriverRefills,
}

/// How a device ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// It was refused an access.
    Early { resubmitted: usize },
    /// It did all it was to do.
    Whole { resubmitted: usize },
}

impl Ended {
    pub(crate) fn resubmitted(self) -> usize {
        let (Self::Early { resubmitted } | Self::Whole { resubmitted }) = self;
        resubmitted
    }
}

/// A device while it lives.
pub(crate) struct Life<'a> {
    view: View<'a>,
    queue: DeviceQueue<Piece<'a>>,
    /// The chains it has, each with the number of the request.
    held: Vec<(Chain, u32)>,
    in_order: bool,
}

/// The device was refused an access.
struct Refused(String);

impl<E: core::fmt::Debug> From<E> for Refused
where
    E: core::error::Error,
{
    fn from(error: E) -> Self {
        Self(format!("{error:?}"))
    }
}

impl<'a> Life<'a> {
    /// Starts a device on the ring, which recovers what is in the record, and does what `history` says.
    pub(crate) fn run(arena: &'a Arena, features: VirtioFeatures, driver: &mut Driver<'_>, history: &[Op]) -> Ended {
        let mut resubmitted = 0;
        match Self::live(arena, features, driver, history, &mut resubmitted) {
            Ok(()) => Ended::Whole { resubmitted },
            Err(Refused(reason)) => {
                assert!(arena.is_spent(), "{history:?}, not for want of accesses: {reason}");
                Ended::Early { resubmitted }
            }
        }
    }

    fn live(
        arena: &'a Arena,
        features: VirtioFeatures,
        driver: &mut Driver<'_>,
        history: &[Op],
        resubmitted: &mut usize,
    ) -> Result<(), Refused> {
        let (view, layout) = (arena.device(), RingLayout::of(features));
        let parts = RingParts::translate(&view, ADDRESSES, layout, SIZE.into(), RingUser::Device)?;
        // The front-end does not know how far the last device came; the record does.
        let mut queue = DeviceQueue::new(parts, SIZE.into(), features, first_base(layout))?;
        let bytes = DeviceQueue::<Piece<'_>>::inflight_size(layout, SIZE);
        let mut room = [Resubmission::default(); ROOM];
        let record = view.range(GuestAddress(RECORD), bytes, Access::ReadWrite)?;
        let found = queue.recover(record, &mut room)?;
        let in_order = features.contains(VirtioFeatures::IN_ORDER);
        let mut life = Self { view, queue, held: Vec::new(), in_order };
        for resubmission in found {
            let mut pieces = heapless::Vec::<_, ROOM>::new();
            let chain = life.queue.pop_recovered(resubmission, &view, &mut pieces)?;
            life.hold(chain, &pieces);
            *resubmitted += 1;
        }
        for op in history {
            life.step(*op, driver)?;
        }
        Ok(())
    }

    fn step(&mut self, op: Op, driver: &mut Driver<'_>) -> Result<(), Refused> {
        match op {
            Op::Pop => drop(self.pop()?),
            Op::PopAll => while self.pop()?.is_some() {},
            Op::StageOldest if !self.held.is_empty() => {
                let (chain, number) = self.held.remove(0);
                self.queue.stage(chain, written(number))?;
            }
            Op::FinishOldest if !self.held.is_empty() => {
                let (chain, number) = self.held.remove(0);
                self.queue.push(chain, written(number))?;
            }
            Op::FinishNewest if !self.held.is_empty() => {
                let (chain, number) = self.held.remove(self.held.len() - 1);
                self.queue.push(chain, written(number))?;
            }
            Op::FinishAll => {
                let held = core::mem::take(&mut self.held);
                if self.in_order {
                    self.queue.stage_filled(held.into_iter().map(|(chain, _)| chain))?;
                } else {
                    for (chain, number) in held {
                        self.queue.stage(chain, written(number))?;
                    }
                }
                self.queue.publish()?;
            }
            Op::DriverRefills => {
                driver.poll_all();
                driver.refill();
            }
            Op::StageOldest | Op::FinishOldest | Op::FinishNewest => {}
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Option<()>, Refused> {
        let mut pieces = heapless::Vec::<_, ROOM>::new();
        Ok(self.queue.pop(&self.view, &mut pieces)?.map(|chain| self.hold(chain, &pieces)))
    }

    /// Requests come in the order of their numbers, also those that come again, and whole.
    fn hold(&mut self, chain: Chain, pieces: &[Piece<'_>]) {
        let number = u32::try_from((pieces[0].guest_address().0 - BUFFERS) / 0x100).unwrap();
        let places: Vec<_> = pieces.iter().map(|piece| (piece.guest_address(), piece.len() as u32)).collect();
        let (readable, writable) = buffers(number);
        let expected: Vec<_> = readable.iter().chain(&writable).map(|buffer| (buffer.address, buffer.length)).collect();
        assert_eq!((places, chain.readable_pieces()), (expected, readable.len()));
        assert!(self.held.last().is_none_or(|(_, before)| *before < number), "{number} after {:?}", self.held);
        self.held.push((chain, number));
    }
}

/// Bytes that a device says it has written for a request.
fn written(number: u32) -> u32 {
    number % 7
}

/// The buffers of a request: one or two.
fn buffers(number: u32) -> (Vec<Buffer>, Vec<Buffer>) {
    let buffer = |at| Buffer { address: GuestAddress(BUFFERS + 0x100 * u64::from(number) + at), length: 8 };
    let readable = if number.is_multiple_of(2) { vec![buffer(0)] } else { Vec::new() };
    (readable, vec![buffer(0x80 * u64::from(number.is_multiple_of(2)))])
}

/// The driver: it lives on while devices come and go.
pub(crate) struct Driver<'a> {
    queue: DriverQueue<Piece<'a>, ROOM>,
    features: VirtioFeatures,
    /// Tokens that are out, with the number of the request.
    out: Vec<(u16, u32)>,
    next: u32,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(arena: &'a Arena, features: VirtioFeatures) -> Self {
        let queue = DriverQueue::new(Self::parts(arena, features), SIZE.into(), features).unwrap();
        Self { queue, features, out: Vec::new(), next: 0 }
    }

    /// The same driver with a copy of the memory.
    pub(crate) fn moved_to<'b>(&self, arena: &'b Arena) -> Driver<'b> {
        let state: DriverQueueState<ROOM> = self.queue.state();
        let queue = DriverQueue::resume(Self::parts(arena, self.features), state);
        Driver { queue, features: self.features, out: self.out.clone(), next: self.next }
    }

    fn parts(arena: &Arena, features: VirtioFeatures) -> RingParts<Piece<'_>> {
        let layout = RingLayout::of(features);
        RingParts::translate(&arena.driver(), ADDRESSES, layout, SIZE.into(), RingUser::Driver).unwrap()
    }

    /// Adds requests until the ring is full.
    pub(crate) fn refill(&mut self) {
        loop {
            let (readable, writable) = buffers(self.next);
            let Ok(token) = self.queue.add(&readable, &writable) else {
                break;
            };
            self.out.push((token, self.next));
            self.next += 1;
        }
        self.queue.publish().unwrap();
    }

    /// Takes back all that the device gave back, each of which must be out.
    pub(crate) fn poll_all(&mut self) {
        while let Some(used) = self.queue.poll().unwrap() {
            let at = self.out.iter().position(|(token, _)| *token == used.token).expect("it is out");
            let (_, number) = self.out.remove(at);
            let filled = self.features.contains(VirtioFeatures::IN_ORDER) && used.written == 8;
            assert!(filled || used.written == written(number), "request {number}: {used:?}");
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        assert_eq!(usize::from(self.queue.outstanding()), self.out.len());
        self.out.len()
    }
}
