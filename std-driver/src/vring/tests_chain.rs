//! Chains good and bad, through a ring: what the device sees, and what goes back to the driver.

use std::sync::{Arc, Mutex};

use super::test_ring::{BORDER, BUFFERS, END, INDIRECT, NEXT, Serving, TestRing, WRITE, memory};
use vhost_core::ChainFaultKind;

use super::{RingFault, Turn};
use crate::device::Queue;

const TABLE: u64 = 0x20000;

/// A device that records the readable bytes and the number of writable ones of every chain.
type Seen = Arc<Mutex<Vec<(Vec<u8>, u64)>>>;

fn recorder() -> (Seen, Serving<impl Fn(&mut Queue<'_>) + Send + Sync + 'static>) {
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    let device = Serving(move |queue: &mut Queue<'_>| {
        while let Some(chain) = queue.next() {
            let mut readable = chain.readable();
            let mut bytes = vec![0; readable.len() as usize];
            readable.read(&mut bytes).unwrap();
            let writable = chain.writable().len();
            record.lock().unwrap().push((bytes, writable));
            queue.complete(chain, writable as u32);
        }
    });
    (seen, device)
}

/// Serves the chain at descriptor 0, followed by a good one at descriptor 7 which must come through; returns the fault.
fn fault_of(ring: &TestRing) -> Option<ChainFaultKind> {
    let (seen, device) = recorder();
    let mut vring = ring.running();
    ring.write(BUFFERS + 0x100, b"good");
    ring.descriptor(7, (BUFFERS + 0x100, 4), 0, 0);
    ring.offer(0);
    ring.offer(7);
    // Large chains use a turn up.
    while vring.process(&device) != Ok(Turn::Idle) {}
    assert!(vring.is_started());
    let fault = vring.faults().last_chain;
    assert_eq!(vring.faults().chains, u64::from(fault.is_some()));
    assert_eq!(seen.lock().unwrap().last().unwrap(), &(b"good".to_vec(), 0));
    assert_eq!(ring.used(ring.used_index() - 1), (7, 0));
    let fault = fault?;
    assert_eq!((fault.ring, fault.id), (0, 0));
    assert_eq!(ring.all_used(), [(0, 0), (7, 0)], "a malformed chain goes back with length 0");
    assert_eq!(seen.lock().unwrap().len(), 1, "and the device never sees it");
    Some(fault.fault.kind)
}

#[test]
fn buffers_arrive_in_order_and_cross_memory_regions() {
    let ring = TestRing::new(8);
    let (seen, device) = recorder();
    ring.write(BUFFERS, b"abc");
    ring.write(BORDER - 2, b"defg");
    ring.chain(3, &[(BUFFERS, 3), (BORDER - 2, 4)], &[(END - 5, 5), (BORDER - 1, 2)]);
    ring.offer(3);
    assert_eq!(ring.running().process(&device), Ok(Turn::Idle));
    assert_eq!(*seen.lock().unwrap(), [(b"abcdefg".to_vec(), 7)]);
    assert_eq!(ring.all_used(), [(3, 7)]);
}

#[test]
fn an_indirect_table_may_follow_direct_descriptors() {
    let ring = TestRing::new(8);
    let (seen, device) = recorder();
    ring.write(BUFFERS, b"abcd");
    ring.descriptor(0, (BUFFERS, 1), NEXT, 5);
    // The write flag of the descriptor that names the table means nothing.
    ring.descriptor(5, (TABLE, 3 * 16), INDIRECT | WRITE, 0);
    ring.descriptor_at(TABLE, 0, (BUFFERS + 1, 1), NEXT, 2);
    ring.descriptor_at(TABLE, 2, (BUFFERS + 2, 2), NEXT, 1);
    ring.descriptor_at(TABLE, 1, (BUFFERS + 9, 9), WRITE, 0);
    ring.offer(0);
    assert_eq!(ring.running().process(&device), Ok(Turn::Idle));
    assert_eq!(*seen.lock().unwrap(), [(b"abcd".to_vec(), 9)]);
}

#[test]
fn an_indirect_chain_may_be_longer_than_a_small_ring() {
    let ring = TestRing::new(8);
    for (descriptors, good) in [(1024, true), (1025, false)] {
        ring.descriptor(0, (TABLE, descriptors * 16), INDIRECT, 0);
        for index in 0..descriptors as u16 {
            let flags = if u32::from(index) + 1 == descriptors { 0 } else { NEXT };
            ring.descriptor_at(TABLE, index, (BUFFERS, 1), flags, index + 1);
        }
        let expected = (!good).then_some(ChainFaultKind::TooManyDescriptors { limit: 1024 });
        ring.set_available_index(0);
        ring.set_used_index(0);
        assert_eq!(fault_of(&ring), expected, "{descriptors} descriptors");
    }
}

#[test]
fn a_loop_ends() {
    let ring = TestRing::new(8);
    ring.descriptor(0, (BUFFERS, 1), NEXT, 1);
    ring.descriptor(1, (BUFFERS, 1), NEXT, 0);
    assert_eq!(fault_of(&ring), Some(ChainFaultKind::TooManyDescriptors { limit: 8 }));
}

