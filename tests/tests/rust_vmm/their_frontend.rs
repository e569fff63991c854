//! rust-vmm's front-end through a whole session with our back-end, down to the bytes of the disk.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::server::{BackendServer, DeviceNotifier, ServerOptions, ServerThread};
use vhost_std::socket::Listener;
use vhost_tests::dialog;
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR};
use vhost_tests::wire::feature;
use vhost_tests::wire::region::Region;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Sectors of the disk.
const SECTORS: usize = 64;

/// A disk of two queues, each sector of which is filled with its number.
pub(crate) fn serve(path: &Path) -> (ServerThread, DeviceNotifier) {
    let contents = Vec::from_iter((0..SECTORS * SECTOR).map(|at| u8::try_from(at / SECTOR).unwrap()));
    let image = tempfile::tempfile().unwrap();
    rustix::io::pwrite(&image, &contents, 0).unwrap();
    let options = BlockOptions { queues: 2, ..BlockOptions::default() };
    let device = BlockDevice::from_fd(image.into(), &options).unwrap();
    let server = BackendServer::new(Arc::new(device), ServerOptions::default()).unwrap();
    let notifier = server.notifier();
    (server.spawn(Listener::bind(path).unwrap()).unwrap(), notifier)
}

/// Agrees on everything that is offered; what that is. From then on every request is acknowledged.
pub(crate) fn agree(frontend: &mut Frontend) -> VhostUserProtocolFeatures {
    frontend.set_owner().unwrap();
    let offered = frontend.get_features().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(protocol).unwrap();
    let taken = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::INDIRECT_DESCRIPTORS;
    assert_eq!(offered & taken, taken);
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_features(taken).unwrap();
    protocol
}

fn info(memory: &GuestMemory) -> VhostUserMemoryRegionInfo {
    let Region { guest, size, user, offset, .. } = memory.region();
    let mmap_handle = memory.as_fd().as_raw_fd();
    VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: size,
        userspace_addr: user,
        mmap_offset: offset,
        mmap_handle,
    }
}

/// An event counter of theirs in the place of one of ours: both lead to the same one.
fn shared(ours: &mut OwnedFd) -> EventFd {
    let theirs = EventFd::new(EFD_NONBLOCK).unwrap();
    // SAFETY: the descriptor is open as long as `theirs` is, and that outlives the borrow.
    let borrowed = unsafe { BorrowedFd::borrow_raw(theirs.as_raw_fd()) };
    *ours = borrowed.try_clone_to_owned().unwrap();
    theirs
}

fn start(frontend: &mut Frontend, ring: &mut Ring) -> [EventFd; 3] {
    let index = ring.index as usize;
    frontend.set_vring_num(index, ring.size).unwrap();
    frontend.set_vring_base(index, ring.available_index()).unwrap();
    let place = |guest| ring.memory.user(guest);
    let addresses = VringConfigData {
        queue_max_size: ring.size,
        queue_size: ring.size,
        flags: 0,
        desc_table_addr: place(ring.descriptors),
        used_ring_addr: place(ring.used),
        avail_ring_addr: place(ring.available),
        log_addr: None,
    };
    frontend.set_vring_addr(index, &addresses).unwrap();
    let events = [&mut ring.call, &mut ring.error, &mut ring.kick].map(shared);
    let [call, error, kick] = &events;
    frontend.set_vring_call(index, call).unwrap();
    frontend.set_vring_err(index, error).unwrap();
    frontend.set_vring_kick(index, kick).unwrap();
    frontend.set_vring_enable(index, true).unwrap();
    events
}

#[track_caller]
fn read_sector(ring: &mut Ring, sector: u8) {
    ring.request(0, Command::Read(SECTOR as u32), sector.into());
    ring.kick();
    assert_eq!(ring.wait_used(), (0, SECTOR as u32 + 1));
    assert_eq!((ring.status(0), ring.data(0, SECTOR)), (0, vec![sector; SECTOR]));
}

#[test]
fn a_disk_is_used_from_the_first_request_to_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (server, _) = serve(&path);
    for _ in 0..2 {
        let mut frontend = Frontend::connect(&path, 2).unwrap();
        agree(&mut frontend);
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        frontend.set_mem_table(&[info(&memory)]).unwrap();
        let mut rings = [0, 1].map(|index| Ring::new(&memory, index, 16));
        let _events = rings.each_mut().map(|ring| start(&mut frontend, ring));
        for sector in 0..SECTORS {
            read_sector(&mut rings[sector % 2], u8::try_from(sector).unwrap());
        }
        let done = u32::try_from(SECTORS / 2).unwrap();
        for ring in &mut rings {
            frontend.set_vring_enable(ring.index as usize, false).unwrap();
            assert_eq!(frontend.get_vring_base(ring.index as usize).unwrap(), done);
        }
        frontend.reset_device().unwrap();
        frontend.reset_owner().unwrap();
    }
    server.stop().unwrap();
}

