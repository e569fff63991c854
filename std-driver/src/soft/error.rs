//! What a soft back-end refuses.

use core::fmt;

use vhost_core::VirtioFeatures;

use crate::{rings::RingError, system_error::SystemError};

/// A call that a soft back-end refuses. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SoftError {
    /// The rings or the memory cannot be like that.
    Ring(RingError),
    /// A descriptor could not be duplicated.
    System(SystemError),
    /// Features were acknowledged that are not offered.
    NotOffered {
        /// Those.
        excess: VirtioFeatures,
    },
}

impl fmt::Display for SoftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::NotOffered { excess } => write!(f, "features {:#x} are not offered", excess.bits()),
        }
    }
}

impl core::error::Error for SoftError {}

impl<E: Into<RingError>> From<E> for SoftError {
    fn from(error: E) -> Self {
        Self::Ring(error.into())
    }
}
