//! A disk: a virtio block device over a file or a host block device.
//!
//! ```no_run
//! use std::path::Path;
//! use vhost_std::block::{Access, BlockDevice, BlockOptions};
//!
//! # fn main() -> Result<(), vhost_std::block::BlockError> {
//! let options = BlockOptions { access: Access::ReadOnly, ..BlockOptions::default() };
//! let disk = BlockDevice::open(Path::new("disk.img"), &options)?;
//! println!("{} bytes", disk.capacity());
//! # Ok(())
//! # }
//! ```
//!
//! Requests are carried out one after another per queue, straight between the file and guest memory.

mod config;
mod disk;
pub(crate) mod format;
mod request;
#[cfg(test)]
mod tests_device;
#[cfg(test)]
mod tests_request;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use self::config::Layout;
use self::disk::Disk;
pub use self::format::SECTOR;
use self::format::{SERIAL_BYTES, config::WRITEBACK, feature};
use self::request::{Target, serve};
use crate::device::{ConfigRefused, Device, Queue, copy_config};
use crate::system_error::SystemError;

/// The virtio device type of a block device.
const DEVICE_ID: u32 = 2;

/// What the driver may do with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    #[default]
    ReadWrite,
    /// Read; every write fails.
    ReadOnly,
}

/// How a disk appears to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOptions {
    /// What the driver may do.
    pub access: Access,
    /// Number of queues, 1 or more.
    pub queues: u16,
    /// The disk's name, 20 bytes at most.
    pub serial: String,
}

impl Default for BlockOptions {
    /// A writable disk of one queue, without a name.
    fn default() -> Self {
        Self { access: Access::default(), queues: 1, serial: String::new() }
    }
}

/// A virtio block device over a file or a host block device.
#[derive(Debug)]
pub struct BlockDevice {
    disk: Disk,
    queues: u16,
    serial: [u8; SERIAL_BYTES],
    acknowledged: AtomicU64,
    /// The `writeback` field: the driver's choice when it may choose.
    write_back: AtomicBool,
}

impl BlockDevice {
    /// Opens the file or block device at `path`.
    ///
    /// # Errors
    /// When it cannot be opened, is no disk, or an option is out of its range.
    pub fn open(path: &Path, options: &BlockOptions) -> Result<Self, BlockError> {
        Self::new(options, |access| Disk::open(path, access))
    }

    /// Takes an open file or block device. Of a block device the file position changes.
    ///
    /// # Errors
    /// When it does not allow the wanted access, is no disk, or an option is out of its range.
    pub fn from_fd(fd: OwnedFd, options: &BlockOptions) -> Result<Self, BlockError> {
        Self::new(options, |access| Disk::from_fd(fd, access))
    }

    /// Size of the disk in bytes, a multiple of 512.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.disk.sectors.saturating_mul(SECTOR)
    }

    fn new(options: &BlockOptions, disk: impl FnOnce(Access) -> Result<Disk, BlockError>) -> Result<Self, BlockError> {
        let mut serial = [0; SERIAL_BYTES];
        let name = options.serial.as_bytes();
        serial.get_mut(..name.len()).ok_or(BlockError::SerialTooLong { length: name.len() })?.copy_from_slice(name);
        if options.queues == 0 {
            return Err(BlockError::NoQueues);
        }
        Ok(Self {
            disk: disk(options.access)?,
            queues: options.queues,
            serial,
            acknowledged: AtomicU64::new(0),
            write_back: AtomicBool::new(true),
        })
    }

    /// A driver that cannot flush never learns what is durable, so then everything is at once (specification, 5.2.6.2).
    fn is_write_through(&self) -> bool {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let chosen = acknowledged & feature::CONFIG_WCE == 0 || self.write_back.load(Ordering::Relaxed);
        acknowledged & feature::FLUSH == 0 || !chosen
    }

    fn layout(&self) -> Layout {
        Layout {
            capacity: self.disk.sectors,
            block_size: self.disk.block_size,
            physical_block_size: self.disk.physical_block_size,
            queues: self.queues,
            write_back: self.write_back.load(Ordering::Relaxed),
        }
    }
}

impl Device for BlockDevice {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let always = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY | feature::CONFIG_WCE;
        let queues = if self.queues > 1 { feature::MQ } else { 0 };
        let access = match self.disk.access {
            Access::ReadWrite => feature::DISCARD | feature::WRITE_ZEROES,
            Access::ReadOnly => feature::RO,
        };
        always | queues | access
    }

    fn queues(&self) -> u16 {
        self.queues
    }

    fn config_size(&self) -> u32 {
        config::SIZE as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        copy_config(&self.layout().encode(), offset, data);
    }

    fn write_config(&self, offset: u32, data: &[u8]) -> Result<(), ConfigRefused> {
        let write_back = match data {
            [value @ (0 | 1)] if offset == WRITEBACK as u32 => *value == 1,
            _ => {
                return Err(ConfigRefused { offset, length: data.len() });
            }
        };
        let before = self.write_back.swap(write_back, Ordering::Relaxed);
        // What went into the cache is not durable yet, and from now on nobody will flush it.
        if !write_back && self.disk.flush().is_err() {
            self.write_back.store(before, Ordering::Relaxed);
            return Err(ConfigRefused { offset, length: data.len() });
        }
        Ok(())
    }

    fn features_acknowledged(&self, features: u64) {
        self.acknowledged.store(features, Ordering::Relaxed);
        // Specification, 5.2.5.2: CONFIG_WCE without FLUSH starts with the cache off.
        if features & feature::CONFIG_WCE != 0 && features & feature::FLUSH == 0 {
            self.write_back.store(false, Ordering::Relaxed);
        }
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            let written = serve(Target(self), &chain);
            queue.complete(chain, written);
        }
    }

    /// The driver's choice of the cache stays: QEMU resets a device that it only pauses, and does not make the choice again.
    fn reset(&self) {
        self.acknowledged.store(0, Ordering::Relaxed);
    }
}

/// A disk cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The path cannot be opened.
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// It is neither a regular file nor a block device.
    NotADisk {
        /// What it is, with its article.
        found: &'static str,
    },
    /// The descriptor was not opened for the access that is wanted.
    WrongAccess {
        /// What is wanted; reading is always part of it.
        wanted: Access,
    },
    /// A disk needs a queue.
    NoQueues,
    /// The name has more than 20 bytes.
    SerialTooLong {
        /// Its bytes.
        length: usize,
    },
    /// The system does not tell what it needs to know.
    System(SystemError),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, errno } => write!(f, "open {}: {errno}", path.display()),
            Self::NotADisk { found } => write!(f, "a regular file or block device was expected, {found} came"),
            Self::WrongAccess { wanted: Access::ReadWrite } => {
                f.write_str("a descriptor open for reading and writing was expected")
            }
            Self::WrongAccess { wanted: Access::ReadOnly } => f.write_str("a descriptor open for reading was expected"),
            Self::NoQueues => f.write_str("a disk needs at least one queue"),
            Self::SerialTooLong { length } => {
                write!(f, "serial of {length} bytes, expected at most {SERIAL_BYTES}")
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BlockError {}
