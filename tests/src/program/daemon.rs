//! The program `vhost-user` with one of its devices.
#![allow(clippy::panic, clippy::unwrap_used, reason = "the tests' own support: a test fails by panicking")]

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Pid;
use tempfile::TempDir;

use super::{Running, built};

/// For a program to begin and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A device in a process of its own.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    folder: TempDir,
}

impl Daemon {
    /// Starts the device with these arguments, and waits until it listens.
    pub fn start(device: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        Self::start_in(TempDir::new().unwrap(), device, arguments)
    }

    /// The same, with its socket in a folder that is there already.
    pub fn start_in(folder: TempDir, device: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        Self::run(Command::new(built("vhost-std", "vhost-user")), folder, device, arguments)
    }

    /// The same by a command that becomes the program, and may have given it another network.
    pub fn run(
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

    /// Where it listens, in the folder that goes when it does.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Its id, for `/proc`.
    #[must_use]
    pub fn process_id(&self) -> Pid {
        self.running.process_id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        self.running.output()
    }

    /// Ends it the way a service is ended; it must have nothing to complain of.
    pub fn end(mut self) {
        let status = self.running.terminate(LIMIT);
        assert!(status.success(), "{status}");
        assert_eq!(self.running.output(), "", "it complained");
    }
}
