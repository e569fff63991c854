//! One request of the driver: a token to give back, and its buffers as translated pieces of memory.

use super::descriptor::Descriptor;

/// A chain that a device took from a ring. It belongs back into the ring.
///
/// It holds no memory: the pieces are in the caller's [`ChainBuffer`], readable ones first. Giving
/// it back consumes it, so that no chain can go back twice.
#[must_use = "a chain belongs back into its ring"]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// An [`Entry`] as one number, as a chain is moved and compared more often than looked into.
    entry: u64,
    pub(crate) origin: Origin,
    /// An [`Extent`], number by number, which the compiler keeps in registers.
    readable_pieces: u32,
    readable: u32,
    all: u32,
}

/// Where a chain is in a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// Split: the first descriptor. Packed: the buffer id.
    pub(crate) id: u16,
    /// Where it was in the ring, in the ring's own terms.
    pub(crate) position: u16,
    /// Slots of the ring that it takes: in a split ring one, of the available ring.
    pub(crate) slots: u16,
    /// Packed: its first entry in the inflight record.
    pub(crate) record: u16,
}

impl Entry {
    /// Split: the chain that begins at `head`.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn split(&mut self, head: u16) {
        (self.id, self.record, self.slots) = (head, head, 1);
    }

    /// Packed: the `descriptor` is its next one in the ring.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn add(&mut self, descriptor: &Descriptor) {
        // Only the last one's id counts.
        self.id = descriptor.link;
        self.slots = self.slots.wrapping_add(1);
    }

    #[cfg_attr(not(for_size), inline)]
    fn pack(self) -> u64 {
        let Self { id, position, slots, record } = self;
        u64::from(id) | u64::from(position) << 16 | u64::from(slots) << 32 | u64::from(record) << 48
    }

    #[cfg_attr(not(for_size), inline)]
    fn unpack(packed: u64) -> Self {
        let part = |at: u32| u16::try_from(packed >> at & 0xffff).unwrap_or(0);
        Self { id: part(0), position: part(16), slots: part(32), record: part(48) }
    }
}

/// How a device came to have a chain. As large as the rest is aligned, so that a chain has no gap to be moved around apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum Origin {
    /// It took it, so that the ring has it where it was.
    Ring,
    /// Another device had taken it, as its record says.
    Record,
}

/// How much of a chain can be read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    pub(crate) readable_pieces: u32,
    pub(crate) readable: u32,
    /// Both together.
    pub(crate) all: u32,
}

impl Extent {
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn writable(self) -> u32 {
        // Never less than what can be read.
        self.all.wrapping_sub(self.readable)
    }
}

impl Chain {
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn new(entry: Entry, origin: Origin, extent: Extent) -> Self {
        let Extent { readable_pieces, readable, all } = extent;
        Self { entry: entry.pack(), origin, readable_pieces, readable, all }
    }

    /// Where it is in the ring.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn entry(&self) -> Entry {
        Entry::unpack(self.entry)
    }

    /// What the driver calls the chain: its first descriptor in a split ring, its buffer id in a
    /// packed one.
    ///
    /// In a split ring it is below the ring's size. In a packed ring it is any number the driver
    /// likes: check it before it becomes an index.
    #[must_use]
    #[cfg_attr(not(for_size), inline)]
    pub fn id(&self) -> u16 {
        self.entry().id
    }

    /// Bytes the driver wrote for the device.
    #[must_use]
    #[cfg_attr(not(for_size), inline)]
    pub fn readable_len(&self) -> u32 {
        self.readable
    }

    /// Bytes the device may write for the driver.
    #[must_use]
    #[cfg_attr(not(for_size), inline)]
    pub fn writable_len(&self) -> u32 {
        // Never less than what can be read.
        self.all.wrapping_sub(self.readable)
    }

    /// How many of its pieces are readable; all others are writable.
    #[must_use]
    #[cfg_attr(not(for_size), inline)]
    pub fn readable_pieces(&self) -> usize {
        usize::try_from(self.readable_pieces).unwrap_or(usize::MAX)
    }

    /// Its pieces, as they were gathered: readable ones, writable ones.
    #[must_use]
    #[cfg_attr(not(for_size), inline)]
    pub fn split<'p, R>(&self, pieces: &'p [R]) -> (&'p [R], &'p [R]) {
        pieces.split_at_checked(self.readable_pieces()).unwrap_or((pieces, &[]))
    }
}

/// Where the pieces of a chain are gathered.
///
/// Implement it for whatever keeps them, so that taking a chain allocates nothing.
pub trait ChainBuffer<R> {
    /// Forgets all pieces.
    fn clear(&mut self);

    /// Adds a piece behind the others.
    ///
    /// # Errors
    /// When there is no room; the chain is malformed then.
    fn push(&mut self, piece: R) -> Result<(), NoRoom>;
}

/// A [`ChainBuffer`] is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoRoom;

impl<R, const N: usize> ChainBuffer<R> for heapless::Vec<R, N> {
    #[inline]
    fn clear(&mut self) {
        heapless::Vec::clear(self);
    }

    #[inline]
    fn push(&mut self, piece: R) -> Result<(), NoRoom> {
        heapless::Vec::push(self, piece).map_err(|_| NoRoom)
    }
}
