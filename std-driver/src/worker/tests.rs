//! Threads and the loop without a thread, with descriptors good, bad and changing.

use core::sync::atomic::{AtomicU16, Ordering};
use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, mpsc};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{RingLoop, Worker, WorkerError};
use crate::device::Queue;
use crate::poller::WatchError;
use crate::vring::test_ring::{BUFFERS, Serving, TestRing, kick, new_eventfd, signals};
use crate::vring::{SharedVring, Turn};

pub(super) const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// Waits until the device signals `call`; so long that only a broken test meets the limit.
pub(super) fn wait_for(call: &OwnedFd) {
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut fds = [PollFd::new(call, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&limit)), Ok(1), "the driver was never signalled");
    assert_eq!(signals(call), 1);
}

pub(super) fn complete_all(queue: &mut Queue<'_>) {
    while let Some(chain) = queue.next() {
        queue.complete(chain, 0);
    }
}

/// A ring of 4 one-byte chains with its kick and call descriptors.
pub(super) struct Driver {
    pub(super) ring: Arc<TestRing>,
    pub(super) vring: Arc<SharedVring>,
    pub(super) kick: OwnedFd,
    pub(super) call: OwnedFd,
}

impl Driver {
    pub(super) fn new() -> Self {
        let ring = Arc::new(TestRing::new(4));
        for head in 0..4 {
            ring.descriptor(head, (BUFFERS, 1), 0, 0);
        }
        let (kick, call) = (new_eventfd(), new_eventfd());
        let mut vring = ring.running();
        vring.set_kick(Some(kick.try_clone().unwrap())).unwrap();
        vring.set_call(Some(call.try_clone().unwrap())).unwrap();
        Self { ring, vring: Arc::new(SharedVring::new(vring)), kick, call }
    }
}

