//! vhost-net with a tap device: frames out and in, the dirty log, the IOTLB.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_core::uapi::iotlb::Access;
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, Iova, Logging, RingAddress, UserAddress, VirtioFeatures, VringAddresses};
use vhost_kernel::net::{HEADER_SIZE, Net, PacketSocket, RECEIVE_RING, TRANSMIT_RING, Tap, TapOptions};
use vhost_kernel::{IotlbDevice, KernelError, MemoryDevice, VhostDevice};
use vhost_std::memory::MemoryFile;

use super::ring::{Ring, memory, soon, table};

/// An Ethernet frame of an experimental type, which no protocol of the kernel looks at.
pub(super) fn frame(number: u8) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, number]].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend((0..60).map(|at| at ^ number));
    frame
}

/// A tap device that is up, and a socket that sees all frames of it.
pub(super) fn tap() -> (Tap, PacketSocket) {
    let tap = Tap::open("tap%d", &TapOptions::default()).unwrap();
    tap.set_up().unwrap();
    let socket = PacketSocket::bind(tap.name()).unwrap();
    (tap, socket)
}

fn wait_readable(fd: impl AsFd) {
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)), Ok(1), "nothing comes");
}

/// The next frame of the experimental type.
pub(super) fn seen(fd: impl AsFd, header: usize) -> Vec<u8> {
    loop {
        wait_readable(&fd);
        let mut bytes = [0; 2048];
        let length = rustix::io::read(&fd, &mut bytes).unwrap();
        let frame = &bytes[header..length];
        if frame[12..14] == [0x88, 0xb5] {
            return frame.to_vec();
        }
    }
}

/// Puts a frame with its header into a ring, and waits until it is gone.
pub(super) fn transmit(ring: &mut Ring, frame: &[u8]) {
    ring.buffers.write(0, &[0; HEADER_SIZE]).unwrap();
    ring.buffers.write(HEADER_SIZE as u64, frame).unwrap();
    let buffer = ring.buffer(0, (HEADER_SIZE + frame.len()) as u32);
    ring.give(&[buffer], &[]);
    assert_eq!(ring.take(), 0);
}

/// Waits for a frame of the experimental type, giving the ring one buffer after the other.
fn receive(ring: &mut Ring) -> Vec<u8> {
    loop {
        let buffer = ring.buffer(0, 2048);
        ring.give(&[], &[buffer]);
        let written = ring.take();
        let frame = ring.read(0, written).split_off(HEADER_SIZE);
        if frame[12..14] == [0x88, 0xb5] {
            return frame;
        }
    }
}

