//! Requests that another back-end had: taken first, also by a device that takes few at a time, and before the ring stops.

use core::sync::atomic::{AtomicU16, Ordering};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vhost_core::RingLayout;
use vhost_core::wire::vring::VringBase;

use super::test_ring::{EVENT_IDX, Serving, TestRing, new_eventfd, one_byte, process, ring_of_chains, signals};
use super::{RingMisuse, Turn, Vring};
use crate::device::Queue;
use crate::inflight::{InflightRecord, create};

/// A ring of 8 whose heads 5, 1, 3 were taken in this order by somebody who is gone; 0 to 2 come after them.
fn interrupted() -> (TestRing, Vring) {
    let ring = ring_of_chains(8);
    for head in [1, 3, 5, 0, 1, 2] {
        ring.offer(head);
    }
    let (shape, file) = create(RingLayout::Split, 1, 8).unwrap();
    let file = File::from(file);
    file.write_all_at(&[1_u16.to_ne_bytes(), 8_u16.to_ne_bytes()].concat(), 8).unwrap();
    for (counter, head) in [(7_u64, 5_u64), (8, 1), (9, 3)] {
        file.write_all_at(&[&[1, 0, 0, 0, 0, 0, 0, 0][..], &counter.to_ne_bytes()].concat(), 16 + 16 * head).unwrap();
    }
    let mut vring = ring.configured();
    vring.set_inflight(Some(InflightRecord::new(&shape, file.into()).unwrap())).unwrap();
    vring.start().unwrap();
    (ring, vring)
}

const IN_ORDER: [(u32, u32); 3] = [(5, 1), (1, 1), (3, 1)];

#[test]
fn they_are_taken_first_also_one_at_a_time() {
    let (ring, mut vring) = interrupted();
    assert!(vring.has_recovered());
    vring.enable();
    let device = Serving(|queue: &mut Queue<'_>| {
        if let Some(chain) = queue.next() {
            queue.complete(chain, 1);
        }
    });
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
    assert_eq!(ring.all_used(), [&IN_ORDER[..], &[(0, 1), (1, 1), (2, 1)]].concat());
    assert!(!vring.has_recovered());
}

#[test]
fn a_ring_settles_without_taking_anything_new_and_enabled_or_not() {
    let (ring, mut vring) = interrupted();
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(ring.used_index(), 0, "it is disabled");
    vring.settle(&Serving(one_byte)).unwrap();
    assert_eq!(ring.all_used(), IN_ORDER);
    assert_eq!(vring.stop(), VringBase::split(3));
}

#[test]
fn a_device_that_wants_none_is_not_asked_for_ever_and_gets_them_later() {
    let (ring, mut vring) = interrupted();
    vring.enable();
    let asked = Arc::new(AtomicU16::new(0));
    let counted = Arc::clone(&asked);
    let unwilling = Serving(move |_: &mut Queue<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(vring.process(&unwilling), Ok(Turn::Idle));
    vring.settle(&unwilling).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // They are in the record, so nothing is lost by a stop.
    vring.pause();
    vring.start().unwrap();
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(ring.all_used()[..3], IN_ORDER);
}

#[test]
fn a_record_comes_and_goes_while_the_ring_is_stopped() {
    let (ring, mut vring) = interrupted();
    assert_eq!(vring.set_inflight(None), Err(RingMisuse::Running));
    vring.stop();
    vring.set_inflight(None).unwrap();
    vring.set_base(VringBase::split(0)).unwrap();
    vring.start().unwrap();
    assert!(!vring.has_recovered());
    vring.enable();
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(ring.all_used().len(), 6);
}

#[test]
fn a_driver_is_signalled_when_somebody_else_may_not_have_done_so() {
    let ring = ring_of_chains(8);
    let call = new_eventfd();
    for (base, expected) in [(0, 0), (3, 1)] {
        let mut vring = ring.configured();
        vring.set_features(EVENT_IDX).unwrap();
        vring.set_call(Some(call.try_clone().unwrap())).unwrap();
        vring.set_base(VringBase::split(base)).unwrap();
        vring.start().unwrap();
        assert_eq!(signals(&call), expected, "from {base}");
        vring.start().unwrap();
        vring.set_call(Some(call.try_clone().unwrap())).unwrap();
        assert_eq!(signals(&call), 0, "once");
    }
}
