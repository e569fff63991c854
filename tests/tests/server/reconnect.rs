//! One front-end after another: a device outlives them all, however they go.

use core::time::Duration;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vhost_std::deadline::Deadline;
use vhost_std::device::{Device, Queue};
use vhost_std::eventfd::EventFd;
use vhost_std::server::{BackendServer, End, RingThreads, ServeError, ServerOptions};
use vhost_std::socket::{Listener, Socket, SocketError};
use vhost_tests::descriptors::{in_own_process, leaves_nothing_open};
use vhost_tests::dialog::{FakeFrontend, PATIENCE, event};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, signal, wait_readable};
use vhost_tests::wire::REQUEST;

use crate::support::{ALL_THREADS, Bench, Dialog, EVERYTHING, Image, OFFER, message, server};

/// Negotiates, sets a ring up and reads a sector.
#[track_caller]
fn use_disk(frontend: &mut FakeFrontend) {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    Dialog::negotiate(frontend, OFFER, EVERYTHING);
    frontend.share(&[&memory]);
    Dialog::start(frontend, &ring);
    frontend.enable(&ring, 1);
    ring.request(0, Command::Read(SECTOR as u32), 77);
    ring.kick();
    assert_eq!(ring.wait_used(), (0, SECTOR as u32 + 1));
    assert_eq!(ring.data(0, SECTOR), [77; SECTOR]);
}

#[test]
fn s50_front_ends_come_one_after_another_and_go_as_they_like() {
    for threads in ALL_THREADS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let server = Image::new().server(1, threads);
        let thread = server.spawn(Listener::bind(&path).unwrap()).unwrap();
        for round in 0..20 {
            let mut frontend = FakeFrontend::connect(&path);
            match round % 4 {
                0 => use_disk(&mut frontend),
                1 => frontend.stream().write_all(&message("GET_FEATURES", REQUEST, &[])[..7]).unwrap(),
                2 => (*frontend).send(&[0xff; 64], &[event().as_fd()]),
                // Leaves with a reply that it did not read.
                _ => frontend.request(1, &[], &[]),
            }
        }
        // The second one waits until the first one has gone.
        let mut first = FakeFrontend::connect(&path);
        let mut second = FakeFrontend::connect(&path);
        use_disk(&mut first);
        drop(first);
        use_disk(&mut second);
        thread.stop().unwrap();
        assert!(!path.exists(), "the socket goes with the service");
    }
}

#[test]
fn the_caller_hears_how_each_connection_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = Listener::bind(&path).unwrap();
    let stop = Arc::new(EventFd::new().unwrap());
    let (ends, heard) = mpsc::channel();
    let mut server = server(1);
    thread::scope(|scope| {
        let stopping = Arc::clone(&stop);
        scope.spawn(move || {
            let told = |end: Result<End, ServeError>| ends.send(end.map_err(|error| error.to_string())).unwrap();
            server.listen(&listener, stopping.as_fd(), told).unwrap();
        });
        let next = || heard.recv_timeout(PATIENCE).unwrap();

        drop(FakeFrontend::connect(&path));
        assert_eq!(next(), Ok(End::PeerClosed));

        let frontend = FakeFrontend::connect(&path);
        frontend.send(&message("SET_VRING_CALL", REQUEST, &[])[..5], &[]);
        drop(frontend);
        assert_eq!(next(), Err("the peer closed the connection in the middle of a message".to_owned()));

        let frontend = FakeFrontend::connect(&path);
        frontend.send(&message("GET_FEATURES", 3, &[]), &[]);
        frontend.assert_closed();
        assert_eq!(next(), Err("GET_FEATURES (1): expected protocol version 1, found 3".to_owned()));

        // In the middle of a message too.
        let frontend = FakeFrontend::connect(&path);
        frontend.barrier();
        frontend.send(&message("GET_FEATURES", REQUEST, &[])[..5], &[]);
        stop.signal().unwrap();
        frontend.assert_closed();
        assert_eq!(next(), Ok(End::Stopped));
    });
}

