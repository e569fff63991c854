//! The fake peers talk to each other: what they send is what they receive.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use core::time::Duration;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use vhost_tests::descriptors::{leaves_nothing_open, open_descriptors};
use vhost_tests::dialog::{FakeBackend, FakeFrontend, Socket, borrowed, descriptors_for, event, memory, same_file};
use vhost_tests::wire::{self, REQUEST_NEEDING_REPLY, Reply, feature};

fn peers() -> (FakeFrontend, FakeBackend) {
    let (frontend, stream) = FakeFrontend::pair();
    (frontend, FakeBackend::new(stream))
}

fn sockets() -> (Socket, Socket) {
    let (one, stream) = Socket::pair();
    (one, Socket::new(stream))
}

#[test]
fn every_request_arrives_and_is_answered_as_its_fixture_says() {
    let (frontend, backend) = peers();
    for fixture in wire::all_frontend_requests() {
        frontend.send_fixture(&fixture, REQUEST_NEEDING_REPLY);
        let request = backend.serve(fixture.id);
        assert_eq!(request.payload(), fixture.payload, "{}", fixture.name);
        assert_eq!(request.descriptors.len(), fixture.descriptors, "{}", fixture.name);
        let reply = frontend.receive_reply(fixture.id);
        assert_eq!(reply.message.bytes(), fixture.reply(), "{}", fixture.name);
        let descriptors = fixture.answers().first().map_or(0, |answer| answer.descriptors);
        assert_eq!(reply.descriptors.len(), descriptors, "{}", fixture.name);
    }
}

#[test]
fn only_requests_with_a_reply_of_their_own_are_answered_unasked() {
    let (frontend, backend) = peers();
    for fixture in wire::all_frontend_requests() {
        frontend.send_fixture(&fixture, wire::REQUEST);
        backend.serve(fixture.id);
        if matches!(fixture.reply, Reply::Own(_)) {
            frontend.receive_reply(fixture.id);
        }
    }
    drop(backend);
    frontend.assert_closed();
}

#[test]
fn fixtures_carry_descriptors_of_the_kind_that_the_request_wants() {
    let kinds = |name| {
        let descriptors = descriptors_for(&wire::frontend_request(name));
        let targets = descriptors.iter().map(|one| open_descriptors()[&one.as_raw_fd()].clone());
        Vec::from_iter(targets.map(|target| target.split(['[', ' ']).next().unwrap().to_owned()))
    };
    assert_eq!(kinds("SET_MEM_TABLE"), ["/memfd:memory"; 2]);
    assert_eq!(kinds("SET_VRING_KICK"), ["anon_inode:"]);
    assert_eq!(kinds("SET_BACKEND_REQ_FD"), ["socket:"]);
    assert_eq!(kinds("SET_DEVICE_STATE_FD"), ["pipe:"]);
}

#[test]
fn negotiation_takes_what_is_offered_and_wanted() {
    let (frontend, backend) = peers();
    let backend = backend.offering(feature::PROTOCOL_FEATURES | feature::VERSION_1, feature::MQ | feature::CONFIG);
    let served = std::thread::spawn(move || {
        let (features, before) = backend.serve_until(2);
        let protocol = before.iter().find(|request| request.id() == 16).unwrap().number();
        (features.number(), protocol, Vec::from_iter(before.iter().map(|request| request.id())))
    });
    let offered = frontend.negotiate(feature::VERSION_1 | feature::LOG_ALL, feature::CONFIG | feature::SHMEM);
    assert_eq!(offered, (feature::PROTOCOL_FEATURES | feature::VERSION_1, feature::MQ | feature::CONFIG));
    assert_eq!(served.join().unwrap(), (feature::VERSION_1, feature::CONFIG, vec![1, 15, 16, 3]));
}

#[test]
fn replies_fit_what_was_asked() {
    let (frontend, backend) = peers();
    let served = std::thread::spawn(move || {
        for id in [11, 24, 31] {
            backend.serve(id);
        }
    });
    let state = frontend.ask(11, &[3_u32, 0].map(u32::to_ne_bytes).concat(), &[]);
    assert_eq!(state.fields(wire::Layout::VringState).number("index"), 3);
    let config = [[0_u32, 4, 0].map(u32::to_ne_bytes).concat(), vec![0; 4]].concat();
    let config = frontend.ask(24, &config, &[]);
    assert_eq!(config.fields(wire::Layout::Config).bytes("data"), [0xc1, 0xc2, 0xc3, 0xc4]);
    let queues = [vec![0; 16], 5_u16.to_ne_bytes().to_vec(), 64_u16.to_ne_bytes().to_vec(), vec![0; 4]].concat();
    let inflight = frontend.ask(31, &queues, &[]);
    let fields = inflight.fields(wire::Layout::Inflight);
    assert_eq!((fields.number("num_queues"), fields.number("queue_size")), (5, 64));
    assert_eq!(inflight.descriptors.len(), 1);
    served.join().unwrap();
}

