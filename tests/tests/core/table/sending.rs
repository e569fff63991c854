//! Every request in every situation from the side that sends it: what may not be sent is refused and changes nothing, what
//! may be sent has the bytes of its fixture, with the flag only where an answer is wanted and none comes anyway.

use super::missing;
use crate::machines::{Back, Front, Packet, buffer, frame, protocol_features};
use crate::stage::{Rings, Stage, say};
use std::collections::BTreeMap;
use vhost_core::wire::memory::{MemoryRegion, MemoryTable};
use vhost_core::wire::row::HandleCount;
use vhost_core::{
    ApiMisuse, BackendCode, BackendRequest, Delivery, Form, FrontendCode, FrontendReply, FrontendRequest, Handles,
    Violation,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::region::REGIONS;
use vhost_tests::wire::{self, Fixture, REQUEST, REQUEST_NEEDING_REPLY, Reply, feature};

const DELIVERIES: [Delivery; 2] = [Delivery::Acknowledged, Delivery::Unacknowledged];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Sent,
    NotNegotiated,
    Running,
    NoChannel,
}

fn stages(fixture: &Fixture) -> impl Iterator<Item = (Stage, bool)> {
    let stages = missing::stages(fixture).into_iter();
    let stages = stages.flat_map(|(stage, is_gated)| [(stage, is_gated), (stage.acknowledging(), is_gated)]);
    stages.flat_map(|(stage, is_gated)| Rings::ALL.map(|rings| (stage.rings(rings), is_gated)))
}

/// Forms that our types can send as they are, without the history of a postcopy migration.
fn is_ours(fixture: &Fixture) -> bool {
    let others = ["20 bytes", "one descriptor too many"];
    !fixture.form.starts_with("postcopy") && !others.contains(&fixture.form)
}

#[test]
fn a_frontend_sends_what_it_may_and_nothing_else() {
    let ledger = Ledger::new();
    let mut outcomes = BTreeMap::new();
    for fixture in wire::all_frontend_forms().iter().filter(|fixture| is_ours(fixture)) {
        for (stage, is_gated) in stages(fixture) {
            let front = prepared(fixture, stage, &ledger);
            for delivery in DELIVERIES {
                let outcome = frontend_sends(fixture, stage, is_gated, front.clone(), delivery, &ledger);
                *outcomes.entry(outcome).or_insert(0) += 1;
            }
        }
    }
    let counts = [(Outcome::Sent, 1088), (Outcome::NotNegotiated, 576), (Outcome::Running, 16)];
    assert_eq!(outcomes, BTreeMap::from(counts));
    ledger.assert_settled();
}

fn frontend_sends(
    fixture: &Fixture,
    stage: Stage,
    is_gated: bool,
    mut front: Front,
    delivery: Delivery,
    ledger: &Ledger,
) -> Outcome {
    let title = format!("{} ({}): {delivery:?}, gate closed {is_gated}, {stage:x?}", fixture.name, fixture.form);
    let before = front.clone();
    let code = FrontendCode(fixture.id);
    let bytes = fixture.request();
    // As the request would be written if it could be sent.
    let form = Form::request(protocol_features(fixture.gate.protocol));
    let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
    let needs_stopped = ["SET_VRING_NUM", "SET_VRING_BASE", "SET_INFLIGHT_FD"].contains(&fixture.name);
    // A back-end lets this pass, but there is nothing to ask for.
    let is_needless = fixture.name == "GET_QUEUE_NUM" && stage.protocol & feature::MQ == 0;
    let mut out = buffer();
    let message = code.message();
    match front.request(request, delivery, &mut out) {
        Ok(transmit) => {
            let runs = needs_stopped && stage.rings == Rings::RUNNING;
            assert!(!is_gated && !is_needless && !runs, "{title}");
            let flagged = is_flagged(fixture, stage, delivery);
            let Packet { bytes, handles } = Packet::from_transmit(transmit);
            let expected = fixture.message(if flagged { REQUEST_NEEDING_REPLY } else { REQUEST });
            assert_eq!((bytes, handles.len()), (expected, fixture.descriptors), "{title}");
            let answered = flagged || matches!(fixture.reply, Reply::Own(_));
            assert_eq!(front.outstanding(), usize::from(answered), "{title}");
            Outcome::Sent
        }
        Err(misuse) => {
            assert_eq!(front, before, "{title}");
            if is_gated || is_needless {
                let violation = Violation::NotNegotiated { gate: code.row().unwrap().gate };
                assert_eq!(misuse, ApiMisuse::Violation { message, violation }, "{title}");
                return Outcome::NotNegotiated;
            }
            assert!(needs_stopped && stage.rings == Rings::RUNNING, "{misuse}: {title}");
            let ring = if fixture.name == "SET_INFLIGHT_FD" { 0 } else { 1 };
            assert_eq!(misuse, ApiMisuse::Violation { message, violation: Violation::RingRunning { ring } }, "{title}");
            Outcome::Running
        }
    }
}

