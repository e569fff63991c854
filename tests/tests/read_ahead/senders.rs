//! Senders that put their messages into system calls in every way, and receivers that read at any place.

use core::ops::Range;
use std::collections::VecDeque;

use vhost_core::{Channel, Dialect, ReadAhead};
use vhost_tests::numbers::Numbers;
use vhost_tests::tracked::{Ledger, Token};

use crate::line::Line;
use crate::sample::{Sample, channels};

/// How a sender puts its messages into system calls.
#[derive(Clone, Copy, Debug)]
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

/// Messages that were sent, with the numbers of their descriptors.
type Expected = VecDeque<(Sample, Range<usize>)>;

/// Sends some of the messages.
fn send(sender: Sender, samples: &[Sample], ledger: &Ledger, dice: &mut Dice) -> (Line, Expected) {
    let mut line = Line::default();
    let mut expected = Expected::new();
    let mut call = (Vec::new(), Vec::new());
    let mut may_join = false;
    for _ in 0..dice.roll(40) {
        let sample = &samples[dice.roll(samples.len())];
        let first = ledger.made();
        let handles = ledger.tokens(sample.handles);
        expected.push_back((sample.clone(), first..first + sample.handles));
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
        let whole = sample.whole();
        if let Sender::Splitting = sender {
            let cut = 1 + dice.roll(whole.len());
            line.send(&whole[..cut], handles);
            let again = cut + dice.roll(whole.len() + 1 - cut);
            line.send(&whole[cut..again], Vec::new());
            line.send(&whole[again..], Vec::new());
        } else {
            call.0.extend_from_slice(&whole);
            call.1.extend(handles);
        }
    }
    line.send(&call.0, call.1);
    (line, expected)
}

/// Sends and receives, and compares; how often one read gave several messages.
fn converse<const CAP: usize>(sender: Sender, rounds: u64) {
    for (channel, dialect, samples) in channels() {
        let several = converse_on::<CAP>(channel, dialect, &samples, sender, rounds);
        let is_split = matches!(sender, Sender::Splitting);
        assert!(is_split || several > rounds, "{channel:?} {dialect} {sender:?}: {several} of {rounds}");
    }
}

fn converse_on<const CAP: usize>(
    channel: Channel,
    dialect: Dialect,
    samples: &[Sample],
    sender: Sender,
    rounds: u64,
) -> u64 {
    let ledger = Ledger::new();
    let mut several = 0;
    for seed in 0..rounds {
        let mut dice = Dice(Numbers::new(seed));
        let (mut line, mut expected) = send(sender, samples, &ledger, &mut dice);
        let mut incoming = ReadAhead::<Token, CAP>::on(channel, dialect);
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
                let (sample, numbers) = expected.pop_front().expect("as many as were sent");
                let place = || format!("{channel:?} {dialect} {sender:?}, seed {seed}: {numbers:?}");
                let (head, payload) = sample.bytes.split_at(12);
                assert!(found.header.to_bytes()[..] == *head && found.payload == payload, "{}", place());
                assert!(found.handles.iter().map(Token::number).eq(numbers.clone()), "{} {found:?}", place());
                taken += 1;
                assert_eq!(incoming.image_left(), sample.image.len(), "{}", place());
                // Images are read, skipped, or read in part.
                let wanted = dice.roll(3) * sample.image.len() / 2;
                assert_eq!(read_image(&mut incoming, &mut line, wanted), sample.image[..wanted], "{}", place());
            }
            several += u64::from(taken > 1);
            if count == 0 {
                break;
            }
        }
        assert!(expected.is_empty() && incoming.is_between_messages(), "seed {seed}: {incoming:?}");
    }
    ledger.assert_settled();
    several
}

/// Reads so many bytes of an image: first what is there already.
fn read_image<const CAP: usize>(incoming: &mut ReadAhead<Token, CAP>, line: &mut Line, wanted: usize) -> Vec<u8> {
    let mut image = Vec::new();
    while image.len() < wanted {
        let left = wanted - image.len();
        let part = incoming.image_part();
        if part.is_empty() {
            let mut room = vec![0; left];
            let (count, handles) = line.receive(&mut room);
            assert!(count > 0 && handles.is_empty());
            incoming.image_read(count);
            image.extend_from_slice(&room[..count]);
        } else {
            let part = part[..part.len().min(left)].to_vec();
            incoming.image_read(part.len());
            image.extend(part);
        }
    }
    image
}

/// Numbers below one.
struct Dice(Numbers);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.below(sides as u64) as usize
    }
}

#[test]
fn messages_sent_one_by_one_arrive_together_with_their_own_descriptors() {
    converse::<512>(Sender::Single, 1000);
}

#[test]
fn messages_that_the_sender_joined_behind_one_with_descriptors_do_not_get_them() {
    converse::<512>(Sender::Joining, 1000);
}

#[test]
fn messages_whose_descriptors_the_sender_joined_get_as_many_as_they_want() {
    converse::<16384>(Sender::JoiningAll, 1000);
}

#[test]
fn messages_in_pieces_are_put_together() {
    converse::<512>(Sender::Splitting, 1000);
}