#[test]
fn descriptors_lead_to_the_same_files_in_the_same_order() {
    let (one, other) = sockets();
    let sent = [memory(4096), memory(4096), event()];
    one.send(&wire::header(5, 1, 0), &borrowed(&sent));
    let received = other.receive().descriptors;
    assert_eq!(received.len(), 3);
    assert!(sent.iter().zip(&received).all(|(one, other)| same_file(one, other)));
    assert!(!same_file(&sent[0], &received[1]));
}

#[test]
fn a_message_cut_anywhere_arrives_whole() {
    let (one, other) = sockets();
    let fixture = wire::frontend_request("SET_MEM_TABLE");
    let bytes = fixture.request();
    let descriptors = [memory(4096), memory(4096)];
    for cut in 0..=bytes.len() {
        one.send_cut(&bytes, &[cut], &borrowed(&descriptors));
        let received = other.receive();
        assert_eq!((received.message.bytes(), received.descriptors.len()), (bytes.clone(), 2), "cut at {cut}");
    }
    let mut pauses = 0;
    one.send_cut_with(&bytes, &Vec::from_iter(1..bytes.len()), &[], || pauses += 1);
    assert_eq!((other.receive().message.bytes(), pauses), (bytes.clone(), bytes.len() - 1));
}

#[test]
fn descriptors_in_the_middle_of_a_message_are_refused() {
    let (one, other) = sockets();
    let bytes = wire::frontend_request("SET_FEATURES").request();
    for cut in [1, 12] {
        one.send(&bytes[..cut], &[]);
        one.send(&bytes[cut..], &[memory(4096).as_fd()]);
        assert_eq!(other.try_receive().unwrap_err().kind(), ErrorKind::InvalidData, "cut at {cut}");
        // Whatever is left of the message.
        other.stream().set_nonblocking(true).unwrap();
        while std::io::Read::read(&mut other.stream(), &mut [0; 64]).is_ok() {}
        other.stream().set_nonblocking(false).unwrap();
    }
}

#[test]
fn an_end_between_messages_is_no_error_and_an_end_inside_one_is() {
    let bytes = wire::frontend_request("SET_FEATURES").request();
    for cut in 0..=bytes.len() {
        let (one, other) = sockets();
        one.send_cut(&bytes[..cut], &[], &[]);
        drop(one);
        match other.try_receive() {
            Ok(None) => assert_eq!(cut, 0),
            Ok(Some(_)) => assert_eq!(cut, bytes.len()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "cut at {cut}");
                assert!(0 < cut && cut < bytes.len(), "cut at {cut}");
            }
        }
    }
}

#[test]
fn a_silent_peer_and_a_closed_one_are_told_apart() {
    let (one, other) = sockets();
    other.stream().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert_eq!(other.try_receive().unwrap_err().kind(), ErrorKind::TimedOut);
    drop(one);
    other.assert_closed();
    assert_eq!(other.try_send(&[0], &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
#[should_panic(expected = "id and flags of the reply")]
fn a_barrier_notices_a_reply_that_nobody_took() {
    let (frontend, backend) = peers();
    frontend.request(3, &[], &[]);
    let request = backend.receive();
    backend.acknowledge(&request, 0);
    backend.acknowledge(&request, 0);
    frontend.barrier();
}

#[test]
fn a_backend_channel_carries_requests_the_other_way() {
    let (frontend, backend) = peers();
    let ours = frontend.open_backend_channel();
    let theirs = FakeBackend::backend_channel(backend.receive());
    for fixture in wire::all_backend_requests() {
        theirs.send(&fixture.request(), &[]);
        assert_eq!(ours.receive().message.bytes(), fixture.request(), "{}", fixture.name);
    }
}

#[test]
fn a_dialog_leaves_nothing_open() {
    leaves_nothing_open("a_dialog_leaves_nothing_open", || {
        let (frontend, backend) = peers();
        for fixture in wire::all_frontend_requests() {
            frontend.send_fixture(&fixture, REQUEST_NEEDING_REPLY);
            backend.serve(fixture.id);
            frontend.receive_reply(fixture.id);
        }
        // One that is never received.
        frontend.send_fixture(&wire::frontend_request("SET_MEM_TABLE"), wire::REQUEST);
    });
}