#[test]
fn a_chain_may_use_the_whole_ring() {
    let ring = TestRing::new(8);
    ring.chain(0, &[(BUFFERS, 1); 8], &[]);
    let (seen, device) = recorder();
    ring.offer(0);
    assert_eq!(ring.running().process(&device), Ok(Turn::Idle));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn an_indirect_loop_ends() {
    let ring = TestRing::new(8);
    ring.descriptor(0, (TABLE, 32), INDIRECT, 0);
    ring.descriptor_at(TABLE, 0, (BUFFERS, 1), NEXT, 1);
    ring.descriptor_at(TABLE, 1, (BUFFERS, 1), NEXT, 0);
    assert_eq!(fault_of(&ring), Some(ChainFaultKind::TooManyDescriptors { limit: 2 }));
}

#[test]
fn buffers_outside_memory_are_refused() {
    let behind = (END - 1, 2);
    let wrapping = (u64::MAX - 1, 4);
    for (address, length) in [(END, 1), behind, wrapping, (u64::MAX, 1), (0, u32::MAX)] {
        for flags in [0, WRITE] {
            let ring = TestRing::new(8);
            ring.descriptor(0, (address, length), flags, 0);
            assert_eq!(fault_of(&ring), Some(ChainFaultKind::Unmapped { address, length }));
        }
    }
}

#[test]
fn buffers_of_no_bytes_are_refused_wherever_they_are() {
    for address in [BUFFERS, END] {
        let ring = TestRing::new(8);
        ring.chain(0, &[(BUFFERS, 1)], &[(address, 0)]);
        assert_eq!(fault_of(&ring), Some(ChainFaultKind::Empty { address }));
    }
}

#[test]
fn readable_behind_writable_is_refused() {
    let ring = TestRing::new(8);
    ring.descriptor(0, (BUFFERS, 1), WRITE | NEXT, 1);
    ring.descriptor(1, (BUFFERS + 8, 1), 0, 0);
    assert_eq!(fault_of(&ring), Some(ChainFaultKind::ReadableAfterWritable { address: BUFFERS + 8 }));
}

#[test]
fn next_beyond_the_table_is_refused() {
    let ring = TestRing::new(8);
    ring.descriptor(0, (BUFFERS, 1), NEXT, 8);
    assert_eq!(fault_of(&ring), Some(ChainFaultKind::NextBeyondTable { next: 8, size: 8 }));
    let ring = TestRing::new(8);
    ring.descriptor(0, (TABLE, 32), INDIRECT, 0);
    ring.descriptor_at(TABLE, 0, (BUFFERS, 1), NEXT, 2);
    assert_eq!(fault_of(&ring), Some(ChainFaultKind::NextBeyondTable { next: 2, size: 2 }));
}

#[test]
fn indirect_tables_of_bad_length_are_refused() {
    for length in [0, 1, 15, 17, u32::MAX] {
        let ring = TestRing::new(8);
        ring.descriptor(0, (TABLE, length), INDIRECT, 0);
        assert_eq!(fault_of(&ring), Some(ChainFaultKind::IndirectLength { length }));
    }
}

#[test]
fn indirect_tables_outside_memory_are_refused() {
    for address in [END, END - 16, END - 8, u64::MAX - 15] {
        let ring = TestRing::new(8);
        ring.descriptor(0, (address, 32), INDIRECT, 0);
        assert_eq!(fault_of(&ring), Some(ChainFaultKind::IndirectUnmapped { address, length: 32 }));
    }
}

#[test]
fn indirect_descriptors_neither_nest_nor_go_on() {
    let ring = TestRing::new(8);
    ring.descriptor(0, (TABLE, 16), INDIRECT, 0);
    ring.descriptor_at(TABLE, 0, (TABLE, 16), INDIRECT, 0);
    assert_eq!(fault_of(&ring), Some(ChainFaultKind::NestedIndirect));
    let ring = TestRing::new(8);
    ring.descriptor(0, (TABLE, 16), INDIRECT | NEXT, 1);
    ring.descriptor_at(TABLE, 0, (BUFFERS, 1), 0, 0);
    assert_eq!(fault_of(&ring), Some(ChainFaultKind::IndirectWithNext));
}

/// The same bytes may be named many times, so little memory is enough.
#[test]
fn more_bytes_than_the_used_ring_can_tell_are_refused() {
    let length: u32 = 16 << 20;
    for (buffers, fault) in [(255, None), (256, Some(ChainFaultKind::TooLong))] {
        let ring = TestRing { memory: memory(&[(0, length.into())]), size: 8 };
        ring.descriptor(0, (TABLE, buffers * 16), INDIRECT, 0);
        for index in 0..buffers as u16 {
            let next = if u32::from(index) + 1 == buffers { 0 } else { NEXT };
            ring.descriptor_at(TABLE, index, (0, length), WRITE | next, index + 1);
        }
        assert_eq!(fault_of(&ring), fault);
        assert_eq!(ring.used(0), (0, if fault.is_some() { 0 } else { 255 << 24 }));
    }
}

#[test]
fn a_head_beyond_the_table_breaks_the_ring_because_it_cannot_go_back() {
    let ring = TestRing::new(8);
    let (seen, device) = recorder();
    ring.descriptor(1, (BUFFERS, 1), 0, 0);
    ring.offer(1);
    ring.offer(8);
    let mut vring = ring.running();
    let fault = vring.process(&device).unwrap_err();
    assert!(
        matches!(fault, RingFault::Broken(vhost_core::RingFault::HeadBeyondTable { head: 8, size: 8, .. })),
        "{fault}"
    );
    assert_eq!(ring.all_used(), [(1, 0)]);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn a_device_cannot_claim_more_bytes_than_the_chain_takes() {
    let ring = TestRing::new(8);
    ring.chain(0, &[(BUFFERS, 4)], &[(BUFFERS, 3)]);
    ring.offer(0);
    let device = Serving(|queue: &mut Queue<'_>| {
        while let Some(chain) = queue.next() {
            queue.complete(chain, u32::MAX);
        }
    });
    assert_eq!(ring.running().process(&device), Ok(Turn::Idle));
    assert_eq!(ring.all_used(), [(0, 3)]);
}
