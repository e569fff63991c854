//! Rings behind an IOMMU: their places and their buffers are what the front-end says, when it says it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_std::device::{Device, Queue};
use vhost_std::server::{BackendServer, Offer, RingThreads, ServerOptions};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, NEXT, Ring, SECTOR, WRITE, signals};
use vhost_tests::wire::region::Region;
use vhost_tests::wire::{Bytes, feature};

use crate::support::iommu::{INVALIDATE, Iommu, PAGE, READ, READ_WRITE, SHIFT, UPDATE, prepare, request};
use crate::support::{ALL_THREADS, Bench, Dialog, Image, OFFER, number, server};

/// A read of one sector.
const READ_ONE: Command<'_> = Command::Read(SECTOR as u32);
/// What comes back of it.
const DONE: (u32, u32) = (0, SECTOR as u32 + 1);

fn up(address: u64) -> u64 {
    address + SHIFT
}

#[test]
fn a_ring_asks_for_its_parts_and_a_chain_for_its_buffers_and_each_once() {
    for threads in ALL_THREADS {
        for gpa_addresses in [Offer::Offered, Offer::Withheld] {
            let image = Image::new();
            let options = |options: &mut ServerOptions| {
                (options.threads, options.gpa_addresses) = (threads, gpa_addresses);
            };
            let mut server = image.server_with(1, options);
            let memory = Arc::new(GuestMemory::new(BLOCK));
            let mut ring = Ring::new(&memory, 0, 16);
            let mut iommu = Iommu::new(&mut server, &memory);
            iommu.start(&ring);
            request(&mut ring, 0, READ_ONE, 9);
            let (used, asked) = iommu.serve(&mut ring);
            assert_eq!((used, ring.status(0), ring.data(0, SECTOR)), (DONE, 0, vec![9; SECTOR]));
            let parts = [(up(ring.descriptors), 1), (up(ring.available), 1), (up(ring.used), 3), (up(ring.buffers), 1)];
            assert_eq!(asked, parts, "{threads:?}");
            for slot in [0, 1, 0, 1] {
                request(&mut ring, slot, READ_ONE, 7);
                let (used, asked) = iommu.serve(&mut ring);
                assert_eq!((used.1, ring.data(slot, SECTOR)), (DONE.1, vec![7; SECTOR]));
                assert!(asked.len() <= 1, "the second slot's page only: {asked:x?}");
            }
        }
    }
}

#[test]
fn what_was_taken_back_is_not_used_and_asked_for_again() {
    for threads in ALL_THREADS {
        let image = Image::new();
        let mut server = image.server(1, threads);
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut iommu = Iommu::new(&mut server, &memory);
        iommu.start(&ring);
        request(&mut ring, 0, READ_ONE, 9);
        assert_eq!(iommu.serve(&mut ring).0, DONE);

        // The page of the buffers goes, and comes back elsewhere: QEMU takes more back than that, and what was never told.
        let elsewhere = ring.buffers + BLOCK;
        for (iova, size) in [(up(ring.buffers), PAGE), (up(ring.buffers) - 7, 8 + PAGE), (0, 0), (0, u64::MAX)] {
            iommu.unmap(iova, size);
            iommu.unmap(up(BLOCK << 8), PAGE);
            memory.write(ring.buffers + 0x200, &[9; SECTOR]);
            request(&mut ring, 0, READ_ONE, 5);
            let mut asked = Vec::new();
            while let (place, _) = iommu.asked()
                && place & !(PAGE - 1) != up(ring.buffers)
            {
                asked.push(place);
                iommu.map(place, place - SHIFT, READ_WRITE);
            }
            assert_eq!(asked.is_empty(), size != 0 && size != u64::MAX, "parts of the ring were taken back too");
            memory.write(elsewhere, &memory.read(ring.buffers, PAGE as usize));
            iommu.map(up(ring.buffers), elsewhere, READ_WRITE);
            assert_eq!(iommu.serve(&mut ring), (DONE, vec![]));
            assert_eq!(memory.read(elsewhere + 0x10, 1), [0]);
            assert_eq!(memory.read(elsewhere + 0x200, SECTOR), [5; SECTOR]);
            assert_eq!((ring.status(0), ring.data(0, 1)), (0xff, vec![9]), "the old place");
        }
    }
}

