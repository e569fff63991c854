//! Kicks and signals: none is lost, whenever the descriptors and the parts of a ring come.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use vhost_std::server::RingThreads;
use vhost_tests::dialog::{PATIENCE, event};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, signal, signals};

use crate::support::{ALL_THREADS, Bench, Dialog, Image, server};

/// What can be told about a ring, in any order.
const STEPS: [&str; 6] = ["MEMORY", "NUM", "BASE", "ADDR", "KICK", "ENABLE"];

fn tell(bench: &mut Bench<'_>, ring: &Ring, step: &str) {
    match step {
        "MEMORY" => bench.share(&[&ring.memory]),
        "NUM" => bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]),
        "BASE" => bench.grant("SET_VRING_BASE", &ring.base_payload(), &[]),
        "ADDR" => bench.grant("SET_VRING_ADDR", &ring.address_payload(), &[]),
        "KICK" => bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]),
        "ENABLE" => bench.enable(ring, 1),
        other => panic!("{other}"),
    }
}

/// All orders of the steps in which a ring's size and base come before it has both its kick and its permission to run.
fn orders() -> Vec<[&'static str; 6]> {
    let mut all = Vec::new();
    permute(&mut STEPS.clone(), 0, &mut all);
    all.retain(|order| {
        let at = |step| order.iter().position(|one| *one == step).unwrap();
        at("NUM").max(at("BASE")) < at("KICK").max(at("ENABLE"))
    });
    all
}

fn permute(steps: &mut [&'static str; 6], fixed: usize, all: &mut Vec<[&'static str; 6]>) {
    if fixed == steps.len() {
        all.push(*steps);
    }
    for other in fixed..steps.len() {
        steps.swap(fixed, other);
        permute(steps, fixed + 1, all);
        steps.swap(fixed, other);
    }
}

/// A request waits in the ring from the start, and the kick for it was given before the descriptor was. In each order the
/// request is served as soon as the last word is said, and not before.
#[test]
fn s12_a_ring_starts_whatever_order_its_parts_are_told_in() {
    let orders = orders();
    assert_eq!(orders.len(), 360, "of 720, those where neither NUM nor BASE comes behind both KICK and ENABLE");
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    for order in orders {
        let mut ring = Ring::starting_at(&memory, 0, 16, 0xffff);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        let mut bench = Bench::negotiated(&mut server);
        bench.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
        for step in order {
            assert_eq!(ring.used_index(), 0xffff, "{order:?} before {step}");
            tell(&mut bench, &ring, step);
            let _ = bench.process();
        }
        assert_eq!(bench.wait_used(&mut ring), (0, 1), "{order:?}");
        assert_eq!(bench.stop(&ring), 0, "{order:?}: the index goes round");
    }
}

#[test]
fn s13_memory_may_come_last() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::negotiated(&mut server);
        bench.start(&ring);
        bench.enable(&ring, 1);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        bench.barrier();
        assert_eq!(ring.used_index(), 0);
        bench.share(&[&memory]);
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
    }
}

#[test]
fn s32_kick_before_enable() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::negotiated(&mut server);
        bench.share(&[&memory]);
        bench.start(&ring);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        bench.barrier();
        assert_eq!(ring.used_index(), 0, "a disabled ring is not processed");
        bench.enable(&ring, 1);
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
    }
}

#[test]
fn s28_a_ring_without_a_kick_descriptor_is_polled_and_one_without_a_call_descriptor_stays_silent() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(2, threads);
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let [mut polled, mut silent] = [0, 1].map(|index| Ring::new(&memory, index, 16));
        let mut bench = Bench::negotiated(&mut server);
        bench.share(&[&memory]);
        for ring in [&polled, &silent] {
            bench.start(ring);
            bench.enable(ring, 1);
        }
        bench.grant("SET_VRING_KICK", &polled.no_event_payload(), &[]);
        bench.grant("SET_VRING_CALL", &silent.no_event_payload(), &[]);
        for _ in 0..20 {
            polled.request(0, Command::Flush, 0);
            assert_eq!(bench.wait_used(&mut polled), (0, 1));
        }
        silent.request(0, Command::Flush, 0);
        silent.kick();
        assert_eq!(bench.stop(&polled), 20);
        // Nobody says when this request is done.
        let start = Instant::now();
        while silent.take_used().is_none() {
            assert!(start.elapsed() < PATIENCE, "the ring without a call descriptor is not served");
            let _ = bench.process();
        }
        assert_eq!((bench.stop(&silent), silent.status(0)), (1, 0));
        assert_eq!(signals(&silent.call), 0);
    }
}

