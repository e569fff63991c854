//! Requests in the wrong order, and more than once.

use vhost_tests::wire::{Bytes, REQUEST, feature};

use super::{case, state, usual};
use crate::case::{Case, Said};
use crate::stage::{Offer, Stage};

pub(super) fn cases(offer: Offer) -> Vec<Case> {
    [rings(), features(offer), postcopy(), channels(), barriers()].concat()
}

fn enable(number: u32) -> Said {
    usual("SET_VRING_ENABLE").carrying(&state(1, number))
}

fn rings() -> Vec<Case> {
    let size = |number| usual("SET_VRING_NUM").carrying(&state(1, number));
    let base = |number| usual("SET_VRING_BASE").carrying(&state(1, number));
    let no_kick = || usual("SET_VRING_KICK").carrying(&0x101_u64.to_ne_bytes()).with(0);
    let [kick, call, stop, place] = ["SET_VRING_KICK", "SET_VRING_CALL", "GET_VRING_BASE", "SET_VRING_ADDR"].map(usual);
    let of = |stage, special: &str, said: Vec<Said>| case(stage, "rings", special, said);
    vec![
        of(Stage::Agreed, "stopped before any start", vec![stop.clone()]),
        of(Stage::Agreed, "base set and read before any start", vec![base(7), stop.clone()]),
        of(Stage::Agreed, "packed base set and read", vec![base(0x8045_807b), stop.clone()]),
        of(Stage::Running, "stopped twice", vec![stop.clone(), stop.clone()]),
        of(Stage::Running, "stopped and started again", vec![stop.clone(), base(0), kick.clone()]),
        of(Stage::Running, "stopped, started, stopped", vec![stop.clone(), kick.clone(), stop.clone()]),
        of(Stage::Running, "kick replaced", vec![kick.clone(), kick.clone()]),
        of(Stage::Running, "kick taken away", vec![no_kick()]),
        of(Stage::Running, "call replaced", vec![call.clone(), call.clone()]),
        of(Stage::Running, "size changed", vec![size(128)]),
        of(Stage::Running, "base changed", vec![base(3)]),
        of(Stage::Running, "moved", vec![place.clone()]),
        of(Stage::Running, "disabled and changed", vec![enable(0), size(128), base(3), place.clone()]),
        of(Stage::Running, "disabled and enabled", vec![enable(0), enable(1)]),
        of(Stage::Running, "enabled twice", vec![enable(1), enable(1)]),
        of(Stage::Running, "memory replaced", vec![usual("SET_MEM_TABLE")]),
        of(
            Stage::Running,
            "memory removed",
            vec![usual("SET_MEM_TABLE").carrying(&Bytes::new().u64(0).done()).with(0)],
        ),
        of(Stage::Running, "owner reset", vec![usual("RESET_OWNER"), stop.clone()]),
        of(Stage::Shared, "started without a size", vec![place.clone(), kick.clone()]),
        of(Stage::Shared, "started without a place", vec![size(256), kick.clone()]),
        of(Stage::Shared, "started without anything", vec![kick.clone(), enable(1), stop.clone()]),
        of(Stage::Shared, "enabled before anything", vec![enable(1)]),
        of(Stage::Shared, "disabled before anything", vec![enable(0)]),
        of(Stage::Shared, "placed before its size", vec![place.clone(), size(256), kick.clone(), stop.clone()]),
        of(Stage::Shared, "polled", vec![size(256), place.clone(), no_kick(), enable(1), stop.clone()]),
        of(Stage::Agreed, "started before memory", vec![size(256), kick.clone(), stop.clone()]),
        of(Stage::WithoutBit30, "enabled", vec![enable(1)]),
        of(Stage::WithoutBit30, "disabled", vec![enable(0)]),
        of(Stage::Fresh, "enabled", vec![enable(1)]),
        of(Stage::Fresh, "stopped", vec![stop]),
        of(Stage::Fresh, "call", vec![call]),
        of(Stage::Fresh, "kick", vec![kick]),
    ]
}