pub(super) fn loop_of(device: impl Fn(&mut Queue<'_>) + Send + Sync + 'static) -> RingLoop {
    RingLoop::new(Arc::new(Serving(device))).unwrap()
}

#[test]
fn a_worker_serves_kicks() {
    let driver = Driver::new();
    let worker = Worker::spawn("test", loop_of(complete_all)).unwrap();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    for round in 1..=10 {
        driver.ring.offer(round % 4);
        kick(&driver.kick);
        wait_for(&driver.call);
        assert_eq!(driver.ring.used_index(), round);
    }
    assert!(worker.is_running());
    assert_eq!(worker.stop(), Ok(()));
}

#[test]
fn a_kick_before_the_worker_knew_the_ring_is_not_lost() {
    let driver = Driver::new();
    driver.ring.offer(1);
    kick(&driver.kick);
    let worker = Worker::spawn("test", loop_of(complete_all)).unwrap();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    wait_for(&driver.call);
}

#[test]
fn no_kick_is_lost_while_descriptors_are_replaced() {
    let mut driver = Driver::new();
    let worker = Worker::spawn("test", loop_of(complete_all)).unwrap();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    for round in 0..50 {
        driver.ring.offer(0);
        match round % 3 {
            // Kicked on the old descriptor while the new one takes over.
            0 => kick(&driver.kick),
            // Not kicked at all: the new descriptor itself is the reason to look.
            1 => {}
            // Without any descriptor in between.
            _ => driver.vring.lock().set_kick(None).unwrap(),
        }
        driver.kick = new_eventfd();
        driver.vring.lock().set_kick(Some(driver.kick.try_clone().unwrap())).unwrap();
        while driver.ring.used_index() != round + 1 {
            wait_for(&driver.call);
        }
        while signals(&driver.call) > 0 {}
    }
    driver.ring.offer(0);
    kick(&driver.kick);
    wait_for(&driver.call);
}

#[test]
fn an_enabled_ring_is_looked_at_without_a_kick() {
    let driver = Driver::new();
    let worker = Worker::spawn("test", loop_of(complete_all)).unwrap();
    driver.vring.lock().disable();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    driver.ring.offer(0);
    kick(&driver.kick);
    driver.vring.lock().enable();
    wait_for(&driver.call);
}

#[test]
fn an_old_kick_descriptor_means_nothing_although_the_driver_keeps_it() {
    let driver = Driver::new();
    let rings = loop_of(complete_all);
    rings.add(Arc::clone(&driver.vring)).unwrap();
    driver.vring.lock().set_kick(Some(new_eventfd())).unwrap();
    rings.turn(AT_ONCE).unwrap();
    driver.ring.offer(0);
    kick(&driver.kick);
    rings.turn(AT_ONCE).unwrap();
    assert_eq!(driver.ring.used_index(), 0);
}

#[test]
fn descriptors_that_cannot_be_waited_for_are_refused() {
    let driver = Driver::new();
    let rings = loop_of(complete_all);
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    rings.add(Arc::clone(&driver.vring)).unwrap();
    assert_eq!(driver.vring.lock().set_kick(Some(file())), Err(WatchError::NotPollable));
    rings.turn(AT_ONCE).unwrap();
    driver.ring.offer(0);
    kick(&driver.kick);
    rings.turn(AT_ONCE).unwrap();
    assert_eq!(driver.ring.used_index(), 1, "the old descriptor stayed");

    let other = Driver::new();
    other.vring.lock().set_kick(Some(file())).unwrap();
    assert_eq!(rings.add(Arc::clone(&other.vring)).unwrap_err(), WatchError::NotPollable);
    assert_eq!(Arc::strong_count(&other.vring), 1, "a refused ring is not kept");
    other.vring.lock().set_kick(Some(new_eventfd())).unwrap();
    assert!(rings.add(Arc::clone(&other.vring)).is_ok());
}

#[test]
fn a_descriptor_that_hung_up_costs_one_turn() {
    let driver = Driver::new();
    let turns = Arc::new(AtomicU16::new(0));
    let count = Arc::clone(&turns);
    let rings = loop_of(move |queue| {
        count.fetch_add(1, Ordering::Relaxed);
        complete_all(queue);
    });
    let (read, write) = rustix::pipe::pipe().unwrap();
    driver.vring.lock().set_kick(Some(read)).unwrap();
    rings.add(Arc::clone(&driver.vring)).unwrap();
    rings.turn(AT_ONCE).unwrap();
    turns.store(0, Ordering::Relaxed);
    // Much to read, which nobody ever reads, and then the end.
    assert_eq!(rustix::io::write(&write, &[0; 1000]), Ok(1000));
    rings.turn(AT_ONCE).unwrap();
    drop(write);
    for _ in 0..10 {
        rings.turn(AT_ONCE).unwrap();
    }
    assert_eq!(turns.load(Ordering::Relaxed), 2);
}

#[test]
fn rings_share_a_loop_fairly() {
    let (greedy, modest) = (Driver::new(), Driver::new());
    let guest = Arc::clone(&greedy.ring);
    let rings = loop_of(move |queue| {
        while let Some(chain) = queue.next() {
            if queue.index() == 0 {
                guest.offer(0);
            }
            queue.complete(chain, 0);
        }
    });
    *modest.vring.lock() = {
        let mut vring = crate::vring::Vring::new(1);
        vring.set_size(4).unwrap();
        vring.set_memory(modest.ring.memory.clone(), Some(crate::vring::test_ring::ADDRESSES)).unwrap();
        vring.set_kick(Some(modest.kick.try_clone().unwrap())).unwrap();
        vring.start().unwrap();
        vring.enable();
        vring
    };
    greedy.ring.offer(0);
    rings.add(Arc::clone(&greedy.vring)).unwrap();
    rings.add(Arc::clone(&modest.vring)).unwrap();
    for turn in 1..=5 {
        modest.ring.offer(0);
        kick(&modest.kick);
        rings.turn(AT_ONCE).unwrap();
        assert_eq!((modest.ring.used_index(), greedy.ring.used_index()), (turn, 4 * turn));
    }
}

#[test]
fn a_driver_that_always_adds_keeps_nobody_from_stopping() {
    let driver = Driver::new();
    let guest = Arc::clone(&driver.ring);
    let worker = Worker::spawn(
        "test",
        loop_of(move |queue| {
            while let Some(chain) = queue.next() {
                guest.offer(0);
                queue.complete(chain, 0);
            }
        }),
    )
    .unwrap();
    driver.ring.offer(0);
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    for _ in 0..100 {
        driver.vring.lock().disable();
        driver.vring.lock().enable();
    }
    let base = driver.vring.lock().stop();
    assert_eq!(base.to_num(), u32::from(driver.ring.used_index()), "nothing is under way after a stop");
    driver.vring.lock().start().unwrap();
    assert_eq!(worker.stop(), Ok(()));
}

#[test]
fn a_device_wakes_its_ring_without_a_kick() {
    let driver = Driver::new();
    let packets = Arc::new(AtomicU16::new(0));
    let have = Arc::clone(&packets);
    let worker = Worker::spawn(
        "test",
        loop_of(move |queue| {
            if have.load(Ordering::Acquire) > 0 {
                complete_all(queue);
            }
        }),
    )
    .unwrap();
    driver.ring.offer(0);
    let waker = worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    packets.store(1, Ordering::Release);
    waker.wake();
    wait_for(&driver.call);
}

#[test]
fn a_removed_ring_is_served_no_longer_and_its_place_is_used_again() {
    let (first, second) = (Driver::new(), Driver::new());
    let rings = loop_of(complete_all);
    let waker = rings.add(Arc::clone(&first.vring)).unwrap();
    rings.turn(AT_ONCE).unwrap();
    rings.remove(&waker);
    first.ring.offer(0);
    kick(&first.kick);
    let mut fds = [PollFd::from_borrowed_fd(rings.fd(), PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec::default())), Ok(0), "its kicks wake nobody");
    rings.turn(AT_ONCE).unwrap();
    assert_eq!(first.ring.used_index(), 0);

    second.ring.offer(0);
    rings.add(Arc::clone(&second.vring)).unwrap();
    rings.turn(AT_ONCE).unwrap();
    assert_eq!((first.ring.used_index(), second.ring.used_index()), (0, 1));
    loop_of(complete_all).add(Arc::clone(&first.vring)).unwrap();
}

