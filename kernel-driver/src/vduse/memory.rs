//! The driver's memory as a served device sees it: regions are mapped as they appear.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use vhost_core::uapi::iotlb::Access;
use vhost_core::uapi::vduse_layout::IovaInfo;
use vhost_core::{GuestAddress, Iova, MemoryRegion, UserAddress};
use vhost_std::memory::{MappedRegion, MemoryFile, MemoryTable};
use vhost_std::system_error::SystemError;

use super::{Region, VduseDevice};
use crate::error::KernelError;

/// The regions that are mapped, at guest addresses that are the I/O virtual ones.
#[derive(Debug, Default)]
pub(super) struct DriverMemory {
    table: MemoryTable,
    /// Whether a change will be told. A driver of `vhost_vdpa` changes its memory with an `UPDATE_IOTLB`; one of
    /// `virtio_vdpa` never does, and its bounce buffer appears with the first request.
    settled: bool,
    /// What the bounce buffer is kept in, if it has this size.
    bounce: Option<MemoryFile>,
}

impl DriverMemory {
    pub(super) fn table(&self) -> &MemoryTable {
        &self.table
    }

    pub(super) fn keep_bounce_buffer_in(&mut self, memory: MemoryFile) {
        self.bounce = Some(memory);
    }

    /// The driver is gone, and with it all that it has shared.
    pub(super) fn forget(&mut self) {
        (self.table, self.settled) = (MemoryTable::default(), false);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// The driver has changed its memory somewhere in `first..=last`: what is there now is mapped anew.
    pub(super) fn change(&mut self, vduse: &VduseDevice, first: Iova, last: Iova) -> Result<(), KernelError> {
        let kept = self.table.regions().iter().filter(|mapped| {
            let (begin, end) = ends(mapped);
            end < first.0 || begin > last.0
        });
        self.table = MemoryTable::new(kept.map(Arc::clone))?;
        self.settled = true;
        self.complete(vduse)?;
        Ok(())
    }

    /// Maps what has appeared; whether anything has. What cannot be mapped keeps nothing else from being.
    pub(super) fn complete(&mut self, vduse: &VduseDevice) -> Result<bool, KernelError> {
        let (mut changed, mut failed) = (false, None);
        let mut next = Some(0);
        while let Some(from) = next {
            // Where the next region that is mapped begins, and what comes behind it.
            let known = self.table.regions().iter().map(|mapped| ends(mapped)).find(|(_, end)| *end >= from);
            let limit = match known {
                Some((begin, end)) if begin <= from => {
                    next = end.checked_add(1);
                    continue;
                }
                // Not zero, as it is more than `from`.
                Some((begin, _)) => begin - 1,
                None => u64::MAX,
            };
            let Some(region) = vduse.region(0, Iova(from), Iova(limit))? else {
                next = limit.checked_add(1);
                continue;
            };
            next = region.last.0.checked_add(1);
            // Mappings are for both ways, so that what the device may not write is out of its reach.
            if !matches!(region.access, Some(Access::Write | Access::ReadWrite)) {
                continue;
            }
            let bounce = is_bounce_buffer(vduse, region.first, region.last);
            self.settled |= bounce;
            match self.map(vduse, region, bounce) {
                Ok(()) => changed = true,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    fn map(&mut self, vduse: &VduseDevice, region: Region, bounce: bool) -> Result<(), KernelError> {
        let own = if bounce { self.own_bounce_buffer(vduse, &region)? } else { None };
        self.table = self.table.insert(own.map_or_else(|| region.map(), Ok)?)?;
        Ok(())
    }

    /// Moves the bounce buffer into memory of this process, if there is some for it.
    fn own_bounce_buffer(&self, vduse: &VduseDevice, buffer: &Region) -> Result<Option<MappedRegion>, KernelError> {
        let size = buffer.last.0.saturating_sub(buffer.first.0).saturating_add(1);
        let Some(memory) = self.bounce.as_ref().filter(|memory| memory.region().size == size) else {
            return Ok(None);
        };
        match vduse.register_user_memory(0, buffer.first, memory.mapped()) {
            // It was registered before a reset, which it outlives.
            Ok(()) | Err(SystemError { errno: Errno::EXIST, .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let region = MemoryRegion::new(GuestAddress(buffer.first.0), size, UserAddress(buffer.first.0), 0);
        let file = memory.as_fd().try_clone_to_owned();
        let failed =
            |error: io::Error| SystemError { call: "fcntl", errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) };
        Ok(Some(MappedRegion::new(region, file.map_err(failed)?)?))
    }
}

/// The first and the last address.
fn ends(mapped: &MappedRegion) -> (u64, u64) {
    let region = mapped.region();
    (region.guest_address.0, region.guest_address.0.saturating_add(region.size - 1))
}

fn is_bounce_buffer(vduse: &VduseDevice, first: Iova, last: Iova) -> bool {
    // A kernel that cannot tell (before Linux 6.0) is asked again and again for what has appeared.
    let info = vduse.region_info(0, first, last);
    matches!(info, Ok(Some(info)) if info.capability() & IovaInfo::USER_MEMORY != 0)
}
