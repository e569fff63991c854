//! One request of the driver: a token to give back, and its buffers as translated pieces of memory.

/// A chain that a device took from a ring. It belongs back into the ring.
///
/// It holds no memory: the pieces are in the caller's [`ChainBuffer`], readable ones first. Giving
/// it back consumes it, so that no chain can go back twice.
#[must_use = "a chain belongs back into its ring"]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Split: the first descriptor. Packed: the buffer id.
    pub(crate) id: u16,
    /// Where it was in the ring, in the ring's own terms.
    pub(crate) position: u16,
    /// Slots of the ring that it takes: in a split ring one, of the available ring.
    pub(crate) slots: u16,
    /// Packed: its first entry in the inflight record.
    pub(crate) record: u16,
    pub(crate) origin: Origin,
    pub(crate) extent: Extent,
}

/// How a device came to have a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// It took it, so that the ring has it where it was.
    Ring,
    /// Another device had taken it, as its record says.
    Record,
}

/// How much of a chain can be read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    pub(crate) readable_pieces: usize,
    pub(crate) readable: u32,
    pub(crate) writable: u32,
}

impl Chain {
    /// What the driver calls the chain: its first descriptor in a split ring, its buffer id in a
    /// packed one.
    ///
    /// In a split ring it is below the ring's size. In a packed ring it is any number the driver
    /// likes: check it before it becomes an index.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Bytes the driver wrote for the device.
    #[must_use]
    pub fn readable_len(&self) -> u32 {
        self.extent.readable
    }

    /// Bytes the device may write for the driver.
    #[must_use]
    pub fn writable_len(&self) -> u32 {
        self.extent.writable
    }

    /// How many of its pieces are readable; all others are writable.
    #[must_use]
    pub fn readable_pieces(&self) -> usize {
        self.extent.readable_pieces
    }

    /// Its pieces, as they were gathered: readable ones, writable ones.
    #[must_use]
    pub fn split<'p, R>(&self, pieces: &'p [R]) -> (&'p [R], &'p [R]) {
        pieces.split_at_checked(self.extent.readable_pieces).unwrap_or((pieces, &[]))
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