/// Fills one chain, but takes its time: whether it is at it, and whether somebody said that it took too long.
#[derive(Default)]
struct Slow {
    began: AtomicBool,
    was_late: AtomicBool,
    taken_back: AtomicBool,
}

impl Device for Slow {
    fn device_id(&self) -> u32 {
        42
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            self.began.store(true, Ordering::SeqCst);
            // Long enough for whoever takes the translation back to do so, if it does not wait.
            for _ in 0..10_000 {
                std::thread::yield_now();
            }
            self.was_late.fetch_or(self.taken_back.load(Ordering::SeqCst), Ordering::SeqCst);
            chain.writable().fill_zero();
            queue.complete(chain, 1);
        }
    }
}

#[test]
fn nobody_is_told_that_a_translation_is_gone_while_a_device_uses_it() {
    let device = Arc::new(Slow::default());
    let mut server = BackendServer::new(device.clone(), ServerOptions::default()).unwrap();
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    for page in (0..BLOCK).step_by(PAGE as usize) {
        iommu.map(up(ring.descriptors) + page, ring.descriptors + page, READ_WRITE);
    }
    iommu.start(&ring);
    request(&mut ring, 0, READ_ONE, 0);
    while !device.began.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    iommu.unmap(up(ring.buffers), PAGE);
    device.taken_back.store(true, Ordering::SeqCst);
    assert_eq!(iommu.bench.wait_used(&mut ring), (0, 1));
    assert!(!device.was_late.load(Ordering::SeqCst), "the device wrote after the answer");
}

/// What `SET_VRING_ADDR` says about the log is an address of the driver's own then, as QEMU fills it in.
#[test]
fn a_used_ring_is_logged_where_it_lies() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    let features = OFFER | feature::IOMMU_PLATFORM | feature::LOG_ALL;
    iommu.bench.request("SET_FEATURES", &number(features), &[]);
    let log = GuestMemory::at(Region { guest: 0, size: 0x9000, user: 0, offset: 0, xen_flags: 0, domain: 0 });
    let whole = Bytes::new().u64(0x9000).u64(0).done();
    iommu.bench.request("SET_LOG_BASE", &whole, &[log.as_fd()]);
    iommu.bench.frontend().receive_reply(6);
    iommu.start(&ring);
    let [descriptors, used, available] = [ring.descriptors, ring.used, ring.available].map(up);
    let logged = Bytes::new().u32(0).u32(1).u64(descriptors).u64(used).u64(available).u64(used).done();
    iommu.bench.grant("SET_VRING_ADDR", &logged, &[]);
    request(&mut ring, 0, READ_ONE, 9);
    assert_eq!(iommu.serve(&mut ring).0, DONE);
    let is_marked = |address: u64| log.read(address / PAGE / 8, 1)[0] >> (address / PAGE % 8) & 1 == 1;
    assert!(is_marked(ring.used) && is_marked(ring.buffers));
    assert!(!is_marked(ring.descriptors) && !is_marked(ring.available));
}

#[test]
fn what_is_withheld_is_not_offered() {
    let features = |iommu, gpa_addresses| {
        let mut server = Image::new().server_with(1, |options| {
            (options.iommu, options.gpa_addresses) = (iommu, gpa_addresses);
        });
        let mut bench = Bench::new(&mut server);
        let virtio = bench.ask_number("GET_FEATURES") & feature::IOMMU_PLATFORM != 0;
        (virtio, bench.ask_number("GET_PROTOCOL_FEATURES") & feature::GPA_ADDRESSES != 0)
    };
    assert_eq!(features(Offer::Withheld, Offer::Withheld), (false, false));
    assert_eq!(features(Offer::Offered, Offer::Withheld), (true, false));
    assert_eq!(features(Offer::Withheld, Offer::Offered), (false, true));
}

