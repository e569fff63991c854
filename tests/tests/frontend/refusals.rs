//! A refusal is an error of one call and not the end: whatever way it is told in.

use std::os::fd::AsFd;

use vhost_core::wire::crypto::CryptoSession;
use vhost_core::wire::shared::Uuid;
use vhost_core::{ApiMisuse, FrontendCode, MemoryFault, Violation, VirtioFeatures};
use vhost_std::frontend::{Enabled, Frontend, FrontendError, TransferDirection};
use vhost_tests::dialog::{descriptors_for, memory};
use vhost_tests::wire::{self, Fixture, Reply, feature};

use crate::calls::{call, prepare, region};
use crate::requests::{answer, protocol_of, sent_forms};
use crate::script::{agreed, finish, until_closed};

/// The request's refusal.
fn refused(outcome: Result<(), FrontendError>, fixture: &Fixture) -> u64 {
    match outcome.unwrap_err() {
        FrontendError::Refused { request, number } => {
            assert_eq!(request.id, fixture.id);
            number.get()
        }
        other => panic!("{}: {other}", fixture.name),
    }
}

#[test]
fn every_acknowledged_request_can_be_refused_and_the_session_goes_on() {
    let mut count = 0;
    for fixture in sent_forms().into_iter().filter(|fixture| matches!(fixture.reply, Reply::Acknowledgement)) {
        // Never acknowledged, so never refused.
        if fixture.name == "SET_PROTOCOL_FEATURES" {
            continue;
        }
        count += 1;
        let theirs = fixture.clone();
        let (mut frontend, thread) = agreed(protocol_of(&fixture), move |backend| {
            until_closed(&backend, |request| {
                if request.id() == theirs.id {
                    backend.acknowledge(request, 0x7_0000_0001);
                } else {
                    answer(&backend, request, &theirs);
                }
            })
        });
        prepare(&mut frontend, &fixture);
        let outcome = call(&mut frontend, &fixture, &descriptors_for(&fixture));
        assert_eq!(refused(outcome, &fixture), 0x7_0000_0001);
        frontend.get_features().unwrap();
        assert!(frontend.is_alive());
        finish(frontend, thread);
    }
    assert!(count > 30, "only {count}");
}

/// Answers the request of this name as its fixture's answer of this form says, and gives what `call` makes of it.
fn outcome<T>(
    name: &'static str,
    form: &str,
    call: impl FnOnce(&mut Frontend) -> Result<T, FrontendError>,
) -> Result<T, FrontendError> {
    let fixture = wire::frontend_request(name);
    let reply = fixture.answers().iter().find(|answer| answer.form == form).unwrap().payload.clone();
    let protocol = protocol_of(&fixture);
    let (mut frontend, thread) = agreed(protocol, move |backend| {
        let request = backend.receive();
        assert_eq!(request.id(), fixture.id);
        backend.reply(&request, &reply, &[]);
        backend.serve(1);
    });
    let outcome = call(&mut frontend);
    frontend.get_features().expect("the session goes on");
    finish(frontend, thread);
    outcome
}

