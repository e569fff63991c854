//! Connections that end, and who is to blame.

use vhost_core::{FrontendCode, MessageName};
use vhost_std::frontend::{Closed, Confirmation, Frontend, FrontendError, SessionEnd};
use vhost_tests::dialog::FakeBackend;
use vhost_tests::wire::{self, REPLY, feature};

use crate::script::{agreed, finish, scripted};

fn closed<T: core::fmt::Debug>(outcome: Result<T, FrontendError>) -> Closed {
    match outcome.unwrap_err() {
        FrontendError::Closed(closed) => closed,
        other => panic!("{other}"),
    }
}

fn name(code: FrontendCode) -> Option<MessageName> {
    Some(code.message())
}

fn assert_over(frontend: &mut Frontend, during: Option<MessageName>) {
    let ended = FrontendError::Ended { during, end: SessionEnd::Closed };
    assert_eq!(frontend.get_features(), Err(ended));
    assert_eq!(frontend.process(), Err(ended));
}

#[test]
fn r10_an_end_while_a_call_waits_names_the_call() {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        backend.serve(1);
        backend.receive();
    });
    frontend.get_features().unwrap();
    let end = closed(frontend.get_protocol_features());
    let (during, previous) = (name(FrontendCode::GET_PROTOCOL_FEATURES), name(FrontendCode::GET_FEATURES));
    assert_eq!((end.waiting_for, end.previous, end.within_message), (during, previous, false));
    assert_over(&mut frontend, during);
    finish(frontend, thread);
}

#[test]
fn an_end_within_a_reply_is_told_apart() {
    for cut in 1..20 {
        let (mut frontend, thread) = scripted(move |backend: FakeBackend| {
            backend.receive();
            backend.send(&wire::frontend_request("GET_FEATURES").reply()[..cut], &[]);
        });
        let end = closed(frontend.get_features());
        assert!(end.within_message, "after {cut} bytes");
        finish(frontend, thread);
    }
}

#[test]
fn a_back_end_that_does_not_even_read_is_an_end_too() {
    let (mut frontend, thread) = scripted(drop);
    thread.join().unwrap();
    let end = closed(frontend.get_features());
    assert_eq!((end.waiting_for, end.previous), (name(FrontendCode::GET_FEATURES), None));
    assert_over(&mut frontend, name(FrontendCode::GET_FEATURES));
}

#[test]
fn a_back_end_that_leaves_a_request_unread_is_an_end_and_not_a_fault_of_the_socket() {
    // Its end is reset instead of closed.
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        use std::io::Read as _;
        // The first byte says that the request is there; the others are left.
        backend.stream().read_exact(&mut [0]).unwrap();
    });
    closed(frontend.get_features());
    finish(frontend, thread);
}

#[test]
fn an_end_after_a_successful_acknowledgement_is_blamed_on_that_request() {
    // libvhost-user acknowledges with 0 and closes.
    let (mut frontend, thread) = agreed(feature::REPLY_ACK, |backend: FakeBackend| {
        let request = backend.receive();
        assert_eq!(request.id(), 8);
        backend.acknowledge(&request, 0);
    });
    frontend.set_vring_num(0, 256).unwrap();
    let end = closed(frontend.set_owner());
    assert_eq!((end.waiting_for, end.previous), (name(FrontendCode::SET_OWNER), name(FrontendCode::SET_VRING_NUM)));
    finish(frontend, thread);
}

#[test]
fn an_end_after_a_refusal_does_not_hide_the_refusal() {
    // rust-vmm's back-ends acknowledge with 1 and close.
    let (mut frontend, thread) = agreed(feature::REPLY_ACK, |backend: FakeBackend| {
        let request = backend.receive();
        backend.acknowledge(&request, 1);
    });
    let refused = frontend.set_vring_num(0, 256).unwrap_err();
    assert!(matches!(refused, FrontendError::Refused { .. }), "{refused}");
    closed(frontend.set_owner());
    finish(frontend, thread);
}

#[test]
fn a_barrier_tells_which_request_the_back_end_closed_for() {
    for confirmation in [Confirmation::Barrier, Confirmation::Acknowledgement, Confirmation::None] {
        let (mut frontend, thread) = agreed(0, |backend: FakeBackend| {
            let request = backend.receive();
            assert_eq!((request.id(), request.header().needs_reply()), (8, false));
        });
        frontend.set_confirmation(confirmation);
        let outcome = frontend.set_vring_num(0, 256);
        let during = name(FrontendCode::SET_VRING_NUM);
        if confirmation == Confirmation::Barrier {
            assert_eq!(closed(outcome).waiting_for, during);
            assert_over(&mut frontend, during);
        } else {
            outcome.unwrap();
            let end = closed(frontend.get_features());
            assert_eq!((end.waiting_for, end.previous), (name(FrontendCode::GET_FEATURES), during));
        }
        finish(frontend, thread);
    }
}

#[test]
fn between_calls_an_end_is_found_by_looking() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let (mut frontend, thread) = scripted(move |backend: FakeBackend| {
        backend.serve(1);
        receiver.recv().unwrap_err();
    });
    frontend.get_features().unwrap();
    frontend.process().expect("all is well");
    drop(sender);
    thread.join().unwrap();
    let end = closed(frontend.process());
    assert_eq!((end.waiting_for, end.previous), (None, name(FrontendCode::GET_FEATURES)));
    assert_over(&mut frontend, None);
}

#[test]
fn an_end_with_a_header_alone_is_within_a_message() {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        backend.send(&wire::header(1, REPLY, 8), &[]);
    });
    thread.join().unwrap();
    assert!(closed(frontend.process()).within_message);
}
