//! Frames through the rings of a device whose link is a socket pair.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use super::*;
use crate::vring::test_ring::{BUFFERS, TestRing, WRITE};
use crate::vring::{Turn, Vring};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

const MERGED: u64 = feature::VERSION_1 | feature::MRG_RXBUF;

/// A device of one pair, and the other end of its link.
struct Bench {
    device: NetDevice,
    network: UnixDatagram,
    ring: TestRing,
    vring: Vring,
}

impl Bench {
    fn new(queue: u16, acknowledged: u64) -> Self {
        let (network, link) = UnixDatagram::pair().unwrap();
        network.set_nonblocking(true).unwrap();
        let device = NetDevice::new(vec![NetLink::datagram(link.into()).unwrap()], &NetOptions::default()).unwrap();
        device.features_acknowledged(acknowledged);
        let ring = TestRing::new(16);
        let vring = ring.running_as(queue);
        Self { device, network, ring, vring }
    }

    fn process(&mut self) {
        assert_eq!(self.vring.process(&self.device), Ok(Turn::Idle));
    }

    fn place(head: u16) -> u64 {
        BUFFERS + 0x4000 * u64::from(head)
    }

    /// Gives the device a buffer for received frames.
    fn offer(&self, head: u16, length: u32) {
        self.ring.descriptor(head, (Self::place(head), length), WRITE, 0);
        self.ring.offer(head);
    }

    /// Has the driver send a packet, header first.
    fn send(&self, head: u16, packet: &[u8]) {
        self.ring.write(Self::place(head), packet);
        self.ring.descriptor(head, (Self::place(head), packet.len() as u32), 0, 0);
        self.ring.offer(head);
    }

    /// What the driver has received, buffer by buffer.
    fn received(&self) -> Vec<Vec<u8>> {
        let used = self.ring.all_used().into_iter();
        used.map(|(head, length)| self.ring.read(Self::place(head as u16), length as usize)).collect()
    }

    /// What has come to the network.
    fn sent(&self) -> Vec<Vec<u8>> {
        let mut frame = vec![0; 2 * FRAME];
        core::iter::from_fn(|| {
            let length = self.network.recv(&mut frame).ok()?;
            Some(frame[..length].to_vec())
        })
        .collect()
    }
}

