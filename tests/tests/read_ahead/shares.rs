//! What each message of one piece gets of its descriptors.

use vhost_core::{Channel, DecodeError, Dialect, ReadAhead};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{REPLY, REQUEST, header};

/// What the messages of one piece get of so many descriptors.
fn shares(messages: &[Vec<u8>], descriptors: usize) -> Vec<usize> {
    shares_of(ReadAhead::new(), messages, descriptors)
}

fn shares_of(mut incoming: ReadAhead<Token>, messages: &[Vec<u8>], descriptors: usize) -> Vec<usize> {
    let ledger = Ledger::new();
    let bytes = messages.concat();
    incoming.read_buf()[..bytes.len()].copy_from_slice(&bytes);
    incoming.filled(bytes.len(), ledger.tokens(descriptors));
    let mut shares = Vec::new();
    while let Some(found) = incoming.next().unwrap() {
        shares.push(found.handles.len());
    }
    ledger.assert_settled();
    shares
}

fn message(id: u32, payload: &[u8]) -> Vec<u8> {
    [&header(id, REQUEST, payload.len() as u32)[..], payload].concat()
}

fn kick() -> Vec<u8> {
    message(12, &[0; 8])
}

fn polled_kick() -> Vec<u8> {
    message(12, &0x100_u64.to_ne_bytes())
}

#[test]
fn descriptors_that_nobody_wants_go_with_the_last_message() {
    let owner = || message(3, &[]);
    assert_eq!(shares(&[owner(), owner(), owner()], 2), [0, 0, 2]);
    assert_eq!(shares(&[owner(), polled_kick()], 1), [0, 1]);
    assert_eq!(shares(&[kick(), owner()], 3), [1, 2], "too many");
    assert_eq!(shares(&[kick(), kick()], 1), [0, 1], "too few: they were not joined, and the first came without");
    assert_eq!(shares(&[kick(), kick(), owner()], 2), [1, 1, 0]);
    let removal = message(38, &[0; 40]);
    let log = message(6, &[0; 16]);
    assert_eq!(shares(&[removal.clone(), log.clone()], 1), [0, 1], "both may have one");
    assert_eq!(shares(&[removal, kick()], 2), [1, 1]);
    assert_eq!(shares(&[log, owner()], 1), [1, 0], "the sender joined them");
    assert_eq!(shares(&[message(4711, &[]), owner()], 2), [2, 0], "who knows what an unknown request wants");
    let table = |count: u32| message(5, &[&count.to_ne_bytes()[..], &[0; 36]].concat());
    assert_eq!(shares(&[table(3), owner(), kick()], 4), [3, 0, 1]);
    assert_eq!(shares(&[table(900), kick()], 4), [3, 1], "an impossible table");
    assert_eq!(shares(&[message(12, &[]), kick()], 1), [0, 1], "a kick without its payload");
    let acknowledgement = [&header(31, REPLY, 8)[..], &[0; 8]].concat();
    assert_eq!(shares(&[acknowledgement, owner()], 0), [0, 0]);
}

/// A map of the old dialects is a request of today without descriptors, and what has none there has one here.
#[test]
fn on_the_channel_of_the_back_end_the_dialect_decides() {
    let on = |dialect| ReadAhead::on(Channel::Backend, dialect);
    let mapping = |id| message(id, &[0; 256]);
    assert_eq!(shares_of(on(Dialect::Standard), &[message(9, &[0; 40]), message(6, &[0; 16])], 1), [1, 0]);
    assert_eq!(shares_of(on(Dialect::FsA1), &[mapping(4), mapping(5)], 1), [1, 0]);
    assert_eq!(shares_of(on(Dialect::FsA2), &[mapping(6), mapping(7)], 1), [1, 0]);
    assert_eq!(shares_of(on(Dialect::FsA1), &[mapping(6), mapping(5)], 1), [0, 1], "nobody wants it");
    assert_eq!(shares_of(on(Dialect::Private1000), &[mapping(1000), message(6, &[0; 16])], 1), [1, 0]);
    // Which dialect it is tells the descriptor: whoever may have it comes last.
    assert_eq!(shares_of(on(Dialect::Auto), &[mapping(6), message(2, &[])], 1), [1, 0]);
    assert_eq!(shares_of(on(Dialect::Auto), &[mapping(7), mapping(6)], 1), [0, 1]);
    let found = [&header(8, REPLY, 8)[..], &[0; 8]].concat();
    assert_eq!(shares_of(on(Dialect::Standard), &[found.clone(), found], 1), [0, 1], "a look-up that found nothing");
}