#[test]
fn the_loop_runs_in_somebody_elses_loop() {
    let driver = Driver::new();
    let rings = loop_of(complete_all);
    rings.add(Arc::clone(&driver.vring)).unwrap();
    let readable = || {
        let mut fds = [PollFd::from_borrowed_fd(rings.fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    while readable() {
        rings.turn(AT_ONCE).unwrap();
    }
    driver.ring.offer(2);
    kick(&driver.kick);
    assert!(readable());
    rings.turn(AT_ONCE).unwrap();
    assert!(!readable());
    assert_eq!(driver.ring.all_used(), [(2, 0)]);
}

#[test]
fn a_panic_of_the_device_ends_its_worker_and_is_told() {
    let driver = Driver::new();
    let (reached, wait) = mpsc::channel();
    let reached = Mutex::new(reached);
    let worker = Worker::spawn(
        "test",
        loop_of(move |_| {
            reached.lock().unwrap().send(()).unwrap();
            std::panic::resume_unwind(Box::new("silent"));
        }),
    )
    .unwrap();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    wait.recv().unwrap();
    assert_eq!(worker.stop(), Err(WorkerError::Panicked));
    assert_eq!(driver.vring.lock().stop().to_num(), 0, "the ring can still be stopped");
    let rings = loop_of(complete_all);
    driver.ring.offer(3);
    let mut vring = driver.vring.lock();
    vring.start().unwrap();
    assert_eq!(vring.process(&Serving(complete_all)), Ok(Turn::Idle));
    drop(vring);
    drop(rings);
    assert_eq!(driver.ring.all_used(), [(3, 0)]);
}

#[test]
fn dropping_a_worker_waits_for_its_thread() {
    let driver = Driver::new();
    let device = Arc::new(Serving(complete_all));
    let alive = Arc::downgrade(&device);
    let worker = Worker::spawn("test", RingLoop::new(device).unwrap()).unwrap();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    drop(worker);
    assert!(alive.upgrade().is_none());
    assert_eq!(Arc::strong_count(&driver.vring), 1);
}

#[test]
fn a_worker_dropped_by_its_own_device_ends_by_itself() {
    let driver = Driver::new();
    let own: Arc<Mutex<Option<Worker>>> = Arc::default();
    let (device_has, done) = (Arc::clone(&own), new_eventfd());
    let tell = done.try_clone().unwrap();
    let worker = Worker::spawn(
        "test",
        loop_of(move |queue| {
            let taken = device_has.lock().unwrap().take();
            if let Some(worker) = taken {
                complete_all(queue);
                drop(worker);
                kick(&tell);
            }
        }),
    )
    .unwrap();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    *own.lock().unwrap() = Some(worker);
    driver.ring.offer(0);
    kick(&driver.kick);
    wait_for(&done);
}
