//! vhost-vsock against sockets of the same kernel: connections from the guest and to it, data both ways.

use core::time::Duration;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept, bind, connect, listen, socket_with};
use vhost_core::uapi::iotlb::Access;
use vhost_core::wire::vring::VringBase;
use vhost_core::{Iova, VirtioFeatures};
use vhost_kernel::vsock::{RECEIVE_RING, TRANSMIT_RING, Vsock};
use vhost_kernel::{IotlbDevice, MemoryDevice, VhostDevice};
use vhost_std::deadline::Deadline;
use vhost_std::memory::MemoryFile;

use super::ring::{Ring, memory, table};

/// The address of the machine that a guest runs on.
const HOST: u32 = 2;
pub(super) const GUEST: u32 = 77;

/// Bytes of a packet's head.
const HEAD: usize = 44;

/// What a packet is (virtio specification, 5.10.6).
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const READ_WRITE: u16 = 5;

/// Where a socket of this machine is: `struct sockaddr_vm`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    unused: u32,
}

fn address(cid: u32, port: u32) -> Address {
    Address { family: AddressFamily::VSOCK.as_raw(), reserved: 0, port, cid, unused: 0 }
}

// SAFETY: the pointer is that of the value itself, which lives during the call, and the length is the value's size.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        call(core::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

fn host_socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None).unwrap()
}

fn wait(fd: impl AsFd, events: PollFlags) {
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&fd, events)], Some(&limit)), Ok(1), "nothing comes");
}

/// Sends a packet between two ports, the guest's first.
fn send(ring: &mut Ring, (guest_port, host_port): (u32, u32), operation: u16, data: &[u8]) {
    let mut packet = Vec::new();
    packet.extend(u64::from(GUEST).to_le_bytes());
    packet.extend(u64::from(HOST).to_le_bytes());
    packet.extend(guest_port.to_le_bytes());
    packet.extend(host_port.to_le_bytes());
    packet.extend((data.len() as u32).to_le_bytes());
    packet.extend(1_u16.to_le_bytes());
    packet.extend(operation.to_le_bytes());
    packet.extend(0_u32.to_le_bytes());
    // There is much room, and nothing was taken from it.
    packet.extend(0x1_0000_u32.to_le_bytes());
    packet.extend(0_u32.to_le_bytes());
    packet.extend(data);
    ring.buffers.write(0, &packet).unwrap();
    let buffer = ring.buffer(0, packet.len() as u32);
    ring.give(&[buffer], &[]);
    ring.take();
}

/// Ports (the guest's first) and data of the next packet of this kind; credit updates come between.
fn receive(ring: &mut Ring, operation: u16) -> ((u32, u32), Vec<u8>) {
    loop {
        let buffer = ring.buffer(0, 4096);
        ring.give(&[], &[buffer]);
        let written = ring.take();
        let packet = ring.read(0, written);
        let word = |at: usize| u32::from_le_bytes(*packet[at..].first_chunk().unwrap());
        assert_eq!((word(0), word(8)), (HOST, GUEST));
        if packet[30..32] == operation.to_le_bytes() {
            assert_eq!(word(24) as usize, packet.len() - HEAD);
            return ((word(20), word(16)), packet[HEAD..].to_vec());
        }
    }
}

/// Connects with a port where nobody listens.
pub(super) fn is_refused(rings: &mut [Ring], port: u32) {
    let [receiving, sending] = rings else { panic!("there are two rings") };
    send(sending, (port, 9), REQUEST, &[]);
    assert_eq!(receive(receiving, RESET), ((port, 9), vec![]));
}

/// The guest's end of one connection.
struct Guest {
    vsock: Vsock,
    receiving: Ring,
    sending: Ring,
    guest_port: u32,
    host_port: u32,
}

impl Guest {
    fn start(memory: &MemoryFile, guest_port: u32, host_port: u32) -> Self {
        let [receiving, sending] = [RECEIVE_RING, TRANSMIT_RING].map(|index| Ring::new(memory, index));
        let vsock = Vsock::open().unwrap();
        vsock.set_owner().unwrap();
        vsock.set_guest_cid(GUEST).unwrap();
        vsock.set_features(vsock.features().unwrap() & VirtioFeatures::VERSION_1).unwrap();
        vsock.set_memory(&table(memory)).unwrap();
        for ring in [&receiving, &sending] {
            ring.set_up(&vsock);
        }
        vsock.start().unwrap();
        Self { vsock, receiving, sending, guest_port, host_port }
    }

