//! A record that a ring writes while it goes on.

use super::Record;
use crate::{
    guest_memory::GuestRange,
    virtqueue::{ByAddress, Descriptor, Position, RingFault, RingLayout},
};

/// The record of a ring, and what writes it: a ring that never gets one is linked without that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Journal<R> {
    record: Record<R>,
    write: ByAddress<Write<R>>,
}

type Write<R> = fn(&mut Record<R>, &Step<'_>) -> Result<u16, RingFault>;

/// What happens to a chain. A number is the entry where it begins.
pub(crate) enum Step<'d> {
    /// It is being taken, and has this descriptor. The first one has no entry before it.
    Copy(Option<u16>, &'d Descriptor),
    /// It was taken.
    Take(u16),
    /// It is not taken after all.
    Cancel(u16),
    /// It was given back, which the driver does not see yet.
    Stage(u16),
    /// The driver is about to see what was given back up to here.
    Prepare(Position),
    /// The driver sees the last so many chains that were staged, up to here.
    Commit(u16, Position),
}

impl<R: GuestRange> Journal<R> {
    pub(crate) const fn new(record: Record<R>) -> Self {
        Self { record, write: ByAddress(write) }
    }

    /// Writes a step to the record. A descriptor's entry is the outcome.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn write(&mut self, step: &Step<'_>) -> Result<u16, RingFault> {
        (self.write.0)(&mut self.record, step)
    }

    /// The record, to read it.
    pub(crate) fn record(&mut self) -> &mut Record<R> {
        &mut self.record
    }
}

fn write<R: GuestRange>(record: &mut Record<R>, step: &Step<'_>) -> Result<u16, RingFault> {
    let is_packed = record.layout == RingLayout::Packed;
    match *step {
        Step::Copy(head, descriptor) => return record.add(head, descriptor),
        Step::Take(_) if is_packed => record.finish(),
        Step::Take(head) => record.begin(head),
        Step::Cancel(head) => record.cancel(head),
        Step::Stage(head) => record.stage(head),
        Step::Prepare(used) if is_packed => record.prepare(used),
        Step::Prepare(_) => Ok(()),
        Step::Commit(chains, used) if is_packed => record.commit_packed(chains, used),
        Step::Commit(chains, used) => record.commit_split(chains, used.0),
    }?;
    Ok(0)
}
