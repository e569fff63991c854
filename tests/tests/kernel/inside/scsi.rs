//! vhost-scsi with a RAM disk of the kernel's SCSI target: commands, events, workers.

use rustix::io::Errno;
use vhost_core::VirtioFeatures;
use vhost_kernel::scsi::{COMMAND_RING, EVENT_RING, Scsi};
use vhost_kernel::{MemoryDevice, VhostDevice};
use vhost_std::memory::MemoryFile;

use super::ring::{Ring, memory, soon, table};
use super::scsi_target::Target;

/// The first disk of the first portal group, as a command addresses it.
const DISK: [u8; 8] = [1, 1, 0x40, 0, 0, 0, 0, 0];

/// Bytes of a command's request and response (virtio specification, 5.6.6.1), and of a sector.
const REQUEST: u32 = 51;
const RESPONSE: u32 = 108;
const SECTOR: u32 = 512;

/// `VIRTIO_SCSI_F_HOTPLUG`
const HOTPLUG: VirtioFeatures = VirtioFeatures::from_bits_retain(2);

fn device(memory: &MemoryFile, rings: &[&Ring]) -> Scsi {
    let scsi = Scsi::open().unwrap();
    scsi.set_owner().unwrap();
    scsi.set_features(scsi.features().unwrap() & (VirtioFeatures::VERSION_1 | HOTPLUG)).unwrap();
    scsi.set_memory(&table(memory)).unwrap();
    for ring in rings {
        ring.set_up(&scsi);
    }
    scsi
}

/// Does one command, with data to the disk or room for data from it; the data from it.
fn command(ring: &mut Ring, block: &[u8], data: &[u8], room: u32) -> Vec<u8> {
    let mut request = DISK.to_vec();
    request.extend([0; 11]);
    request.extend(block);
    request.resize(REQUEST as usize, 0);
    let [request_at, response_at, data_at] = [0, 0x100, 0x1000];
    ring.buffers.write(request_at, &request).unwrap();
    ring.buffers.write(response_at, &[0xff; RESPONSE as usize]).unwrap();
    ring.buffers.write(data_at, data).unwrap();
    let mut readable = vec![ring.buffer(request_at, REQUEST)];
    let mut writable = vec![ring.buffer(response_at, RESPONSE)];
    if !data.is_empty() {
        readable.push(ring.buffer(data_at, data.len() as u32));
    }
    if room > 0 {
        writable.push(ring.buffer(data_at, room));
    }
    ring.give(&readable, &writable);
    ring.take();
    let response = ring.read(response_at, RESPONSE);
    assert_eq!(response[10..12], [0, 0], "status and response of {block:x?}: {response:x?}");
    ring.read(data_at, room)
}

pub(super) fn write_and_read_back(ring: &mut Ring, sector: u8) {
    let data: Vec<u8> = (0..2 * SECTOR).map(|at| (at % 251) as u8 ^ sector).collect();
    command(ring, &[0x2a, 0, 0, 0, 0, sector, 0, 0, 2, 0], &data, 0);
    assert_eq!(command(ring, &[0x28, 0, 0, 0, 0, sector, 0, 0, 2, 0], &[], 2 * SECTOR), data);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn a_ram_disk_tells_what_it_is_and_keeps_what_is_written() {
    let target = Target::of_memory();
    let memory = memory(3);
    let mut ring = Ring::new(&memory, COMMAND_RING);
    let scsi = device(&memory, &[&ring]);
    assert_eq!(scsi.set_endpoint("naa.0000000000000000").unwrap_err().errno, Errno::NODEV);
    scsi.set_endpoint(target.name()).unwrap();
    assert_eq!(scsi.set_endpoint(target.name()).unwrap_err().errno, Errno::EXIST);

    let inquiry = command(&mut ring, &[0x12, 0, 0, 0, 36, 0], &[], 36);
    assert_eq!(&inquiry[8..16], b"LIO-ORG ");
    let capacity = command(&mut ring, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8);
    let [last, bytes] = [0, 4].map(|at| u32::from_be_bytes(*capacity[at..].first_chunk().unwrap()));
    assert_eq!((last, bytes), (1024 * 4096 / SECTOR - 1, SECTOR));
    write_and_read_back(&mut ring, 9);

    scsi.clear_endpoint().unwrap();
    assert_eq!(scsi.clear_endpoint().unwrap_err().errno, Errno::NODEV);
    let base = ring.base(&scsi);
    ring.set_up_at(&scsi, &ring.driver.user_addresses(), base);
    scsi.set_endpoint(target.name()).unwrap();
    write_and_read_back(&mut ring, 20);
    drop(scsi);
    drop(target);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn rings_can_have_workers_of_their_own() {
    let target = Target::of_memory();
    let memory = memory(4);
    let [mut first, mut second] = [COMMAND_RING, COMMAND_RING + 1].map(|index| Ring::new(&memory, index));
    let scsi = device(&memory, &[&first, &second]);
    let shared = scsi.vring_worker(first.index).unwrap();
    assert_eq!(scsi.vring_worker(second.index).unwrap(), shared);
    let own = scsi.new_worker().unwrap();
    assert_ne!(own, shared);
    scsi.attach_vring_worker(second.index, own).unwrap();
    assert_eq!(scsi.vring_worker(second.index).unwrap(), own);
    assert_eq!(scsi.free_worker(own).unwrap_err().errno, Errno::BUSY);

    scsi.set_endpoint(target.name()).unwrap();
    write_and_read_back(&mut first, 1);
    write_and_read_back(&mut second, 5);
    scsi.clear_endpoint().unwrap();
    scsi.attach_vring_worker(second.index, shared).unwrap();
    scsi.free_worker(own).unwrap();
    assert_eq!(scsi.free_worker(own).unwrap_err().errno, Errno::NODEV);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn a_disk_that_comes_and_goes_is_an_event() {
    const TRANSPORT_RESET: u32 = 1;
    const MISSED: u32 = 1 << 31;
    let target = Target::of_memory();
    let memory = memory(3);
    let [mut events, commands] = [EVENT_RING, COMMAND_RING].map(|index| Ring::new(&memory, index));
    let scsi = device(&memory, &[&events, &commands]);
    scsi.set_endpoint(target.name()).unwrap();
    let event = |ring: &Ring| {
        let bytes = ring.read(0, 16);
        let [kind, reason] = [0, 12].map(|at| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()));
        (kind, bytes[4..12].to_vec(), reason)
    };

    let buffer = events.buffer(0, 16);
    events.give(&[], &[buffer]);
    target.unplug();
    events.take();
    // The kernel marks the first of the disk's two bytes from disk 256 on only.
    assert_eq!(event(&events), (TRANSPORT_RESET, vec![1, 1, 0, 0, 0, 0, 0, 0], 2), "removed");

    // Nothing is there to be filled.
    assert_eq!(scsi.events_missed(), Ok(0));
    target.plug();
    let limit = soon();
    while scsi.events_missed() == Ok(0) {
        assert!(limit.remaining().is_some_and(|left| !left.is_zero()), "no event was missed");
        std::thread::yield_now();
    }
    events.give(&[], &[buffer]);
    events.take();
    let (kind, _, _) = event(&events);
    assert_eq!(kind & MISSED, MISSED, "{kind:x}");
    scsi.set_events_missed(1).unwrap();
    assert_eq!(scsi.events_missed(), Ok(1));
}
