//! A ring's turn: passes of the device until nothing is left, or the turn's share is used up.

use super::queue::{Budget, End, Parts, Queue};
use super::{RingFault, Turn, Vring};
use crate::device::Device;
use crate::memory::WriteLog;

impl Vring {
    pub(super) fn turn(&mut self, device: &dyn Device) -> Result<Turn, RingFault> {
        let mut budget = Budget::of_turn(self.size);
        loop {
            let Some(ring) = &mut self.running else { return Ok(Turn::Idle) };
            ring.disable_kicks()?;
            let (end, left) = self.pass(device, budget)?;
            match end {
                End::Fault(fault) => return Err(fault),
                End::BudgetSpent => return Ok(Turn::More),
                End::DeviceStopped | End::Empty => {
                    let Some(ring) = &mut self.running else { return Ok(Turn::Idle) };
                    let more = ring.enable_kicks()? || self.has_recovered();
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

    /// Lets `device` work on the ring once. Tells why it stopped, and what is left of the budget.
    pub(super) fn pass(&mut self, device: &dyn Device, budget: Budget) -> Result<(End, Budget), RingFault> {
        let (Some(ring), Some(memory)) = (&mut self.running, &self.memory) else {
            return Ok((End::DeviceStopped, budget));
        };
        let log = self.log.as_ref().map(|log| (WriteLog::new(&log.file, memory), &log.file));
        let parts = Parts {
            index: self.index,
            memory,
            ring,
            call: self.call.as_ref(),
            faults: &mut self.faults,
            taken: &mut self.taken,
            recovered: &mut self.recovery.pending,
            log: log.as_ref().map(|(writes, _)| writes),
        };
        let mut queue = Queue::new(parts, &mut self.spares, budget);
        device.process(&mut queue);
        let (end, left) = queue.finish(&mut self.spares);
        if let Some((writes, file)) = &log {
            writes.outcome().map_err(vhost_core::RingFault::Log)?;
            if left != budget {
                file.announce();
            }
        }
        Ok((end, left))
    }
}
