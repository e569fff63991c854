//! What can go wrong with a ring on the driver's side.

use core::fmt;

use vhost_core::{AddError, DriverFault, PartFault, RingFault};

/// A ring that cannot be made or used so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverError {
    /// A range ends behind the area, or wraps around.
    OutsideArea {
        /// Where it begins in the area.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// Bytes of the area.
        available: u64,
    },
    /// There cannot be such a ring.
    Ring(RingFault),
    /// There cannot be a ring there.
    Place(PartFault),
    /// A chain cannot be added. Nothing has changed.
    Add(AddError),
    /// A ring cannot be rebuilt before all used buffers are taken from it.
    UsedNotTaken,
    /// The device broke the ring. It is of no use until it is reset.
    Device(DriverFault),
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideArea { offset, length, available } => {
                write!(f, "{length:#x} bytes at {offset:#x} exceed an area of {available:#x} bytes")
            }
            Self::Ring(fault) => fault.fmt(f),
            Self::Place(fault) => fault.fmt(f),
            Self::Add(error) => error.fmt(f),
            Self::UsedNotTaken => f.write_str("used buffers must be taken from the ring before it is rebuilt"),
            Self::Device(fault) => write!(f, "the device broke the ring: {fault}"),
        }
    }
}

impl core::error::Error for DriverError {}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => {$(
        impl From<$error> for DriverError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from! { RingFault => Ring, AddError => Add, DriverFault => Device }

impl From<PartFault> for DriverError {
    fn from(fault: PartFault) -> Self {
        match fault {
            PartFault::Ring(fault) => Self::Ring(fault),
            fault => Self::Place(fault),
        }
    }
}
