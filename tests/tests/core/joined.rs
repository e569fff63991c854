//! A whole life of a device between both machines: bring-up, rings, memory, migration, stop; cut anywhere, it is the same.

use crate::machines::{back, front};
use crate::pair::Pair;
use crate::stage::PROTOCOL_OFFERED;
use std::collections::BTreeSet;
use vhost_core::wire::vring::{VringDescriptor, VringState};
use vhost_core::{
    BackendCode, BackendRequest, Delivery, Form, FrontendCode, FrontendRequest, Postcopy, ProtocolFeatures,
};
use vhost_tests::wire::{self, Fixture, feature};

/// All of them but those that change the form of messages or the meaning of addresses.
const PROTOCOL: u64 = feature::PROTOCOL_OFFERED;
const FEATURES: u64 = feature::ACKNOWLEDGED | feature::IOMMU_PLATFORM;

/// A request as it stands in the fixtures.
#[track_caller]
fn ask(pair: &mut Pair, name: &str, form: &str) {
    let fixture = wire::frontend_form(name, form);
    let bytes = fixture.request();
    let tokens = pair.ledger.tokens(fixture.descriptors);
    let protocol = pair.front.session().negotiated().protocol;
    let request = FrontendRequest::decode(crate::machines::frame(&bytes, tokens), Form::request(protocol)).unwrap();
    pair.ask(request);
}

#[track_caller]
fn ask_usual(pair: &mut Pair, names: &[&str]) {
    for name in names {
        ask(pair, name, Fixture::USUAL);
    }
}

fn bring_up(pair: &mut Pair) {
    ask_usual(pair, &["GET_FEATURES", "GET_PROTOCOL_FEATURES"]);
    pair.ask(FrontendRequest::SetProtocolFeatures(ProtocolFeatures::from_bits_retain(PROTOCOL)));
    ask_usual(pair, &["GET_QUEUE_NUM", "GET_MAX_MEM_SLOTS", "SET_BACKEND_REQ_FD", "SET_OWNER", "GPU_SET_SOCKET"]);
    pair.ask(FrontendRequest::SetFeatures(vhost_core::VirtioFeatures::from_bits_retain(FEATURES)));
    ask_usual(pair, &["GET_STATUS", "SET_STATUS", "GET_CONFIG", "SET_CONFIG", "GET_SHMEM_CONFIG", "NET_SET_MTU"]);
    ask_usual(pair, &["CREATE_CRYPTO_SESSION", "CLOSE_CRYPTO_SESSION", "GET_SHARED_OBJECT"]);
    ask(pair, "GET_SHARED_OBJECT", "no name");
}

fn rings(pair: &mut Pair) {
    ask_usual(pair, &["GET_INFLIGHT_FD", "SET_INFLIGHT_FD", "SET_MEM_TABLE"]);
    ask_usual(pair, &["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ENDIAN", "SET_VRING_ADDR", "SET_VRING_CALL"]);
    ask_usual(pair, &["SET_VRING_ERR", "SET_VRING_KICK", "SET_VRING_ENABLE", "VRING_KICK", "IOTLB_MSG"]);
    ask(pair, "SET_VRING_CALL", "no descriptor");
    pair.ask(FrontendRequest::SetVringKick(VringDescriptor::without_descriptor(0), None));
    pair.ask(FrontendRequest::SetVringEnable(VringState::new(1, 1)));
    let running = pair.back.session().rings().iter().filter(|ring| ring.is_running()).count();
    assert_eq!(running, 2);
}

fn memory(pair: &mut Pair) {
    ask_usual(pair, &["ADD_MEM_REG", "REM_MEM_REG", "ADD_MEM_REG"]);
    ask(pair, "REM_MEM_REG", "no offset");
    assert_eq!(pair.back.session().memory().regions().len(), 2);
}

/// Each in turn, acknowledged and not.
fn requests_of_the_backend(pair: &mut Pair) {
    for delivery in [Delivery::Acknowledged, Delivery::Unacknowledged] {
        for fixture in wire::all_backend_forms() {
            let bytes = fixture.request();
            let tokens = pair.ledger.tokens(fixture.descriptors);
            let form = Form::request(pair.back.session().negotiated().protocol);
            let request = BackendRequest::decode(crate::machines::frame(&bytes, tokens), form).unwrap();
            pair.ask_back(request, delivery);
        }
    }
}

