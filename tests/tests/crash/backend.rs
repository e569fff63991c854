//! A back-end's process, and its end.

use std::env;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;
use vhost_std::socket::Socket;

use crate::shuffled;

/// Which program serves the disk.
pub(crate) enum Server {
    /// `vhost-user blk`.
    Tool(PathBuf),
    /// A disk of this program, see [`shuffled`].
    Shuffled,
}

/// A process that serves the disk until it is killed, at the latest when this value goes.
pub(crate) struct Backend(Child);

impl Server {
    /// Starts it; the front-end's end of its connection.
    pub(crate) fn start(&self, disk: &Path) -> (Backend, Socket) {
        let (ours, theirs) = Socket::pair().unwrap();
        let mut command = match self {
            Self::Tool(program) => {
                // A descriptor that other tests' programs do not inherit too.
                let mut command = Command::new("sh");
                command.arg("-c").arg("exec \"$0\" blk --fd=3 --blk-file=\"$1\" 3<&0 </dev/null");
                command.arg(program).arg(disk);
                command
            }
            Self::Shuffled => {
                let mut command = Command::new(env::current_exe().unwrap());
                command.args(["--exact", shuffled::SERVE, "--ignored", "--nocapture"]).env(shuffled::DISK, disk);
                command
            }
        };
        let child = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn().unwrap();
        (Backend(child), ours)
    }
}

impl Backend {
    /// Ends it wherever it is (SIGKILL), and waits until it has ended. It must not have done so before.
    pub(crate) fn kill(mut self) {
        let status = self.end();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "the back-end has ended by itself: {status}");
    }

    fn end(&mut self) -> ExitStatus {
        // What has been waited for is not signalled any more.
        self.0.kill().unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end();
    }
}
