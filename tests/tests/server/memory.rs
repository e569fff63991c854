//! Guest memory as the front-end shares it: good, bad, and changed under rings that run.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, open};
use vhost_core::{Tolerance, TrailingBytes};
use vhost_std::server::{RingThreads, ServeError};
use vhost_tests::dialog::{event, memory as memory_file};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, signals, table};
use vhost_tests::wire::REQUEST;
use vhost_tests::wire::region::Region;

use crate::support::{ALL_THREADS, Bench, Dialog, Image, message, server, tolerant};

const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_1230_0000;

fn region(guest: u64, size: u64, user: u64, offset: u64) -> Region {
    Region { guest, size, user, offset, xen_flags: 0, domain: 0 }
}

fn single(region: Region) -> Vec<u8> {
    [vec![0; 8], region.plain()].concat()
}

/// A ring that runs in the first `BLOCK` bytes of memory, and regions that cannot come beside it or in its place.
#[test]
fn a_region_that_cannot_be_is_refused_by_name_and_changes_nothing() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    let file = memory_file(2 * BLOCK);
    let cases = [
        (region(0, 0, 0, 0), "0 bytes at guest 0x0, user 0x0 is empty"),
        (region(u64::MAX - 0xfff, 0x2000, 0, 0), "wraps around"),
        (region(0, 0x2000, u64::MAX - 0xfff, 0), "wraps around"),
        (region(0, 0x2000, 0, u64::MAX - 0xfff), "wraps around"),
        (region(1, u64::MAX, 0, 0), "wraps around"),
        (region(0, u64::MAX, 0, 1), "wraps around"),
        (
            region(0, 0x3000, 0x1000, 2 * BLOCK - 0x2000),
            "the file of a region has 131072 bytes, offset and size need 135168",
        ),
        (region(1 << 62, 1 << 62, 1 << 62, 0), "the file of a region has 131072 bytes"),
        (region(0, 0x1000, 0, 2 * BLOCK), "the file of a region has 131072 bytes, offset and size need 135168"),
        // Without an offset the same numbers would do.
        (region(0, 2 * BLOCK, 0, 1), "the file of a region has 131072 bytes, offset and size need 131073"),
    ];
    for (bad, expected) in cases {
        for (name, payload) in [("ADD_MEM_REG", single(bad)), ("SET_MEM_TABLE", table(&[bad]))] {
            let reason = bench.refused(name, &payload, &[file.as_fd()]);
            assert!(reason.contains(expected), "{name} of {bad:x?}: {reason}");
        }
        let both = table(&[memory.region(), bad]);
        let reason = bench.refused("SET_MEM_TABLE", &both, &[memory.as_fd(), file.as_fd()]);
        assert!(reason.contains(expected), "{bad:x?}: {reason}");
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1), "{bad:x?}");
    }
}

#[test]
fn s49_regions_that_overlap_in_either_address_space_are_refused() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    let file = memory_file(4 * BLOCK);
    for overlapping in [
        region(GUEST, BLOCK, 0, 0),
        region(GUEST + BLOCK - 1, 1, 0, 0),
        region(GUEST - 0x1000, 0x1001, 0, 0),
        region(GUEST - 0x1000, 3 * BLOCK, 0, 0),
        region(0, BLOCK, USER, 0),
        region(0, 0x1000, USER + BLOCK - 1, 0),
        region(0, 0x1001, USER - 0x1000, 0),
        region(0, 3 * BLOCK, USER - 0x1000, 0),
    ] {
        let reason = bench.refused("ADD_MEM_REG", &single(overlapping), &[file.as_fd()]);
        assert!(reason.starts_with("ADD_MEM_REG (37): memory regions overlap: "), "{overlapping:x?}: {reason}");
        for both in [[memory.region(), overlapping], [overlapping, memory.region()]] {
            let reason = bench.refused("SET_MEM_TABLE", &table(&both), &[file.as_fd(), file.as_fd()]);
            assert!(reason.starts_with("SET_MEM_TABLE (5): memory regions overlap: "), "{reason}");
        }
    }
    // Neighbours on both sides, in both spaces.
    for neighbour in [region(GUEST + BLOCK, 0x1000, USER - 0x1000, 0), region(GUEST - 0x1000, 0x1000, USER + BLOCK, 0)]
    {
        bench.grant("ADD_MEM_REG", &single(neighbour), &[file.as_fd()]);
    }
    ring.request(0, Command::Flush, 0);
    ring.kick();
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}

