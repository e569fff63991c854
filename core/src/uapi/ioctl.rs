//! Bytes: what an ioctl's number is made of, and what is known of each ioctl.

use core::fmt;
use core::marker::PhantomData;

use zerocopy::{FromBytes, IntoBytes};

/// Which way the argument of an ioctl goes, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// There is no argument (`_IO`).
    None,
    /// From the kernel (`_IOR`).
    Read,
    /// To the kernel (`_IOW`).
    Write,
    /// To the kernel and back (`_IOWR`).
    ReadWrite,
}

/// Architectures whose numbers have three bits for the direction instead of two.
const THREE_BITS: bool = cfg!(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc",
    target_arch = "sparc64"
));

/// The bits of a number's uppermost byte that belong to the size; the others are the direction.
const SIZE_BITS: u8 = if THREE_BITS { 0x1f } else { 0x3f };

impl Direction {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Read, Self::Write, Self::ReadWrite];

    /// Its bits in a number's uppermost byte (asm-generic/ioctl.h, and the asm/ioctl.h of the exceptions).
    const fn bits(self) -> u8 {
        match (self, THREE_BITS) {
            (Self::None, false) => 0,
            (Self::Write, false) => 0x40,
            (Self::Read, false) => 0x80,
            (Self::ReadWrite, _) => 0xc0,
            (Self::None, true) => 0x20,
            (Self::Read, true) => 0x40,
            (Self::Write, true) => 0x80,
        }
    }
}

/// The number of an ioctl, known or not, as this machine's architecture composes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IoctlNumber(pub u32);

impl IoctlNumber {
    /// The number of these parts; `None` if `size` has more bits than a number has room for.
    #[must_use]
    pub const fn new(direction: Direction, group: u8, ordinal: u8, size: usize) -> Option<Self> {
        let [.., top, low] = size.to_be_bytes();
        let number = Self(u32::from_be_bytes([(top & SIZE_BITS) | direction.bits(), low, group, ordinal]));
        if number.size() == size { Some(number) } else { None }
    }

    /// Which way the argument goes; `None` if no direction has such bits.
    ///
    /// Some of the kernel's declarations are wrong; [`IoctlRow::moves`] tells the truth.
    #[must_use]
    pub fn direction(self) -> Option<Direction> {
        let [top, ..] = self.0.to_be_bytes();
        Direction::ALL.into_iter().find(|direction| direction.bits() == top & !SIZE_BITS)
    }

    /// The family: 0xaf is vhost, 0x81 is VDUSE.
    #[must_use]
    pub const fn group(self) -> u8 {
        let [_, _, group, _] = self.0.to_be_bytes();
        group
    }

    /// The ioctl's number within its family; with the direction and the size it may mean different things.
    #[must_use]
    pub const fn ordinal(self) -> u8 {
        let [_, _, _, ordinal] = self.0.to_be_bytes();
        ordinal
    }

    /// Bytes of the argument, without the elements that may follow it.
    #[must_use]
    pub const fn size(self) -> usize {
        let [top, low, ..] = self.0.to_be_bytes();
        let mut bytes = [0; size_of::<usize>()];
        let [.., high_byte, low_byte] = &mut bytes;
        (*high_byte, *low_byte) = (top & SIZE_BITS, low);
        usize::from_be_bytes(bytes)
    }
}

impl fmt::Debug for IoctlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoctlNumber({:#010x})", self.0)
    }
}

impl fmt::Display for IoctlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// One line of a table of ioctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoctlRow {
    /// The kernel's name.
    pub name: &'static str,
    /// The number; it holds the declared direction and the size.
    pub number: IoctlNumber,
    /// Which way the argument really goes: some are declared `_IOW` though the kernel writes, or `_IOR` though it reads
    /// the head of an array first.
    pub moves: Direction,
    /// Bytes of each element that follows the argument; 0 if none does. The argument tells how many there are.
    pub element: usize,
}

/// An ioctl together with the type of its argument.
///
/// Only the tables make these, so that a call that passes a `T` passes what the kernel expects.
#[derive(Debug)]
pub struct Command<T> {
    row: IoctlRow,
    argument: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Command<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Command<T> {}

impl<T> Command<T> {
    pub(super) const fn new(row: IoctlRow) -> Self {
        assert!(row.number.size() == size_of::<T>(), "the size in the number is the argument's");
        Self { row, argument: PhantomData }
    }

    /// The ioctl's line in its table.
    #[must_use]
    pub const fn row(self) -> IoctlRow {
        self.row
    }
}

impl<T: FromBytes + IntoBytes> Command<T> {
    /// The argument in the bytes that a caller passed; `None` unless they are as many as the number says.
    #[must_use]
    pub fn argument(self, bytes: &[u8]) -> Option<T> {
        T::read_from_bytes(bytes).ok()
    }
}
