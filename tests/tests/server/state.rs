//! The device's own state moves through a pipe or a socket, while the connection goes on.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vhost_std::device::{Device, DeviceState, Queue, StateError};
use vhost_std::server::{BackendServer, RingThreads, ServerOptions};
use vhost_tests::descriptors::leaves_nothing_open;
use vhost_tests::driver::{BLOCK, GuestMemory, Ring};
use vhost_tests::wire::{Bytes, REQUEST, feature};

use crate::support::{Bench, Dialog, id, message, server};

/// More than a pipe or a socket holds.
const LARGE: usize = 700_000;
/// Bytes that a state may have.
const MOST: usize = 1_000_000;

/// A device that has nothing but a state. It takes none that begins with a zero.
#[derive(Default)]
struct Stateful(Mutex<Vec<u8>>);

impl Device for Stateful {
    fn device_id(&self) -> u32 {
        42
    }
    fn queues(&self) -> u16 {
        1
    }
    fn process(&self, _: &mut Queue<'_>) {}
    fn state(&self) -> Option<&dyn DeviceState> {
        Some(self)
    }
}

impl DeviceState for Stateful {
    fn size_max(&self) -> usize {
        MOST
    }
    fn save(&self) -> Result<Vec<u8>, StateError> {
        Ok(self.0.lock().unwrap().clone())
    }
    fn load(&self, state: &[u8]) -> Result<(), StateError> {
        if state.first() == Some(&0) {
            return Err("a state that begins with a zero".into());
        }
        *self.0.lock().unwrap() = state.to_vec();
        Ok(())
    }
}

fn stateful(state: &[u8]) -> (Arc<Stateful>, BackendServer) {
    let device = Arc::new(Stateful(Mutex::new(state.to_vec())));
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Caller;
    (Arc::clone(&device), BackendServer::new(device, options).unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251 + 1) as u8).collect()
}

/// Begins a transfer, which is granted without a descriptor in return.
#[track_caller]
fn begin(bench: &mut Bench<'_>, direction: u32, channel: impl AsFd) {
    assert_eq!(try_begin(bench, direction, channel), 0x100);
}

fn try_begin(bench: &mut Bench<'_>, direction: u32, channel: impl AsFd) -> u64 {
    let payload = Bytes::new().u32(direction).u32(0).done();
    bench.say(&message("SET_DEVICE_STATE_FD", REQUEST, &payload), &[channel.as_fd()]);
    bench.frontend().receive_reply(id("SET_DEVICE_STATE_FD")).number()
}

const SAVE: u32 = 0;
const LOAD: u32 = 1;

/// A channel by which the back-end writes: our end, its end.
type Readable = fn() -> (Box<dyn Read>, OwnedFd);
/// The other way round.
type Writable = fn() -> (Box<dyn Write>, OwnedFd);

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

const READABLE: [Readable; 2] = [
    || {
        let (ours, theirs) = pipe();
        (Box::new(ours), theirs.into())
    },
    || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Box::new(ours), theirs.into())
    },
];

const WRITABLE: [Writable; 2] = [
    || {
        let (theirs, ours) = pipe();
        (Box::new(ours), theirs.into())
    },
    || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Box::new(ours), theirs.into())
    },
];

#[test]
fn s44_a_state_is_saved_while_the_connection_goes_on() {
    for channel in READABLE {
        for length in [0, 1, 4096, LARGE] {
            let (_, mut server) = stateful(&pattern(length));
            let mut bench = Bench::negotiated(&mut server);
            let (mut ours, theirs) = channel();
            begin(&mut bench, SAVE, theirs);
            bench.barrier();
            let mut saved = Vec::new();
            let mut piece = vec![0; 10_000];
            while saved.len() < length {
                let count = ours.read(&mut piece).unwrap();
                saved.extend_from_slice(&piece[..count]);
                bench.settle();
            }
            assert_eq!(ours.read(&mut piece).unwrap(), 0, "the end of the state is the end of the channel");
            assert!(saved == pattern(length));
            assert_eq!(bench.ask_number("CHECK_DEVICE_STATE"), 0);
            assert_eq!(bench.ask_number("CHECK_DEVICE_STATE"), 1, "that was told already");
        }
    }
}

