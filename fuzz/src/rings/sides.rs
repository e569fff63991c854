//! A driver and a device on one ring, and what each knows to be under way.

use std::collections::VecDeque;

use vhost_core::{
    Access, AddError, Buffer, CellMemory, CellRange, Chain, DeviceQueue, DriverQueue, GuestAddress, GuestMemory,
    PopError, RingAddresses, RingLayout, RingParts, RingUser, Used, VirtioFeatures, wire::vring::VringBase,
};

use super::Memory;

/// The most pieces of a chain.
const PIECES: usize = 8;
/// Indirect tables, where they begin, and the bytes of each.
const TABLES: usize = 4;
const TABLE: u64 = 0x280;
const TABLE_SIZE: u64 = 0x40;
/// Where buffers begin in memory that nobody else writes: behind all that belongs to the ring.
const BUFFERS: u64 = 0x400;

/// A chain that the driver has added.
struct Sent {
    token: u16,
    readable: u32,
    writable: u32,
    table: Option<usize>,
}

/// Both sides.
pub(super) struct Sides<'m> {
    memory: &'m CellMemory<'m>,
    device: DeviceQueue<CellRange<'m>>,
    driver: DriverQueue<CellRange<'m>, 16>,
    kind: Memory,
    features: VirtioFeatures,
    /// What the driver has added and the device not seen.
    waiting: VecDeque<Sent>,
    /// What the device has, and what became of the others: how many bytes it wrote.
    taken: Vec<(Chain, Sent)>,
    returned: Vec<(Sent, u32)>,
}

impl<'m> Sides<'m> {
    pub(super) fn new(
        memory: &'m CellMemory<'m>,
        addresses: RingAddresses<GuestAddress>,
        size: u32,
        features: VirtioFeatures,
        base: VringBase,
        kind: Memory,
    ) -> Option<Self> {
        let layout = RingLayout::of(features);
        let parts = |user| RingParts::translate(memory, addresses, layout, size, user).ok();
        let device = DeviceQueue::new(parts(RingUser::Device)?, size, features, base).ok()?;
        let driver = DriverQueue::new(parts(RingUser::Driver)?, size, features).ok()?;
        let (waiting, taken, returned) = Default::default();
        Some(Self { memory, device, driver, kind, features, waiting, taken, returned })
    }

    /// One operation of either side; `None` when its ring is broken.
    pub(super) fn step(&mut self, operation: u8, number: u8) -> Option<()> {
        match operation % 12 {
            0 | 1 => self.pop(),
            2 | 3 => self.push(operation, number),
            4 => self.device.needs_call().ok().map(drop),
            5 => self.device.enable_kicks().ok().map(drop),
            6 => self.add(operation, number, None),
            7 => self.add(operation, number, Some(usize::from(number) % TABLES)),
            8 => {
                self.driver.publish().ok()?;
                self.driver.needs_kick().ok().map(drop)
            }
            9 => self.poll().map(drop),
            _ => self.driver.enable_calls().ok().map(drop),
        }
    }

    /// Everything that is under way arrives.
    pub(super) fn finish(&mut self) {
        let whole = "a ring that nobody broke is broken";
        self.driver.publish().expect(whole);
        while !self.waiting.is_empty() {
            self.pop().expect(whole);
        }
        while !self.taken.is_empty() {
            self.push(0, 0).expect(whole);
        }
        while self.poll().expect(whole) {}
        assert!(self.returned.is_empty() && self.driver.outstanding() == 0, "something did not come back");
        assert_eq!(u32::from(self.driver.free()), u32::from(self.device.size()), "descriptors are lost");
    }

