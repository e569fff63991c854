//! What a disk tells about itself, and when what it wrote is durable.

use super::{Access, BlockDevice, BlockError, BlockOptions, feature};
use crate::device::{ConfigRefused, Device};

fn disk(options: &BlockOptions) -> BlockDevice {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    BlockDevice::from_fd(file.into(), options).unwrap()
}

fn config(device: &BlockDevice, offset: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; length];
    device.read_config(offset, &mut bytes);
    bytes
}

const WRITEBACK: u32 = 32;

#[test]
fn features_follow_the_options() {
    let common = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY | feature::CONFIG_WCE;
    let changes = feature::DISCARD | feature::WRITE_ZEROES;
    let one = disk(&BlockOptions::default());
    assert_eq!((one.features(), one.queues(), one.device_id()), (common | changes, 1, 2));
    let many = disk(&BlockOptions { queues: 4, ..BlockOptions::default() });
    assert_eq!((many.features(), many.queues()), (common | changes | feature::MQ, 4));
    let read_only = disk(&BlockOptions { access: Access::ReadOnly, ..BlockOptions::default() });
    assert_eq!(read_only.features(), common | feature::RO);
}

#[test]
fn the_configuration_tells_the_size_and_reads_zero_past_its_end() {
    let device = disk(&BlockOptions { queues: 4, ..BlockOptions::default() });
    assert_eq!(device.capacity(), 1 << 20);
    assert_eq!(device.config_size(), 60);
    assert_eq!(config(&device, 0, 8), 2048_u64.to_le_bytes());
    assert_eq!(config(&device, 34, 2), [4, 0]);
    assert_eq!(config(&device, 56, 6), [1, 0, 0, 0, 0, 0]);
    assert_eq!(config(&device, u32::MAX, 3), [0; 3]);
}

#[test]
fn only_the_cache_mode_can_be_written() {
    let device = disk(&BlockOptions::default());
    assert_eq!(config(&device, WRITEBACK, 1), [1]);
    assert_eq!(device.write_config(WRITEBACK, &[0]), Ok(()));
    assert_eq!(config(&device, WRITEBACK, 1), [0]);
    let bad: [(u32, &[u8]); 6] =
        [(0, &[1]), (31, &[1]), (33, &[1]), (WRITEBACK, &[2]), (WRITEBACK, &[1, 0]), (WRITEBACK, &[])];
    for (offset, data) in bad {
        let refused = ConfigRefused { offset, length: data.len() };
        assert_eq!(device.write_config(offset, data), Err(refused));
    }
    assert_eq!(config(&device, WRITEBACK, 1), [0]);
    assert_eq!(device.write_config(WRITEBACK, &[1]), Ok(()));
    assert_eq!(config(&device, WRITEBACK, 1), [1]);
}

#[test]
fn the_cache_is_used_only_by_drivers_that_can_flush() {
    let device = disk(&BlockOptions::default());
    assert!(device.is_write_through(), "before anything was acknowledged");
    device.features_acknowledged(feature::FLUSH);
    assert!(!device.is_write_through());
    device.features_acknowledged(feature::FLUSH | feature::CONFIG_WCE);
    assert!(!device.is_write_through());
    device.write_config(WRITEBACK, &[0]).unwrap();
    assert!(device.is_write_through(), "the driver switched it off");
    device.write_config(WRITEBACK, &[1]).unwrap();
    assert!(!device.is_write_through());

    device.features_acknowledged(feature::CONFIG_WCE);
    assert!(device.is_write_through());
    assert_eq!(config(&device, WRITEBACK, 1), [0], "and says so");

    device.reset();
    assert!(device.is_write_through());
    device.features_acknowledged(feature::FLUSH | feature::CONFIG_WCE);
    assert!(device.is_write_through(), "a reset does not take the choice back");
    assert_eq!(config(&device, WRITEBACK, 1), [0]);
}

#[test]
fn options_out_of_range_are_refused() {
    let open = |options: &BlockOptions| BlockDevice::from_fd(tempfile::tempfile().unwrap().into(), options);
    let long = BlockOptions { serial: "x".repeat(21), ..BlockOptions::default() };
    assert_eq!(open(&long).unwrap_err(), BlockError::SerialTooLong { length: 21 });
    let none = BlockOptions { queues: 0, ..BlockOptions::default() };
    assert_eq!(open(&none).unwrap_err(), BlockError::NoQueues);
    let full = BlockOptions { serial: "x".repeat(20), ..BlockOptions::default() };
    assert_eq!(open(&full).unwrap().capacity(), 0, "an empty disk is a disk");
}
