//! What real programs said to each other, as both machines and the pair hear it.

use std::collections::BTreeSet;

use vhost_tests::vectors::{self, Channel, Direction, Message, Session, What};
use vhost_tests::wire::feature;

use crate::{Seed, bytes};

/// The longest input that a fuzzer is let make; longer sessions are cut.
const LONGEST: usize = 2048;

pub fn all() -> Vec<Seed> {
    vectors::sessions().iter().flat_map(session).collect()
}

fn session(session: &Session) -> Vec<Seed> {
    let connections = BTreeSet::from_iter(session.events.iter().map(|event| event.connection));
    connections.into_iter().flat_map(|connection| one(session, connection)).collect()
}

fn one(session: &Session, connection: u64) -> Vec<Seed> {
    let (mut back, mut front) = (vec![0], bytes::frontend());
    let mut pair = [&[0], &u64::MAX.to_le_bytes()[..], &feature::PROTOCOL_OFFERED.to_le_bytes()].concat();
    let mut gpu = [&[16], &3_u64.to_le_bytes()[..]].concat();
    for event in session.events.iter().filter(|event| event.connection == connection) {
        let What::Message(message) = &event.what else { continue };
        if message.truncated {
            continue;
        }
        match (event.channel, message.direction) {
            (Channel::Main, Direction::FrontendToBackend) => {
                add(&mut back, bytes::stream(0, message.descriptors.len(), &message.bytes()));
                let delivery = if message.header.flags & 8 == 0 { 8 } else { 0 };
                add(&mut front, said(delivery, message));
                add(&mut pair, [said(delivery, message), vec![7]].concat());
            }
            (Channel::Main, Direction::BackendToFrontend) => add(&mut front, said(3, message)),
            (Channel::Backend, Direction::BackendToFrontend) => {
                add(&mut back, said(4, message));
                add(&mut front, [said(13, message), vec![6]].concat());
                add(&mut pair, [said(5, message), vec![7]].concat());
            }
            (Channel::Backend, Direction::FrontendToBackend) => add(&mut back, said(6, message)),
            (Channel::Gpu, Direction::BackendToFrontend) => {
                add(&mut gpu, said(0, message));
                add(&mut gpu, [said(5, message), vec![6]].concat());
            }
            (Channel::Gpu, Direction::FrontendToBackend) => add(&mut gpu, said(3, message)),
        }
    }
    let seeds = [("backend", back), ("frontend", front), ("pair", pair), ("gpu", gpu)];
    seeds.into_iter().filter(|(_, input)| input.len() > 20).collect()
}

fn said(operation: u8, message: &Message) -> Vec<u8> {
    bytes::message(operation, message.descriptors.len(), message.header.request, &message.payload)
}

fn add(input: &mut Vec<u8>, operation: Vec<u8>) {
    if input.len() + operation.len() <= LONGEST {
        input.extend(operation);
    }
}
