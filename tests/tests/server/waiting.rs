//! A server that waits by itself: nothing that happened before a wait is slept on, and what is closed is not watched.

use core::time::Duration;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use rustix::net::Shutdown;
use vhost_std::eventfd::EventFd;
use vhost_std::server::{BackendServer, End, ServeError};
use vhost_std::socket::Socket;
use vhost_tests::descriptors::leaves_nothing_open;
use vhost_tests::dialog::{self, FakeFrontend, PATIENCE};
use vhost_tests::wire::{REQUEST, feature};

use crate::support::{message, server};

/// Has `server` serve while the front-end talks, and ends it some time after that if it has not ended by itself.
fn serve(
    server: &mut BackendServer,
    socket: OwnedFd,
    talk: impl FnOnce(),
    patience: Duration,
) -> Result<End, ServeError> {
    let stop = EventFd::new().unwrap();
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel();
        let (server, stop) = (&mut *server, &stop);
        scope.spawn(move || ended.send(server.connect(Socket::from(socket)).run(stop)));
        talk();
        end.recv_timeout(patience).or_else(|_| {
            stop.signal().unwrap();
            end.recv()
        })
    })
    .unwrap()
}

#[test]
fn the_end_is_heard_behind_whatever_was_said_before_it() {
    let mut server = server(1);
    for count in [0, 1, 2, 63, 64, 65, 300, 342, 343, 1000] {
        let words = message("SET_OWNER", REQUEST, &[]).repeat(count);
        // Closed before anybody listens, closed while somebody may, and closed in one direction only.
        let (frontend, theirs) = FakeFrontend::pair();
        frontend.send(&words, &[]);
        drop(frontend);
        assert_eq!(serve(&mut server, theirs.into(), || {}, PATIENCE), Ok(End::PeerClosed), "{count}");
        for half in [false, true] {
            let (frontend, theirs) = FakeFrontend::pair();
            let talk = || {
                frontend.barrier();
                frontend.send(&words, &[]);
                if half {
                    rustix::net::shutdown(frontend.stream(), Shutdown::Write).unwrap();
                } else {
                    frontend.stream().shutdown(std::net::Shutdown::Both).unwrap();
                }
            };
            assert_eq!(serve(&mut server, theirs.into(), talk, PATIENCE), Ok(End::PeerClosed), "{count} {half}");
        }
    }
}

/// Every request is answered although the replies fit only a few at a time.
#[test]
fn a_front_end_that_reads_late_has_all_its_answers() {
    const COUNT: usize = 3000;
    let mut server = server(1);
    let (ours, theirs) = dialog::Socket::pair();
    rustix::net::sockopt::set_socket_send_buffer_size(&theirs, 4096).unwrap();
    let end = serve(
        &mut server,
        theirs.into(),
        || {
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| ours.send(&message("GET_FEATURES", REQUEST, &[]).repeat(COUNT), &[]));
                (0..COUNT).for_each(|_| assert_eq!(ours.receive().id(), 1));
                asking.join().unwrap();
            });
            ours.stream().shutdown(std::net::Shutdown::Both).unwrap();
        },
        PATIENCE,
    );
    assert_eq!(end, Ok(End::PeerClosed));
}

/// Descriptors that are watched, in all of this process.
fn watched() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let text = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(entry.unwrap().path()).ok();
    descriptors.filter_map(text).map(|text| text.matches("tfd:").count()).sum()
}

/// The front-end keeps a channel that it has replaced, and something to read in it: for whoever still watched it, for ever.
#[test]
fn a_channel_that_was_replaced_is_not_watched_any_more() {
    leaves_nothing_open("waiting::a_channel_that_was_replaced_is_not_watched_any_more", || {
        let mut server = server(1);
        let (frontend, theirs) = FakeFrontend::pair();
        let mut kept = Vec::new();
        let mut counts = Vec::new();
        let talk = || {
            frontend.negotiate(feature::VERSION_1 | feature::PROTOCOL_FEATURES, feature::BACKEND_REQ);
            frontend.barrier();
            counts.push(watched());
            for _ in 0..5 {
                let (ours, theirs) = dialog::Socket::pair();
                let request = message("SET_BACKEND_REQ_FD", REQUEST, &[]);
                frontend.send(&request, &[theirs.as_fd()]);
                // What waits is not changed before the answers are out.
                (0..2).for_each(|_| assert_ne!(frontend.barrier(), 0));
                counts.push(watched());
                ours.send(b"an answer to nothing", &[]);
                (0..2).for_each(|_| assert_ne!(frontend.barrier(), 0));
                kept.push((ours, theirs));
            }
            frontend.stream().shutdown(std::net::Shutdown::Both).unwrap();
        };
        assert_eq!(serve(&mut server, theirs.into(), talk, PATIENCE), Ok(End::PeerClosed));
        let first = counts[0];
        assert_eq!(counts[1..], [first + 1; 5]);
    });
}
