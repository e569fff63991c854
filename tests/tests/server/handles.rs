//! Descriptors on a real socket: which come with which message, and what becomes of all others.

use core::mem::MaybeUninit;
use std::io::IoSlice;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vhost_core::{DecodeError, Tolerance};
use vhost_std::endpoint::EndpointError;
use vhost_std::server::{RingThreads, ServeError};
use vhost_std::socket::SocketError;
use vhost_tests::descriptors::{in_own_process, leaves_nothing_open, open_descriptors};
use vhost_tests::dialog::{borrowed, event, memory};
use vhost_tests::driver::{BLOCK, GuestMemory, table};
use vhost_tests::wire::{self, REQUEST, REQUEST_NEEDING_REPLY};

use crate::support::{Bench, Dialog, Image, id, message, number, server, state, tolerant};

#[test]
fn f3_descriptors_after_the_first_byte_end_the_connection() {
    leaves_nothing_open("handles::f3_descriptors_after_the_first_byte_end_the_connection", || {
        let mut server = server(1);
        let whole = message("SET_VRING_CALL", REQUEST, &number(0));
        for cut in 1..whole.len() {
            let mut bench = Bench::negotiated(&mut server);
            bench.say(&whole[..cut], &[]);
            let error = bench.fails(&whole[cut..], &[event().as_fd()]);
            assert!(
                matches!(error, ServeError::Receive(EndpointError::Bytes(DecodeError::HandlesAfterStart { .. }))),
                "cut at {cut}: {error:?}"
            );
        }
        Bench::negotiated(&mut server).barrier();
    });
}

#[test]
fn f5_an_empty_list_of_descriptors_is_no_descriptor() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let whole = message("SET_VRING_ENABLE", REQUEST_NEEDING_REPLY, &state(0, 1));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&[])));
    let sent = sendmsg(bench.frontend().stream(), &[IoSlice::new(&whole)], &mut control, SendFlags::NOSIGNAL);
    assert_eq!(sent, Ok(whole.len()));
    let _ = bench.process();
    assert_eq!(bench.frontend().receive_reply(id("SET_VRING_ENABLE")).number(), 0);
}

#[test]
fn f6_a_removed_region_may_bring_its_descriptor() {
    leaves_nothing_open("handles::f6_a_removed_region_may_bring_its_descriptor", || {
        let mut server = server(1);
        let mut bench = Bench::negotiated(&mut server);
        let memory = GuestMemory::new(BLOCK);
        for _ in 0..10 {
            bench.grant("ADD_MEM_REG", &memory.single(), &[memory.as_fd()]);
            let before = open_descriptors();
            bench.grant("REM_MEM_REG", &memory.single(), &[memory.as_fd()]);
            assert_eq!(open_descriptors(), before);
        }
    });
}