    fn send(&mut self, operation: u16, data: &[u8]) {
        send(&mut self.sending, (self.guest_port, self.host_port), operation, data);
    }

    fn receive(&mut self, operation: u16) -> Vec<u8> {
        let (ports, data) = receive(&mut self.receiving, operation);
        (self.guest_port, self.host_port) = ports;
        data
    }

    /// Data in both directions.
    fn talk_with(&mut self, host: &OwnedFd) {
        self.send(READ_WRITE, b"from the guest");
        wait(host, PollFlags::IN);
        let mut bytes = [0; 64];
        let length = rustix::io::read(host, &mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"from the guest");
        rustix::io::write(host, b"from the host").unwrap();
        assert_eq!(self.receive(READ_WRITE), b"from the host");
    }
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn the_guest_connects_and_goes_on_after_a_stop() {
    let listener = host_socket();
    bind(&listener, &address(u32::MAX, 1234)).unwrap();
    listen(&listener, 1).unwrap();
    let memory = memory(2);
    let mut guest = Guest::start(&memory, 5000, 1234);
    guest.send(REQUEST, &[]);
    guest.receive(RESPONSE);
    wait(&listener, PollFlags::IN);
    let host = accept(&listener).unwrap();
    guest.talk_with(&host);

    guest.vsock.stop().unwrap();
    let bases = [guest.receiving.base(&guest.vsock), guest.sending.base(&guest.vsock)];
    assert_eq!(bases[1], VringBase::Split { available: 2 });
    for (ring, base) in [&guest.receiving, &guest.sending].into_iter().zip(bases) {
        ring.set_up_at(&guest.vsock, &ring.driver.user_addresses(), base);
    }
    guest.vsock.start().unwrap();
    guest.talk_with(&host);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn the_iotlb_is_asked_for_the_rings_before_they_start() {
    let memory = memory(2);
    let vsock = Vsock::open().unwrap();
    vsock.set_owner().unwrap();
    vsock.set_guest_cid(GUEST).unwrap();
    let features = VirtioFeatures::VERSION_1 | VirtioFeatures::ACCESS_PLATFORM;
    assert!(vsock.features().unwrap().contains(features));
    // Nothing is agreed on beside them, so that misses come in the first version of messages.
    vsock.set_features(features).unwrap();
    vsock.set_memory(&table(&memory)).unwrap();
    let mut rings = [RECEIVE_RING, TRANSMIT_RING].map(|index| Ring::new(&memory, index));
    let mut used = Vec::new();
    for ring in &rings {
        // For the device they are where they are for the guest.
        let addresses = ring.driver.guest_addresses();
        ring.set_up_at(&vsock, &addresses, VringBase::Split { available: 0 });
        used.push(addresses.used.0);
    }
    assert_eq!(vsock.wait_for_miss(Deadline::after(Duration::ZERO)), Ok(None));
    let refused = vsock.start().unwrap_err();
    assert_eq!((refused.call, refused.errno), ("VHOST_VSOCK_SET_RUNNING", Errno::FAULT));
    let miss = vsock.next_miss().unwrap().unwrap();
    assert!(used.contains(&miss.iova.0), "{miss:x?}, used rings at {used:x?}");
    let region = memory.region();
    let iova = Iova(region.guest_address.0);
    vsock.translate(iova, region.size, region.user_address, Access::ReadWrite).unwrap();
    vsock.start().unwrap();
    is_refused(&mut rings, 5001);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn the_host_connects_and_is_reset_when_the_device_goes() {
    let memory = memory(2);
    let mut guest = Guest::start(&memory, 0, 0);
    let other = Vsock::open().unwrap();
    assert_eq!(other.set_guest_cid(GUEST).unwrap_err().errno, Errno::ADDRINUSE);

    let host = host_socket();
    assert_eq!(connect(&host, &address(GUEST, 6000)), Err(Errno::INPROGRESS));
    guest.receive(REQUEST);
    assert_eq!(guest.guest_port, 6000);
    guest.send(RESPONSE, &[]);
    wait(&host, PollFlags::OUT);
    guest.talk_with(&host);

    drop(guest);
    wait(&host, PollFlags::IN);
    assert_eq!(rustix::io::read(&host, &mut [0_u8; 1]), Err(Errno::CONNRESET));
}
