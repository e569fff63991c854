//! Which layouts the type of a ring serves: one that is known when it is compiled, or both.

use core::{fmt, hash::Hash};

use super::layout::RingLayout;
use crate::wire::feature::VirtioFeatures;

/// What a type of ring knows of its layout.
///
/// A ring of [`SplitLayout`] or [`PackedLayout`] is compiled without the other layout; one of [`RingLayout`] serves both.
/// There are these three and no others.
pub trait Layout: sealed::Sealed + Copy + Eq + Hash + fmt::Debug {
    /// The layout for the acknowledged `features`, if there is a choice.
    fn choose(features: VirtioFeatures) -> Self;

    /// The layout.
    fn layout(self) -> RingLayout;
}

mod sealed {
    /// Keeps others from being a layout.
    pub trait Sealed {}

    impl Sealed for super::SplitLayout {}
    impl Sealed for super::PackedLayout {}
    impl Sealed for super::RingLayout {}
}

/// `$result` with `$layout` being `$kind`'s layout. What is inlined there knows which it is, and so does the work for one
/// layout only; what is not inlined is told.
macro_rules! for_layout {
    ($kind:expr, $layout:ident => $result:expr) => {
        match $kind {
            RingLayout::Split => {
                let $layout = RingLayout::Split;
                $result
            }
            RingLayout::Packed => {
                let $layout = RingLayout::Packed;
                $result
            }
        }
    };
}
pub(super) use for_layout;

/// Split rings only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SplitLayout;

/// Packed rings only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedLayout;

impl Layout for SplitLayout {
    #[inline]
    fn choose(_: VirtioFeatures) -> Self {
        Self
    }

    #[inline]
    fn layout(self) -> RingLayout {
        RingLayout::Split
    }
}

impl Layout for PackedLayout {
    #[inline]
    fn choose(_: VirtioFeatures) -> Self {
        Self
    }

    #[inline]
    fn layout(self) -> RingLayout {
        RingLayout::Packed
    }
}

impl Layout for RingLayout {
    #[inline]
    fn choose(features: VirtioFeatures) -> Self {
        Self::of(features)
    }

    #[inline]
    fn layout(self) -> RingLayout {
        self
    }
}