#[test]
fn a_message_that_is_not_whole_yet_does_not_hold_up_those_before_it() {
    let ledger = Ledger::new();
    let mut incoming = ReadAhead::<Token>::new();
    let bytes = [kick(), kick()].concat();
    incoming.read_buf()[..25].copy_from_slice(&bytes[..25]);
    incoming.filled(25, ledger.tokens(2));
    assert_eq!(incoming.next().unwrap().unwrap().handles.len(), 1);
    assert!(incoming.next().unwrap().is_none() && !incoming.is_between_messages());
    ledger.assert_open(1);
    for byte in &bytes[25..] {
        incoming.read_buf()[0] = *byte;
        incoming.filled(1, []);
    }
    assert_eq!(incoming.next().unwrap().unwrap().handles[0].number(), 1);
    assert!(incoming.is_between_messages());
}

#[test]
fn a_broken_stream_gives_out_what_came_before_and_closes_every_descriptor() {
    let broken = [&header(3, 2, 0)[..], &[0; 100]].concat();
    let large = header(3, REQUEST, 5000).to_vec();
    for (tail, expected) in
        [(broken, "expected protocol version 1, found 2"), (large, "4096 payload bytes, found 5000")]
    {
        let ledger = Ledger::new();
        let mut incoming = ReadAhead::<Token>::new();
        let bytes = [kick(), kick(), tail].concat();
        incoming.read_buf()[..bytes.len()].copy_from_slice(&bytes);
        incoming.filled(bytes.len(), ledger.tokens(4));
        assert_eq!(incoming.next().unwrap().unwrap().handles.len(), 1);
        assert_eq!(incoming.next().unwrap().unwrap().handles.len(), 1);
        ledger.assert_settled();
        for _ in 0..2 {
            assert!(incoming.has_next() && incoming.read_buf().is_empty() && !incoming.is_between_messages());
            assert!(incoming.next().unwrap_err().to_string().contains(expected));
            incoming.filled(0, ledger.tokens(1));
            ledger.assert_settled();
        }
    }
}

#[test]
fn descriptors_with_a_piece_in_which_nothing_begins_end_the_stream() {
    for cut in 1..20 {
        let ledger = Ledger::new();
        let mut incoming = ReadAhead::<Token>::new();
        incoming.read_buf()[..cut].copy_from_slice(&kick()[..cut]);
        incoming.filled(cut, ledger.tokens(1));
        incoming.read_buf()[..20 - cut].copy_from_slice(&kick()[cut..]);
        incoming.filled(20 - cut, ledger.tokens(1));
        let error = incoming.next().unwrap_err();
        assert!(matches!(error, DecodeError::HandlesAfterStart { channel: Channel::Frontend }), "{error}");
        ledger.assert_settled();
    }
    let ledger = Ledger::new();
    let mut incoming = ReadAhead::<Token>::new();
    incoming.read_buf()[..20].copy_from_slice(&kick());
    incoming.filled(20, ledger.tokens(9));
    assert!(matches!(incoming.next().unwrap_err(), DecodeError::TooManyHandles { .. }));
    ledger.assert_settled();
}

#[test]
fn there_is_no_room_and_nothing_comes_while_a_message_waits() {
    let ledger = Ledger::new();
    let mut incoming = ReadAhead::<Token>::new();
    assert!(!incoming.has_next());
    let bytes = [kick(), kick()].concat();
    incoming.read_buf()[..bytes.len()].copy_from_slice(&bytes);
    incoming.filled(bytes.len(), ledger.tokens(2));
    for _ in 0..2 {
        assert!(incoming.has_next() && incoming.read_buf().is_empty());
        // What a transport brings all the same is dropped.
        incoming.filled(20, ledger.tokens(1));
        assert_eq!(incoming.next().unwrap().map(|frame| frame.handles.len()), Some(1));
    }
    assert!(!incoming.has_next() && incoming.is_between_messages() && !incoming.read_buf().is_empty());
    ledger.assert_settled();
}
