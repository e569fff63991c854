//! Our server with a disk.

use std::fs::File;
use std::sync::Arc;

use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::server::{BackendServer, Connection, Progress, RingThreads, ServerOptions};

use crate::conversation::Served;

/// Queues of both disks.
pub(crate) const QUEUES: u16 = 2;
/// Bytes of both disks.
pub(crate) const DISK: u64 = 8 << 20;

/// A disk whose rings are processed in the thread of the test.
pub(crate) fn server() -> BackendServer {
    let file: File = tempfile::tempfile().unwrap();
    file.set_len(DISK).unwrap();
    let block = BlockOptions { queues: QUEUES, ..BlockOptions::default() };
    let device = BlockDevice::from_fd(file.into(), &block).unwrap();
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Caller;
    BackendServer::new(Arc::new(device), options).unwrap()
}

/// One connection to it.
pub(crate) struct OurDisk<'s> {
    connection: Connection<'s>,
    /// Refusals that were told of.
    refusals: u64,
}

impl<'s> OurDisk<'s> {
    pub(crate) fn new(connection: Connection<'s>) -> Self {
        Self { connection, refusals: 0 }
    }
}

impl Served for OurDisk<'_> {
    fn serve(&mut self) -> bool {
        loop {
            match self.connection.process() {
                Ok(Progress::Idle) => return true,
                Ok(Progress::Busy) => {}
                Ok(Progress::Closed) | Err(_) => return false,
            }
        }
    }

    /// How many requests were refused.
    fn take_told(&mut self) -> Vec<String> {
        let (all, _) = self.connection.refusals();
        let new = all - core::mem::replace(&mut self.refusals, all);
        (0..new).map(|_| "refused".to_owned()).collect()
    }
}
