//! Bytes: the kinds of payload, their sizes, and how each is read and written.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dialect::Dialect;

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
    pub(crate) fn has_only_size(self, size: usize) -> bool {
        // The meaning of a size that is the only one is zero, and so is the second.
        let PackedSize([a, b, c, d]) = self.packed_size();
        [c, d] == [0; 2] && usize::from(u16::from_le_bytes([a, b])) == size
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

/// The same in four bytes: two sizes, and above the second what they mean.
#[derive(Clone, Copy)]
struct PackedSize([u8; 4]);

impl PackedSize {
    const EITHER: u16 = 1 << 14;
    const BETWEEN: u16 = 1 << 15;
    const AT_LEAST: u16 = Self::EITHER | Self::BETWEEN;

    const fn new(rule: SizeRule) -> Self {
        let (first, second, meaning) = match rule {
            SizeRule::Exactly(size) => (size, 0, 0),
            SizeRule::Either(one, other) => (one, other, Self::EITHER),
            SizeRule::Between(least, usize::MAX) => (least, 0, Self::AT_LEAST),
            SizeRule::Between(least, most) => (least, most, Self::BETWEEN),
        };
        assert!(first <= 0xffff && second < 1 << 14, "a size does not fit");
        let ([a, b, ..], [c, d, ..]) = (first.to_le_bytes(), second.to_le_bytes());
        let [_, e] = meaning.to_le_bytes();
        Self([a, b, c, d | e])
    }

    fn rule(self) -> SizeRule {
        let Self([a, b, c, d]) = self;
        let (first, second) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let (first, most) = (usize::from(first), usize::from(second & !Self::AT_LEAST));
        match second & Self::AT_LEAST {
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

/// What is wrong with a payload's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadFault {
    /// Too short or too long.
    Size {
        /// What was expected.
        expected: SizeRule,
        /// How many bytes came.
        found: usize,
    },
    /// A field holds a value it cannot have.
    Field {
        /// The field, and what it may hold.
        field: Field,
        /// What it held.
        found: u64,
    },
    /// The image has not as many bytes as its width and height say.
    Image {
        /// Width in pixels of four bytes.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes announced.
        found: u32,
    },
}

impl fmt::Display for PayloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { expected, found } => write!(f, "expected {expected} payload bytes, found {found}"),
            Self::Field { field, found } => write!(f, "field {field}, found {found:#x}"),
            Self::Image { width, height, found } => {
                write!(f, "expected an image of {width} x {height} pixels of 4 bytes, found {found} bytes of it")
            }
        }
    }
}

/// A field that may hold some values only; shows itself with these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// How many regions a memory table has.
    RegionCount,
    /// How many mappings a list has.
    MappingCount,
    /// How many bytes of the configuration space are meant.
    ConfigSize,
    /// The sizes of the shared memory regions.
    RegionSizes,
    /// Bytes that a display says of itself.
    EdidSize,
    /// Bytes of the key of a cipher.
    CipherKeyLength,
    /// Bytes of the key of a MAC.
    AuthenticationKeyLength,
    /// Bytes of an asymmetric key.
    KeyLength,
    /// The parameters of a crypto session.
    Parameters,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RegionCount => "count: expected at most 8 regions",
            Self::MappingCount => "count: expected at most 32 mappings",
            Self::ConfigSize => "size: expected at most the number of bytes that follow",
            Self::RegionSizes => "sizes: expected whole numbers of 8 bytes",
            Self::EdidSize => "size: expected at most 1024 bytes",
            Self::CipherKeyLength => "cipher key length: expected at most 64 bytes",
            Self::AuthenticationKeyLength => "authentication key length: expected at most 512 bytes",
            Self::KeyLength => "key length: expected at most 1024 bytes",
            Self::Parameters => "parameters: expected room for what stands in front",
        })
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
    /// The payload. Of a kind that has a single size it is of that size, see [`Found::payload_of`](super::misfit::Found::payload_of).
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
