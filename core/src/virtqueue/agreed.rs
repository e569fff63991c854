//! What of the acknowledged features a ring goes by.

use crate::wire::feature::VirtioFeatures;

/// What both sides agreed on, besides the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agreed {
    /// Chains may have indirect tables.
    pub(crate) indirect: bool,
    /// Notifications go by event indices, or places.
    pub(crate) event_idx: bool,
    /// Chains come back in the order in which they were made available.
    pub(crate) in_order: bool,
}

impl Agreed {
    pub(crate) const fn of(features: VirtioFeatures) -> Self {
        Self {
            indirect: features.contains(VirtioFeatures::RING_INDIRECT),
            event_idx: features.contains(VirtioFeatures::RING_EVENT_IDX),
            in_order: features.contains(VirtioFeatures::IN_ORDER),
        }
    }
}