fn features(offer: Offer) -> Vec<Case> {
    let number = |name, bits: u64| usual(name).carrying(&bits.to_ne_bytes());
    let features = |bits| number("SET_FEATURES", bits);
    let protocol = |bits| number("SET_PROTOCOL_FEATURES", bits);
    let common = offer.virtio & !feature::LOG_ALL;
    let owner = usual("SET_OWNER");
    let of = |stage, special: &str, said: Vec<Said>| case(stage, "negotiation", special, said);
    vec![
        of(Stage::Agreed, "owner again", vec![owner.clone()]),
        of(Stage::Agreed, "owner reset and set", vec![usual("RESET_OWNER"), owner.clone()]),
        of(Stage::Unowned, "owner late", vec![owner.clone()]),
        of(Stage::Fresh, "owner first", vec![owner]),
        of(Stage::Agreed, "features again", vec![features(common)]),
        of(Stage::Running, "features again", vec![features(common | feature::LOG_ALL), features(common)]),
        of(Stage::Running, "features changed", vec![features(feature::VERSION_1)]),
        of(Stage::Running, "protocol features changed", vec![protocol(feature::REPLY_ACK)]),
        of(Stage::Agreed, "protocol features taken back", vec![protocol(0), usual("GET_QUEUE_NUM")]),
        of(Stage::Agreed, "acknowledgements taken back", vec![protocol(feature::CONFIG), enable(1)]),
        of(Stage::Fresh, "protocol features before features", vec![protocol(feature::REPLY_ACK), enable(1)]),
        of(
            Stage::Fresh,
            "features before protocol features",
            vec![features(common), protocol(feature::REPLY_ACK), enable(1)],
        ),
        of(
            Stage::Fresh,
            "protocol features without bit 30",
            vec![features(feature::VERSION_1), protocol(feature::REPLY_ACK)],
        ),
        of(
            Stage::WithoutBit30,
            "protocol features asked for",
            vec![usual("GET_QUEUE_NUM"), usual("GET_MAX_MEM_SLOTS")],
        ),
        of(Stage::Running, "reset", vec![usual("RESET_DEVICE"), usual("GET_QUEUE_NUM")]),
        of(Stage::Running, "status", vec![usual("GET_STATUS")]),
    ]
}

fn postcopy() -> Vec<Case> {
    let [advise, listen, end, table] =
        ["POSTCOPY_ADVISE", "POSTCOPY_LISTEN", "POSTCOPY_END", "SET_MEM_TABLE"].map(usual);
    let taken = |name| usual(name).carrying(&[0; 8]).with(0);
    let of = |stage, special: &str, said: Vec<Said>| case(stage, "postcopy", special, said);
    vec![
        of(Stage::Agreed, "listens unadvised", vec![listen.clone()]),
        of(Stage::Agreed, "ends unadvised", vec![end.clone()]),
        of(Stage::Advised, "advised twice", vec![advise]),
        of(Stage::Advised, "ends unheard", vec![end.clone()]),
        of(Stage::Listening, "listens twice", vec![listen]),
        of(Stage::Listening, "ends", vec![end.clone()]),
        of(Stage::Listening, "ends twice", vec![end.clone(), end.clone()]),
        of(Stage::Listening, "memory", vec![table.clone(), taken("SET_MEM_TABLE"), end.clone()]),
        of(Stage::Listening, "memory that is not taken", vec![table.clone(), end.clone()]),
        of(Stage::Listening, "memory twice", vec![table.clone(), table]),
        of(Stage::Listening, "a slot", vec![usual("ADD_MEM_REG"), taken("ADD_MEM_REG"), end.clone()]),
        of(Stage::Listening, "a slot taken as a table", vec![usual("ADD_MEM_REG"), taken("SET_MEM_TABLE")]),
        of(Stage::Listening, "a slot taken as one removed", vec![usual("ADD_MEM_REG"), taken("REM_MEM_REG")]),
        of(Stage::Listening, "taken before anything came", vec![taken("SET_MEM_TABLE")]),
        of(Stage::Agreed, "taken without postcopy", vec![taken("ADD_MEM_REG")]),
    ]
}

fn channels() -> Vec<Case> {
    let twice = |name| [usual(name), usual(name)];
    vec![
        case(Stage::Agreed, "SET_BACKEND_REQ_FD", "twice", twice("SET_BACKEND_REQ_FD")),
        case(Stage::Agreed, "SET_LOG_BASE", "twice", twice("SET_LOG_BASE")),
        case(Stage::Running, "SET_LOG_BASE", "twice", twice("SET_LOG_BASE")),
        case(Stage::Agreed, "SET_INFLIGHT_FD", "twice", twice("SET_INFLIGHT_FD")),
        case(Stage::Agreed, "GET_INFLIGHT_FD", "twice", twice("GET_INFLIGHT_FD")),
        case(Stage::Agreed, "GET_CONFIG", "twice", twice("GET_CONFIG")),
    ]
}

/// Requests that are answered whatever happened, several at once.
fn barriers() -> Vec<Case> {
    let queues = || usual("GET_QUEUE_NUM");
    let silent = |name| Said { flags: REQUEST, ..usual(name) };
    vec![
        case(Stage::Agreed, "many", "questions", [queues(), queues(), queues(), queues()]),
        case(
            Stage::Agreed,
            "many",
            "orders and questions",
            [silent("SET_VRING_CALL"), queues(), silent("SET_VRING_ERR"), queues()],
        ),
    ]
}
