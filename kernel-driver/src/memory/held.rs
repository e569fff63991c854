//! What the kernel may touch at this moment.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vhost_core::uapi::layout::VringAddr;
use vhost_core::{GuestAddress, Logging, RingAddress, RingLayout, UserAddress, VirtioFeatures, VringAddresses};
use vhost_std::memory::{AddressSpace, MappedRegion, MemoryError, MemoryTable};
use vhost_std::system_error::SystemError;

use super::Translations;
use crate::error::KernelError;
use crate::ioctl;

/// Bytes of guest memory that one byte of the log stands for.
const LOGGED_BY_BYTE: u64 = 4096 * 8;

/// Everything that the kernel was given and not told to forget.
#[derive(Debug, Default)]
pub(crate) struct Held {
    features: VirtioFeatures,
    table: MemoryTable,
    /// Tables of before, while requests that were made in them may be under way.
    retired: Option<Vec<MemoryTable>>,
    rings: BTreeMap<u32, Ring>,
    log: Option<Arc<MappedRegion>>,
    pub(crate) translations: Translations,
}

/// What the kernel knows of a ring.
#[derive(Debug, Default)]
struct Ring {
    size: u32,
    placed: Option<Placed>,
}

/// Where a ring is.
#[derive(Debug)]
pub(crate) struct Placed {
    /// The ring's size then, for which the memory was checked.
    size: u32,
    /// The regions of its parts; none where addresses are I/O virtual.
    #[expect(dead_code, reason = "it is held, not looked at")]
    regions: Vec<Arc<MappedRegion>>,
    /// The first guest address behind the used ring in the log.
    logged_to: u64,
}

impl Held {
    pub(crate) fn has_iotlb(&self) -> bool {
        self.features.contains(VirtioFeatures::ACCESS_PLATFORM)
    }

    pub(crate) fn table(&self) -> &MemoryTable {
        &self.table
    }

    pub(super) fn before_features(&mut self, fd: BorrowedFd<'_>, features: VirtioFeatures) -> Result<(), KernelError> {
        if features.contains(VirtioFeatures::LOG_ALL) && self.log.is_none() {
            return Err(KernelError::NoLog);
        }
        if (self.features ^ features).contains(VirtioFeatures::ACCESS_PLATFORM) {
            self.forget_addresses(fd)?;
        }
        Ok(())
    }

    /// Takes the rings' addresses away from the kernel, which would take them for something else from now on.
    fn forget_addresses(&mut self, fd: BorrowedFd<'_>) -> Result<(), SystemError> {
        let placed = self.rings.iter().filter(|(_, ring)| ring.placed.is_some()).map(|(index, _)| *index);
        placed.collect::<Vec<_>>().into_iter().try_for_each(|index| self.forget_addresses_of(fd, index))
    }

    /// Nothing is mapped at address 0, so that a ring which is started there fails.
    pub(super) fn forget_addresses_of(&mut self, fd: BorrowedFd<'_>, index: u32) -> Result<(), SystemError> {
        let nowhere = RingAddress(0);
        ioctl::set_vring_addr(fd, VringAddr::new(index, 0, nowhere, nowhere, nowhere, GuestAddress(0)))?;
        if let Some(ring) = self.rings.get_mut(&index) {
            ring.placed = None;
        }
        Ok(())
    }

    pub(super) fn after_features(&mut self, features: VirtioFeatures) {
        self.features = features;
        // The kernel begins with an empty IOTLB, or ends having one.
        self.translations = Translations::default();
    }

    pub(super) fn after_memory(&mut self, table: &MemoryTable) {
        let before = core::mem::replace(&mut self.table, table.clone());
        if let Some(retired) = &mut self.retired {
            retired.push(before);
        }
    }

    /// From now on tables of before stay until [`finish_requests`](Self::finish_requests).
    pub(crate) fn begin_requests(&mut self) {
        self.retired.get_or_insert_default();
    }

    /// No request is under way.
    pub(crate) fn finish_requests(&mut self) {
        self.retired = None;
    }

