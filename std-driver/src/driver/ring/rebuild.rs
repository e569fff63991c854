//! A ring after its device has gone: what it had not used is offered again.

use super::{Chain, DriverRing, Queue};
use crate::driver::DriverError;

impl DriverRing {
    /// Prepares the ring for another device that takes over, after [`poll_used`](Self::poll_used) has said that there is
    /// nothing left.
    ///
    /// The ring is made anew and begins where a new one does, see [`base`](Self::base). All that the device before had not
    /// used is offered again, in the order in which it was added; the next [`publish`](Self::publish) says whether to kick
    /// for it. The device before must have gone, or be stopped. Chains that it had begun are carried out twice, which is
    /// right for requests that can be repeated; see the record of requests in flight for others.
    ///
    /// # Errors
    /// [`UsedNotTaken`](DriverError::UsedNotTaken), [`Device`](DriverError::Device).
    pub fn rebuild(&mut self) -> Result<(), DriverError> {
        if self.request_call()? {
            return Err(DriverError::UsedNotTaken);
        }
        for chain in self.start_over()? {
            let (readable, writable) = chain.buffers.split_at_checked(chain.readable).unwrap_or_default();
            self.add(readable, writable, chain.token)?;
            self.spare.push(chain.buffers);
        }
        Ok(self.queue.publish()?)
    }

    /// Makes the ring new. The tokens of the chains that were in it, in the order in which they were added.
    ///
    /// # Errors
    /// None that a ring which was made without error can have.
    pub fn reset(&mut self) -> Result<Vec<u64>, DriverError> {
        let mut tokens = Vec::new();
        for chain in self.start_over()? {
            tokens.push(chain.token);
            self.spare.push(chain.buffers);
        }
        Ok(tokens)
    }

    /// Clears the ring and its tables, in which the device may have written anything. The chains that were in it, in the
    /// order in which they were added.
    fn start_over(&mut self) -> Result<Vec<Chain>, DriverError> {
        self.area.clear()?;
        *self.queue = Queue::new(self.parts.clone(), self.options.size.into(), self.options.features)?;
        let mut chains: Vec<Chain> = self.chains.iter_mut().filter_map(Option::take).collect();
        for chain in &mut chains {
            self.tables.extend(chain.table.take());
        }
        chains.sort_unstable_by_key(|chain| chain.order);
        Ok(chains)
    }
}
