//! One turn of a ring: which chains it takes, when it ends, and the notifications in both directions.

use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::Turn;
use super::test_ring::{EVENT_IDX, Serving, TestRing, new_eventfd, one_byte, process, ring_of_chains, signals};
use crate::device::Queue;
use crate::eventfd::EventFdError;

#[test]
fn a_chain_that_comes_after_the_device_looked_needs_no_kick() {
    for features in [vhost_core::VirtioFeatures::empty(), EVENT_IDX] {
        let ring = Arc::new(ring_of_chains(8));
        let guest = Arc::clone(&ring);
        let device = Serving(move |queue: &mut Queue<'_>| {
            one_byte(queue);
            // The device has seen the end, and kicks are still off.
            if guest.available_index() < 3 {
                guest.offer(guest.available_index());
            }
        });
        let mut vring = ring.configured();
        vring.set_features(features).unwrap();
        vring.start().unwrap();
        vring.enable();
        assert_eq!(vring.process(&device), Ok(Turn::Idle));
        assert_eq!(ring.all_used(), [(0, 1), (1, 1), (2, 1)]);
    }
}

#[test]
fn kicks_are_off_during_processing_and_on_afterwards() {
    let ring = Arc::new(ring_of_chains(8));
    let guest = Arc::clone(&ring);
    let device = Serving(move |queue: &mut Queue<'_>| {
        assert_eq!(guest.used_flags(), 1);
        one_byte(queue);
    });
    ring.offer(0);
    assert_eq!(ring.running().process(&device), Ok(Turn::Idle));
    assert_eq!(ring.used_flags(), 0);
}

#[test]
fn with_event_index_the_next_kick_is_asked_for_at_the_next_chain() {
    let ring = ring_of_chains(8);
    let mut vring = ring.configured();
    vring.set_features(EVENT_IDX).unwrap();
    vring.start().unwrap();
    vring.enable();
    for round in 1..=3 {
        ring.offer(0);
        assert_eq!(process(&mut vring), Ok(Turn::Idle));
        assert_eq!(ring.available_event(), round);
    }
}

#[test]
fn the_driver_is_signalled_unless_it_said_no() {
    let ring = ring_of_chains(8);
    let call = new_eventfd();
    let mut vring = ring.running();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(signals(&call), 0, "nothing was given back");
    ring.offer(0);
    ring.offer(1);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(signals(&call), 1, "once for both");
    ring.set_available_flags(1);
    ring.offer(2);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!((signals(&call), ring.used_index()), (0, 3));
    ring.set_available_flags(0);
    vring.set_call(None).unwrap();
    ring.offer(3);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!((signals(&call), ring.used_index()), (0, 4));
}

#[test]
fn with_event_index_the_driver_is_signalled_when_its_index_is_passed() {
    let ring = ring_of_chains(8);
    let call = new_eventfd();
    let mut vring = ring.configured();
    vring.set_features(EVENT_IDX).unwrap();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    vring.start().unwrap();
    vring.enable();
    // The flags mean nothing when indices are used.
    ring.set_available_flags(1);
    ring.set_used_event(2);
    for expected in [0, 0, 1, 0, 0] {
        ring.offer(0);
        assert_eq!(process(&mut vring), Ok(Turn::Idle));
        assert_eq!(signals(&call), expected, "after {}", ring.used_index());
    }
    ring.set_used_event(6);
    for head in 0..4 {
        ring.offer(head);
    }
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!((signals(&call), ring.used_index()), (1, 9), "passed within a batch");
}

#[test]
fn the_first_of_a_long_batch_does_not_wait_for_the_last() {
    let ring = ring_of_chains(256);
    let call = new_eventfd();
    let early = Arc::new(AtomicU64::new(0));
    let mut vring = ring.running();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    for head in 0..160 {
        ring.offer(head);
    }
    let (seen, watched) = (Arc::clone(&early), call.try_clone().unwrap());
    let device = Serving(move |queue: &mut Queue<'_>| {
        one_byte(queue);
        seen.fetch_add(signals(&watched), Ordering::Relaxed);
    });
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
    assert_eq!((early.load(Ordering::Relaxed), signals(&call)), (2, 1), "after 64, 128 and 160");
}

/// A driver that asks anew all the time has done so during some signal, soon.
#[test]
fn a_driver_that_asks_anew_during_a_signal_is_signalled_late_from_then_on() {
    let stop = AtomicBool::new(false);
    let ring = ring_of_chains(32);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                ring.set_used_event(0);
                ring.set_used_event(1);
            }
        });
        let start = Instant::now();
        let mut signalled_after = 12;
        while signalled_after == 12 && start.elapsed() < Duration::from_secs(30) {
            ring.set_available_index(0);
            ring.set_used_index(0);
            let mut vring = ring.configured();
            vring.set_features(EVENT_IDX).unwrap();
            vring.set_call(Some(new_eventfd())).unwrap();
            vring.start().unwrap();
            vring.enable();
            (0..20).for_each(|head| ring.offer(head));
            assert_eq!(process(&mut vring), Ok(Turn::Idle));
            signalled_after = vring.promptness.signal_after();
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(signalled_after, 64);
    });
}

