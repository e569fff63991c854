//! Rings that are looked at without a kick, and everything else that has to go on meanwhile.

use core::sync::atomic::AtomicBool;
use core::time::Duration;
use std::sync::Arc;

use super::Worker;
use super::tests::{Driver, complete_all, loop_of, wait_for};
use crate::device::Queue;
use crate::vring::test_ring::{EVENT_IDX, Serving, kick, ring_of_chains};

/// So long that a test that waits for its end hangs.
const LONG: Duration = Duration::from_secs(3600);

fn looking_worker() -> Worker {
    Worker::spawn("test", loop_of(complete_all).with_busy_poll(LONG)).unwrap()
}

#[test]
fn after_one_kick_no_other_is_needed_and_it_can_be_stopped() {
    let driver = Driver::new();
    let worker = looking_worker();
    worker.rings().add(Arc::clone(&driver.vring)).unwrap();
    driver.ring.offer(0);
    kick(&driver.kick);
    wait_for(&driver.call);
    for round in 2..=10 {
        driver.ring.offer(round % 4);
        wait_for(&driver.call);
        assert_eq!(driver.ring.used_index(), round);
    }
    assert_eq!(worker.stop(), Ok(()));
}

#[test]
fn rings_are_added_disabled_enabled_and_stopped_meanwhile() {
    let (first, second) = (Driver::new(), Driver::new());
    let worker = looking_worker();
    worker.rings().add(Arc::clone(&first.vring)).unwrap();
    first.ring.offer(0);
    kick(&first.kick);
    wait_for(&first.call);
    worker.rings().add(Arc::clone(&second.vring)).unwrap();
    second.ring.offer(0);
    kick(&second.kick);
    wait_for(&second.call);
    first.vring.lock().disable();
    first.ring.offer(1);
    assert_eq!(first.ring.used_index(), 1);
    first.vring.lock().enable();
    wait_for(&first.call);
    assert_eq!(first.vring.lock().stop().to_num(), 2);
}

#[test]
fn a_device_that_wants_nothing_is_not_looked_at() {
    let driver = Driver::new();
    let rings = loop_of(|_: &mut Queue<'_>| {}).with_busy_poll(LONG);
    driver.ring.offer(0);
    rings.add(Arc::clone(&driver.vring)).unwrap();
    // It would not come back for an hour.
    rings.step(&AtomicBool::new(false)).unwrap();
    assert_eq!(driver.ring.used_index(), 0);
}

#[test]
fn without_patience_left_the_next_chain_needs_a_kick_again() {
    let driver = Driver::new();
    let rings = loop_of(complete_all);
    rings.add(Arc::clone(&driver.vring)).unwrap();
    driver.ring.offer(0);
    rings.keep_looking(&[Arc::clone(&driver.vring)], Duration::ZERO, &AtomicBool::new(false)).unwrap();
    assert_eq!((driver.ring.used_index(), driver.ring.used_flags()), (1, 0), "served, and kicks are on");
}

#[test]
fn kicks_are_not_asked_for_while_somebody_looks() {
    let device = Serving(complete_all);
    for features in [vhost_core::VirtioFeatures::empty(), EVENT_IDX] {
        let ring = ring_of_chains(8);
        let mut vring = ring.configured();
        vring.set_features(features).unwrap();
        vring.start().unwrap();
        vring.enable();
        assert!(!vring.attend(&device));
        for round in 1..=3 {
            ring.offer(0);
            assert!(vring.attend(&device));
            assert_eq!((ring.used_index(), ring.available_event()), (round, 0));
            if features.is_empty() {
                assert_eq!(ring.used_flags(), 1);
            }
        }
        assert!(!vring.is_scan_due());
        vring.leave();
        assert!(!vring.is_scan_due());
        let asked = if features.is_empty() { 0 } else { 3 };
        assert_eq!((ring.available_event(), ring.used_flags()), (asked, 0));
        // Between the last look and the end.
        assert!(!vring.attend(&device));
        ring.offer(0);
        vring.leave();
        assert!(vring.is_scan_due());
    }
}