#[test]
fn memory_comes_and_goes_while_a_ring_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (server, _) = serve(&path);
    let mut frontend = Frontend::connect(&path, 2).unwrap();
    agree(&mut frontend);
    assert!(frontend.get_max_mem_slots().unwrap() >= 8);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let region = memory.region();
    let far = Region { guest: region.guest << 8, user: region.user + (1 << 36), ..region };
    let added = GuestMemory::at(far);
    assert_eq!(frontend.add_mem_region(&info(&memory)).unwrap(), None);
    let mut ring = Ring::new(&memory, 0, 16);
    let _events = start(&mut frontend, &mut ring);
    for sector in 0..8 {
        assert_eq!(frontend.add_mem_region(&info(&added)).unwrap(), None);
        frontend.add_mem_region(&info(&added)).unwrap_err();
        // The data lies in the region that comes and goes.
        let head = ring.prepare(0, Command::Read(SECTOR as u32), sector);
        ring.descriptor(head + 1, (far.guest, SECTOR as u32), 2 | 1, head + 2);
        ring.offer(head);
        ring.kick();
        assert_eq!(ring.wait_used(), (0, SECTOR as u32 + 1));
        assert_eq!(added.read(far.guest, SECTOR), vec![u8::try_from(sector).unwrap(); SECTOR]);
        frontend.remove_mem_region(&info(&added)).unwrap();
        frontend.remove_mem_region(&info(&added)).unwrap_err();
    }
    read_sector(&mut ring, 63);
    server.stop().unwrap();
}

#[test]
fn configuration_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (server, _) = serve(&path);
    let mut frontend = Frontend::connect(&path, 2).unwrap();
    agree(&mut frontend);
    let (_, data) = frontend.get_config(0, 8, VhostUserConfigFlags::WRITABLE, &[0; 8]).unwrap();
    assert_eq!(data, (SECTORS as u64).to_le_bytes());
    // The size of the disk is not the driver's to change.
    frontend.set_config(0, VhostUserConfigFlags::WRITABLE, &[1; 8]).unwrap_err();
    frontend.get_features().unwrap();
    server.stop().unwrap();
}

/// What is read from the disk is written to guest memory, and each page of that has its bit.
#[test]
fn the_pages_that_are_written_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (server, _) = serve(&path);
    let mut frontend = Frontend::connect(&path, 2).unwrap();
    assert!(agree(&mut frontend).contains(VhostUserProtocolFeatures::LOG_SHMFD));
    let memory = Arc::new(GuestMemory::new(BLOCK));
    frontend.set_mem_table(&[info(&memory)]).unwrap();
    // One bit a page from address zero on; the log lies behind some bytes of its file that are nobody's.
    let region = memory.region();
    let (offset, pages) = (0x1000, (region.guest + region.size) / 0x1000);
    let file = dialog::memory(offset + pages / 8);
    let log = VhostUserDirtyLogRegion { mmap_size: pages / 8, mmap_offset: offset, mmap_handle: file.as_raw_fd() };
    frontend.set_log_base(0, Some(log)).unwrap();
    let taken = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::LOG_ALL;
    frontend.set_features(taken).unwrap();
    let mut ring = Ring::new(&memory, 0, 16);
    let _events = start(&mut frontend, &mut ring);
    read_sector(&mut ring, 3);
    let mut bits = vec![0; usize::try_from(pages / 8).unwrap()];
    rustix::io::pread(&file, &mut bits, offset).unwrap();
    let logged = Vec::from_iter((0..pages).filter(|page| bits[(page / 8) as usize] & 1 << (page % 8) != 0));
    // Status and data are in the first page of buffers; the used ring is not logged without its flag.
    assert_eq!(logged, [ring.buffers / 0x1000]);
    server.stop().unwrap();
}

/// The record that one back-end makes is given to the next one.
#[test]
fn the_record_of_requests_in_flight_is_made_and_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (server, _) = serve(&path);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut record = None;
    for done in 0..3 {
        let mut frontend = Frontend::connect(&path, 2).unwrap();
        assert!(agree(&mut frontend).contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD));
        let (extent, file) =
            record.take().unwrap_or_else(|| frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, 2, 16)).unwrap());
        assert!(extent.mmap_size > 0);
        frontend.set_inflight_fd(&extent, file.as_raw_fd()).unwrap();
        frontend.set_mem_table(&[info(&memory)]).unwrap();
        let mut ring = Ring::starting_at(&memory, 0, 16, done);
        let _events = start(&mut frontend, &mut ring);
        read_sector(&mut ring, 7);
        record = Some((extent, file));
    }
    server.stop().unwrap();
}
