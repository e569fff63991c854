//! The program `vhost-user` with one of its devices.

use core::time::Duration;
use std::path::PathBuf;
use std::process::Command;

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
        let socket = folder.path().join("socket");
        let mut command = Command::new(built("vhost-std", "vhost-user"));
        command.arg(device).arg(format!("--socket-path={}", socket.display())).args(arguments);
        let mut running = Running::start(&mut command);
        running.wait_for_socket(&socket, LIMIT);
        Self { running, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
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