/// A front-end in this stage, after what must come before the request.
fn prepared(fixture: &Fixture, stage: Stage, ledger: &Ledger) -> Front {
    let mut front = stage.front();
    let mut send = |name: &str, form: &str| {
        let before = wire::frontend_form(name, form);
        if stage.protocol & before.gate.protocol == before.gate.protocol {
            let bytes = before.request();
            let form = Form::request(front.session().negotiated().protocol);
            let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(before.descriptors)), form).unwrap();
            drop(front.request(request, Delivery::Unacknowledged, &mut buffer()).unwrap());
        }
    };
    match fixture.name {
        "REM_MEM_REG" => send("ADD_MEM_REG", if fixture.form == "xen" { "xen" } else { Fixture::USUAL }),
        "POSTCOPY_LISTEN" => send("POSTCOPY_ADVISE", Fixture::USUAL),
        _ => {}
    }
    if front.outstanding() > 0 {
        let reply = wire::frontend_request("POSTCOPY_ADVISE").reply();
        assert!(matches!(
            front.handle_reply(frame(&reply, ledger.tokens(1))),
            Ok(FrontendReply::PostcopyAdvise(Some(_)))
        ));
    }
    front
}

/// Whether the front-end asks for an acknowledgement.
fn is_flagged(fixture: &Fixture, stage: Stage, delivery: Delivery) -> bool {
    // QEMU flags these whatever was negotiated.
    let always = ["IOTLB_MSG", "POSTCOPY_LISTEN", "POSTCOPY_END"].contains(&fixture.name);
    let wanted = delivery == Delivery::Acknowledged && stage.protocol & feature::REPLY_ACK != 0;
    // rust-vmm answers this one, others do not.
    let unclear = fixture.name == "SET_PROTOCOL_FEATURES";
    always || wanted && !unclear && matches!(fixture.reply, Reply::Acknowledgement)
}

#[test]
fn a_backend_sends_what_it_may_and_nothing_else() {
    let ledger = Ledger::new();
    let mut outcomes = BTreeMap::new();
    for fixture in wire::all_backend_forms() {
        for (stage, is_gated) in stages(&fixture) {
            for (delivery, has_channel) in
                DELIVERIES.into_iter().flat_map(|delivery| [(delivery, false), (delivery, true)])
            {
                let mut back = stage.back();
                if has_channel && stage.protocol & feature::BACKEND_REQ != 0 {
                    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
                }
                let outcome = backend_sends(&fixture, stage, is_gated, back, delivery, &ledger);
                *outcomes.entry(outcome).or_insert(0) += 1;
            }
        }
    }
    let counts = [(Outcome::Sent, 208), (Outcome::NotNegotiated, 928), (Outcome::NoChannel, 208)];
    assert_eq!(outcomes, BTreeMap::from(counts));
    ledger.assert_settled();
}

