//! The dirty log, and what rings and records of writes mark in it.

use std::collections::BTreeSet;

use vhost_core::{
    Access, CellMemory, DeviceQueue, DirtyLog, GuestAddress, GuestMemory, LOG_PAGE, LogFault, PushError, RingFault,
    RingLayout, RingPart, RingUser, UsedLog, VirtioFeatures, wire::vring::VringBase,
};

use crate::guest::{ADDRESSES, AVAIL, FREE, Guest, Pieces, WRITE};

/// A log of `size` bytes with a byte on each side that nobody may touch.
struct LogBytes {
    cells: Vec<core::cell::Cell<u8>>,
}

impl LogBytes {
    fn new(size: usize) -> Self {
        Self { cells: vec![core::cell::Cell::new(0); size + 2] }
    }

    fn log(&self) -> DirtyLog<vhost_core::CellRange<'_>> {
        let memory = CellMemory::new(GuestAddress(0), &self.cells);
        DirtyLog::new(memory.range(GuestAddress(1), self.cells.len() as u64 - 2, Access::ReadWrite).unwrap())
    }

    /// The marked pages; they are forgotten.
    fn take(&self) -> BTreeSet<u64> {
        let (first, last) = (self.cells.first().unwrap(), self.cells.last().unwrap());
        assert_eq!((first.get(), last.get()), (0, 0), "outside the log");
        let bytes = self.cells[1..].iter().map(|cell| cell.replace(0));
        let pages = bytes
            .enumerate()
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte & 1 << bit != 0).map(move |bit| 8 * at as u64 + bit));
        pages.collect()
    }
}

/// The pages of a write, one by one.
fn pages(address: u64, length: u64) -> BTreeSet<u64> {
    (0..length).map(|at| (address + at) / 4096).collect()
}

#[test]
fn exactly_the_pages_that_were_written_are_marked() {
    let bytes = LogBytes::new(4);
    let log = bytes.log();
    assert_eq!(LOG_PAGE, 4096);
    for page in 0..24 {
        for offset in [0, 1, 4095] {
            for length in [0, 1, 2, 4095, 4096, 4097, 8192, 8 * 4096, 8 * 4096 + 2] {
                let address = page * 4096 + offset;
                if address + length > 32 * 4096 {
                    continue;
                }
                log.mark(GuestAddress(address), length).unwrap();
                assert_eq!(bytes.take(), pages(address, length), "{length} at {address:#x}");
            }
        }
    }
    log.mark(GuestAddress(0), 32 * 4096).unwrap();
    assert_eq!(bytes.take().len(), 32);
}

#[test]
fn marks_are_added_to_what_is_there() {
    let bytes = LogBytes::new(1);
    for page in [3, 1, 3, 7] {
        bytes.log().mark(GuestAddress(page * 4096), 1).unwrap();
    }
    assert_eq!(bytes.take(), BTreeSet::from([1, 3, 7]));
}

/// CVE-2020-10722 and its like: a write beyond the log marks what is inside, and nothing else.
#[test]
fn pages_beyond_the_log_are_an_error() {
    let bytes = LogBytes::new(1);
    for (address, length, inside) in [
        (8 * 4096, 1, 0),
        (7 * 4096, 4097, 1),
        (0, 9 * 4096, 8),
        (u64::MAX, 1, 0),
        (u64::MAX, 2, 0),
        (1, u64::MAX, 8),
        (2, u64::MAX, 0),
        (0, u64::MAX, 8),
    ] {
        let address = GuestAddress(address);
        let fault = LogFault { address, length };
        assert_eq!(bytes.log().mark(address, length), Err(fault));
        assert_eq!(bytes.take().len(), inside, "{fault}");
    }
    assert_eq!(bytes.log().mark(GuestAddress(u64::MAX), 0), Ok(()));
}

