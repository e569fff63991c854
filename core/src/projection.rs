//! The session as it will be once everything outstanding is granted.
//!
//! A front-end that does not wait for its answers judges its next request by this; the back-end,
//! which answers one request at a time, has nothing outstanding.

use crate::{
    channel::Pending,
    memory_map::{RegionExtent, TableExtents},
    session::{Effect, Negotiated, Postcopy, Session},
    vring::Vring,
};

/// A session and the requests that will change it, in order.
#[derive(Clone, Debug)]
pub(crate) struct Projection<'s, const VRINGS: usize, const REGIONS: usize> {
    session: &'s Session<VRINGS, REGIONS>,
    pending: &'s [Pending<Effect>],
    /// The regions of the one memory table that may be pending.
    table: &'s [RegionExtent],
    /// The features.
    pub(crate) negotiated: Negotiated,
    /// How far postcopy migration is.
    pub(crate) postcopy: Postcopy,
}

impl<'s, const VRINGS: usize, const REGIONS: usize> Projection<'s, VRINGS, REGIONS> {
    /// A session to which nothing is about to happen.
    pub(crate) fn settled(session: &'s Session<VRINGS, REGIONS>) -> Self {
        let (negotiated, postcopy) = (session.negotiated, session.postcopy);
        Self { session, pending: &[], table: &[], negotiated, postcopy }
    }

    pub(crate) fn new(
        session: &'s Session<VRINGS, REGIONS>,
        pending: &'s [Pending<Effect>],
        table: &'s TableExtents,
    ) -> Self {
        let mut state = Self { pending, table, ..Self::settled(session) };
        for Pending { effect, .. } in pending {
            state.negotiated.apply(effect);
            state.postcopy = state.postcopy.after(effect);
        }
        state
    }

    /// Ring `index`; one that is not set up beyond the rings of the machine.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn ring(&self, index: u8) -> Vring {
        let mut ring = self.session.rings.get(usize::from(index)).copied().unwrap_or_default();
        for Pending { effect, .. } in self.pending {
            if let Some(change) = effect.on_ring(index) {
                ring.change(change);
            }
        }
        ring
    }

    /// The first ring that runs.
    pub(crate) fn running_ring(&self) -> Option<u8> {
        let mut rings = (0..=u8::MAX).zip(&self.session.rings);
        rings.find_map(|(index, _)| self.ring(index).is_running().then_some(index))
    }

    /// A memory region that shares an address with this one.
    pub(crate) fn overlapping(&self, extent: &RegionExtent) -> Option<&RegionExtent> {
        if self.pending.is_empty() {
            return self.session.memory.overlapping(extent);
        }
        self.find(extent, RegionExtent::overlaps)
    }

    /// Whether there is exactly this region.
    pub(crate) fn has_region(&self, extent: &RegionExtent) -> bool {
        if self.pending.is_empty() {
            return self.session.memory.at(extent.guest_address) == Some(extent);
        }
        self.find(extent, RegionExtent::eq).is_some()
    }

    /// How many memory regions there are.
    pub(crate) fn region_count(&self) -> usize {
        let (regions, later) = self.memory();
        later.iter().fold(regions.len(), |count, pending| match pending.effect {
            Effect::AddRegion(_) => count.saturating_add(1),
            Effect::RemoveRegion(_) => count.saturating_sub(1),
            _ => count,
        })
    }

    /// A memory region that is to this one as wanted.
    #[cold]
    #[inline(never)]
    fn find(
        &self,
        extent: &RegionExtent,
        wanted: fn(&RegionExtent, &RegionExtent) -> bool,
    ) -> Option<&'s RegionExtent> {
        let (regions, mut later) = self.memory();
        for region in regions {
            if wanted(region, extent) && is_kept(region, later) {
                return Some(region);
            }
        }
        while let [Pending { effect, .. }, rest @ ..] = later {
            later = rest;
            if let Effect::AddRegion(region) = effect
                && wanted(region, extent)
                && is_kept(region, later)
            {
                return Some(region);
            }
        }
        None
    }

    /// The memory regions as of the last table, and the requests after it.
    fn memory(&self) -> (&'s [RegionExtent], &'s [Pending<Effect>]) {
        let mut memory = (self.session.memory.regions(), self.pending);
        let mut later = self.pending;
        while let [Pending { effect, .. }, rest @ ..] = later {
            later = rest;
            if matches!(effect, Effect::ReplaceMemory) {
                memory = (self.table, later);
            }
        }
        memory
    }
}

/// Whether none of these requests removes a region.
fn is_kept(region: &RegionExtent, later: &[Pending<Effect>]) -> bool {
    let removes = |pending: &Pending<Effect>| match &pending.effect {
        Effect::RemoveRegion(gone) => *gone == region.guest_address,
        _ => false,
    };
    !later.iter().any(removes)
}