fn backend_sends(
    fixture: &Fixture,
    stage: Stage,
    is_gated: bool,
    mut back: Back,
    delivery: Delivery,
    ledger: &Ledger,
) -> Outcome {
    let title = format!("{} ({}): {delivery:?}, gate closed {is_gated}, {stage:x?}", fixture.name, fixture.form);
    let before = back.clone();
    let code = BackendCode(fixture.id);
    let bytes = fixture.request();
    let form = Form::request(back.session().negotiated().protocol);
    let request = BackendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
    let mut out = buffer();
    let message = code.message();
    match back.request(request, delivery, &mut out) {
        Ok(transmit) => {
            assert!(!is_gated && before.session().has_backend_channel(), "{title}");
            let own = matches!(fixture.reply, Reply::Own(_));
            // Some front-ends answer a look-up only if it is flagged.
            let flagged = stage.protocol & feature::REPLY_ACK != 0 && (delivery == Delivery::Acknowledged || own);
            let Packet { bytes, handles } = Packet::from_transmit(transmit);
            let expected = fixture.message(if flagged { REQUEST_NEEDING_REPLY } else { REQUEST });
            assert_eq!((bytes, handles.len()), (expected, fixture.descriptors), "{title}");
            assert_eq!(back.outstanding(), usize::from(flagged || own), "{title}");
            assert_eq!(back.session(), before.session(), "{title}");
            Outcome::Sent
        }
        Err(misuse) => {
            assert_eq!(back, before, "{title}");
            let (violation, outcome) = if is_gated {
                (Violation::NotNegotiated { gate: code.row().unwrap().gate }, Outcome::NotNegotiated)
            } else {
                assert!(!before.session().has_backend_channel(), "{title}");
                (Violation::NoBackendChannel, Outcome::NoChannel)
            };
            assert_eq!(misuse, ApiMisuse::Violation { message, violation }, "{title}");
            outcome
        }
    }
}

/// Requests whose types let the caller give another number of descriptors than belongs to them.
fn with_wrong_descriptors<'r>(
    regions: &'r [MemoryRegion],
    ledger: &Ledger,
) -> Vec<(FrontendRequest<'r, Token>, usize, usize)> {
    use vhost_core::wire::log::{Log, LogBase};
    use vhost_core::wire::vring::VringDescriptor;
    let (with, without) = (VringDescriptor::with_descriptor(1), VringDescriptor::without_descriptor(1));
    let table = MemoryTable::new(regions);
    let tokens = |count| Handles::from_iter(ledger.tokens(count));
    vec![
        (FrontendRequest::SetVringKick(with, None), 1, 0),
        (FrontendRequest::SetVringKick(without, Some(ledger.token())), 0, 1),
        (FrontendRequest::SetVringCall(with, None), 1, 0),
        (FrontendRequest::SetVringCall(without, Some(ledger.token())), 0, 1),
        (FrontendRequest::SetVringErr(with, None), 1, 0),
        (FrontendRequest::SetVringErr(without, Some(ledger.token())), 0, 1),
        (FrontendRequest::SetLogBase(LogBase::Shared(Log::new(0x1000, 0)), None), 1, 0),
        (FrontendRequest::SetMemTable(table, tokens(0)), 2, 0),
        (FrontendRequest::SetMemTable(table, tokens(1)), 2, 1),
        (FrontendRequest::SetMemTable(table, tokens(3)), 2, 3),
        (FrontendRequest::SetMemTable(table, tokens(8)), 2, 8),
    ]
}

#[test]
fn a_request_with_another_number_of_descriptors_is_misuse() {
    let ledger = Ledger::new();
    let regions = REGIONS.map(|region| MemoryRegion {
        guest_address: vhost_core::GuestAddress(region.guest),
        size: region.size,
        user_address: vhost_core::UserAddress(region.user),
        mmap_offset: region.offset,
        xen: None,
    });
    let before = Stage::usual().front();
    for (request, least, found) in with_wrong_descriptors(&regions[..2], &ledger) {
        let (message, mut front) = (request.code().message(), before.clone());
        let expected = HandleCount { least, most: least };
        let misuse = front.request(request, Delivery::Acknowledged, &mut buffer()).unwrap_err();
        assert_eq!(misuse, ApiMisuse::HandleCount { message, expected, found });
        assert_eq!(front, before);
    }
    ledger.assert_settled();
}

#[test]
fn a_buffer_that_is_too_small_is_misuse() {
    let ledger = Ledger::new();
    for fixture in wire::all_frontend_forms().iter().filter(|fixture| is_ours(fixture)) {
        let stage = Stage::of(fixture);
        let before = prepared(fixture, stage, &ledger);
        let bytes = fixture.request();
        for given in 0..bytes.len() {
            let mut front = before.clone();
            let form = Form::request(front.session().negotiated().protocol);
            let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
            if fixture.name == "GET_QUEUE_NUM" && stage.protocol & feature::MQ == 0 {
                continue;
            }
            let misuse = front.request(request, Delivery::Acknowledged, &mut vec![0; given]).unwrap_err();
            assert_eq!(misuse, ApiMisuse::BufferTooSmall { message: FrontendCode(fixture.id).message(), given });
            assert_eq!(front, before);
        }
    }
    ledger.assert_settled();
}