    fn pop(&mut self) -> Option<()> {
        let mut pieces = heapless::Vec::<CellRange<'_>, PIECES>::new();
        let chain = match self.device.pop(self.memory, &mut pieces) {
            Ok(Some(chain)) => chain,
            Ok(None) => return Some(()),
            Err(PopError::Malformed { chain, .. }) if self.kind == Memory::Hostile => chain,
            Err(_) => return None,
        };
        assert!(self.device.held() <= self.device.size() && pieces.len() <= PIECES);
        let (readable, writable) = chain.split(&pieces);
        assert_eq!(readable.len() + writable.len(), pieces.len());
        let sent = match self.kind {
            Memory::Honest => {
                let sent = self.waiting.pop_front().expect("what was not sent has not come");
                assert_eq!(sent.token, chain.id(), "chains come in order");
                assert_eq!((sent.readable, sent.writable), (chain.readable_len(), chain.writable_len()));
                sent
            }
            Memory::Hostile => Sent { token: chain.id(), readable: 0, writable: 0, table: None },
        };
        self.taken.push((chain, sent));
        Some(())
    }

    fn push(&mut self, operation: u8, number: u8) -> Option<()> {
        if self.taken.is_empty() {
            return Some(());
        }
        let in_order = self.features.contains(VirtioFeatures::IN_ORDER);
        let place = if in_order && self.kind == Memory::Honest { 0 } else { usize::from(number) % self.taken.len() };
        let (chain, sent) = self.taken.remove(place);
        let written = match self.kind {
            Memory::Honest => u32::from(operation).min(chain.writable_len()),
            Memory::Hostile => u32::from(operation) << 4,
        };

        match (self.device.push(chain, written), self.kind) {
            (Ok(()), Memory::Honest) => self.returned.push((sent, written)),
            (Ok(()), Memory::Hostile) => {}
            (Err(_), Memory::Honest) => return None,
            // More was written than there is room for, or the ring is broken; the next operation tells which.
            (Err(_), Memory::Hostile) => {}
        }
        Some(())
    }

    fn add(&mut self, operation: u8, number: u8, table: Option<usize>) -> Option<()> {
        let buffer = |seed: u8| match self.kind {
            Memory::Hostile => Buffer { address: GuestAddress(u64::from(seed) * 8), length: u32::from(seed & 0xf) },
            Memory::Honest => {
                Buffer { address: GuestAddress(BUFFERS + u64::from(seed)), length: u32::from(seed & 0xf) + 1 }
            }
        };
        let buffers = [number, operation, number ^ operation].map(buffer);
        let (readable, writable) = buffers.split_at(usize::from(number % 4));
        let added = match table {
            Some(table) if self.is_used(table) => return Some(()),
            Some(table) => {
                let address = GuestAddress(TABLE + TABLE_SIZE * table as u64);
                let range = self.memory.range(address, TABLE_SIZE, Access::ReadWrite).expect("there is room");
                self.driver.add_indirect(&range, readable, writable)
            }
            None => self.driver.add(readable, writable),
        };
        let total = |buffers: &[Buffer]| buffers.iter().map(|buffer| buffer.length).sum();
        match added {
            Ok(token) => {
                let (readable, writable) = (total(readable), total(writable));
                self.waiting.push_back(Sent { token, readable, writable, table });
            }
            Err(AddError::Ring(_)) if self.kind == Memory::Honest => return None,
            Err(_) => {}
        }
        Some(())
    }

    fn is_used(&self, table: usize) -> bool {
        let taken = self.taken.iter().map(|(_, sent)| sent);
        let returned = self.returned.iter().map(|(sent, _)| sent);
        self.waiting.iter().chain(taken).chain(returned).any(|sent| sent.table == Some(table))
    }

    /// The driver takes one chain back; `false` if there is none.
    fn poll(&mut self) -> Option<bool> {
        let outstanding = self.driver.outstanding();
        let Some(Used { token, written }) = self.driver.poll().ok()? else { return Some(false) };
        assert_eq!(self.driver.outstanding() + 1, outstanding, "a chain comes back once");

        match self.kind {
            Memory::Honest => {
                let place = self.returned.iter().position(|(sent, _)| sent.token == token);
                let (_, expected) = self.returned.remove(place.expect("a chain that nobody gave back"));
                assert_eq!(written, expected);
            }
            // The device's side does not know the driver's chains: somebody else writes too.
            Memory::Hostile => {
                let place = self.waiting.iter().position(|sent| sent.token == token);
                let sent = self.waiting.remove(place.expect("a chain that was never added"))?;
                assert!(written <= sent.writable, "more bytes than there is room for");
            }
        }
        Some(true)
    }
}
