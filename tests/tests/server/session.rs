//! Whole sessions: data goes from the guest's memory to the file and back.

use core::time::Duration;
use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_std::server::RingThreads;
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, signals};
use vhost_tests::wire::feature;

use crate::support::{ALL_THREADS, Bench, Dialog, EVERYTHING, Image, OFFER};

/// Nobody is woken who waits for these descriptors while there is nothing to do: no time of a processor is needed for it.
#[test]
fn a_loop_without_work_is_not_woken() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let _channel = bench.open_channel();
        for slot in 0..3 {
            ring.request(slot, Command::Flush, 0);
            ring.kick();
            assert_eq!(bench.wait_used(&mut ring), (u32::from(3 * slot), 1));
            bench.settle();
            assert_eq!(bench.wake_ups_within(Duration::from_millis(100)), 0);
        }
    }
}

#[test]
fn data_arrives_in_the_file_and_comes_back_whoever_processes_the_rings() {
    for threads in ALL_THREADS {
        let image = Image::new();
        let mut server = image.server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 64);
        let mut bench = Bench::running(&mut server, &memory, &ring);

        let data = Vec::from_iter((0..3 * SECTOR).map(|at| (at % 251) as u8));
        ring.request(0, Command::Write(&data), 5);
        ring.kick();
        bench.wait_for(ring.call.as_fd());
        assert_eq!(ring.take_used(), Some((0, 1)), "head and bytes written: the status");
        assert_eq!(ring.status(0), 0);
        assert_eq!(image.read(5, data.len()), data);
        assert_eq!(image.read(4, SECTOR), [4; SECTOR]);
        assert_eq!(image.read(8, SECTOR), [8; SECTOR]);

        ring.request(1, Command::Read(2 * SECTOR as u32), 7);
        ring.request(2, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (3, 2 * SECTOR as u32 + 1));
        assert_eq!(bench.wait_used(&mut ring), (6, 1));
        assert_eq!((ring.status(1), ring.status(2)), (0, 0));
        assert_eq!(ring.data(1, SECTOR), data[2 * SECTOR..]);
        assert_eq!(ring.data(1, 2 * SECTOR)[SECTOR..], [8; SECTOR]);
        assert_eq!(bench.stop(&ring), 3);
    }
}

#[test]
fn rings_work_side_by_side_and_each_signals_its_own_driver() {
    for threads in ALL_THREADS {
        let image = Image::new();
        let mut server = image.server(6, threads);
        let memory = Arc::new(GuestMemory::new(6 * BLOCK));
        let mut rings = Vec::from_iter((0..6).map(|index| Ring::new(&memory, index, 16)));
        let mut bench = Bench::negotiated(&mut server);
        assert_eq!(bench.ask_number("GET_QUEUE_NUM"), 6);
        bench.share(&[&memory]);
        // The last one is never set up, the one before it is started and not enabled.
        for ring in &rings[..5] {
            bench.start(ring);
        }
        for ring in &rings[..4] {
            bench.enable(ring, 1);
        }
        for round in 0..20 {
            for ring in &mut rings {
                ring.request(0, Command::Read(SECTOR as u32), u64::from(10 * ring.index) + round % 10);
                ring.kick();
            }
            for ring in &mut rings[..4] {
                assert_eq!(bench.wait_used(ring), (0, SECTOR as u32 + 1));
                assert_eq!(ring.data(0, SECTOR), [(10 * ring.index) as u8 + (round % 10) as u8; SECTOR]);
            }
        }
        for ring in &mut rings[4..] {
            assert_eq!(ring.take_used(), None);
            assert_eq!(signals(&ring.call), 0);
        }
        let bases = Vec::from_iter(rings.iter().map(|ring| bench.stop(ring)));
        assert_eq!(bases, [20, 20, 20, 20, 0, 0]);
    }
}

#[test]
fn memory_comes_as_a_table_or_region_by_region_and_buffers_may_cross_regions() {
    let whole = GuestMemory::new(4 * BLOCK);
    let part = |from: u64, size: u64, user: u64| {
        let region = whole.region();
        whole.sharing_file(vhost_tests::wire::region::Region {
            guest: region.guest + from,
            size,
            user,
            offset: from,
            ..region
        })
    };
    // The ring in the first, one buffer across the second and the third, which are neighbours only for the guest.
    let parts =
        [part(0, BLOCK, 0x7000_0000_0000), part(BLOCK, 0x1800, 0x1000), part(BLOCK + 0x1800, BLOCK, 0x7fff_0000_0000)];
    type Way = fn(&mut Bench<'_>, &[GuestMemory; 3]);
    let ways: [(&str, Way); 3] = [
        ("one table", |bench, [a, b, c]| bench.share(&[c, a, b])),
        ("one by one", |bench, parts| {
            for part in [&parts[2], &parts[0], &parts[1]] {
                bench.grant("ADD_MEM_REG", &part.single(), &[part.as_fd()]);
            }
        }),
        ("a table and additions", |bench, parts| {
            bench.share(&[&parts[0]]);
            for part in &parts[1..] {
                bench.grant("ADD_MEM_REG", &part.single(), &[part.as_fd()]);
            }
        }),
    ];
    for (name, share) in ways {
        let image = Image::new();
        let mut server = image.server(1, RingThreads::Caller);
        let ring_memory = part(0, BLOCK, 0x7000_0000_0000);
        let mut ring = Ring::new(&Arc::new(ring_memory), 0, 8);
        let mut bench = Bench::negotiated(&mut server);
        assert_eq!(bench.ask_number("GET_MAX_MEM_SLOTS"), 509, "{name}");
        share(&mut bench, &parts);
        bench.start(&ring);
        bench.enable(&ring, 1);

        let across = whole.region().guest + BLOCK + 0x1800 - 100;
        let data = Vec::from_iter((0..SECTOR).map(|at| (at % 241) as u8));
        whole.write(across, &data);
        let head = ring.prepare(0, Command::Write(&[0; SECTOR]), 9);
        ring.descriptor(head + 1, (across, SECTOR as u32), 1, head + 2);
        ring.offer(head);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1), "{name}");
        assert_eq!(ring.status(0), 0, "{name}");
        assert_eq!(image.read(9, SECTOR), data, "{name}");
    }
}

#[test]
fn with_the_event_index_kicks_and_signals_come_only_where_they_were_asked_for() {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::new(&mut server);
    bench.negotiate(OFFER | feature::EVENT_INDEX, EVERYTHING);
    bench.share(&[&memory]);
    bench.start(&ring);
    bench.enable(&ring, 1);
    ring.set_used_event(2);
    for round in 0..3_u16 {
        assert_eq!(signals(&ring.call), 0, "after {round} of the 3 requests that the driver waits for");
        ring.request(round, Command::Read(SECTOR as u32), 1);
        ring.kick();
        bench.barrier();
        assert_eq!(ring.used_index(), round + 1);
        assert_eq!(ring.available_event(), round + 1, "a kick is wanted for the next request");
    }
    assert_eq!(signals(&ring.call), 1);
}
