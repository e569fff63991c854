//! Frames between guests and our network device.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use vhost_core::VirtioFeatures;
use vhost_tests::guest::Guest;
use vhost_tests::program::{Daemon, built, not_run, require};

use crate::machine::GUEST_LIMIT;
use crate::machine::{Machine, PATIENCE};

/// `VIRTIO_NET_F_MRG_RXBUF`
const MERGED: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 15);

/// The queue of what the guest receives, and that of what it sends.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Bytes of the header before each frame.
const HEADER: usize = 12;

fn frame(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap().wrapping_add(seed)).collect()
}

#[test]
fn frames_reach_the_guest_without_a_kick_and_leave_it_for_a_socket() {
    let folder = TempDir::new().unwrap();
    let [network, device] = ["network", "device"].map(|name| folder.path().join(name));
    let network = (UnixDatagram::bind(&network).unwrap(), network);
    let arguments = |local: &Path, remote: &Path| {
        [format!("--dgram-local={}", local.display()), format!("--dgram-remote={}", remote.display())]
    };
    let daemon = Daemon::start_in(folder, "net", arguments(&device, &network.1));
    let network = network.0;
    network.connect(&device).unwrap();
    network.set_read_timeout(Some(PATIENCE)).unwrap();
    for features in [MERGED, MERGED | VirtioFeatures::RING_EVENT_IDX, VirtioFeatures::empty()] {
        let mut machine = Machine::connect(&daemon.socket(), 2, features);
        let mut received = vec![0; 0x2000];
        for round in 0..60 {
            let out = frame(round, 60 + 20 * usize::from(round));
            machine.queues[TRANSMIT].send(1, &[vec![0; HEADER], out.clone()].concat());
            assert_eq!(network.recv(&mut received).unwrap(), out.len());
            assert!(received.starts_with(&out), "round {round}");
            assert_eq!(machine.queues[TRANSMIT].wait().0, 1);

            // Buffers for a part of a frame each, or for all of it.
            let size = if features.contains(MERGED) { 700 } else { 2000 };
            let buffers = (HEADER + out.len()).div_ceil(size as usize);
            for slot in 0..buffers {
                machine.queues[RECEIVE].offer(u16::try_from(slot).unwrap(), size);
            }
            network.send(&out).unwrap();
            let parts = Vec::from_iter((0..buffers).map(|_| machine.queues[RECEIVE].wait().1));
            let packet = parts.concat();
            assert_eq!(packet[..10], [0; 10]);
            assert_eq!(usize::from(packet[10]), buffers);
            assert!(packet[HEADER..] == out, "round {round}");
        }
    }
    drop(network);
    daemon.end();
}

/// A network of its own, so that the machine's own is not touched: one side of it is the host's, the other our guest. The
/// server ends with the program that the shell becomes.
const NETWORK: &str = r#"
set -e
ip link set lo up
ip tuntap add dev guest0 mode tap multi_queue
ip address add 10.20.30.1/24 dev guest0
ip link set guest0 up
ip neighbour add 10.20.30.2 lladdr 52:54:00:12:34:56 dev guest0
setpriv --pdeathsig KILL busybox httpd -f -p 10.20.30.1:80 -h "$1" &
shift
exec "$@"
"#;

/// The device with two pairs of queues of a tap interface in such a network. `served` is a folder there, in the daemon's.
/// `None` if this machine cannot do that, which was said then.
fn tap_daemon(folder: TempDir, served: &Path) -> Option<Daemon> {
    let (unshare, ..) = (require("unshare")?, require("setpriv")?, require("ip")?, require("busybox")?);
    if !Command::new(&unshare).args(["--net", "test", "-w", "/dev/net/tun"]).status().is_ok_and(|it| it.success()) {
        not_run("networks cannot be made here");
        return None;
    }
    let mut command = Command::new(unshare);
    command.args(["--net", "sh", "-c", NETWORK, "sh"]).arg(served).arg(built("vhost-std", "vhost-user"));
    let arguments = ["--tap=guest0", "--queue-pairs=2", "--mac=52:54:00:12:34:56"].map(str::to_owned);
    Some(Daemon::run(command, folder, "net", arguments))
}

