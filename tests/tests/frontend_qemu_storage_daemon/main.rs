//! The front-end and the disk client against a back-end that is not ours: qemu-storage-daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod daemon;
mod failures;
mod load;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use daemon::{Access, DISK, Daemon, soon};
use load::{fill_and_read_back, pattern};
use vhost_core::{ProtocolFeatures, VirtioFeatures, wire::config::Config};
use vhost_std::driver::{BlockClientOptions, BlockRequest, BlockStatus, SECTOR, Unmap};
use vhost_std::frontend::FrontendError;

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
