//! Bytes: the kinds of payload, their sizes, and how each is read and written.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dialect::Dialect;

pub use super::{
    payload_fault::{Field, PayloadFault},
    size_rule::SizeRule,
};

use super::{
    config,
    crypto::CryptoSession,
    feature::{ProtocolFeatures, VirtioFeatures},
    fs_cache,
    gpu::{
        Area, CursorPosition, DisplayInfo, DmabufScanout, DmabufScanout2, Edid, GpuFeatures, Scanout, ScanoutId, image,
    },
    inflight,
    iotlb::Iotlb,
    log::Log,
    memory,
    migration::Transfer,
    scalar::Scalar,
    shared::{self, SharedMemoryMap, Uuid},
    size_rule::PackedSize,
    vring::{VringAddr, VringArea, VringDescriptor, VringState},
    writer::Content,
};

/// How the bytes after a header are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadKind {
    /// Nothing.
    Empty,
    /// One number of 64 bits.
    U64,
    /// A ring's index and whether a descriptor comes with the message.
    VringDescriptor,
    /// A ring's index and a number.
    VringState,
    /// A ring's addresses.
    VringAddr,
    /// A window for a ring's doorbell.
    VringArea,
    /// Several memory regions.
    MemoryTable,
    /// One memory region.
    SingleRegion,
    /// The dirty log's place: file extent or address.
    LogBase,
    /// An IOTLB message.
    Iotlb,
    /// A part of the configuration space.
    Config,
    /// The inflight record's place.
    Inflight,
    /// An object's UUID.
    Uuid,
    /// An object's UUID, or nothing (QEMU leaves it out of `GET_SHARED_OBJECT`).
    OptionalUuid,
    /// A device state transfer.
    Transfer,
    /// A mapping in a shared memory region.
    SharedMemoryMap,
    /// The sizes of the shared memory regions.
    SharedMemoryConfig,
    /// A crypto session.
    CryptoSession,
    /// Mappings in a virtio-fs DAX window, in the layout of the session's dialect.
    CacheEntries,
    /// A scanout's number.
    ScanoutId,
    /// Where a scanout's cursor is.
    CursorPosition,
    /// A cursor's shape: where it is, and its image.
    CursorImage,
    /// A scanout's size.
    Scanout,
    /// A part of a scanout.
    Area,
    /// A part of a scanout, and its image.
    AreaImage,
    /// A scanout whose content is a DMABUF.
    DmabufScanout,
    /// The same with the DMABUF's modifier.
    DmabufScanout2,
    /// The display's scanouts.
    DisplayInfo,
    /// What a display says of itself.
    Edid,
}

impl PayloadKind {
    /// The sizes this payload may have, in bytes.
    #[must_use]
    pub fn size(self) -> SizeRule {
        self.packed_size().rule()
    }

