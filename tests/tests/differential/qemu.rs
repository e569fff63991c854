//! qemu-storage-daemon with a disk.

use core::time::Duration;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use vhost_tests::dialog::Socket;
use vhost_tests::program::{Running, require};
use vhost_tests::wire::REQUEST;

use crate::case::{Case, Said};
use crate::conversation::{hold_at_once, say, sort};
use crate::our_disk::{DISK, QUEUES};
use crate::outcome::{Contents, End, Outcome};
use crate::stage::Offer;

/// Only a test that fails ever waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that qemu-storage-daemon serves to one connection after another.
pub(crate) struct Qemu {
    program: PathBuf,
    process: Running,
    folder: TempDir,
}

impl Qemu {
    /// `None` if the program is missing, which the test's output then says.
    pub(crate) fn start() -> Option<Self> {
        let program = require("qemu-storage-daemon")?;
        let folder = TempDir::new().unwrap();
        File::create(folder.path().join("disk")).unwrap().set_len(DISK).unwrap();
        let process = serve(&program, &folder);
        Some(Self { program, process, folder })
    }

    /// What it says of its version.
    pub(crate) fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    }

    /// Its features and its protocol features.
    pub(crate) fn offer(&self) -> Offer {
        let socket = self.connect();
        let [virtio, protocol] = [1, 15].map(|id| {
            say(&socket, &Said::new(id, REQUEST, &[]));
            socket.receive().number()
        });
        Offer { virtio, protocol }
    }

    /// Holds a conversation on a new connection.
    pub(crate) fn hold(&mut self, case: &Case, offer: Offer) -> Outcome {
        let stage = case.stage.said(offer);
        let outcome = match hold_at_once(&self.connect(), case, &stage) {
            Ok(heard) => sort(case, &stage, Contents::OfTheDevice, heard, Vec::new()),
            // The last resort: nothing else tells that it does nothing any more.
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                self.process = serve(&self.program, &self.folder);
                return Outcome { told: Vec::new(), replies: Vec::new(), end: End::Silent, echoes: 0 };
            }
            Err(error) => panic!("{}: {error}", case.name),
        };
        if outcome.end == End::GoesOn || self.is_well() {
            return outcome;
        }
        self.process.wait(PATIENCE);
        self.process = serve(&self.program, &self.folder);
        Outcome { end: End::Died, ..outcome }
    }

    /// Whether it answers to the next one who asks.
    fn is_well(&self) -> bool {
        let Ok(stream) = UnixStream::connect(self.folder.path().join("socket")) else { return false };
        let socket = Socket::new(stream);
        say(&socket, &Said::new(1, REQUEST, &[]));
        matches!(socket.try_receive(), Ok(Some(_)))
    }

    fn connect(&self) -> Socket {
        Socket::new(UnixStream::connect(self.folder.path().join("socket")).unwrap())
    }
}

fn serve(program: &PathBuf, folder: &TempDir) -> Running {
    let (disk, socket) = (folder.path().join("disk"), folder.path().join("socket"));
    let blockdev = format!("driver=file,node-name=f,filename={}", disk.display());
    let export = format!(
        "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},writable=on,num-queues={QUEUES}",
        socket.display()
    );
    let mut process = Running::start(Command::new(program).args(["--blockdev", &blockdev, "--export", &export]));
    process.wait_for_socket(&socket, PATIENCE);
    process
}
