//! The log of written pages: exactly those that the device wrote, while rings run, whatever becomes of the log.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_std::server::{RingThreads, ServeError};
use vhost_tests::dialog::event;
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, signals};
use vhost_tests::wire::region::Region;
use vhost_tests::wire::{Bytes, REQUEST, feature};

use crate::support::iommu::{Iommu, SHIFT};
use crate::support::{Bench, Dialog, Image, OFFER, id, message, number, server};

const PAGE: u64 = 0x1000;

/// A log's file, with bytes before and behind the log that nobody may touch.
struct Log {
    file: GuestMemory,
    size: u64,
}

impl Log {
    const OFFSET: u64 = 0x40;

    /// One that has a bit for every page of these memories.
    fn new(memories: &[&GuestMemory]) -> Self {
        let end = memories.iter().map(|memory| memory.region().guest + memory.region().size).max().unwrap();
        Self::of_size(end.div_ceil(8 * PAGE))
    }

    fn of_size(size: u64) -> Self {
        let file = GuestMemory::at(Region {
            guest: 0,
            size: size + 2 * Self::OFFSET,
            user: 0,
            offset: 0,
            xen_flags: 0,
            domain: 0,
        });
        Self { file, size }
    }

    fn payload(&self) -> Vec<u8> {
        Bytes::new().u64(self.size).u64(Self::OFFSET).done()
    }

    /// Gives it to the back-end, which repeats its extent.
    #[track_caller]
    fn give(&self, bench: &mut Bench<'_>) {
        bench.request("SET_LOG_BASE", &self.payload(), &[self.file.as_fd()]);
        let reply = bench.frontend().receive_reply(id("SET_LOG_BASE"));
        assert_eq!(reply.payload(), self.payload());
    }

    /// The marked pages; they are forgotten.
    fn take(&self) -> BTreeSet<u64> {
        let contents = self.file.contents();
        let (before, rest) = contents.split_at(Self::OFFSET as usize);
        let (log, behind) = rest.split_at(self.size as usize);
        assert!(before.iter().chain(behind).all(|byte| *byte == 0), "somebody wrote outside the log");
        self.file.write(Self::OFFSET, &vec![0; log.len()]);
        let pages = (0..)
            .zip(log)
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| 8 * at + bit));
        pages.collect()
    }
}

/// The payload of `SET_VRING_ADDR` whose used ring is logged under an address.
fn logged_at(ring: &Ring, log: u64) -> Vec<u8> {
    let mut payload = ring.address_payload();
    payload[4..8].copy_from_slice(&1_u32.to_ne_bytes());
    payload[32..40].copy_from_slice(&log.to_ne_bytes());
    payload
}

fn set_logging(bench: &mut Bench<'_>, features: u64) {
    bench.grant("SET_FEATURES", &number(OFFER | features), &[]);
}

#[test]
fn s40_exactly_what_was_written_is_marked_while_the_ring_runs() {
    for threads in [RingThreads::Caller, RingThreads::Shared(1)] {
        let image = Image::new();
        let mut server = image.server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let log = Log::new(&[&memory]);
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        // Each slot has a page, with the status on it.
        let slot = |number: u64| ring_page(&memory, 0x8000) + number;
        let run = |bench: &mut Bench<'_>, ring: &mut Ring, command: Command<'_>| {
            ring.request(3, command, 0);
            ring.kick();
            assert_eq!((bench.wait_used(ring).0, ring.status(3)), (9, 0));
        };
        let read = Command::Read(2 * SECTOR as u32);

        log.give(&mut bench);
        run(&mut bench, &mut ring, read);
        assert_eq!(log.take(), BTreeSet::new(), "a log is not enough");
        set_logging(&mut bench, feature::LOG_ALL);
        run(&mut bench, &mut ring, read);
        assert_eq!(log.take(), BTreeSet::from([slot(3)]), "the buffer, and not the used ring");
        run(&mut bench, &mut ring, Command::Write(&[1; SECTOR]));
        assert_eq!(log.take(), BTreeSet::from([slot(3)]), "the status");

        set_logging(&mut bench, 0);
        run(&mut bench, &mut ring, read);
        assert_eq!(log.take(), BTreeSet::new(), "logging has ended");
        set_logging(&mut bench, feature::LOG_ALL);
        run(&mut bench, &mut ring, read);
        assert_eq!(log.take(), BTreeSet::from([slot(3)]), "in the log that was there");
        assert_eq!(bench.stop(&ring), 5, "the ring was never stopped");
    }
}

