//! A ring behind an IOMMU: it and its buffers are where the front-end's translations say, and it waits for those it lacks.

use std::sync::Arc;

use vhost_core::{IotlbMemory, Iova, Miss, PartFault, RingAddresses, RingLayout, RingParts, RingUser, Unmapped};

use super::{RingFault, Turn, Vring};
use crate::iommu::{Iommu, TRANSLATIONS};
use crate::memory::{AddressSpace, Borrowed, MemoryTable, OwnedRange, ScatteredMemory, Targets};

/// Misses in a row without a chain taken. A chain that needs more translations than are kept would go on for ever, whoever
/// made it.
const FRUITLESS_MISSES: usize = 2 * TRANSLATIONS;

/// A place in a driver's own address space.
#[derive(Clone, Debug)]
pub(crate) struct BehindIommu {
    /// The translations.
    pub(crate) iommu: Arc<Iommu>,
    /// Which addresses they lead to.
    pub(crate) space: AddressSpace,
    /// Where the ring is for its driver.
    pub(crate) addresses: RingAddresses<Iova>,
}

/// What a ring behind an IOMMU knows.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) place: BehindIommu,
    standing: Standing,
    /// What the ring cannot go on without.
    waits_for: Option<Miss>,
    /// How many times it has waited since it took a chain.
    fruitless: usize,
}

/// What becomes of the ring's parts when their translation comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// They are there, or the ring is stopped.
    Translated,
    /// The ring starts.
    Starting,
    /// The ring goes on: a translation was taken back, and they must not be used.
    Stale,
}

impl Behind {
    pub(super) fn new(place: BehindIommu) -> Self {
        Self { place, standing: Standing::Translated, waits_for: None, fruitless: 0 }
    }

    /// The parts of the ring as they are translated now.
    pub(super) fn parts(
        &self,
        memory: &MemoryTable,
        layout: RingLayout,
        size: u16,
    ) -> Result<RingParts<OwnedRange>, RingFault> {
        let BehindIommu { iommu, space, addresses } = &self.place;
        let parts = iommu.look_up(|iotlb| {
            let memory = ScatteredMemory { iotlb, table: memory, space: *space };
            RingParts::translate(&memory, *addresses, layout, size.into(), RingUser::Device)
        });
        Ok(parts?)
    }

    /// Gives `use_memory` the memory by the addresses that the driver uses.
    pub(super) fn memory<'m, T>(
        &self,
        table: &'m MemoryTable,
        borrowed: &Borrowed<'m>,
        use_memory: impl FnOnce(&Translated<'_, '_, 'm>) -> T,
    ) -> T {
        let BehindIommu { iommu, space, .. } = &self.place;
        iommu.look_up(|iotlb| use_memory(&IotlbMemory::new(iotlb, Targets::new(table, borrowed, *space))))
    }

    /// Whether the ring cannot go on.
    fn is_waiting(&mut self, index: u16) -> bool {
        let Some(miss) = &self.waits_for else { return false };
        if self.place.iommu.misses(miss) {
            return true;
        }
        self.waits_for = None;
        self.place.iommu.wait_no_longer(index);
        false
    }

    fn wait_for(&mut self, index: u16, miss: Miss) {
        self.waits_for = Some(miss);
        self.place.iommu.wait_for(index, miss);
    }

    /// Whether a part of the ring is among these addresses.
    fn lies_in(&self, layout: RingLayout, size: u16, first: Iova, last: Iova) -> bool {
        let RingAddresses { descriptor, driver, device } = self.place.addresses;
        layout.lengths(size).into_iter().zip([descriptor, driver, device]).any(|(length, start)| {
            let end = start.0.saturating_add(length.saturating_sub(1));
            start <= last && first.0 <= end
        })
    }
}

/// Guest memory by the addresses that a driver behind an IOMMU uses.
pub(super) type Translated<'i, 'b, 'm> = IotlbMemory<'i, Targets<'b, 'm>, vhost_core::UserAddress, TRANSLATIONS>;

