//! Postcopy migration: memory that is used before all of it is there.
//!
//! The front-end provides pages when they are touched. It can do so only after it has heard where this process has them, so
//! nothing touches new memory before that is acknowledged (vhost-user, sections "Migration" and "SET_MEM_TABLE").

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vhost_core::{MemoryRegion, UserAddress};

use crate::{
    memory::{MappedRegion, MemoryTable, Userfault},
    system_error::SystemError,
};

/// How far postcopy migration is on this side.
#[derive(Debug, Default)]
pub(super) struct Postcopy {
    userfault: Option<Userfault>,
    /// All memory, of which the front-end has not acknowledged everything yet.
    awaited: Option<MemoryTable>,
}

impl Postcopy {
    /// Begins: the descriptor that the front-end serves faults through.
    pub(super) fn advise(&mut self) -> Result<OwnedFd, SystemError> {
        let userfault = Userfault::new()?;
        let theirs = rustix::io::fcntl_dupfd_cloexec(userfault.as_fd(), 0).map_err(SystemError::of("fcntl"))?;
        self.userfault = Some(userfault);
        Ok(theirs)
    }

    /// Has the front-end provide the pages of a region; the region as the front-end is told of it.
    pub(super) fn register(&mut self, region: &Arc<MappedRegion>) -> Result<MemoryRegion, SystemError> {
        if let Some(userfault) = &mut self.userfault {
            userfault.register(region)?;
        }
        let user_address = UserAddress(region.host_address().addr() as u64);
        Ok(MemoryRegion { user_address, ..*region.region() })
    }

    /// Keeps memory until the front-end acknowledges where it is.
    pub(super) fn keep(&mut self, memory: MemoryTable) {
        self.awaited = Some(memory);
    }

    /// The memory that there will be.
    pub(super) fn awaited(&self) -> Option<&MemoryTable> {
        self.awaited.as_ref()
    }

    /// The front-end has acknowledged: the memory that may be used from now on, if it is new.
    pub(super) fn acknowledged(&mut self) -> Option<MemoryTable> {
        self.awaited.take()
    }

    /// Lets everybody go on who waits for a page, whoever else has the descriptor.
    pub(super) fn end(&mut self) {
        self.userfault = None;
    }
}
