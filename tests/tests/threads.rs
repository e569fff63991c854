//! No thread is started that was not asked for. The only test of its program, because it counts all threads of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::frontend::{Confirmation, Frontend};
use vhost_std::server::{BackendServer, Progress, RingThreads, ServerOptions};
use vhost_std::socket::{Listener, Socket};
use vhost_std::soft::SoftBackend;
use vhost_tests::dialog::PATIENCE;

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// A thread that was joined is still seen for a moment.
#[track_caller]
fn settle(expected: usize) {
    let start = Instant::now();
    while threads() != expected {
        assert!(start.elapsed() < PATIENCE, "{} threads, {expected} expected", threads());
        std::thread::yield_now();
    }
}

/// A disk of four queues.
fn disk() -> Arc<BlockDevice> {
    let image = tempfile::tempfile().unwrap();
    image.set_len(1 << 20).unwrap();
    Arc::new(BlockDevice::from_fd(image.into(), &BlockOptions { queues: 4, ..BlockOptions::default() }).unwrap())
}

fn server(threads: RingThreads) -> BackendServer {
    let mut options = ServerOptions::default();
    options.threads = threads;
    BackendServer::new(disk(), options).unwrap()
}

#[test]
fn no_thread_is_started_that_was_not_asked_for() {
    let before = threads();
    for (asked, started) in [
        (RingThreads::Caller, 0),
        (RingThreads::Shared(0), 1),
        (RingThreads::Shared(1), 1),
        (RingThreads::Shared(3), 3),
        (RingThreads::Shared(u16::MAX), 4),
    ] {
        let soft = SoftBackend::new(disk(), asked).unwrap();
        assert_eq!(threads(), before + started, "a soft back-end of {asked:?}");
        drop(soft);
        settle(before);

        let mut served = server(asked);
        assert_eq!(threads(), before + started, "a server of {asked:?}");
        let (near, far) = Socket::pair().unwrap();
        let mut frontend = Frontend::from_socket(near);
        // Nobody else answers here.
        frontend.set_confirmation(Confirmation::None);
        let mut connection = served.connect(far);
        frontend.set_owner().unwrap();
        assert_eq!(connection.process().unwrap(), Progress::Idle);
        assert_eq!(threads(), before + started, "a connection and a front-end");
        drop((frontend, connection));
        drop(served);
        settle(before);
    }
    let folder = tempfile::tempdir().unwrap();
    let running = server(RingThreads::Caller).spawn(Listener::bind(folder.path().join("socket")).unwrap()).unwrap();
    assert_eq!(threads(), before + 1, "a server on a thread of its own");
    running.stop().unwrap();
    settle(before);
}
