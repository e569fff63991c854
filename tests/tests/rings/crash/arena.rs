//! Memory that lets a device make so many accesses and no more.

use core::cell::{Cell, RefCell};

use vhost_core::{Access, GuestAddress, GuestMemory, GuestRange, Load, Store, Unmapped};

/// Bytes from guest address 0 on, and the accesses that the device may still make.
#[derive(Clone)]
pub(crate) struct Arena {
    bytes: RefCell<Vec<u8>>,
    allowed: Cell<Option<usize>>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self { bytes: RefCell::new(vec![0; 0x300]), allowed: Cell::new(None) }
    }

    /// The device may make this many accesses more; `None`: any number.
    pub(crate) fn allow(&self, accesses: Option<usize>) {
        self.allowed.set(accesses);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.allowed.get() == Some(0)
    }

    /// The memory as the device sees it.
    pub(crate) fn device(&self) -> View<'_> {
        View { arena: self, counted: true }
    }

    /// The memory as the driver sees it.
    pub(crate) fn driver(&self) -> View<'_> {
        View { arena: self, counted: false }
    }
}

/// One side's view.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    arena: &'a Arena,
    counted: bool,
}

/// A piece of the memory in one side's view.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    view: View<'a>,
    start: usize,
    length: usize,
}

impl core::fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start, self.length)
    }
}

impl<'a> GuestMemory for View<'a> {
    type Address = GuestAddress;
    type Range = Piece<'a>;

    fn piece(&self, address: GuestAddress, length: u64, _: Access) -> Result<Piece<'a>, Unmapped> {
        Ok(Piece { view: *self, start: address.0 as usize, length: length as usize })
    }
}

impl Piece<'_> {
    fn access<T>(&self, offset: usize, length: usize, access: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        assert!(offset + length <= self.length, "{length} bytes at {offset} of {self:?}");
        let allowed = &self.view.arena.allowed;
        if let (true, Some(left)) = (self.view.counted, allowed.get()) {
            allowed.set(Some(left.checked_sub(1)?));
        }
        let at = self.start + offset;
        Some(access(&mut self.view.arena.bytes.borrow_mut()[at..at + length]))
    }
}

impl GuestRange for Piece<'_> {
    fn len(&self) -> usize {
        self.length
    }

    fn guest_address(&self) -> GuestAddress {
        GuestAddress(self.start as u64)
    }

    fn load_u16(&self, offset: usize, _: Load) -> Option<u16> {
        self.access(offset, 2, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn store_u16(&self, offset: usize, value: u16, _: Store) -> Option<()> {
        self.access(offset, 2, |bytes| bytes.copy_from_slice(&value.to_le_bytes()))
    }

    fn fetch_or(&self, _: usize, _: u8) -> Option<u8> {
        unreachable!("nothing is logged here")
    }

    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        self.access(offset, out.len(), |bytes| out.copy_from_slice(bytes))
    }

    fn write_from(&self, offset: usize, from: &[u8]) -> Option<()> {
        self.access(offset, from.len(), |bytes| bytes.copy_from_slice(from))
    }
}
