//! The session as it will be once everything outstanding is granted.
//!
//! A front-end that does not wait for its answers judges its next request by this; the back-end,
//! which answers one request at a time, has nothing outstanding.

use crate::{
    channel::Question,
    memory_map::{RegionExtent, TableExtents},
    session::{Effect, Negotiated, Postcopy, Session},
    vring::Vring,
};

/// A session and the requests that will change it, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Projection<'s, const VRINGS: usize, const REGIONS: usize> {
    pub(crate) session: &'s Session<VRINGS, REGIONS>,
    pub(crate) pending: &'s [Question<Effect>],
    /// The regions of the one memory table that may be pending.
    pub(crate) table: &'s [RegionExtent],
}

impl<'s, const VRINGS: usize, const REGIONS: usize> Projection<'s, VRINGS, REGIONS> {
    /// A session to which nothing is about to happen.
    pub(crate) const fn settled(session: &'s Session<VRINGS, REGIONS>) -> Self {
        Self { session, pending: &[], table: &[] }
    }

    pub(crate) fn new(
        session: &'s Session<VRINGS, REGIONS>,
        pending: &'s [Question<Effect>],
        table: &'s TableExtents,
    ) -> Self {
        Self { session, pending, table }
    }

    /// The features.
    pub(crate) fn negotiated(&self) -> Negotiated {
        let mut negotiated = self.session.negotiated;
        self.effects().for_each(|effect| negotiated.apply(effect));
        negotiated
    }

    /// How far postcopy migration is.
    pub(crate) fn postcopy(&self) -> Postcopy {
        self.effects().fold(self.session.postcopy, Postcopy::after)
    }

    /// Ring `index`; `None` beyond the rings of the machine.
    pub(crate) fn ring(&self, index: u8) -> Option<Vring> {
        let mut ring = *self.session.rings.get(usize::from(index))?;
        if self.pending.is_empty() {
            return Some(ring);
        }
        self.effects().filter(|effect| effect.concerns_ring(index)).for_each(|effect| effect.apply_to(&mut ring));
        Some(ring)
    }

    /// The first ring that runs.
    pub(crate) fn running_ring(&self) -> Option<u8> {
        (0..=u8::MAX).zip(&self.session.rings).map(|(index, _)| index).find(|index| self.is_running(*index))
    }

    /// A memory region that shares an address with this one.
    pub(crate) fn overlapping(&self, extent: &RegionExtent) -> Option<RegionExtent> {
        let (table, later) = self.memory();
        let kept = |region: &RegionExtent| is_kept(region, later);
        let found = match table {
            Some(table) => table.iter().find(|region| region.overlaps(extent) && kept(region)).copied(),
            None => self.session.memory.overlapping(extent, kept),
        };
        found.or_else(|| added(later).find(|region| region.overlaps(extent)))
    }

    /// Whether there is exactly this region.
    pub(crate) fn has_region(&self, extent: &RegionExtent) -> bool {
        let (table, later) = self.memory();
        let present = match table {
            Some(table) => table.contains(extent),
            None => self.session.memory.at(extent.guest_address) == Some(extent),
        };
        present && is_kept(extent, later) || added(later).any(|region| region == *extent)
    }

    /// How many memory regions there are.
    pub(crate) fn region_count(&self) -> usize {
        let (table, later) = self.memory();
        let base = table.unwrap_or(self.session.memory.regions()).len();
        later.iter().fold(base, |count, question| match question.effect {
            Some(Effect::AddRegion(_)) => count.saturating_add(1),
            Some(Effect::RemoveRegion(_)) => count.saturating_sub(1),
            _ => count,
        })
    }

    /// The memory table that is pending, and the requests after it.
    fn memory(&self) -> (Option<&'s [RegionExtent]>, &'s [Question<Effect>]) {
        let table = tails(self.pending).filter(|(first, _)| matches!(first.effect, Some(Effect::ReplaceMemory))).last();
        table.map_or((None, self.pending), |(_, later)| (Some(self.table), later))
    }

    fn is_running(&self, index: u8) -> bool {
        self.ring(index).is_some_and(|ring| ring.is_running())
    }

    fn effects(&self) -> impl Iterator<Item = &'s Effect> {
        self.pending.iter().filter_map(|question| question.effect.as_ref())
    }
}

/// Each item with those that come after it.
fn tails<T>(items: &[T]) -> impl Iterator<Item = (&T, &[T])> {
    let mut rest = items;
    core::iter::from_fn(move || {
        let (first, tail) = rest.split_first()?;
        rest = tail;
        Some((first, tail))
    })
}

/// Whether none of these requests removes a region.
fn is_kept(region: &RegionExtent, later: &[Question<Effect>]) -> bool {
    let removes = |question: &Question<Effect>| match &question.effect {
        Some(Effect::RemoveRegion(gone)) => gone.guest_address == region.guest_address,
        _ => false,
    };
    !later.iter().any(removes)
}

/// The regions that these requests add and do not remove again.
fn added(pending: &[Question<Effect>]) -> impl Iterator<Item = RegionExtent> {
    tails(pending).filter_map(|(question, later)| match question.effect {
        Some(Effect::AddRegion(extent)) if is_kept(&extent, later) => Some(extent),
        _ => None,
    })
}
