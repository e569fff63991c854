//! A program that runs for a test.
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

use core::time::Duration;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often a condition is looked at that the system cannot announce.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A started program; it is killed, by its own id, when this value goes.
///
/// What it prints is kept, and shown by every failure here and when the test fails elsewhere.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    /// Becomes readable when the program has ended; cannot come to mean another process.
    process: OwnedFd,
    output: File,
}

impl Running {
    /// Starts `command` without input, its output kept.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::try_start(command, name).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn try_start(command: &mut Command, name: String) -> io::Result<Self> {
        let output = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let mut child = command.spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(process) => Ok(Self { name, child, process, output }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Its id, for `/proc`.
    #[must_use]
    pub fn process_id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has printed so far, on both of its outputs.
    #[must_use]
    pub fn output(&self) -> String {
        text_of(&self.output)
    }

    /// Waits until `condition` holds for what it has printed.
    ///
    /// # Panics
    /// As [`wait_until`](Self::wait_until).
    pub fn wait_for_output(&mut self, what: &str, limit: Duration, condition: impl Fn(&str) -> bool) {
        let output = self.output.try_clone().unwrap_or_else(|error| panic!("the output of {}: {error}", self.name));
        self.wait_until(what, limit, || condition(&text_of(&output)).then_some(()));
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it runs longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        if !self.ends_within(limit) {
            self.fail(&format!("still runs after {limit:?}"));
        }
        self.child.wait().unwrap_or_else(|error| panic!("wait for {}: {error}", self.name))
    }

    /// Asks it to end (SIGTERM), unless it already has, and waits.
    ///
    /// # Panics
    /// If it runs on for longer than `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        // It fails only for a program that has ended, which is what is wanted.
        let _ = pidfd_send_signal(&self.process, Signal::TERM);
        self.wait(limit)
    }

    /// Ends it wherever it is (SIGKILL), and waits.
    ///
    /// # Panics
    /// If it has ended by itself before.
    pub fn kill(&mut self) {
        if self.ends_within(Duration::ZERO) {
            self.fail("has ended by itself");
        }
        // It fails only for a program that has ended, which is what is wanted.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        self.wait(Duration::MAX);
    }

    /// Waits until somebody listens on the Unix socket `path`, without connecting: a server may
    /// take one client only.
    ///
    /// # Panics
    /// If the program ends first, or after `limit`.
    pub fn wait_for_socket(&mut self, path: &Path, limit: Duration) {
        self.wait_until(&format!("listened on {}", path.display()), limit, || listens(path).then_some(()));
    }

    /// Waits until `condition` gives a value, which it is asked for again and again while the
    /// program runs.
    ///
    /// # Panics
    /// If the program ends first, or after `limit`; `what` says in the message what did not happen.
    pub fn wait_until<T>(&mut self, what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let ended = self.ends_within(Duration::ZERO);
            if let Some(value) = condition() {
                return value;
            }
            if ended {
                self.fail(&format!("ended before it {what}"));
            }
            if start.elapsed() >= limit {
                self.fail(&format!("within {limit:?} never {what}"));
            }
            self.ends_within(LOOK_AGAIN);
        }
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let start = Instant::now();
        loop {
            let rest = Timespec::try_from(limit.saturating_sub(start.elapsed())).ok();
            match poll(&mut [PollFd::new(&self.process, PollFlags::IN)], rest.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll for the end of {}: {error}", self.name),
                Ok(ended) => return ended == 1,
            }
        }
    }

    /// Its output follows when this value is dropped by the panic.
    fn fail(&self, what: &str) -> ! {
        panic!("{} (process {}) {what}", self.name, self.child.id());
    }
}

impl Drop for Running {
    #[allow(clippy::print_stderr, reason = "the test runner shows it with the test that failed")]
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} (process {}) printed:\n{}", self.name, self.child.id(), self.output());
        }
    }
}

/// All that stands in a file, as far as it is text.
fn text_of(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().map_or(0, |data| usize::try_from(data.len()).unwrap_or(0))];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(the output cannot be read: {error})"),
    }
}

/// Whether some process of this machine listens on the Unix socket `path`.
fn listens(path: &Path) -> bool {
    /// The kernel's flag for a socket that accepts connections, in the fourth column.
    const ACCEPTS: &str = "00010000";
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut columns = line.split_whitespace();
        columns.nth(3) == Some(ACCEPTS) && columns.nth(3).map(Path::new) == Some(path)
    })
}

#[cfg(test)]
mod tests {
    use core::panic::AssertUnwindSafe;
    use std::os::unix::net::UnixListener;
    use std::panic::catch_unwind;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};

    use super::*;

    /// Never reached where things work.
    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Running {
        Running::start(Command::new("sh").args(["-c", script]))
    }

    fn failure(run: impl FnOnce()) -> String {
        *catch_unwind(AssertUnwindSafe(run)).unwrap_err().downcast::<String>().unwrap()
    }

    #[test]
    fn its_status_and_both_outputs_are_kept() {
        let mut running = shell("echo out; echo err >&2; exit 3");
        assert_eq!(running.wait(LONG).code(), Some(3));
        assert_eq!(running.output(), "out\nerr\n");
    }

    #[test]
    fn it_does_not_outlive_its_value() {
        let running = shell("exec sleep 1000");
        let process = Pid::from_child(&running.child);
        rustix::process::test_kill_process(process).unwrap();
        drop(running);
        assert_eq!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn it_ends_when_asked_to() {
        let mut running = shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
        running.wait_for_output("was ready", LONG, |output| output == "ready\n");
        assert_eq!(running.terminate(LONG).code(), Some(5));
        assert_eq!(running.terminate(LONG).code(), Some(5), "once more changes nothing");
    }

    #[test]
    fn too_long_a_run_fails() {
        let mut running = shell("exec sleep 1000");
        let message = failure(|| _ = running.wait(Duration::from_millis(1)));
        assert!(message.contains("still runs after 1ms"), "{message}");
        let message = failure(|| running.wait_until("sang", Duration::ZERO, || None));
        assert!(message.contains("within 0ns never sang"), "{message}");
    }

    #[test]
    fn a_socket_is_waited_for_until_somebody_listens_and_nobody_connects() {
        let folder = tempfile::tempdir().unwrap();
        let [bound, open] = ["bound", "open"].map(|name| folder.path().join(name));
        let unopened = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&unopened, &SocketAddrUnix::new(&bound).unwrap()).unwrap();
        let listener = UnixListener::bind(&open).unwrap();
        listener.set_nonblocking(true).unwrap();

        let mut running = shell("exit 0");
        running.wait_for_socket(&open, LONG);
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let message = failure(|| running.wait_for_socket(&bound, LONG));
        assert!(message.contains("ended before it listened on"), "{message}");
    }
}