#[test]
fn f6_other_unwanted_descriptors_are_closed_and_refused_or_let_pass() {
    leaves_nothing_open("handles::f6_other_unwanted_descriptors_are_closed_and_refused_or_let_pass", || {
        let mut strict = server(1);
        let mut bench = Bench::negotiated(&mut strict);
        let before = open_descriptors();
        let three = [event(), event(), event()];
        let reason = bench.refused("SET_VRING_ENABLE", &state(0, 1), &borrowed(&three));
        drop(three);
        assert_eq!(reason, "SET_VRING_ENABLE (18): expected 0 descriptors, found 3");
        assert_eq!(open_descriptors(), before);
        drop(bench);

        let mut tolerance = Tolerance::new();
        tolerance.extra_handles = vhost_core::ExtraHandles::Close;
        let mut kind = tolerant(tolerance);
        let mut bench = Bench::negotiated(&mut kind);
        let before = open_descriptors();
        bench.grant("SET_VRING_ENABLE", &state(0, 1), &[event().as_fd()]);
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn f7_a_table_comes_with_a_descriptor_for_each_region_or_changes_nothing() {
    leaves_nothing_open("handles::f7_a_table_comes_with_a_descriptor_for_each_region_or_changes_nothing", || {
        let mut server = server(1);
        let mut bench = Bench::negotiated(&mut server);
        let first = GuestMemory::new(BLOCK);
        let region = first.region();
        bench.share(&[&first]);
        let second = first.sharing_file(wire::region::Region { guest: 0x1000, user: 0x1000, ..region });
        let both = table(&[region, second.region()]);
        for count in (0..=8).filter(|&count| count != 2) {
            let descriptors = vec![first.as_fd(); count];
            let reason = bench.refused("SET_MEM_TABLE", &both, &descriptors);
            assert_eq!(reason, format!("SET_MEM_TABLE (5): expected 2 descriptors, found {count}"));
            assert_eq!(bench.connection().session().memory().regions().len(), 1);
        }
        bench.share(&[&first, &second]);
    });
}

#[test]
fn f8_more_descriptors_than_any_message_has_end_the_connection() {
    leaves_nothing_open("handles::f8_more_descriptors_than_any_message_has_end_the_connection", || {
        let mut server = server(1);
        for count in [9, 10, 20, 32] {
            let mut bench = Bench::negotiated(&mut server);
            let before = open_descriptors();
            let memory = memory(4096);
            let error = bench.fails(&message("SET_VRING_CALL", REQUEST, &number(0)), &vec![memory.as_fd(); count]);
            let ServeError::Receive(EndpointError::Socket(SocketError::TooManyReceived { received })) = error else {
                panic!("{count}: {error:?}")
            };
            assert!((9..=count).contains(&received), "{received} of {count}");
            drop(memory);
            assert_eq!(open_descriptors(), before, "all {count} are closed at once");
        }
        Bench::negotiated(&mut server).barrier();
    });
}

#[test]
fn f9_descriptor_number_zero_is_as_good_as_any() {
    in_own_process("handles::f9_descriptor_number_zero_is_as_good_as_any", || {
        let image = Image::new();
        let mut server = image.server(1, RingThreads::Caller);
        let memory = std::sync::Arc::new(GuestMemory::new(BLOCK));
        let mut ring = vhost_tests::driver::Ring::new(&memory, 0, 8);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let (call, kick) = (event(), event());
        for (name, descriptor) in [("SET_VRING_CALL", &call), ("SET_VRING_KICK", &kick)] {
            // Something else may have taken it since.
            let before = open_descriptors();
            if before.contains_key(&0) {
                // SAFETY: nobody in this process uses the standard input, and nobody owns its descriptor.
                drop(unsafe { OwnedFd::from_raw_fd(0) });
            }
            bench.grant(name, &ring.event_payload(), &[descriptor.as_fd()]);
            assert!(open_descriptors()[&0].contains("eventfd"), "the number was free and is taken");
            if name == "SET_VRING_CALL" {
                // The next descriptor gets the number: this one is let go.
                ring.request(0, vhost_tests::driver::Command::Flush, 0);
                ring.kick();
                bench.wait_for(call.as_fd());
                assert_eq!(ring.take_used(), Some((0, 1)));
                bench.grant(name, &ring.no_event_payload(), &[]);
                assert!(!open_descriptors().contains_key(&0));
            }
        }
        bench.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
        ring.request(0, vhost_tests::driver::Command::Flush, 0);
        vhost_tests::driver::signal(&kick);
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
    });
}

/// The protocol features of the fixture's gate are all on offer here.
fn is_open(fixture: &wire::Fixture, bench: &Bench<'_>) -> bool {
    let negotiated = bench.connection().session().negotiated();
    let (protocol, virtio) = (negotiated.protocol.bits(), negotiated.acknowledged.bits());
    fixture.gate.protocol & !protocol == 0 && fixture.gate.virtio & !virtio == 0
}

#[test]
fn every_request_with_a_wrong_number_of_descriptors_is_refused_by_name() {
    leaves_nothing_open("handles::every_request_with_a_wrong_number_of_descriptors_is_refused_by_name", || {
        let mut server = server(2);
        let memory = memory(4096);
        for fixture in wire::all_frontend_requests() {
            for count in (0..=9).chain([20]) {
                let mut bench = Bench::negotiated(&mut server);
                let is_open = is_open(&fixture, &bench);
                let descriptors = vec![memory.as_fd(); count];
                let complaint = bench.complaint(&fixture.request_needing_reply(), &descriptors);
                let expected = match (fixture.name, fixture.descriptors) {
                    _ if count > 8 => "descriptors came at once, at most 8 may".to_owned(),
                    _ if !is_open => "was not negotiated".to_owned(),
                    ("REM_MEM_REG", _) if count <= 1 => continue,
                    (name @ "REM_MEM_REG", _) => format!("{name} ({}): expected 0 to 1 descriptors", fixture.id),
                    (_, right) if count == right => continue,
                    (name, right) => format!("{name} ({}): expected {right} descriptors, found {count}", fixture.id),
                };
                let complaint = complaint.unwrap_or_else(|| panic!("{} took {count} descriptors", fixture.name));
                assert!(complaint.contains(&expected), "{} with {count}: {complaint}", fixture.name);
            }
        }
        Bench::negotiated(&mut server).barrier();
    });
}

/// What the system cannot hand over is lost: the connection is, the process is not.
#[test]
fn descriptors_that_did_not_arrive_end_the_connection_and_those_that_did_are_closed() {
    const TEST: &str = "handles::descriptors_that_did_not_arrive_end_the_connection_and_those_that_did_are_closed";
    leaves_nothing_open(TEST, || {
        let mut server = server(1);
        let memory = GuestMemory::new(8 * 0x1000);
        let regions = Vec::from_iter((0..8).map(|at| wire::region::Region {
            guest: at * 0x1000,
            size: 0x1000,
            user: at * 0x1000,
            offset: at * 0x1000,
            ..memory.region()
        }));
        let whole = message("SET_MEM_TABLE", REQUEST_NEEDING_REPLY, &table(&regions));
        let limits = getrlimit(Resource::Nofile);
        for room in 0..8 {
            let mut bench = Bench::negotiated(&mut server);
            let before = open_descriptors();
            let free = (0..).filter(|number| !before.contains_key(number)).nth(room).unwrap();
            setrlimit(Resource::Nofile, Rlimit { current: Some(free as u64), ..limits }).unwrap();
            let error = bench.fails(&whole, &[memory.as_fd(); 8]);
            setrlimit(Resource::Nofile, limits).unwrap();
            assert_eq!(error, ServeError::Receive(EndpointError::Socket(SocketError::HandlesLost { received: room })));
            assert_eq!(open_descriptors(), before);
        }
        let mut bench = Bench::negotiated(&mut server);
        bench.say(&whole, &[memory.as_fd(); 8]);
        assert_eq!(bench.frontend().receive_reply(id("SET_MEM_TABLE")).number(), 0);
    });
}
