//! Bytes: how a message is written into the caller's buffer.

use super::{
    config::Config,
    fs_cache::CacheEntries,
    header::Header,
    inflight::Inflight,
    memory::{MemoryRegion, MemoryTable},
    payload::Form,
    row::MessageName,
    shared::SharedMemoryConfig,
};
use crate::error::ApiMisuse;

/// What a payload writes: few ways for many payloads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'c> {
    Nothing,
    Number(u64),
    /// A layout as it lies in memory.
    Bytes(&'c [u8]),
    /// The same in front of so many bytes of an image, which the caller sends from where they are.
    BeforeImage(&'c [u8], u32),
    Inflight(&'c Inflight),
    Config(&'c Config<'c>),
    Region(&'c MemoryRegion),
    Table(&'c MemoryTable<'c>),
    Sizes(&'c SharedMemoryConfig<'c>),
    Mappings(&'c CacheEntries<'c>),
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

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
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

    /// Writes a number of eight bytes.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn put_number(&mut self, number: u64) {
        let end = self.end.saturating_add(size_of::<u64>());
        match self.out.get_mut(self.end..end).and_then(|target| target.first_chunk_mut()) {
            Some(target) => {
                *target = number.to_ne_bytes();
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

    /// Writes a payload that is not a mere number.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn put_content(&mut self, content: Content<'_>, form: Form) {
        match content {
            Content::Nothing => {}
            Content::Bytes(bytes) => self.put(bytes),
            _ => self.put_special(content, form),
        }
    }

    // On its own, because the others are usual.
    #[inline(never)]
    fn put_special(&mut self, content: Content<'_>, form: Form) {
        match content {
            Content::Nothing | Content::Number(_) | Content::Bytes(_) => {}
            Content::BeforeImage(bytes, following) => {
                self.following = following;
                self.put(bytes);
            }
            Content::Inflight(inflight) => inflight.write(self),
            Content::Config(config) => config.write(self),
            Content::Region(region) => region.write(self, form),
            Content::Table(table) => table.write(self, form),
            Content::Sizes(sizes) => sizes.write(self),
            Content::Mappings(mappings) => mappings.write(self, form.dialect),
        }
    }

    /// Something cannot be said in the form of the message.
    pub(crate) fn overflow(&mut self) {
        self.overflown = true;
    }

    /// Writes the header, into which the payload's size goes, and gives out the whole message.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
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