/// A device with an owner and memory.
fn device(features: VirtioFeatures, memory: &MemoryFile) -> Net {
    let net = Net::open().unwrap();
    net.set_owner().unwrap();
    let wanted = VirtioFeatures::VERSION_1 | features;
    assert!(net.features().unwrap().contains(wanted));
    net.set_features(wanted).unwrap();
    net.set_memory(&table(memory)).unwrap();
    net
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn frames_go_out_and_come_in_across_a_stop() {
    let (tap, socket) = tap();
    let memory = memory(2);
    let [mut receiving, mut sending] = [RECEIVE_RING, TRANSMIT_RING].map(|index| Ring::new(&memory, index));
    let net = device(VirtioFeatures::empty(), &memory);
    for ring in [&receiving, &sending] {
        ring.set_up(&net);
        net.set_backend(ring.index, Some(tap.as_fd())).unwrap();
    }

    for number in 0..3 {
        transmit(&mut sending, &frame(number));
        assert_eq!(seen(&socket, 0), frame(number), "out");
    }
    rustix::io::write(&socket, &frame(7)).unwrap();
    assert_eq!(receive(&mut receiving), frame(7), "in");

    net.set_backend(TRANSMIT_RING, None).unwrap();
    let base = sending.base(&net);
    assert_eq!(base, VringBase::Split { available: 3 });
    sending.set_up_at(&net, &sending.driver.user_addresses(), base);
    net.set_backend(TRANSMIT_RING, Some(tap.as_fd())).unwrap();
    transmit(&mut sending, &frame(9));
    assert_eq!(seen(&socket, 0), frame(9), "after the stop");
    assert_eq!(sending.error.drain().unwrap(), 0, "the ring is broken");
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn a_packet_socket_takes_the_place_of_a_tap_device() {
    let (tap, _) = tap();
    let memory = memory(2);
    let [mut receiving, mut sending] = [RECEIVE_RING, TRANSMIT_RING].map(|index| Ring::new(&memory, index));
    // VHOST_NET_F_VIRTIO_NET_HDR: the socket has no header in front of frames.
    let net = device(VirtioFeatures::ANY_LAYOUT, &memory);
    let socket = PacketSocket::bind(tap.name()).unwrap();
    for ring in [&receiving, &sending] {
        ring.set_up(&net);
        net.set_backend(ring.index, Some(socket.as_fd())).unwrap();
    }
    transmit(&mut sending, &frame(1));
    assert_eq!(seen(&tap, HEADER_SIZE), frame(1));
    rustix::io::write(&tap, &[&[0; HEADER_SIZE][..], &frame(2)].concat()).unwrap();
    assert_eq!(receive(&mut receiving), frame(2));
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn pages_that_are_written_to_are_in_the_log() {
    let (tap, socket) = tap();
    let memory = memory(2);
    let mut ring = Ring::new(&memory, RECEIVE_RING);
    let net = device(VirtioFeatures::empty(), &memory);
    ring.set_up(&net);
    let log_all = VirtioFeatures::VERSION_1 | VirtioFeatures::LOG_ALL;
    assert_eq!(net.set_features(log_all), Err(KernelError::NoLog));

    let end = memory.region().guest_address.0 + memory.region().size;
    let needed = end.div_ceil(4096 * 8).next_multiple_of(8);
    let [small, log] = [needed - 8, needed].map(|size| MemoryFile::create("log", 0, size).unwrap());
    assert_eq!(net.set_log(small.mapped()), Err(KernelError::LogTooSmall { needed, found: needed - 8 }));
    net.set_log(log.mapped()).unwrap();
    net.set_features(log_all).unwrap();
    let addresses = ring.driver.user_addresses();
    // The used ring is logged under the address of a page of its own.
    let used_log = GuestAddress(end - 0x1000);
    net.set_vring_addresses(ring.index, &VringAddresses { log: used_log, logging: Logging::On, ..addresses }).unwrap();
    net.set_backend(ring.index, Some(tap.as_fd())).unwrap();

    // The frame begins with its header on one page and goes on on the next.
    let buffer = ring.buffer(0x1000 - 16, 2048);
    ring.give(&[], &[buffer]);
    rustix::io::write(&socket, &frame(3)).unwrap();
    assert!(ring.take() > HEADER_SIZE as u32);
    net.set_backend(ring.index, None).unwrap();

    let mut bits = vec![0; needed as usize];
    vhost_std::driver::GuestArea::of(&log).read(0, &mut bits).unwrap();
    let pages: Vec<u64> = (0..needed * 8).filter(|page| bits[(page / 8) as usize] & 1 << (page % 8) != 0).collect();
    let page = buffer.address.0 / 4096;
    assert_eq!(pages, [page, page + 1, used_log.0 / 4096]);
}

/// Where the memory begins for the device.
const IOVA: u64 = 0x7000_0000_0000;

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn misses_of_the_iotlb_are_read_and_answered() {
    let (tap, socket) = tap();
    let memory = memory(2);
    let mut ring = Ring::new(&memory, TRANSMIT_RING);
    let net = device(VirtioFeatures::ACCESS_PLATFORM, &memory);
    let backend_features = net.backend_features().unwrap();
    net.set_backend_features(backend_features).unwrap();
    let distance = IOVA - memory.region().guest_address.0;
    let guest = ring.driver.guest_addresses();
    let [descriptor, available, used] =
        [guest.descriptor, guest.available, guest.used].map(|address| RingAddress(address.0 + distance));
    let addresses = VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off };
    ring.set_up_at(&net, &addresses, VringBase::Split { available: 0 });

    assert_eq!(net.next_miss(), Ok(None));
    let refused = net.set_backend(ring.index, Some(tap.as_fd())).unwrap_err();
    assert_eq!((refused.call, refused.errno), ("VHOST_NET_SET_BACKEND", rustix::io::Errno::FAULT));
    let page = |iova: Iova| iova.0 / 4096;
    let answer = |miss: vhost_kernel::Miss| {
        let page = page(miss.iova);
        let user = memory.region().user_address.0 + (page * 4096 - IOVA);
        net.translate(Iova(page * 4096), 4096, UserAddress(user), Access::ReadWrite).unwrap();
        page
    };
    let miss = net.next_miss().unwrap().unwrap();
    assert_eq!(answer(miss), used.0 / 4096);
    net.set_backend(ring.index, Some(tap.as_fd())).unwrap();

    ring.buffers.write(0, &[0; HEADER_SIZE]).unwrap();
    ring.buffers.write(HEADER_SIZE as u64, &frame(5)).unwrap();
    let mut buffer = ring.buffer(0, (HEADER_SIZE + frame(5).len()) as u32);
    buffer.address.0 += distance;
    ring.give(&[buffer], &[]);
    let mut answered = Vec::new();
    let sent = loop {
        // Each of the ring's parts and the buffer is asked for once; then the frame goes out.
        match net.next_miss().unwrap() {
            Some(miss) => answered.push(answer(miss)),
            None if ring.driver.poll_used().unwrap().is_some() => break seen(&socket, 0),
            None => wait_either(&net, &ring),
        }
    };
    assert_eq!(sent, frame(5));
    let buffer_page = buffer.address.0 / 4096;
    assert!(answered.contains(&buffer_page), "{answered:x?} has no {buffer_page:x}");

    // Another buffer in a page that is taken back again.
    net.invalidate(Iova(buffer_page * 4096), 1).unwrap();
    ring.give(&[buffer], &[]);
    let miss = net.wait_for_miss(soon()).unwrap().unwrap();
    assert_eq!((page(miss.iova), miss.access), (buffer_page, Access::Read));
    let held = Arc::strong_count(memory.mapped());
    answer(miss);
    assert!(Arc::strong_count(memory.mapped()) > held, "what the kernel can reach is not held");
    ring.take();

    // What is not in the memory cannot be translated to.
    let outside = net.translate(Iova(0), 4096, UserAddress(0x1000), Access::ReadWrite);
    assert!(matches!(outside, Err(KernelError::Memory(_))), "{outside:?}");
}

fn wait_either(net: &Net, ring: &Ring) {
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut polled = [PollFd::new(net, PollFlags::IN), PollFd::new(&ring.call, PollFlags::IN)];
    assert_ne!(poll(&mut polled, Some(&limit)), Ok(0), "neither a miss nor a call");
}