#[test]
fn s44_a_state_is_loaded_when_its_end_comes() {
    for channel in WRITABLE {
        for length in [0, 1, 4096, LARGE, MOST] {
            let (device, mut server) = stateful(b"before");
            let mut bench = Bench::negotiated(&mut server);
            let (mut ours, theirs) = channel();
            begin(&mut bench, LOAD, theirs);
            for piece in pattern(length).chunks(30_000) {
                ours.write_all(piece).unwrap();
                bench.settle();
            }
            bench.barrier();
            assert_eq!(*device.0.lock().unwrap(), b"before");
            drop(ours);
            assert_eq!(bench.ask_number("CHECK_DEVICE_STATE"), 0);
            assert!(*device.0.lock().unwrap() == pattern(length));
        }
    }
}

#[test]
fn s44_what_goes_wrong_is_told_by_the_check_and_changes_nothing() {
    leaves_nothing_open("state::s44_what_goes_wrong_is_told_by_the_check_and_changes_nothing", || {
        let (device, mut server) = stateful(&pattern(LARGE));
        let mut bench = Bench::negotiated(&mut server);
        let check = |bench: &mut Bench<'_>, expected: &str| {
            assert_eq!(bench.ask_number("CHECK_DEVICE_STATE"), 1, "{expected}");
            let (_, reason) = bench.connection().refusals();
            assert!(reason.unwrap().contains(expected), "{reason:?}, expected {expected}");
        };
        check(&mut bench, "no state was transferred");
        for channel in WRITABLE {
            for (state, expected) in
                [(vec![0; 10], "begins with a zero"), (pattern(MOST + 1), "expected a state of 1000000 bytes at most")]
            {
                let (mut ours, theirs) = channel();
                begin(&mut bench, LOAD, theirs);
                for piece in state.chunks(10_000) {
                    // Closed as soon as it is too long.
                    let _ = ours.write_all(piece);
                    bench.settle();
                }
                drop(ours);
                check(&mut bench, expected);
            }
            let (mut ours, theirs) = channel();
            begin(&mut bench, LOAD, theirs);
            ours.write_all(&pattern(100)).unwrap();
            check(&mut bench, "has not ended, 100 bytes were moved");
        }
        for channel in READABLE {
            let (ours, theirs) = channel();
            begin(&mut bench, SAVE, theirs);
            check(&mut bench, "has not ended");
            drop(ours);
            let (ours, theirs) = channel();
            begin(&mut bench, SAVE, theirs);
            drop(ours);
            bench.settle();
            check(&mut bench, "");
        }
        assert!(*device.0.lock().unwrap() == pattern(LARGE));
        // Another one takes the place of one that has not ended.
        let (_left, theirs) = READABLE[0]();
        begin(&mut bench, SAVE, theirs);
        let (ours, theirs) = WRITABLE[0]();
        begin(&mut bench, LOAD, theirs);
        drop(ours);
        assert_eq!(bench.ask_number("CHECK_DEVICE_STATE"), 0);
        assert!(device.0.lock().unwrap().is_empty());
    });
}

#[test]
fn s44_a_state_moves_only_through_a_channel_and_while_the_rings_are_stopped() {
    leaves_nothing_open("state::s44_a_state_moves_only_through_a_channel_and_while_the_rings_are_stopped", || {
        let (_, mut server) = stateful(b"state");
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::negotiated(&mut server);
        for direction in [SAVE, LOAD] {
            assert_eq!(try_begin(&mut bench, direction, &*memory), 0x101, "a file");
            assert!(bench.connection().refusals().1.unwrap().contains("a pipe or a socket"));
        }
        let (ours, theirs) = WRITABLE[0]();
        begin(&mut bench, LOAD, theirs);
        bench.share(&[&memory]);
        bench.start(&ring);
        drop(ours);
        assert_eq!(bench.ask_number("CHECK_DEVICE_STATE"), 1, "a ring was started before the state was there");
        bench.enable(&ring, 1);
        assert_eq!(try_begin(&mut bench, SAVE, READABLE[0]().1), 0x101, "a ring runs");
        bench.stop(&ring);
        begin(&mut bench, SAVE, READABLE[0]().1);
    });
}

#[test]
fn only_a_device_that_has_a_state_offers_to_move_it() {
    let (_, mut with) = stateful(b"");
    assert_ne!(Bench::new(&mut with).ask_number("GET_PROTOCOL_FEATURES") & feature::DEVICE_STATE, 0);
    let mut without = server(1);
    assert_eq!(Bench::new(&mut without).ask_number("GET_PROTOCOL_FEATURES") & feature::DEVICE_STATE, 0);
}
