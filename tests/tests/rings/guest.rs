//! What rings have in common, whoever tests them.

use vhost_core::{RingLayout, wire::vring::VringBase};

/// The base of a ring that was never used.
pub(crate) fn first_base(layout: RingLayout) -> VringBase {
    match layout {
        RingLayout::Split => VringBase::split(0),
        RingLayout::Packed => VringBase::packed(0x8000_8000),
    }
}
