//! Many messages in one read: each with its own descriptors, none left behind, however they were sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_std::server::{End, Progress};
use vhost_std::socket::Socket;
use vhost_tests::descriptors::{leaves_nothing_open, open_descriptors};
use vhost_tests::dialog::{self, FakeFrontend, event, memory};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, table};
use vhost_tests::wire::{REQUEST, REQUEST_NEEDING_REPLY};

use crate::support::{Bench, Dialog, Image, id, message, number, server, state};

/// A message and its descriptors.
type Sent<'d> = (&'static str, Vec<u8>, Vec<BorrowedFd<'d>>);

/// Everything from the memory to the first request of the guest, and a channel of the back-end's own.
fn whole_start<'d>(memory: &'d GuestMemory, ring: &'d Ring, channel: &'d OwnedFd) -> Vec<Sent<'d>> {
    let event = || ring.event_payload();
    vec![
        ("SET_VRING_CALL", event(), vec![ring.call.as_fd()]),
        ("SET_VRING_ERR", event(), vec![ring.error.as_fd()]),
        ("SET_BACKEND_REQ_FD", vec![], vec![channel.as_fd()]),
        ("SET_MEM_TABLE", table(&[memory.region(), memory.region()][..1]), vec![memory.as_fd()]),
        ("SET_VRING_NUM", ring.num_payload(), vec![]),
        ("SET_VRING_BASE", ring.base_payload(), vec![]),
        ("SET_VRING_ADDR", ring.address_payload(), vec![]),
        ("SET_VRING_KICK", event(), vec![ring.kick.as_fd()]),
        ("SET_VRING_ENABLE", ring.state_payload(1), vec![]),
    ]
}

#[test]
fn a_whole_start_is_read_ahead_and_every_descriptor_finds_its_message() {
    leaves_nothing_open("read_ahead::a_whole_start_is_read_ahead_and_every_descriptor_finds_its_message", || {
        let image = Image::new();
        for threads in crate::support::ALL_THREADS {
            let mut server = image.server(1, threads);
            let memory = Arc::new(GuestMemory::new(BLOCK));
            let mut ring = Ring::new(&memory, 0, 8);
            let mut bench = Bench::negotiated(&mut server);
            let before = open_descriptors().len();
            let (ours, theirs) = dialog::Socket::pair();
            let theirs = OwnedFd::from(theirs);
            let sent = whole_start(&memory, &ring, &theirs);
            let names = Vec::from_iter(sent.iter().map(|(name, ..)| *name));
            for (name, payload, descriptors) in &sent {
                bench.frontend().send(&message(name, REQUEST_NEEDING_REPLY, payload), descriptors);
            }
            drop(sent);
            drop(theirs);
            let _ = bench.process();
            for name in names {
                assert_eq!(bench.frontend().receive_reply(id(name)).number(), 0, "{name}");
            }
            ring.request(0, Command::Flush, 0);
            ring.kick();
            assert_eq!(bench.wait_used(&mut ring), (0, 1));
            drop((bench, ours));
            assert_eq!(open_descriptors().len(), before - 2, "not even the connection is left");
        }
    });
}

#[test]
fn descriptors_that_are_not_wanted_are_refused_without_harm_to_the_messages_around() {
    leaves_nothing_open(
        "read_ahead::descriptors_that_are_not_wanted_are_refused_without_harm_to_the_messages_around",
        || {
            let mut server = server(2);
            let mut bench = Bench::negotiated(&mut server);
            let before = open_descriptors();
            let (events, memory) = ([event(), event(), event()], memory(4096));
            let [first, second, third] = &events;
            let enable = |ring| message("SET_VRING_ENABLE", REQUEST_NEEDING_REPLY, &state(ring, 0));
            let call = |ring| message("SET_VRING_CALL", REQUEST_NEEDING_REPLY, &number(ring));
            let frontend = bench.frontend();
            frontend.send(&enable(0), &[]);
            frontend.send(&enable(1), &[first.as_fd(), second.as_fd(), third.as_fd()]);
            frontend.send(&call(0), &[]);
            frontend.send(&call(1), &[first.as_fd()]);
            frontend.send(&call(0), &[first.as_fd(), second.as_fd()]);
            frontend.send(&call(0), &[memory.as_fd()]);
            frontend.send(&[call(0), enable(0), call(1)].concat(), &[second.as_fd(), third.as_fd()]);
            let _ = bench.process();
            let expected = [(18, 0), (18, 1), (13, 1), (13, 0), (13, 1), (13, 1), (13, 0), (18, 0), (13, 0)];
            for (id, refused) in expected {
                assert_eq!(bench.frontend().receive_reply(id).number(), refused, "{id}");
            }
            drop((events, memory));
            // The two calls that were taken.
            assert_eq!(open_descriptors().len(), before.len() + 2);
        },
    );
}

/// A front-end that asks for more than it reads has its answers as it takes them, and no request is forgotten.
#[test]
fn requests_that_were_read_are_answered_when_there_is_room_again() {
    const COUNT: usize = 4000;
    let mut server = server(1);
    let (ours, theirs) = dialog::Socket::pair();
    rustix::net::sockopt::set_socket_send_buffer_size(&theirs, 4096).unwrap();
    let mut connection = server.connect(Socket::from(theirs));
    let ask = message("GET_FEATURES", REQUEST, &[]).repeat(COUNT / 40);
    let mut stuck = 0;
    let (mut asked, mut answered) = (0, 0);
    while answered < COUNT {
        while asked < COUNT && ours.try_send(&ask, &[]).is_ok() {
            asked += COUNT / 40;
            let _ = connection.process().unwrap();
            if connection.has_unsent() {
                stuck += 1;
                break;
            }
        }
        let _ = connection.process().unwrap();
        assert!(is_readable(ours.stream().as_fd()), "{answered} of {asked}: nobody would wake for the rest");
        while is_readable(ours.stream().as_fd()) {
            assert_eq!(ours.receive().id(), 1);
            answered += 1;
        }
    }
    assert_eq!((asked, answered), (COUNT, COUNT));
    assert!(stuck > 0, "the buffer was never full");
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0
}

/// The loop of the server waits for descriptors, and what it has read is not behind them any more.
#[test]
fn a_server_that_waits_by_itself_does_not_sleep_on_what_it_has_read() {
    let mut server = server(1);
    let (frontend, theirs) = FakeFrontend::pair();
    let stop = event();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.connect(Socket::from(theirs)).run(&stop));
        for count in [1, 2, 63, 64, 65, 200, 342, 343, 1000] {
            let burst = message("GET_FEATURES", REQUEST, &[]).repeat(count);
            // A message that is cut in the middle of the burst's end follows later.
            let (now, later) = burst.split_at(burst.len() - 5);
            frontend.send(now, &[]);
            (1..count).for_each(|_| drop(frontend.receive_reply(1)));
            frontend.send(later, &[]);
            frontend.receive_reply(1);
        }
        drop(frontend);
        assert_eq!(serving.join().unwrap(), Ok(End::PeerClosed));
    });
}

#[test]
fn what_was_answered_before_a_fault_is_said_before_the_end() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let broken = [&message("GET_FEATURES", REQUEST, &[]).repeat(3)[..], &vhost_tests::wire::header(1, 2, 0)].concat();
    let error = bench.fails(&broken, &[]);
    assert!(error.to_string().contains("expected protocol version 1, found 2"), "{error}");
    (0..3).for_each(|_| drop(bench.frontend().receive_reply(1)));
    assert!(!bench.has_reply());
    assert!(matches!(bench.hang_up(), Err(_) | Ok(Progress::Closed)), "the fault stays");
}
