//! The inflight record: made, taken over from a back-end that is gone, and full of anything at all.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use vhost_std::server::BackendServer;
use vhost_tests::descriptors::{Snapshot, leaves_nothing_open};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, signals};
use vhost_tests::wire::{Bytes, feature};

use crate::support::{ALL_THREADS, Bench, Dialog, EVERYTHING, Image, OFFER, number, server};

/// Bytes of the record of a split ring of 16, and of a packed one: a header and 16 entries of 16 and 32, a multiple of 64.
const SPLIT: u64 = 16 + 16 * 16 + 48;
const PACKED: u64 = 32 + 16 * 32 + 32;

/// Offsets in a split record.
const VERSION: u64 = 8;
const SIZE: u64 = 10;
const USED_INDEX: u64 = 14;

fn entry(head: u16) -> u64 {
    16 + 16 * u64::from(head)
}

/// A record's file that can be sealed.
fn file(size: u64) -> File {
    file_with(size, MemfdFlags::ALLOW_SEALING)
}

fn file_with(size: u64, flags: MemfdFlags) -> File {
    let file = File::from(memfd_create("inflight", flags | MemfdFlags::CLOEXEC).unwrap());
    file.set_len(size).unwrap();
    file
}

/// What a back-end leaves behind that had these heads in this order when the used index was this.
fn left_behind(heads: &[u16], used: u16) -> File {
    let record = file(SPLIT);
    for (at, number) in [(VERSION, 1), (SIZE, 16), (USED_INDEX, used)] {
        record.write_all_at(&number.to_ne_bytes(), at).unwrap();
    }
    for (counter, head) in (3_u64..).zip(heads) {
        record.write_all_at(&[1], entry(*head)).unwrap();
        record.write_all_at(&counter.to_ne_bytes(), entry(*head) + 8).unwrap();
    }
    record
}

/// The payload of both requests.
fn shape(size: u64, offset: u64, queues: u16, queue_size: u16) -> Vec<u8> {
    Bytes::new().u64(size).u64(offset).u16(queues).u16(queue_size).padding(4).done()
}

/// A front-end that takes a device over: everything is told but that the ring is enabled.
fn taken_over<'s>(server: &'s mut BackendServer, record: &File, memory: &GuestMemory, ring: &Ring) -> Bench<'s> {
    let mut bench = Bench::negotiated(server);
    bench.grant("SET_INFLIGHT_FD", &shape(SPLIT, 0, 1, 16), &[record.as_fd()]);
    bench.share(&[memory]);
    bench.start(ring);
    bench
}

