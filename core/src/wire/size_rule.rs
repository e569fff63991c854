//! Bytes: which sizes payloads may have.

use core::fmt;

/// Sizes a payload may have, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SizeRule {
    /// This size only.
    Exactly(usize),
    /// One of two sizes.
    Either(usize, usize),
    /// Any size from the first to the second.
    Between(usize, usize),
}

/// The same in a number: a size in the lower half, in the upper a second one and above that what the two mean.
#[derive(Clone, Copy)]
pub(super) struct PackedSize(u32);

impl PackedSize {
    const EITHER: u32 = 1 << 30;
    const BETWEEN: u32 = 1 << 31;
    const AT_LEAST: u32 = Self::EITHER | Self::BETWEEN;

    pub(super) const fn new(rule: SizeRule) -> Self {
        let (first, second, meaning) = match rule {
            SizeRule::Exactly(size) => (size, 0, 0),
            SizeRule::Either(one, other) => (one, other, Self::EITHER),
            SizeRule::Between(least, usize::MAX) => (least, 0, Self::AT_LEAST),
            SizeRule::Between(least, most) => (least, most, Self::BETWEEN),
        };
        assert!(first <= 0xffff && second < 1 << 14, "a size does not fit");
        let ([a, b, ..], [c, d, ..]) = (first.to_le_bytes(), second.to_le_bytes());
        Self(u32::from_le_bytes([a, b, c, d]) | meaning)
    }

    /// Whether it is this size and no other.
    #[inline]
    pub(super) fn is_only(self, size: usize) -> bool {
        // Then the second is zero, and so is what it means.
        u32::try_from(size) == Ok(self.0) && self.0 <= 0xffff
    }

    pub(super) fn rule(self) -> SizeRule {
        let [a, b, c, d] = (self.0 & !Self::AT_LEAST).to_le_bytes();
        let (first, most) = (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])));
        match self.0 & Self::AT_LEAST {
            0 => SizeRule::Exactly(first),
            Self::EITHER => SizeRule::Either(first, most),
            Self::BETWEEN => SizeRule::Between(first, most),
            _ => SizeRule::Between(first, usize::MAX),
        }
    }
}

impl SizeRule {
    /// The size that is sent when any would do.
    pub(crate) const fn usual(self) -> usize {
        match self {
            Self::Exactly(size) | Self::Either(size, _) | Self::Between(size, _) => size,
        }
    }

    /// Whether `size` bytes are allowed.
    #[must_use]
    pub const fn allows(self, size: usize) -> bool {
        match self {
            Self::Exactly(only) => size == only,
            Self::Either(one, other) => size == one || size == other,
            Self::Between(least, most) => size >= least && size <= most,
        }
    }
}

impl fmt::Display for SizeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(only) => write!(f, "{only}"),
            Self::Either(one, other) => write!(f, "{one} or {other}"),
            Self::Between(least, usize::MAX) => write!(f, "{least} or more"),
            Self::Between(least, most) => write!(f, "{least} to {most}"),
        }
    }
}
