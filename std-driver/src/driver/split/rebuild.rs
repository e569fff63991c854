//! A ring after its device has gone: what it had not used is offered again.

use core::sync::atomic::Ordering;

use super::{Chain, SplitRing, index};
use crate::driver::DriverError;

impl SplitRing {
    /// Prepares the ring for another device that takes over, after [`poll_used`](Self::poll_used) has said that there is
    /// nothing left.
    ///
    /// All that the device before had not used is offered again, in the order in which it was added and from
    /// [`base`](Self::base) on. The device before must have gone, or be stopped. Chains that it had begun are carried
    /// out twice, which is right for requests that can be repeated; see the record of requests in flight for others.
    ///
    /// # Errors
    /// [`UsedNotTaken`](DriverError::UsedNotTaken).
    pub fn rebuild(&mut self) -> Result<(), DriverError> {
        if self.area.load_u16(self.layout.used_index(), Ordering::Acquire)? != self.used {
            return Err(DriverError::UsedNotTaken);
        }
        // The device before may have written anywhere before it died.
        for (at, descriptor) in (0..).zip(&self.descriptors) {
            self.area.write(self.layout.descriptor(at), &descriptor.to_bytes())?;
        }
        let outstanding = self.in_order();
        // The next device begins at the used index, which is the number of all chains but these.
        self.added -= outstanding.len() as u64;
        for (head, chain) in outstanding {
            for position in 0..if chain.indirect { chain.buffers } else { 0 } {
                let at = usize::from(head) * usize::from(self.layout.table_size) + usize::from(position);
                let descriptor = self.tables.get(at).copied().unwrap_or_default();
                self.area.write(self.layout.indirect(head, position), &descriptor.to_bytes())?;
            }
            self.offer(head)?;
        }
        self.write_indices()
    }

    /// Makes the ring new. The tokens of the chains that were in it, in the order in which they were added.
    ///
    /// # Errors
    /// None that a ring which was made without error can have.
    pub fn reset(&mut self) -> Result<Vec<u64>, DriverError> {
        let tokens = self.outstanding();
        self.area.clear()?;
        self.chains.fill(None);
        self.free.clear();
        // The first to be taken is at the end.
        self.free.extend((0..self.size).rev());
        (self.added, self.used) = (0, 0);
        self.write_indices()?;
        Ok(tokens)
    }

    /// The chains that are not used yet, by their first descriptors.
    pub(super) fn in_order(&self) -> Vec<(u16, Chain)> {
        let chains = (0..).zip(&self.chains).filter_map(|(head, chain)| Some((head, (*chain)?)));
        let mut chains: Vec<(u16, Chain)> = chains.collect();
        chains.sort_by_key(|(_, chain)| chain.order);
        chains
    }

    /// Publishes everything and takes back all wishes about notifications, of both sides.
    fn write_indices(&mut self) -> Result<(), DriverError> {
        self.published = self.added;
        self.given = index(self.added).wrapping_sub(self.used);
        for (offset, value) in [
            (self.layout.used_flags(), 0),
            (self.layout.used_index(), self.used),
            // The next chain is worth a kick.
            (self.layout.available_event(), index(self.added)),
            (self.layout.available, 0),
            (self.layout.used_event(), self.used),
        ] {
            self.area.store_u16(offset, value, Ordering::Relaxed)?;
        }
        self.area.store_u16(self.layout.available_index(), index(self.added), Ordering::Release)
    }
}
