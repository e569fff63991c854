//! One valid message of every line of the protocol's tables in every form, alone and in a session that may say it.

use vhost_tests::wire::{self, Fixture, feature};

use crate::{Seed, bytes, gpu_message};

/// The kinds of the decoding target: requests and replies of the front-end's channel, the back-end's, the GPU's.
const FRONTEND: u8 = 0;
const BACKEND: u8 = 2;
const GPU: u8 = 4;
/// How many dialects there are; see `vhost_fuzz::message::DIALECTS`.
const DIALECTS: u8 = 8;

pub fn all() -> Vec<Seed> {
    let frontend = wire::all_frontend_forms();
    let backend = wire::all_backend_forms();
    let mut seeds = Vec::new();
    for fixture in &frontend {
        seeds.extend(decoding(FRONTEND, 0, fixture));
        seeds.extend([("backend", to_backend(fixture)), ("frontend", from_frontend(fixture))]);
        seeds.extend([0, 1, 16, 48].map(|setting| ("pair", in_pair(setting, fixture))));
    }
    for fixture in &backend {
        seeds.extend((0..DIALECTS).flat_map(|dialect| decoding(BACKEND, dialect, fixture)));
        seeds.extend([("backend", from_backend(fixture)), ("frontend", to_frontend(fixture))]);
        seeds.push(("pair", on_both_channels(fixture)));
    }
    seeds.extend(older_dialects());
    seeds.extend(gpu_message::all().iter().flat_map(gpu));
    seeds
}

fn decoding(kind: u8, dialect: u8, fixture: &Fixture) -> Vec<Seed> {
    let seed = |kind, handles, payload: &[u8]| {
        let protocol = (feature::PROTOCOL_ACKNOWLEDGED | fixture.gate.protocol) & !fixture.gate.without;
        ("decode", decode(kind, handles, dialect, protocol, fixture.id, payload))
    };
    let answers = fixture.answers().iter().map(|answer| seed(kind + 1, answer.descriptors, &answer.payload));
    answers.chain([seed(kind, fixture.descriptors, &fixture.payload)]).collect()
}

fn decode(kind: u8, handles: usize, setting: u8, protocol: u64, id: u32, payload: &[u8]) -> Vec<u8> {
    let message = bytes::message(kind, handles, id, payload);
    [&message[..1], &[setting], &protocol.to_le_bytes()[..], &message[1..]].concat()
}

/// A session up to where a ring runs, as the back-end hears it; with memory, a log and its own channel, so that every request
/// changes something.
fn heard() -> Vec<u8> {
    let asked = bytes::negotiation().into_iter().flat_map(|(id, payload)| {
        let size = u32::try_from(payload.len()).unwrap();
        bytes::stream(0, 0, &[&wire::header(id, wire::REQUEST, size), &payload[..]].concat())
    });
    let running =
        ["SET_BACKEND_REQ_FD", "SET_MEM_TABLE", "SET_LOG_BASE", "SET_STATUS", "SET_VRING_ENABLE", "SET_VRING_KICK"];
    let running = running.map(wire::frontend_request).into_iter();
    let running = running.flat_map(|fixture| bytes::stream(0, fixture.descriptors, &fixture.request()));
    [0].into_iter().chain(asked).chain(running).collect()
}

/// The request granted, refused, and answered later.
fn to_backend(fixture: &Fixture) -> Vec<u8> {
    let said = |operation| bytes::stream(operation, fixture.descriptors, &fixture.request_needing_reply());
    let mut seed = [heard(), said(0), said(8), vec![2], said(8)].concat();
    for answer in fixture.answers() {
        seed.extend(bytes::message(3, answer.descriptors, fixture.id, &answer.payload));
    }
    [seed, vec![1], said(0)].concat()
}

/// The request and each of its answers.
fn from_frontend(fixture: &Fixture) -> Vec<u8> {
    let mut seed = bytes::frontend();
    for (id, payload) in bytes::negotiation().into_iter().filter(|(id, _)| [2, 16].contains(id)) {
        seed.extend(bytes::message(8, 0, id, &payload));
    }
    for answer in fixture.answers() {
        seed.extend(bytes::message(0, fixture.descriptors, fixture.id, &fixture.payload));
        seed.extend(bytes::message(3, answer.descriptors, fixture.id, &answer.payload));
    }
    for number in [0_u64, 1] {
        seed.extend(bytes::message(0, fixture.descriptors, fixture.id, &fixture.payload));
        seed.extend(bytes::message(3, 0, fixture.id, &number.to_ne_bytes()));
    }
    seed
}

/// A request of the back-end: it asks, and hears each answer.
fn from_backend(fixture: &Fixture) -> Vec<u8> {
    let asked = bytes::message(4, fixture.descriptors, fixture.id, &fixture.payload);
    let mut seed = [heard(), asked.clone(), bytes::message(6, 0, fixture.id, &[0; 8])].concat();
    for answer in fixture.answers() {
        seed.extend([asked.clone(), bytes::message(6, answer.descriptors, fixture.id, &answer.payload)].concat());
    }
    seed
}

