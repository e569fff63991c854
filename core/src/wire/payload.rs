//! Bytes: the kinds of payload, their sizes, and how each is read and written.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{dialect::Dialect, error::ApiMisuse};

use super::{
    config,
    crypto::CryptoSession,
    feature::{ProtocolFeatures, VirtioFeatures},
    fs_cache,
    gpu::{
        Area, CursorPosition, DisplayInfo, DmabufScanout, DmabufScanout2, Edid, GpuFeatures, Scanout, ScanoutId, image,
    },
    header::Header,
    inflight,
    iotlb::Iotlb,
    log::Log,
    memory,
    migration::Transfer,
    misfit::Misfit,
    row::MessageName,
    scalar::Scalar,
    shared::{self, SharedMemoryMap, Uuid},
    vring::{VringAddr, VringArea, VringDescriptor, VringState},
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
    pub const fn size(self) -> SizeRule {
        match self {
            Self::Empty => SizeRule::Exactly(0),
            Self::U64 | Self::VringDescriptor => SizeRule::Exactly(8),
            Self::VringState => SizeRule::Exactly(VringState::SIZE),
            Self::VringAddr => SizeRule::Exactly(VringAddr::SIZE),
            Self::VringArea => SizeRule::Exactly(VringArea::SIZE),
            Self::MemoryTable => memory::TABLE_SIZE,
            Self::SingleRegion => memory::SINGLE_SIZE,
            Self::LogBase => SizeRule::Either(Log::SIZE, 8),
            Self::Iotlb => SizeRule::Exactly(Iotlb::SIZE),
            Self::Config => config::SIZE,
            Self::Inflight => inflight::SIZE,
            Self::Uuid => SizeRule::Exactly(Uuid::SIZE),
            Self::OptionalUuid => SizeRule::Either(Uuid::SIZE, 0),
            Self::Transfer => SizeRule::Exactly(Transfer::SIZE),
            Self::SharedMemoryMap => SizeRule::Exactly(SharedMemoryMap::SIZE),
            Self::SharedMemoryConfig => shared::CONFIG_SIZE,
            Self::CryptoSession => SizeRule::Exactly(CryptoSession::SIZE),
            Self::CacheEntries => fs_cache::SIZE,
            Self::ScanoutId => SizeRule::Exactly(ScanoutId::SIZE),
            Self::CursorPosition => SizeRule::Exactly(CursorPosition::SIZE),
            Self::CursorImage => SizeRule::Exactly(image::CURSOR_MESSAGE),
            Self::Scanout => SizeRule::Exactly(Scanout::SIZE),
            Self::Area => SizeRule::Exactly(Area::SIZE),
            Self::AreaImage => SizeRule::Between(image::FRONT, usize::MAX),
            Self::DmabufScanout => SizeRule::Exactly(DmabufScanout::SIZE),
            Self::DmabufScanout2 => SizeRule::Exactly(DmabufScanout2::SIZE),
            Self::DisplayInfo => SizeRule::Exactly(DisplayInfo::SIZE),
            Self::Edid => SizeRule::Exactly(Edid::SIZE),
        }
    }

    /// The payload without the bytes after it that are skipped. After a UUID none are: the length tells
    /// one from what other dialects send under the same id.
    #[inline]
    pub(crate) fn cut(self, payload: &[u8], form: Form) -> &[u8] {
        if form.trailing == TrailingBytes::Refuse {
            return payload;
        }
        match self.size() {
            SizeRule::Exactly(size) if self != Self::Uuid => payload.get(..size).unwrap_or(payload),
            _ => payload,
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
        /// The field.
        name: &'static str,
        /// What it may hold.
        expected: &'static str,
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
            Self::Field { name, expected, found } => write!(f, "field {name}: expected {expected}, found {found:#x}"),
            Self::Image { width, height, found } => {
                write!(f, "expected an image of {width} x {height} pixels of 4 bytes, found {found} bytes of it")
            }
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
    /// The bit on the wire; `None` where it is the specification's.
    const fn moved_to(self) -> Option<ProtocolFeatures> {
        match self {
            Self::Bit22 => None,
            Self::Bit21 => Some(ProtocolFeatures::GPA_ADDRESSES),
            Self::Bit20 => Some(ProtocolFeatures::GET_VRING_BASE_INFLIGHT),
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

/// A message that is being written into the caller's buffer, from its front.
///
/// What does not fit is remembered, and told once by [`Self::seal`].
#[derive(Debug)]
pub(crate) struct Writer<'o> {
    out: &'o mut [u8],
    /// Where the next byte goes; the header's place is left free.
    end: usize,
    /// Bytes that belong to the message, but that the caller sends from where they are.
    following: u32,
    overflown: bool,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(out: &'o mut [u8]) -> Self {
        Self { out, end: Header::SIZE, following: 0, overflown: false }
    }

    #[inline(never)]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let end = self.end.saturating_add(bytes.len());
        match self.out.get_mut(self.end..end) {
            Some(target) => {
                for (to, from) in target.iter_mut().zip(bytes) {
                    *to = *from;
                }
                self.end = end;
            }
            None => self.overflown = true,
        }
    }

    /// Writes zeros.
    pub(crate) fn put_zeros(&mut self, count: usize) {
        let end = self.end.saturating_add(count);
        match self.out.get_mut(self.end..end) {
            Some(target) => {
                target.fill(0);
                self.end = end;
            }
            None => self.overflown = true,
        }
    }

    /// Announces bytes that follow the written ones.
    pub(crate) fn follow(&mut self, bytes: u32) {
        self.following = bytes;
    }

    /// Something cannot be said in the form of the message.
    pub(crate) fn overflow(&mut self) {
        self.overflown = true;
    }

    /// Writes the header, into which the payload's size goes, and gives out the whole message.
    #[inline]
    pub(crate) fn seal(self, message: MessageName, header: Header) -> Result<&'o [u8], ApiMisuse> {
        let too_small = ApiMisuse::BufferTooSmall { message, given: self.out.len() };
        let written = self.end.checked_sub(Header::SIZE).and_then(|written| u32::try_from(written).ok());
        let size = written.and_then(|written| written.checked_add(self.following));
        match (size, self.out.get_mut(..self.end)) {
            (Some(size), Some(whole)) if !self.overflown => {
                header.with_size(size).write_to(whole);
                Ok(whole)
            }
            _ => Err(too_small),
        }
    }
}

/// A payload that is read from and written to bytes. One that can have a single size is given no
/// bytes beyond it, see [`PayloadKind::cut`].
pub(crate) trait Payload<'b>: Sized {
    const KIND: PayloadKind;
    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit>;
    fn encode(&self, out: &mut Writer<'_>, form: Form);
}

/// A payload with one layout of one size.
pub(crate) trait FixedPayload: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    const KIND: PayloadKind;
}

impl<'b, T: FixedPayload> Payload<'b> for T {
    const KIND: PayloadKind = <T as FixedPayload>::KIND;

    fn decode(bytes: &'b [u8], _form: Form) -> Result<Self, Misfit> {
        Self::read_from_bytes(bytes).map_err(|_| Misfit::Exactly(size_of::<Self>()))
    }

    fn encode(&self, out: &mut Writer<'_>, _form: Form) {
        out.put(self.as_bytes());
    }
}

/// A layout of one size seen in place, in a payload of another size.
pub(crate) fn fixed<T>(bytes: &[u8], form: Form) -> Result<&T, Misfit>
where
    T: FromBytes + Immutable + KnownLayout + Unaligned,
{
    match T::ref_from_prefix(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((value, _)) if form.trailing == TrailingBytes::Ignore => Ok(value),
        _ => Err(Misfit::Exactly(size_of::<T>())),
    }
}

macro_rules! fixed_payloads {
    ($($name:ident),*) => {$(
        impl FixedPayload for $name {
            const KIND: PayloadKind = PayloadKind::$name;
        }
    )*};
}

fixed_payloads!(VringState, VringAddr, VringArea, VringDescriptor, Iotlb, Transfer, SharedMemoryMap);
fixed_payloads!(ScanoutId, CursorPosition, Scanout, Area, DmabufScanout, DmabufScanout2);

macro_rules! number_payloads {
    ($($name:ty),*) => {$(
        impl<'b> Payload<'b> for $name {
            const KIND: PayloadKind = PayloadKind::U64;

            fn decode(bytes: &'b [u8], _form: Form) -> Result<Self, Misfit> {
                match <Self as Scalar>::Wire::read_from_bytes(bytes) {
                    Ok(wire) => Ok(Self::from_wire(wire)),
                    Err(_) => Err(Misfit::Exactly(size_of::<Self>())),
                }
            }

            fn encode(&self, out: &mut Writer<'_>, _form: Form) {
                out.put(self.to_wire().as_bytes());
            }
        }
    )*};
}

number_payloads!(u64, i64, VirtioFeatures, GpuFeatures);

impl<'b> Payload<'b> for ProtocolFeatures {
    const KIND: PayloadKind = PayloadKind::U64;

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        let mut features = u64::decode(bytes, form).map(Self::from_bits_retain)?;
        if let Some(moved) = form.shmem_bit.moved_to() {
            let has_shmem = features.contains(moved);
            features.remove(moved);
            features.set(Self::SHMEM, has_shmem);
        }
        Ok(features)
    }

    fn encode(&self, out: &mut Writer<'_>, form: Form) {
        let mut features = *self;
        if let Some(moved) = form.shmem_bit.moved_to() {
            features.set(moved, self.contains(Self::SHMEM));
            features.remove(Self::SHMEM);
        }
        features.bits().encode(out, form);
    }
}
