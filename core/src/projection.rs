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

/// What is outstanding in a session, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Later<'s> {
    pending: &'s [Pending<Effect>],
    /// The regions of the one memory table that may be pending.
    table: &'s [RegionExtent],
    /// The features that there will be.
    negotiated: Negotiated,
    /// How far postcopy migration will be.
    postcopy: Postcopy,
}

impl<'s> Later<'s> {
    /// What these requests make of a session; `None` if there are none.
    pub(crate) fn of<const VRINGS: usize, const REGIONS: usize>(
        session: &Session<VRINGS, REGIONS>,
        pending: &'s [Pending<Effect>],
        table: &'s TableExtents,
    ) -> Option<Self> {
        if pending.is_empty() {
            return None;
        }
        let (mut negotiated, mut postcopy) = (session.negotiated, session.postcopy);
        for Pending { effect, .. } in pending {
            negotiated.apply(effect);
            postcopy = postcopy.after(effect);
        }
        Some(Self { pending, table, negotiated, postcopy })
    }

    /// What becomes of ring `index`.
    #[inline(never)]
    fn ring(&self, index: u8, now: Vring) -> Vring {
        let mut ring = now;
        for Pending { effect, .. } in self.pending {
            if let Some(change) = effect.on_ring(index) {
                ring.change(change);
            }
        }
        ring
    }
}

/// A session as it will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Projection<'s, const VRINGS: usize, const REGIONS: usize> {
    session: &'s Session<VRINGS, REGIONS>,
    /// `None` if it is so already.
    later: Option<&'s Later<'s>>,
}

impl<'s, const VRINGS: usize, const REGIONS: usize> Projection<'s, VRINGS, REGIONS> {
    /// A session to which this is about to happen.
    #[inline]
    pub(crate) fn new(session: &'s Session<VRINGS, REGIONS>, later: Option<&'s Later<'s>>) -> Self {
        Self { session, later }
    }

    /// The features.
    #[inline]
    pub(crate) fn negotiated(&self) -> &'s Negotiated {
        self.later.map_or(&self.session.negotiated, |later| &later.negotiated)
    }

    /// How far postcopy migration is.
    #[inline]
    pub(crate) fn postcopy(&self) -> Postcopy {
        self.later.map_or(self.session.postcopy, |later| later.postcopy)
    }

    /// Ring `index`; one that is not set up beyond the rings of the machine.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn ring(&self, index: u8) -> Vring {
        let ring = self.session.rings.get(usize::from(index)).copied().unwrap_or_default();
        self.later.map_or(ring, |later| later.ring(index, ring))
    }

    /// The first ring that runs.
    #[cfg_attr(for_size, inline(never))]
    pub(crate) fn running_ring(&self) -> Option<u8> {
        let mut rings = (0..=u8::MAX).zip(&self.session.rings);
        rings.find_map(|(index, _)| self.ring(index).is_running().then_some(index))
    }

    /// A memory region that shares an address with this one.
    #[cfg_attr(for_size, inline(never))]
    pub(crate) fn overlapping(&self, extent: &RegionExtent) -> Option<&RegionExtent> {
        match self.later {
            None => self.session.memory.overlapping(extent),
            Some(later) => self.find(later, extent, RegionExtent::overlaps),
        }
    }

    /// Whether there is exactly this region.
    pub(crate) fn has_region(&self, extent: &RegionExtent) -> bool {
        match self.later {
            None => self.session.memory.at(extent.guest_address) == Some(extent),
            Some(later) => self.find(later, extent, RegionExtent::eq).is_some(),
        }
    }

    /// How many memory regions there are.
    #[cfg_attr(for_size, inline(never))]
    pub(crate) fn region_count(&self) -> usize {
        let Some(later) = self.later else { return self.session.memory.regions().len() };
        let (regions, later) = self.memory(later);
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
        later: &Later<'s>,
        extent: &RegionExtent,
        wanted: fn(&RegionExtent, &RegionExtent) -> bool,
    ) -> Option<&'s RegionExtent> {
        let (regions, mut later) = self.memory(later);
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
    fn memory(&self, later: &Later<'s>) -> (&'s [RegionExtent], &'s [Pending<Effect>]) {
        let mut memory = (self.session.memory.regions(), later.pending);
        let mut pending = later.pending;
        while let [Pending { effect, .. }, rest @ ..] = pending {
            pending = rest;
            if matches!(effect, Effect::ReplaceMemory) {
                memory = (later.table, pending);
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