#[test]
fn s28_a_polled_ring_gets_a_descriptor_and_is_polled_no_more() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    bench.grant("SET_VRING_KICK", &ring.no_event_payload(), &[]);
    bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
    bench.settle();
    ring.request(0, Command::Flush, 0);
    assert!(!bench.is_work_due(), "no clock any more");
    ring.kick();
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}

#[test]
fn s29_a_descriptor_or_the_word_that_there_is_none_must_come() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    for (name, id) in [("SET_VRING_KICK", 12), ("SET_VRING_CALL", 13), ("SET_VRING_ERR", 14)] {
        let reason = bench.refused(name, &ring.event_payload(), &[]);
        assert_eq!(reason, format!("{name} ({id}): expected 1 descriptors, found 0"));
        let reason = bench.refused(name, &ring.no_event_payload(), &[event().as_fd()]);
        assert_eq!(reason, format!("{name} ({id}): expected 0 descriptors, found 1"));
    }
    ring.request(0, Command::Flush, 0);
    ring.kick();
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}

#[test]
fn s30_no_kick_and_no_signal_is_lost_while_descriptors_are_replaced() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        for round in 0..100 {
            ring.request(0, Command::Read(SECTOR as u32), 1);
            match round % 4 {
                // On the old descriptor, which goes at the same time.
                0 => ring.kick(),
                // On the new one before it is known; the old one never hears of it.
                1 => {
                    ring.kick = event();
                    ring.kick();
                }
                // On none: a new descriptor is reason enough to look.
                2 => {}
                // The old one was taken away before.
                _ => {
                    bench.grant("SET_VRING_KICK", &ring.no_event_payload(), &[]);
                    ring.kick();
                }
            }
            if round % 4 != 1 {
                ring.kick = event();
            }
            bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
            assert_eq!(bench.wait_used(&mut ring), (0, SECTOR as u32 + 1), "round {round}");
        }
        for _ in 0..20 {
            let old = core::mem::replace(&mut ring.call, event());
            bench.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
            signals(&old);
            ring.request(0, Command::Flush, 0);
            ring.kick();
            bench.wait_for(ring.call.as_fd());
            assert_eq!(ring.take_used(), Some((0, 1)));
            assert_eq!(signals(&old), 0, "the old descriptor is not signalled any more");
        }
    }
}

#[test]
fn one_event_counter_kicks_several_rings() {
    for threads in [RingThreads::Shared(1), RingThreads::Shared(2), RingThreads::Caller] {
        let mut server = Image::new().server(3, threads);
        let memory = Arc::new(GuestMemory::new(3 * BLOCK));
        let mut rings = [0, 1, 2].map(|index| Ring::new(&memory, index, 16));
        let mut bench = Bench::negotiated(&mut server);
        let kick = event();
        bench.share(&[&memory]);
        for ring in &rings {
            bench.start(ring);
            bench.grant("SET_VRING_KICK", &ring.event_payload(), &[kick.as_fd()]);
            bench.enable(ring, 1);
        }
        for _ in 0..10 {
            for ring in &mut rings {
                ring.request(0, Command::Flush, 0);
            }
            signal(&kick);
            for ring in &mut rings {
                assert_eq!(bench.wait_used(ring), (0, 1));
            }
        }
        // One ring lets go of it, the others keep it.
        assert_eq!(bench.stop(&rings[0]), 10);
        for ring in &mut rings[1..] {
            ring.request(0, Command::Flush, 0);
        }
        signal(&kick);
        for ring in &mut rings[1..] {
            assert_eq!(bench.wait_used(ring), (0, 1));
        }
    }
}
