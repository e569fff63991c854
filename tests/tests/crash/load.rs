//! One back-end after another on the same ring, and the record that they hand on.

use core::time::Duration;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use vhost_core::wire::inflight::Inflight;
use vhost_core::wire::vring::VringBase;
use vhost_core::{ProtocolFeatures, RingLayout, VirtioFeatures};
use vhost_std::frontend::{DeviceSetup, Frontend, FrontendError, RingSetup};
use vhost_std::socket::Socket;

use crate::backend::Server;
use crate::disk::{Disk, SIZE};
use vhost_tests::numbers::Numbers;

/// For a call of a back-end that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers that a back-end gives before it is killed, and how much longer it may live, in microseconds.
const ANSWERS: u64 = 60;
const LONGER: u64 = 400;

/// How long it lives at most while the driver sleeps, in microseconds.
const SLEEP: u64 = 1000;

/// The record, once a back-end has made it.
type Record = Option<(Inflight, OwnedFd)>;

/// Kills the server's processes again and again under load, and then lets one finish everything.
pub(crate) fn survives(server: &Server, features: VirtioFeatures, kills: u32) {
    let features = features | VirtioFeatures::VERSION_1 | VirtioFeatures::RING_INDIRECT;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut disk = Disk::new(file, features);
    let mut record = None;
    let mut numbers = Numbers::new(features.bits() ^ u64::from(kills));
    let (mut interrupted, mut half_done, mut asleep) = (0, 0, false);
    for _ in 0..kills {
        let (backend, socket) = server.start(&path);
        // It may be killed while it is told where everything is.
        let frontend = start(socket, &disk, features, &mut record).unwrap();
        if asleep {
            disk.wakes_up();
        }
        disk.run(numbers.below(ANSWERS) as usize);
        if numbers.below(2) == 0 {
            disk.run_for(Duration::from_micros(numbers.below(LONGER)));
        } else {
            // The back-end may not have written down yet that it has given a request back.
            disk.run_until_the_next_answer();
        }
        // A driver that sleeps hears of answers by a call only, whoever makes it.
        asleep = numbers.below(3) == 0 && disk.falls_asleep();
        if asleep {
            spin(numbers.below(SLEEP));
        }
        backend.kill();
        drop(frontend);
        interrupted += u32::from(in_flight(record.as_ref().unwrap(), features) > 0);
        half_done += u32::from(is_half_done(record.as_ref().unwrap(), &disk, features));
        if !asleep && numbers.below(2) == 0 {
            disk.take_back();
        }
    }
    // Not to be believed otherwise: the kills have to hit. In a debug build the rings take more of the time.
    assert!(interrupted > 0, "none of {kills} back-ends had something in flight");
    if kills >= 1000 && cfg!(debug_assertions) {
        assert!(half_done > 0, "none of {kills} back-ends was in the middle of giving requests back");
    }

    let (_backend, socket) = server.start(&path);
    let mut frontend = start(socket, &disk, features, &mut record).unwrap();
    disk.run(100);
    disk.drain();
    let stopped = frontend.tear_down().unwrap();
    assert_eq!((stopped.len(), in_flight(record.as_ref().unwrap(), features)), (1, 0));
    assert_eq!(disk.take_back(), 0, "answers that nobody waits for");
}

/// Connects to a back-end and starts it. Nothing here waits for the ring to be started.
fn start(
    socket: Socket,
    disk: &Disk,
    features: VirtioFeatures,
    record: &mut Record,
) -> Result<Frontend, FrontendError> {
    let mut frontend = Frontend::from_socket(socket);
    frontend.set_timeout(Some(PATIENCE));
    let agreed = frontend.negotiate(features, ProtocolFeatures::MQ | ProtocolFeatures::INFLIGHT_SHMFD)?;
    assert!(agreed.acknowledged.contains(features), "{agreed:?}");
    if record.is_none() {
        *record = Some(frontend.get_inflight_fd(1, SIZE)?.unwrap());
    }
    let inflight = record.as_ref().map(|(shape, file)| (*shape, file.as_fd()));
    // The same for all: the record knows better.
    let base = match RingLayout::of(features) {
        RingLayout::Split => VringBase::split(0),
        RingLayout::Packed => VringBase::packed(0x8000_8000),
    };
    let (kick, call) = (Some(disk.kick.as_fd()), Some(disk.call.as_fd()));
    let rings = [RingSetup { ring: 0, size: SIZE, base, addresses: disk.addresses(), kick, call, error: None }];
    let memory = [(*disk.memory.region(), disk.memory.as_fd())];
    frontend.bring_up(&DeviceSetup { memory: &memory, rings: &rings, inflight })?;
    Ok(frontend)
}

/// Does nothing for so many microseconds; a wait of the system would be longer.
fn spin(microseconds: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(microseconds) {
        core::hint::spin_loop();
    }
}

/// Entries of the record that are in flight: their first byte is 1 (section "Inflight description").
fn in_flight((shape, file): &(Inflight, OwnedFd), features: VirtioFeatures) -> usize {
    let mut bytes = vec![0; usize::try_from(shape.mmap_size()).unwrap()];
    File::from(file.try_clone().unwrap()).read_exact_at(&mut bytes, shape.mmap_offset()).unwrap();
    let entry = match RingLayout::of(features) {
        RingLayout::Split => 16,
        RingLayout::Packed => 32,
    };
    // The header is as large as an entry.
    bytes.chunks(entry).skip(1).take(SIZE.into()).filter(|entry| entry[0] != 0).count()
}

/// Whether the driver has seen requests as completed that the record did not have as such yet.
fn is_half_done((_, file): &(Inflight, OwnedFd), disk: &Disk, features: VirtioFeatures) -> bool {
    let mut bytes = [0; 32];
    File::from(file.try_clone().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
    match RingLayout::of(features) {
        // The used index, next to that of the ring; the used place and the one before.
        RingLayout::Split => bytes[14..16] != disk.used_index().to_ne_bytes(),
        RingLayout::Packed => bytes[16..18] != bytes[18..20],
    }
}
