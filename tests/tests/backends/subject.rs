//! Who is tested, and the disk that it serves.

use core::fmt::Debug;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;
use vhost_core::{RingLayout, VhostBackend};
use vhost_std::block::{BlockDevice, BlockOptions};

use vhost_tests::dialog::PATIENCE;

use crate::driver::Driver;

/// Bytes of the disk.
pub(crate) const DISK: u64 = 4 << 20;

/// Somebody who processes the rings of a disk.
pub(crate) trait Subject: Sized {
    type Backend: VhostBackend<Handle = dyn AsFd, Memory = dyn AsFd, Error: Debug>;

    /// A disk of so many queues, on which nobody has called anything. `None` if this machine has no such thing, which was
    /// said then.
    fn start(image: &Image, queues: u16) -> Option<Self>;

    fn backend(&mut self) -> &mut Self::Backend;

    /// Waits until `descriptor` is readable; whoever works on the caller's thread works meanwhile. Fails when it takes too
    /// long.
    fn wait_for(&mut self, descriptor: BorrowedFd<'_>) {
        wait_for_any(&[descriptor]);
    }

    /// Lets whoever works on the caller's thread work, without waiting.
    fn work(&mut self) {}

    /// A driver of so many queues.
    fn driver(queues: u16) -> Driver {
        Driver::new(queues)
    }
}

/// The same with packed rings.
pub(crate) struct Packed<S>(S);

impl<S: Subject> Subject for Packed<S> {
    type Backend = S::Backend;

    fn start(image: &Image, queues: u16) -> Option<Self> {
        S::start(image, queues).map(Self)
    }

    fn backend(&mut self) -> &mut S::Backend {
        self.0.backend()
    }

    fn wait_for(&mut self, descriptor: BorrowedFd<'_>) {
        self.0.wait_for(descriptor);
    }

    fn work(&mut self) {
        self.0.work();
    }

    fn driver(queues: u16) -> Driver {
        Driver::with(queues, RingLayout::Packed)
    }
}

/// Waits until one of them is readable.
pub(crate) fn wait_for_any(descriptors: &[BorrowedFd<'_>]) {
    let limit = Timespec::try_from(PATIENCE).unwrap();
    let mut polled = Vec::from_iter(descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
    let ready = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&limit))).unwrap();
    assert!(ready > 0, "nothing happens any more");
}

/// The file behind the disk.
pub(crate) struct Image {
    folder: TempDir,
    file: File,
}

impl Image {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(folder.path().join("disk")).unwrap();
        file.set_len(DISK).unwrap();
        Self { folder, file }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// A place for a socket beside it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn device(&self, queues: u16) -> BlockDevice {
        let options = BlockOptions { queues, ..BlockOptions::default() };
        BlockDevice::from_fd(self.file.try_clone().unwrap().into(), &options).unwrap()
    }

    pub(crate) fn read(&self, sector: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }
}
