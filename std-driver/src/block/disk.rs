//! The file or block device behind a disk: what it is, and the operations that are more than reading and writing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, SeekFrom, fallocate, fcntl_getfl, fstat};
use rustix::fs::{fdatasync, ioctl_blkpbszget, ioctl_blksszget, open, seek};
use rustix::io::{Errno, pwrite};

use super::format::SECTOR;
use super::{Access, BlockError};
use crate::file_kind::name_of;
use crate::system_error::SystemError;

/// An open disk image.
#[derive(Debug)]
pub(super) struct Disk {
    file: OwnedFd,
    pub(super) access: Access,
    /// Whole sectors.
    pub(super) sectors: u64,
    pub(super) block_size: u32,
    pub(super) physical_block_size: u32,
    /// A flush leaves no trace that could be seen from outside.
    #[cfg(test)]
    pub(super) flushes: core::sync::atomic::AtomicU32,
}

/// What becomes of the space of a range that is to read as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Keep,
    MayFree,
}

impl Disk {
    pub(super) fn open(path: &Path, access: Access) -> Result<Self, BlockError> {
        let direction = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        let file = open(path, direction | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| BlockError::Open { path: path.to_owned(), errno })?;
        Self::inspect(file, access)
    }

    /// Takes an open descriptor, which must allow what `access` says.
    pub(super) fn from_fd(file: OwnedFd, access: Access) -> Result<Self, BlockError> {
        let opened = fcntl_getfl(&file).map_err(failed("fcntl"))? & OFlags::RWMODE;
        let enough = opened == OFlags::RDWR || (access == Access::ReadOnly && opened == OFlags::RDONLY);
        if !enough {
            return Err(BlockError::WrongAccess { wanted: access });
        }
        Self::inspect(file, access)
    }

    fn inspect(file: OwnedFd, access: Access) -> Result<Self, BlockError> {
        let status = fstat(&file).map_err(failed("fstat"))?;
        let (bytes, block_size, physical_block_size) = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => {
                let physical = u32::try_from(status.st_blksize).unwrap_or(4096).clamp(512, 65536);
                (u64::try_from(status.st_size).unwrap_or(0), SECTOR as u32, physical.next_power_of_two())
            }
            FileType::BlockDevice => {
                let logical = ioctl_blksszget(&file).map_err(failed("BLKSSZGET"))?;
                let physical = ioctl_blkpbszget(&file).map_err(failed("BLKPBSZGET"))?;
                (seek(&file, SeekFrom::End(0)).map_err(failed("lseek"))?, logical, physical)
            }
            found => {
                return Err(BlockError::NotADisk { found: name_of(found) });
            }
        };
        Ok(Self {
            file,
            access,
            sectors: bytes / SECTOR,
            block_size,
            physical_block_size,
            #[cfg(test)]
            flushes: Default::default(),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Makes everything written so far durable.
    pub(super) fn flush(&self) -> Result<(), Errno> {
        #[cfg(test)]
        self.flushes.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        retry(|| fdatasync(&self.file))
    }

    /// Tells that the contents of a range do not matter any more.
    pub(super) fn discard(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry(|| fallocate(&self.file, hole, offset, length)) {
            // A hint that the file system has no use for.
            Err(errno) if cannot(errno) => Ok(()),
            result => result,
        }
    }

    /// Makes a range read as zero.
    pub(super) fn write_zeroes(&self, offset: u64, length: u64, space: Space) -> Result<(), Errno> {
        let how = match space {
            Space::MayFree => FallocateFlags::PUNCH_HOLE,
            Space::Keep => FallocateFlags::ZERO_RANGE,
        };
        match retry(|| fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, offset, length)) {
            Err(errno) if cannot(errno) => self.store_zeroes(offset, length),
            result => result,
        }
    }

    /// For file systems without a better way.
    fn store_zeroes(&self, offset: u64, length: u64) -> Result<(), Errno> {
        static ZEROES: [u8; 65536] = [0; 65536];
        let (mut offset, mut left) = (offset, length);
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROES.len());
            let piece = ZEROES.get(..count).unwrap_or(&ZEROES);
            let written = retry(|| pwrite(&self.file, piece, offset))? as u64;
            if written == 0 {
                return Err(Errno::NOSPC);
            }
            offset = offset.saturating_add(written);
            left = left.saturating_sub(written);
        }
        Ok(())
    }
}

