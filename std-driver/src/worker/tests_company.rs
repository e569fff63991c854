//! Signals in the middle of a batch, of a ring that is alone and of rings beside each other.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use vhost_core::VirtioFeatures;

use super::tests::{AT_ONCE, loop_of};
use crate::device::Queue;
use crate::vring::SharedVring;
use crate::vring::test_ring::{EVENT_IDX, TestRing, new_eventfd, ring_of_chains, signals};

/// A ring with a batch of 100 chains, whose driver asks to be signalled of the first and does not ask again.
fn batch(features: VirtioFeatures, call: &OwnedFd) -> (TestRing, Arc<SharedVring>) {
    let ring = ring_of_chains(128);
    ring.set_used_event(0);
    (0..100).for_each(|head| ring.offer(head));
    let mut vring = ring.configured();
    vring.set_features(features).unwrap();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    vring.start().unwrap();
    vring.enable();
    (ring, Arc::new(SharedVring::new(vring)))
}

/// Behind how many chains of a batch the driver is signalled, if so many rings are kicked together.
fn signalled_behind(rings: usize, features: VirtioFeatures) -> Vec<u16> {
    let call = new_eventfd();
    let batches = Vec::from_iter((0..rings).map(|_| batch(features, &call)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noted, watched) = (Arc::clone(&seen), call.try_clone().unwrap());
    let device = move |queue: &mut Queue<'_>| {
        // The end of the batch before.
        signals(&watched);
        let mut completed = 0;
        while let Some(chain) = queue.next() {
            queue.complete(chain, 1);
            completed += 1;
            if signals(&watched) > 0 {
                noted.lock().unwrap().push(completed);
            }
        }
    };
    let ring_loop = loop_of(device);
    batches.iter().for_each(|(_, vring)| drop(ring_loop.add(Arc::clone(vring)).unwrap()));
    ring_loop.turn(AT_ONCE).unwrap();
    assert!(batches.iter().all(|(ring, _)| ring.used_index() == 100));
    seen.lock().unwrap().clone()
}

#[test]
fn a_driver_that_says_when_goes_on_beside_the_device() {
    assert_eq!(signalled_behind(1, EVENT_IDX), [12]);
}

#[test]
fn where_other_rings_wait_no_driver_is_signalled_early() {
    assert_eq!(signalled_behind(3, EVENT_IDX), [64; 3]);
}

#[test]
fn a_driver_that_hears_of_everything_is_signalled_late() {
    assert_eq!(signalled_behind(1, VirtioFeatures::empty()), [64]);
}
