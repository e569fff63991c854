//! Devices are started with many requests under way at a time, and one by one for those who want it.

use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd};

use vhost_core::{FrontendCode, MemoryRegion, ProtocolFeatures, VirtioFeatures};
use vhost_std::frontend::{Confirmation, DeviceSetup, Frontend, FrontendError, Pacing, RingSetup};
use vhost_tests::dialog::{FakeBackend, Received, event, memory};
use vhost_tests::wire::{self, feature};

use crate::bring_up::{BASIC, after_negotiation, negotiated, region, ring, start};
use crate::script::{finish, scripted, until_closed};

/// A session with acknowledgements whose back-end goes on with `script` once features are agreed on.
fn then<T: Send + 'static>(
    script: impl FnOnce(FakeBackend) -> T + Send + 'static,
) -> (Frontend, std::thread::JoinHandle<T>) {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        let backend = backend.offering(BASIC, feature::REPLY_ACK);
        let (features, _) = backend.serve_until(2);
        backend.answer(&features);
        script(backend)
    });
    frontend.negotiate(VirtioFeatures::all(), ProtocolFeatures::KNOWN).unwrap();
    (frontend, thread)
}

/// All requests of a start of two rings, none of them answered.
fn whole_start(backend: &FakeBackend) -> Vec<Received> {
    let mut all = Vec::new();
    while all.iter().filter(|request: &&Received| request.id() == 18).count() < 2 {
        all.push(backend.receive());
    }
    all
}

fn start_one(frontend: &mut Frontend) -> Result<(), FrontendError> {
    let file = memory(0x10000);
    start(frontend, &[(region(0), file.as_fd())])
}

#[test]
fn a_start_waits_for_no_answer_before_everything_is_said() {
    let (mut frontend, thread) = then(|backend| {
        let requests = whole_start(&backend);
        requests.iter().for_each(|request| backend.answer(request));
        requests.len()
    });
    start_one(&mut frontend).unwrap();
    assert!(frontend.vring(0).is_running() && frontend.vring(1).is_running());
    assert_eq!(finish(frontend, thread), 14);
}

#[test]
fn answers_that_were_read_together_are_not_waited_for_again() {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        let backend = backend.offering(BASIC, feature::REPLY_ACK | feature::BACKEND_REQ);
        let (opened, _) = backend.serve_until(21);
        backend.answer(&opened);
        let answers = whole_start(&backend)
            .into_iter()
            .flat_map(|request| [&wire::header(request.id(), wire::REPLY, 8)[..], &[0; 8]].concat());
        backend.send(&Vec::from_iter(answers), &[]);
        // Until the front-end goes: an end would end the wait too.
        backend.try_receive().unwrap().is_none()
    });
    frontend.negotiate(VirtioFeatures::all(), ProtocolFeatures::KNOWN).unwrap();
    // With a channel to serve, it waits before it looks.
    let channel = frontend.set_backend_req_fd().unwrap();
    frontend.attach(channel, crate::channel::Nothing);
    start_one(&mut frontend).unwrap();
    assert!(finish(frontend, thread), "nothing else was said");
}

#[test]
fn one_by_one_means_that_the_first_answer_is_waited_for() {
    let (mut frontend, thread) = then(|backend| {
        let first = backend.receive();
        (first.id(), backend.try_receive().unwrap().is_none())
    });
    frontend.set_pacing(Pacing::OneByOne);
    frontend.set_timeout(Some(Duration::from_millis(20)));
    let waiting_for = FrontendCode::SET_VRING_CALL.message();
    assert_eq!(start_one(&mut frontend), Err(FrontendError::TimedOut { waiting_for }));
    assert_eq!(finish(frontend, thread), (13, true), "nothing else was said");
}

