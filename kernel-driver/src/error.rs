//! Why a call to a kernel device failed.

use core::fmt;

use rustix::io::Errno;
use vhost_core::uapi::MessageFault;
use vhost_core::uapi::iotlb::IotlbRequest;
use vhost_std::memory::MemoryError;
use vhost_std::system_error::SystemError;

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
            Self::NoRingSize { ring } => write!(f, "ring {ring} needs a size before it gets addresses"),
            Self::RingGrows { ring, addressed, wanted } => {
                write!(f, "ring {ring} got its addresses with {addressed} descriptors and cannot grow to {wanted}")
            }
            Self::NoLog => f.write_str("writes cannot be logged before there is a log"),
            Self::LogTooSmall { needed, found } => {
                write!(f, "the dirty log has {found} bytes, guest memory needs {needed}")
            }
        }
    }
}

impl core::error::Error for KernelError {}

impl From<SystemError> for KernelError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

impl From<MemoryError> for KernelError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<MessageFault> for KernelError {
    fn from(fault: MessageFault) -> Self {
        Self::Message(fault)
    }
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
