//! The back-ends that are compared, each in a process of its own.

use core::time::Duration;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::process::Pid;
use tempfile::{NamedTempFile, TempDir};
use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::deadline::Deadline;
use vhost_std::driver::{BlockClient, BlockClientOptions};
use vhost_std::frontend::Frontend;
use vhost_std::server::{BackendServer, RingThreads, ServerOptions};
use vhost_std::socket::Listener;
use vhost_tests::program::{Running, require};

use crate::processors;

/// Bytes of the disk.
pub(crate) const DISK: u64 = 64 << 20;

/// Which program serves the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Ours,
    /// With a thread for each queue.
    OursThreads,
    /// That looks at its queues for a while before it waits for a kick.
    OursPolling,
    Qemu,
    RustVmm,
    /// Another build of this benchmark.
    Before,
}

pub(crate) const BACKENDS: [Program; 6] =
    [Program::Ours, Program::OursPolling, Program::OursThreads, Program::Before, Program::Qemu, Program::RustVmm];

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursThreads => "ours in threads",
            Self::OursPolling => "ours polling",
            Self::Qemu => "qemu-storage-daemon",
            Self::RustVmm => "rust-vmm",
            Self::Before => "before",
        }
    }
}

/// The file in memory that all back-ends serve: where its pages are in the machine's memory makes a difference of a tenth.
pub(crate) fn disk() -> NamedTempFile {
    let mut file = NamedTempFile::new_in("/dev/shm").unwrap();
    // Every page is there: nobody measures how a file grows.
    file.write_all(&vec![0x5a; usize::try_from(DISK).unwrap()]).unwrap();
    file
}

/// A back-end that runs, and the driver that uses it.
pub(crate) struct Backend {
    pub(crate) client: BlockClient,
    process: Running,
    _folder: TempDir,
}

/// Serves a disk until the front-end goes: what the process of a back-end does.
pub(crate) fn serve(command: &str, socket: &Path, file: &Path, queues: u16) {
    let threads = if command == "threads" { queues } else { 1 };
    let disk = BlockDevice::open(file, &BlockOptions { queues, ..BlockOptions::default() }).unwrap();
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Shared(threads);
    if command == "polling" {
        options.busy_poll = Duration::from_micros(50);
    }
    let mut server = BackendServer::new(Arc::new(disk), options).unwrap();
    let socket = Listener::bind(socket).unwrap().accept(Deadline::NEVER).unwrap();
    server.connect(socket).run(vhost_std::eventfd::EventFd::new().unwrap()).unwrap();
}

impl Backend {
    /// Serves the file `disk`. `None` if the program is missing or not wanted.
    pub(crate) fn start(program: Program, queues: u16, disk: &Path) -> Option<Self> {
        let only = std::env::var("BACKENDS").unwrap_or_default();
        let is_wanted = only.is_empty() || only.split(", ").any(|name| name == program.name());
        if !is_wanted || program == Program::OursThreads && queues == 1 {
            return None;
        }
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("socket");
        let mut command = match program {
            Program::Qemu => {
                let mut command = Command::new(require("qemu-storage-daemon")?);
                let blockdev = format!("driver=file,node-name=f,filename={}", disk.display());
                let export = format!(
                    "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},writable=on,num-queues={queues}",
                    socket.display()
                );
                command.args(["--blockdev", &blockdev, "--export", &export]);
                command
            }
            Program::RustVmm => {
                let mut command = Command::new(crate::rust_vmm::disk());
                command.arg(&socket).arg(disk).arg(queues.to_string());
                command
            }
            Program::Ours | Program::OursThreads | Program::OursPolling | Program::Before => {
                let this = std::env::current_exe().unwrap();
                let other = || std::env::var_os("BEFORE").map(PathBuf::from);
                let mut command = Command::new(if program == Program::Before { other()? } else { this });
                let how = match program {
                    Program::OursThreads => "threads",
                    Program::OursPolling => "polling",
                    _ => "one-thread",
                };
                command.arg(how).arg(&socket).arg(disk).arg(queues.to_string());
                command
            }
        };
        // One thread for each queue has its use where there are more processors.
        let mut process = match program {
            Program::OursThreads => Running::start(&mut command),
            _ => processors::on(0, || Running::start(&mut command)),
        };
        process.wait_for_socket(&socket, Duration::from_secs(10));
        let mut frontend = Frontend::connect(&socket, Deadline::after(Duration::from_secs(10))).unwrap();
        frontend.set_timeout(Some(Duration::from_secs(10)));
        let default = BlockClientOptions::default();
        let options = BlockClientOptions {
            queues,
            queue_size: 128,
            slots: 32,
            slot_size: 4096,
            // All of them can split rings.
            features: default.features - vhost_core::VirtioFeatures::RING_PACKED,
            ..default
        };
        let client = BlockClient::start(frontend, options).unwrap();
        Some(Self { client, process, _folder: folder })
    }

    /// Microseconds of processor that the back-end has used.
    pub(crate) fn processor(&self) -> f64 {
        let tasks = format!("/proc/{}/task", Pid::as_raw(Some(self.process.process_id())));
        let threads = fs::read_dir(tasks).unwrap().filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        });
        threads.sum::<f64>() / 1e3
    }
}
