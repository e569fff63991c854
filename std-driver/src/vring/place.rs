//! Where a ring lies, and its parts there.

use vhost_core::{RingParts, RingUser};

use super::behind::{Behind, BehindIommu};
use super::{RingAddresses, RingFault, Vring};
use crate::memory::{MemoryTable, OwnedRange};

/// Where a ring lies.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// There in guest memory.
    Guest(RingAddresses),
    /// Where translations say.
    Behind(BehindIommu),
}

impl Vring {
    /// Tells whether the ring could be there, as far as its memory and its size are known. Nothing changes.
    ///
    /// # Errors
    /// When a part would be misaligned or outside the memory.
    pub fn check_addresses(&self, addresses: RingAddresses) -> Result<(), RingFault> {
        match (&self.memory, self.size) {
            (Some(memory), size @ 1..) => self.parts_at(memory, addresses, size).map(drop),
            _ => Ok(()),
        }
    }

    /// Sets the places of the ring's parts; a started ring goes on there.
    ///
    /// # Errors
    /// When a started ring cannot be there: it is stopped then.
    pub fn set_addresses(&mut self, addresses: RingAddresses) -> Result<(), RingFault> {
        self.addresses = Some(addresses);
        self.translate_again()
    }

    /// Replaces guest memory, together with the ring's places in it (`None`: unknown); a started ring goes on there.
    ///
    /// # Errors
    /// When a started ring cannot be there: it is stopped then.
    pub fn set_memory(&mut self, memory: MemoryTable, addresses: Option<RingAddresses>) -> Result<(), RingFault> {
        self.memory = Some(memory);
        self.addresses = addresses;
        self.translate_again()
    }

    /// Replaces guest memory, together with the ring's place (`None`: unknown); a started ring goes on there.
    ///
    /// # Errors
    /// When a started ring cannot be there: it is stopped then.
    pub(crate) fn set_place(&mut self, memory: MemoryTable, place: Option<Place>) -> Result<(), RingFault> {
        let addresses = match place {
            Some(Place::Behind(place)) => {
                match &mut self.behind {
                    Some(behind) => behind.place = place,
                    None => self.behind = Some(Box::new(Behind::new(place))),
                }
                None
            }
            Some(Place::Guest(addresses)) => {
                self.leave_iommu();
                Some(addresses)
            }
            None => {
                self.leave_iommu();
                None
            }
        };
        self.set_memory(memory, addresses)
    }

    /// The parts where the ring is now.
    pub(super) fn parts(&self) -> Result<RingParts<OwnedRange>, RingFault> {
        match (&self.memory, self.size, &self.behind, self.addresses) {
            (Some(memory), size @ 1.., Some(behind), _) => behind.parts(memory, self.layout(), size),
            (Some(memory), size @ 1.., None, Some(addresses)) => self.parts_at(memory, addresses, size),
            _ => Err(RingFault::NotConfigured),
        }
    }

    fn parts_at(
        &self,
        memory: &MemoryTable,
        addresses: RingAddresses,
        size: u16,
    ) -> Result<RingParts<OwnedRange>, RingFault> {
        Ok(RingParts::translate(memory, addresses, self.layout(), size.into(), RingUser::Device)?)
    }

    pub(super) fn translate_again(&mut self) -> Result<(), RingFault> {
        if self.running.is_none() {
            return Ok(());
        }
        let parts = match self.parts() {
            Err(fault) if self.waits_because_of(fault) => return Ok(()),
            parts => parts.inspect_err(|fault| self.fail(*fault))?,
        };
        if let Some(ring) = &mut self.running {
            ring.relocate(parts);
        }
        self.is_in_place();
        self.scan();
        Ok(())
    }
}