impl Vring {
    /// Goes on, or starts, if what the ring waits for is there.
    pub(crate) fn retry(&mut self) {
        let index = self.index;
        let Some(behind) = &mut self.behind else { return };
        if behind.is_waiting(index) {
            return;
        }
        if behind.standing == Standing::Starting {
            self.start_late();
        } else {
            self.scan();
        }
    }

    /// Starts what waited for its parts to be translated.
    fn start_late(&mut self) {
        self.is_in_place();
        if let Err(fault) = self.start() {
            self.fail(fault);
        }
    }

    /// Asks once more for what the ring waits for: whoever was asked before may not be there any more.
    pub(crate) fn ask_again(&mut self) {
        if let Some(behind) = &mut self.behind
            && let Some(miss) = behind.waits_for
        {
            behind.place.iommu.wait_for(self.index, miss);
        }
    }

    /// These translations were taken back. Nobody uses them when this returns.
    pub(crate) fn invalidate(&mut self, first: Iova, last: Iova) {
        let (layout, size) = (self.layout(), self.size);
        if let Some(behind) = self.behind.as_mut().filter(|_| self.running.is_some())
            && behind.lies_in(layout, size, first, last)
        {
            behind.standing = Standing::Stale;
        }
    }

    /// Whether the ring may be used. If not, it waits, or was stopped because it is nowhere.
    pub(super) fn is_translated(&mut self) -> bool {
        let index = self.index;
        let Some(behind) = &mut self.behind else { return true };
        if behind.is_waiting(index) {
            return false;
        }
        if behind.standing == Standing::Starting {
            // Whoever finds the translation first starts the ring, because it is on nobody's list any more.
            self.start_late();
            return self.running.is_some();
        }
        if behind.standing == Standing::Stale {
            // A fault is kept, and was signalled.
            return self.translate_again().is_ok()
                && self.behind.as_ref().is_none_or(|behind| behind.waits_for.is_none());
        }
        true
    }

    /// Whether a ring that starts, or goes on elsewhere, has to wait because of `fault`.
    pub(super) fn waits_because_of(&mut self, fault: RingFault) -> bool {
        let RingFault::Misplaced(PartFault::Unmapped { cause: Unmapped::Miss(miss), .. }) = fault else {
            return false;
        };
        let (index, runs) = (self.index, self.running.is_some());
        let Some(behind) = &mut self.behind else { return false };
        behind.standing = if runs { Standing::Stale } else { Standing::Starting };
        if behind.waits_for != Some(miss) {
            behind.wait_for(index, miss);
        }
        true
    }

    /// A started ring's parts were translated.
    pub(super) fn is_in_place(&mut self) {
        if let Some(behind) = &mut self.behind {
            behind.standing = Standing::Translated;
        }
    }

    /// The next chain lacks a translation, after `progress`.
    pub(super) fn missed(&mut self, miss: Miss, progress: Progress) -> Result<Turn, RingFault> {
        let index = self.index;
        let Some(behind) = &mut self.behind else { return Ok(Turn::Idle) };
        behind.fruitless = if progress == Progress::Some { 0 } else { behind.fruitless.saturating_add(1) };
        if behind.fruitless > FRUITLESS_MISSES {
            return Err(RingFault::TooManyTranslations);
        }
        behind.wait_for(index, miss);
        // It may have come before the ring waited.
        Ok(if behind.is_waiting(index) { Turn::Idle } else { Turn::More })
    }

    /// A ring that is stopped waits for nothing.
    pub(super) fn wait_no_longer(&mut self) {
        if let Some(behind) = &mut self.behind {
            (behind.standing, behind.waits_for, behind.fruitless) = (Standing::Translated, None, 0);
            behind.place.iommu.wait_no_longer(self.index);
        }
    }

    pub(super) fn leave_iommu(&mut self) {
        self.wait_no_longer();
        self.behind = None;
    }
}

/// Whether a turn took a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    None,
    Some,
}