    /// Whether this is the only size that it may have.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn has_only_size(self, size: usize) -> bool {
        self.packed_size().is_only(size)
    }

    // One table of small numbers: all arms are alike, and constants.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    const fn packed_size(self) -> PackedSize {
        match self {
            Self::Empty => const { PackedSize::new(SizeRule::Exactly(0)) },
            Self::U64 | Self::VringDescriptor => const { PackedSize::new(SizeRule::Exactly(8)) },
            Self::VringState => const { PackedSize::new(SizeRule::Exactly(VringState::SIZE)) },
            Self::VringAddr => const { PackedSize::new(SizeRule::Exactly(VringAddr::SIZE)) },
            Self::VringArea => const { PackedSize::new(SizeRule::Exactly(VringArea::SIZE)) },
            Self::MemoryTable => const { PackedSize::new(memory::TABLE_SIZE) },
            Self::SingleRegion => const { PackedSize::new(memory::SINGLE_SIZE) },
            Self::LogBase => const { PackedSize::new(SizeRule::Either(Log::SIZE, 8)) },
            Self::Iotlb => const { PackedSize::new(SizeRule::Exactly(Iotlb::SIZE)) },
            Self::Config => const { PackedSize::new(config::SIZE) },
            Self::Inflight => const { PackedSize::new(inflight::SIZE) },
            Self::Uuid => const { PackedSize::new(SizeRule::Exactly(Uuid::SIZE)) },
            Self::OptionalUuid => const { PackedSize::new(SizeRule::Either(Uuid::SIZE, 0)) },
            Self::Transfer => const { PackedSize::new(SizeRule::Exactly(Transfer::SIZE)) },
            Self::SharedMemoryMap => const { PackedSize::new(SizeRule::Exactly(SharedMemoryMap::SIZE)) },
            Self::SharedMemoryConfig => const { PackedSize::new(shared::CONFIG_SIZE) },
            Self::CryptoSession => const { PackedSize::new(SizeRule::Exactly(CryptoSession::SIZE)) },
            Self::CacheEntries => const { PackedSize::new(fs_cache::SIZE) },
            Self::ScanoutId => const { PackedSize::new(SizeRule::Exactly(ScanoutId::SIZE)) },
            Self::CursorPosition => const { PackedSize::new(SizeRule::Exactly(CursorPosition::SIZE)) },
            Self::CursorImage => const { PackedSize::new(SizeRule::Exactly(image::CURSOR_MESSAGE)) },
            Self::Scanout => const { PackedSize::new(SizeRule::Exactly(Scanout::SIZE)) },
            Self::Area => const { PackedSize::new(SizeRule::Exactly(Area::SIZE)) },
            Self::AreaImage => const { PackedSize::new(SizeRule::Between(image::FRONT, usize::MAX)) },
            Self::DmabufScanout => const { PackedSize::new(SizeRule::Exactly(DmabufScanout::SIZE)) },
            Self::DmabufScanout2 => const { PackedSize::new(SizeRule::Exactly(DmabufScanout2::SIZE)) },
            Self::DisplayInfo => const { PackedSize::new(SizeRule::Exactly(DisplayInfo::SIZE)) },
            Self::Edid => const { PackedSize::new(SizeRule::Exactly(Edid::SIZE)) },
        }
    }

    /// How many bytes stand in front of an image that is not collected with the message but read
    /// piece by piece; `None` for a payload that holds no image.
    #[must_use]
    #[inline]
    pub const fn before_image(self) -> Option<usize> {
        match self {
            Self::CursorImage | Self::AreaImage => Some(image::FRONT),
            _ => None,
        }
    }
}

/// What to do with bytes after a payload of fixed size (DPDK and libvhost-user accept them,
/// rust-vmm refuses).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrailingBytes {
    /// They make the payload's size wrong.
    #[default]
    Refuse,
    /// They are skipped.
    Ignore,
}

/// Which protocol feature bit means `SHMEM` on the wire. It moved twice before the specification
/// had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShmemBit {
    /// As the specification has it.
    #[default]
    Bit22,
    /// As rust-vmm's vhost crate had it before 0.17; there is no `GPA_ADDRESSES` then.
    Bit21,
    /// As older crosvm had it; there is no `GET_VRING_BASE_INFLIGHT` then.
    Bit20,
}

impl ShmemBit {
    /// The bit on the wire.
    const fn on_wire(self) -> ProtocolFeatures {
        match self {
            Self::Bit22 => ProtocolFeatures::SHMEM,
            Self::Bit21 => ProtocolFeatures::GPA_ADDRESSES,
            Self::Bit20 => ProtocolFeatures::GET_VRING_BASE_INFLIGHT,
        }
    }
}

/// Whether a payload belongs to a request or to a reply; some are read more kindly in replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Request,
    Reply,
}

/// What decides about the form of payloads: the protocol features that are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    pub(crate) protocol: ProtocolFeatures,
    pub(crate) trailing: TrailingBytes,
    pub(crate) shmem_bit: ShmemBit,
    pub(crate) dialect: Dialect,
    pub(crate) role: Role,
}

impl Form {
    /// Requests in a session with these protocol features.
    #[must_use]
    pub const fn request(protocol: ProtocolFeatures) -> Self {
        Self::new(protocol, Role::Request)
    }

    /// Replies in a session with these protocol features.
    #[must_use]
    pub const fn reply(protocol: ProtocolFeatures) -> Self {
        Self::new(protocol, Role::Reply)
    }

