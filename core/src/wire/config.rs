//! Bytes: a part of the device's configuration space.

use zerocopy::{FromBytes, IntoBytes};

use super::{
    payload::{Body, Form, Payload, PayloadKind, Role, SizeRule},
    scalar::layout,
    writer::{Content, Writer},
};

/// The most bytes of configuration space one message carries.
pub const MAX_CONFIG_SIZE: usize = 256;

pub(crate) const SIZE: SizeRule = SizeRule::Between(ConfigHeader::SIZE, ConfigHeader::SIZE + MAX_CONFIG_SIZE);

layout! {
    /// What stands in front of the configuration bytes.
    pub struct ConfigHeader (12 bytes) {
        /// Offset of the first byte in the configuration space.
        field offset: u32,
        /// How many bytes are meant.
        field size: u32,
        /// See [`Config::WRITABLE`] and [`Config::MIGRATION`].
        field flags: u32,
    }
}

/// A part of the configuration space (`GET_CONFIG`, `SET_CONFIG`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config<'b> {
    /// Offset of the first byte in the configuration space.
    pub offset: u32,
    /// See [`Config::WRITABLE`] and [`Config::MIGRATION`]; peers disagree about the values, so
    /// the number is passed on as it came.
    pub flags: u32,
    /// The bytes, at most [`MAX_CONFIG_SIZE`]. In a `GET_CONFIG` request they say how many are
    /// wanted and are otherwise ignored.
    pub data: &'b [u8],
}

impl Config<'_> {
    /// Flags of a write by the guest's driver.
    pub const WRITABLE: u32 = 0;
    /// Flags of an access for migration.
    pub const MIGRATION: u32 = 1;
}

impl<'b> Payload<'b> for Config<'b> {
    const KIND: PayloadKind = PayloadKind::Config;

    #[inline(never)]
    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        let (header, rest) = ConfigHeader::ref_from_prefix(body.bytes).ok()?;
        if rest.len() > MAX_CONFIG_SIZE {
            return None;
        }
        let wanted = usize::try_from(header.size()).unwrap_or(usize::MAX);
        let data = match rest.get(..wanted) {
            // SPDK always sends 256 bytes, of which the first `size` count.
            Some(data) => data,
            // Replies may be shorter than what was asked for.
            None if form.role == Role::Reply => rest,
            None => return None,
        };
        Some(Self { offset: header.offset(), flags: header.flags(), data })
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        Content::Config(self)
    }
}

/// How many bytes are meant, if more than there are.
pub(super) fn wrong_size(bytes: &[u8]) -> Option<u32> {
    let (header, _) = ConfigHeader::ref_from_prefix(bytes).ok()?;
    SIZE.allows(bytes.len()).then(|| header.size())
}

impl Config<'_> {
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        match u32::try_from(self.data.len()) {
            Ok(size) if self.data.len() <= MAX_CONFIG_SIZE => {
                out.put(ConfigHeader::new(self.offset, size, self.flags).as_bytes());
                out.put(self.data);
            }
            _ => out.overflow(),
        }
    }
}
