//! What a driver can do wrong: in one chain, which costs that chain, or in the ring itself, which stops the ring.

use core::fmt;

use vhost_core::{LogFault, PartFault};

use crate::system_error::SystemError;

/// A descriptor chain is malformed. It went back to the driver with length 0, and the ring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainFault {
    /// Index of the ring.
    pub ring: u16,
    /// By what the driver knows the chain: its first descriptor, in a packed ring its buffer id.
    pub id: u16,
    /// What is wrong.
    pub fault: vhost_core::ChainFault,
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring {}, chain {}: {}", self.ring, self.id, self.fault)
    }
}

impl core::error::Error for ChainFault {}

/// The ring itself cannot be used. It is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingFault {
    /// The ring was started before it had a size, addresses and memory.
    NotConfigured,
    /// Behind an IOMMU: a chain needs more translations than are kept.
    TooManyTranslations,
    /// Its parts cannot be where they are.
    Misplaced(PartFault),
    /// The driver broke it, or it cannot be what it is set up to be.
    Broken(vhost_core::RingFault),
    /// The inflight record has fewer bytes than its rings need.
    InflightTooShort {
        /// Bytes that they need.
        needed: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// A write to a buffer could not be logged.
    Log(LogFault),
}

impl From<vhost_core::RingFault> for RingFault {
    fn from(fault: vhost_core::RingFault) -> Self {
        Self::Broken(fault)
    }
}

impl From<PartFault> for RingFault {
    fn from(fault: PartFault) -> Self {
        match fault {
            PartFault::Ring(fault) => Self::Broken(fault),
            fault => Self::Misplaced(fault),
        }
    }
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured => f.write_str("ring started without a size and addresses"),
            Self::TooManyTranslations => f.write_str("a chain needs more translations than the IOTLB keeps"),
            Self::Misplaced(fault) => fault.fmt(f),
            Self::Broken(fault) => fault.fmt(f),
            Self::InflightTooShort { needed, found } => {
                write!(f, "an inflight record of {found} bytes, its rings need {needed}")
            }
            Self::Log(fault) => fault.fmt(f),
        }
    }
}

impl core::error::Error for RingFault {}

/// The caller asked for what the ring cannot do now. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingMisuse {
    /// The size is not from 1 to 32768, or not a power of two in a split ring.
    Size(u32),
    /// The ring is running; this can only be set while it is stopped.
    Running,
}

impl fmt::Display for RingMisuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "ring size {size}, expected 1 to 32768, a power of two in a split ring"),
            Self::Running => f.write_str("the ring is running and has to be stopped first"),
        }
    }
}

impl core::error::Error for RingMisuse {}

/// What went wrong on a ring since it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFaults {
    /// Malformed chains.
    pub chains: u64,
    /// The last malformed chain.
    pub last_chain: Option<ChainFault>,
    /// Chains that the device took and did not complete.
    pub abandoned: u64,
    /// The fault that stopped the ring last.
    pub last_ring: Option<RingFault>,
    /// The last failure to signal the driver.
    pub last_call: Option<SystemError>,
}

impl RingFaults {
    pub(super) fn record(&mut self, fault: ChainFault) {
        self.chains = self.chains.saturating_add(1);
        self.last_chain = Some(fault);
    }
}