fn migration(pair: &mut Pair) {
    ask_usual(pair, &["SET_LOG_BASE", "SET_LOG_FD"]);
    let logging = FEATURES | feature::LOG_ALL;
    pair.ask(FrontendRequest::SetFeatures(vhost_core::VirtioFeatures::from_bits_retain(logging)));
    ask(pair, "SET_VRING_ADDR", "logging");
    assert!(pair.back.session().log().is_some());
    ask_usual(pair, &["SEND_RARP", "GET_VRING_BASE"]);
    pair.ask(FrontendRequest::GetVringBase(VringState::new(0, 0)));
    assert!(pair.back.session().is_suspended());
    ask(pair, "SET_DEVICE_STATE_FD", "save");
    ask_usual(pair, &["CHECK_DEVICE_STATE", "POSTCOPY_ADVISE", "POSTCOPY_LISTEN"]);
    ask(pair, "SET_MEM_TABLE", "postcopy");
    assert_eq!(pair.front.session().postcopy(), Postcopy::Answered);
    pair.acknowledge_postcopy(FrontendCode::SET_MEM_TABLE);
    ask(pair, "ADD_MEM_REG", "postcopy");
    pair.acknowledge_postcopy(FrontendCode::ADD_MEM_REG);
    assert_eq!(pair.back.session().postcopy(), Postcopy::Listening);
    ask_usual(pair, &["POSTCOPY_END"]);
}

fn stop(pair: &mut Pair) {
    ask(pair, "SET_VRING_ENABLE", "disable");
    ask_usual(pair, &["GET_VRING_BASE", "RESET_OWNER", "RESET_DEVICE"]);
    pair.ask(FrontendRequest::SetStatus(0));
    assert!(pair.back.session().rings().iter().all(|ring| !ring.is_started() && !ring.is_enabled()));
    assert_eq!(pair.back.session().memory().regions().len(), 3, "memory survives a reset");
}

/// The whole life, with every message cut at these places.
fn life(cuts: &[usize]) -> Pair {
    let mut pair = Pair::new(front(), back(feature::OFFERED, PROTOCOL_OFFERED), cuts);
    for part in [bring_up, rings, memory, requests_of_the_backend, migration, stop] {
        part(&mut pair);
    }
    assert!(!pair.front.has_failed() && !pair.back.has_failed());
    assert_eq!(pair.front.session(), pair.back.session());
    pair.ledger.assert_settled();
    pair
}

#[test]
fn a_whole_life_uses_every_message_and_leaves_both_sides_of_one_mind() {
    let pair = life(&[]);
    // `back-end: Ok(Request(SetOwner))` and the like; the names in the order of the ids.
    let heard = |prefix: &str| {
        let rest = pair.events.iter().filter_map(|event| event.strip_prefix(prefix).map(str::to_owned));
        let name = |rest: String| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned();
        BTreeSet::from_iter(rest.map(name))
    };
    assert_eq!(heard("back-end: Ok(Request(").len(), FrontendCode::ALL.len());
    // All but those of the older virtio-fs dialects, which this session does not speak.
    let standard = BackendCode::ALL.iter().filter(|code| code.0 < 1000);
    assert_eq!(heard("front-end is asked: Ok(").len(), standard.count());
    let unexpected = pair.events.iter().find(|event| event.contains(": Err(") || event.contains("Refused("));
    assert_eq!(unexpected, None);
}

#[test]
fn a_whole_life_is_the_same_wherever_its_messages_are_cut() {
    let whole = life(&[]).events;
    for cut in 1..=300 {
        assert_eq!(life(&[cut]).events, whole, "cut at {cut}");
    }
    for cuts in [[1, 2], [5, 12], [11, 13], [12, 12], [12, 16], [12, 1083], [13, 14], [300, 2000], [2000, 2067]] {
        assert_eq!(life(&cuts).events, whole, "cut at {cuts:?}");
    }
    let everywhere = Vec::from_iter(1..=2068);
    assert_eq!(life(&everywhere).events, whole, "byte by byte");
}
