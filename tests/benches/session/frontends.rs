//! The front-ends.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, MemoryRegion, ProtocolFeatures, RingAddress, UserAddress, VirtioFeatures};
use vhost_std::deadline::Deadline;
use vhost_std::frontend::{DeviceSetup, Frontend, Logging, RingSetup, VringAddresses};
use vhost_tests::dialog::{event, memory};
use vhost_tests::wire::{REQUEST, REQUEST_NEEDING_REPLY, header};
use vmm_sys_util::eventfd::EventFd;

use crate::RINGS;

/// Where the guest's memory is in the front-end.
const USER: u64 = 0x7000_0000_0000;
const MEMORY: u64 = 1 << 20;
/// Bytes of memory for a ring.
const RING: u64 = 0x4000;
const SIZE: u16 = 128;

/// Somebody who makes the calls that are measured.
pub(crate) trait Talker {
    fn negotiate(&mut self);
    fn get_features(&mut self);
    fn set_vring_num(&mut self);
    /// Starts all rings; every step is acknowledged.
    fn start(&mut self);
}

/// `send` and `recv`.
pub(crate) struct Bare(UnixStream);

impl Bare {
    pub(crate) fn connect(socket: &Path) -> Box<dyn Talker> {
        Box::new(Self(UnixStream::connect(socket).unwrap()))
    }

    fn call(&mut self, request: &[u8]) {
        self.0.write_all(request).unwrap();
        assert_eq!(self.0.read(&mut [0; 64]).unwrap(), 20);
    }
}

impl Talker for Bare {
    fn negotiate(&mut self) {}

    fn get_features(&mut self) {
        self.call(&header(1, REQUEST, 0));
    }

    fn set_vring_num(&mut self) {
        let mut request = [0; 20];
        request[..12].copy_from_slice(&header(8, REQUEST_NEEDING_REPLY, 8));
        self.call(&request);
    }

    fn start(&mut self) {}
}

/// The descriptors that a device is started with.
struct Descriptors {
    memory: OwnedFd,
    kicks: Vec<OwnedFd>,
    calls: Vec<OwnedFd>,
}

impl Descriptors {
    fn new() -> Self {
        let events = || (0..RINGS).map(|_| event()).collect();
        Self { memory: memory(MEMORY), kicks: events(), calls: events() }
    }
}

/// Ours.
pub(crate) struct Ours(Frontend, Descriptors);

impl Ours {
    pub(crate) fn connect(socket: &Path) -> Box<dyn Talker> {
        Box::new(Self(Frontend::connect(socket, Deadline::NEVER).unwrap(), Descriptors::new()))
    }
}

impl Talker for Ours {
    fn negotiate(&mut self) {
        // As many steps as rust-vmm's front-end takes: memory comes as a table.
        let protocol = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::MQ;
        self.0.negotiate(VirtioFeatures::VERSION_1, protocol).unwrap();
    }

    fn get_features(&mut self) {
        self.0.get_features().unwrap();
    }

    fn set_vring_num(&mut self) {
        self.0.set_vring_num(0, SIZE).unwrap();
    }

    fn start(&mut self) {
        let Self(frontend, Descriptors { memory, kicks, calls }) = self;
        let region = MemoryRegion {
            guest_address: GuestAddress(0),
            size: MEMORY,
            user_address: UserAddress(USER),
            mmap_offset: 0,
            xen: None,
        };
        let rings = Vec::from_iter((0..RINGS).map(|ring| {
            let at = USER + u64::from(ring) * RING;
            let [descriptor, available, used] = [at, at + 0x1000, at + 0x2000].map(RingAddress);
            RingSetup {
                ring,
                size: SIZE,
                base: VringBase::split(0),
                addresses: VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off },
                kick: Some(kicks[usize::from(ring)].as_fd()),
                call: Some(calls[usize::from(ring)].as_fd()),
                error: None,
            }
        }));
        let regions = [(region, memory.as_fd())];
        frontend.bring_up(&DeviceSetup { memory: &regions, rings: &rings, inflight: None }).unwrap();
    }
}

/// rust-vmm's.
pub(crate) struct RustVmm(vhost::vhost_user::Frontend, OwnedFd, Vec<EventFd>, Vec<EventFd>);

impl RustVmm {
    pub(crate) fn connect(socket: &Path) -> Box<dyn Talker> {
        let frontend = vhost::vhost_user::Frontend::connect(socket, RINGS.into()).unwrap();
        let events = || (0..RINGS).map(|_| EventFd::new(0x800).unwrap()).collect();
        Box::new(Self(frontend, memory(MEMORY), events(), events()))
    }
}

impl Talker for RustVmm {
    fn negotiate(&mut self) {
        self.0.set_owner().unwrap();
        let offered = self.0.get_features().unwrap();
        let wanted = VirtioFeatures::VERSION_1 | VirtioFeatures::PROTOCOL_FEATURES;
        let offer = self.0.get_protocol_features().unwrap();
        let protocol = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::MQ;
        self.0.set_protocol_features(offer & protocol).unwrap();
        self.0.set_features(offered & wanted.bits()).unwrap();
        self.0.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }

    fn get_features(&mut self) {
        self.0.get_features().unwrap();
    }

    fn set_vring_num(&mut self) {
        self.0.set_vring_num(0, SIZE).unwrap();
    }

    fn start(&mut self) {
        let Self(frontend, memory, kicks, calls) = self;
        let rings = || 0..usize::from(RINGS);
        for ring in rings() {
            frontend.set_vring_call(ring, &calls[ring]).unwrap();
        }
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: memory.as_raw_fd(),
        };
        frontend.set_mem_table(&[region]).unwrap();
        for ring in rings() {
            let at = USER + ring as u64 * RING;
            let addresses = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: at,
                used_ring_addr: at + 0x2000,
                avail_ring_addr: at + 0x1000,
                log_addr: None,
            };
            frontend.set_vring_num(ring, SIZE).unwrap();
            frontend.set_vring_base(ring, 0).unwrap();
            frontend.set_vring_addr(ring, &addresses).unwrap();
            frontend.set_vring_kick(ring, &kicks[ring]).unwrap();
        }
        for ring in rings() {
            frontend.set_vring_enable(ring, true).unwrap();
        }
    }
}