/// The page of an offset in memory.
fn ring_page(memory: &GuestMemory, offset: u64) -> u64 {
    (memory.region().guest + offset) / PAGE
}

#[test]
fn s40_the_used_ring_is_logged_by_the_ring_s_flag_under_its_log_address() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let log = Log::new(&[&memory]);
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    let status = ring_page(&memory, 0x8000);
    // Outside guest memory, which is allowed, and across a page: flags and index before, entries behind.
    let address = 0x55 * PAGE - 4;
    log.give(&mut bench);
    set_logging(&mut bench, feature::LOG_ALL);
    let mut flush = |bench: &mut Bench<'_>| {
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
        bench.settle();
    };
    let other = Ring::new(&Arc::new(GuestMemory::at(memory.region())), 0, 16);
    bench.grant("SET_VRING_ADDR", &logged_at(&other, address), &[]);
    bench.settle();
    let _ = log.take();
    flush(&mut bench);
    assert_eq!(log.take(), BTreeSet::from([status, 0x54, 0x55]));
    bench.grant("SET_VRING_ADDR", &other.address_payload(), &[]);
    bench.settle();
    flush(&mut bench);
    assert_eq!(log.take(), BTreeSet::from([status]));
    // The last byte of the used ring, its event index included, is beyond the log.
    let beyond = log.size * 8 * PAGE - (6 + 8 * 16) + 1;
    let reason = bench.refused("SET_VRING_ADDR", &logged_at(&other, beyond), &[]);
    assert!(reason.contains("a dirty log of"), "{reason}");
    bench.grant("SET_VRING_ADDR", &logged_at(&other, beyond - 1), &[]);
}

#[test]
fn s41_a_log_is_replaced_while_the_ring_runs_and_no_mark_is_lost() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Shared(1));
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let logs = [Log::new(&[&memory]), Log::new(&[&memory])];
    let mut ring = Ring::new(&memory, 0, 64);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    logs[1].give(&mut bench);
    set_logging(&mut bench, feature::LOG_ALL);
    for round in 0..40 {
        for slot in 0..8 {
            ring.request(slot, Command::Read(SECTOR as u32), 0);
        }
        ring.kick();
        // While the thread works on them.
        logs[round % 2].give(&mut bench);
        for slot in 0..8 {
            assert_eq!(bench.wait_used(&mut ring).0, 3 * slot);
        }
        let marked = BTreeSet::from_iter(logs.iter().flat_map(Log::take));
        let buffers = BTreeSet::from_iter((0..8).map(|slot| ring_page(&memory, 0x8000) + slot));
        assert_eq!(marked, buffers, "round {round}");
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
        assert_eq!(logs[(round + 1) % 2].take(), BTreeSet::new(), "the old log, after the new one was acknowledged");
        assert_eq!(logs[round % 2].take().len(), 1);
    }
}

#[test]
fn s41_a_log_that_cannot_be_is_refused_and_nothing_happens_to_the_ring() {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let good = Log::new(&[&memory]);
    let file = good.size + 2 * Log::OFFSET;
    let (pipe, _end) = rustix::pipe::pipe().unwrap();
    let short = GuestMemory::new(0x10);
    for (size, offset, descriptor, expected) in [
        (good.size, file, good.file.as_fd(), "the file of a region has"),
        (u64::MAX - 0xfff, 0x2000, good.file.as_fd(), "wrap around"),
        (u64::MAX, 0, good.file.as_fd(), "the file of a region has"),
        (1 << 63, 1 << 63, good.file.as_fd(), "wrap around"),
        (1 << 47, 0, good.file.as_fd(), "the file of a region has"),
        (0, 0, good.file.as_fd(), "is empty"),
        (good.size - 1, 0, good.file.as_fd(), "a dirty log of"),
        (good.size, 0, short.as_fd(), "the file of a region has"),
        (good.size, 0, pipe.as_fd(), "expected a file or a memfd"),
    ] {
        let mut server = server(1);
        let ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        good.give(&mut bench);
        set_logging(&mut bench, feature::LOG_ALL);
        let payload = Bytes::new().u64(size).u64(offset).done();
        // Its reply has no room for a refusal.
        let error = bench.fails(&message("SET_LOG_BASE", REQUEST, &payload), &[descriptor]);
        let ServeError::Refused(reason) = error else { panic!("{error}") };
        assert!(reason.contains(expected), "{size:#x} at {offset:#x}: {reason}");
    }
    assert_eq!(good.take(), BTreeSet::new());
}

