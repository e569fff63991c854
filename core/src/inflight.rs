//! The inflight record: which chains the device holds, in memory that outlives it.
//!
//! A back-end that ends in the middle of its work leaves this record behind. The next one finds in
//! it which chains were taken and not given back, and processes them again. The record is shared
//! with the front-end, so nothing in it is trusted: walks are bounded and links checked.
//!
//! The order of the steps is that of the vhost-user specification, section "Inflight I/O tracking".
//! A process can end between any two stores, so what has to change together is one store of eight
//! bytes. Numbers are in the machine's byte order.

mod journal;
mod packed;
mod record;
mod sort;
mod split;

use crate::virtqueue::Position;

pub(crate) use journal::{Journal, Step};
pub(crate) use record::{Record, clear, size_for};

/// A chain that was in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resubmission {
    /// Its entry in the record; in a split ring that is its first descriptor.
    pub entry: u16,
    /// Where it was in the ring, in the ring's own terms.
    pub(crate) position: u16,
    /// Slots of the ring that it takes.
    pub(crate) slots: u16,
    /// Chains that were taken earlier have a smaller one.
    pub(crate) counter: u64,
}

/// What a record says about a ring.
pub(crate) struct Recovery<'r> {
    /// Where the next chain is given back.
    pub(crate) used: Position,
    /// Slots in flight.
    pub(crate) slots: u16,
    /// The chains in flight, oldest first.
    pub(crate) resubmissions: &'r [Resubmission],
}
