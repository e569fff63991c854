//! A driver that breaks its ring: a bad chain comes back with length 0, a bad ring is stopped and said so, and nothing else is
//! touched.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_std::server::BackendServer;
use vhost_tests::driver::{BLOCK, Command, GuestMemory, INDIRECT, NEXT, Ring, WRITE, signals, wait_readable};

use crate::support::{ALL_THREADS, Bench, Dialog, Image, server};

/// Two rings that run; the first is the hostile driver's.
struct Two {
    hostile: Ring,
    honest: Ring,
}

impl Two {
    fn new() -> Self {
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let [hostile, honest] = [0, 1].map(|index| Ring::new(&memory, index, 16));
        Self { hostile, honest }
    }

    fn bench<'s>(&self, server: &'s mut BackendServer) -> Bench<'s> {
        let mut bench = Bench::negotiated(server);
        bench.share(&[&self.hostile.memory]);
        for ring in [&self.hostile, &self.honest] {
            bench.start(ring);
            bench.enable(ring, 1);
        }
        bench
    }

    #[track_caller]
    fn assert_both_serve(&mut self, bench: &mut Bench<'_>) {
        for ring in [&mut self.hostile, &mut self.honest] {
            ring.request(0, Command::Flush, 0);
            ring.kick();
            assert_eq!(bench.wait_used(ring), (0, 1));
            assert_eq!(ring.status(0), 0);
        }
    }
}

/// Writes a bad chain at descriptor 3; the first descriptor and what it should come back as.
type BadChain = fn(&Ring);

const BAD_CHAINS: [(&str, BadChain); 14] = [
    ("a descriptor that is its own next", |ring| ring.descriptor(3, (ring.buffers, 16), NEXT, 3)),
    ("a loop of three", |ring| {
        ring.descriptor(3, (ring.buffers, 16), NEXT, 4);
        ring.descriptor(4, (ring.buffers, 16), NEXT, 5);
        ring.descriptor(5, (ring.buffers, 16), NEXT, 3);
    }),
    ("a next beyond the table", |ring| ring.descriptor(3, (ring.buffers, 16), NEXT, 16)),
    ("a next far beyond the table", |ring| ring.descriptor(3, (ring.buffers, 16), NEXT, 0xffff)),
    ("a buffer outside memory", |ring| ring.descriptor(3, (0x1000, 16), 0, 0)),
    ("a buffer that ends outside memory", |ring| {
        let end = ring.memory.region().guest + ring.memory.region().size;
        ring.descriptor(3, (end - 8, 16), WRITE, 0);
    }),
    ("a buffer that wraps around", |ring| ring.descriptor(3, (u64::MAX - 7, 16), WRITE, 0)),
    ("a buffer of all memory and more", |ring| ring.descriptor(3, (ring.buffers, u32::MAX), WRITE, 0)),
    ("a buffer without bytes outside memory", |ring| ring.descriptor(3, (0x1000, 0), WRITE, 0)),
    ("a writable buffer before a readable one", |ring| {
        ring.descriptor(3, (ring.buffers, 16), WRITE | NEXT, 4);
        ring.descriptor(4, (ring.buffers, 16), 0, 0);
    }),
    ("an indirect table of half a descriptor", |ring| ring.descriptor(3, (ring.buffers, 24), INDIRECT, 0)),
    ("an indirect table outside memory", |ring| ring.descriptor(3, (0x1000, 32), INDIRECT, 0)),
    ("an indirect table with a loop", |ring| {
        ring.descriptor_at(ring.buffers, 0, (ring.buffers, 16), NEXT, 1);
        ring.descriptor_at(ring.buffers, 1, (ring.buffers, 16), NEXT, 0);
        ring.descriptor(3, (ring.buffers, 32), INDIRECT, 0);
    }),
    ("an indirect table in an indirect table", |ring| {
        ring.descriptor_at(ring.buffers, 0, (ring.buffers + 0x100, 16), INDIRECT, 0);
        ring.descriptor_at(ring.buffers + 0x100, 0, (ring.buffers, 16), 0, 0);
        ring.descriptor(3, (ring.buffers, 16), INDIRECT, 0);
    }),
];

#[test]
fn a_bad_chain_comes_back_with_length_0_and_the_ring_goes_on() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(2, threads);
        let mut two = Two::new();
        let mut bench = two.bench(&mut server);
        for (name, write) in BAD_CHAINS {
            write(&two.hostile);
            two.hostile.offer(3);
            two.hostile.kick();
            assert_eq!(bench.wait_used(&mut two.hostile), (3, 0), "{name}");
            assert_eq!(signals(&two.hostile.error), 0, "{name}: the ring itself is good");
            two.assert_both_serve(&mut bench);
        }
    }
}