fn number<T>(outcome: Result<T, FrontendError>) -> u64 {
    match outcome {
        Err(FrontendError::Refused { number, .. }) => number.get(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn refusals_that_hide_in_a_reply_are_found() {
    let session = CryptoSession::new(0x0302, [0; 1056], 0);
    let uuid = Uuid::new([7; 16]);
    let (pipe, _) = std::io::pipe().unwrap();
    assert_eq!(number(outcome("GET_CONFIG", "refused", |f| f.get_config(0x14, &mut [0; 8], 0))), 1);
    assert_eq!(number(outcome("POSTCOPY_ADVISE", "refused", Frontend::postcopy_advise)), 1);
    assert_eq!(number(outcome("POSTCOPY_END", "refused", Frontend::postcopy_end)), 1);
    assert_eq!(number(outcome("GET_SHARED_OBJECT", "not found", |f| f.get_shared_object(uuid))), 1);
    let load = |f: &mut Frontend| f.set_device_state_fd(TransferDirection::Load, pipe.as_fd());
    assert_eq!(number(outcome("SET_DEVICE_STATE_FD", "refused", load)), 1);
    assert_eq!(number(outcome("CHECK_DEVICE_STATE", "unsound", Frontend::check_device_state)), 1);
    let crypto = outcome("CREATE_CRYPTO_SESSION", "refused", |f| f.create_crypto_session(&session));
    assert_eq!(number(crypto), u64::MAX);
    let nothing = outcome("GET_INFLIGHT_FD", "nothing to track", |f| f.get_inflight_fd(2, 256));
    assert!(nothing.unwrap().is_none(), "that is no refusal");
}

#[test]
fn what_is_refused_has_not_happened() {
    let (mut frontend, thread) = agreed(feature::REPLY_ACK, |backend| {
        let enable = backend.receive();
        backend.acknowledge(&enable, 1);
        let kick = backend.receive();
        backend.acknowledge(&kick, 1);
        backend.serve(18);
    });
    number(frontend.set_vring_enable(3, Enabled::Yes));
    number(frontend.set_vring_kick(3, None));
    assert!(!frontend.vring(3).is_enabled() && !frontend.vring(3).is_started());
    frontend.set_vring_enable(3, Enabled::Yes).unwrap();
    assert!(frontend.vring(3).is_enabled());
    finish(frontend, thread);
}

#[test]
fn misuse_sends_nothing_and_changes_nothing() {
    let (mut frontend, thread) = agreed(feature::CONFIG, |backend| {
        // The first thing that comes is what is right.
        backend.serve(1);
    });
    let files = [memory(4096)];
    let usual = wire::frontend_request("SET_MEM_TABLE");
    let one = (region(wire::region::REGIONS[0], &usual), files[0].as_fd());
    let misuse = |outcome: Result<(), FrontendError>| match outcome.unwrap_err() {
        FrontendError::Misuse(misuse) => misuse,
        other => panic!("{other}"),
    };
    let violation = |outcome| match misuse(outcome) {
        ApiMisuse::Violation { violation, .. } => violation,
        other => panic!("{other}"),
    };
    let nine = [one; 9];
    let too_many = frontend.set_mem_table(&nine).unwrap_err();
    assert_eq!(too_many, FrontendError::TooManyRegions { found: 9, limit: 8 });
    let overlap = violation(frontend.set_mem_table(&[one, one]).map(drop));
    assert!(matches!(overlap, Violation::Memory(MemoryFault::Overlap { .. })), "{overlap}");
    let unoffered = violation(frontend.set_features(VirtioFeatures::all()));
    assert!(matches!(unoffered, Violation::FeaturesNotOffered { .. }), "{unoffered}");
    let gated = violation(frontend.get_queue_num().map(drop));
    assert!(matches!(gated, Violation::NotNegotiated { .. }), "{gated}");
    let size = violation(frontend.set_vring_num(0, 0));
    assert!(matches!(size, Violation::RingSize { found: 0, .. }), "{size}");
    let long = misuse(frontend.get_config(0, &mut [0; 257], 0).map(drop));
    assert!(matches!(long, ApiMisuse::BufferTooSmall { .. }), "{long}");
    let long = misuse(frontend.set_config(0, &[0; 257], 0));
    assert!(matches!(long, ApiMisuse::BufferTooSmall { .. }), "{long}");
    let without_log = misuse(frontend.set_log_base(&vhost_core::wire::log::Log::new(8, 0), files[0].as_fd()));
    assert!(matches!(without_log, ApiMisuse::HandleCount { found: 1, .. }), "{without_log}");
    let early = violation(frontend.acknowledge_postcopy_memory(FrontendCode::SET_MEM_TABLE));
    assert!(matches!(early, Violation::PostcopyOrder { .. }), "{early}");
    frontend.get_features().unwrap();
    finish(frontend, thread);
}
