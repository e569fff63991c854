//! A turn of a ring: its device takes what is waiting, within a budget.

use super::behind::Progress;
use super::queue::{Budget, End, Parts, Queue};
use super::{RingFault, Vring};
use crate::device::Device;
use crate::memory::WriteLog;

/// What is left to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// Nothing: the next kick says when there is.
    Idle,
    /// The turn's share of chains is used up and no kick will come for the rest: call [`Vring::process`] again.
    More,
}

impl Vring {
    /// Lets `device` serve what the driver made available: a turn of at most 256 chains, and of 16 MiB but for the last one.
    ///
    /// Does nothing unless the ring is started and enabled.
    ///
    /// # Errors
    /// When the ring itself is broken. It is stopped then, and its error descriptor was signalled.
    pub fn process(&mut self, device: &dyn Device) -> Result<Turn, RingFault> {
        self.scan_due = false;
        if !self.enabled || !self.is_translated() {
            return Ok(Turn::Idle);
        }
        let turn = self.turn(device).inspect_err(|fault| {
            self.fail(*fault);
            self.broken = true;
        })?;
        self.scan_due = turn == Turn::More;
        if self.running.is_some() {
            self.kick.wind_clock();
        }
        Ok(turn)
    }

    fn turn(&mut self, device: &dyn Device) -> Result<Turn, RingFault> {
        let whole = Budget::of_turn(self.size);
        let mut budget = whole;
        loop {
            let Some(ring) = &mut self.running else {
                return Ok(Turn::Idle);
            };
            ring.disable_kicks()?;
            let (end, left) = self.pass(device, budget)?;
            match end {
                End::Fault(fault) => return Err(fault),
                End::BudgetSpent => return Ok(Turn::More),
                End::Missed(miss) => {
                    return self.missed(miss, if left == whole { Progress::None } else { Progress::Some });
                }
                End::DeviceStopped | End::Empty => {
                    let Some(ring) = &mut self.running else {
                        return Ok(Turn::Idle);
                    };
                    // What cannot be taken again now is tried in the next turn.
                    let recovered = left != budget && !self.recovery.pending.is_empty();
                    let waiting = if self.attended { ring.has_available() } else { ring.enable_kicks() };
                    let more = waiting? || recovered;
                    // A device that neither took a chain nor asked to the end leaves them on purpose.
                    let willing = end == End::Empty || left != budget;
                    if !(more && willing) {
                        return Ok(Turn::Idle);
                    }
                    // More came after the device looked, and no kick will tell. A pass without any chain counts too, so
                    // that there is an end to it.
                    let chains = left.chains.min(budget.chains.saturating_sub(1));
                    budget = Budget { chains, ..left };
                }
            }
        }
    }

    /// Lets the device look at the ring once. Returns why it stopped, and what is left of the budget.
    pub(super) fn pass(&mut self, device: &dyn Device, budget: Budget) -> Result<(End, Budget), RingFault> {
        let (Some(ring), Some(memory)) = (&mut self.running, &self.memory) else {
            return Ok((End::DeviceStopped, budget));
        };
        let log = self.log.as_ref().map(|log| (WriteLog::new(&log.file, memory), &log.file));
        let parts = Parts {
            index: self.index,
            memory,
            behind: self.behind.as_deref(),
            ring,
            call: self.call.as_ref(),
            promptness: &mut self.promptness,
            faults: &mut self.faults,
            taken: &mut self.taken,
            log: log.as_ref().map(|(writes, _)| writes),
            recovered: &mut self.recovery.pending,
        };
        let mut queue = Queue::new(parts, &mut self.spares, budget);
        device.process(&mut queue);
        let (end, left) = queue.finish(&mut self.spares);
        if let Some((writes, file)) = &log {
            writes.outcome().map_err(RingFault::Log)?;
            if left != budget {
                file.announce();
            }
        }
        Ok((end, left))
    }
}