/// The user address of a region repeats its guest address then, and front-ends need not have thought of one.
#[test]
fn rings_may_be_told_by_guest_addresses() {
    let mut server = Image::new().server_with(1, |options| options.gpa_addresses = Offer::Offered);
    let region = Region { guest: 0x4000_0000, size: BLOCK, user: 0x4000_0000, offset: 0, xen_flags: 0, domain: 0 };
    let memory = Arc::new(GuestMemory::at(region));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    ring.request(0, READ_ONE, 9);
    ring.kick();
    assert_eq!((bench.wait_used(&mut ring), ring.data(0, SECTOR)), (DONE, vec![9; SECTOR]));
}

#[test]
fn a_ring_moves_with_its_translation() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    iommu.start(&ring);
    request(&mut ring, 0, READ_ONE, 9);
    assert_eq!(iommu.serve(&mut ring).0, DONE);

    let old = ring.used;
    iommu.unmap(up(old), PAGE);
    ring.used = old + 0x3000;
    memory.write(ring.used, &memory.read(old, PAGE as usize));
    let frozen = memory.read(old, PAGE as usize);
    request(&mut ring, 0, READ_ONE, 9);
    assert_eq!(iommu.asked(), (up(old), 3));
    iommu.map(up(old), ring.used, READ_WRITE);
    assert_eq!(iommu.serve(&mut ring), (DONE, vec![]));
    assert_eq!(memory.read(old, PAGE as usize), frozen);
}

/// A front-end need not take back what it replaces, and we may have forgotten it meanwhile.
#[test]
fn a_ring_moves_with_a_translation_that_replaces_its_own() {
    for others in [0, 5000] {
        let image = Image::new();
        let mut server = image.server(1, RingThreads::Caller);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut iommu = Iommu::new(&mut server, &memory);
        iommu.start(&ring);
        request(&mut ring, 0, READ_ONE, 9);
        assert_eq!(iommu.serve(&mut ring).0, DONE);
        for number in 0..others {
            iommu.map(up(BLOCK << 20) + number * PAGE, ring.buffers, READ);
        }

        let old = ring.used;
        ring.used = old + 0x3000;
        memory.write(ring.used, &memory.read(old, PAGE as usize));
        let frozen = memory.read(old, PAGE as usize);
        iommu.map(up(old), ring.used, READ_WRITE);
        request(&mut ring, 0, READ_ONE, 9);
        assert_eq!(iommu.serve(&mut ring).0, DONE);
        assert_eq!(memory.read(old, PAGE as usize), frozen, "{others}");
    }
}

#[test]
fn a_ring_may_lie_scattered() {
    // Cuts in the table, in the available ring and in the used ring, also within an entry.
    for cut in [0x10, 0x18, 0x1002, 0x1006, 0x2004, 0x2004 + 4, 0x2004 + 12] {
        let image = Image::new();
        let mut server = image.server(1, RingThreads::Caller);
        let region = |guest, size, user, offset| Region { guest, size, user, offset, xen_flags: 0, domain: 0 };
        // What the driver sees in one piece is in two regions far from each other.
        let seen = Arc::new(GuestMemory::at(region(0x4000_0000, BLOCK, 0, 0)));
        let low = Arc::new(seen.sharing_file(region(0x8000_0000, cut, 0x1000_0000, 0)));
        let high = Arc::new(seen.sharing_file(region(0x1000_0000, BLOCK - cut, 0x9000_0000, cut)));
        let mut ring = Ring::new(&seen, 0, 16);
        let mut iommu = Iommu::new(&mut server, &low);
        iommu.bench.share(&[&low, &high]);
        assert_eq!(iommu.tell(up(0x4000_0000), cut, 0x1000_0000, READ_WRITE, UPDATE), 0);
        assert_eq!(iommu.tell(up(0x4000_0000) + cut, BLOCK - cut, 0x9000_0000, READ_WRITE, UPDATE), 0);
        iommu.start(&ring);
        for round in 0..40_u8 {
            request(&mut ring, 0, READ_ONE, round.into());
            assert_eq!(iommu.serve(&mut ring), (DONE, vec![]), "cut at {cut:#x}");
            assert_eq!(ring.data(0, SECTOR), [round; SECTOR]);
        }
        assert_eq!(signals(&ring.error), 0);
    }
}

