//! Nothing that a front-end repeats makes the back-end keep more than it had.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_std::endpoint::EndpointError;
use vhost_std::server::ServeError;
use vhost_tests::descriptors::{Snapshot, leaves_nothing_open};
use vhost_tests::dialog::{borrowed, descriptors_for, event, memory};
use vhost_tests::driver::{BLOCK, GuestMemory, Ring, table};
use vhost_tests::wire::{self, REQUEST, REQUEST_NEEDING_REPLY, feature};

use crate::support::{Bench, Dialog, EVERYTHING, OFFER, number, server};

/// How often each message is repeated.
const TIMES: usize = 200;

/// Sends a message again and again, on a new connection when the old one was given up, and compares what is open.
fn repeat(bytes: &[u8], extra: impl Fn(usize) -> usize) {
    let mut server = server(2);
    let memory = memory(0x1000);
    let outside = Snapshot::take();
    let mut round = 0;
    while round < TIMES {
        let mut bench = Bench::negotiated(&mut server);
        let mut within = None;
        let mut is_given_up = false;
        while round < TIMES && !is_given_up {
            round += 1;
            let descriptors = vec![memory.as_fd(); extra(round)];
            is_given_up = bench.try_send(bytes, &descriptors).is_err();
            if !is_given_up {
                within.get_or_insert_with(Snapshot::take);
            }
        }
        if let Some(within) = within.filter(|_| !is_given_up) {
            within.assert_same_now();
        }
    }
    outside.assert_same_now();
}

#[test]
fn descriptors_that_no_message_wants_are_closed() {
    leaves_nothing_open("exhaustion::descriptors_that_no_message_wants_are_closed", || {
        for fixture in wire::all_frontend_requests() {
            for flags in [REQUEST, REQUEST_NEEDING_REPLY] {
                // Never the right number, so that the message itself is without effect; REM_MEM_REG may have one, and does not know
                // the region.
                repeat(&fixture.message(flags), |round| match round % 8 + 1 {
                    right if right == fixture.descriptors => 0,
                    wrong => wrong,
                });
            }
        }
    });
}

#[test]
fn descriptors_of_messages_with_bad_bytes_are_closed() {
    leaves_nothing_open("exhaustion::descriptors_of_messages_with_bad_bytes_are_closed", || {
        let bad = [
            wire::header(13, REQUEST_NEEDING_REPLY, 3).to_vec(),
            wire::header(13, 0, 8).to_vec(),
            wire::header(13, 5, 8).to_vec(),
            wire::header(4711, REQUEST_NEEDING_REPLY, 0).to_vec(),
            wire::header(13, REQUEST, u32::MAX).to_vec(),
        ];
        for header in bad {
            let bytes = [header, vec![0; 8]].concat();
            repeat(&bytes, |round| round % 9);
        }
    });
}

#[test]
fn what_a_ring_is_given_again_replaces_what_it_had() {
    leaves_nothing_open("exhaustion::what_a_ring_is_given_again_replaces_what_it_had", || {
        let mut server = server(1);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let before = Snapshot::take();
        for _ in 0..TIMES {
            for name in ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"] {
                bench.grant(name, &number(0), &[event().as_fd()]);
            }
            bench.share(&[&memory]);
            bench.enable(&ring, 0);
            bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
            bench.grant("SET_VRING_ADDR", &ring.address_payload(), &[]);
            bench.enable(&ring, 1);
        }
        // The same numbers in another order.
        assert_eq!(Snapshot::take().descriptor_count(), before.descriptor_count());
        assert_eq!(Snapshot::take().mappings, before.mappings);
        assert_eq!(bench.stop(&ring), 0);
        // The kick descriptor goes when the ring is stopped.
        assert_eq!(Snapshot::take().descriptor_count(), before.descriptor_count() - 1);
    });
}

#[test]
fn what_a_ring_refuses_is_closed() {
    leaves_nothing_open("exhaustion::what_a_ring_refuses_is_closed", || {
        let mut server = server(1);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let before = Snapshot::take();
        for _ in 0..TIMES {
            let file = vhost_tests::dialog::memory(4096);
            for name in ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"] {
                bench.refused(name, &number(0), &[file.as_fd()]);
            }
            // Overlaps what is there, has no memory behind it, is no memory.
            bench.refused("ADD_MEM_REG", &memory.single(), &[memory.as_fd()]);
            let elsewhere = wire::region::Region { guest: 0, user: 0, size: 0x8000, ..memory.region() };
            bench.refused("SET_MEM_TABLE", &table(&[elsewhere]), &[file.as_fd()]);
            let single = memory.sharing_file(elsewhere).single();
            bench.refused("ADD_MEM_REG", &single, &[event().as_fd()]);
        }
        before.assert_same_now();
    });
}

#[test]
fn regions_and_channels_come_and_go() {
    leaves_nothing_open("exhaustion::regions_and_channels_come_and_go", || {
        let mut server = server(1);
        let mut bench = Bench::negotiated(&mut server);
        let memory = GuestMemory::new(BLOCK);
        // The last channel stays open to the end.
        let _channel = bench.open_channel();
        let before = Snapshot::take();
        for _ in 0..TIMES {
            bench.grant("ADD_MEM_REG", &memory.single(), &[memory.as_fd()]);
            bench.grant("REM_MEM_REG", &memory.single(), &[memory.as_fd()]);
            bench.share(&[&memory]);
            bench.share(&[]);
            drop(bench.open_channel());
        }
        let _channel = bench.open_channel();
        assert_eq!(Snapshot::take().descriptor_count(), before.descriptor_count() + 1);
    });
}

#[test]
fn a_connection_that_ends_in_the_middle_of_its_set_up_leaves_nothing() {
    leaves_nothing_open("exhaustion::a_connection_that_ends_in_the_middle_of_its_set_up_leaves_nothing", || {
        let mut server = server(1);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let ring = Ring::new(&memory, 0, 16);
        let steps: [&dyn Fn(&mut Bench<'_>); 8] = [
            &|bench| bench.negotiate(OFFER | feature::EVENT_INDEX, EVERYTHING),
            &|bench| drop(bench.open_channel()),
            &|bench| bench.share(&[&memory]),
            &|bench| bench.start(&ring),
            &|bench| bench.enable(&ring, 1),
            &|_| ring.kick(),
            &|bench| assert_eq!(bench.stop(&ring), 0),
            &|bench| bench.grant("RESET_DEVICE", &[], &[]),
        ];
        let before = Snapshot::take();
        for _ in 0..TIMES / 10 {
            for end in 0..=steps.len() {
                let mut bench = Bench::new(&mut server);
                for step in &steps[..end] {
                    step(&mut bench);
                }
                drop(bench);
                before.assert_same_now();
            }
        }
    });
}

#[test]
fn a_message_that_is_cut_off_leaves_no_descriptor() {
    leaves_nothing_open("exhaustion::a_message_that_is_cut_off_leaves_no_descriptor", || {
        let mut server = server(1);
        for fixture in wire::all_frontend_requests().iter().filter(|fixture| fixture.descriptors > 0) {
            for length in [1, 11, fixture.request().len() - 1] {
                let mut bench = Bench::negotiated(&mut server);
                let descriptors = descriptors_for(fixture);
                bench.say(&fixture.request()[..length], &borrowed(&descriptors));
                let end = bench.hang_up();
                assert_eq!(end, Err(ServeError::Receive(EndpointError::Truncated)), "{} after {length}", fixture.name);
            }
        }
    });
}
