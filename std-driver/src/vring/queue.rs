//! What a device sees of a ring while it processes it.

use core::fmt;

use vhost_core::{ChainBuffer, GuestMemory, Miss, NoRoom, PopError, PushError, Resubmission};
use vm_memory::VolatileSlice;

use super::Ring;
use super::behind::Behind;
use super::fault::{ChainFault, RingFault, RingFaults};
use super::promptness::Promptness;
use super::spare::{Lent, Spares};
use crate::chain::Chain;
use crate::eventfd::EventFd;
use crate::memory::{Borrowed, BorrowedRange, MemoryTable, WriteLog};

/// A queue while the device processes it: take chains, complete chains.
///
/// It gives out a bounded number of chains a turn, then says that it is empty; the rest follows in the next turn, after
/// other queues.
pub struct Queue<'m> {
    index: u16,
    table: &'m MemoryTable,
    memory: Borrowed<'m>,
    behind: Option<&'m Behind>,
    ring: &'m mut Ring,
    call: Option<&'m EventFd>,
    promptness: &'m mut Promptness,
    faults: &'m mut RingFaults,
    /// Chains that the device has and did not complete yet.
    taken: &'m mut Vec<vhost_core::Chain>,
    log: Option<&'m WriteLog<'m>>,
    /// What another device had, the oldest last; it comes before all others.
    recovered: &'m mut Vec<Resubmission>,
    slices: Lent<'m>,
    budget: Budget,
    unsignalled: u16,
    /// So many of them are signalled within the batch.
    signal_after: u16,
    end: End,
}

/// What is left of a turn. Whoever waits for the ring, to stop it for example, gets it after the turn, so it must be short
/// however large a driver's requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) chains: u16,
    pub(super) bytes: u64,
}

impl Budget {
    /// Of one turn of a ring of this size.
    pub(super) fn of_turn(size: u16) -> Self {
        Self { chains: size.min(256), bytes: 16 << 20 }
    }

    fn is_spent(self) -> bool {
        self.chains == 0 || self.bytes == 0
    }

    fn spend(&mut self, chain: &vhost_core::Chain) {
        let bytes = u64::from(chain.readable_len()) + u64::from(chain.writable_len());
        self.chains = self.chains.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn refund(&mut self, chain: &vhost_core::Chain) {
        let bytes = u64::from(chain.readable_len()) + u64::from(chain.writable_len());
        self.chains = self.chains.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Whether a chain counts against the turn's share.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    /// It is the beginning of something.
    OfTurn,
    /// It belongs to something that has begun.
    Exceeded,
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
    /// A chain needs a translation that is not known.
    Missed(Miss),
    /// The ring cannot be used any more.
    Fault(RingFault),
}

/// What a queue is made of for one pass of the device.
pub(super) struct Parts<'m> {
    pub(super) index: u16,
    pub(super) memory: &'m MemoryTable,
    pub(super) behind: Option<&'m Behind>,
    pub(super) ring: &'m mut Ring,
    pub(super) call: Option<&'m EventFd>,
    pub(super) promptness: &'m mut Promptness,
    pub(super) faults: &'m mut RingFaults,
    pub(super) taken: &'m mut Vec<vhost_core::Chain>,
    pub(super) log: Option<&'m WriteLog<'m>>,
    pub(super) recovered: &'m mut Vec<Resubmission>,
}

impl<'m> Queue<'m> {
    pub(super) fn new(parts: Parts<'m>, spares: &mut Spares, budget: Budget) -> Self {
        let Parts { index, memory: table, behind, ring, call, promptness, faults, taken, log, recovered } = parts;
        let memory = Borrowed::new(table);
        taken.clear();
        let signal_after = promptness.signal_after();
        let (slices, unsignalled, end) = (spares.lend(), 0, End::DeviceStopped);
        Self {
            index,
            table,
            memory,
            behind,
            ring,
            call,
            promptness,
            faults,
            taken,
            log,
            recovered,
            slices,
            budget,
            unsignalled,
            signal_after,
            end,
        }
    }