/// The same as the front-end hears it, which grants and refuses.
fn to_frontend(fixture: &Fixture) -> Vec<u8> {
    let mut seed = bytes::frontend();
    for (id, payload) in bytes::negotiation().into_iter().filter(|(id, _)| [2, 16].contains(id)) {
        seed.extend(bytes::message(8, 0, id, &payload));
    }
    for (flagged, answer) in [(13, 6), (13, 14), (5, 6)] {
        seed.extend(bytes::message(flagged, fixture.descriptors, fixture.id, &fixture.payload));
        seed.push(answer);
    }
    seed
}

/// Both sides negotiate, with everything cut to pieces of `cut` bytes, and then the request is made twice.
fn in_pair(setting: u8, fixture: &Fixture) -> Vec<u8> {
    let mut seed = bytes::pair(setting);
    for (id, payload) in bytes::negotiation() {
        seed.extend([bytes::message(0, 0, id, &payload), vec![7]].concat());
    }
    seed.extend(bytes::message(0, fixture.descriptors, fixture.id, &fixture.payload));
    for cut in [0, 3, 11, 30] {
        seed.extend([1, cut, 2, cut]);
    }
    seed.extend(bytes::message(0, fixture.descriptors, fixture.id, &fixture.payload));
    // Refused, if the device refuses anything.
    seed.push(0x87);
    seed
}

/// A request of the back-end while the front-end asks too.
fn on_both_channels(fixture: &Fixture) -> Vec<u8> {
    let mut seed = bytes::pair(0);
    for (id, payload) in bytes::negotiation() {
        seed.extend([bytes::message(0, 0, id, &payload), vec![7]].concat());
    }
    seed.extend([bytes::message(0, 1, 21, &[]), vec![7]].concat());
    seed.extend(bytes::message(5, fixture.descriptors, fixture.id, &fixture.payload));
    seed.extend(bytes::message(0, 0, 24, &wire::frontend_request("GET_CONFIG").payload));
    for cut in [0, 5, 19] {
        seed.extend([1, cut, 3, cut, 2, cut, 4, cut]);
    }
    [seed, vec![7]].concat()
}

/// Mappings as the older dialects say them, which have no fixtures: columns, flags and columns, a list.
fn older_dialects() -> Vec<Seed> {
    let columns: Vec<u8> = (0..32_u64).flat_map(|number| ((number % 8) << 12).to_ne_bytes()).collect();
    let list = [&2_u32.to_ne_bytes()[..], &[0; 4], &columns[..64]].concat();
    let mut seeds = Vec::new();
    for dialect in 1..DIALECTS {
        for id in [4, 5, 6, 7, 8, 9, 1000, 1001, 1002, 1003, 1004, 1005] {
            for payload in [columns.clone(), [&[1, 0, 0, 0, 0, 0, 0, 0], &columns[..]].concat(), list.clone()] {
                for handles in [0, 1] {
                    let protocol = feature::PROTOCOL_ACKNOWLEDGED;
                    seeds.push(("decode", decode(BACKEND, handles, dialect, protocol, id, &payload)));
                }
            }
            seeds.push(("decode", decode(BACKEND + 1, 0, dialect, 0, id, &(-5_i64).to_ne_bytes())));
        }
    }
    seeds
}

fn gpu(message: &gpu_message::Message) -> Vec<Seed> {
    let decoded = decode(GPU, message.descriptors, 0, 0, message.id, &message.payload);
    let mut seeds = vec![("decode", decoded)];
    let begin = [&[16], &3_u64.to_le_bytes()[..]].concat();
    let features = 3_u64.to_ne_bytes();
    // The back-end asks for features, takes them, and asks; the image follows.
    let mut asking = [begin.clone(), bytes::message(0, 0, 1, &[]), bytes::message(3, 0, 1, &features)].concat();
    asking.extend(bytes::message(0, 0, 2, &features));
    asking.extend(bytes::message(0, message.descriptors, message.id, &message.payload));
    asking.extend([&[2], &u64::try_from(message.image).unwrap().to_le_bytes()[..]].concat());
    let mut answering = [begin, bytes::message(5, 0, 1, &[]), vec![6], bytes::message(5, 0, 2, &features), vec![6]];
    let mut heard = answering.concat();
    for answer in [6, 14] {
        heard.extend(bytes::message(5, message.descriptors, message.id, &message.payload));
        heard.push(answer);
    }
    if let gpu_message::Reply::Payload(payload) = &message.reply {
        seeds.push(("decode", decode(GPU + 1, 0, 0, 0, message.id, payload)));
        asking.extend(bytes::message(3, 0, message.id, payload));
    }
    answering[0].clear();
    seeds.extend([("gpu", asking), ("gpu", heard)]);
    seeds
}
