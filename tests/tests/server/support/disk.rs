//! A disk to serve.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vhost_core::Tolerance;
use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::server::{BackendServer, RingThreads, ServerOptions};
use vhost_tests::driver::SECTOR;

/// Sectors of an [`Image`].
const SECTORS: usize = 128;

/// Everybody who can process the rings.
pub(crate) const ALL_THREADS: [RingThreads; 3] = [RingThreads::Shared(1), RingThreads::Shared(4), RingThreads::Caller];

/// A disk's file: each sector is filled with its number.
pub(crate) struct Image(File);

impl Image {
    pub(crate) fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        let contents = Vec::from_iter((0..SECTORS * SECTOR).map(|at| u8::try_from(at / SECTOR).unwrap()));
        file.write_all_at(&contents, 0).unwrap();
        Self(file)
    }

    /// What is in the file from a sector on.
    pub(crate) fn read(&self, sector: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, sector * SECTOR as u64).unwrap();
        bytes
    }

    /// A writable disk of so many queues, served by these threads.
    pub(crate) fn server(&self, queues: u16, threads: RingThreads) -> BackendServer {
        self.server_with(queues, |options| options.threads = threads)
    }

    /// A writable disk of so many queues, served with these options.
    pub(crate) fn server_with(&self, queues: u16, change: impl FnOnce(&mut ServerOptions)) -> BackendServer {
        let block = BlockOptions { queues, ..BlockOptions::default() };
        let device = BlockDevice::from_fd(self.0.try_clone().unwrap().into(), &block).unwrap();
        let mut options = ServerOptions::default();
        change(&mut options);
        BackendServer::new(Arc::new(device), options).unwrap()
    }
}

/// A disk that nobody looks into, with so many queues; whoever takes a step processes them.
pub(crate) fn server(queues: u16) -> BackendServer {
    Image::new().server(queues, RingThreads::Caller)
}

/// A disk of one queue whose server lets pass what `tolerance` says.
pub(crate) fn tolerant(tolerance: Tolerance) -> BackendServer {
    Image::new().server_with(1, |options| (options.threads, options.tolerance) = (RingThreads::Caller, tolerance))
}
