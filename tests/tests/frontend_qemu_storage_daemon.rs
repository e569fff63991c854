//! The front-end and the disk client against a back-end that is not ours: qemu-storage-daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use vhost_core::{ProtocolFeatures, VirtioFeatures, wire::config::Config};
use vhost_std::deadline::Deadline;
use vhost_std::driver::{BlockClient, BlockClientError, BlockClientOptions, BlockRequest, BlockStatus, SECTOR, Unmap};
use vhost_std::frontend::{Confirmation, Frontend, FrontendError, SessionEnd};
use vhost_tests::program::{Running, require};

/// Only a test that fails ever waits so long.
const PATIENCE: Duration = Duration::from_secs(30);
const DISK: u64 = 8 << 20;

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// A disk that qemu-storage-daemon serves.
struct Daemon {
    _process: Running,
    folder: TempDir,
}

enum Access {
    ReadWrite,
    ReadOnly,
}

impl Daemon {
    /// `None` if the program is missing, which the test's output then says.
    fn start(queues: u16, access: Access) -> Option<Self> {
        let program = require("qemu-storage-daemon")?;
        let folder = TempDir::new().unwrap();
        let disk = folder.path().join("disk");
        File::create(&disk).unwrap().set_len(DISK).unwrap();
        Some(Self::restart(&program, folder, queues, access))
    }

    fn restart(program: &std::path::Path, folder: TempDir, queues: u16, access: Access) -> Self {
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
        Self { _process: process, folder }
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn connect(&self) -> Frontend {
        let mut frontend = Frontend::connect(self.folder.path().join("socket"), soon()).unwrap();
        frontend.set_timeout(Some(PATIENCE));
        frontend
    }

    fn client(&self, options: BlockClientOptions) -> BlockClient {
        BlockClient::start(self.connect(), options).unwrap()
    }
}

/// Bytes that differ from sector to sector and from seed to seed.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(step).collect()
}

#[test]
fn features_are_agreed_on_and_the_configuration_is_read() {
    let Some(daemon) = Daemon::start(2, Access::ReadWrite) else { return };
    let mut frontend = daemon.connect();
    let agreed = frontend.negotiate(VirtioFeatures::VERSION_1, ProtocolFeatures::KNOWN).unwrap();
    assert_eq!(agreed.acknowledged, VirtioFeatures::VERSION_1 | VirtioFeatures::PROTOCOL_FEATURES);
    assert_eq!(agreed.protocol, agreed.protocol_offered.intersection(ProtocolFeatures::KNOWN).without_broken());
    assert!(agreed.protocol.contains(ProtocolFeatures::CONFIG | ProtocolFeatures::REPLY_ACK));
    assert_eq!(frontend.get_queue_num().unwrap(), 2);
    assert!(frontend.get_max_mem_slots().unwrap() >= 8);
    let mut config = [0; 57];
    assert_eq!(frontend.get_config(0, &mut config, Config::WRITABLE).unwrap(), 57);
    assert_eq!(u64::from_le_bytes(config[..8].try_into().unwrap()), DISK / SECTOR);
    // More than the disk has is refused, and the session goes on.
    let refused = frontend.get_config(0, &mut [0; 200], Config::WRITABLE).unwrap_err();
    assert!(matches!(refused, FrontendError::Refused { .. }), "{refused}");
    assert_eq!(frontend.get_queue_num().unwrap(), 2);
}

/// Writes through `client` from many places at a time, reads everything back, and leaves the bytes that the disk must have.
fn fill_and_read_back(client: &mut BlockClient) -> Vec<u8> {
    let expected = pattern(7, usize::try_from(DISK).unwrap());
    let queues = client.queues_mut();
    let (share, piece) = (expected.len() / queues.len(), 60 << 10);
    for (queue, share) in queues.iter_mut().zip(expected.chunks(share)) {
        let start = u64::try_from(share.as_ptr().addr() - expected.as_ptr().addr()).unwrap() / SECTOR;
        let pieces = || (start..).step_by(piece / 512).zip(share.chunks(piece));
        let mut write = pieces();
        transfer(queue, || write.next().map(|(sector, data)| BlockRequest::Write { sector, data }), |_, _| ());
        let mut read = pieces();
        let next = || {
            let (sector, data) = read.next()?;
            Some(BlockRequest::Read { sector, length: u32::try_from(data.len()).unwrap() })
        };
        let chunks = Vec::from_iter(share.chunks(piece));
        transfer(queue, next, |number, data| assert!(data == chunks[number], "piece {number} differs"));
    }
    expected
}

/// Makes all requests, as many at a time as the queue takes; all must succeed. `done` gets the number of each and its data.
fn transfer<'d>(
    queue: &mut vhost_std::driver::BlockQueue,
    mut next: impl FnMut() -> Option<BlockRequest<'d>>,
    mut done: impl FnMut(usize, &[u8]),
) {
    let mut first = None;
    let mut waiting = next();
    let mut most = 0;
    while waiting.is_some() || queue.in_flight() > 0 {
        while let Some(request) = waiting {
            match queue.submit(request) {
                Ok(ticket) => _ = first.get_or_insert(ticket),
                Err(BlockClientError::Busy) => break,
                Err(error) => panic!("{error}"),
            }
            waiting = next();
        }
        most = most.max(queue.in_flight());
        let completion = queue.wait(soon()).unwrap().expect("the disk is silent");
        assert_eq!(completion.status(), BlockStatus::Ok);
        let mut data = vec![0; usize::try_from(completion.length()).unwrap()];
        completion.read(&mut data).unwrap();
        done(usize::try_from(completion.ticket() - first.unwrap()).unwrap(), &data);
    }
    assert!(most > 8, "only {most} requests were in flight together");
}

