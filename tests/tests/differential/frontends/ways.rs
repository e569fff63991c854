//! The calls that take more than a line, as both front-ends have them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend as TheirFrontend, VhostUserFrontend};
use vhost::{Result as TheirResult, VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_core::{GuestAddress, MemoryRegion, RingAddress, UserAddress};
use vhost_std::frontend::{Frontend, FrontendError, Logging, VringAddresses};
use vhost_tests::dialog::memory;
use vhost_tests::wire::region::{RING, Region};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub(super) fn done<T>(_: T) -> String {
    "done".to_owned()
}

pub(super) fn presence<T>(descriptor: Option<T>) -> String {
    if descriptor.is_some() { "a descriptor" } else { "none" }.to_owned()
}

pub(super) fn their_event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

pub(super) fn region(region: Region) -> MemoryRegion {
    MemoryRegion::new(GuestAddress(region.guest), region.size, UserAddress(region.user), region.offset)
}

pub(super) fn info(region: Region, file: &OwnedFd) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: region.guest,
        memory_size: region.size,
        userspace_addr: region.user,
        mmap_offset: region.offset,
        mmap_handle: file.as_raw_fd(),
    }
}

pub(super) fn our_table(frontend: &mut Frontend, regions: &[Region]) -> Result<String, FrontendError> {
    let file = memory(1);
    let regions = Vec::from_iter(regions.iter().map(|one| (region(*one), file.as_fd())));
    let mapped = frontend.set_mem_table(&regions)?;
    let bases = Vec::from_iter(mapped.iter().map(|region| region.user_address.0));
    Ok(if bases.is_empty() { done(()) } else { format!("{bases:x?}") })
}

pub(super) fn their_table(frontend: &mut TheirFrontend, regions: &[Region]) -> TheirResult<String> {
    let file = memory(1);
    let regions = Vec::from_iter(regions.iter().map(|region| info(*region, &file)));
    Ok(frontend.set_mem_table(&regions)?.map_or_else(|| done(()), |bases| format!("{bases:x?}")))
}

pub(super) fn our_addition(frontend: &mut Frontend, added: Region) -> Result<String, FrontendError> {
    let mapped = frontend.add_mem_reg(&region(added), memory(1).as_fd())?;
    Ok(mapped.map_or_else(|| done(()), |region| format!("{:x}", region.user_address.0)))
}

pub(super) fn their_addition(frontend: &mut TheirFrontend, added: Region) -> TheirResult<String> {
    let file = memory(1);
    Ok(frontend.add_mem_region(&info(added, &file))?.map_or_else(|| done(()), |base| format!("{base:x}")))
}

pub(super) fn our_addresses(
    ring: u8,
    shift: u64,
    logging: Logging,
) -> impl Fn(&mut Frontend) -> Result<String, FrontendError> {
    let [descriptor, used, available] = RING.map(|at| RingAddress(at + shift));
    let log = GuestAddress(if logging == Logging::On { 0x1_1111_2000 } else { 0 });
    move |frontend| {
        frontend.set_vring_addr(ring, &VringAddresses { descriptor, available, used, log, logging }).map(done)
    }
}

pub(super) fn their_addresses(
    ring: usize,
    shift: u64,
    logging: bool,
) -> impl Fn(&mut TheirFrontend) -> TheirResult<String> {
    let [desc_table_addr, used_ring_addr, avail_ring_addr] = RING.map(|at| at + shift);
    move |frontend| {
        let data = VringConfigData {
            queue_max_size: 256,
            queue_size: 256,
            flags: logging.into(),
            desc_table_addr,
            used_ring_addr,
            avail_ring_addr,
            log_addr: logging.then_some(0x1_1111_2000),
        };
        frontend.set_vring_addr(ring, &data).map(done)
    }
}

pub(super) fn our_config(frontend: &mut Frontend, offset: u32, size: usize) -> Result<String, FrontendError> {
    let mut data = vec![0; size];
    let count = frontend.get_config(offset, &mut data, 1)?;
    Ok(format!("{:x?}", &data[..count]))
}

pub(super) fn their_config(frontend: &mut TheirFrontend, offset: u32, size: u32) -> TheirResult<String> {
    let (_, data) = frontend.get_config(offset, size, VhostUserConfigFlags::WRITABLE, &vec![0; size as usize])?;
    Ok(format!("{data:x?}"))
}