#[test]
fn a_back_end_connects_to_a_front_end_that_listens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let stop = EventFd::new().unwrap();
    let mut server = Image::new().server(1, RingThreads::Shared(1));
    thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let socket = Socket::connect_when_ready(&path, Deadline::after(PATIENCE)).unwrap();
            server.connect(socket).run(&stop)
        });
        let listener = UnixListener::bind(&path).unwrap();
        let mut frontend = FakeFrontend::new(listener.accept().unwrap().0);
        use_disk(&mut frontend);
        drop(frontend);
        assert_eq!(connecting.join().unwrap(), Ok(End::PeerClosed));
    });
}

/// As long as it is not stopped, and however the connections end.
#[test]
fn a_back_end_connects_again_whenever_a_front_end_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let stop = EventFd::new().unwrap();
    let mut server = Image::new().server(1, RingThreads::Shared(1));
    let (ends, heard) = mpsc::channel();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&stop);
        let stopping = stop.try_clone().unwrap();
        let told = |end: Result<End, ServeError>| ends.send(end.is_ok()).unwrap();
        let serving = scope.spawn(move || server.connect_again(&path, &stopping, told));
        let path = folder.path().join("socket");
        for round in 0..6 {
            // Nobody is there, and then somebody who stays for two connections.
            let listener = UnixListener::bind(&path).unwrap();
            let mut frontend = FakeFrontend::new(listener.accept().unwrap().0);
            use_disk(&mut frontend);
            drop(frontend);
            assert!(heard.recv_timeout(PATIENCE).unwrap());
            let frontend = FakeFrontend::new(listener.accept().unwrap().0);
            if round % 2 == 0 {
                frontend.send(&[0xff; 20], &[]);
                frontend.assert_closed();
            }
            drop(frontend);
            assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), round % 2 == 1);
            // A socket that nobody listens at is left behind, and one that is gone.
            drop(listener);
            std::fs::remove_file(&path).unwrap();
        }
        // Somebody who takes nobody: the queue is full.
        let listener = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
        let listener = listener.unwrap();
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        stop.signal().unwrap();
        assert_eq!(serving.join().unwrap(), Ok(()));
    });
}

/// Ends a service even if the test fails, which would wait for it for ever.
pub(crate) struct StopAtEnd<'e>(pub(crate) &'e EventFd);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        let _ = self.0.signal();
    }
}

/// A front-end that waits is served when there is room again; until then the service costs nothing and can be ended.
#[test]
fn a_service_without_descriptors_goes_on_when_there_are_some() {
    in_own_process("reconnect::a_service_without_descriptors_goes_on_when_there_are_some", || {
        const LIMIT: i32 = 16;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        let stop = EventFd::new().unwrap();
        let mut server = server(1);
        let (ends, heard) = mpsc::channel();
        // Every number below the limit is taken, whoever comes and goes; `poll` wants a few to be allowed.
        let mut taken = vec![event()];
        while taken.last().unwrap().as_raw_fd() < LIMIT {
            taken.push(event());
        }
        thread::scope(|scope| {
            let _ending = StopAtEnd(&stop);
            let serving = scope.spawn(|| {
                let told = |end: Result<End, ServeError>| ends.send(end).unwrap();
                server.listen(&listener, &stop, told)
            });
            let limits = getrlimit(Resource::Nofile);
            for _ in 0..2 {
                let frontend = FakeFrontend::connect(&path);
                frontend.barrier();
                let waiting = FakeFrontend::connect(&path);
                setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT as u64), ..limits }).unwrap();
                drop(frontend);
                assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Ok(End::PeerClosed));
                let shortage = heard.recv_timeout(PATIENCE).unwrap().unwrap_err();
                assert!(shortage.to_string().starts_with("accept: "), "{shortage}");
                setrlimit(Resource::Nofile, limits).unwrap();
                waiting.barrier();
                drop(waiting);
                assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Ok(End::PeerClosed));
            }
            let _waiting = FakeFrontend::connect(&path);
            stop.signal().unwrap();
            assert_eq!(serving.join().unwrap(), Ok(()));
        });
    });
}

