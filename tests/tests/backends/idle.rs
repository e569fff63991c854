//! Whoever has nothing to do uses no processor.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;

use rustix::process::Pid;
use rustix::thread::gettid;
use vhost_core::VhostBackend;
use vhost_std::deadline::Deadline;
use vhost_std::eventfd::EventFd;
use vhost_std::frontend::Frontend;
use vhost_std::server::{BackendServer, End, RingThreads, ServerOptions};
use vhost_std::socket::Socket;
use vhost_tests::dialog::PATIENCE;
use vhost_tests::program::{Running, built};

use crate::driver::{Driver, Request, pattern};
use crate::subject::{Image, Subject};

/// How long nothing may happen to be called idle. It is measured, not waited for: a slow machine makes nobody busy.
const INTERVAL: Duration = Duration::from_millis(200);

/// Nanoseconds that threads have run, and how often they were given a processor.
#[derive(Debug, PartialEq)]
struct Used {
    nanoseconds: u64,
    turns: u64,
}

/// What all threads in `tasks` have used, a folder such as `/proc/self/task`.
fn used(tasks: &[PathBuf]) -> Used {
    let mut used = Used { nanoseconds: 0, turns: 0 };
    for task in tasks {
        let text = fs::read_to_string(task.join("schedstat")).unwrap();
        let numbers = Vec::from_iter(text.split_whitespace().map(|number| number.parse::<u64>().unwrap()));
        used.nanoseconds += numbers[0];
        used.turns += numbers[2];
    }
    used
}

/// Waits for an interval in which none of these threads ran at all.
fn becomes_idle(what: &str, tasks: impl Fn() -> Vec<PathBuf>) {
    let start = Instant::now();
    loop {
        let (threads, before) = (tasks(), used(&tasks()));
        std::thread::sleep(INTERVAL);
        let after = used(&tasks());
        if threads == tasks() && after == before {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what} is never idle: {before:?}, then {after:?}");
    }
}

fn all_threads(process: Pid) -> Vec<PathBuf> {
    let folder = Path::new("/proc").join(process.to_string()).join("task");
    Vec::from_iter(fs::read_dir(folder).unwrap().map(|task| task.unwrap().path()))
}

struct Connected(Frontend);

impl Subject for Connected {
    type Backend = Frontend;

    fn start(_: &Image, _: u16) -> Option<Self> {
        None
    }

    fn backend(&mut self) -> &mut Frontend {
        &mut self.0
    }
}

/// Starts the disk and does a little with it.
fn work(frontend: Frontend, queues: u16) -> (Connected, Driver) {
    let mut connected = Connected(frontend);
    VhostBackend::set_owner(connected.backend()).unwrap();
    let mut driver = Driver::new(queues);
    driver.bring_up(connected.backend());
    for queue in &mut driver.queues {
        queue.run(&mut connected, Request::Write(0, &pattern(1)));
    }
    (connected, driver)
}

#[test]
fn a_daemon_is_idle_before_during_and_after_a_session_without_requests() {
    let image = Image::new();
    let mut command = Command::new(built("vhost-std", "vhost-user"));
    command.args(["blk", "--threads=2", "--num-queues=3"]);
    command.arg(format!("--socket-path={}", image.socket().display()));
    command.arg(format!("--blk-file={}", image.path().display()));
    let mut daemon = Running::start(&mut command);
    daemon.wait_for_socket(&image.socket(), PATIENCE);
    let process = daemon.process_id();
    becomes_idle("a daemon without a front-end", || all_threads(process));
    // The main thread and the two that were asked for.
    assert_eq!(all_threads(process).len(), 3);

    let mut frontend = Frontend::connect(image.socket(), Deadline::after(PATIENCE)).unwrap();
    frontend.set_timeout(Some(PATIENCE));
    let (mut connected, mut driver) = work(frontend, 3);
    becomes_idle("a daemon with a front-end", || all_threads(process));
    assert_eq!(all_threads(process).len(), 3);
    driver.queues[0].run(&mut connected, Request::Read(0));
    assert!(driver.queues[0].data(0) == pattern(1));

    drop(connected);
    becomes_idle("a daemon whose front-end has gone", || all_threads(process));
}

#[test]
fn a_server_that_processes_its_rings_on_the_callers_thread_is_idle_between_requests() {
    let image = Image::new();
    let (near, far) = Socket::pair().unwrap();
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Caller;
    let mut server = BackendServer::new(std::sync::Arc::new(image.device(2)), options).unwrap();
    let stop = EventFd::new().unwrap();
    let (tell, thread) = mpsc::channel();
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            tell.send(gettid()).unwrap();
            server.connect(far).run(&stop)
        });
        let task = Path::new("/proc/self/task").join(thread.recv().unwrap().to_string());
        becomes_idle("a server of a silent front-end", || vec![task.clone()]);
        let mut frontend = Frontend::from_socket(near);
        frontend.set_timeout(Some(PATIENCE));
        let (mut connected, mut driver) = work(frontend, 2);
        becomes_idle("a server with running rings", || vec![task.clone()]);
        driver.queues[1].run(&mut connected, Request::Flush);
        drop(connected);
        assert_eq!(served.join().unwrap(), Ok(End::PeerClosed));
    });
}