    pub(super) fn check_size(&self, ring: u32, size: u32) -> Result<(), KernelError> {
        match self.rings.get(&ring).and_then(|ring| ring.placed.as_ref()) {
            Some(placed) if placed.size < size => {
                Err(KernelError::RingGrows { ring, addressed: placed.size, wanted: size })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn after_size(&mut self, ring: u32, size: u32) {
        self.rings.entry(ring).or_default().size = size;
    }

    /// The argument for the kernel, and what must be held for it.
    pub(super) fn place(&self, index: u32, addresses: &VringAddresses) -> Result<(VringAddr, Placed), KernelError> {
        let size = self.rings.get(&index).map_or(0, |ring| ring.size);
        if size == 0 {
            return Err(KernelError::NoRingSize { ring: index });
        }
        let parts = [(addresses.descriptor, 16), (addresses.available, 2), (addresses.used, 4)];
        if let Some((address, alignment)) = parts.into_iter().find(|(address, to)| !address.0.is_multiple_of(*to)) {
            return Err(KernelError::Misaligned { ring: index, address, alignment });
        }
        // A size that no ring can have is refused by the kernel.
        let [descriptors, available, used] = RingLayout::Split.lengths(u16::try_from(size).unwrap_or(u16::MAX));
        let (flags, logged_to) = match addresses.logging {
            Logging::Off => (0, 0),
            // No log reaches as far as a sum that does not fit.
            Logging::On => (VringAddr::LOG, addresses.log.0.saturating_add(used)),
        };
        if logged_to > 0 {
            let log = self.log.as_ref().ok_or(KernelError::NoLog)?;
            check_log_size(logged_to, log.region().size)?;
        }
        let mut regions = Vec::new();
        let mut here = |address: RingAddress, length| -> Result<RingAddress, KernelError> {
            if self.has_iotlb() {
                return Ok(address);
            }
            let (region, address) = locate(&self.table, UserAddress(address.0), length)?;
            regions.push(Arc::clone(region));
            Ok(RingAddress(address.0))
        };
        let argument = VringAddr::new(
            index,
            flags,
            here(addresses.descriptor, descriptors)?,
            here(addresses.used, used)?,
            here(addresses.available, available)?,
            addresses.log,
        );
        Ok((argument, Placed { size, regions, logged_to }))
    }

    pub(super) fn after_addresses(&mut self, ring: u32, placed: Placed) {
        self.rings.entry(ring).or_default().placed = Some(placed);
    }

    pub(super) fn check_log_for(&self, table: &MemoryTable) -> Result<(), KernelError> {
        match &self.log {
            Some(log) => check_log_size(end_of(table), log.region().size),
            None => Ok(()),
        }
    }

    pub(super) fn check_log(&self, size: u64) -> Result<(), KernelError> {
        let rings = self.rings.values().filter_map(|ring| ring.placed.as_ref()).map(|placed| placed.logged_to);
        let end = rings.max().unwrap_or(0).max(end_of(&self.table));
        check_log_size(end, size)
    }

    pub(super) fn after_log(&mut self, log: &Arc<MappedRegion>) {
        self.log = Some(Arc::clone(log));
    }

    /// The kernel has forgotten everything.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The region that holds `length` bytes at a user address, and their address in this process.
pub(crate) fn locate(
    table: &MemoryTable,
    address: UserAddress,
    length: u64,
) -> Result<(&Arc<MappedRegion>, UserAddress), MemoryError> {
    let guest = table.user_to_guest(address.0, length)?;
    let holder = table.regions().iter().find_map(|mapped| {
        let offset = guest.checked_sub(mapped.region().guest_address.0)?;
        (offset < mapped.region().size).then_some((mapped, offset))
    });
    let not_mapped = MemoryError::NotMapped { space: AddressSpace::User, address: address.0 };
    let (mapped, offset) = holder.ok_or(not_mapped)?;
    Ok((mapped, ioctl::host_address(mapped, offset)))
}

/// The first guest address behind all regions.
fn end_of(table: &MemoryTable) -> u64 {
    let ends =
        table.regions().iter().map(|mapped| mapped.region().guest_address.0.saturating_add(mapped.region().size));
    ends.max().unwrap_or(0)
}

fn check_log_size(end: u64, found: u64) -> Result<(), KernelError> {
    // The kernel sets bits by words of 64.
    let needed = end.div_ceil(LOGGED_BY_BYTE).next_multiple_of(8);
    if needed > found { Err(KernelError::LogTooSmall { needed, found }) } else { Ok(()) }
}
