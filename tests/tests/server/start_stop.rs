//! When a ring runs and when it does not, and where it goes on.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, signal, signals};
use vhost_tests::wire::feature;

use crate::support::{ALL_THREADS, Bench, Dialog, Image, OFFER, number, server};

fn ring() -> Ring {
    Ring::new(&Arc::new(GuestMemory::new(BLOCK)), 0, 16)
}

#[track_caller]
fn assert_serves(bench: &mut Bench<'_>, ring: &mut Ring) {
    ring.request(0, Command::Flush, 0);
    ring.kick();
    assert_eq!(bench.wait_used(ring), (0, 1));
}

/// Offers a request and kicks; nothing may come of it.
#[track_caller]
fn assert_rests(bench: &mut Bench<'_>, ring: &mut Ring) {
    let before = ring.used_index();
    ring.request(0, Command::Flush, 0);
    ring.kick();
    bench.settle();
    assert_eq!(ring.used_index(), before);
}

#[test]
fn s5_a_ring_that_runs_is_stopped_and_nothing_is_written_after_the_reply() {
    for threads in ALL_THREADS {
        let image = Image::new();
        let mut server = image.server(2, threads);
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let [mut stopped, mut other] = [0, 1].map(|index| Ring::new(&memory, index, 16));
        let mut bench = Bench::negotiated(&mut server);
        bench.share(&[&memory]);
        for ring in [&stopped, &other] {
            bench.start(ring);
            bench.enable(ring, 1);
        }
        let kick = stopped.kick.try_clone().unwrap();
        for _ in 0..50 {
            for slot in 0..5 {
                stopped.request(slot, Command::Read(2 * SECTOR as u32), slot.into());
                signal(&kick);
            }
            let base = bench.stop(&stopped);
            let block = || memory.read(stopped.descriptors, BLOCK as usize);
            let (used, then) = (stopped.used_index(), block());
            assert_eq!(base, used, "what was taken was completed before the reply");
            signals(&stopped.call);

            // Whoever processed the ring is busy with the other one now.
            signal(&kick);
            assert_serves(&mut bench, &mut other);
            assert!(block() == then, "the memory of a stopped ring is left alone");
            assert_eq!(signals(&stopped.call), 0);

            // What was not taken is taken when the ring goes on from its base.
            bench.grant("SET_VRING_BASE", &stopped.state_payload(base.into()), &[]);
            bench.grant("SET_VRING_KICK", &stopped.event_payload(), &[kick.as_fd()]);
            for slot in 0..5 {
                assert_eq!(bench.wait_used(&mut stopped), (3 * slot, 1025));
            }
        }
    }
}

#[test]
fn s4_starting_a_ring_does_not_disable_it() {
    let (mut server, mut ring) = (server(1), ring());
    let mut bench = Bench::running(&mut server, &ring.memory.clone(), &ring);
    bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
    assert_serves(&mut bench, &mut ring);
    // Neither does stopping it.
    assert_eq!(bench.stop(&ring), 1);
    bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
    assert_serves(&mut bench, &mut ring);
}

#[test]
fn s6_a_disabled_ring_keeps_its_place_and_goes_on_there() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let mut ring = ring();
        let mut bench = Bench::running(&mut server, &ring.memory.clone(), &ring);
        for round in 1..20 {
            assert_serves(&mut bench, &mut ring);
            bench.enable(&ring, 0);
            ring.request(1, Command::Flush, 0);
            ring.kick();
            bench.barrier();
            assert_eq!(ring.used_index(), 2 * round - 1, "a disabled ring is not processed");
            bench.enable(&ring, 1);
            assert_eq!(bench.wait_used(&mut ring), (3, 1));
        }
    }
}

#[test]
fn s1_rings_are_enabled_before_any_features_were_acknowledged() {
    let (mut server, mut ring) = (server(1), ring());
    let mut bench = Bench::new(&mut server);
    bench.ask_number("GET_FEATURES");
    bench.ask_number("GET_PROTOCOL_FEATURES");
    bench.request("SET_PROTOCOL_FEATURES", &number(feature::REPLY_ACK), &[]);
    bench.request("SET_OWNER", &[], &[]);
    for _ in 0..5 {
        bench.enable(&ring, 1);
    }
    bench.grant("SET_FEATURES", &number(OFFER), &[]);
    bench.share(&[&ring.memory.clone()]);
    bench.start(&ring);
    assert_serves(&mut bench, &mut ring);
}

#[test]
fn s2_enabling_a_ring_of_which_nothing_is_known_only_is_remembered() {
    let (mut server, mut ring) = (server(2), ring());
    let mut bench = Bench::negotiated(&mut server);
    for _ in 0..3 {
        bench.enable(&ring, 1);
        bench.grant("SET_VRING_ENABLE", &crate::support::state(1, 1), &[]);
    }
    bench.share(&[&ring.memory.clone()]);
    bench.start(&ring);
    assert_serves(&mut bench, &mut ring);
}

#[test]
fn s3_features_without_bit_30_enable_all_rings_and_features_with_it_disable_none() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(2, threads);
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let [mut first, mut second] = [0, 1].map(|index| Ring::new(&memory, index, 16));
        let mut bench = Bench::negotiated(&mut server);
        bench.share(&[&memory]);
        bench.start(&first);
        // The event index changes with it: the ring waits for nothing else.
        let without = (OFFER | feature::EVENT_INDEX) & !feature::PROTOCOL_FEATURES;
        first.set_used_event(0);
        bench.grant("SET_FEATURES", &number(without), &[]);
        assert_serves(&mut bench, &mut first);
        // One that is started later is enabled too.
        second.set_used_event(0);
        bench.start(&second);
        assert_serves(&mut bench, &mut second);
        bench.stop(&first);
        bench.stop(&second);
        bench.grant("SET_FEATURES", &number(OFFER), &[]);
        for ring in [&mut first, &mut second] {
            ring.restart_at(0);
            bench.start(ring);
            assert_serves(&mut bench, ring);
        }
    }
}

