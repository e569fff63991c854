//! Inflight records that a device meets: cleared ones, ones of smaller rings, and what their last writer left in the ring.

use std::collections::BTreeSet;

use vhost_core::{
    CellMemory, CellRange, DeviceQueue, DirtyLog, GuestAddress, GuestMemory, PopError, Resubmission, RingFault,
    UsedLog, VirtioFeatures,
};

use crate::guest::{ADDRESSES, AVAIL, FREE, Guest, Pieces, USED, WRITE};

const SPLIT: VirtioFeatures = VirtioFeatures::empty();
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;

const RECORD: u64 = 0x3000;
/// Room for both layouts.
const BYTES: u64 = 512;

fn recover<'g>(guest: &'g Guest, queue: &mut DeviceQueue<CellRange<'g>>) -> Result<Vec<Resubmission>, RingFault> {
    let mut room = [Resubmission::default(); 8];
    queue.recover(guest.range(RECORD, BYTES), &mut room).map(<[_]>::to_vec)
}

/// A ring with chains 0 to `count` available.
fn ring(features: VirtioFeatures, size: u16, count: u16) -> Guest {
    let guest = Guest::new();
    for turn in 0..count {
        if features == SPLIT {
            guest.table_entry(ADDRESSES.descriptor.0, turn, (FREE, 1), WRITE, 0);
            guest.offer(size, turn, turn);
        } else {
            guest.ring_entry(turn, (FREE, 1), turn, WRITE | AVAIL);
        }
    }
    guest
}

fn pop<'g>(guest: &'g Guest, queue: &mut DeviceQueue<CellRange<'g>>) -> vhost_core::Chain {
    queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().unwrap()
}

#[test]
fn nothing_is_in_flight_in_a_record_that_was_cleared() {
    for features in [SPLIT, PACKED] {
        let guest = ring(features, 4, 2);
        let mut queue = guest.device(4, features);
        assert_eq!(recover(&guest, &mut queue), Ok(vec![]));
        drop(pop(&guest, &mut queue));
        assert_eq!(recover(&guest, &mut guest.device(4, features)).unwrap().len(), 1);
        DeviceQueue::clear_inflight(&guest.range(RECORD, BYTES)).unwrap();
        let mut next = guest.device(4, features);
        assert_eq!((recover(&guest, &mut next), next.held()), (Ok(vec![]), 0));
    }
    let guest = Guest::new();
    assert!(DeviceQueue::clear_inflight(&guest.range(RECORD, 8)).is_err(), "that is no record");
}

#[test]
fn a_record_of_fewer_entries_than_the_ring_is_refused() {
    for features in [SPLIT, PACKED] {
        let guest = ring(features, 4, 1);
        assert_eq!(recover(&guest, &mut guest.device(4, features)), Ok(vec![]));
        let refused = recover(&guest, &mut guest.device(8, features));
        assert_eq!(refused, Err(RingFault::InflightSize { expected: 8, found: 4 }));
    }
}

#[test]
fn a_chain_of_a_larger_ring_is_not_taken_again_from_a_smaller_one() {
    let large = ring(SPLIT, 8, 8);
    let mut queue = large.device(8, SPLIT);
    assert_eq!(recover(&large, &mut queue), Ok(vec![]));
    for _ in 0..8 {
        drop(pop(&large, &mut queue));
    }
    let found = recover(&large, &mut large.device(8, SPLIT)).unwrap();
    let small = ring(SPLIT, 4, 4);
    let mut queue = small.device(4, SPLIT);
    for resubmission in found {
        let again = queue.pop_recovered(&resubmission, &small.memory(), &mut Pieces::new());
        match again {
            Ok(chain) => assert!(chain.id() < 4),
            Err(PopError::Ring(RingFault::HeadBeyondTable { head, size: 4, .. })) => assert!(head >= 4),
            other => panic!("{other:?}"),
        }
    }
}

/// A device staged two chains and ended before the driver saw them: the next one takes the used flags of the second away.
#[test]
fn what_recovery_writes_into_a_packed_ring_is_logged() {
    let guest = ring(PACKED, 4, 2);
    let mut queue = guest.device(4, PACKED);
    assert_eq!(recover(&guest, &mut queue), Ok(vec![]));
    for chain in [(); 2].map(|()| pop(&guest, &mut queue)) {
        queue.stage(chain, 1).unwrap();
    }
    let flags = || guest.get_u16(ADDRESSES.descriptor.0 + 16 + 14) & (AVAIL | USED);
    assert_eq!(flags(), AVAIL | USED, "the first one still hides it");
    let cells = vec![core::cell::Cell::new(0); 4];
    let memory = CellMemory::new(GuestAddress(0), &cells);
    let log = || DirtyLog::new(memory.range(GuestAddress(0), 4, vhost_core::Access::ReadWrite).unwrap());
    let mut next = guest.device(4, PACKED);
    next.set_log(Some(UsedLog::new(log(), GuestAddress(9 * 4096))));
    assert_eq!(recover(&guest, &mut next).unwrap().len(), 2);
    assert_eq!(flags(), AVAIL);
    let page = (ADDRESSES.descriptor.0 / 4096) as usize;
    let marked: BTreeSet<usize> = (0..32).filter(|page: &usize| cells[page / 8].get() & 1 << (page % 8) != 0).collect();
    assert_eq!(marked, BTreeSet::from([page]));
}