/// It cannot go back to the driver, whose list of requests is wrong from there on.
#[test]
fn a_chain_that_is_no_descriptor_breaks_that_ring_alone() {
    for head in [16, 0x8000, 0xffff] {
        let mut server = server(2);
        let mut two = Two::new();
        let mut bench = two.bench(&mut server);
        two.hostile.offer(head);
        two.hostile.kick();
        bench.wait_for_signal(&two.hostile.error);
        two.honest.request(0, Command::Flush, 0);
        two.honest.kick();
        assert_eq!(bench.wait_used(&mut two.honest), (0, 1));
        assert_eq!(bench.stop(&two.hostile), 0, "it was not taken");
    }
}

#[test]
fn good_indirect_tables_work() {
    let mut server = server(2);
    let mut two = Two::new();
    let mut bench = two.bench(&mut server);
    let ring = &mut two.hostile;
    let head = ring.prepare(0, Command::Read(1024), 3);
    let table = ring.memory.read(ring.descriptors + 16 * u64::from(head), 48);
    ring.memory.write(ring.buffers + 0x2000, &table);
    ring.descriptor(9, (ring.buffers + 0x2000, 48), INDIRECT, 0);
    ring.offer(9);
    ring.kick();
    assert_eq!(bench.wait_used(ring), (9, 1025));
    assert_eq!((ring.status(0), ring.data(0, 1024)), (0, [[3; 512], [4; 512]].concat()));
}

/// What breaks a ring for good.
const BROKEN: [(&str, u16); 4] =
    [("one ahead", 17), ("far ahead", 1000), ("half way round", 0x8000), ("behind", 0xffff)];

#[test]
fn an_available_index_that_runs_ahead_stops_the_ring_until_it_is_set_up_again() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(2, threads);
        let mut two = Two::new();
        let mut bench = two.bench(&mut server);
        for (name, ahead) in BROKEN {
            let base = two.hostile.available_index();
            two.hostile.set_available_index(base.wrapping_add(ahead));
            two.hostile.kick();
            bench.wait_for_signal(&two.hostile.error);
            assert_eq!(signals(&two.hostile.error), 1, "{name}");

            // Even with a good index it stays where it is, and the other one does not care.
            two.hostile.request(0, Command::Flush, 0);
            two.hostile.kick();
            two.honest.request(0, Command::Flush, 0);
            two.honest.kick();
            assert_eq!(bench.wait_used(&mut two.honest), (0, 1), "{name}");
            bench.share(&[&two.hostile.memory]);
            bench.grant("SET_VRING_CALL", &two.honest.event_payload(), &[two.honest.call.as_fd()]);
            assert_eq!(two.hostile.take_used(), None, "{name}");
            assert_eq!(signals(&two.hostile.error), 0, "{name}: said once");

            assert_eq!(bench.stop(&two.hostile), base, "{name}: nothing was taken");
            two.hostile.restart_at(base);
            bench.start(&two.hostile);
            two.assert_both_serve(&mut bench);
        }
    }
}

#[test]
fn a_broken_ring_may_also_be_started_again_by_a_new_kick_descriptor() {
    let mut server = server(2);
    let mut two = Two::new();
    let mut bench = two.bench(&mut server);
    two.hostile.set_available_index(1000);
    two.hostile.kick();
    bench.wait_for_signal(&two.hostile.error);
    two.hostile.set_available_index(0);
    let kick = two.hostile.kick.as_fd();
    bench.grant("SET_VRING_KICK", &two.hostile.event_payload(), &[kick]);
    two.assert_both_serve(&mut bench);
}

#[test]
fn a_ring_without_an_error_descriptor_breaks_in_silence() {
    let mut server = Image::new().server(2, vhost_std::server::RingThreads::Shared(1));
    let mut two = Two::new();
    let mut bench = two.bench(&mut server);
    bench.grant("SET_VRING_ERR", &two.hostile.no_event_payload(), &[]);
    two.hostile.set_available_index(1000);
    two.hostile.kick();
    two.honest.request(0, Command::Flush, 0);
    two.honest.kick();
    wait_readable(&two.honest.call);
    assert_eq!(two.honest.take_used(), Some((0, 1)));
    assert_eq!(bench.stop(&two.hostile), 0);
    assert_eq!(signals(&two.hostile.error), 0, "it was taken away");
}

/// A driver that offers the same chain many times over, or moves its index all the time, gets no more than its share.
#[test]
fn a_full_ring_of_loops_and_a_moving_index_hold_nobody_up() {
    let mut server = Image::new().server(2, vhost_std::server::RingThreads::Shared(1));
    let mut two = Two::new();
    let mut bench = two.bench(&mut server);
    for head in 0..16 {
        two.hostile.descriptor(head, (two.hostile.buffers, 1), NEXT, (head + 1) % 16);
    }
    for _ in 0..50 {
        for head in 0..16 {
            two.hostile.offer(head);
        }
        two.hostile.kick();
        two.honest.request(0, Command::Flush, 0);
        two.honest.kick();
        assert_eq!(bench.wait_used(&mut two.honest), (0, 1));
        for head in 0..16 {
            assert_eq!(bench.wait_used(&mut two.hostile), (head, 0));
        }
    }
}