#[test]
fn s10_the_used_index_is_read_when_the_ring_starts() {
    let (mut server, mut ring) = (server(1), ring());
    let mut bench = Bench::negotiated(&mut server);
    bench.share(&[&ring.memory.clone()]);
    bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
    bench.grant("SET_VRING_ADDR", &ring.address_payload(), &[]);
    // A saved state is restored only now.
    ring.restart_at(4711);
    bench.start(&ring);
    bench.enable(&ring, 1);
    assert_serves(&mut bench, &mut ring);
    assert_eq!(ring.used_index(), 4712);

    // It is the ring's own: three requests less than were taken have come back.
    let mut bench = {
        drop(bench);
        Bench::negotiated(&mut server)
    };
    bench.share(&[&ring.memory.clone()]);
    ring.memory.write_u16(ring.used + 2, 4709);
    bench.start(&ring);
    bench.grant("SET_VRING_BASE", &ring.state_payload(4712), &[]);
    bench.enable(&ring, 1);
    // A ring that does not begin here is signalled, in case that somebody else did not get to it.
    assert!(signals(&ring.call) > 0);
    ring.request(1, Command::Flush, 0);
    ring.kick();
    bench.wait_for(ring.call.as_fd());
    assert_eq!(ring.used_index(), 4710);
    assert_eq!(bench.stop(&ring), 4713);
}

#[test]
fn s11_a_base_beyond_the_ring_size_is_where_the_ring_goes_on() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    for base in [15, 16, 17, 255, 0x7fff, 0x8000, 0xffff] {
        let mut ring = Ring::starting_at(&memory, 0, 16, base);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        for _ in 0..3 {
            assert_serves(&mut bench, &mut ring);
        }
        assert_eq!(bench.stop(&ring), base.wrapping_add(3));
    }
}

#[test]
fn s23_a_device_reset_may_come_at_any_time_and_keeps_memory_and_protocol_features() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let mut ring = ring();
        let memory = ring.memory.clone();
        let mut bench = Bench::negotiated(&mut server);
        for _ in 0..3 {
            bench.request("RESET_DEVICE", &[], &[]);
        }
        bench.share(&[&memory]);
        for _ in 0..3 {
            bench.grant("SET_FEATURES", &number(OFFER), &[]);
            ring.restart_at(0);
            bench.start(&ring);
            bench.enable(&ring, 1);
            assert_serves(&mut bench, &mut ring);

            bench.request("RESET_DEVICE", &[], &[]);
            assert_eq!(bench.connection().session().memory().regions().len(), 1);
            assert_eq!(bench.stop(&ring), 0, "a ring is as new");
            // Nothing is left of it that a new kick descriptor could start.
            ring.restart_at(0);
            bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
            bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
            bench.enable(&ring, 1);
            assert_rests(&mut bench, &mut ring);
            bench.request("RESET_DEVICE", &[], &[]);
        }
    }
}

#[test]
fn s26_the_status_is_advice_and_zero_is_a_reset() {
    let (mut server, mut ring) = (server(1), ring());
    let memory = ring.memory.clone();
    let mut bench = Bench::negotiated(&mut server);
    assert_eq!(bench.ask_number("GET_STATUS"), 0);
    bench.share(&[&memory]);
    for status in [0x8, 0xf, 0xb] {
        bench.request("SET_STATUS", &number(status), &[]);
        assert_eq!(bench.ask_number("GET_STATUS"), status);
        bench.grant("SET_FEATURES", &number(OFFER), &[]);
        ring.restart_at(0);
        bench.start(&ring);
        bench.enable(&ring, 1);
        // Without DRIVER_OK too.
        assert_serves(&mut bench, &mut ring);
        bench.request("SET_STATUS", &number(0), &[]);
        assert_eq!(bench.ask_number("GET_STATUS"), 0);
        assert_rests(&mut bench, &mut ring);
        assert_eq!(bench.stop(&ring), 0);
    }
    let reason = bench.refused("SET_STATUS", &number(0x100), &[]);
    assert_eq!(reason, "SET_STATUS (39): expected a device status of eight bits, found 0x100");
}

#[test]
fn s25_resetting_the_owner_disables_all_rings() {
    let (mut server, mut ring) = (server(1), ring());
    let mut bench = Bench::running(&mut server, &ring.memory.clone(), &ring);
    bench.grant("RESET_OWNER", &[], &[]);
    assert_rests(&mut bench, &mut ring);
    bench.enable(&ring, 1);
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}

/// libkrun disables a ring to reset it, and then sets it up anew without having stopped it.
#[test]
fn a_disabled_ring_is_set_up_anew_without_having_been_stopped() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let mut ring = ring();
        let mut bench = Bench::running(&mut server, &ring.memory.clone(), &ring);
        for _ in 0..3 {
            for _ in 0..5 {
                assert_serves(&mut bench, &mut ring);
            }
            bench.enable(&ring, 0);
            bench.grant("SET_FEATURES", &number(OFFER), &[]);
            ring.restart_at(0);
            bench.start(&ring);
            bench.enable(&ring, 1);
        }
        assert_serves(&mut bench, &mut ring);
        assert_eq!(bench.stop(&ring), 1);
    }
}
