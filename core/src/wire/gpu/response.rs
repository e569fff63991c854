//! Bytes: what stands in front of the answers that a back-end hands on to its guest.

use core::{fmt, num::NonZeroU64};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

/// The header of a virtio-gpu response. Unlike the rest of the protocol it is little-endian on all
/// machines, because it belongs to the guest.
///
/// Source: virtio, section "GPU Device", `virtio_gpu_ctrl_hdr`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Response {
    kind: U32,
    flags: U32,
    fence: U64,
    context: U32,
    ring: u8,
    padding: [u8; 3],
}

impl Response {
    /// Size on the wire in bytes.
    pub const SIZE: usize = 24;
    /// The kind of a [`DisplayInfo`](super::DisplayInfo).
    pub const DISPLAY_INFO: u32 = 0x1101;
    /// The kind of an [`Edid`](super::Edid).
    pub const EDID: u32 = 0x1104;
    /// The first kind of an error: an unspecified one.
    pub const UNSPECIFIED: u32 = 0x1200;
    /// The kind of an error: there is no such scanout.
    pub const INVALID_SCANOUT: u32 = 0x1202;
    /// The last kind that can be an error.
    const LAST_ERROR: u32 = 0x12ff;

    /// A response of this kind without a fence.
    #[must_use]
    pub fn new(kind: u32) -> Self {
        Self { kind: kind.into(), flags: 0.into(), fence: 0.into(), context: 0.into(), ring: 0, padding: [0; 3] }
    }

    /// The response for a refusal of this number: the number itself if it is an error that virtio-gpu knows.
    pub(crate) fn refusing(number: u64) -> Self {
        match u32::try_from(number) {
            Ok(kind @ Self::UNSPECIFIED..=Self::LAST_ERROR) => Self::new(kind),
            _ => Self::new(Self::UNSPECIFIED),
        }
    }

    /// What kind of response it is.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.kind.get()
    }

    /// The refusal that this is instead of a response of the expected kind.
    pub(crate) fn refusal(&self, expected: u32) -> Option<NonZeroU64> {
        let refused = NonZeroU64::new(u64::from(self.kind())).unwrap_or(NonZeroU64::MIN);
        (self.kind() != expected).then_some(refused)
    }
}

const _: () = assert!(size_of::<Response>() == Response::SIZE);

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({:#x})", self.kind())
    }
}
