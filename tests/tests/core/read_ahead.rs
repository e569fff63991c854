//! Many messages in one read: each gets its own descriptors, however they were sent and cut.

use std::collections::VecDeque;

use crate::machines::frame;
use vhost_core::{DecodeError, ReadAhead};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, REPLY, REQUEST, header};

/// Numbers that look random and are the same every time (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// A stream as Linux has it: buffers, each with its descriptors.
#[derive(Default)]
struct Line(VecDeque<(VecDeque<u8>, Vec<Token>)>);

impl Line {
    fn send(&mut self, bytes: &[u8], handles: Vec<Token>) {
        if !bytes.is_empty() {
            self.0.push_back((bytes.iter().copied().collect(), handles));
        }
    }

    /// What one `recvmsg` gives: it joins buffers and ends behind the first that has descriptors, or in the middle of one.
    fn receive(&mut self, room: &mut [u8]) -> (usize, Vec<Token>) {
        let mut filled = 0;
        while let Some((bytes, handles)) = self.0.front_mut() {
            let taken = bytes.len().min(room.len() - filled);
            for byte in bytes.drain(..taken) {
                room[filled] = byte;
                filled += 1;
            }
            let handles = core::mem::take(handles);
            let is_empty = bytes.is_empty();
            if is_empty {
                self.0.pop_front();
            }
            if !handles.is_empty() || !is_empty || filled == room.len() {
                return (filled, handles);
            }
        }
        (filled, Vec::new())
    }
}

/// A message with the number of its descriptors, and whether that follows from the message itself.
#[derive(Clone)]
struct Sample {
    bytes: Vec<u8>,
    handles: usize,
    tells: bool,
}

fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for fixture in wire::all_frontend_forms() {
        // The last word in the exchange about a region in postcopy looks like a region.
        let is_last_word = fixture.name == "ADD_MEM_REG" && fixture.descriptors == 0;
        let tells = !["SET_LOG_BASE", "REM_MEM_REG", "SET_DEVICE_STATE_FD"].contains(&fixture.name) && !is_last_word;
        all.push(Sample { bytes: fixture.request(), handles: fixture.descriptors, tells });
        for answer in fixture.answers() {
            all.push(Sample { bytes: answer.message(fixture.id), handles: answer.descriptors, tells: false });
        }
    }
    all.retain(|sample| sample.bytes.len() < 400);
    all
}

/// How a sender puts its messages into system calls.
#[derive(Clone, Copy)]
enum Sender {
    /// Each in its own.
    Single,
    /// Those without descriptors behind others in the same call.
    Joining,
    /// Several with descriptors in one call too.
    JoiningAll,
    /// In pieces of any size, the descriptors with the first.
    Splitting,
}

/// Sends and receives, and compares.
fn converse<const CAP: usize>(sender: Sender, rounds: u64) -> usize {
    let samples = samples();
    let ledger = Ledger::new();
    let mut several = 0;
    for seed in 0..rounds {
        let mut dice = Dice(seed);
        let mut line = Line::default();
        let mut expected = VecDeque::new();
        let mut call = (Vec::new(), Vec::new());
        let mut may_join = false;
        for _ in 0..dice.roll(40) {
            let sample = &samples[dice.roll(samples.len())];
            let first = ledger.made();
            let handles = ledger.tokens(sample.handles);
            expected.push_back((sample.bytes.clone(), first..first + sample.handles));
            let joins = match sender {
                Sender::Single | Sender::Splitting => false,
                Sender::Joining => may_join && sample.tells && sample.handles == 0,
                Sender::JoiningAll => sample.tells && may_join && call.1.len() + sample.handles <= 8,
            };
            if !joins {
                let (bytes, handles): (Vec<u8>, Vec<Token>) = core::mem::take(&mut call);
                line.send(&bytes, handles);
            }
            may_join = sample.tells;
            if let Sender::Splitting = sender {
                let cut = 1 + dice.roll(sample.bytes.len());
                line.send(&sample.bytes[..cut], handles);
                let again = cut + dice.roll(sample.bytes.len() + 1 - cut);
                line.send(&sample.bytes[cut..again], Vec::new());
                line.send(&sample.bytes[again..], Vec::new());
            } else {
                call.0.extend_from_slice(&sample.bytes);
                call.1.extend(handles);
            }
        }
        line.send(&call.0, call.1);

        let mut incoming = ReadAhead::<Token, CAP>::new();
        loop {
            let room = incoming.read_buf();
            assert!(!room.is_empty());
            // Now and then a read ends early. Pooled descriptors would then be with messages that are not there yet.
            let is_whole = matches!(sender, Sender::JoiningAll) || dice.roll(3) > 0;
            let limit = if is_whole { room.len() } else { 1 + dice.roll(room.len()) };
            let (count, handles) = line.receive(&mut room[..limit]);
            incoming.filled(count, handles);
            let mut taken = 0;
            while let Some(found) = incoming.next().unwrap() {
                let (bytes, numbers) = expected.pop_front().expect("as many as were sent");
                let wanted = frame(&bytes, Vec::new());
                assert!(found.header == wanted.header && found.payload == wanted.payload, "seed {seed}");
                assert!(
                    found.handles.iter().map(Token::number).eq(numbers.clone()),
                    "seed {seed}: {found:?} {numbers:?}"
                );
                taken += 1;
            }
            several += usize::from(taken > 1);
            if count == 0 {
                break;
            }
        }
        assert!(expected.is_empty() && incoming.is_between_messages(), "seed {seed}: {incoming:?}");
    }
    ledger.assert_settled();
    several
}

#[test]
fn messages_sent_one_by_one_arrive_together_with_their_own_descriptors() {
    assert!(converse::<512>(Sender::Single, 3000) > 3000);
}

#[test]
fn messages_that_the_sender_joined_behind_one_with_descriptors_do_not_get_them() {
    assert!(converse::<512>(Sender::Joining, 3000) > 3000);
}

#[test]
fn messages_whose_descriptors_the_sender_joined_get_as_many_as_they_want() {
    assert!(converse::<16384>(Sender::JoiningAll, 3000) > 3000);
}

#[test]
fn messages_in_pieces_are_put_together() {
    converse::<512>(Sender::Splitting, 3000);
}

/// What the messages of one piece get of so many descriptors.
fn shares(messages: &[Vec<u8>], descriptors: usize) -> Vec<usize> {
    let ledger = Ledger::new();
    let mut incoming = ReadAhead::<Token>::new();
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
        assert!(matches!(error, DecodeError::HandlesAfterStart { .. }), "{error}");
        ledger.assert_settled();
    }
    let ledger = Ledger::new();
    let mut incoming = ReadAhead::<Token>::new();
    incoming.read_buf()[..20].copy_from_slice(&kick());
    incoming.filled(20, ledger.tokens(9));
    assert!(matches!(incoming.next().unwrap_err(), DecodeError::TooManyHandles { .. }));
    ledger.assert_settled();
}