#[test]
fn the_first_refusal_decides_and_the_session_goes_on() {
    let (mut frontend, thread) = then(|backend| {
        for request in whole_start(&backend) {
            // Two are refused: the memory and a ring.
            backend.acknowledge(
                &request,
                match request.id() {
                    5 => 0x55,
                    12 => 0xcc,
                    _ => 0,
                },
            );
        }
        until_closed(&backend, |request| backend.answer(request))
    });
    let FrontendError::Refused { request, number } = start_one(&mut frontend).unwrap_err() else {
        panic!("not refused")
    };
    assert_eq!((request.id, number.get()), (5, 0x55));
    assert!(!frontend.vring(0).is_started() && frontend.vring(0).is_enabled());
    start_one(&mut frontend).unwrap();
    assert!(frontend.vring(0).is_running());
    finish(frontend, thread);
}

#[test]
fn an_end_is_blamed_on_the_first_request_without_an_answer() {
    for refused in [false, true] {
        let (mut frontend, thread) = then(move |backend| {
            let requests = whole_start(&backend);
            for request in requests.iter().take_while(|request| request.id() != 8) {
                let number = u64::from(refused && request.id() == 5);
                backend.acknowledge(request, number);
            }
        });
        match start_one(&mut frontend).unwrap_err() {
            FrontendError::Closed(closed) if !refused => {
                assert_eq!(closed.waiting_for, Some(FrontendCode::SET_VRING_NUM.message()));
                assert_eq!(closed.previous, Some(FrontendCode::SET_MEM_TABLE.message()));
            }
            // A back-end that refuses and then goes has gone because of that.
            FrontendError::Refused { request, .. } if refused => assert_eq!(request.id, 5),
            other => panic!("{other}"),
        }
        let later = frontend.get_features().unwrap_err();
        assert!(matches!(later, FrontendError::Ended { .. }), "{later}");
        finish(frontend, thread);
    }
}

#[test]
fn a_device_of_the_most_rings_is_started() {
    let (mut frontend, thread) = then(|backend| {
        let requests = until_closed(&backend, |request| backend.answer(request));
        Vec::from_iter(requests.iter().map(Received::id))
    });
    let (file, kick) = (memory(0x10000), event());
    let rings = Vec::from_iter((0..=u8::MAX).map(|index| ring(index, Some(kick.as_fd()))));
    let regions: [(MemoryRegion, BorrowedFd<'_>); 1] = [(region(0), file.as_fd())];
    bring_up(&mut frontend, &regions, &rings).unwrap();
    assert!((0..=u8::MAX).all(|ring| frontend.vring(ring).is_running()));
    let stopped = frontend.tear_down().unwrap();
    assert_eq!(stopped.len(), 256);
    let requests = finish(frontend, thread);
    let enables = requests.iter().filter(|id| **id == 18).count();
    assert_eq!((requests.len(), enables), (1 + 1 + 256 * (1 + 4 + 1 + 1 + 1), 512));
}

fn bring_up(
    frontend: &mut Frontend,
    memory: &[(MemoryRegion, BorrowedFd<'_>)],
    rings: &[RingSetup<'_>],
) -> Result<(), FrontendError> {
    frontend.bring_up(&DeviceSetup { memory, rings, inflight: None })
}

#[test]
fn memory_at_the_same_place_is_taken_away_before_it_is_brought() {
    let (mut frontend, thread) = negotiated(BASIC, feature::CONFIGURE_MEM_SLOTS | feature::REPLY_ACK);
    start_one(&mut frontend).unwrap();
    frontend.tear_down().unwrap();
    start_one(&mut frontend).unwrap();
    let names = after_negotiation(&finish(frontend, thread));
    let about_memory = names.iter().filter(|name| name.ends_with("_MEM_REG"));
    assert_eq!(Vec::from_iter(about_memory), ["ADD_MEM_REG", "REM_MEM_REG", "ADD_MEM_REG"]);
}

#[test]
fn without_acknowledgements_one_barrier_is_enough() {
    let (mut frontend, thread) = negotiated(BASIC, 0);
    frontend.set_confirmation(Confirmation::Barrier);
    start_one(&mut frontend).unwrap();
    let names = after_negotiation(&finish(frontend, thread));
    assert_eq!(names.iter().filter(|name| *name == "GET_FEATURES").count(), 1);
    assert!(names.ends_with(&["SET_VRING_ENABLE".to_owned(), "GET_FEATURES".to_owned()]), "{names:?}");
}
