//! vhost-net, vhost-vsock and vhost-scsi as what a monitor takes whoever processes its rings: the same steps for all.

use core::fmt::Debug;
use std::os::fd::AsFd;

use vhost_core::wire::vring::VringBase;
use vhost_core::{VhostBackend, VirtioFeatures, VringSetting, VringSetup};
use vhost_kernel::KernelError;
use vhost_kernel::backend::{ConnectedNet, KernelBackend, RingControl, TargetedScsi};
use vhost_kernel::net::{Net, TRANSMIT_RING};
use vhost_kernel::scsi::{COMMAND_RING, Scsi};
use vhost_kernel::vsock::Vsock;
use vhost_std::eventfd::EventFd;
use vhost_std::memory::MemoryFile;

use super::ring::{Ring, SIZE, memory};
use super::scsi_target::Target;
use super::{net, scsi, vsock};

/// A device, its rings, and how to see that they work.
struct Subject<C, W> {
    backend: KernelBackend<C>,
    memory: MemoryFile,
    rings: Vec<Ring>,
    /// Has the rings do something that is not the same in each round.
    work: W,
}

impl<C: RingControl + Debug, W: FnMut(&mut [Ring], u8)> Subject<C, W> {
    fn start_ring(&mut self, at: usize, base: VringBase) -> Result<(), KernelError> {
        let ring = &self.rings[at];
        let setup = VringSetup::<dyn AsFd> {
            size: SIZE,
            base,
            addresses: ring.driver.user_addresses(),
            kick: Some(&ring.kick),
            call: Some(&ring.call),
            error: Some(&ring.error),
        };
        self.backend.start_vring(ring.index as u16, &setup)
    }

    fn bring_up(&mut self) {
        let offered = self.backend.features().unwrap();
        assert!(!offered.contains(VirtioFeatures::ACCESS_PLATFORM));
        self.backend.acknowledge(offered & VirtioFeatures::VERSION_1).unwrap();
        self.backend.set_memory(&[(*self.memory.region(), &self.memory)]).unwrap();
        for at in 0..self.rings.len() {
            let base = self.rings[at].driver.base();
            self.start_ring(at, base).unwrap();
        }
    }

    fn work(&mut self, round: u8) {
        (self.work)(&mut self.rings, round);
    }

    /// Everything that a monitor does with a device that runs.
    fn steps(mut self) {
        self.backend.set_owner().unwrap();
        self.bring_up();
        self.work(1);

        // Stopped at where the driver is, and started again.
        for at in 0..self.rings.len() {
            let ring = self.rings[at].index as u16;
            let base = self.backend.stop_vring(ring).unwrap();
            assert_eq!(base, self.rings[at].driver.base());
            self.start_ring(at, base).unwrap();
            self.work(2);
        }

        // Disabled, with what was there before waiting.
        let first = self.rings[0].index as u16;
        self.backend.set_vring(first, VringSetting::Disable).unwrap();
        self.backend.set_vring(first, VringSetting::Enable).unwrap();
        self.work(3);

        // Kick and call are replaced while it runs.
        for ring in &mut self.rings {
            (ring.kick, ring.call) = (EventFd::new().unwrap(), EventFd::new().unwrap());
            self.backend.set_vring(ring.index as u16, VringSetting::Kick(Some(&ring.kick))).unwrap();
            self.backend.set_vring(ring.index as u16, VringSetting::Call(Some(&ring.call))).unwrap();
        }
        self.work(4);

        // More memory comes and goes.
        let more = MemoryFile::create("more", 0x1_0000_0000, 0x4000).unwrap();
        let both: [(_, &dyn AsFd); 2] = [(*self.memory.region(), &self.memory), (*more.region(), &more)];
        self.backend.set_memory(&both).unwrap();
        (self.work)(&mut self.rings, 5);
        self.backend.set_memory(&both[..1]).unwrap();
        self.work(6);

        // What is impossible changes nothing.
        let mut astray = self.rings[0].driver.user_addresses();
        astray.available.0 += 1;
        let elsewhere = vhost_core::VringAddresses { used: vhost_core::RingAddress(0x1000), ..astray };
        for addresses in [astray, elsewhere] {
            assert!(self.backend.set_vring(first, VringSetting::Addresses(addresses)).is_err());
        }
        assert_eq!(self.backend.set_vring(first, VringSetting::Size(4)), Err(KernelError::RingRuns { ring: first }),);
        assert!(self.backend.set_vring(99, VringSetting::Enable).is_err());
        assert!(self.backend.acknowledge(VirtioFeatures::from_bits_retain(u64::MAX)).is_err());
        self.work(7);

        // Reset, and everything anew.
        self.backend.reset().unwrap();
        for ring in &mut self.rings {
            *ring = Ring::new(&self.memory, ring.index);
        }
        self.bring_up();
        self.work(8);
    }
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn net_by_a_tap_device() {
    let (tap, socket) = net::tap();
    let memory = memory(2);
    let rings = vec![Ring::new(&memory, TRANSMIT_RING)];
    let backend = KernelBackend::new(ConnectedNet::with_tap(Net::open().unwrap(), &tap).unwrap());
    let work = |rings: &mut [Ring], round| {
        net::transmit(&mut rings[0], &net::frame(round));
        assert_eq!(net::seen(&socket, 0), net::frame(round));
    };
    Subject { backend, memory, rings, work }.steps();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn net_by_a_packet_socket() {
    let (tap, socket) = net::tap();
    let memory = memory(2);
    let rings = vec![Ring::new(&memory, TRANSMIT_RING)];
    let control = ConnectedNet::with_packet_socket(Net::open().unwrap(), &socket).unwrap();
    let work = |rings: &mut [Ring], round| {
        net::transmit(&mut rings[0], &net::frame(round));
        assert_eq!(net::seen(&tap, vhost_kernel::net::HEADER_SIZE), net::frame(round));
    };
    Subject { backend: KernelBackend::new(control), memory, rings, work }.steps();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn vsock_by_refused_connections() {
    let memory = memory(2);
    let rings = [0, 1].map(|index| Ring::new(&memory, index)).into();
    let vsock = Vsock::open().unwrap();
    vsock.set_guest_cid(vsock::GUEST).unwrap();
    let work = |rings: &mut [Ring], round| vsock::is_refused(rings, u32::from(round) + 4000);
    Subject { backend: KernelBackend::new(vsock), memory, rings, work }.steps();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn scsi_by_a_ram_disk() {
    let target = Target::of_memory();
    let memory = memory(4);
    let rings = [COMMAND_RING, COMMAND_RING + 1].map(|index| Ring::new(&memory, index)).into();
    let backend = KernelBackend::new(TargetedScsi::new(Scsi::open().unwrap(), target.name(), 2));
    let work = |rings: &mut [Ring], round| {
        for ring in rings {
            scsi::write_and_read_back(ring, round);
        }
    };
    Subject { backend, memory, rings, work }.steps();
}
