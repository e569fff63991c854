//! Replies that are right in another way, and replies that are wrong.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_core::wire::header::Header;
use vhost_core::wire::log::Log;
use vhost_core::{DecodeError, MessageName, PeerMisbehaved, Violation};
use vhost_std::endpoint::{Direction, Observer};
use vhost_std::frontend::{Frontend, FrontendError, SessionEnd};
use vhost_tests::dialog::{FakeBackend, Received, borrowed, memory};
use vhost_tests::wire::{self, Bytes, REPLY, feature};

use crate::script::{agreed, finish, scripted};

/// A session whose back-end sends `bytes` with so many descriptors in reply to whatever comes.
fn replied<T>(
    bytes: Vec<u8>,
    descriptors: usize,
    call: impl FnOnce(&mut Frontend) -> Result<T, FrontendError>,
) -> Result<T, FrontendError> {
    let script = move |backend: FakeBackend| {
        let request = backend.receive();
        let descriptors = Vec::from_iter((0..descriptors).map(|_| memory(1)));
        backend.send(&bytes, &borrowed(&descriptors));
        drop(request);
        // Until the front-end goes: an end would be another fault.
        drop(backend.try_receive());
    };
    let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, script);
    let outcome = call(&mut frontend);
    if let Err(error) = &outcome {
        let end = error.ends_session().expect("such a reply ends the session");
        let message = Some(error.request().unwrap());
        assert_eq!(frontend.get_features(), Err(FrontendError::Ended { during: message, end }));
        assert!(!frontend.is_alive());
    }
    finish(frontend, thread);
    outcome
}

/// The front-end with somebody who looks at its messages.
fn seen(frontend: &mut Frontend) -> &mut Frontend {
    struct Anybody;

    impl Observer for Anybody {
        fn message(&self, _: Direction, _: &Header, _: &[u8], _: usize) {}
    }

    frontend.observe(Some(Arc::new(Anybody)));
    frontend
}

fn message(id: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    Bytes::new().raw(&wire::header(id, flags, size)).raw(payload).done()
}

fn number(value: u64) -> [u8; 8] {
    value.to_ne_bytes()
}