#[test]
fn what_is_no_memory_is_refused_by_name() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let directory = open("/", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let sealed = memfd_create("sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&sealed, BLOCK).unwrap();
    fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(BLOCK).unwrap();
    let read_only = open(file.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let cases: [(OwnedFd, &str); 8] = [
        (event(), "expected a file or a memfd to map, got a descriptor without a file type"),
        (std::io::pipe().unwrap().0.into(), "expected a file or a memfd to map, got a pipe"),
        (std::os::unix::net::UnixStream::pair().unwrap().0.into(), "expected a file or a memfd to map, got a socket"),
        (directory, "expected a file or a memfd to map, got a directory"),
        (null, "expected a file or a memfd to map, got a character device"),
        (memory_file(0), "the file of a region has 0 bytes, offset and size need 65536"),
        (sealed, "mmap: "),
        (read_only, "mmap: "),
    ];
    for (descriptor, expected) in cases {
        for (name, payload) in [
            ("ADD_MEM_REG", single(region(GUEST, BLOCK, USER, 0))),
            ("SET_MEM_TABLE", table(&[region(GUEST, BLOCK, USER, 0)])),
        ] {
            let reason = bench.refused(name, &payload, &[descriptor.as_fd()]);
            let reason = reason.split_once("): ").unwrap().1;
            assert!(reason.starts_with(expected), "{reason}");
        }
        assert_eq!(bench.connection().session().memory().regions(), []);
    }
}

#[test]
fn a_table_says_how_many_regions_it_has() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let file = memory_file(BLOCK);
    let nine = Vec::from_iter((0..9).map(|at| region(at << 20, 0x1000, at << 30, 0)));
    // Nine regions with as many descriptors as can be sent, and a count that the payload does not hold.
    bench.refused("SET_MEM_TABLE", &table(&nine), &[file.as_fd(); 8]);
    let mut counted = table(&nine[..2]);
    for count in [3, 8, 0x1000_0002, u32::MAX] {
        counted[..4].copy_from_slice(&count.to_ne_bytes());
        bench.refused("SET_MEM_TABLE", &counted, &[file.as_fd(), file.as_fd()]);
    }
    assert_eq!(bench.connection().session().memory().regions(), []);
    let eight = &nine[..8];
    bench.grant("SET_MEM_TABLE", &table(eight), &[file.as_fd(); 8]);
    bench.grant("SET_MEM_TABLE", &table(&[]), &[]);
    assert_eq!(bench.connection().session().memory().regions(), []);
}

#[test]
fn a_refused_change_of_memory_that_nobody_hears_of_ends_the_connection() {
    let mut server = server(1);
    for name in ["SET_MEM_TABLE", "ADD_MEM_REG", "REM_MEM_REG"] {
        let mut bench = Bench::negotiated(&mut server);
        let empty = region(0x1000, 0x1000, 0x1000, 0x1000);
        let (payload, file) = match name {
            "SET_MEM_TABLE" => (table(&[empty]), Some(memory_file(0x1fff))),
            "ADD_MEM_REG" => (single(empty), Some(memory_file(0x1fff))),
            _ => (single(empty), None),
        };
        let descriptors = Vec::from_iter(file.iter().map(AsFd::as_fd));
        let error = bench.fails(&message(name, REQUEST, &payload), &descriptors);
        assert!(matches!(&error, ServeError::Refused(reason) if reason.starts_with(name)), "{error:?}");
    }
    Bench::negotiated(&mut server).barrier();
}

#[test]
fn s46_a_region_is_removed_by_its_addresses_and_its_size() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let file = memory_file(4 * BLOCK);
    let right = region(GUEST, BLOCK, USER, 0x1000);
    bench.grant("ADD_MEM_REG", &single(right), &[file.as_fd()]);
    for wrong in [
        Region { guest: GUEST + 0x1000, ..right },
        Region { size: BLOCK - 0x1000, ..right },
        Region { size: BLOCK + 0x1000, ..right },
        Region { user: USER + 0x1000, ..right },
    ] {
        let reason = bench.refused("REM_MEM_REG", &single(wrong), &[]);
        assert!(reason.starts_with("REM_MEM_REG (38): no memory region of "), "{reason}");
    }
    bench.grant("REM_MEM_REG", &single(Region { offset: 0x7000, ..right }), &[]);
    bench.refused("REM_MEM_REG", &single(right), &[]);
}

