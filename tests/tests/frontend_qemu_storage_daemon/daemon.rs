//! qemu-storage-daemon with a disk.

use core::time::Duration;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use vhost_std::deadline::Deadline;
use vhost_std::driver::{BlockClient, BlockClientOptions};
use vhost_std::frontend::Frontend;
use vhost_tests::program::{Running, require};

/// Only a test that fails ever waits so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the disk.
pub(crate) const DISK: u64 = 8 << 20;

pub(crate) fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// A disk that qemu-storage-daemon serves.
pub(crate) struct Daemon {
    process: Running,
    folder: TempDir,
}

pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
}

impl Daemon {
    /// `None` if the program is missing, which the test's output then says.
    pub(crate) fn start(queues: u16, access: Access) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let disk = folder.path().join("disk");
        File::create(&disk).unwrap().set_len(DISK).unwrap();
        Self::serve(folder, queues, access)
    }

    /// Kills the daemon at once and starts another one for the same disk, at the same place.
    pub(crate) fn killed_and_started_again(self, queues: u16) -> Self {
        let Self { process, folder } = self;
        drop(process);
        Self::serve(folder, queues, Access::ReadWrite).unwrap()
    }

    /// Kills the daemon at once; its folder.
    pub(crate) fn kill(self) -> TempDir {
        self.folder
    }

    fn serve(folder: TempDir, queues: u16, access: Access) -> Option<Self> {
        let program = require("qemu-storage-daemon")?;
        let (disk, socket) = (folder.path().join("disk"), folder.path().join("socket"));
        let (blockdev, export) = match access {
            Access::ReadWrite => ("discard=unmap", "writable=on"),
            Access::ReadOnly => ("read-only=on", "writable=off"),
        };
        let blockdev = format!("driver=file,node-name=f,filename={},{blockdev}", disk.display());
        let export = format!(
            "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},{export},num-queues={queues}",
            socket.display()
        );
        let mut process = Running::start(Command::new(program).args(["--blockdev", &blockdev, "--export", &export]));
        process.wait_for_socket(&socket, PATIENCE);
        Some(Self { process, folder })
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    pub(crate) fn connect(&self) -> Frontend {
        let mut frontend = Frontend::connect(self.folder.path().join("socket"), soon()).unwrap();
        frontend.set_timeout(Some(PATIENCE));
        frontend
    }

    pub(crate) fn client(&self, options: BlockClientOptions) -> BlockClient {
        BlockClient::start(self.connect(), options).unwrap()
    }
}
