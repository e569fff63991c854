//! The dirty log: which pages of guest memory the device has written, one bit each.

use core::fmt;

use crate::{address::GuestAddress, guest_memory::GuestRange};

/// Bytes that one bit of the log stands for.
pub const LOG_PAGE: u64 = 4096;

/// Pages that one byte of the log stands for.
const PAGES_OF_BYTE: u64 = 8;

/// The log that a front-end shares with `SET_LOG_BASE`.
///
/// Bit `n % 8` of byte `n / 8` stands for page `n`, counted from guest address 0. The front-end
/// takes bits away while they are set here, so they are set atomically, and after the write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirtyLog<R> {
    range: R,
}

impl<R: GuestRange> DirtyLog<R> {
    /// The log in `range`.
    pub const fn new(range: R) -> Self {
        Self { range }
    }

    /// Bytes a log needs for guest memory whose last byte is at `last`.
    #[must_use]
    pub const fn size_for(last: GuestAddress) -> u64 {
        // Cannot overflow: the quotient is far from the end of 64 bits.
        (last.0 / (LOG_PAGE * PAGES_OF_BYTE)).saturating_add(1)
    }

    /// Marks every page of `length` bytes written at `address`.
    ///
    /// # Errors
    /// When some page is beyond the log, or the end of the range beyond 64 bits. The pages inside
    /// are marked.
    pub fn mark(&self, address: GuestAddress, length: u64) -> Result<(), LogFault> {
        self.set(address, length).ok_or(LogFault { address, length })
    }

    /// Marks every page; `None` when some page is beyond the log.
    pub(crate) fn set(&self, address: GuestAddress, length: u64) -> Option<()> {
        let Some(behind_first) = length.checked_sub(1) else {
            return Some(());
        };
        let last_byte = address.0.checked_add(behind_first)?;
        let (mut page, last) = (address.0 / LOG_PAGE, last_byte / LOG_PAGE);
        // At most one turn for each byte of the log, because the first one beyond ends it.
        loop {
            let byte = page / PAGES_OF_BYTE;
            let (bits, next) = bits_of_byte(page, last);
            self.range.fetch_or(usize::try_from(byte).ok()?, bits)?;
            match next {
                Some(next) => page = next,
                None => return Some(()),
            }
        }
    }
}

/// The bits for the pages from `page` to `last` that are in the byte of `page`, and the first page
/// of the next byte, if any is left for it.
fn bits_of_byte(page: u64, last: u64) -> (u8, Option<u64>) {
    let last_of_byte = page | (PAGES_OF_BYTE - 1);
    let bits = from_bit(page) & up_to_bit(last.min(last_of_byte));
    (bits, if last > last_of_byte { last_of_byte.checked_add(1) } else { None })
}

fn from_bit(page: u64) -> u8 {
    u8::MAX.unbounded_shl(bit(page))
}

fn up_to_bit(page: u64) -> u8 {
    u8::MAX.unbounded_shr(7_u32.wrapping_sub(bit(page)))
}

/// Which bit of its byte stands for a page, 0 to 7.
fn bit(page: u64) -> u32 {
    let [bit, ..] = (page % PAGES_OF_BYTE).to_le_bytes();
    bit.into()
}

/// A write could not be logged: the log has no bit for some of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogFault {
    /// Where the write begins.
    pub address: GuestAddress,
    /// Its bytes.
    pub length: u64,
}

impl fmt::Display for LogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes written at {} are beyond the dirty log", self.length, self.address)
    }
}

impl core::error::Error for LogFault {}