/// QEMU's memory below and above the hole at 640 KiB is one file; the offsets need not be whole pages.
#[test]
fn s47_regions_are_parts_of_one_file_at_any_offset() {
    for offset in [0, 0x1000, 0x1234, 0xc_0000 - 0x10] {
        let image = Image::new();
        let mut server = image.server(1, RingThreads::Caller);
        let low = GuestMemory::at(region(0, 0xa_0000, USER, offset));
        low.set_file_length(offset + 0x10_0000 + BLOCK);
        let high = low.sharing_file(region(0x10_0000, BLOCK, USER + 0x10_0000, offset + 0x10_0000));
        let mut bench = Bench::negotiated(&mut server);
        bench.share(&[&low, &high]);
        let high = Arc::new(high);
        let mut ring = Ring::new(&high, 0, 8);
        bench.start(&ring);
        bench.enable(&ring, 1);
        // The ring is in the upper part, the data at the end of the lower one.
        let data = Vec::from_iter((0..SECTOR).map(|at| (at % 239) as u8));
        low.write(0xa_0000 - SECTOR as u64, &data);
        let head = ring.prepare(0, Command::Write(&[0; SECTOR]), 3);
        ring.descriptor(head + 1, (0xa_0000 - SECTOR as u64, SECTOR as u32), 1, head + 2);
        ring.offer(head);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
        assert_eq!((ring.status(0), image.read(3, SECTOR)), (0, data), "offset {offset:#x}");
    }
}

#[test]
fn s48_user_addresses_are_translated_whatever_they_look_like() {
    let odd = GUEST + (1 << 52);
    for user in [USER, GUEST, odd, 0, u64::MAX - BLOCK + 1 - 0x1000, 0xffff_8000_0000_0000] {
        let mut server = server(1);
        let memory = Arc::new(GuestMemory::at(region(GUEST, BLOCK, user, 0)));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        ring.request(0, Command::Read(SECTOR as u32), 9);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, SECTOR as u32 + 1), "user address {user:#x}");
        assert_eq!(ring.data(0, SECTOR), [9; SECTOR]);
    }
}

#[test]
fn a_ring_that_is_aligned_only_in_user_addresses_is_refused() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::at(region(GUEST + 8, BLOCK, USER, 0)));
    let ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::negotiated(&mut server);
    bench.share(&[&memory]);
    bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
    bench.grant("SET_VRING_ADDR", &ring.address_payload(), &[]);
    let reason = bench.refused("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
    assert_eq!(reason, "SET_VRING_KICK (12): descriptor table at 0x40000008, expected a multiple of 16");
}

#[test]
fn s14_memory_is_replaced_under_rings_that_run() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let first = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&first, 0, 16);
        let mut bench = Bench::running(&mut server, &first, &ring);
        let serves = |bench: &mut Bench<'_>, ring: &mut Ring| {
            ring.request(0, Command::Read(SECTOR as u32), 9);
            ring.kick();
            assert_eq!(bench.wait_used(ring), (0, SECTOR as u32 + 1));
        };
        // The same again, more of it, and another file at the same place.
        for _ in 0..20 {
            bench.share(&[&first]);
            serves(&mut bench, &mut ring);
        }
        let elsewhere = GuestMemory::at(region(0, BLOCK, 0, 0));
        bench.share(&[&elsewhere, &first]);
        serves(&mut bench, &mut ring);
        let copy = Arc::new(GuestMemory::new(BLOCK));
        copy.write(GUEST, &first.contents());
        bench.share(&[&copy]);
        let frozen = first.contents();
        ring.memory = copy;
        serves(&mut bench, &mut ring);
        assert_eq!(first.contents(), frozen, "the old memory is left alone");

        // Without the ring's place: said through the error descriptor, and the ring goes on when its place is back.
        let before = ring.used_index();
        bench.share(&[&elsewhere]);
        assert_eq!(signals(&ring.error), 1);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        bench.barrier();
        assert_eq!(ring.used_index(), before);
        bench.share(&[&ring.memory.clone()]);
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
    }
}

