//! Messages arrive in pieces: every message of both channels, cut at every byte and in every two places, is the same frame.

use crate::machines::{frame, pour};
use vhost_core::{Assembler, Channel};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Fixture};

/// Every request and every reply of the fixtures, with the number of its descriptors.
fn messages(fixtures: Vec<Fixture>) -> Vec<(Vec<u8>, usize)> {
    let mut all = Vec::new();
    for fixture in fixtures {
        all.push((fixture.request(), fixture.descriptors));
        all.push((fixture.request_needing_reply(), fixture.descriptors));
        all.push((fixture.acknowledgement(0), 0));
        all.extend(fixture.answers().iter().map(|answer| (answer.message(fixture.id), answer.descriptors)));
    }
    all.sort();
    all.dedup();
    all
}

/// In which places the longest messages are cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Long {
    /// One cut goes everywhere, the other stays near the start or the end: the others are millions.
    Edges,
    /// Everywhere.
    All,
}

/// Two places to cut a message.
fn splits(length: usize, long: Long) -> impl Iterator<Item = [usize; 2]> {
    let is_edge = move |place: usize| long == Long::All || length < 512 || place < 32 || place > length - 32;
    let all = (0..=length).flat_map(move |first| (first..=length).map(move |second| [first, second]));
    all.filter(move |[first, second]| is_edge(*first) || is_edge(*second) || first == second)
}

fn check_all(channel: Channel, fixtures: Vec<Fixture>, long: Long) -> usize {
    let mut assembler = Assembler::<Token>::new(channel);
    let mut count = 0;
    for (bytes, descriptors) in messages(fixtures) {
        let ledger = Ledger::new();
        let expected = frame(&bytes, Vec::new());
        for cuts in splits(bytes.len(), long) {
            let before = ledger.made();
            // Three pieces, of which any may be empty.
            let found = pour(&mut assembler, &bytes, ledger.tokens(descriptors), &cuts);
            let found = found.unwrap().unwrap_or_else(|| panic!("{cuts:?} of {bytes:02x?}: not whole"));
            assert!(found.header == expected.header && found.payload == expected.payload, "{cuts:?} of {bytes:02x?}");
            assert!(found.handles.iter().map(Token::number).eq(before..before + descriptors), "{cuts:?}");
            count += 1;
        }
        ledger.assert_settled();
        assert!(assembler.is_between_messages());
    }
    count
}

#[test]
fn every_message_of_a_frontend_in_every_two_cut_split() {
    assert_eq!(check_all(Channel::Frontend, wire::all_frontend_forms(), Long::Edges), 697_783);
}

#[test]
fn every_message_of_a_backend_in_every_two_cut_split() {
    assert_eq!(check_all(Channel::Backend, wire::all_backend_forms(), Long::Edges), 22_026);
}

/// Without optimisation it would take minutes; `.ci/peers` runs the tests with it.
#[test]
fn the_longest_messages_too_in_every_two_cut_split() {
    if cfg!(debug_assertions) {
        vhost_tests::program::not_run("the longest messages in every split take an optimised build");
        return;
    }
    let count = check_all(Channel::Frontend, wire::all_frontend_forms(), Long::All);
    assert!(count > 697_783, "{count}");
}