/// Page by page, as QEMU tells them.
#[test]
fn an_indirect_table_may_cross_pages() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    iommu.start(&ring);
    let head = prepare(&ring, 0, READ_ONE, 9);
    let table = ring.buffers + 2 * PAGE - 16;
    memory.write(table, &memory.read(ring.descriptors + 16 * u64::from(head), 48));
    ring.descriptor(9, (up(table), 48), 4, 0);
    ring.offer(9);
    ring.kick();
    let (used, asked) = iommu.serve(&mut ring);
    assert_eq!((used, ring.data(0, SECTOR)), ((9, DONE.1), vec![9; SECTOR]));
    assert!(asked.contains(&(up(table), 1)) && asked.contains(&(up(table) + 16, 1)), "{asked:x?}");
}

#[test]
fn a_page_that_may_only_be_read_is_not_written() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    iommu.map(up(ring.buffers), ring.buffers, READ);
    iommu.start(&ring);
    request(&mut ring, 0, READ_ONE, 9);
    assert_eq!(iommu.serve(&mut ring).0, (0, 0), "nothing was written");
    assert_eq!((ring.status(0), ring.data(0, SECTOR)), (0xff, vec![0; SECTOR]));
    iommu.unmap(up(ring.used), PAGE);
    iommu.map(up(ring.used), ring.used, READ);
    ring.kick();
    iommu.bench.settle();
    assert_eq!(signals(&ring.error), 1, "a ring that cannot be written is broken");
}

#[test]
fn a_miss_that_nobody_answers_stops_nobody() {
    for threads in ALL_THREADS {
        let image = Image::new();
        let mut server = image.server(2, threads);
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let (mut waits, mut runs) = (Ring::new(&memory, 0, 16), Ring::new(&memory, 1, 16));
        let mut iommu = Iommu::new(&mut server, &memory);
        for page in (0..BLOCK).step_by(PAGE as usize) {
            iommu.map(up(waits.descriptors) + BLOCK + page, waits.descriptors + BLOCK + page, READ_WRITE);
        }
        iommu.map(up(waits.available), waits.available, READ_WRITE);
        iommu.map(up(waits.used), waits.used, READ_WRITE);
        iommu.start(&waits);
        assert_eq!(iommu.asked(), (up(waits.descriptors), 1));
        iommu.start(&runs);
        for round in 0..3 {
            request(&mut waits, round, READ_ONE, 9);
            request(&mut runs, round, READ_ONE, 3);
            assert_eq!(iommu.bench.wait_used(&mut runs).1, DONE.1);
        }
        assert!(!iommu.is_asked(), "it was asked once");

        // The ring has begun, and its first chain waits now; kicks and other translations change nothing.
        iommu.map(up(waits.descriptors), waits.descriptors, READ_WRITE);
        assert_eq!(iommu.asked(), (up(waits.buffers), 1));
        iommu.map(up(waits.buffers) + 5 * PAGE, waits.buffers, READ_WRITE);
        waits.kick();
        iommu.bench.settle();
        request(&mut runs, 4, READ_ONE, 3);
        assert_eq!(iommu.bench.wait_used(&mut runs).1, DONE.1);
        assert!(!iommu.is_asked());
        assert_eq!(waits.used_index(), 0);
        assert_eq!(iommu.bench.stop(&waits), 0);
        assert_eq!(iommu.bench.stop(&runs), 4);

        // A device that is stopped has forgotten everything, and goes on where it was.
        let channel = iommu.bench.open_channel();
        iommu.start(&waits);
        iommu.bench.settle();
        iommu.channel.assert_closed();
        iommu.channel = channel;
        for _ in 0..3 {
            assert_eq!(iommu.serve(&mut waits).0.1, DONE.1);
        }
    }
}