/// A front-end that never stops talking cannot keep the service from ending.
#[test]
fn a_stop_is_heard_through_any_noise() {
    let (frontend, theirs) = FakeFrontend::pair();
    let mut server = server(1);
    let stop = EventFd::new().unwrap();
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.connect(Socket::from(theirs)).run(&stop));
        let talking = scope.spawn(|| {
            let many = message("SET_OWNER", REQUEST, &[]).repeat(1000);
            while frontend.try_send(&many, &[]).is_ok() {}
        });
        stop.signal().unwrap();
        assert_eq!(serving.join().unwrap(), Ok(End::Stopped));
        talking.join().unwrap();
    });
}

#[test]
fn a_front_end_that_reads_no_reply_is_given_up() {
    let mut server = Image::new().server_with(1, |options| options.reply_timeout = Duration::from_millis(10));
    let (frontend, theirs) = FakeFrontend::pair();
    let mut connection = server.connect(Socket::from(theirs));
    // Until a reply is not taken; the back-end does nothing else meanwhile, and waits for nobody.
    while !connection.has_unsent() {
        frontend.request(1, &[], &[]);
        let _ = connection.process().unwrap();
    }
    let error = loop {
        match connection.process() {
            Ok(_) => thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ServeError::Send(SocketError::TimedOut));
    drop((connection, frontend));
    Bench::negotiated(&mut server).barrier();
}

/// A device that takes a request and keeps it until it is told to go on.
struct Slow {
    taken: EventFd,
    go_on: EventFd,
}

impl Device for Slow {
    fn device_id(&self) -> u32 {
        42
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            self.taken.signal().unwrap();
            self.go_on.wait(Deadline::after(PATIENCE)).unwrap().expect("nobody lets the device go on");
            queue.complete(chain, 1);
        }
    }
}

fn slow() -> (Arc<Slow>, BackendServer) {
    let device = Arc::new(Slow { taken: EventFd::new().unwrap(), go_on: EventFd::new().unwrap() });
    let server = BackendServer::new(device.clone(), ServerOptions::default()).unwrap();
    (device, server)
}

#[test]
fn a_front_end_that_goes_while_a_request_is_under_way_is_followed_by_the_next() {
    leaves_nothing_open(
        "reconnect::a_front_end_that_goes_while_a_request_is_under_way_is_followed_by_the_next",
        || {
            let (device, mut server) = slow();
            let memory = Arc::new(GuestMemory::new(BLOCK));
            for _ in 0..10 {
                let mut ring = Ring::new(&memory, 0, 16);
                let bench = Bench::running(&mut server, &memory, &ring);
                ring.request(0, Command::Flush, 0);
                ring.request(1, Command::Flush, 0);
                ring.kick();
                wait_readable(&device.taken);
                device.taken.drain().unwrap();
                thread::scope(|scope| {
                    // The connection ends with the batch.
                    let ending =
                        scope.spawn(|| assert!(device.taken.wait(Deadline::after(PATIENCE)).unwrap().is_some()));
                    let go_on = device.go_on.try_clone().unwrap();
                    scope.spawn(move || {
                        go_on.signal().unwrap();
                        ending.join().unwrap();
                        go_on.signal().unwrap();
                    });
                    drop(bench);
                });
                // Completed or not, what is written is written before the connection has ended.
                let used = ring.used_index();
                assert_eq!(used, 2);
            }
        },
    );
}

#[test]
fn a_ring_is_stopped_when_the_request_under_way_is_done() {
    let (device, server) = slow();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let thread = server.spawn(Listener::bind(&path).unwrap()).unwrap();
    let mut frontend = FakeFrontend::connect(&path);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    Dialog::negotiate(&mut frontend, OFFER, EVERYTHING);
    frontend.share(&[&memory]);
    Dialog::start(&mut frontend, &ring);
    frontend.enable(&ring, 1);
    ring.request(0, Command::Flush, 0);
    ring.kick();
    wait_readable(&device.taken);
    Dialog::request(&mut frontend, "GET_VRING_BASE", &ring.state_payload(0), &[]);
    assert_eq!(ring.used_index(), 0);
    device.go_on.signal().unwrap();
    assert_eq!(frontend.receive_reply(11).payload(), ring.state_payload(1));
    assert_eq!(ring.take_used(), Some((0, 1)));
    signal(&ring.kick);
    drop(frontend);
    thread.stop().unwrap();
}
