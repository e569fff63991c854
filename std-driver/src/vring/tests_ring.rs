//! A ring as a whole: its parameters, starting and stopping, indices, faults that stop it.

use std::sync::Arc;

use super::test_ring::{
    ADDRESSES, BUFFERS, END, EVENT_IDX, Serving, TestRing, kick, memory, new_eventfd, one_byte, process,
    ring_of_chains, signals,
};
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, PartFault, RingFault as Broken, RingPart, Unmapped, VirtioFeatures};

use super::{RingAddresses, RingFault, RingMisuse, Turn, Vring};
use crate::device::Queue;

/// A place in a split ring.
fn at(available: u16) -> VringBase {
    VringBase::Split { available }
}

#[test]
fn nothing_happens_unless_started_and_enabled() {
    let ring = ring_of_chains(8);
    ring.offer(3);
    let mut vring = ring.configured();
    vring.enable();
    assert!(!vring.is_scan_due());
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    vring.disable();
    vring.start().unwrap();
    assert!(!vring.is_scan_due());
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(ring.used_index(), 0);

    vring.enable();
    assert!(vring.is_scan_due(), "a kick may have come before");
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert!(!vring.is_scan_due());
    assert_eq!(ring.all_used(), [(3, 1)]);
}

#[test]
fn the_other_order_of_start_and_enable_asks_for_a_scan_too() {
    let mut vring = ring_of_chains(8).configured();
    vring.enable();
    vring.start().unwrap();
    assert!(vring.is_scan_due());
}

#[test]
fn indices_run_free_and_go_on_after_a_stop() {
    let ring = ring_of_chains(8);
    ring.set_available_index(65534);
    ring.set_used_index(65531);
    let mut vring = ring.configured();
    vring.set_base(at(65534)).unwrap();
    vring.start().unwrap();
    vring.enable();
    for head in 0..4 {
        ring.offer(head);
    }
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(vring.stop(), at(2));
    assert!(!vring.is_started());
    assert_eq!(ring.used_index(), 65535, "four more than the memory said at the start");
    assert_eq!([65531, 65532, 65533, 65534].map(|index| ring.used(index).0), [0, 1, 2, 3]);

    ring.offer(5);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(ring.used_index(), 65535, "stopped");
    vring.start().unwrap();
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!((ring.used(65535).0, ring.used_index(), vring.base()), (5, 0, at(3)));
}

#[test]
fn the_used_index_is_read_at_the_start_and_not_before() {
    let ring = ring_of_chains(8);
    let mut vring = ring.configured();
    ring.set_used_index(100);
    vring.start().unwrap();
    vring.enable();
    ring.offer(1);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!((ring.used_index(), ring.used(100)), (101, (1, 1)));
}

#[test]
fn an_available_index_too_far_ahead_stops_the_ring_and_is_reported() {
    let ring = ring_of_chains(4);
    let (call, error) = (new_eventfd(), new_eventfd());
    let mut vring = ring.running();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    vring.set_error(Some(error.try_clone().unwrap())).unwrap();
    ring.offer(0);
    ring.offer(1);
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!((signals(&call), signals(&error)), (1, 0));
    ring.set_available_index(7);
    let fault = RingFault::Broken(Broken::AvailableAhead { available: 7, next: 2, size: 4 });
    assert_eq!(process(&mut vring), Err(fault));
    assert_eq!((signals(&call), signals(&error)), (0, 1));
    assert_eq!((vring.is_started(), vring.base(), vring.faults().last_ring), (false, at(2), Some(fault)));
    assert_eq!(process(&mut vring), Ok(Turn::Idle), "a stopped ring has nothing to say");
    ring.set_available_index(6);
    vring.start().unwrap();
    assert_eq!(process(&mut vring), Ok(Turn::More), "exactly full is allowed");
    assert_eq!(ring.used_index(), 6);
}

#[test]
fn an_index_that_runs_ahead_in_the_middle_keeps_what_was_done() {
    let ring = Arc::new(ring_of_chains(4));
    let guest = Arc::clone(&ring);
    let call = new_eventfd();
    ring.offer(2);
    let device = Serving(move |queue: &mut Queue<'_>| {
        let chain = queue.next().unwrap();
        guest.set_available_index(100);
        queue.complete(chain, 1);
        assert!(queue.next().is_none());
        assert!(queue.next().is_none());
    });
    let mut vring = ring.running();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    assert_eq!(
        vring.process(&device),
        Err(RingFault::Broken(Broken::AvailableAhead { available: 100, next: 1, size: 4 }))
    );
    assert_eq!((ring.all_used(), signals(&call)), (vec![(2, 1)], 1));
}