/// True for the errors by which a file system says that it has no such operation.
fn cannot(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV)
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn failed(call: &'static str) -> impl Fn(Errno) -> BlockError {
    move |errno| BlockError::System(SystemError { call, errno })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn disk(bytes: u64) -> (File, Disk) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file.write_all_at(&vec![0x55; usize::try_from(bytes).unwrap()], 0).unwrap();
        let disk = Disk::from_fd(file.try_clone().unwrap().into(), Access::ReadWrite).unwrap();
        (file, disk)
    }

    fn contents(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn every_way_to_zeroes_touches_the_range_only() {
        type Way = fn(&Disk) -> Result<(), Errno>;
        let ways: [(&str, Way); 3] = [
            ("punched", |disk| disk.write_zeroes(4096, 81920, Space::MayFree)),
            ("converted", |disk| disk.write_zeroes(4096, 81920, Space::Keep)),
            ("written", |disk| disk.store_zeroes(4096, 81920)),
        ];
        for (name, way) in ways {
            let (file, disk) = disk(90112);
            way(&disk).unwrap();
            let bytes = contents(&file);
            assert_eq!(bytes.len(), 90112, "{name}");
            assert!(bytes[4096..86016].iter().all(|byte| *byte == 0), "{name}");
            assert!(bytes[..4096].iter().chain(&bytes[86016..]).all(|byte| *byte == 0x55), "{name}");
        }
    }

    /// Bytes that the file takes up on its file system.
    fn space(file: &File) -> u64 {
        file.sync_all().unwrap();
        fstat(file).unwrap().st_blocks.unsigned_abs() * 512
    }

    /// Where the file system of temporary files can punch holes at all, which every common one can.
    #[test]
    fn space_is_freed_only_where_it_may_be() {
        type Way = fn(&Disk) -> Result<(), Errno>;
        const LENGTH: u64 = 1 << 20;
        let ways: [(&str, Way, bool); 3] = [
            ("discard", |disk| disk.discard(0, LENGTH), true),
            ("zeroes that may free", |disk| disk.write_zeroes(0, LENGTH, Space::MayFree), true),
            ("zeroes that keep", |disk| disk.write_zeroes(0, LENGTH, Space::Keep), false),
        ];
        for (name, way, frees) in ways {
            let (file, disk) = disk(2 * LENGTH);
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if fallocate(&file, hole, 2 * LENGTH - 4096, 4096).is_err_and(cannot) {
                return;
            }
            let before = space(&file);
            way(&disk).unwrap();
            let freed = before.saturating_sub(space(&file));
            assert_eq!(freed >= LENGTH / 2, frees, "{name}: {before} bytes, {freed} freed");
        }
    }

    #[test]
    fn only_files_and_block_devices_are_disks() {
        let directory = tempfile::tempdir().unwrap();
        let found = Disk::open(directory.path(), Access::ReadOnly).unwrap_err();
        assert!(matches!(found, BlockError::NotADisk { found: "a directory" }), "{found:?}");
        let found = Disk::open(Path::new("/dev/null"), Access::ReadWrite).unwrap_err();
        assert!(matches!(found, BlockError::NotADisk { found: "a character device" }), "{found:?}");
        let missing = directory.path().join("missing");
        let found = Disk::open(&missing, Access::ReadWrite).unwrap_err();
        assert!(matches!(&found, BlockError::Open { path, errno: Errno::NOENT } if *path == missing), "{found:?}");
    }

    #[test]
    fn a_descriptor_must_allow_what_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, [0; 1500]).unwrap();
        let read_only = || OwnedFd::from(File::open(&path).unwrap());
        let found = Disk::from_fd(read_only(), Access::ReadWrite).unwrap_err();
        assert!(matches!(found, BlockError::WrongAccess { wanted: Access::ReadWrite }), "{found:?}");
        assert_eq!(Disk::from_fd(read_only(), Access::ReadOnly).unwrap().sectors, 2, "whole sectors count");
        let write_only = File::options().write(true).open(&path).unwrap();
        assert!(Disk::from_fd(write_only.into(), Access::ReadOnly).is_err());
    }
}
