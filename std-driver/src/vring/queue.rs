//! What a device sees of a ring while it processes it.

use core::fmt;

use super::fault::{ChainFault, RingFault, RingFaults};
use super::spare::{Lent, Spares};
use super::split::SplitRing;
use super::walk::walk;
use crate::chain::Chain;
use crate::eventfd::EventFd;
use crate::memory::MappedMemory;

/// Completed chains after which the driver is signalled although more are waiting, so that the first of a long batch does
/// not wait for the last.
const SIGNAL_AFTER: u16 = 16;

/// A queue while the device processes it: take chains, complete chains.
///
/// It gives out a bounded number of chains a turn, then says that it is empty; the rest follows in the next turn, after
/// other queues.
pub struct Queue<'m> {
    index: u16,
    memory: &'m MappedMemory,
    ring: &'m mut SplitRing,
    call: Option<&'m EventFd>,
    faults: &'m mut RingFaults,
    /// Heads that the device has and did not complete yet.
    taken: &'m mut Vec<u16>,
    slices: Lent<'m>,
    budget: u16,
    unsignalled: u16,
    end: End,
}

/// Why the device stopped taking chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It did not ask until it was told that there are no more.
    DeviceStopped,
    /// The ring is empty.
    Empty,
    /// The turn's chains are used up.
    BudgetSpent,
    /// The ring cannot be used any more.
    Fault(RingFault),
}

/// What a queue is made of for one pass of the device.
pub(super) struct Parts<'m> {
    pub(super) index: u16,
    pub(super) memory: &'m MappedMemory,
    pub(super) ring: &'m mut SplitRing,
    pub(super) call: Option<&'m EventFd>,
    pub(super) faults: &'m mut RingFaults,
    pub(super) taken: &'m mut Vec<u16>,
}

impl<'m> Queue<'m> {
    pub(super) fn new(parts: Parts<'m>, spares: &mut Spares, budget: u16) -> Self {
        let Parts { index, memory, ring, call, faults, taken } = parts;
        taken.clear();
        let (slices, unsignalled, end) = (spares.lend(), 0, End::DeviceStopped);
        Self { index, memory, ring, call, faults, taken, slices, budget, unsignalled, end }
    }

    /// The next request of the driver; `None` when there is none for now.
    ///
    /// A malformed chain never comes out: it goes back to the driver with length 0 and is counted in the ring's
    /// [faults](crate::vring::RingFaults).
    #[allow(clippy::should_implement_trait, reason = "not an iterator: after None there may be more in the next turn")]
    pub fn next(&mut self) -> Option<Chain<'m>> {
        while !matches!(self.end, End::Fault(_)) {
            if self.budget == 0 {
                self.end = End::BudgetSpent;
                return None;
            }
            match self.ring.next_head(self.memory) {
                Ok(Some(head)) => {
                    self.budget = self.budget.saturating_sub(1);
                    if let Some(chain) = self.look_up(head) {
                        return Some(chain);
                    }
                }
                Ok(None) => {
                    self.end = End::Empty;
                    return None;
                }
                Err(fault) => self.end = End::Fault(fault),
            }
        }
        None
    }

    /// Gives `chain` back to the driver, with the number of bytes written to its writable part from the start on; a number
    /// beyond that part is cut down to it.
    pub fn complete(&mut self, chain: Chain<'m>, written: u32) {
        let written = u32::try_from(chain.writable().len()).unwrap_or(u32::MAX).min(written);
        let head = chain.head();
        // Normally the first: devices that work one chain after another.
        if let Some(at) = self.taken.iter().position(|taken| *taken == head) {
            self.taken.remove(at);
        }
        self.slices.give(chain.into_slices());
        self.push_used(head, written);
    }

    /// Index of the queue in its device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// After the device's pass: returns what it kept, signals the driver, and tells why the pass ended and how many chains
    /// of the turn are left.
    pub(super) fn finish(mut self, spares: &mut Spares) -> (End, u16) {
        for at in 0..self.taken.len() {
            let Some(head) = self.taken.get(at).copied() else {
                break;
            };
            self.faults.abandoned = self.faults.abandoned.saturating_add(1);
            self.push_used(head, 0);
        }
        self.taken.clear();
        self.signal();
        spares.keep(self.slices);
        (self.end, self.budget)
    }

    fn look_up(&mut self, head: u16) -> Option<Chain<'m>> {
        let mut slices = self.slices.take();
        let table = self.ring.table();
        match walk(self.memory, table, head, &mut slices) {
            Ok(extent) => {
                self.taken.push(head);
                Some(Chain::new(head, slices, extent))
            }
            Err(kind) => {
                self.slices.give(slices);
                self.faults.record(ChainFault { ring: self.index, head, kind });
                if table.contains(head) {
                    self.push_used(head, 0);
                }
                None
            }
        }
    }

    fn push_used(&mut self, head: u16, written: u32) {
        if let Err(fault) = self.ring.push_used(self.memory, head, written) {
            self.end = End::Fault(fault);
            return;
        }
        self.unsignalled = self.unsignalled.saturating_add(1);
        if self.unsignalled >= SIGNAL_AFTER {
            self.signal();
        }
    }

    fn signal(&mut self) {
        if core::mem::take(&mut self.unsignalled) == 0 {
            return;
        }
        match self.ring.needs_call(self.memory) {
            Ok(true) => {
                if let Some(Err(error)) = self.call.map(EventFd::signal) {
                    self.faults.last_call = Some(error);
                }
            }
            Ok(false) => {}
            Err(fault) => self.end = End::Fault(fault),
        }
    }
}

impl fmt::Debug for Queue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("index", &self.index).field("budget", &self.budget).finish_non_exhaustive()
    }
}