/// Three requests of which the device before had the third and the first, in this order, and had given back the second.
fn interrupted(memory: &Arc<GuestMemory>) -> (Ring, File) {
    let mut ring = Ring::new(memory, 0, 16);
    for slot in [2, 1, 0] {
        ring.request(slot, Command::Read(SECTOR as u32), 50 + u64::from(slot));
    }
    memory.write_u16(ring.used + 2, 1);
    ring.memory.write(ring.used + 4, &[3, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(ring.take_used(), Some((3, 1)));
    (ring, left_behind(&[6, 0], 1))
}

fn in_flight(record: &File) -> Vec<u16> {
    let is_set = |head: &u16| {
        let mut byte = [0];
        record.read_exact_at(&mut byte, entry(*head)).unwrap();
        byte != [0]
    };
    (0..16).filter(is_set).collect()
}

#[test]
fn a_record_is_as_large_as_its_rings_need_and_nobody_can_cut_it() {
    for (features, size) in [(OFFER, SPLIT), (OFFER | feature::RING_PACKED, PACKED)] {
        let mut server = server(3);
        let mut bench = Bench::new(&mut server);
        bench.negotiate(features, EVERYTHING);
        let reply = bench.ask("GET_INFLIGHT_FD", &shape(0, 0, 3, 16));
        assert_eq!(reply.payload(), shape(3 * size, 0, 3, 16));
        let file = File::from(reply.descriptors.into_iter().next().unwrap());
        assert_eq!(file.metadata().unwrap().len(), 3 * size);
        assert!(fcntl_get_seals(&file).unwrap().contains(SealFlags::SHRINK | SealFlags::GROW));
        bench.grant("SET_INFLIGHT_FD", &shape(3 * size, 0, 3, 16), &[file.as_fd()]);
        // C programs send four bytes of padding, the specification does not.
        let reply = bench.ask("GET_INFLIGHT_FD", &shape(0, 0, 1, 16)[..20]);
        assert_eq!(reply.payload()[..20], shape(size, 0, 1, 16)[..20]);
    }
}

#[test]
fn what_was_in_flight_is_done_first_and_in_order_whoever_processes_the_rings() {
    for threads in ALL_THREADS {
        let image = Image::new();
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let (mut ring, record) = interrupted(&memory);
        ring.request(3, Command::Flush, 0);
        let mut server = image.server(1, threads);
        let mut bench = taken_over(&mut server, &record, &memory, &ring);
        assert_eq!((ring.used_index(), in_flight(&record)), (1, vec![0, 6]), "not enabled yet");
        bench.enable(&ring, 1);
        for (head, length) in [(6, SECTOR + 1), (0, SECTOR + 1), (9, 1)] {
            assert_eq!(bench.wait_used(&mut ring), (head, u32::try_from(length).unwrap()));
        }
        assert_eq!((ring.data(2, SECTOR), ring.data(0, SECTOR)), (vec![52; SECTOR], vec![50; SECTOR]));
        assert_eq!(bench.stop(&ring), 4);
        assert_eq!((in_flight(&record), ring.take_used()), (vec![], None));
        // Once more with the same record: there is nothing left to do.
        bench.grant("SET_INFLIGHT_FD", &shape(SPLIT, 0, 1, 16), &[record.as_fd()]);
        bench.grant("SET_VRING_BASE", &ring.state_payload(4), &[]);
        bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
        ring.request(1, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (3, 1));
    }
}

#[test]
fn a_request_is_in_the_record_until_it_is_used() {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut server = server(1);
    let record = file(SPLIT);
    let mut bench = taken_over(&mut server, &record, &memory, &ring);
    bench.enable(&ring, 1);
    for slot in 0..5 {
        ring.request(slot, Command::Flush, 0);
    }
    ring.kick();
    bench.settle();
    assert_eq!((ring.used_index(), in_flight(&record)), (5, vec![]));
    let mut header = [0; 16];
    record.read_exact_at(&mut header, 0).unwrap();
    let number = |at: u64| u16::from_ne_bytes(header[at as usize..][..2].try_into().unwrap());
    assert_eq!([VERSION, SIZE, USED_INDEX].map(number), [1, 16, 5]);
    // The fifth was taken when the counter was 4.
    let mut counter = [0; 8];
    record.read_exact_at(&mut counter, entry(12) + 8).unwrap();
    assert_eq!(u64::from_ne_bytes(counter), 4);
}

#[test]
fn a_ring_that_stops_or_is_disabled_before_its_first_turn_gives_back_what_was_in_flight() {
    for is_enabled in [false, true] {
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let (mut ring, record) = interrupted(&memory);
        ring.request(3, Command::Flush, 0);
        let mut server = server(1);
        let mut bench = taken_over(&mut server, &record, &memory, &ring);
        if is_enabled {
            // On the caller's thread the ring has had no turn when this was answered.
            bench.frontend().send(&crate::support::message("SET_VRING_ENABLE", 1, &ring.state_payload(1)), &[]);
            bench.frontend().send(&crate::support::message("SET_VRING_ENABLE", 1, &ring.state_payload(0)), &[]);
            let _ = bench.process();
            assert_eq!(ring.used_index(), 3, "and nothing that came later");
        }
        assert_eq!(bench.stop(&ring), 3);
        assert_eq!((ring.used_index(), in_flight(&record)), (3, vec![]));
        let used = [ring.take_used(), ring.take_used()];
        assert_eq!(used.map(|used| used.unwrap().0), [6, 0]);
    }
}

#[test]
fn a_connection_that_ends_leaves_the_record_to_the_next() {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let (mut ring, record) = interrupted(&memory);
    let mut server = server(1);
    drop(taken_over(&mut server, &record, &memory, &ring));
    assert_eq!((ring.used_index(), in_flight(&record)), (1, vec![0, 6]));
    let mut bench = taken_over(&mut server, &record, &memory, &ring);
    bench.enable(&ring, 1);
    assert_eq!([bench.wait_used(&mut ring).0, bench.wait_used(&mut ring).0], [6, 0]);
}

#[test]
fn a_reset_ends_all_requests() {
    for request in ["RESET_DEVICE", "SET_STATUS"] {
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let (mut ring, record) = interrupted(&memory);
        let mut server = server(1);
        let mut bench = taken_over(&mut server, &record, &memory, &ring);
        match request {
            "RESET_DEVICE" => bench.grant(request, &[], &[]),
            _ => bench.grant(request, &number(0), &[]),
        }
        assert_eq!(ring.used_index(), 1);
        // The driver begins anew in the same memory, with the record that it had.
        ring.restart_at(0);
        bench.grant("SET_FEATURES", &number(OFFER), &[]);
        bench.grant("SET_INFLIGHT_FD", &shape(SPLIT, 0, 1, 16), &[record.as_fd()]);
        bench.start(&ring);
        bench.enable(&ring, 1);
        bench.settle();
        assert_eq!((ring.used_index(), in_flight(&record)), (0, vec![]));
        ring.request(1, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (3, 1));
    }
}

#[test]
fn rings_that_a_record_does_not_cover_go_without() {
    let memory = Arc::new(GuestMemory::new(2 * BLOCK));
    let mut rings = [0, 1].map(|index| Ring::new(&memory, index, 16));
    let mut server = server(2);
    let record = file(SPLIT);
    let mut bench = Bench::negotiated(&mut server);
    bench.grant("SET_INFLIGHT_FD", &shape(SPLIT, 0, 1, 16), &[record.as_fd()]);
    bench.share(&[&memory]);
    for ring in &mut rings {
        bench.start(ring);
        bench.enable(ring, 1);
        ring.request(2, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(ring), (6, 1));
    }
}

/// SPDK and libvhost-user write down the size that was asked for, whatever the driver made of it.
#[test]
fn a_record_may_be_for_larger_rings() {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let (mut ring, record) = interrupted(&memory);
    let larger = file(2 * SPLIT);
    let mut bytes = vec![0; SPLIT as usize];
    record.read_exact_at(&mut bytes, 0).unwrap();
    larger.write_all_at(&bytes, 0).unwrap();
    larger.write_all_at(&20_u16.to_ne_bytes(), SIZE).unwrap();
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    bench.grant("SET_INFLIGHT_FD", &shape(2 * SPLIT, 0, 1, 20), &[larger.as_fd()]);
    bench.share(&[&memory]);
    bench.start(&ring);
    bench.enable(&ring, 1);
    assert_eq!([bench.wait_used(&mut ring).0, bench.wait_used(&mut ring).0], [6, 0]);
}

#[test]
fn records_that_are_none_are_refused() {
    let mut server = server(2);
    let mut bench = Bench::negotiated(&mut server);
    let nothing = bench.ask("GET_INFLIGHT_FD", &shape(0, 0, 0, 16));
    assert_eq!((nothing.payload(), nothing.descriptors.len()), (&[0; 24][..], 0));
    for (queues, queue_size) in [(1, 0), (3, 16), (1, 32769), (0xffff, 0xffff)] {
        let reply = bench.ask("GET_INFLIGHT_FD", &shape(0, 0, queues, queue_size));
        assert_eq!((reply.payload(), reply.descriptors.len()), (&[0; 24][..], 0), "{queues} of {queue_size}");
    }
    let record = file(2 * SPLIT);
    let (socket, _) = vhost_tests::dialog::Socket::pair();
    let read_only = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&record))).unwrap();
    for (what, shape, descriptor) in [
        ("need 640", shape(2 * SPLIT - 1, 0, 2, 16), record.as_fd()),
        ("need 648", shape(2 * SPLIT, 8, 2, 16), record.as_fd()),
        ("multiple of 8", shape(SPLIT, 4, 1, 16), record.as_fd()),
        ("of 0 rings", shape(2 * SPLIT, 0, 0, 16), record.as_fd()),
        ("rings of 0", shape(2 * SPLIT, 0, 1, 0), record.as_fd()),
        ("rings of 65535", shape(2 * SPLIT, 0, 2, 0xffff), record.as_fd()),
        ("at most 2 rings", shape(2 * SPLIT, 0, 3, 16), record.as_fd()),
        ("wrap", shape(u64::MAX, 8, 1, 16), record.as_fd()),
        ("the file of a region", shape(1 << 60, 0, 1, 16), record.as_fd()),
        ("a socket", shape(SPLIT, 0, 1, 16), socket.as_fd()),
        ("mmap", shape(SPLIT, 0, 1, 16), read_only.as_fd()),
    ] {
        let reason = bench.refused("SET_INFLIGHT_FD", &shape, &[descriptor]);
        assert!(reason.contains(what), "{what}: {reason}");
    }
    // As large as it has to be for split rings, but these are packed.
    bench.grant("SET_FEATURES", &number(OFFER | feature::RING_PACKED), &[]);
    let reason = bench.refused("SET_INFLIGHT_FD", &shape(2 * SPLIT, 0, 2, 16), &[record.as_fd()]);
    assert!(reason.contains("need 1152"), "{reason}");
}