#[test]
fn a_log_has_a_bit_for_the_last_page() {
    for (last, size) in [(0, 1), (8 * 4096 - 1, 1), (8 * 4096, 2), (u64::MAX, 1 << 49)] {
        assert_eq!(DirtyLog::<vhost_core::CellRange<'_>>::size_for(GuestAddress(last)), size);
    }
}

/// The used ring is logged under an address of its own, every part of it that was written.
#[test]
fn a_split_ring_logs_its_writes_under_the_log_address() {
    let guest = Guest::new();
    let bytes = LogBytes::new(4);
    let address = GuestAddress(5 * 4096);
    let mut queue = guest.device(4, VirtioFeatures::RING_EVENT_IDX);
    queue.set_log(Some(UsedLog::new(bytes.log(), address)));
    let pop = |queue: &mut DeviceQueue<_>, index| {
        guest.table_entry(ADDRESSES.descriptor.0, 0, (FREE, 4), WRITE, 0);
        guest.offer(4, index, 0);
        queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().unwrap()
    };
    let chain = pop(&mut queue, 0);
    assert_eq!(bytes.take(), BTreeSet::new(), "taking writes nothing");
    queue.stage(chain, 0).unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([5]));
    queue.publish().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([5]), "the index, after it was written");
    queue.enable_kicks().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([5]), "the event index");
    // Close to the end of a page, each part is on a page of its own.
    let address = GuestAddress(6 * 4096 - 3);
    queue.set_log(Some(UsedLog::new(bytes.log(), address)));
    let chain = pop(&mut queue, 1);
    queue.stage(chain, 0).unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([6]));
    queue.publish().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([5, 6]), "two bytes across the border");
    queue.set_log(None);
    let chain = pop(&mut queue, 2);
    queue.push(chain, 0).unwrap();
    assert_eq!(bytes.take(), BTreeSet::new());
}

/// Behind an IOMMU the log does not know the driver's address of the ring: its pages are marked where they are.
#[test]
fn a_split_ring_may_be_logged_where_it_lies() {
    let guest = Guest::new();
    let bytes = LogBytes::new(4);
    guest.table_entry(ADDRESSES.descriptor.0, 0, (FREE, 4), WRITE, 0);
    guest.offer(4, 0, 0);
    let mut parts = guest.parts(RingLayout::Split, 4, RingUser::Device);
    // The used ring begins four bytes before the end of a page, so that its entries are on the next one.
    parts.device = guest.range(0x3ffc, 38);
    let mut queue = DeviceQueue::new(parts, 4, VirtioFeatures::empty(), VringBase::split(0)).unwrap();
    queue.set_log(Some(UsedLog::where_it_lies(bytes.log())));
    let chain = queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().unwrap();
    queue.stage(chain, 0).unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([4]), "the entry");
    queue.publish().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([3]), "the index");
    queue.disable_kicks().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([3]), "the flags");
}

#[test]
fn without_event_index_the_flags_are_logged() {
    let guest = Guest::new();
    let bytes = LogBytes::new(4);
    let mut queue = guest.device(4, VirtioFeatures::empty());
    queue.set_log(Some(UsedLog::new(bytes.log(), GuestAddress(4095))));
    queue.disable_kicks().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([0, 1]));
    queue.enable_kicks().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([0, 1]));
}

#[test]
fn a_packed_ring_logs_descriptors_where_they_lie() {
    let guest = Guest::new();
    let bytes = LogBytes::new(4);
    guest.ring_entry(0, (FREE, 4), 0, AVAIL);
    let mut queue = guest.device(4, VirtioFeatures::RING_PACKED);
    queue.set_log(Some(UsedLog::new(bytes.log(), GuestAddress(9 * 4096))));
    let chain = queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().unwrap();
    queue.stage(chain, 0).unwrap();
    let ring = ADDRESSES.descriptor.0 / 4096;
    assert_eq!(bytes.take(), BTreeSet::from([ring]));
    queue.publish().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([ring]), "the flags, after they were written");
    queue.disable_kicks().unwrap();
    queue.enable_kicks().unwrap();
    assert_eq!(bytes.take(), BTreeSet::from([9]));
}

#[test]
fn a_write_that_cannot_be_logged_breaks_the_ring() {
    let guest = Guest::new();
    let bytes = LogBytes::new(1);
    guest.table_entry(ADDRESSES.descriptor.0, 0, (FREE, 4), WRITE, 0);
    guest.offer(4, 0, 0);
    let mut queue = guest.device(4, VirtioFeatures::empty());
    queue.set_log(Some(UsedLog::new(bytes.log(), GuestAddress(8 * 4096))));
    let chain = queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().unwrap();
    let fault = RingFault::Log { part: RingPart::UsedRing, offset: 4 };
    assert_eq!(queue.push(chain, 0), Err(PushError::Ring(fault)));
    assert_eq!(bytes.take(), BTreeSet::new());
}