#[test]
fn a_tap_interface_leaves_pairs_alone_that_no_driver_uses() {
    const PORTS: core::ops::Range<u16> = 1000..1030;
    let folder = TempDir::new().unwrap();
    let served = folder.path().to_owned();
    let Some(daemon) = tap_daemon(folder, &served) else { return };
    for _ in 0..2 {
        let mut machine = Machine::connect(&daemon.socket(), 2, MERGED);
        assert_eq!(machine.frontend.get_queue_num().unwrap(), 2, "pairs");
        let queue = &mut machine.queues[RECEIVE];
        for slot in 0..32 {
            queue.offer(slot, 0x1000);
        }
        // A thread is in one network, whatever the others are in.
        let sending = std::thread::spawn({
            let network = File::open(format!("/proc/{}/ns/net", daemon.process_id())).unwrap();
            move || {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                let socket = UdpSocket::bind("10.20.30.1:0").unwrap();
                for port in PORTS {
                    // Each of these is a flow, which the kernel gives to whichever queue it likes.
                    socket.send_to(b"to the guest", ("10.20.30.2", port)).unwrap();
                }
            }
        });
        sending.join().unwrap();
        let mut missing = BTreeSet::from_iter(PORTS);
        while !missing.is_empty() {
            let (slot, packet) = queue.wait();
            queue.offer(slot, 0x1000);
            // Behind the header: addresses and type, then the header of IP with its protocol, then the ports.
            if packet[HEADER + 12..][..2] == [8, 0] && packet[HEADER + 14 + 9] == 17 {
                let [high, low] = [22, 23].map(|at| packet[HEADER + 14 + at]);
                missing.remove(&u16::from_be_bytes([high, low]));
            }
        }
    }
    daemon.end();
}

/// Both directions, small packets and streams, from each of the guest's two processors.
const USE_NETWORK: &str = r#"
ip link set eth0 up
ip address add 10.20.30.2/24 dev eth0
echo "address $(cat /sys/class/net/eth0/address)"
echo "queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"
ping -c 20 -i 0.05 -s 1000 10.20.30.1 | grep -o ' [0-9]*% packet loss' | sed 's/^ /loss /'
for processor in 0 1; do
    taskset -c $processor wget -q -O /file$processor http://10.20.30.1/file &
done
wait
echo "sum0 $(sha256sum </file0 | cut -d ' ' -f 1)"
echo "sum1 $(sha256sum </file1 | cut -d ' ' -f 1)"
for queue in 0 1; do
    echo "interrupts$queue $(grep "virtio0-input.$queue" /proc/interrupts | awk '{ print $2 + $3 }')"
done
"#;

#[test]
fn a_guest_uses_a_tap_interface_with_two_pairs_of_queues() {
    let Some(guest) = Guest::find() else { return };
    let folder = TempDir::new().unwrap();
    let served = folder.path().join("served");
    std::fs::create_dir(&served).unwrap();
    let contents = Vec::from_iter((0..4_u32 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8));
    std::fs::write(served.join("file"), &contents).unwrap();
    let sum = Command::new("sha256sum").arg(served.join("file")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();

    let Some(daemon) = tap_daemon(folder, &served) else { return };
    let guest = guest.processors(2).module("virtio_net").arguments([
        "-chardev".to_owned(),
        format!("socket,id=net,path={}", daemon.socket().display()),
        "-netdev".to_owned(),
        "vhost-user,id=net,chardev=net,queues=2".to_owned(),
        "-device".to_owned(),
        "virtio-net-pci,netdev=net,mac=52:54:00:12:34:56,mq=on,vectors=6,romfile=".to_owned(),
    ]);
    let report = guest.boot(USE_NETWORK).finish(GUEST_LIMIT);
    assert_eq!(report.status, 0);
    assert_eq!(report.value("address"), "52:54:00:12:34:56");
    assert_eq!(report.value("queues"), "2");
    assert_eq!(report.value("loss"), "0% packet loss");
    for number in [0, 1] {
        assert!(sum.starts_with(report.value(&format!("sum{number}"))), "the file of processor {number}");
        let interrupts: u64 = report.value(&format!("interrupts{number}")).parse().unwrap();
        assert!(interrupts > 0, "pair {number} was not used");
    }
    daemon.end();
}
