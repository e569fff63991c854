//! Why a call to a kernel device failed.

use core::fmt;

use rustix::io::Errno;
use vhost_core::uapi::MessageFault;
use vhost_core::uapi::bits::DeviceStatus;
use vhost_core::uapi::iotlb::IotlbRequest;
use vhost_core::{Iova, RingAddress, UserAddress, VirtioFeatures};
use vhost_std::memory::MemoryError;
use vhost_std::poller::WatchError;
use vhost_std::system_error::SystemError;
use vhost_std::vring::{RingFault, RingMisuse};

/// A call to a kernel device that failed. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// The kernel refused: an ioctl under its own name, or another system call.
    System(SystemError),
    /// An address or a size that guest memory does not have.
    Memory(MemoryError),
    /// The kernel refused a message about the IOTLB; whatever its reason is, it says `EFAULT`.
    Iotlb {
        /// What was asked.
        request: IotlbRequest,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The kernel sent a message that makes no sense.
    Message(MessageFault),
    /// A ring of a served device cannot be set up as the driver says.
    RingMisuse(RingMisuse),
    /// A ring of a served device is not where the driver says.
    RingFault(RingFault),
    /// A ring of a served device cannot be waited for.
    Watch(WatchError),
    /// A device with packed rings cannot be taken over: they do not tell where to go on.
    PackedRings,
    /// A ring has no size yet, which is needed to know what memory it takes.
    NoRingSize {
        /// The ring.
        ring: u32,
    },
    /// A ring that has addresses would become larger than the memory that was checked for it: set its size first.
    RingGrows {
        /// The ring.
        ring: u32,
        /// Descriptors when its addresses were set.
        addressed: u32,
        /// Descriptors that it would have.
        wanted: u32,
    },
    /// A ring would be larger than the device allows.
    RingSize {
        /// Descriptors that it would have.
        found: u32,
        /// Descriptors that are possible.
        largest: u32,
    },
    /// Features that were not on offer.
    NotOffered {
        /// Those that were not.
        features: VirtioFeatures,
    },
    /// The device did not take a status.
    StatusRefused {
        /// What it was to be.
        wanted: DeviceStatus,
        /// What it is.
        found: DeviceStatus,
    },
    /// Memory to map that is not in its region, or none at all.
    OutsideRegion {
        /// Offset of its first byte.
        offset: u64,
        /// Bytes, one or more.
        size: u64,
        /// Bytes of the region.
        available: u64,
    },
    /// Memory that does not begin and end with pages. The kernel would map more than that.
    NotWholePages {
        /// Its address for the device.
        iova: Iova,
        /// Its address in this process.
        user_address: UserAddress,
        /// Bytes.
        size: u64,
    },
    /// A part of a ring that does not begin where it may.
    Misaligned {
        /// The ring.
        ring: u32,
        /// Where the part begins.
        address: RingAddress,
        /// What that must be a multiple of.
        alignment: u64,
    },
    /// The device has fewer rings.
    NoSuchRing {
        /// The ring asked for.
        ring: u16,
        /// How many there are.
        count: usize,
    },
    /// A descriptor for a ring that is no eventfd.
    NotAnEventFd {
        /// The ring.
        ring: u16,
    },
    /// That cannot change while the ring runs.
    RingRuns {
        /// The ring.
        ring: u16,
    },
    /// That cannot change while any ring runs.
    RingsRun,
    /// The device cannot do that.
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// A ring did not come to rest.
    Restless {
        /// The ring.
        ring: u16,
    },
    /// A dirty log is needed first.
    NoLog,
    /// The dirty log has no bits for some of the memory.
    LogTooSmall {
        /// Bytes that it must have.
        needed: u64,
        /// Bytes that it has.
        found: u64,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Iotlb { request, errno } => write!(f, "IOTLB message {request:?}: {errno}"),
            Self::Message(fault) => fault.fmt(f),
            Self::RingMisuse(misuse) => misuse.fmt(f),
            Self::RingFault(fault) => fault.fmt(f),
            Self::Watch(error) => error.fmt(f),
            Self::PackedRings => f.write_str("packed rings do not tell another process where to go on"),
            Self::NoRingSize { ring } => write!(f, "ring {ring} needs a size before it gets addresses"),
            Self::RingGrows { ring, addressed, wanted } => {
                write!(f, "ring {ring} got its addresses with {addressed} descriptors and cannot grow to {wanted}")
            }
            Self::RingSize { found, largest } => {
                write!(f, "a ring of {found} descriptors, the device allows {largest}")
            }
            Self::NotOffered { features } => write!(f, "expected features that are on offer, found {features:?}"),
            Self::StatusRefused { wanted, found } => {
                write!(f, "the device was to have status {wanted:?} and has {found:?}")
            }
            Self::OutsideRegion { offset, size, available } => {
                write!(
                    f,
                    "{size:#x} bytes at offset {offset:#x} of a region of {available:#x}, expected one or more in it"
                )
            }
            Self::NotWholePages { iova, user_address, size } => {
                write!(f, "{size:#x} bytes at {user_address} to be mapped to {iova} are no whole pages")
            }
            Self::Misaligned { ring, address, alignment } => {
                write!(f, "a part of ring {ring} begins at {address}, expected a multiple of {alignment}")
            }
            Self::NoSuchRing { ring, count } => write!(f, "expected a ring below {count}, found {ring}"),
            Self::NotAnEventFd { ring } => write!(f, "expected an eventfd for ring {ring}, found another descriptor"),
            Self::RingRuns { ring } => write!(f, "that cannot change while ring {ring} runs"),
            Self::RingsRun => f.write_str("that cannot change while a ring runs"),
            Self::Unsupported { what } => write!(f, "the device has no {what}"),
            Self::Restless { ring } => write!(f, "requests in ring {ring} do not come to an end"),
            Self::NoLog => f.write_str("writes cannot be logged before there is a log"),
            Self::LogTooSmall { needed, found } => {
                write!(f, "the dirty log has {found} bytes, guest memory needs {needed}")
            }
        }
    }
}

impl core::error::Error for KernelError {}

macro_rules! from {
    ($($variant:ident($type:ty)),* $(,)?) => {$(
        impl From<$type> for KernelError {
            fn from(error: $type) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from! {
    System(SystemError), Memory(MemoryError), Message(MessageFault), RingMisuse(RingMisuse), RingFault(RingFault),
    Watch(WatchError),
}

impl KernelError {
    /// What the kernel answered, if it was the kernel who refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System(SystemError { errno, .. }) | Self::Iotlb { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
