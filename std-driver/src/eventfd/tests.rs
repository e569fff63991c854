use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::os::unix::net::UnixStream;

use rustix::event::epoll;
use rustix::fs::{MemfdFlags, fcntl_setfl, memfd_create};
use vhost_tests::program::not_run;

use super::*;

/// What a hostile peer can do to an eventfd that both sides have.
fn make_blocking(event: &EventFd) {
    fcntl_setfl(event, OFlags::empty()).unwrap();
}

/// Raises the counter to the largest value that a write can give it.
fn fill(event: &EventFd) {
    let most = (u64::MAX - 1).to_ne_bytes();
    assert_eq!(rustix::io::write(event, &most), Ok(8));
}

fn found(descriptor: impl Into<OwnedFd>) -> String {
    match EventFd::try_from(descriptor.into()).unwrap_err() {
        EventFdError::WrongKind { found } => found,
        error @ EventFdError::System(_) => panic!("{error}"),
    }
}

#[test]
fn signals_add_up_and_are_taken_once() {
    let event = EventFd::new().unwrap();
    assert_eq!(event.drain(), Ok(0));
    for _ in 0..3 {
        event.signal().unwrap();
    }
    assert_eq!(event.drain(), Ok(3));
    assert_eq!(event.drain(), Ok(0));
}

#[test]
fn a_new_one_is_close_on_exec_and_non_blocking() {
    let event = EventFd::new().unwrap();
    let flags = rustix::io::fcntl_getfd(&event).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert!(fcntl_getfl(&event).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn a_clone_shares_the_counter_and_is_close_on_exec() {
    let event = EventFd::new().unwrap();
    let clone = event.try_clone().unwrap();
    clone.signal().unwrap();
    assert_eq!(event.drain(), Ok(1));
    let flags = rustix::io::fcntl_getfd(&clone).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

// In the next three, a call that blocks would hang the test.

#[test]
fn a_full_counter_counts_as_signalled_in_both_modes() {
    let event = EventFd::new().unwrap();
    fill(&event);
    event.signal().unwrap();
    make_blocking(&event);
    event.signal().unwrap();
    assert_eq!(event.drain(), Ok(u64::MAX - 1));
}

#[test]
fn a_signal_arrives_in_blocking_mode_and_leaves_the_mode_alone() {
    let event = EventFd::new().unwrap();
    make_blocking(&event);
    event.signal().unwrap();
    assert!(!fcntl_getfl(&event).unwrap().contains(OFlags::NONBLOCK));
    assert_eq!(event.drain(), Ok(1));
}

/// The same of a peer, also from several threads, more often than completions are kept, and where signals begin to be frequent.
#[test]
fn an_eventfd_of_a_peer_counts_every_signal() {
    for flags in [EventfdFlags::empty(), EventfdFlags::NONBLOCK] {
        let event = EventFd::try_from(eventfd(0, flags | EventfdFlags::CLOEXEC).unwrap()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..1000).for_each(|_| event.signal().unwrap()));
            }
        });
        assert_eq!(event.drain(), Ok(3000));
        fill(&event);
        event.signal().unwrap();
        event.signal().unwrap();
        // The kernel may count one further than a write can.
        assert!(event.drain().unwrap() >= u64::MAX - 1);
        assert_eq!(event.drain(), Ok(0));
        event.signal().unwrap();
        assert_eq!(event.wait(Deadline::NEVER), Ok(Some(1)));
    }
}

/// A peer that has filled the counter and changes the mode all the time holds up nobody.
#[test]
fn a_signal_does_not_wait_whatever_the_peer_does_between_two_calls() {
    let event = EventFd::try_from(eventfd(0, EventfdFlags::CLOEXEC).unwrap()).unwrap();
    if kernel_signal::signal(event.as_fd()).is_none() {
        return not_run("the system has no asynchronous operations, and there is no such promise without");
    }
    let (theirs, done) = (event.try_clone().unwrap(), AtomicBool::new(false));
    event.drain().unwrap();
    fill(&event);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fcntl_setfl(&theirs, OFlags::NONBLOCK).unwrap();
                fcntl_setfl(&theirs, OFlags::empty()).unwrap();
            }
        });
        let (tell, heard) = std::sync::mpsc::channel();
        let event = &event;
        let signalling = scope.spawn(move || {
            (0..20_000).for_each(|_| event.signal().unwrap());
            tell.send(()).unwrap();
        });
        let in_time = heard.recv_timeout(Duration::from_secs(20));
        done.store(true, Ordering::Relaxed);
        while !signalling.is_finished() {
            theirs.drain().unwrap();
        }
        assert!(in_time.is_ok(), "a signal waited");
    });
}

#[test]
fn draining_an_empty_counter_does_not_wait_in_blocking_mode() {
    let event = EventFd::new().unwrap();
    make_blocking(&event);
    assert_eq!(event.drain(), Ok(0));
    assert_eq!(event.drain_after_poll(), Ok(0));
}

#[test]
fn draining_without_the_flag_takes_the_count_too() {
    let event = EventFd::new().unwrap();
    event.signal().unwrap();
    event.signal().unwrap();
    assert_eq!(event.drain_after_poll(), Ok(2));
    assert_eq!(event.drain_after_poll(), Ok(0));
}

#[test]
fn a_wait_ends_with_a_signal_or_at_the_deadline() {
    let event = EventFd::new().unwrap();
    let passed = Deadline::after(Duration::ZERO);
    assert_eq!(event.wait(passed), Ok(None));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| event.wait(Deadline::NEVER));
        event.signal().unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(Some(1)));
    });
    event.signal().unwrap();
    assert_eq!(event.wait(passed), Ok(Some(1)));
}

#[test]
fn an_eventfd_of_a_peer_is_taken_as_it_is() {
    for flags in [EventfdFlags::empty(), EventfdFlags::NONBLOCK] {
        let descriptor = eventfd(5, flags | EventfdFlags::CLOEXEC).unwrap();
        let mode = fcntl_getfl(&descriptor).unwrap();
        assert_eq!(check_kind_without_proc(descriptor.as_fd()), Ok(()));
        let event = EventFd::try_from(descriptor).unwrap();
        assert_eq!(fcntl_getfl(&event), Ok(mode));
        event.signal().unwrap();
        assert_eq!(event.drain(), Ok(6));
    }
}

#[test]
fn everything_else_is_refused_by_name() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(found(writer).starts_with("pipe:["));
    let (near, _far) = UnixStream::pair().unwrap();
    assert!(found(near).starts_with("socket:["));
    let memory = memfd_create("call", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(found(memory), "/memfd:call (deleted)");
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    assert_eq!(found(poll), "anon_inode:[eventpoll]");
}

#[test]
fn what_a_write_could_harm_is_refused_without_proc_too() {
    let refused = |descriptor: OwnedFd| match check_kind_without_proc(descriptor.as_fd()) {
        Err(EventFdError::WrongKind { found }) => found,
        outcome => panic!("{outcome:?}"),
    };
    assert_eq!(refused(std::io::pipe().unwrap().1.into()), "a pipe");
    assert_eq!(refused(UnixStream::pair().unwrap().0.into()), "a socket");
    let memory = memfd_create("call", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(refused(memory), "a regular file");
    let null = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(refused(null.into()), "a character device");
}
