//! Descriptors of the device that wake its rings beside kicks.

use core::sync::atomic::{AtomicU16, Ordering};
use core::time::Duration;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{RingLoop, RingWaker};
use crate::device::{Device, Queue, Readiness, WakeOn};
use crate::poller::WatchError;
use crate::vring::SharedVring;
use crate::vring::test_ring::{TestRing, kick, new_eventfd, ring_of_chains};

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// Counts its turns, takes nothing, and is woken by a descriptor.
struct Woken {
    descriptor: OwnedFd,
    when: Readiness,
    turns: AtomicU16,
}

impl Device for Woken {
    fn device_id(&self) -> u32 {
        42
    }
    fn queues(&self) -> u16 {
        1
    }
    fn process(&self, _: &mut Queue<'_>) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }
    fn wake_on(&self, queue: u16) -> Option<WakeOn<'_>> {
        (queue == 0).then(|| WakeOn { descriptor: self.descriptor.as_fd(), when: self.when })
    }
}

struct Bench {
    device: Arc<Woken>,
    rings: RingLoop,
    ring: TestRing,
    vring: Arc<SharedVring>,
}

impl Bench {
    fn new(descriptor: impl Into<OwnedFd>, when: Readiness) -> Self {
        let device = Arc::new(Woken { descriptor: descriptor.into(), when, turns: AtomicU16::new(0) });
        let rings = RingLoop::new(device.clone()).unwrap();
        let ring = ring_of_chains(4);
        let vring = Arc::new(SharedVring::new(ring.running()));
        Self { device, rings, ring, vring }
    }

    fn add(&self) -> Result<RingWaker, WatchError> {
        self.rings.add(Arc::clone(&self.vring))
    }

    /// How many turns the device has when nobody waits.
    fn turns(&self) -> u16 {
        self.device.turns.store(0, Ordering::Relaxed);
        while self.is_due() {
            self.rings.turn(AT_ONCE).unwrap();
        }
        self.device.turns.load(Ordering::Relaxed)
    }

    fn is_due(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.rings.fd(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

#[test]
fn what_arrives_gives_the_ring_one_turn_although_nobody_reads_it() {
    let (reader, mut writer) = pipe();
    let bench = Bench::new(reader, Readiness::Readable);
    bench.add().unwrap();
    assert_eq!(bench.turns(), 1, "the first look");
    for _ in 0..3 {
        writer.write_all(&[1]).unwrap();
        assert_eq!(bench.turns(), 1);
    }
    drop(writer);
    assert_eq!(bench.turns(), 1, "the end is an event too, once");
}

#[test]
fn room_to_write_gives_the_ring_a_turn() {
    let (mut reader, writer) = pipe();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut filled = 0;
    while let Ok(count) = rustix::io::write(&writer, &[0; 4096]) {
        filled += count;
    }
    let bench = Bench::new(writer, Readiness::Writable);
    bench.add().unwrap();
    assert_eq!(bench.turns(), 1, "the first look");
    assert_eq!(bench.turns(), 0);
    reader.read_exact(&mut vec![0; filled]).unwrap();
    assert_eq!(bench.turns(), 1);
}

#[test]
fn a_regular_file_is_always_ready_and_needs_no_watching() {
    let bench = Bench::new(tempfile::tempfile().unwrap(), Readiness::Readable);
    bench.add().unwrap();
    assert_eq!(bench.turns(), 1, "the first look");
}

#[test]
fn a_ring_that_cannot_be_added_leaves_nothing_watched() {
    let (reader, mut writer) = pipe();
    let bench = Bench::new(reader, Readiness::Readable);
    bench.vring.lock().set_kick(Some(tempfile::tempfile().unwrap().into())).unwrap();
    assert_eq!(bench.add().unwrap_err(), WatchError::NotPollable);
    writer.write_all(&[1]).unwrap();
    assert!(!bench.is_due());
    bench.vring.lock().set_kick(None).unwrap();
    bench.add().unwrap();
    assert_eq!(bench.turns(), 1);
}

#[test]
fn a_removed_ring_is_woken_no_longer() {
    let (reader, mut writer) = pipe();
    let bench = Bench::new(reader, Readiness::Readable);
    let waker = bench.add().unwrap();
    bench.turns();
    bench.rings.remove(&waker);
    writer.write_all(&[1]).unwrap();
    assert!(!bench.is_due());
}

#[test]
fn kicks_and_the_device_wake_side_by_side() {
    let (reader, mut writer) = pipe();
    let bench = Bench::new(reader, Readiness::Readable);
    bench.add().unwrap();
    let descriptor = new_eventfd();
    bench.vring.lock().set_kick(Some(descriptor.try_clone().unwrap())).unwrap();
    bench.turns();
    bench.ring.offer(0);
    kick(&descriptor);
    writer.write_all(&[1]).unwrap();
    assert_eq!(bench.turns(), 1, "one turn for both");
    kick(&descriptor);
    assert_eq!(bench.turns(), 1);
    writer.write_all(&[1]).unwrap();
    assert_eq!(bench.turns(), 1);
}