#[test]
fn a_region_is_removed_under_a_ring_that_runs() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let other = GuestMemory::at(region(0, BLOCK, 0, 0));
        bench.grant("ADD_MEM_REG", &other.single(), &[other.as_fd()]);
        bench.grant("REM_MEM_REG", &memory.single(), &[]);
        assert_eq!(signals(&ring.error), 1);
        let frozen = memory.contents();
        ring.kick();
        bench.barrier();
        assert_eq!(memory.contents(), frozen);
        assert_eq!(bench.stop(&ring), 0);
        bench.grant("ADD_MEM_REG", &memory.single(), &[memory.as_fd()]);
        bench.start(&ring);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
        // A buffer in the region that is gone costs its request only.
        bench.grant("REM_MEM_REG", &other.single(), &[]);
        let head = ring.prepare(0, Command::Read(512), 0);
        ring.descriptor(head + 1, (0x1000, 512), 3, head + 2);
        ring.offer(head);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 0));
    }
}

#[test]
fn f15_a_region_without_its_padding_is_refused() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let memory = GuestMemory::new(BLOCK);
    let reason = bench.refused("ADD_MEM_REG", &memory.region().plain(), &[memory.as_fd()]);
    assert_eq!(reason, "ADD_MEM_REG (37): expected 40 payload bytes, found 32");
}

#[test]
fn f16_a_table_may_have_all_its_eight_slots_and_no_other_number_of_empty_ones() {
    let memory = GuestMemory::new(BLOCK);
    let long = |length| {
        let mut bytes = table(&[memory.region()]);
        bytes.resize(length, 0);
        bytes
    };
    let mut strict = server(1);
    let mut bench = Bench::negotiated(&mut strict);
    bench.grant("SET_MEM_TABLE", &long(264), &[memory.as_fd()]);
    for length in [41, 72, 263, 265] {
        let reason = bench.refused("SET_MEM_TABLE", &long(length), &[memory.as_fd()]);
        assert_eq!(reason, format!("SET_MEM_TABLE (5): expected 40 payload bytes, found {length}"));
    }
    drop(bench);

    let mut tolerance = Tolerance::new();
    tolerance.trailing_bytes = TrailingBytes::Ignore;
    let mut kind = tolerant(tolerance);
    Bench::negotiated(&mut kind).grant("SET_MEM_TABLE", &long(41), &[memory.as_fd()]);
}

#[test]
fn f17_padding_means_nothing() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let memory = GuestMemory::new(BLOCK);
    let mut padded = table(&[memory.region()]);
    padded[4..8].fill(0xee);
    bench.grant("SET_MEM_TABLE", &padded, &[memory.as_fd()]);
    let mut padded = memory.single();
    padded[..8].fill(0xee);
    bench.grant("REM_MEM_REG", &padded, &[]);
    bench.grant("ADD_MEM_REG", &padded, &[memory.as_fd()]);
}

/// As many regions as a front-end may add, of one file and in no order; the ring runs in one of its own, its buffers in each of the others.
#[test]
fn every_slot_can_be_filled_and_emptied_under_a_ring_that_runs() {
    const SLOTS: u64 = 509;
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    let whole = GuestMemory::at(region(0, SLOTS * 0x1000, 0, 0));
    // 253 and 508 have no common divisor: each slot comes once, and never beside the one before.
    let slot = |at: u64| {
        let page = (at * 253) % (SLOTS - 1);
        whole.sharing_file(region(page * 0x1_0000, 0x1000, page * 0x10_0000, page * 0x1000))
    };
    for at in 0..SLOTS - 1 {
        bench.grant("ADD_MEM_REG", &slot(at).single(), &[whole.as_fd()]);
    }
    assert_eq!(bench.connection().session().memory().regions().len() as u64, SLOTS);
    let one_more = region(1 << 40, 0x1000, 1 << 40, 0);
    let reason = bench.refused("ADD_MEM_REG", &single(one_more), &[whole.as_fd()]);
    assert!(reason.contains("more memory regions than the 509 slots"), "{reason}");

    for at in 0..SLOTS - 1 {
        let page = slot(at).region().guest;
        let head = ring.prepare(0, Command::Read(SECTOR as u32), 9);
        ring.descriptor(head + 1, (page, SECTOR as u32), 3, head + 2);
        ring.offer(head);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, SECTOR as u32 + 1), "slot {at}");
        assert_eq!(whole.read(slot(at).region().offset, SECTOR), [9; SECTOR]);
        bench.grant("REM_MEM_REG", &slot(at).single(), &[]);
    }
    bench.grant("ADD_MEM_REG", &single(one_more), &[whole.as_fd()]);
    assert_eq!(bench.connection().session().memory().regions().len(), 2);
}
