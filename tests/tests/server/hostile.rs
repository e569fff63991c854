//! Descriptors that no honest front-end sends: they cost neither the processor nor the other rings anything.

use core::time::Duration;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use vhost_std::server::RingThreads;
use vhost_tests::descriptors::in_own_process;
use vhost_tests::dialog::{PATIENCE, event, memory};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, signal, signals};

use crate::support::{ALL_THREADS, Bench, Dialog, Image};

/// Descriptors that one can wait for, but that are no event counters; and what has to stay open beside them.
fn pollable() -> Vec<(&'static str, OwnedFd, Option<OwnedFd>)> {
    let (pipe, writer) = std::io::pipe().unwrap();
    let (closed_pipe, _) = std::io::pipe().unwrap();
    let (full_reader, full) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
    while rustix::io::write(&full, &[0; 4096]).is_ok() {}
    let (_, broken) = std::io::pipe().unwrap();
    let (mut talking, listening) = UnixStream::pair().unwrap();
    talking.write_all(b"something to read").unwrap();
    let (_, lonely) = UnixStream::pair().unwrap();
    let counter = eventfd(u32::MAX, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE).unwrap();
    let watching = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&watching, &counter, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
    vec![
        ("an empty pipe", pipe.into(), Some(writer.into())),
        ("a pipe whose writer has gone", closed_pipe.into(), None),
        ("a full pipe", full_reader, Some(full)),
        ("a pipe whose reader has gone", broken.into(), None),
        ("a socket with something to read", listening.into(), Some(talking.into())),
        ("a socket whose peer has gone", lonely.into(), None),
        ("a listening socket", TcpListener::bind("127.0.0.1:0").unwrap().into(), None),
        ("an event counter that nobody can empty", counter, None),
        ("a descriptor that waits for others", watching, None),
    ]
}

/// What nothing can wait for.
fn files() -> Vec<(&'static str, OwnedFd)> {
    vec![
        ("a memfd", memory(4096)),
        ("a file", tempfile::tempfile().unwrap().into()),
        ("a directory", std::fs::File::open("/").unwrap().into()),
    ]
}

#[test]
fn a_kick_descriptor_that_nobody_can_wait_for_is_refused_and_the_old_one_stays() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        for (name, file) in files() {
            let reason = bench.refused("SET_VRING_KICK", &ring.event_payload(), &[file.as_fd()]);
            let expected = "a descriptor to wait for was expected, a regular file or directory came";
            assert_eq!(reason, format!("SET_VRING_KICK (12): {expected}"), "{name}");
            ring.request(0, Command::Flush, 0);
            ring.kick();
            assert_eq!(bench.wait_used(&mut ring), (0, 1), "{name}");
        }
    }
}

#[test]
fn a_ring_whose_first_kick_descriptor_is_refused_is_not_started() {
    let mut server = Image::new().server(1, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::negotiated(&mut server);
    bench.share(&[&memory]);
    bench.enable(&ring, 1);
    bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
    bench.grant("SET_VRING_ADDR", &ring.address_payload(), &[]);
    ring.request(0, Command::Flush, 0);
    bench.refused("SET_VRING_KICK", &ring.event_payload(), &[memory.as_fd()]);
    bench.settle();
    assert_eq!(ring.used_index(), 0);
    bench.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
    bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}

#[test]
fn what_is_no_event_counter_is_never_signalled() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::running(&mut server, &memory, &ring);
        let pollable = pollable().into_iter().filter(|(name, ..)| !name.contains("counter"));
        let kept = Vec::from_iter(pollable);
        let descriptors = kept.iter().map(|(name, descriptor, _)| (*name, descriptor.as_fd()));
        let files = files();
        for (what, descriptor) in descriptors.chain(files.iter().map(|(name, file)| (*name, file.as_fd()))) {
            for (name, id) in [("SET_VRING_CALL", 13), ("SET_VRING_ERR", 14)] {
                let reason = bench.refused(name, &ring.event_payload(), &[descriptor]);
                assert!(reason.starts_with(&format!("{name} ({id}): expected an eventfd, got ")), "{what}: {reason}");
            }
        }
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1), "the old ones stay");
    }
}

#[test]
fn a_full_counter_that_would_block_holds_nobody_up() {
    for threads in ALL_THREADS {
        let mut server = Image::new().server(2, threads);
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let mut rings = [0, 1].map(|index| Ring::new(&memory, index, 16));
        let mut bench = Bench::negotiated(&mut server);
        bench.share(&[&memory]);
        for ring in &rings {
            bench.start(ring);
            bench.enable(ring, 1);
        }
        let full = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        assert_eq!(rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()), Ok(8));
        for name in ["SET_VRING_CALL", "SET_VRING_ERR"] {
            bench.grant(name, &rings[0].event_payload(), &[full.as_fd()]);
        }
        // A request, and then a broken ring: both are to be signalled.
        rings[0].request(0, Command::Flush, 0);
        rings[0].kick();
        rings[1].request(0, Command::Flush, 0);
        rings[1].kick();
        assert_eq!(bench.wait_used(&mut rings[1]), (0, 1));
        // Nothing tells of it, and another thread may be at it, so it is looked for.
        let limit = Instant::now() + PATIENCE;
        while rings[0].take_used().is_none() {
            assert!(Instant::now() < limit, "the first request is never done");
            let _ = bench.process();
            std::thread::yield_now();
        }
        rings[0].set_available_index(1000);
        rings[0].kick();
        rings[1].request(0, Command::Flush, 0);
        rings[1].kick();
        assert_eq!(bench.wait_used(&mut rings[1]), (0, 1));
        assert_eq!((bench.stop(&rings[0]), bench.stop(&rings[1])), (1, 2));
    }
}

