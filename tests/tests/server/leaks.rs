//! Sessions and descriptors by the thousand: as much is open after the last as after the first.
//!
//! `VHOST_LEAK_ROUNDS` says how many; see [`vhost_tests::rounds`].

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_std::server::RingThreads;
use vhost_std::socket::Listener;
use vhost_tests::descriptors::{in_own_process, leaves_nothing_open};
use vhost_tests::dialog::{FakeFrontend, Socket, borrowed, descriptors_for, event};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, table};
use vhost_tests::rounds::Watched;
use vhost_tests::wire::region::Region;
use vhost_tests::wire::{self, REQUEST_NEEDING_REPLY};

use crate::support::{Bench, Dialog, EVERYTHING, Image, OFFER, server};

/// A whole session: memory, a channel, a running ring, one request.
fn session(frontend: &mut FakeFrontend, memory: &Arc<GuestMemory>) {
    let mut ring = Ring::new(memory, 0, 16);
    Dialog::negotiate(frontend, OFFER, EVERYTHING);
    frontend.share(&[memory]);
    let (_ours, theirs) = Socket::pair();
    frontend.grant("SET_BACKEND_REQ_FD", &[], &[theirs.as_fd()]);
    Dialog::start(frontend, &ring);
    frontend.enable(&ring, 1);
    ring.request(0, Command::Flush, 0);
    ring.kick();
    assert_eq!(ring.wait_used(), (0, 1));
}

#[test]
fn sessions_one_after_another_leave_nothing_open() {
    const TEST: &str = "leaks::sessions_one_after_another_leave_nothing_open";
    leaves_nothing_open(TEST, || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let server = Image::new().server(1, RingThreads::Shared(1));
        let thread = server.spawn(Listener::bind(&path).unwrap()).unwrap();
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut idle = FakeFrontend::connect(&path);
        for number in Watched::default() {
            drop(idle);
            // Half of them end in the middle of a message that brings a descriptor.
            let mut frontend = FakeFrontend::connect(&path);
            session(&mut frontend, &memory);
            if number % 2 == 1 {
                frontend.send(&wire::frontend_request("SET_VRING_CALL").message(1)[..15], &[event().as_fd()]);
            }
            drop(frontend);
            // This one is served when that one is gone.
            idle = FakeFrontend::connect(&path);
            idle.barrier();
        }
        drop(idle);
        thread.stop().unwrap();
    });
}

/// Each request that carries descriptors, with as many as it wants and with one more, whether it is granted or refused.
#[test]
fn every_message_with_descriptors_leaves_nothing_open() {
    const TEST: &str = "leaks::every_message_with_descriptors_leaves_nothing_open";
    in_own_process(TEST, || {
        let forms = wire::all_frontend_forms();
        let carrying = Vec::from_iter(forms.into_iter().filter(|form| form.descriptors > 0));
        assert!(carrying.len() > 10);
        let mut server = server(2);
        for form in carrying {
            let descriptors = descriptors_for(&form);
            let mut one_more = borrowed(&descriptors);
            one_more.push(one_more[0]);
            let message = form.message(REQUEST_NEEDING_REPLY);
            let mut bench = Bench::negotiated(&mut server);
            for _ in Watched::default() {
                for descriptors in [&one_more[1..], &one_more[..]] {
                    // A connection that is given up is followed by another one.
                    if bench.try_send(&message, descriptors).is_err() {
                        drop(bench);
                        bench = Bench::negotiated(&mut server);
                    }
                }
            }
        }
    });
}

/// Memory that is really mapped: as a table of eight regions, and region by region.
#[test]
fn memory_that_is_replaced_is_let_go() {
    const TEST: &str = "leaks::memory_that_is_replaced_is_let_go";
    in_own_process(TEST, || {
        let mut server = server(1);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let region = memory.region();
        let others = [1, 2, 3, 4, 5, 6, 7].map(|at| Region {
            guest: region.guest + at * region.size,
            user: region.user + at * region.size,
            size: 0x1000 * at,
            ..region
        });
        let eight = [&[region][..], &others].concat();
        let extra = memory.sharing_file(Region { guest: 1 << 40, user: 1 << 40, ..region });
        for _ in Watched::default() {
            bench.grant("SET_MEM_TABLE", &table(&eight), &[memory.as_fd(); 8]);
            bench.grant("ADD_MEM_REG", &extra.single(), &[memory.as_fd()]);
            bench.refused("ADD_MEM_REG", &extra.single(), &[memory.as_fd()]);
            bench.grant("REM_MEM_REG", &extra.single(), &[memory.as_fd()]);
            // Longer than the file: nothing of it is taken.
            let long = Region { size: 1 << 30, guest: 1 << 41, user: 1 << 41, ..region };
            bench.refused("SET_MEM_TABLE", &table(&[region, long]), &[memory.as_fd(); 2]);
        }
    });
}

#[test]
fn descriptors_of_a_ring_and_channels_that_are_replaced_are_let_go() {
    const TEST: &str = "leaks::descriptors_of_a_ring_and_channels_that_are_replaced_are_let_go";
    in_own_process(TEST, || {
        let mut server = server(1);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let file = vhost_tests::dialog::memory(4096);
        for number in Watched::default() {
            for name in ["SET_VRING_CALL", "SET_VRING_KICK", "SET_VRING_ERR"] {
                if number % 2 == 0 {
                    bench.grant(name, &ring.no_event_payload(), &[]);
                }
                bench.grant(name, &ring.event_payload(), &[event().as_fd()]);
                if name != "SET_VRING_KICK" {
                    bench.refused(name, &ring.event_payload(), &[file.as_fd()]);
                }
            }
            drop(bench.open_channel());
            // The back-end has seen that it is closed.
            bench.settle();
        }
    });
}