fn frame(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

/// A header that says in how many buffers the frame is.
fn header(buffers: u8) -> Vec<u8> {
    [&[0; 10][..], &[buffers, 0]].concat()
}

#[test]
fn frames_of_the_guest_leave_without_their_header_in_order() {
    for (acknowledged, size) in [(MERGED, 12), (feature::VERSION_1, 12), (feature::MRG_RXBUF, 12), (0, 10)] {
        let mut bench = Bench::new(TRANSMIT, acknowledged);
        for (head, length) in [(0, 60), (1, 1514)] {
            bench.send(head, &[vec![0; size], frame(head as u8, length)].concat());
        }
        bench.process();
        assert_eq!(bench.sent(), [frame(0, 60), frame(1, 1514)]);
        assert_eq!(bench.ring.all_used(), [(0, 0), (1, 0)]);
    }
}

#[test]
fn what_is_no_frame_is_not_sent_and_costs_its_buffer_only() {
    let mut bench = Bench::new(TRANSMIT, MERGED);
    bench.send(0, &[1; 11]);
    // Sixty-four KiB and a bit, in two descriptors.
    bench.ring.chain(1, &[(BUFFERS, 12), (BUFFERS, FRAME as u32 + 1)], &[]);
    bench.ring.offer(1);
    bench.send(5, &[vec![0; 12], frame(5, 100)].concat());
    bench.process();
    assert_eq!(bench.sent(), [frame(5, 100)]);
    assert_eq!(bench.ring.used_index(), 3);
}

#[test]
fn a_network_that_takes_no_more_holds_nobody_up() {
    let mut bench = Bench::new(TRANSMIT, MERGED);
    for round in 0..2000 {
        bench.send(round % 8, &[vec![0; 12], frame(0, 1514)].concat());
        bench.process();
    }
    assert_eq!(bench.ring.used_index(), 2000);
    let sent = bench.sent().len();
    assert!(sent < 2000 && sent > 0, "{sent} frames fit into a socket");
    bench.send(0, &[vec![0; 12], frame(3, 60)].concat());
    bench.process();
    assert_eq!(bench.sent(), [frame(3, 60)], "later ones go through");
}

#[test]
fn frames_for_the_guest_have_a_header_of_the_size_that_was_agreed_on() {
    for (acknowledged, header) in [(MERGED, header(1)), (feature::VERSION_1, header(1)), (0, vec![0; 10])] {
        let mut bench = Bench::new(RECEIVE, acknowledged);
        bench.offer(0, 2000);
        bench.offer(1, 2000);
        bench.network.send(&frame(1, 60)).unwrap();
        bench.process();
        assert_eq!(bench.received(), [[header.clone(), frame(1, 60)].concat()], "and one buffer waits");
        bench.network.send(&frame(2, 1514)).unwrap();
        bench.process();
        assert_eq!(bench.received()[1], [header, frame(2, 1514)].concat());
    }
}

#[test]
fn frames_wait_for_buffers_and_keep_their_order() {
    let mut bench = Bench::new(RECEIVE, MERGED);
    for seed in 0..5 {
        bench.network.send(&frame(seed, 100)).unwrap();
    }
    bench.process();
    for head in 0..5 {
        bench.offer(head, 200);
        bench.process();
        assert_eq!(bench.received().last().unwrap()[12..], frame(head as u8, 100));
    }
}

#[test]
fn a_large_frame_is_spread_over_buffers_if_that_was_agreed_on() {
    let mut bench = Bench::new(RECEIVE, MERGED);
    for (head, length) in [(0, 5), (1, 10), (2, 500), (3, 1000)] {
        bench.offer(head, length);
    }
    bench.network.send(&frame(9, 700)).unwrap();
    bench.process();
    let received = bench.received();
    assert_eq!(received.iter().map(Vec::len).collect::<Vec<_>>(), [5, 10, 500, 197]);
    assert_eq!(received.concat(), [header(4), frame(9, 700)].concat());
}

#[test]
fn a_frame_without_room_is_lost_and_its_buffers_go_back_empty() {
    for (acknowledged, sizes) in [(MERGED, &[100, 100][..]), (feature::VERSION_1, &[100]), (0, &[100])] {
        let mut bench = Bench::new(RECEIVE, acknowledged);
        for (head, size) in (0..).zip(sizes) {
            bench.offer(head, *size);
        }
        bench.network.send(&frame(1, 700)).unwrap();
        bench.process();
        assert_eq!(bench.received().concat(), [0; 0]);
        assert_eq!(usize::from(bench.ring.used_index()), sizes.len());
        bench.offer(7, 1000);
        bench.network.send(&frame(2, 700)).unwrap();
        bench.process();
        assert!(bench.received().concat().ends_with(&frame(2, 700)));
    }
}

#[test]
fn a_frame_that_waited_is_forgotten_at_a_reset() {
    let mut bench = Bench::new(RECEIVE, MERGED);
    bench.network.send(&frame(1, 60)).unwrap();
    bench.process();
    bench.device.reset();
    bench.device.features_acknowledged(MERGED);
    bench.offer(0, 200);
    bench.process();
    assert_eq!(bench.received().len(), 0);
}

#[test]
fn the_device_tells_what_it_is() {
    let links = |count: usize| (0..count).map(|_| NetLink::datagram(UnixDatagram::pair().unwrap().0.into()).unwrap());
    let options = NetOptions { mac: Some([2, 3, 4, 5, 6, 7]), mtu: Some(0x0506) };
    let device = NetDevice::new(links(3).collect(), &options).unwrap();
    assert_eq!(device.features(), feature::MAC | feature::MTU | feature::MQ | feature::MRG_RXBUF);
    assert_eq!((device.queues(), device.queue_num()), (6, 3));
    let mut config = [0xff; 14];
    device.read_config(0, &mut config);
    assert_eq!(config, [2, 3, 4, 5, 6, 7, 0, 0, 3, 0, 6, 5, 0, 0]);
    for queue in 0..8 {
        assert_eq!(device.wake_on(queue).is_some(), queue < 6 && queue % 2 == 0, "queue {queue}");
    }
    let plain = NetDevice::new(links(1).collect(), &NetOptions::default()).unwrap();
    assert_eq!(plain.features(), feature::MRG_RXBUF);
}

#[test]
fn what_cannot_be_a_device_is_refused_by_name() {
    let options = NetOptions::default();
    assert_eq!(NetDevice::new(Vec::new(), &options).unwrap_err(), NetError::Pairs { found: 0, most: 128 });
    let link = || NetLink::datagram(UnixDatagram::pair().unwrap().0.into()).unwrap();
    let small = NetOptions { mtu: Some(67), ..options };
    assert_eq!(NetDevice::new(vec![link()], &small).unwrap_err(), NetError::Mtu { found: 67, least: 68 });
    let stream = OwnedFd::from(UnixStream::pair().unwrap().0);
    assert_eq!(NetLink::datagram(stream).unwrap_err(), NetError::NotADatagramSocket);
    assert_eq!(NetLink::datagram(tempfile::tempfile().unwrap().into()).unwrap_err(), NetError::NotADatagramSocket);
    for name in ["", "a-name-of-16-byt", "zero\0"] {
        assert_eq!(NetLink::tap(name, 1).unwrap_err(), NetError::Name { found: name.to_owned() });
    }
    assert_eq!(NetLink::tap("tap", 0).unwrap_err(), NetError::Pairs { found: 0, most: 128 });
}
