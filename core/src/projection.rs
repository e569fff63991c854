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
        self.effects().filter(|effect| effect.concerns_ring(index)).for_each(|effect| effect.apply_to(&mut ring));
        Some(ring)
    }

    /// The first ring that runs.
    pub(crate) fn running_ring(&self) -> Option<u8> {
        (0..=u8::MAX).zip(&self.session.rings).map(|(index, _)| index).find(|index| self.is_running(*index))
    }

    /// The memory regions, in no order.
    pub(crate) fn regions(&self) -> impl Iterator<Item = RegionExtent> + 's {
        let after_table = tails(self.pending).filter(|(first, _)| first.effect == Some(Effect::ReplaceMemory)).last();
        let (base, later) = match after_table {
            Some((_, later)) => (self.table, later),
            None => (self.session.memory.regions(), self.pending),
        };
        let added = tails(later).filter_map(|(question, since)| match question.effect {
            Some(Effect::AddRegion(extent)) => Some((since, extent)),
            _ => None,
        });
        let is_kept = |since: &[Question<Effect>], extent: &RegionExtent| {
            since.iter().filter_map(|question| question.effect).all(
                |effect| !matches!(effect, Effect::RemoveRegion(gone) if gone.guest_address == extent.guest_address),
            )
        };
        let all = base.iter().map(move |extent| (later, *extent)).chain(added);
        all.filter(move |(since, extent)| is_kept(since, extent)).map(|(_, extent)| extent)
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