#[test]
fn what_is_written_is_read_back_and_stands_in_the_file() {
    for queues in [1, 4] {
        let Some(daemon) = Daemon::start(queues, Access::ReadWrite) else { return };
        let mut client = daemon.client(BlockClientOptions { queues, ..BlockClientOptions::default() });
        assert_eq!(client.limits().capacity, DISK / SECTOR);
        assert_eq!(client.limits().queues, queues);
        let expected = fill_and_read_back(&mut client);
        for queue in 0..usize::from(queues) {
            let flushed = client.run(queue, BlockRequest::Flush, soon()).unwrap();
            assert_eq!((flushed.status(), flushed.length()), (BlockStatus::Ok, 0));
        }
        assert!(fs::read(daemon.disk()).unwrap() == expected, "the file differs");
    }
}

#[test]
fn rings_work_with_and_without_each_of_their_features() {
    let default = BlockClientOptions::default();
    let (event, indirect) = (VirtioFeatures::RING_EVENT_IDX, VirtioFeatures::RING_INDIRECT);
    for without in [event | indirect, event, indirect, VirtioFeatures::empty()] {
        let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
        let options = BlockClientOptions { features: default.features - without, ..default };
        let mut client = daemon.client(options);
        assert!(!client.agreed().acknowledged.intersects(without));
        assert!(client.agreed().acknowledged.contains((event | indirect) - without));
        let expected = fill_and_read_back(&mut client);
        assert!(fs::read(daemon.disk()).unwrap() == expected, "the file differs");
    }
}

#[test]
fn memory_is_shared_as_a_table_and_region_by_region() {
    for slots in [ProtocolFeatures::CONFIGURE_MEM_SLOTS, ProtocolFeatures::empty()] {
        let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
        let default = BlockClientOptions::default();
        let protocol = (default.protocol - ProtocolFeatures::CONFIGURE_MEM_SLOTS) | slots;
        let mut client = daemon.client(BlockClientOptions { protocol, ..default });
        assert_eq!(client.agreed().protocol.contains(ProtocolFeatures::CONFIGURE_MEM_SLOTS), !slots.is_empty());
        fill_and_read_back(&mut client);
    }
}

#[test]
fn a_disk_tells_its_id_and_forgets_and_zeroes_sectors() {
    let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
    let file = File::options().read(true).write(true).open(daemon.disk()).unwrap();
    file.write_all_at(&pattern(3, 1 << 20), 0).unwrap();
    let mut client = daemon.client(BlockClientOptions::default());
    assert!(client.limits().most_discarded > 64 && client.limits().most_zeroed > 64);

    let id = client.run(0, BlockRequest::GetId, soon()).unwrap();
    let mut name = [0; 20];
    assert_eq!((id.status(), id.read(&mut name).unwrap()), (BlockStatus::Ok, 20));
    assert!(name.starts_with(b"vhost_user_blk"), "{name:?}");
    drop(id);

    let zero = BlockRequest::WriteZeroes { sector: 16, sectors: 32, unmap: Unmap::Forbidden };
    assert_eq!(client.run(0, zero, soon()).unwrap().status(), BlockStatus::Ok);
    let discard = BlockRequest::Discard { sector: 1024, sectors: 128 };
    assert_eq!(client.run(0, discard, soon()).unwrap().status(), BlockStatus::Ok);

    let mut expected = pattern(3, 1 << 20);
    expected[16 * 512..48 * 512].fill(0);
    expected[1024 * 512..1152 * 512].fill(0);
    let mut found = vec![0xff; 1 << 20];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found == expected);
}

#[test]
fn a_read_only_disk_refuses_writes_and_goes_on() {
    let Some(daemon) = Daemon::start(1, Access::ReadOnly) else { return };
    let mut client = daemon.client(BlockClientOptions::default());
    assert!(client.limits().is_read_only);
    let write = BlockRequest::Write { sector: 0, data: &[0xaa; 512] };
    assert_eq!(client.run(0, write, soon()).unwrap().status(), BlockStatus::IoError);
    let read = client.run(0, BlockRequest::Read { sector: 0, length: 512 }, soon()).unwrap();
    let mut data = [0xff; 512];
    assert_eq!((read.status(), read.read(&mut data).unwrap(), data), (BlockStatus::Ok, 512, [0; 512]));
}

#[test]
fn a_queue_goes_on_after_an_error() {
    let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
    let mut client = daemon.client(BlockClientOptions::default());
    for _ in 0..3 {
        let beyond = BlockRequest::Read { sector: DISK / SECTOR, length: 512 };
        assert_eq!(client.run(0, beyond, soon()).unwrap().status(), BlockStatus::IoError);
        let write = BlockRequest::Write { sector: DISK / SECTOR - 1, data: &[0x5a; 512] };
        assert_eq!(client.run(0, write, soon()).unwrap().status(), BlockStatus::Ok);
    }
    assert!(fs::read(daemon.disk()).unwrap().ends_with(&[0x5a; 512]));
}
