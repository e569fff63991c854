//! The soft back-end goes on where a process before it was interrupted.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vhost_core::{
    GuestAddress, Logging, MemoryRegion, RingAddress, RingLayout, UserAddress, VhostBackend, VirtioFeatures,
    VringAddresses, VringSetup, wire::vring::VringBase,
};
use vhost_std::inflight::{InflightError, InflightRecord, create};
use vhost_std::soft::{RingError, RingThreads, SoftBackend, SoftError};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring};

use crate::subject::Image;

fn start(soft: &mut SoftBackend, ring: &Ring) {
    let region = ring.memory.region();
    let (guest, user) = (GuestAddress(region.guest), UserAddress(region.user));
    let region = MemoryRegion::new(guest, region.size, user, region.offset);
    soft.set_memory(&[(region, &*ring.memory as &dyn AsFd)]).unwrap();
    let [descriptor, available, used] =
        [ring.descriptors, ring.available, ring.used].map(|at| RingAddress(ring.memory.user(at)));
    let (log, logging) = (GuestAddress(0), Logging::Off);
    let addresses = VringAddresses { descriptor, available, used, log, logging };
    let (size, base) = (ring.size, VringBase::Split { available: 0 });
    let setup =
        VringSetup::<dyn AsFd> { size, base, addresses, kick: Some(&ring.kick), call: Some(&ring.call), error: None };
    soft.start_vring(0, &setup).unwrap();
}

#[test]
fn requests_of_a_process_that_is_gone_are_done_first_and_once() {
    let image = Image::new();
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    for slot in 0..3 {
        ring.request(slot, Command::Flush, 0);
    }
    let (shape, file) = create(RingLayout::Split, 1, 16).unwrap();
    // As the process before left it: version 1, 16 descriptors, the second chain taken before the first (heads 3 and 0).
    let written = File::from(file.try_clone().unwrap());
    written.write_all_at(&[1_u16.to_ne_bytes(), 16_u16.to_ne_bytes()].concat(), 8).unwrap();
    for (head, counter) in [(0_u64, 9_u8), (3, 8)] {
        written.write_all_at(&[1, 0, 0, 0, 0, 0, 0, 0, counter], 16 + 16 * head).unwrap();
    }
    let record = InflightRecord::new(&shape, file).unwrap();
    let mut soft = SoftBackend::new(Arc::new(image.device(1)), RingThreads::Shared(1)).unwrap();
    soft.acknowledge(VirtioFeatures::VERSION_1).unwrap();
    soft.set_inflight(Some(&record)).unwrap();
    drop(record);
    start(&mut soft, &ring);
    assert_eq!([ring.wait_used(), ring.wait_used(), ring.wait_used()], [(3, 1), (0, 1), (6, 1)]);
    assert_eq!(soft.stop_vring(0).unwrap(), VringBase::Split { available: 3 });
}

#[test]
fn a_record_that_does_not_fit_is_refused_and_none_is_taken_while_a_ring_runs() {
    let image = Image::new();
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let ring = Ring::new(&memory, 0, 16);
    let (shape, file) = create(RingLayout::Split, 1, 16).unwrap();
    let record = InflightRecord::new(&shape, file).unwrap();
    let mut soft = SoftBackend::new(Arc::new(image.device(1)), RingThreads::Caller).unwrap();
    soft.acknowledge(VirtioFeatures::VERSION_1 | VirtioFeatures::RING_PACKED).unwrap();
    let too_small = InflightError::TooSmall { needed: 576, found: 320 };
    assert_eq!(soft.set_inflight(Some(&record)), Err(SoftError::Ring(RingError::Inflight(too_small))));
    soft.acknowledge(VirtioFeatures::VERSION_1).unwrap();
    start(&mut soft, &ring);
    assert!(soft.set_inflight(Some(&record)).is_err());
    soft.stop_vring(0).unwrap();
    soft.set_inflight(Some(&record)).unwrap();
    soft.set_inflight(None).unwrap();
}
