//! Memory whose every access is a step: accesses that were made are replayed, one is made, all others are refused.

use core::cell::RefCell;

use vhost_core::{Access, GuestAddress, GuestMemory, GuestRange, Load, Store, Unmapped};

/// Whether a store is seen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stores {
    /// By everybody.
    AtOnce,
    /// By the other side at any later time, and in any order that releases and fences leave free.
    Delayed,
    /// Likewise, on a machine whose fences do nothing.
    Unfenced,
    /// Likewise, on a machine whose releases do nothing.
    Unreleased,
}

/// A store that only its own side sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    offset: usize,
    bytes: Vec<u8>,
    release: bool,
}

/// The two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Device,
    Driver,
}

/// The bytes, and what either side has stored and the other one does not see yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shared {
    bytes: Vec<u8>,
    pending: [Vec<Pending>; 2],
    stores: Stores,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Device => Self::Driver,
            Self::Driver => Self::Device,
        }
    }
}

impl Shared {
    pub(crate) fn new(size: usize) -> Self {
        Self { bytes: vec![0; size], pending: [Vec::new(), Vec::new()], stores: Stores::AtOnce }
    }

    /// From now on stores are seen as `stores` says.
    pub(crate) fn set_stores(&mut self, stores: Stores) {
        assert!(self.pending.iter().all(Vec::is_empty));
        self.stores = stores;
    }

    /// All that the memory can be by the time `reader` reads these bytes: the other side's stores to them are seen, or
    /// not yet, in every way that is left free. The memory as it is is not among them.
    ///
    /// Before anybody reads a place, it makes no difference whether a store to it is seen.
    pub(crate) fn before_read(&self, reader: Side, offset: usize, length: usize) -> Vec<Self> {
        let writer = reader.other();
        let mut all = vec![self.clone()];
        let mut open = 0;
        while let Some(memory) = all.get(open).cloned() {
            open += 1;
            for (index, store) in memory.pending[writer as usize].iter().enumerate() {
                if store.touches(offset, length) {
                    let next = memory.with_seen(writer, index);
                    if !all.contains(&next) {
                        all.push(next);
                    }
                }
            }
        }
        all.split_off(1)
    }

    /// The store of this index is seen, and whatever has to be seen before it.
    fn with_seen(&self, side: Side, index: usize) -> Self {
        let stores = &self.pending[side as usize];
        let mut due = vec![index];
        for earlier in (0..index).rev() {
            let before = |later: &usize| stores[*later].release || stores[earlier].overlaps(&stores[*later]);
            if due.iter().any(before) {
                due.push(earlier);
            }
        }
        let mut after = self.clone();
        for index in due.iter().rev() {
            let Pending { offset, bytes, .. } = &stores[*index];
            after.bytes[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        for index in due {
            after.pending[side as usize].remove(index);
        }
        after
    }

    fn read(&self, side: Side, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes[offset..offset + out.len()]);
        for store in &self.pending[side as usize] {
            for (byte, at) in store.bytes.iter().zip(store.offset..) {
                if (offset..offset + out.len()).contains(&at) {
                    out[at - offset] = *byte;
                }
            }
        }
    }

    fn write(&mut self, side: Side, offset: usize, bytes: &[u8], release: bool) {
        match self.stores {
            Stores::AtOnce => self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes),
            stores => {
                let release = release && stores != Stores::Unreleased;
                self.pending[side as usize].push(Pending { offset, bytes: bytes.to_vec(), release });
            }
        }
    }

    fn fence(&mut self, side: Side) {
        while self.stores != Stores::Unfenced && !self.pending[side as usize].is_empty() {
            *self = self.with_seen(side, 0);
        }
    }
}

impl Pending {
    fn touches(&self, offset: usize, length: usize) -> bool {
        self.offset < offset + length && offset < self.offset + self.bytes.len()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.touches(other.offset, other.bytes.len())
    }
}

/// What an operation has read so far, an entry for each access; writes and fences read nothing.
pub(crate) type Seen = Vec<[u8; 16]>;

/// The bytes that the last access of a step has read: offset and length.
pub(crate) type Read = Option<(usize, usize)>;

/// How an operation ended.
pub(crate) enum Ran<T> {
    /// It is over.
    Whole(T),
    /// It wanted one access more, and made `Seen` so far.
    Cut(Seen),
}

/// One side's view of the memory during one step.
pub(crate) struct Window {
    shared: RefCell<Shared>,
    side: Side,
    script: RefCell<Script>,
}

struct Script {
    seen: Seen,
    /// The next access; those before the end of `seen` are replayed.
    next: usize,
    /// Accesses that may still be made.
    allowed: usize,
    cut: bool,
    read: Read,
}

