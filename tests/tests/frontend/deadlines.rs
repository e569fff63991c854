//! A silent back-end holds up no call for longer than its limit.

use core::time::Duration;
use std::sync::mpsc::channel;
use std::time::Instant;

use vhost_core::FrontendCode;
use vhost_std::deadline::Deadline;
use vhost_std::frontend::{Confirmation, Frontend, FrontendError, SessionEnd};
use vhost_tests::dialog::{FakeBackend, PATIENCE};
use vhost_tests::wire::{self, REPLY, feature};

use crate::channel::Nothing;
use crate::script::{agreed, finish, scripted};

/// Long enough to be seen not to be zero, and what the tests wait for where nothing comes.
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_silent_back_end_ends_the_session_when_the_time_is_over() {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| drop((backend.receive(), backend.try_receive())));
    frontend.set_timeout(Some(SHORT));
    let start = Instant::now();
    let late = FrontendError::TimedOut { waiting_for: FrontendCode::GET_FEATURES.message() };
    assert_eq!(frontend.get_features(), Err(late));
    assert!(start.elapsed() >= SHORT);
    assert!(late.to_string().contains("GET_FEATURES (1)"), "{late}");
    let ended = FrontendError::Ended { during: late.request(), end: SessionEnd::TimedOut };
    frontend.set_timeout(None);
    assert_eq!(frontend.set_owner(), Err(ended), "its answer may still come");
    finish(frontend, thread);
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_another() {
    let (late, wait) = channel::<()>();
    let (answered, is_answered) = channel::<()>();
    let (mut frontend, thread) = scripted(move |backend: FakeBackend| {
        let request = backend.receive();
        wait.recv().unwrap_err();
        backend.answer(&request);
        drop(answered);
        drop(backend.try_receive());
    });
    assert!(frontend.with_deadline(Deadline::after(Duration::ZERO)).get_features().is_err());
    drop(late);
    is_answered.recv().unwrap_err();
    let ended = frontend.get_features().unwrap_err();
    assert!(matches!(ended, FrontendError::Ended { end: SessionEnd::TimedOut, .. }), "{ended}");
    finish(frontend, thread);
}

#[test]
fn half_an_answer_is_no_answer() {
    for (length, serve) in [(5, false), (12, false), (19, false), (5, true), (19, true)] {
        let (said, is_said) = channel::<()>();
        let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, move |backend: FakeBackend| {
            if serve {
                backend.serve(21);
            }
            // Before it is asked, so that it is certainly there in time.
            backend.send(&wire::frontend_request("GET_FEATURES").reply()[..length], &[]);
            drop(said);
            backend.receive();
            drop(backend.try_receive());
        });
        if serve {
            let channel = frontend.set_backend_req_fd().unwrap();
            frontend.attach(channel, Nothing);
        }
        is_said.recv().unwrap_err();
        frontend.set_timeout(Some(SHORT));
        assert_eq!(frontend.get_features().unwrap_err().ends_session(), Some(SessionEnd::TimedOut));
        finish(frontend, thread);
    }
}

#[test]
fn a_barrier_counts_for_the_call() {
    let (mut frontend, thread) = agreed(0, |backend: FakeBackend| {
        backend.receive();
        backend.receive();
        drop(backend.try_receive());
    });
    frontend.set_confirmation(Confirmation::Barrier);
    frontend.set_timeout(Some(SHORT));
    let waiting_for = FrontendCode::SET_VRING_NUM.message();
    assert_eq!(frontend.set_vring_num(0, 256), Err(FrontendError::TimedOut { waiting_for }));
    finish(frontend, thread);
}

#[test]
fn one_deadline_covers_several_calls_and_then_the_timeout_is_back() {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        for _ in 0..3 {
            backend.serve(1);
        }
    });
    let moment = Instant::now();
    let mut soon = frontend.with_deadline(Deadline::after(PATIENCE));
    soon.get_features().unwrap();
    // A guard within a guard.
    soon.with_deadline(Deadline::NEVER).get_features().unwrap();
    assert!(format!("{soon:?}").contains("Until"), "{soon:?}");
    drop(soon);
    assert!(format!("{frontend:?}").contains("Each"), "{frontend:?}");
    frontend.get_features().unwrap();
    // A moment that has passed takes what is there and waits for nothing.
    let late = frontend.with_deadline(Deadline::at(moment)).get_features().unwrap_err();
    assert!(late.ends_session().is_some());
    finish(frontend, thread);
}

#[test]
fn a_back_end_that_does_not_read_holds_up_no_sender() {
    let (done, wait) = channel::<()>();
    let (mut frontend, thread) = scripted(move |backend: FakeBackend| {
        wait.recv().unwrap_err();
        drop(backend);
    });
    frontend.set_confirmation(Confirmation::None);
    frontend.set_timeout(Some(SHORT));
    let error = (0..1_000_000).find_map(|_| frontend.set_owner().err()).unwrap();
    assert_eq!(error, FrontendError::TimedOut { waiting_for: FrontendCode::SET_OWNER.message() });
    assert_eq!(frontend.set_owner().unwrap_err().ends_session(), Some(SessionEnd::TimedOut));
    drop(done);
    finish(frontend, thread);
}

#[test]
fn calls_without_a_limit_wait() {
    let (go, wait) = channel::<()>();
    let (mut frontend, thread) = scripted(move |backend: FakeBackend| {
        let request = backend.receive();
        wait.recv().unwrap_err();
        backend.answer(&request);
    });
    frontend.set_timeout(None);
    let waiting = std::thread::spawn(move || {
        let features = frontend.get_features();
        (frontend, features)
    });
    drop(go);
    let (frontend, features) = waiting.join().unwrap();
    assert_eq!(features.unwrap().bits(), feature::OFFERED);
    finish(frontend, thread);
}

#[test]
fn a_front_end_moves_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Frontend>();
    is_send::<vhost_std::frontend::BackendChannel>();
    assert_eq!(wire::header(1, REPLY, 0).len(), 12);
}