#[test]
fn with_any_kick_descriptor_there_is_an_end_to_what_is_to_do() {
    let pollable = pollable();
    let count = u16::try_from(pollable.len()).unwrap();
    let mut server = Image::new().server(count, RingThreads::Caller);
    let memory = Arc::new(GuestMemory::new(u64::from(count) * BLOCK));
    let mut rings = Vec::from_iter((0..count).map(|index| Ring::new(&memory, index.into(), 16)));
    let mut bench = Bench::negotiated(&mut server);
    bench.share(&[&memory]);
    for (ring, (name, kick, _)) in rings.iter().zip(&pollable) {
        bench.start(ring);
        bench.grant("SET_VRING_KICK", &ring.event_payload(), &[kick.as_fd()]);
        bench.enable(ring, 1);
        bench.settle();
        assert!(!bench.is_work_due(), "{name}");
    }
    // The peers go: one more look at each, and no more.
    drop(pollable);
    bench.settle();
    for ring in &mut rings {
        ring.request(0, Command::Flush, 0);
        bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
        assert_eq!(bench.wait_used(ring), (0, 1));
    }
}

/// The processor time of this process in some time during which it has nothing to do.
fn idle_time() -> (Duration, Duration) {
    let now = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
    let (wall, processor) = (Instant::now(), now());
    let none = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    assert_eq!(poll(&mut [], Some(&none)), Ok(0));
    (now() - processor, wall.elapsed())
}

#[test]
fn threads_that_have_nothing_to_do_take_no_processor_time_whatever_kicks_them() {
    in_own_process("hostile::threads_that_have_nothing_to_do_take_no_processor_time_whatever_kicks_them", || {
        for threads in [RingThreads::Shared(1), RingThreads::Shared(4)] {
            let pollable = pollable();
            let count = u16::try_from(pollable.len()).unwrap() + 2;
            let mut server = Image::new().server(count, threads);
            let memory = Arc::new(GuestMemory::new(u64::from(count) * BLOCK));
            let mut rings = Vec::from_iter((0..count).map(|index| Ring::new(&memory, index.into(), 16)));
            let mut bench = Bench::negotiated(&mut server);
            bench.share(&[&memory]);
            for ring in &rings {
                bench.start(ring);
                bench.enable(ring, 1);
            }
            for (ring, (_, kick, _)) in rings.iter().zip(&pollable) {
                bench.grant("SET_VRING_KICK", &ring.event_payload(), &[kick.as_fd()]);
            }
            // The last but one is polled, the last one works: nobody is dead.
            let [.., clocked, honest] = &mut rings[..] else { panic!("two more") };
            bench.grant("SET_VRING_KICK", &clocked.no_event_payload(), &[]);
            honest.request(0, Command::Flush, 0);
            honest.kick();
            assert_eq!(bench.wait_used(honest), (0, 1));
            let (processor, wall) = idle_time();
            assert!(processor < wall / 10, "{processor:?} of processor time in {wall:?} without work");

            for ring in &mut rings {
                ring.request(1, Command::Flush, 0);
                bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
                assert_eq!(bench.wait_used(ring), (3, 1));
            }
        }
    });
}

/// A front-end that kicks all the time and asks for nothing gets its share, and the others theirs.
#[test]
fn a_storm_of_kicks_keeps_no_other_ring_from_its_work() {
    let mut server = Image::new().server(2, RingThreads::Shared(1));
    let memory = Arc::new(GuestMemory::new(2 * BLOCK));
    let mut rings = [0, 1].map(|index| Ring::new(&memory, index, 16));
    let mut bench = Bench::negotiated(&mut server);
    bench.share(&[&memory]);
    for ring in &rings {
        bench.start(ring);
        bench.enable(ring, 1);
    }
    /// Ends the storm, also when an assertion fails.
    struct End<'a>(BorrowedFd<'a>);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            signal(self.0);
        }
    }
    let stop = event();
    let storm = rings[0].kick.try_clone().unwrap();
    std::thread::scope(|scope| {
        let end = stop.as_fd();
        scope.spawn(move || {
            while signals(end) == 0 {
                signal(&storm);
                signals(&storm);
            }
        });
        let _end = End(stop.as_fd());
        for _ in 0..100 {
            rings[1].request(0, Command::Flush, 0);
            rings[1].kick();
            assert_eq!(bench.wait_used(&mut rings[1]), (0, 1));
        }
    });
}
