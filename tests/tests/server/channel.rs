//! The back-end's own requests, on the channel that the front-end opens for them.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_tests::descriptors::{leaves_nothing_open, open_descriptors};
use vhost_tests::dialog::{Socket, event, memory};
use vhost_tests::driver::{BLOCK, GuestMemory, Ring, SECTOR};
use vhost_tests::wire::{self, Layout, REQUEST};

use crate::support::{Bench, Dialog, server};

const CONFIG_CHANGE: u32 = 2;

#[track_caller]
fn assert_told(channel: &Socket) {
    let told = channel.receive();
    assert_eq!((told.id(), told.header().flags, told.payload().len()), (CONFIG_CHANGE, REQUEST, 0));
}

#[test]
fn s36_what_is_said_before_there_is_a_channel_is_said_when_it_opens_and_once() {
    let mut server = server(1);
    let notifier = server.notifier();
    notifier.config_changed().unwrap();
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut bench = Bench::running(&mut server, &memory, &Ring::new(&memory, 0, 16));
    bench.settle();
    notifier.config_changed().unwrap();
    bench.settle();
    let channel = bench.open_channel();
    assert_told(&channel);
    let second = bench.open_channel();
    channel.assert_closed();
    notifier.config_changed().unwrap();
    bench.settle();
    assert_told(&second);
    drop(bench);
    second.assert_closed();
}

/// The specification's section "Suspended device state".
#[test]
fn a_suspended_device_says_nothing_until_a_ring_is_started() {
    let mut server = server(2);
    let notifier = server.notifier();
    let memory = Arc::new(GuestMemory::new(2 * BLOCK));
    let rings = [0, 1].map(|index| Ring::new(&memory, index, 16));
    let mut bench = Bench::running(&mut server, &memory, &rings[0]);
    let channel = bench.open_channel();
    bench.start(&rings[1]);
    bench.stop(&rings[0]);
    notifier.config_changed().unwrap();
    bench.settle();
    assert_told(&channel);
    bench.stop(&rings[1]);
    notifier.config_changed().unwrap();
    bench.settle();
    bench.barrier();
    let mut polled = [PollFd::new(channel.stream(), PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&Timespec::default())), Ok(0), "a suspended device spoke");
    bench.start(&rings[0]);
    bench.settle();
    assert_told(&channel);
}

#[test]
fn s36_a_channel_that_fails_is_closed_and_the_session_goes_on() {
    leaves_nothing_open("channel::s36_a_channel_that_fails_is_closed_and_the_session_goes_on", || {
        let mut server = server(1);
        let mut bench = Bench::negotiated(&mut server);
        let before = open_descriptors();
        for bytes in [
            wire::header(CONFIG_CHANGE, 5, 8).to_vec(),
            [&wire::header(CONFIG_CHANGE, 5, 8)[..], &[0; 8]].concat(),
            wire::header(CONFIG_CHANGE, 0, 0).to_vec(),
            wire::header(CONFIG_CHANGE, 1, 0).to_vec(),
            wire::header(CONFIG_CHANGE, 5, u32::MAX).to_vec(),
        ] {
            let channel = bench.open_channel();
            channel.send(&bytes, &[event().as_fd()]);
            drop(channel);
            bench.settle();
            assert_eq!(open_descriptors(), before, "{bytes:?}");
            bench.barrier();
        }
    });
}

#[test]
fn s36_after_a_channel_that_failed_the_next_one_works() {
    let mut server = server(1);
    let notifier = server.notifier();
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut bench = Bench::running(&mut server, &memory, &Ring::new(&memory, 0, 16));
    let channel = bench.open_channel();
    channel.send(&wire::header(CONFIG_CHANGE, 5, 0), &[]);
    bench.settle();
    channel.assert_closed();
    let channel = bench.open_channel();
    notifier.config_changed().unwrap();
    bench.settle();
    assert_told(&channel);
}

#[test]
fn s36_a_channel_that_is_no_connection_is_of_no_use_and_keeps_nobody_busy() {
    leaves_nothing_open("channel::s36_a_channel_that_is_no_connection_is_of_no_use_and_keeps_nobody_busy", || {
        let mut server = server(1);
        let notifier = server.notifier();
        let mut bench = Bench::negotiated(&mut server);
        let (mut talking, listening) = UnixStream::pair().unwrap();
        talking.write_all(&[0xff; SECTOR]).unwrap();
        let bad: Vec<OwnedFd> = vec![
            memory(4096),
            event(),
            std::io::pipe().unwrap().0.into(),
            std::io::pipe().unwrap().1.into(),
            UnixDatagram::unbound().unwrap().into(),
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
            listening.into(),
        ];
        for descriptor in bad {
            let _ = bench.acknowledged("SET_BACKEND_REQ_FD", &[], &[descriptor.as_fd()]);
            drop(descriptor);
            notifier.config_changed().unwrap();
            bench.settle();
        }
        assert_eq!(bench.barrier(), bench.ask("GET_FEATURES", &[]).fields(Layout::U64).number("value"));
    });
}