#[test]
fn who_is_asked_anew_is_asked_for_what_is_still_missing() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    iommu.start(&ring);
    assert_eq!(iommu.asked(), (up(ring.descriptors), 1));
    iommu.channel = iommu.bench.open_channel();
    assert_eq!(iommu.asked(), (up(ring.descriptors), 1));
}

#[test]
fn what_means_nothing_is_refused_and_changes_nothing() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    iommu.start(&ring);
    request(&mut ring, 0, READ_ONE, 9);
    assert_eq!(iommu.serve(&mut ring).0, DONE);
    let place = up(ring.buffers);
    for (iova, size, target, permission, kind, expected) in [
        (place, 0, 0, 3, UPDATE, "IOTLB update of no address"),
        (place, PAGE, 0, 0, UPDATE, "IOTLB permission 0, expected 1 to 3"),
        (place, PAGE, 0, 4, UPDATE, "IOTLB permission 4, expected 1 to 3"),
        (place, u64::MAX, 0, 3, UPDATE, "wraps around"),
        (place, PAGE, u64::MAX, 3, UPDATE, "wraps around"),
        (place, PAGE, 0, 3, 1, "IOTLB message of type 1, expected 2 or 3"),
        (place, PAGE, 0, 3, 4, "IOTLB message of type 4, expected 2 or 3"),
    ] {
        assert_eq!(iommu.tell(iova, size, target, permission, kind), 1);
        let (_, reason) = iommu.bench.connection().refusals();
        assert!(reason.is_some_and(|reason| reason.contains(expected)), "{reason:?}");
        request(&mut ring, 0, READ_ONE, 9);
        assert_eq!(iommu.serve(&mut ring), (DONE, vec![]));
    }
    // A translation into nowhere costs the chains that use it.
    assert_eq!(iommu.tell(place, PAGE, 1 << 50, 3, UPDATE), 0);
    request(&mut ring, 0, READ_ONE, 9);
    assert_eq!(iommu.serve(&mut ring).0, (0, 0));
    assert_eq!(iommu.tell(0, 0, 0, 0, INVALIDATE), 0);
}

/// Five thousand pages, which all lead to one: more than are kept, so that the first are forgotten before the last are known.
#[test]
fn a_chain_that_needs_more_translations_than_are_kept_ends_its_ring_alone() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut iommu = Iommu::new(&mut server, &memory);
    iommu.start(&ring);
    request(&mut ring, 0, READ_ONE, 9);
    assert_eq!(iommu.serve(&mut ring).0, DONE);
    let head = prepare(&ring, 0, READ_ONE, 9);
    let far = 0x1000_0000_0000;
    ring.descriptor(head + 1, (far, 5000 * PAGE as u32), WRITE | NEXT, head + 2);
    ring.offer(head);
    ring.kick();
    let mut asked = 0;
    while signals(&ring.error) == 0 {
        iommu.bench.settle();
        while iommu.is_asked() {
            let (iova, _) = iommu.asked();
            let page = iova & !(PAGE - 1);
            let target = if page >= far { ring.buffers + PAGE } else { page - SHIFT };
            iommu.map(page, target, READ_WRITE);
            asked += 1;
        }
    }
    assert!((5000..100_000).contains(&asked), "{asked}");
    iommu.bench.barrier();
    let fd = ring.kick.as_fd();
    iommu.bench.grant("SET_VRING_KICK", &ring.event_payload(), &[fd]);
}
