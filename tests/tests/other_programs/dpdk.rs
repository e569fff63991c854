//! DPDK at either end: its virtio-user front-end with our network device, and its vhost back-end with our front-end. Both
//! with split and with packed rings.

use std::os::unix::net::UnixDatagram;

use tempfile::TempDir;
use vhost_core::{ProtocolFeatures, RingLayout, VirtioFeatures};
use vhost_tests::program::{Daemon, require};

use crate::machine::{Machine, PATIENCE, SIZE};
use crate::testpmd::{Testpmd, features, frame, socket, swapped, value};

/// The queue of what the guest receives, and that of what it sends.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Bytes of the header before each frame.
const HEADER: usize = 12;

/// Lengths of frames: all that Ethernet allows.
fn length(number: u32) -> usize {
    60 + usize::try_from(number * 37 % 1455).unwrap()
}

fn our_network_device_serves_virtio_user(layout: RingLayout) {
    const FRAMES: u32 = 2000;
    /// Frames that are under way at a time: fewer than datagrams wait in a socket.
    const TOGETHER: u32 = 8;
    let Some(program) = require("dpdk-testpmd") else { return };
    let folder = TempDir::new().unwrap();
    let [network, device] = ["network", "device"].map(|name| folder.path().join(name));
    let ours = UnixDatagram::bind(&network).unwrap();
    let arguments = [format!("--dgram-local={}", device.display()), format!("--dgram-remote={}", network.display())];
    let daemon = Daemon::start("net", arguments);
    ours.connect(&device).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();

    let packed = u8::from(layout == RingLayout::Packed);
    let port = format!("net_virtio_user0,path={},queues=1,packed_vq={packed}", daemon.socket().display());
    let mut testpmd = Testpmd::start(&program, folder.path(), &port);
    let mut received = vec![0; 0x1000];
    let mut bytes = 0;
    for first in (0..FRAMES).step_by(TOGETHER as usize) {
        let numbers = first..first + TOGETHER;
        for number in numbers.clone() {
            ours.send(&frame(number, length(number))).unwrap();
        }
        for number in numbers {
            let count = ours.recv(&mut received).unwrap();
            assert!(received[..count] == swapped(&frame(number, length(number))), "frame {number}");
            bytes += count as u64;
        }
    }
    testpmd.order("show port stats all");
    // A stop and a start of the device, after which frames come back as they are.
    for command in ["stop", "port stop 0", "port start 0", "set fwd io", "start"] {
        testpmd.order(command);
    }
    for number in 0..100 {
        ours.send(&frame(number, length(number))).unwrap();
        let count = ours.recv(&mut received).unwrap();
        assert!(received[..count] == frame(number, length(number)), "frame {number} after the start");
    }
    let output = testpmd.end();
    let counters = ["RX-packets:", "TX-packets:", "RX-bytes:", "TX-bytes:"].map(|name| value(&output, name));
    assert_eq!(counters, [FRAMES.into(), FRAMES.into(), bytes, bytes]);
    let agreed = VirtioFeatures::from_bits_retain(features(&output));
    assert_eq!(RingLayout::of(agreed), layout, "{agreed:?}");
    daemon.end();
}

#[test]
fn our_network_device_serves_virtio_user_with_split_rings() {
    our_network_device_serves_virtio_user(RingLayout::Split);
}

#[test]
fn our_network_device_serves_virtio_user_with_packed_rings() {
    our_network_device_serves_virtio_user(RingLayout::Packed);
}

fn our_front_end_drives_the_vhost_port(layout: RingLayout) {
    const FRAMES: u32 = 500;
    let Some(program) = require("dpdk-testpmd") else { return };
    let folder = TempDir::new().unwrap();
    let socket = socket(folder.path());
    let mut testpmd =
        Testpmd::start(&program, folder.path(), &format!("net_vhost0,iface={},queues=1", socket.display()));
    testpmd.running().wait_for_socket(&socket, PATIENCE);

    let ring = match layout {
        RingLayout::Split => VirtioFeatures::RING_EVENT_IDX,
        RingLayout::Packed => VirtioFeatures::RING_EVENT_IDX | VirtioFeatures::RING_PACKED,
    };
    let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK | ProtocolFeatures::STATUS;
    let mut sent = 0;
    // Another session, too: the port waits for the next front-end.
    for tables in [VirtioFeatures::empty(), VirtioFeatures::RING_INDIRECT] {
        let mut machine = Machine::connect(&socket, 2, ring | tables, protocol);
        assert_eq!(RingLayout::of(machine.agreed.acknowledged), layout, "{:?}", machine.agreed);
        for round in 0..3 {
            // Half of what fits, as each has two descriptors.
            let slots = SIZE / 2;
            for slot in 0..slots {
                machine.queues[RECEIVE].add(slot, &[], 2000);
            }
            machine.queues[RECEIVE].publish();
            for _ in 0..FRAMES / 6 {
                let out = frame(sent, length(sent));
                sent += 1;
                machine.queues[TRANSMIT].add(0, &[&[0; HEADER][..], &out].concat(), 0);
                machine.queues[TRANSMIT].publish();
                let used = machine.queues[RECEIVE].wait();
                let slot = u16::try_from(used.token).unwrap();
                let packet = machine.queues[RECEIVE].read(slot, 0, used.written);
                assert!(packet[HEADER..] == swapped(&out), "frame {sent} in round {round}");
                assert_eq!(machine.queues[TRANSMIT].wait().token, 0);
                machine.queues[RECEIVE].add(slot, &[], 2000);
                machine.queues[RECEIVE].publish();
            }
            machine.stop();
            machine.forget();
            machine.start();
        }
        machine.stop();
    }
    testpmd.order("show port stats all");
    let output = testpmd.end();
    let counters = ["RX-packets:", "TX-packets:"].map(|name| value(&output, name));
    assert_eq!(counters, [u64::from(sent); 2]);
}

#[test]
fn our_front_end_drives_the_vhost_port_with_split_rings() {
    our_front_end_drives_the_vhost_port(RingLayout::Split);
}

#[test]
fn our_front_end_drives_the_vhost_port_with_packed_rings() {
    our_front_end_drives_the_vhost_port(RingLayout::Packed);
}
