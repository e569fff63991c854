//! A disk with one queue that reads and writes its ring by hand, through the file of the shared memory.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use vhost_tests::dialog::{FakeBackend, PATIENCE, Received};
use vhost_tests::wire::feature;

/// The back-end's end of a connection whose device is started.
pub(crate) struct Disk {
    pub(crate) backend: FakeBackend,
    memory: File,
    /// Where the memory begins: guest address, user address.
    start: [u64; 2],
    /// Descriptor table, used ring, available ring, in the file.
    ring: [u64; 3],
    size: u16,
    /// What SET_VRING_BASE said.
    pub(crate) base: u16,
    call: File,
    /// The next elements.
    next_available: u16,
    next_used: u16,
}

/// A request as the disk finds it.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    /// Place in the file, length, and whether the disk writes there.
    pub(crate) buffers: Vec<(u64, usize, bool)>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Disk {
    /// Answers until the device is started.
    pub(crate) fn start(backend: FakeBackend, sectors: u64) -> Self {
        let virtio = feature::PROTOCOL_FEATURES | feature::VERSION_1;
        let backend = backend.offering(virtio, feature::CONFIG | feature::REPLY_ACK);
        let mut before = Vec::new();
        loop {
            let request = backend.receive();
            if request.id() == 24 {
                let mut config = request.payload().to_vec();
                config[12..20].copy_from_slice(&sectors.to_le_bytes());
                backend.reply(&request, &config, &[]);
            } else {
                backend.answer(&request);
            }
            let is_last = request.id() == 18;
            before.push(request);
            if is_last {
                return Self::started(backend, before);
            }
        }
    }

    fn started(backend: FakeBackend, mut requests: Vec<Received>) -> Self {
        let mut take = |id: u32| {
            let at = requests.iter().rposition(|request| request.id() == id).unwrap();
            requests.remove(at)
        };
        let (table, address, call) = (take(5), take(9), take(13));
        let [memory] = <[OwnedFd; 1]>::try_from(table.descriptors).unwrap();
        let [call] = <[OwnedFd; 1]>::try_from(call.descriptors).unwrap();
        let table = &table.message.payload;
        let user = long(table, 8 + 16);
        let base = word(take(10).payload(), 4) as u16;
        Self {
            backend,
            memory: memory.into(),
            start: [long(table, 8), user],
            ring: [8, 16, 24].map(|at| long(address.payload(), at) - user),
            size: word(take(8).payload(), 4) as u16,
            base,
            call: call.into(),
            next_available: base,
            next_used: base,
        }
    }

    pub(crate) fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).unwrap();
    }

    fn half(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at, 2).try_into().unwrap())
    }

    /// Waits until so many requests are there.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Chain> {
        let [_, _, available] = self.ring;
        let start = Instant::now();
        while usize::from(self.half(available + 2).wrapping_sub(self.next_available)) < count {
            assert!(start.elapsed() < PATIENCE, "{count} requests never came");
            std::thread::yield_now();
        }
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> Chain {
        let [table, _, available] = self.ring;
        let head = self.half(available + 4 + 2 * u64::from(self.next_available % self.size));
        self.next_available = self.next_available.wrapping_add(1);
        let (mut buffers, mut at) = (Vec::new(), head);
        loop {
            let descriptor = self.read(table + 16 * u64::from(at), 16);
            let flags = word(&descriptor, 12) & 0xffff;
            let place = long(&descriptor, 0) - self.start[0];
            buffers.push((place, word(&descriptor, 8) as usize, flags & 2 != 0));
            at = (word(&descriptor, 12) >> 16) as u16;
            if flags & 1 == 0 {
                return Chain { head, buffers };
            }
        }
    }

    /// Says that a request is done, with this status.
    pub(crate) fn done(&mut self, chain: &Chain, status: u8, written: u32) {
        let (place, length, writes) = *chain.buffers.last().unwrap();
        assert_eq!((length, writes), (1, true), "the status");
        self.write(place, &[status]);
        self.used(chain.head.into(), written);
    }

    /// Says that a chain is used, whatever that is.
    pub(crate) fn used(&mut self, head: u32, written: u32) {
        let [_, used, _] = self.ring;
        let element = [head.to_le_bytes(), written.to_le_bytes()].concat();
        self.write(used + 4 + 8 * u64::from(self.next_used % self.size), &element);
        self.next_used = self.next_used.wrapping_add(1);
        self.write(used + 2, &self.next_used.to_le_bytes());
        self.call();
    }

    /// Interrupts, with or without a reason.
    pub(crate) fn call(&mut self) {
        self.call.write_all(&1_u64.to_ne_bytes()).unwrap();
    }
}