#[test]
fn a_signal_that_cannot_be_taken_neither_blocks_nor_stops_the_ring() {
    let ring = ring_of_chains(8);
    let mut vring = ring.running();
    let blocking = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&blocking, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    vring.set_call(Some(blocking)).unwrap();
    ring.offer(0);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(vring.faults().last_call, None, "full means signalled");

    let (_, pipe) = rustix::pipe::pipe().unwrap();
    let refused = vring.set_call(Some(pipe));
    assert!(matches!(refused, Err(EventFdError::WrongKind { .. })), "{refused:?}");
    ring.offer(1);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!((ring.used_index(), vring.faults().last_call), (2, None));
}

#[test]
fn a_turn_ends_after_as_many_chains_as_the_ring_has() {
    let ring = Arc::new(ring_of_chains(4));
    let guest = Arc::clone(&ring);
    ring.offer(0);
    let device = Serving(move |queue: &mut Queue<'_>| {
        while let Some(chain) = queue.next() {
            guest.offer(0);
            queue.complete(chain, 1);
        }
    });
    let mut vring = ring.running();
    for turn in 1..=3 {
        assert_eq!(vring.process(&device), Ok(Turn::More));
        assert_eq!(ring.used_index(), 4 * turn);
        assert!(vring.is_scan_due());
    }
    vring.disable();
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
}

#[test]
fn malformed_chains_use_up_the_turn_as_well() {
    let ring = TestRing::new(4);
    for _ in 0..3 {
        ring.offer(0);
    }
    let mut vring = ring.running();
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    for _ in 0..4 {
        ring.offer(0);
    }
    assert_eq!(process(&mut vring), Ok(Turn::More));
    assert_eq!((ring.used_index(), vring.faults().chains), (7, 7));
}

#[test]
fn chains_that_the_device_drops_go_back_empty() {
    let ring = ring_of_chains(8);
    for head in 0..4 {
        ring.offer(head);
    }
    let device = Serving(|queue: &mut Queue<'_>| {
        let (first, second, third) = (queue.next().unwrap(), queue.next().unwrap(), queue.next().unwrap());
        queue.complete(second, 1);
        drop((first, third));
        one_byte(queue);
    });
    let mut vring = ring.running();
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
    assert_eq!(ring.all_used(), [(1, 1), (3, 1), (0, 0), (2, 0)]);
    assert_eq!(vring.faults().abandoned, 2);
}

#[test]
fn a_device_may_leave_chains_for_later() {
    let ring = ring_of_chains(8);
    ring.offer(0);
    ring.offer(1);
    let wanted = Arc::new(AtomicU16::new(0));
    let budget = Arc::clone(&wanted);
    let passes = Arc::new(AtomicU16::new(0));
    let count = Arc::clone(&passes);
    let device = Serving(move |queue: &mut Queue<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        while budget.load(Ordering::Relaxed) > 0 {
            budget.fetch_sub(1, Ordering::Relaxed);
            let chain = queue.next().unwrap();
            queue.complete(chain, 1);
        }
    });
    let mut vring = ring.running();
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
    assert_eq!((ring.used_index(), passes.swap(0, Ordering::Relaxed)), (0, 1));
    wanted.store(1, Ordering::Relaxed);
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
    assert_eq!((ring.used_index(), vring.base().to_num()), (1, 1));
    assert_eq!(passes.load(Ordering::Relaxed), 2, "having taken one it is asked again, as the next may have come late");
}

#[test]
fn a_device_that_takes_one_chain_a_pass_gets_them_all() {
    let ring = ring_of_chains(8);
    for head in 0..5 {
        ring.offer(head);
    }
    let device = Serving(|queue: &mut Queue<'_>| {
        if let Some(chain) = queue.next() {
            queue.complete(chain, 1);
        }
    });
    assert_eq!(ring.running().process(&device), Ok(Turn::Idle));
    assert_eq!(ring.used_index(), 5);
}

#[test]
fn chains_that_belong_together_are_seen_together_and_in_order() {
    let ring = Arc::new(ring_of_chains(8));
    let guest = Arc::clone(&ring);
    let device = Serving(move |queue: &mut Queue<'_>| {
        let chains: Vec<_> = core::iter::from_fn(|| queue.next()).collect();
        let watched = chains.into_iter().map(|chain| {
            assert_eq!(guest.used_index(), 0, "the driver sees a part");
            (chain, 1)
        });
        queue.complete_together(watched);
        assert_eq!(guest.used_index(), 3);
    });
    let call = new_eventfd();
    let mut vring = ring.running();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    for head in [5, 2, 7] {
        ring.offer(head);
    }
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
    assert_eq!(ring.all_used(), [(5, 1), (2, 1), (7, 1)]);
    assert_eq!((signals(&call), vring.faults().abandoned), (1, 0));
}

#[test]
fn what_has_begun_may_exceed_the_turn() {
    let ring = Arc::new(ring_of_chains(4));
    let guest = Arc::clone(&ring);
    let taken = Arc::new(AtomicU16::new(0));
    let count = Arc::clone(&taken);
    let device = Serving(move |queue: &mut Queue<'_>| {
        while let Some(chain) = queue.next() {
            queue.complete(chain, 1);
            guest.offer(0);
        }
        let more = queue.next_for_same().unwrap();
        queue.complete(more, 1);
        assert!(queue.next_for_same().is_none() && queue.next().is_none());
        count.store(guest.used_index(), Ordering::Relaxed);
    });
    ring.offer(0);
    assert_eq!(ring.running().process(&device), Ok(Turn::More));
    assert_eq!(taken.load(Ordering::Relaxed), 5, "four of the turn, and one more");
}
