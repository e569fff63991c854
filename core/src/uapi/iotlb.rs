//! Bytes: the messages about the device IOTLB that are read from and written to a vhost descriptor.
//!
//! vhost-net and vhost-vsock tell misses and take updates; vhost-vdpa takes updates only; vhost-scsi has no IOTLB.

use zerocopy::native_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::message_fault::MessageFault;
use crate::address::{Iova, UserAddress};
use crate::wire::iotlb::Iotlb;

/// Bytes of a message as the kernel writes it, and as it should be written: of a shorter one the kernel says that it has
/// taken 72 bytes.
pub const IOTLB_MESSAGE_SIZE: usize = 72;

/// Bytes that the kernel looks at.
const USED_SIZE: usize = 40;

const BATCH_BEGIN: u8 = 5;
const BATCH_END: u8 = 6;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    version: U32,
    asid: U32,
    iotlb: Iotlb,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Whole {
    head: Head,
    unused: [u8; 32],
}

const _: () = assert!(size_of::<Head>() == USED_SIZE && size_of::<Whole>() == IOTLB_MESSAGE_SIZE);

/// The two layouts of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IotlbVersion {
    /// Without an address space.
    V1,
    /// With one.
    V2 {
        /// The address space. The kernel heeds it where
        /// [`BackendFeatures::IOTLB_ASID`](super::bits::BackendFeatures::IOTLB_ASID) is acknowledged.
        asid: u32,
    },
}

/// What the device may do with memory, or tried to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Read and write.
    ReadWrite,
}

impl Access {
    /// The access of permission bits: 1 reading, 2 writing; `None` for any other number.
    #[must_use]
    pub const fn from_permission(permission: u8) -> Option<Self> {
        match permission {
            1 => Some(Self::Read),
            2 => Some(Self::Write),
            3 => Some(Self::ReadWrite),
            _ => None,
        }
    }

    /// The permission bits.
    #[must_use]
    pub const fn permission(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::ReadWrite => 3,
        }
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IotlbRequest {
    /// The kernel asks for a translation.
    Miss {
        /// The address that it has none for.
        iova: Iova,
        /// What it wants to do there.
        access: Access,
    },
    /// The owner gives a translation.
    Update {
        /// The first address.
        iova: Iova,
        /// Bytes, 1 or more.
        size: u64,
        /// Where it is in the owner's address space.
        user_address: UserAddress,
        /// What is allowed there.
        access: Access,
    },
    /// The owner takes translations back.
    Invalidate {
        /// The first address.
        iova: Iova,
        /// Bytes; 0 at address 0 is not everything.
        size: u64,
    },
    /// The kernel was refused an access. No kernel sends it today.
    AccessFail {
        /// The address.
        iova: Iova,
        /// What it wanted to do there.
        access: Access,
    },
    /// Updates and invalidations follow. vhost-vdpa only.
    BatchBegin,
    /// They are complete. vhost-vdpa only.
    BatchEnd,
}

/// A message about the device IOTLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IotlbMessage {
    /// The layout that it comes in.
    pub version: IotlbVersion,
    /// What it says.
    pub request: IotlbRequest,
}

impl IotlbMessage {
    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> [u8; IOTLB_MESSAGE_SIZE] {
        let (version, asid) = match self.version {
            IotlbVersion::V1 => (1, 0),
            IotlbVersion::V2 { asid } => (2, asid),
        };
        let iotlb = |iova, size, user_address, access: Option<Access>, message_type| {
            Iotlb::new(iova, size, user_address, access.map_or(0, Access::permission), message_type)
        };
        let (nowhere, unused) = (UserAddress(0), Iova(0));
        let iotlb = match self.request {
            IotlbRequest::Miss { iova, access } => iotlb(iova, 0, nowhere, Some(access), Iotlb::MISS),
            IotlbRequest::Update { iova, size, user_address, access } => {
                iotlb(iova, size, user_address, Some(access), Iotlb::UPDATE)
            }
            IotlbRequest::Invalidate { iova, size } => iotlb(iova, size, nowhere, None, Iotlb::INVALIDATE),
            IotlbRequest::AccessFail { iova, access } => iotlb(iova, 0, nowhere, Some(access), Iotlb::ACCESS_FAIL),
            IotlbRequest::BatchBegin => iotlb(unused, 0, nowhere, None, BATCH_BEGIN),
            IotlbRequest::BatchEnd => iotlb(unused, 0, nowhere, None, BATCH_END),
        };
        let head = Head { version: version.into(), asid: asid.into(), iotlb };
        zerocopy::transmute!(Whole { head, unused: [0; 32] })
    }

    /// Reads a message; of its bytes the first 40 count.
    ///
    /// # Errors
    /// There are fewer bytes, or a field has a value that it cannot have.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageFault> {
        let too_short = MessageFault::TooShort { expected: USED_SIZE, found: bytes.len() };
        let (head, _) = Head::ref_from_prefix(bytes).map_err(|_| too_short)?;
        let version = match head.version.get() {
            1 => IotlbVersion::V1,
            2 => IotlbVersion::V2 { asid: head.asid.get() },
            found => return Err(fault("type", "1 or 2", found.into())),
        };
        let iotlb = &head.iotlb;
        let iova = iotlb.iova();
        let access = || {
            let permission = iotlb.permission();
            Access::from_permission(permission).ok_or(fault("perm", "1, 2 or 3", permission.into()))
        };
        let request = match iotlb.message_type() {
            Iotlb::MISS => IotlbRequest::Miss { iova, access: access()? },
            Iotlb::UPDATE if iotlb.size() == 0 => return Err(fault("size", "1 or more", 0)),
            Iotlb::UPDATE => {
                IotlbRequest::Update { iova, size: iotlb.size(), user_address: iotlb.user_address(), access: access()? }
            }
            Iotlb::INVALIDATE => IotlbRequest::Invalidate { iova, size: iotlb.size() },
            Iotlb::ACCESS_FAIL => IotlbRequest::AccessFail { iova, access: access()? },
            BATCH_BEGIN => IotlbRequest::BatchBegin,
            BATCH_END => IotlbRequest::BatchEnd,
            found => return Err(fault("iotlb.type", "1 to 6", found.into())),
        };
        Ok(Self { version, request })
    }
}

fn fault(name: &'static str, expected: &'static str, found: u64) -> MessageFault {
    MessageFault::Field { name, expected, found }
}
