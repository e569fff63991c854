//! The program `vhost-user` with one of its devices.

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Pid;
use tempfile::TempDir;
use vhost_tests::program::{Running, built};

/// For a whole guest, under software emulation on a machine that is busy with other things too. Only a hang reaches it.
pub(crate) const GUEST_LIMIT: Duration = Duration::from_secs(240);
/// For a program to begin and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A device in a process of its own.
pub(crate) struct Daemon {
    running: Running,
    folder: TempDir,
}

impl Daemon {
    /// Starts the device with these arguments, and waits until it listens.
    pub(crate) fn start(device: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        Self::start_in(TempDir::new().unwrap(), device, arguments)
    }

    /// The same, with its socket in a folder that is there already.
    pub(crate) fn start_in(folder: TempDir, device: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        Self::run(Command::new(built("vhost-std", "vhost-user")), folder, device, arguments)
    }

    /// The same by a command that becomes the program, and may have given it another network.
    pub(crate) fn run(
        mut command: Command,
        folder: TempDir,
        device: &str,
        arguments: impl IntoIterator<Item = String>,
    ) -> Self {
        let socket = folder.path().join("socket");
        command.arg(device).arg(format!("--socket-path={}", socket.display())).args(arguments);
        let mut running = Running::start(&mut command);
        // Each network has its own list of sockets.
        let sockets = format!("/proc/{}/net/unix", running.process_id());
        let listens = || {
            let sockets = fs::read_to_string(&sockets).unwrap_or_default();
            // The fourth column's flag: it accepts connections.
            let line = sockets.lines().find(|line| line.ends_with(&socket.display().to_string()))?;
            (line.split_whitespace().nth(3) == Some("00010000")).then_some(())
        };
        running.wait_until(&format!("listened on {}", socket.display()), LIMIT, listens);
        Self { running, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn process_id(&self) -> Pid {
        self.running.process_id()
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.running.output()
    }

    /// Ends it the way a service is ended; it must have nothing to complain of.
    pub(crate) fn end(mut self) {
        let status = self.running.terminate(LIMIT);
        assert!(status.success(), "{status}");
        assert_eq!(self.running.output(), "", "it complained");
    }
}