    const fn new(protocol: ProtocolFeatures, role: Role) -> Self {
        let (trailing, shmem_bit, dialect) = (TrailingBytes::Refuse, ShmemBit::Bit22, Dialect::Standard);
        Self { protocol, trailing, shmem_bit, dialect, role }
    }

    /// The same, with another rule for surplus bytes.
    #[must_use]
    pub const fn with_trailing_bytes(self, trailing: TrailingBytes) -> Self {
        Self { trailing, ..self }
    }
}

/// What is left of a frame when its header is read and its descriptors are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body<'b> {
    /// The payload. Of a kind that has a single size it is of that size, see `Frame::fit`.
    pub(crate) bytes: &'b [u8],
    /// The number that a payload of eight bytes is.
    pub(crate) number: u64,
}

impl<'b> Body<'b> {
    #[inline]
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        let number = bytes.first_chunk().map_or(0, |number| u64::from_ne_bytes(*number));
        Self { bytes, number }
    }
}

/// A payload that is read from and written to bytes.
pub(crate) trait Payload<'b>: Sized {
    const KIND: PayloadKind;
    /// `None` if the bytes do not make it; then [`Found::fault`](super::misfit::Found::fault) knows why.
    fn decode(body: Body<'b>, form: Form) -> Option<Self>;
    /// What there is to write.
    fn content(&self, form: Form) -> Content<'_>;
}

/// A payload with one layout of one size.
pub(crate) trait FixedPayload: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    const KIND: PayloadKind;
}

impl<'b, T: FixedPayload> Payload<'b> for T {
    const KIND: PayloadKind = <T as FixedPayload>::KIND;

    #[inline]
    fn decode(body: Body<'b>, _form: Form) -> Option<Self> {
        // Payloads of eight bytes are many, and alike.
        match Self::ref_from_bytes(body.number.as_bytes()) {
            Ok(value) => Some(*value),
            Err(_) => Self::ref_from_bytes(body.bytes).ok().copied(),
        }
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        match <[u8; 8]>::try_from(self.as_bytes()) {
            Ok(number) => Content::Number(u64::from_ne_bytes(number)),
            Err(_) => Content::Bytes(self.as_bytes()),
        }
    }
}

/// Whether a payload may have as many bytes as it has where it should have `size`.
pub(crate) fn is_of_size(bytes: &[u8], size: usize, form: Form) -> bool {
    match form.trailing {
        TrailingBytes::Refuse => bytes.len() == size,
        TrailingBytes::Ignore => bytes.len() >= size,
    }
}

macro_rules! fixed_payloads {
    ($($name:ident),*) => {$(
        impl FixedPayload for $name {
            const KIND: PayloadKind = PayloadKind::$name;
        }
    )*};
}

fixed_payloads!(VringState, VringAddr, VringArea, VringDescriptor, Iotlb, Transfer, SharedMemoryMap, Uuid);
fixed_payloads!(ScanoutId, CursorPosition, Scanout, Area, DmabufScanout, DmabufScanout2);

macro_rules! number_payloads {
    ($($name:ty),*) => {$(
        impl<'b> Payload<'b> for $name {
            const KIND: PayloadKind = PayloadKind::U64;

            #[inline]
            fn decode(body: Body<'b>, _form: Form) -> Option<Self> {
                Some(Self::from_wire(zerocopy::transmute!(body.number)))
            }

            #[inline]
            fn content(&self, _form: Form) -> Content<'_> {
                Content::Number(zerocopy::transmute!(self.to_wire()))
            }
        }
    )*};
}

number_payloads!(u64, i64, VirtioFeatures, GpuFeatures);

impl<'b> Payload<'b> for ProtocolFeatures {
    const KIND: PayloadKind = PayloadKind::U64;

    #[inline]
    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        Some(Self::from_bits_retain(body.number).moved(form.shmem_bit.on_wire(), Self::SHMEM))
    }

    #[inline]
    fn content(&self, form: Form) -> Content<'_> {
        Content::Number(self.moved(Self::SHMEM, form.shmem_bit.on_wire()).bits())
    }
}
