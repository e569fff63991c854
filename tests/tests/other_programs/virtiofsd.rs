//! virtiofsd behind our front-end: a file system without a mount, by FUSE messages in our rings.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use vhost_core::{ProtocolFeatures, VirtioFeatures};
use vhost_tests::program::{Running, require};

use crate::machine::{Machine, PATIENCE};

/// The queue of requests; the first one is for urgent messages.
const REQUESTS: usize = 1;

/// The directory that is shared.
const ROOT: u64 = 1;
/// `ENOENT`, as an answer has it.
const NO_ENTRY: i32 = -2;

/// Numbers of FUSE messages.
mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const DESTROY: u32 = 38;
}

/// Bytes of the header before each answer: length, error, number of the message.
const ANSWER: usize = 16;

/// A file system, by its driver.
struct FileSystem {
    machine: Machine,
    messages: u64,
}

impl FileSystem {
    fn connect(socket: &Path, features: VirtioFeatures) -> Self {
        let protocol = ProtocolFeatures::MQ
            | ProtocolFeatures::REPLY_ACK
            | ProtocolFeatures::CONFIGURE_MEM_SLOTS
            | ProtocolFeatures::DEVICE_STATE;
        let machine = Machine::connect(socket, 2, features, protocol);
        assert_eq!(machine.agreed.protocol, protocol);
        Self { machine, messages: 0 }
    }

    /// A message about a node.
    fn message(&mut self, opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        self.messages += 1;
        let length = u32::try_from(40 + body.len()).unwrap();
        // Length, opcode, number, node; user, group and process; no extension.
        let header =
            [&length.to_ne_bytes()[..], &opcode.to_ne_bytes(), &self.messages.to_ne_bytes(), &node.to_ne_bytes()];
        [&header.concat(), &[0; 16][..], body].concat()
    }

    /// Asks for something of a node; what was answered, of `room` bytes at most.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8], room: u32) -> Result<Vec<u8>, i32> {
        let message = self.message(opcode, node, body);
        let answer = self.machine.queues[REQUESTS].ask(&message, room + ANSWER as u32);
        assert_eq!(number(&answer, 0, 4), answer.len() as u64, "the answer's length");
        assert_eq!(number(&answer, 8, 8), self.messages, "the answer to another message");
        match number(&answer, 4, 4) as u32 as i32 {
            0 => Ok(answer[ANSWER..].to_vec()),
            error => Err(error),
        }
    }

    /// `FUSE_INIT`: the version that both speak.
    fn init(&mut self) -> [u64; 2] {
        // Version 7.31, no read-ahead, no options, and what came later.
        let body = [7_u32, 31, 0, 0].map(u32::to_ne_bytes).concat();
        let answer = self.ask(opcode::INIT, 0, &body, 64).unwrap();
        [number(&answer, 0, 4), number(&answer, 4, 4)]
    }

    /// `FUSE_LOOKUP`: node, inode number and size.
    fn look_up(&mut self, name: &str) -> Result<[u64; 3], i32> {
        let answer = self.ask(opcode::LOOKUP, ROOT, &[name.as_bytes(), &[0]].concat(), 128)?;
        assert_eq!(answer.len(), 128);
        Ok([0, 40, 48].map(|at| number(&answer, at, 8)))
    }

    /// `FUSE_OPEN` for reading and writing: a handle.
    fn open(&mut self, node: u64) -> u64 {
        number(&self.ask(opcode::OPEN, node, &[2, 0, 0, 0, 0, 0, 0, 0], 16).unwrap(), 0, 8)
    }

    fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Vec<u8> {
        self.ask(opcode::READ, node, &access(handle, offset, size), size).unwrap()
    }

    fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) {
        let size = u32::try_from(data.len()).unwrap();
        let answer = self.ask(opcode::WRITE, node, &[&access(handle, offset, size), data].concat(), 8).unwrap();
        assert_eq!(number(&answer, 0, 4), u64::from(size));
    }

    fn release(&mut self, node: u64, handle: u64) {
        assert_eq!(self.ask(opcode::RELEASE, node, &[&handle.to_ne_bytes()[..], &[0; 16]].concat(), 0), Ok(vec![]));
    }
}

/// Handle, offset, size, and flags and an owner that are none.
fn access(handle: u64, offset: u64, size: u32) -> Vec<u8> {
    [&handle.to_ne_bytes()[..], &offset.to_ne_bytes(), &size.to_ne_bytes(), &[0; 20]].concat()
}

/// A number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let mut number = [0; 8];
    number[..length].copy_from_slice(&bytes[at..at + length]);
    u64::from_le_bytes(number)
}

#[test]
fn our_front_end_reads_and_writes_files_of_virtiofsd() {
    let Some(program) = require("virtiofsd") else { return };
    let rings = VirtioFeatures::RING_EVENT_IDX | VirtioFeatures::RING_INDIRECT | VirtioFeatures::RING_PACKED;
    for features in [rings, VirtioFeatures::RING_INDIRECT, VirtioFeatures::RING_EVENT_IDX, VirtioFeatures::empty()] {
        let folder = TempDir::new().unwrap();
        let [socket, shared] = ["socket", "shared"].map(|name| folder.path().join(name));
        fs::create_dir(&shared).unwrap();
        let mut contents = Vec::from_iter((0..200_000_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8));
        fs::write(shared.join("file"), &contents).unwrap();
        let mut daemon = Running::start(
            Command::new(&program)
                .args(["--sandbox=none", "--seccomp=none", "--inode-file-handles=never", "--socket-path"])
                .arg(&socket)
                .arg("--shared-dir")
                .arg(&shared),
        );
        daemon.wait_for_socket(&socket, PATIENCE);

        let mut system = FileSystem::connect(&socket, features);
        assert_eq!(system.machine.frontend.get_queue_num().unwrap(), 2);
        let [major, minor] = system.init();
        assert!(major == 7 && minor >= 27, "FUSE {major}.{minor}");
        assert_eq!(system.look_up("nothing"), Err(NO_ENTRY));
        let [node, inode, size] = system.look_up("file").unwrap();
        let file = fs::metadata(shared.join("file")).unwrap();
        assert_eq!((inode, size), (file.ino(), contents.len() as u64));

        let handle = system.open(node);
        for offset in (0..size + 30_000).step_by(30_000) {
            let start = contents.len().min(usize::try_from(offset).unwrap());
            let end = contents.len().min(start + 30_000);
            assert!(system.read(node, handle, offset, 30_000) == contents[start..end], "the bytes at {offset}");
        }
        // Stopped and started again, the rings go on where they were, with the same session.
        system.machine.stop();
        system.machine.start();
        let (at, written) = (123_456, [0x5a; 5000]);
        system.write(node, handle, at as u64, &written);
        contents[at..][..written.len()].copy_from_slice(&written);
        assert!(system.read(node, handle, 100_000, 60_000) == contents[100_000..160_000]);
        system.release(node, handle);
        assert!(fs::read(shared.join("file")).unwrap() == contents);

        let end = system.message(opcode::DESTROY, 0, &[]);
        assert!(system.machine.queues[REQUESTS].ask(&end, ANSWER as u32).is_empty(), "virtiofsd never answers that");
        system.machine.stop();
        drop(system);
        // It serves one front-end, and ends with it.
        assert!(daemon.wait(PATIENCE).success());
    }
}