/// What becomes of an access.
enum Turn {
    Replayed([u8; 16]),
    Made,
    Refused,
}

impl Window {
    /// Runs `operation` up to its first access beyond `seen`; it may make `allowed` more.
    pub(crate) fn run<T>(
        shared: &mut Shared,
        side: Side,
        seen: &Seen,
        allowed: usize,
        operation: impl FnOnce(&Window) -> T,
    ) -> (Ran<T>, Read) {
        let script = Script { seen: seen.clone(), next: 0, allowed, cut: false, read: None };
        let window = Self { shared: RefCell::new(shared.clone()), side, script: RefCell::new(script) };
        let result = operation(&window);
        *shared = window.shared.into_inner();
        let script = window.script.into_inner();
        let ran = if script.cut { Ran::Cut(script.seen) } else { Ran::Whole(result) };
        (ran, script.read)
    }

    /// Runs all of `operation` at once.
    pub(crate) fn whole<T>(shared: &mut Shared, side: Side, operation: impl FnOnce(&Window) -> T) -> T {
        match Self::run(shared, side, &Seen::new(), usize::MAX, operation).0 {
            Ran::Whole(result) => result,
            Ran::Cut(_) => unreachable!("every access is allowed"),
        }
    }

    fn turn(&self) -> Turn {
        let mut script = self.script.borrow_mut();
        if script.cut {
            return Turn::Refused;
        }
        let at = script.next;
        script.next += 1;
        if let Some(seen) = script.seen.get(at) {
            return Turn::Replayed(*seen);
        }
        if script.allowed == 0 {
            script.cut = true;
            return Turn::Refused;
        }
        script.allowed -= 1;
        Turn::Made
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        let seen = match self.turn() {
            Turn::Replayed(seen) => seen,
            Turn::Made => {
                let mut seen = [0; 16];
                self.shared.borrow().read(self.side, offset, &mut seen[..out.len()]);
                let mut script = self.script.borrow_mut();
                script.seen.push(seen);
                script.read = Some((offset, out.len()));
                seen
            }
            Turn::Refused => return None,
        };
        out.copy_from_slice(&seen[..out.len()]);
        Some(())
    }

    fn change(&self, change: impl FnOnce(&mut Shared)) -> Option<()> {
        match self.turn() {
            Turn::Replayed(_) => Some(()),
            Turn::Made => {
                change(&mut self.shared.borrow_mut());
                self.script.borrow_mut().seen.push([0; 16]);
                Some(())
            }
            Turn::Refused => None,
        }
    }
}

/// A piece of the memory that a window shows; the memory begins at guest address 0.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'w> {
    window: &'w Window,
    start: usize,
    length: usize,
}

impl core::fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start, self.length)
    }
}

impl<'w> GuestMemory for &'w Window {
    type Address = GuestAddress;
    type Range = Piece<'w>;

    fn piece(&self, address: GuestAddress, length: u64, _: Access) -> Result<Piece<'w>, Unmapped> {
        // Buffers lie far away and are not touched.
        Ok(Piece { window: self, start: address.0 as usize, length: length as usize })
    }
}

impl Piece<'_> {
    fn check(&self, offset: usize, length: usize) {
        assert!(offset + length <= self.length, "{length} bytes at {offset} of {self:?}");
    }
}

impl GuestRange for Piece<'_> {
    fn len(&self) -> usize {
        self.length
    }

    fn guest_address(&self) -> GuestAddress {
        GuestAddress(self.start as u64)
    }

    // Loads are never moved: what an acquire forbids does not happen here.
    fn load_u16(&self, offset: usize, _: Load) -> Option<u16> {
        self.check(offset, 2);
        let mut bytes = [0; 2];
        self.window.read(self.start + offset, &mut bytes)?;
        Some(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()> {
        self.check(offset, 2);
        let (side, at, release) = (self.window.side, self.start + offset, order == Store::Release);
        self.window.change(|shared| shared.write(side, at, &value.to_le_bytes(), release))
    }

    fn fetch_or(&self, _: usize, _: u8) -> Option<u8> {
        unreachable!("rings need no atomic change")
    }

    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        self.check(offset, out.len());
        self.window.read(self.start + offset, out)
    }

    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        self.check(offset, bytes.len());
        let (side, at) = (self.window.side, self.start + offset);
        self.window.change(|shared| shared.write(side, at, bytes, false))
    }

    fn full_fence(&self) {
        let side = self.window.side;
        // Refused: then every access behind it is, too.
        let _ = self.window.change(|shared| shared.fence(side));
    }
}