/// Memory that is added later is beyond a log that was made before: the guest would lose what is written there.
#[test]
fn s41_a_write_that_the_log_has_no_bit_for_stops_its_ring_and_is_signalled() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    let log = Log::new(&[&memory]);
    log.give(&mut bench);
    set_logging(&mut bench, feature::LOG_ALL);
    let region = Region { guest: 0x10_0000_0000, user: 0x1000, ..memory.region() };
    let more = GuestMemory::at(region);
    bench.grant("ADD_MEM_REG", &more.single(), &[more.as_fd()]);
    let head = ring.prepare(0, Command::Read(SECTOR as u32), 0);
    ring.descriptor(head + 1, (region.guest, SECTOR as u32), 3, head + 2);
    ring.offer(head);
    ring.kick();
    bench.wait_for_signal(&ring.error);
    assert_eq!(log.take(), BTreeSet::from([ring_page(&memory, 0x8000)]), "the status, and nothing elsewhere");
}

#[test]
fn whoever_wants_to_know_is_told_that_pages_were_marked() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    let (first, second) = (event(), event());
    let mut flush = |bench: &mut Bench<'_>| {
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
        bench.settle();
    };
    bench.grant("SET_LOG_FD", &[], &[first.as_fd()]);
    let log = Log::new(&[&memory]);
    log.give(&mut bench);
    flush(&mut bench);
    assert_eq!(signals(&first), 0);
    set_logging(&mut bench, feature::LOG_ALL);
    bench.settle();
    assert_eq!(signals(&first), 0, "nothing was written");
    flush(&mut bench);
    assert_eq!(signals(&first), 1);
    bench.grant("SET_LOG_FD", &[], &[second.as_fd()]);
    flush(&mut bench);
    assert_eq!((signals(&first), signals(&second)), (0, 1));
    let reason = bench.refused("SET_LOG_FD", &[], &[log.file.as_fd()]);
    assert!(reason.contains("eventfd"), "{reason}");
    flush(&mut bench);
    assert_eq!(signals(&second), 1);
}

/// The log address is the driver's own then, like those of the ring, and the log knows only guest addresses.
#[test]
fn behind_an_iommu_what_was_written_is_marked_where_it_lies() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let log = Log::new(&[&memory]);
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    iommu.start(&ring);
    log.give(&mut iommu.bench);
    let all = OFFER | feature::IOMMU_PLATFORM | feature::LOG_ALL;
    iommu.bench.grant("SET_FEATURES", &number(all), &[]);
    let [descriptors, used, available] = [ring.descriptors, ring.used, ring.available].map(|at| at + SHIFT);
    let places = Bytes::new().u32(0).u32(1).u64(descriptors).u64(used).u64(available).u64(used).done();
    iommu.bench.grant("SET_VRING_ADDR", &places, &[]);
    let head = ring.prepare(2, Command::Read(SECTOR as u32), 0);
    for part in 0..3 {
        let at = ring.descriptors + 16 * u64::from(head + part);
        let address = u64::from_le_bytes(memory.read(at, 8).try_into().unwrap());
        memory.write(at, &(address + SHIFT).to_le_bytes());
    }
    ring.offer(head);
    ring.kick();
    assert_eq!(iommu.serve(&mut ring).0, (6, SECTOR as u32 + 1));
    iommu.bench.settle();
    assert_eq!(log.take(), BTreeSet::from([ring_page(&memory, 0x2000), ring_page(&memory, 0x8000) + 2]));
}