fn bytes_fault<T>(outcome: Result<T, FrontendError>) -> DecodeError {
    match outcome {
        Err(FrontendError::Bytes { fault, waiting_for: Some(_) }) => fault,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

fn peer_fault<T>(outcome: Result<T, FrontendError>) -> PeerMisbehaved {
    match outcome {
        Err(FrontendError::Peer { fault, waiting_for: Some(_) }) => fault,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_reply_to_something_else_ends_the_session() {
    let wrong = peer_fault(replied(message(17, REPLY, &number(0)), 0, Frontend::get_status));
    let PeerMisbehaved::WrongReply { expected, found } = wrong else { panic!("{wrong}") };
    assert_eq!((expected.id, found.id), (40, 17));
    let no_reply = bytes_fault(replied(message(40, 1, &number(0)), 0, Frontend::get_status));
    assert!(matches!(no_reply, DecodeError::RequestInsteadOfReply { .. }), "{no_reply}");
    let status = peer_fault(replied(message(40, REPLY, &number(256)), 0, Frontend::get_status));
    let found = Violation::Status { found: 256 };
    assert!(matches!(status, PeerMisbehaved::Violation { violation, .. } if violation == found), "{status}");
    let ring = [2_u32, 0].map(u32::to_ne_bytes).concat();
    let ring = peer_fault(replied(message(11, REPLY, &ring), 0, |f| f.get_vring_base(1)));
    assert!(matches!(ring, PeerMisbehaved::WrongRing { expected: 1, found: 2, .. }), "{ring}");
}

#[test]
fn a_reply_of_another_version_or_size_ends_the_session() {
    let version = bytes_fault(replied(message(1, 0x6, &number(0)), 0, Frontend::get_features));
    assert!(matches!(version, DecodeError::Version { found: 2, .. }), "{version}");
    let huge = wire::header(1, REPLY, u32::MAX).to_vec();
    let huge = bytes_fault(replied(huge, 0, Frontend::get_features));
    assert!(matches!(huge, DecodeError::PayloadTooLarge { found: u32::MAX, .. }), "{huge}");
    for size in [0, 4, 7, 9, 16] {
        let short = bytes_fault(replied(message(1, REPLY, &vec![0; size]), 0, Frontend::get_features));
        assert!(matches!(short, DecodeError::Payload { .. }), "{size}: {short}");
        let short = bytes_fault(replied(message(3, REPLY, &vec![0; size]), 0, Frontend::set_owner));
        assert!(matches!(short, DecodeError::Payload { .. }), "{size}: {short}");
    }
}

#[test]
fn descriptors_where_none_belong_and_none_where_one_belongs_end_the_session() {
    let surplus = |outcome| matches!(bytes_fault(outcome), DecodeError::HandleCount { found: 1.., .. });
    assert!(surplus(replied(message(1, REPLY, &number(0)), 1, |f| seen(f).get_features().map(drop))));
    assert!(surplus(replied(message(3, REPLY, &number(0)), 1, |f| seen(f).set_owner())));
    assert!(surplus(replied(message(28, REPLY, &[]), 2, |f| f.postcopy_advise().map(drop))));
    let pipe = std::io::pipe().unwrap().0;
    let save =
        |f: &mut Frontend| f.set_device_state_fd(vhost_std::frontend::TransferDirection::Save, pipe.as_fd()).map(drop);
    assert!(surplus(replied(message(42, REPLY, &number(0x100)), 1, save)));
    let missing = |outcome| matches!(bytes_fault(outcome), DecodeError::HandleCount { found: 0, .. });
    assert!(missing(replied(message(42, REPLY, &number(0)), 0, save)));
    let record = wire::frontend_request("GET_INFLIGHT_FD").answers()[0].payload.clone();
    assert!(missing(replied(message(31, REPLY, &record), 0, |f| f.get_inflight_fd(2, 256).map(drop))));
    // As many as a socket passes at once are all closed; the test of leaks counts them.
    let many = replied(message(1, REPLY, &number(0)), 9, |f| seen(f).get_features()).unwrap_err();
    assert!(matches!(many, FrontendError::Socket { .. }), "{many}");
}

#[test]
fn descriptors_that_belong_to_no_answer_are_closed_if_nobody_looks() {
    // The test of leaks counts them.
    for count in [1, 9] {
        assert_eq!(replied(message(1, REPLY, &number(5)), count, Frontend::get_features).map(|f| f.bits()), Ok(5));
        assert_eq!(replied(message(3, REPLY, &number(0)), count, Frontend::set_owner), Ok(()));
    }
}

#[test]
fn descriptors_that_belong_to_no_answer_are_found_if_a_channel_is_served_meanwhile() {
    let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, |backend: FakeBackend| {
        backend.serve(21);
        backend.receive();
        backend.send(&message(1, REPLY, &number(0)), &[memory(1).as_fd()]);
        drop(backend.try_receive());
    });
    let channel = frontend.set_backend_req_fd().unwrap();
    frontend.attach(channel, crate::channel::Nothing);
    let fault = bytes_fault(frontend.get_features());
    assert!(matches!(fault, DecodeError::HandleCount { found: 1, .. }), "{fault}");
    finish(frontend, thread);
}

#[test]
fn a_reply_that_nobody_asked_for_is_found_between_calls() {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        backend.send(&message(1, REPLY, &number(0)), &[]);
        drop(backend.try_receive());
    });
    let mut outcome = frontend.process();
    while outcome.is_ok() {
        outcome = frontend.process();
    }
    let fault = PeerMisbehaved::UnsolicitedReply { message: vhost_core::FrontendCode(1).message() };
    assert_eq!(outcome, Err(FrontendError::Peer { waiting_for: None, fault }));
    assert_eq!(frontend.process(), Err(FrontendError::Ended { during: None, end: SessionEnd::Peer }));
    finish(frontend, thread);
}

#[test]
fn replies_that_real_back_ends_give_are_taken() {
    // qemu-storage-daemon repeats the flag that asks for a reply; DPDK repeats reserved bits.
    for flags in [0xd, 0x15] {
        assert_eq!(replied(message(1, flags, &number(5)), 0, Frontend::get_features).unwrap().bits(), 5);
        replied(message(3, flags, &number(0)), 0, Frontend::set_owner).unwrap();
    }
    // rust-vmm, libvhost-user and DPDK; none of the numbers is a refusal.
    for payload in [vec![0xff; 16], number(0x1000).to_vec(), Vec::new()] {
        let file = memory(4096);
        replied(message(6, REPLY, &payload), 0, |f| f.set_log_base(&Log::new(8, 0), file.as_fd())).unwrap();
    }
    // SPDK gives 256 bytes whatever was asked for, others fewer than that.
    let config = |count: u32, bytes: usize| {
        let head = [0, count, 0].map(u32::to_ne_bytes).concat();
        let body = Vec::from_iter((1..=u8::MAX).chain([0]).take(bytes));
        message(24, REPLY, &[head, body].concat())
    };
    for (count, bytes, expected) in [(256, 256, 8), (8, 8, 8), (4, 4, 4), (8, 3, 3)] {
        let mut data = [0xee; 8];
        assert_eq!(replied(config(count, bytes), 0, |f| f.get_config(0, &mut data, 0)), Ok(expected));
        assert_eq!(data[..expected], [1, 2, 3, 4, 5, 6, 7, 8][..expected]);
        assert!(data[expected..].iter().all(|byte| *byte == 0xee), "the rest is as it was");
    }
    // crosvm sends as many sizes as it has.
    let sizes = Bytes::new().u32(1).padding(4).u64(0).u64(0x4000).done();
    let sizes = replied(message(44, REPLY, &sizes), 0, Frontend::get_shmem_config).unwrap();
    assert_eq!((sizes[0], sizes[1], sizes[2]), (0, 0x4000, 0));
    // A size of zero with a file is nothing to track.
    let nothing = Bytes::new().u64(0).u64(0).u16(2).u16(256).padding(4).done();
    assert!(replied(message(31, REPLY, &nothing), 1, |f| f.get_inflight_fd(2, 256)).unwrap().is_none());
}

#[test]
fn descriptors_of_a_reply_are_the_callers() {
    let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, |backend: FakeBackend| {
        let answer = |request: &Received, payload: &[u8], size| {
            backend.reply(request, payload, &[memory(size).as_fd()]);
        };
        answer(&backend.receive(), &[], 1000);
        answer(&backend.receive(), &wire::frontend_request("GET_INFLIGHT_FD").answers()[0].payload, 2000);
        answer(&backend.receive(), &[], 3000);
        answer(&backend.receive(), &number(0), 4000);
    });
    let pipe = std::io::pipe().unwrap().0;
    let uuid = vhost_core::wire::shared::Uuid::new([1; 16]);
    let direction = vhost_std::frontend::TransferDirection::Save;
    let files = [
        frontend.postcopy_advise().unwrap(),
        frontend.get_inflight_fd(2, 256).unwrap().unwrap().1,
        frontend.get_shared_object(uuid).unwrap(),
        frontend.set_device_state_fd(direction, pipe.as_fd()).unwrap().unwrap(),
    ];
    let sizes = files.map(|file| std::fs::File::from(file).metadata().unwrap().len());
    assert_eq!(sizes, [1000, 2000, 3000, 4000]);
    finish(frontend, thread);
}

#[test]
fn a_reply_may_come_in_pieces_of_any_size() {
    let reply = message(1, REPLY, &number(0x1234));
    for cut in 1..reply.len() {
        for serve in [false, true] {
            let reply = reply.clone();
            let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, move |backend: FakeBackend| {
                if serve {
                    backend.serve(21);
                }
                backend.receive();
                backend.send_cut(&reply, &[cut], &[]);
                drop(backend.try_receive());
            });
            if serve {
                // With a channel to serve, the wait is another one.
                let channel = frontend.set_backend_req_fd().unwrap();
                frontend.attach(channel, crate::channel::Nothing);
            }
            assert_eq!(frontend.get_features().unwrap().bits(), 0x1234, "cut at {cut}");
            finish(frontend, thread);
        }
    }
}

#[test]
fn every_call_is_named_in_its_error() {
    let error = replied(message(17, REPLY, &number(0)), 0, Frontend::get_status).unwrap_err();
    let MessageName { id, .. } = error.request().unwrap();
    assert_eq!(id, 40);
    let text = error.to_string();
    assert!(text.contains("GET_STATUS (40)") && text.contains("GET_QUEUE_NUM (17)"), "{text}");
}
