//! The back-ends, each in a process of its own.

use core::time::Duration;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::deadline::Deadline;
use vhost_std::eventfd::EventFd;
use vhost_std::server::{BackendServer, ServerOptions};
use vhost_std::socket::Listener;
use vhost_tests::program::{Running, require};
use vhost_tests::wire::{HEADER_SIZE, Header, REPLY, feature, header};

use crate::RINGS;

/// Which program answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `recv` and `send`, and nothing else.
    Bare,
    Ours,
    RustVmm,
    Qemu,
}

pub(crate) struct Backend {
    _process: Running,
    folder: TempDir,
}

impl Backend {
    /// `None` if the program is missing.
    pub(crate) fn start(program: Program) -> Option<Self> {
        let folder = TempDir::new_in("/dev/shm").unwrap();
        let (disk, socket) = (folder.path().join("disk"), folder.path().join("socket"));
        File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let mut command = Command::new(match program {
            Program::Bare | Program::Ours => std::env::current_exe().unwrap(),
            Program::RustVmm => crate::rust_vmm::disk(),
            Program::Qemu => require("qemu-storage-daemon")?,
        });
        match program {
            Program::Bare => command.arg("bare").arg(&socket),
            Program::Ours => command.arg("ours").arg(&socket).arg(&disk),
            Program::RustVmm => command.arg(&socket).arg(&disk).arg(RINGS.to_string()),
            Program::Qemu => {
                let blockdev = format!("driver=file,node-name=f,filename={}", disk.display());
                let export = "type=vhost-user-blk,id=e,node-name=f,writable=on,addr.type=unix";
                let export = format!("{export},addr.path={},num-queues={RINGS}", socket.display());
                command.args(["--blockdev", &blockdev, "--export", &export])
            }
        };
        let mut process = Running::start(&mut command);
        process.wait_for_socket(&socket, Duration::from_secs(10));
        Some(Self { _process: process, folder })
    }

    pub(crate) fn socket(&self) -> &'static Path {
        // A few of them in the life of the process.
        Box::leak(Box::<PathBuf>::new(self.folder.path().join("socket")))
    }
}

/// Answers every request that wants an answer with one number.
pub(crate) fn serve_bare(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    while let Ok((mut stream, _)) = listener.accept() {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let mut rest = &bytes[..count];
            while let Some(head) = rest.first_chunk::<HEADER_SIZE>() {
                let request = Header::read(*head);
                rest = &rest[HEADER_SIZE + request.size as usize..];
                let number = match request.request {
                    1 => feature::VERSION_1 | feature::PROTOCOL_FEATURES,
                    15 => feature::REPLY_ACK,
                    _ if request.needs_reply() => 0,
                    _ => continue,
                };
                let mut reply = [0; HEADER_SIZE + 8];
                reply[..HEADER_SIZE].copy_from_slice(&header(request.request, REPLY, 8));
                reply[HEADER_SIZE..].copy_from_slice(&number.to_ne_bytes());
                stream.write_all(&reply).unwrap();
            }
        }
    }
}

/// Our disk, for one front-end after another.
pub(crate) fn serve_ours(socket: &Path, file: &Path) {
    let options = BlockOptions { queues: RINGS.into(), ..BlockOptions::default() };
    let disk = BlockDevice::open(file, &options).unwrap();
    let mut server = BackendServer::new(Arc::new(disk), ServerOptions::default()).unwrap();
    let listener = Listener::bind(socket).unwrap();
    let stop = EventFd::new().unwrap();
    loop {
        let socket = listener.accept(Deadline::NEVER).unwrap();
        drop(server.connect(socket).run(&stop));
    }
}