#[test]
fn a_record_cannot_be_cut_short_while_it_is_used() {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut server = server(1);
    let record = file(SPLIT);
    let mut bench = taken_over(&mut server, &record, &memory, &ring);
    assert_eq!(ftruncate(&record, 0), Err(Errno::PERM));
    bench.enable(&ring, 1);
    ring.request(0, Command::Flush, 0);
    ring.kick();
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}

/// Somebody else's record can be one that nobody can seal, or one that was sealed by its maker.
#[test]
fn a_record_may_be_sealed_already_or_not_at_all() {
    let sealed = file(SPLIT);
    fcntl_add_seals(&sealed, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    for record in [sealed, file_with(SPLIT, MemfdFlags::empty()), tempfile_of(SPLIT)] {
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut server = server(1);
        let mut bench = taken_over(&mut server, &record, &memory, &ring);
        bench.enable(&ring, 1);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
    }
}

fn tempfile_of(size: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    file
}

#[test]
fn any_bytes_in_a_record_do_no_harm() {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut server = server(1);
    let (mut started, mut refused) = (0, 0);
    for seed in 1..200_u64 {
        let (mut ring, record) = interrupted(&memory);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        // A few bytes of a record that is right otherwise, or nearly all of one with the right version.
        let changes = if seed % 2 == 0 { 1 + random() % 8 } else { 2000 };
        for _ in 0..changes {
            let (at, byte) = (random() % SPLIT, random() as u8);
            if changes < 9 || !(VERSION..SIZE + 2).contains(&at) {
                record.write_all_at(&[byte], at).unwrap();
            }
        }
        let mut bench = Bench::negotiated(&mut server);
        bench.grant("SET_INFLIGHT_FD", &shape(SPLIT, 0, 1, 16), &[record.as_fd()]);
        bench.share(&[&memory]);
        for (name, payload) in [
            ("SET_VRING_NUM", ring.num_payload()),
            ("SET_VRING_BASE", ring.base_payload()),
            ("SET_VRING_ADDR", ring.address_payload()),
        ] {
            bench.grant(name, &payload, &[]);
        }
        match bench.acknowledged("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]) {
            0 => started += 1,
            _ => refused += 1,
        }
        bench.enable(&ring, 1);
        ring.request(5, Command::Flush, 0);
        ring.kick();
        bench.settle();
        bench.stop(&ring);
    }
    assert!(started > 20 && refused > 20, "{started} started, {refused} refused");
}

#[test]
fn nothing_is_left_of_records_however_many_there_were() {
    leaves_nothing_open("inflight::nothing_is_left_of_records_however_many_there_were", || {
        let mut server = server(1);
        let outside = Snapshot::take();
        let mut bench = Bench::negotiated(&mut server);
        let mut within = None;
        for _ in 0..1000 {
            let reply = bench.ask("GET_INFLIGHT_FD", &shape(0, 0, 1, 16));
            let file: Vec<OwnedFd> = reply.descriptors;
            bench.grant("SET_INFLIGHT_FD", &shape(SPLIT, 0, 1, 16), &[file[0].as_fd()]);
            drop(file);
            within.get_or_insert_with(Snapshot::take).assert_same_now();
        }
        drop(bench);
        outside.assert_same_now();
    });
}

/// The back-end before may have ended between giving a request back and signalling that. With the event index nobody would
/// signal again.
#[test]
fn a_ring_that_is_taken_over_is_signalled_once_also_when_nothing_is_left_to_do() {
    for call_comes_last in [false, true] {
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        ring.request(0, Command::Flush, 0);
        let record = left_behind(&[], 1);
        memory.write_u16(ring.used + 2, 1);
        ring.set_used_event(0);
        let mut server = server(1);
        let mut bench = Bench::new(&mut server);
        bench.negotiate(OFFER | feature::EVENT_INDEX, u64::MAX);
        bench.grant("SET_INFLIGHT_FD", &shape(SPLIT, 0, 1, 16), &[record.as_fd()]);
        bench.share(&[&memory]);
        if call_comes_last {
            bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
            bench.grant("SET_VRING_ADDR", &ring.address_payload(), &[]);
            bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
            bench.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
        } else {
            bench.start(&ring);
        }
        bench.enable(&ring, 1);
        bench.settle();
        assert_eq!((signals(&ring.call), ring.used_index()), (1, 1));
        bench.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
        assert_eq!(signals(&ring.call), 0);
    }
}