    /// The next request of the driver; `None` when there is none for now.
    ///
    /// A malformed chain never comes out: it goes back to the driver with length 0 and is counted in the ring's
    /// [faults](crate::vring::RingFaults).
    #[allow(clippy::should_implement_trait, reason = "not an iterator: after None there may be more in the next turn")]
    pub fn next(&mut self) -> Option<Chain<'m>> {
        self.take(Share::OfTurn)
    }

    /// Another chain for what the device has begun to put into chains of this turn, also beyond the turn's share; `None`
    /// when there is none for now.
    pub fn next_for_same(&mut self) -> Option<Chain<'m>> {
        self.take(Share::Exceeded)
    }

    fn take(&mut self, share: Share) -> Option<Chain<'m>> {
        while !matches!(self.end, End::Fault(_)) {
            if share == Share::OfTurn && self.budget.is_spent() {
                self.end = End::BudgetSpent;
                return None;
            }
            let mut pieces = Gathered(self.slices.take());
            let is_plain = self.behind.is_none() && self.recovered.is_empty();
            let popped =
                if is_plain { self.ring.pop(&self.memory, &mut pieces) } else { self.pop_otherwise(&mut pieces) };
            match popped {
                Ok(Some(chain)) => {
                    self.budget.spend(&chain);
                    self.taken.push(chain.clone());
                    return Some(Chain::new(chain, pieces.0, self.log));
                }
                Ok(None) => {
                    self.slices.give(pieces.0);
                    self.end = End::Empty;
                    return None;
                }
                Err(error) => {
                    self.slices.give(pieces.0);
                    self.cannot_take(error)?;
                }
            }
        }
        None
    }

    /// There is a chain that the device cannot have; `None` if there is no other one behind it.
    #[cold]
    fn cannot_take(&mut self, error: PopError) -> Option<()> {
        match error {
            PopError::Malformed { chain, fault } => {
                self.budget.spend(&chain);
                self.faults.record(ChainFault { ring: self.index, id: chain.id(), fault });
                self.push_used(chain, 0);
                return Some(());
            }
            PopError::Ring(fault) => self.end = End::Fault(fault.into()),
            PopError::Miss(miss) => self.end = End::Missed(miss),
        }
        None
    }

    /// The next chain behind an IOMMU, or one that another device had.
    #[inline(never)]
    fn pop_otherwise(&mut self, pieces: &mut Gathered<'m>) -> Result<Option<vhost_core::Chain>, PopError> {
        let (ring, recovered) = (&mut *self.ring, &mut *self.recovered);
        match self.behind {
            None => pop_from(&self.memory, ring, recovered, pieces),
            Some(behind) => behind.memory(self.table, &self.memory, |memory| pop_from(memory, ring, recovered, pieces)),
        }
    }

    /// Gives `chain` back to the driver, with the number of bytes written to its writable part from the start on; a number
    /// beyond that part is cut down to it.
    pub fn complete(&mut self, chain: Chain<'m>, written: u32) {
        self.give_back(chain, written);
        self.publish();
    }

    /// Gives chains back that belong together: the driver sees either none of them or all, and in this order.
    pub fn complete_together(&mut self, chains: impl IntoIterator<Item = (Chain<'m>, u32)>) {
        for (chain, written) in chains {
            self.give_back(chain, written);
        }
        self.publish();
    }

    #[inline]
    fn give_back(&mut self, chain: Chain<'m>, written: u32) {
        chain.log_written(written);
        let (chain, slices) = chain.into_parts();
        self.forget(&chain);
        self.slices.give(slices);
        self.stage(chain, written);
    }

    /// Leaves the chains in the ring that were taken last, given in the order in which they were, as if they had not been: in
    /// the next turn they come again. For a device that [waits for more](Self::is_waiting) than it has got.
    ///
    /// A chain that another device had taken before goes back with length 0, and so does one behind which others were taken.
    pub fn put_back(&mut self, chains: impl IntoIterator<Item = Chain<'m>, IntoIter: DoubleEndedIterator>) {
        for chain in chains.into_iter().rev() {
            let (chain, slices) = chain.into_parts();
            self.forget(&chain);
            self.slices.give(slices);
            match self.ring.untake(chain.clone()) {
                Ok(()) => self.budget.refund(&chain),
                Err(PushError::Ring(fault)) => self.end = End::Fault(fault.into()),
                Err(PushError::NotInOrder { chain } | PushError::NotTaken { chain }) => self.push_used(chain, 0),
            }
        }
    }

    /// Whether there was no chain because one lies where it cannot be reached yet, behind an IOMMU: the queue is processed
    /// again when it can.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.end, End::Missed(_))
    }

    /// Index of the queue in its device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// After the device's pass: returns what it kept, signals the driver, and tells why the pass ended and how many chains
    /// of the turn are left.
    pub(super) fn finish(mut self, spares: &mut Spares) -> (End, Budget) {
        let mut taken = core::mem::take(self.taken);
        for chain in taken.drain(..) {
            self.faults.abandoned = self.faults.abandoned.saturating_add(1);
            self.push_used(chain, 0);
        }
        // Its room is for the next turn.
        *self.taken = taken;
        self.signal();
        self.promptness.batch_ended();
        spares.keep(self.slices);
        (self.end, self.budget)
    }

    /// The device has not got this chain any more.
    #[inline]
    fn forget(&mut self, chain: &vhost_core::Chain) {
        // Normally there is no other: devices that work one chain after another.
        if self.taken.last() == Some(chain) {
            self.taken.pop();
        } else if let Some(at) = self.taken.iter().position(|taken| taken == chain) {
            drop(self.taken.remove(at));
        }
    }

    #[cold]
    fn push_used(&mut self, chain: vhost_core::Chain, written: u32) {
        self.stage(chain, written);
        self.publish();
    }

    #[inline(always)]
    fn stage(&mut self, chain: vhost_core::Chain, written: u32) {
        match self.ring.stage(chain, written) {
            Ok(()) => self.unsignalled = self.unsignalled.saturating_add(1),
            Err(PushError::Ring(fault)) => self.end = End::Fault(fault.into()),
            // Every chain comes from this ring, and IN_ORDER is not offered.
            Err(PushError::NotInOrder { .. } | PushError::NotTaken { .. }) => {}
        }
    }

    #[inline(always)]
    fn publish(&mut self) {
        if let Err(fault) = self.ring.publish() {
            self.end = End::Fault(fault.into());
        } else if self.unsignalled >= self.signal_after {
            self.signal_within_batch();
        }
    }

    /// Has the driver begin with what is complete.
    #[inline(never)]
    fn signal_within_batch(&mut self) {
        let asked = self.ring.driver_event();
        if self.signal() && self.promptness.is_early() && self.ring.driver_event() != asked {
            self.promptness.alternates();
            self.signal_after = self.promptness.signal_after();
        }
    }

    /// Signals the driver if it wants to hear of what is complete. Whether it was signalled.
    fn signal(&mut self) -> bool {
        if core::mem::take(&mut self.unsignalled) == 0 {
            return false;
        }
        match self.ring.needs_call() {
            Ok(true) => {
                if let Some(Err(error)) = self.call.map(EventFd::signal) {
                    self.faults.last_call = Some(error);
                }
                true
            }
            Ok(false) => false,
            Err(fault) => {
                self.end = End::Fault(fault.into());
                false
            }
        }
    }
}

/// The next chain; what another device had comes first.
#[inline]
fn pop_from<'m>(
    memory: &impl GuestMemory<Range = BorrowedRange<'m>>,
    ring: &mut Ring,
    recovered: &mut Vec<Resubmission>,
    pieces: &mut Gathered<'m>,
) -> Result<Option<vhost_core::Chain>, PopError> {
    let Some(oldest) = recovered.last() else {
        return ring.pop(memory, pieces);
    };
    let popped = ring.pop_recovered(oldest, memory, pieces);
    if matches!(popped, Ok(_) | Err(PopError::Malformed { .. })) {
        recovered.pop();
    }
    popped.map(Some)
}

/// Gathers the pieces of a chain in a vector that is used again and again.
struct Gathered<'m>(Vec<VolatileSlice<'m>>);

impl<'m> ChainBuffer<BorrowedRange<'m>> for Gathered<'m> {
    fn clear(&mut self) {
        self.0.clear();
    }

    fn push(&mut self, piece: BorrowedRange<'m>) -> Result<(), NoRoom> {
        self.0.push(piece.slice());
        Ok(())
    }
}

impl fmt::Debug for Queue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("index", &self.index).field("budget", &self.budget).finish_non_exhaustive()
    }
}