#[test]
fn a_ring_starts_only_where_it_fits() {
    let ring = TestRing::new(8);
    let mut vring = Vring::new(3);
    assert_eq!(vring.start(), Err(RingFault::NotConfigured));
    vring.set_memory(ring.memory.clone(), Some(ADDRESSES)).unwrap();
    assert_eq!(vring.start(), Err(RingFault::NotConfigured), "no size");
    vring.set_size(8).unwrap();
    let cause = Unmapped::Outside;
    let outside = |part, address, length| RingFault::Misplaced(PartFault::Unmapped { part, address, length, cause });
    let misaligned =
        |part, address, alignment| RingFault::Misplaced(PartFault::Misaligned { part, address, alignment });
    let cases = [
        (
            RingAddresses { descriptor: GuestAddress(0x1008), ..ADDRESSES },
            misaligned(RingPart::DescriptorTable, 0x1008, 16),
        ),
        (RingAddresses { driver: GuestAddress(0x8001), ..ADDRESSES }, misaligned(RingPart::AvailableRing, 0x8001, 2)),
        (RingAddresses { device: GuestAddress(0x9002), ..ADDRESSES }, misaligned(RingPart::UsedRing, 0x9002, 4)),
        (
            RingAddresses { descriptor: GuestAddress(END - 112), ..ADDRESSES },
            outside(RingPart::DescriptorTable, END - 112, 128),
        ),
        (RingAddresses { driver: GuestAddress(END - 20), ..ADDRESSES }, outside(RingPart::AvailableRing, END - 20, 22)),
        (RingAddresses { device: GuestAddress(END - 68), ..ADDRESSES }, outside(RingPart::UsedRing, END - 68, 70)),
        (
            RingAddresses { device: GuestAddress(u64::MAX - 3), ..ADDRESSES },
            outside(RingPart::UsedRing, u64::MAX - 3, 70),
        ),
    ];
    for (addresses, fault) in cases {
        vring.set_addresses(addresses).unwrap();
        assert_eq!(vring.start(), Err(fault));
        assert_eq!((vring.is_started(), vring.faults().last_ring), (false, Some(fault)));
    }
    let last = RingAddresses {
        descriptor: GuestAddress(END - 128),
        driver: GuestAddress(END - 128 - 22),
        device: GuestAddress(END - 128 - 96),
    };
    vring.set_addresses(last).unwrap();
    assert_eq!(vring.start(), Ok(()));
}

#[test]
fn sizes_are_powers_of_two_in_range() {
    let mut vring = Vring::new(0);
    for size in [0, 3, 100, 32767, 32769, 65536, 0x1_0001, u32::MAX] {
        assert_eq!(vring.set_size(size), Err(RingMisuse::Size(size)));
    }
    for size in [1, 2, 256, 32768] {
        assert_eq!(vring.set_size(size), Ok(()));
    }
}

#[test]
fn a_running_ring_keeps_its_parameters() {
    let mut vring = ring_of_chains(8).running();
    assert_eq!(vring.set_size(8), Ok(()), "said again");
    assert_eq!(vring.set_size(4), Err(RingMisuse::Running));
    assert_eq!(vring.set_base(at(1)), Err(RingMisuse::Running));
    assert_eq!(vring.set_features(VirtioFeatures::VERSION_1 | VirtioFeatures::RING_INDIRECT), Ok(()));
    assert_eq!(vring.set_features(EVENT_IDX), Err(RingMisuse::Running));
    vring.stop();
    assert_eq!((vring.set_size(4), vring.set_base(at(1)), vring.set_features(EVENT_IDX)), (Ok(()), Ok(()), Ok(())));
}

#[test]
fn memory_and_addresses_may_change_under_a_running_ring() {
    let (old, new) = (ring_of_chains(8), TestRing::new(8));
    let mut vring = old.running();
    old.offer(2);
    assert_eq!(vring.process(&Serving(one_byte)), Ok(Turn::Idle));

    new.set_available_index(1);
    new.set_used_index(1);
    new.descriptor(5, (BUFFERS, 77), 0, 0);
    new.offer(5);
    vring.set_memory(new.memory.clone(), Some(ADDRESSES)).unwrap();
    assert!(vring.is_scan_due());
    let device = Serving(|queue: &mut Queue<'_>| {
        let chain = queue.next().unwrap();
        assert_eq!((chain.id(), chain.readable().len()), (5, 77));
        queue.complete(chain, 0);
    });
    assert_eq!(vring.process(&device), Ok(Turn::Idle));
    assert_eq!((old.used_index(), new.used_index(), new.used(1)), (1, 2, (5, 0)));
    assert_eq!(Arc::strong_count(&old.memory.shared()), 2, "the old memory was let go");
}

#[test]
fn memory_without_the_ring_stops_it() {
    let ring = ring_of_chains(8);
    let error = new_eventfd();
    let small = || memory(&[(0, 0x8000)]);
    let (part, cause) = (RingPart::AvailableRing, Unmapped::Outside);
    let outside = RingFault::Misplaced(PartFault::Unmapped { part, address: 0x8000, length: 22, cause });
    for (addresses, fault) in [(Some(ADDRESSES), outside), (None, RingFault::NotConfigured)] {
        let mut vring = ring.running();
        vring.set_error(Some(error.try_clone().unwrap())).unwrap();
        assert_eq!(vring.set_memory(small(), addresses), Err(fault));
        assert_eq!((vring.is_started(), signals(&error)), (false, 1));
    }
}

#[test]
fn a_new_kick_descriptor_asks_for_a_scan() {
    let ring = ring_of_chains(8);
    let mut vring = ring.running();
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    let fd = new_eventfd();
    kick(&fd);
    vring.set_kick(Some(fd.try_clone().unwrap())).unwrap();
    assert!(vring.is_scan_due() && vring.kick().is_some());
    assert_eq!(process(&mut vring), Ok(Turn::Idle));
    assert_eq!(signals(&fd), 1, "kicks are not read");
    vring.stop();
    assert!(vring.kick().is_none() && !vring.is_scan_due());
}

#[test]
fn a_reset_ring_is_a_new_one() {
    let ring = ring_of_chains(8);
    let call = new_eventfd();
    let mut vring = ring.running();
    vring.set_call(Some(call.try_clone().unwrap())).unwrap();
    vring.set_kick(Some(new_eventfd())).unwrap();
    ring.offer(0);
    assert_eq!(vring.process(&Serving(one_byte)), Ok(Turn::Idle));
    vring.reset();
    assert_eq!((vring.base(), vring.is_started(), vring.is_enabled()), (at(0), false, false));
    assert!(vring.kick().is_none());
    assert_eq!(vring.start(), Err(RingFault::NotConfigured));
    assert_eq!(Arc::strong_count(&ring.memory.shared()), 2, "memory stays");
}
