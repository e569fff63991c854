//! Agreeing on features, starting and stopping a device: which requests come, and in which order.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vhost_core::wire::vring::VringBase;
use vhost_core::{
    FrontendCode, GuestAddress, MemoryRegion, ProtocolFeatures, RingAddress, UserAddress, VirtioFeatures,
};
use vhost_std::frontend::{DeviceSetup, Frontend, FrontendError, Logging, RingSetup, StoppedRing, VringAddresses};
use vhost_tests::dialog::{FakeBackend, Received, event, memory};
use vhost_tests::wire::feature;

use crate::script::{finish, scripted, until_closed};

/// A session with these features after negotiation, whose back-end answers everything as usual and remembers it.
pub(crate) fn negotiated(virtio: u64, protocol: u64) -> (Frontend, std::thread::JoinHandle<Vec<Received>>) {
    let (mut frontend, thread) = scripted(move |backend: FakeBackend| {
        let backend = backend.offering(virtio, protocol);
        until_closed(&backend, |request| backend.answer(request))
    });
    let agreed = frontend.negotiate(VirtioFeatures::all(), ProtocolFeatures::KNOWN).unwrap();
    assert_eq!(agreed.acknowledged.bits(), virtio);
    (frontend, thread)
}

fn names(requests: &[Received]) -> Vec<String> {
    let name = |request: &Received| format!("{:?}", FrontendCode(request.id()));
    requests.iter().map(|request| name(request).split(' ').next().unwrap().to_owned()).collect()
}

/// The names of what came after negotiation.
pub(crate) fn after_negotiation(requests: &[Received]) -> Vec<String> {
    let start = requests.iter().position(|request| request.id() == 2).unwrap();
    names(&requests[start + 1..])
}

pub(crate) fn region(number: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address: GuestAddress(number << 32),
        size: 0x10000,
        user_address: UserAddress((number + 100) << 32),
        mmap_offset: 0,
        xen: None,
    }
}

pub(crate) fn ring(ring: u8, kick: Option<BorrowedFd<'_>>) -> RingSetup<'_> {
    let at = (100_u64 << 32) + u64::from(ring) * 0x3000;
    let [descriptor, available, used] = [at, at + 0x1000, at + 0x2000].map(RingAddress);
    RingSetup {
        ring,
        size: 128,
        base: VringBase::Split { available: 7 },
        addresses: VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off },
        kick,
        call: kick,
        error: kick.filter(|_| ring == 0),
    }
}

pub(crate) fn start(frontend: &mut Frontend, regions: &[(MemoryRegion, BorrowedFd<'_>)]) -> Result<(), FrontendError> {
    let kick = event();
    let rings = [ring(0, Some(kick.as_fd())), ring(1, Some(kick.as_fd()))];
    frontend.bring_up(&DeviceSetup { memory: regions, rings: &rings, inflight: None })
}

pub(crate) const BASIC: u64 = feature::PROTOCOL_FEATURES | feature::VERSION_1;

#[test]
fn negotiation_drops_what_is_not_offered_and_what_misses_something() {
    let offered = feature::REPLY_ACK | feature::INBAND_NOTIFICATIONS | feature::SHMEM | feature::MQ | 1 << 40;
    let (frontend, thread) = negotiated(BASIC, offered);
    let negotiated = frontend.negotiated();
    assert_eq!(negotiated.protocol, ProtocolFeatures::REPLY_ACK | ProtocolFeatures::MQ);
    assert_eq!(negotiated.protocol_offered.bits(), offered);
    let requests = finish(frontend, thread);
    let order = ["GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES", "SET_OWNER", "SET_FEATURES"];
    assert_eq!(names(&requests), order);
    assert_eq!(requests[2].number(), feature::REPLY_ACK | feature::MQ);
    assert_eq!(requests[4].number(), BASIC);
}

#[test]
fn a_back_end_without_protocol_features_is_asked_for_none() {
    let (mut frontend, thread) = negotiated(feature::VERSION_1, feature::MQ);
    let file = memory(0x10000);
    start(&mut frontend, &[(region(0), file.as_fd())]).unwrap();
    let (first, second) = (frontend.vring(0), frontend.vring(1));
    assert!(first.is_running() && second.is_running(), "such rings are always enabled");
    let requests = finish(frontend, thread);
    assert_eq!(names(&requests[..3]), ["GET_FEATURES", "SET_OWNER", "SET_FEATURES"]);
    assert!(!names(&requests).iter().any(|name| name == "SET_VRING_ENABLE"));
}

#[test]
fn a_device_is_started_in_the_order_of_qemu() {
    let (mut frontend, thread) = negotiated(BASIC, feature::REPLY_ACK);
    let file = memory(0x10000);
    start(&mut frontend, &[(region(0), file.as_fd())]).unwrap();
    assert!(frontend.vring(0).is_running() && frontend.vring(1).is_running());
    let stopped = frontend.tear_down().unwrap();
    let base = VringBase::Split { available: 0x0def };
    assert_eq!(stopped, [StoppedRing { ring: 0, base }, StoppedRing { ring: 1, base }]);
    let requests = finish(frontend, thread);
    let expected = [
        ["SET_VRING_CALL", "SET_VRING_ERR", "SET_VRING_CALL"].as_slice(),
        &["SET_MEM_TABLE"],
        &["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"],
        &["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"],
        &["SET_VRING_ENABLE", "SET_VRING_ENABLE"],
        &["SET_VRING_ENABLE", "SET_VRING_ENABLE", "GET_VRING_BASE", "GET_VRING_BASE"],
    ];
    assert_eq!(after_negotiation(&requests), expected.concat());
    assert!(requests.iter().skip(3).all(|request| request.header().needs_reply() == (request.id() != 11)));
}

#[test]
fn the_device_status_frames_everything_where_it_is_agreed_on() {
    let (mut frontend, thread) = negotiated(BASIC, feature::STATUS | feature::REPLY_ACK);
    let file = memory(0x10000);
    start(&mut frontend, &[(region(0), file.as_fd())]).unwrap();
    frontend.tear_down().unwrap();
    // The reset took the features away.
    assert_eq!(frontend.negotiated().acknowledged, VirtioFeatures::empty());
    start(&mut frontend, &[(region(0), file.as_fd())]).unwrap();
    let requests = finish(frontend, thread);
    let interesting = |request: &&Received| matches!(request.id(), 2 | 39 | 40);
    let seen = requests.iter().filter(interesting).map(|request| match request.id() {
        40 => ("get", 0),
        39 => ("status", request.number()),
        _ => ("features", request.number()),
    });
    // The back-end says 0x0b each time.
    let once = [("get", 0), ("status", 0x0b), ("get", 0), ("status", 0x0f)];
    let features = [("features", BASIC)];
    let expected = [&features[..], &once, &[("status", 0)], &features, &once].concat();
    assert_eq!(Vec::from_iter(seen), expected);
}

/// The requests about memory, with the guest addresses of single regions.
fn memory_requests(requests: &[Received]) -> Vec<(u32, u64)> {
    let about_memory = requests.iter().filter(|request| matches!(request.id(), 5 | 36..=38));
    let address = |request: &Received| match request.id() {
        37 | 38 => u64::from_ne_bytes(request.payload()[8..16].try_into().unwrap()) >> 32,
        5 => u64::from(request.payload()[0]),
        _ => 0,
    };
    about_memory.map(|request| (request.id(), address(request))).collect()
}

fn with_files<'f>(files: &'f [OwnedFd], numbers: &[u64]) -> Vec<(MemoryRegion, BorrowedFd<'f>)> {
    numbers.iter().map(|number| (region(*number), files[*number as usize].as_fd())).collect()
}

#[test]
fn slots_are_used_where_there_are_some_and_only_what_changed_is_sent() {
    let files = Vec::from_iter((0..40).map(|_| memory(0x10000)));
    let (mut frontend, thread) = negotiated(BASIC, feature::CONFIGURE_MEM_SLOTS | feature::REPLY_ACK);
    let ten = Vec::from_iter(0..10);
    frontend.share_memory(&with_files(&files, &ten)).unwrap();
    frontend.share_memory(&with_files(&files, &ten)).unwrap();
    frontend.share_memory(&with_files(&files, &[0, 1, 2, 3, 11, 5, 6, 7, 8, 9])).unwrap();
    // The same place, but another file.
    frontend.share_memory(&[(region(0), files[20].as_fd())]).unwrap();
    // Taken away and brought again.
    frontend.share_memory(&[]).unwrap();
    frontend.share_memory(&[(region(0), files[20].as_fd())]).unwrap();
    let too_many = frontend.share_memory(&with_files(&files, &Vec::from_iter(0..33))).unwrap_err();
    assert_eq!(too_many, FrontendError::TooManyRegions { found: 33, limit: 32 });
    let requests = finish(frontend, thread);
    let mut expected = vec![(36, 0)];
    expected.extend(ten.iter().map(|number| (37, *number)));
    expected.extend([(38, 4), (37, 11)]);
    expected.extend([0, 1, 2, 3, 5, 6, 7, 8, 9, 11].map(|number| (38, number)));
    expected.extend([(37, 0), (38, 0), (37, 0)]);
    assert_eq!(memory_requests(&requests), expected);
}

#[test]
fn without_slots_all_memory_is_one_table() {
    let files = Vec::from_iter((0..9).map(|_| memory(0x10000)));
    let (mut frontend, thread) = negotiated(BASIC, 0);
    frontend.share_memory(&with_files(&files, &[0, 1, 2])).unwrap();
    frontend.share_memory(&with_files(&files, &[2])).unwrap();
    let too_many = frontend.share_memory(&with_files(&files, &Vec::from_iter(0..9))).unwrap_err();
    assert_eq!(too_many, FrontendError::TooManyRegions { found: 9, limit: 8 });
    assert_eq!(memory_requests(&finish(frontend, thread)), [(5, 3), (5, 1)]);
}

#[test]
fn a_back_end_with_no_slot_gets_a_table() {
    let file = memory(0x10000);
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        let backend = backend.offering(BASIC, feature::CONFIGURE_MEM_SLOTS);
        let (request, _) = backend.serve_until(36);
        backend.reply(&request, &0_u64.to_ne_bytes(), &[]);
        until_closed(&backend, |request| backend.answer(request))
    });
    frontend.negotiate(VirtioFeatures::all(), ProtocolFeatures::KNOWN).unwrap();
    frontend.share_memory(&[(region(0), file.as_fd())]).unwrap();
    assert_eq!(memory_requests(&finish(frontend, thread)), [(5, 1)]);
}

#[test]
fn a_start_that_is_refused_can_be_taken_back() {
    let (mut frontend, thread) = scripted(|backend: FakeBackend| {
        let backend = backend.offering(BASIC, feature::REPLY_ACK);
        let (enable, _) = backend.serve_until(18);
        backend.acknowledge(&enable, 1);
        until_closed(&backend, |request| backend.answer(request))
    });
    frontend.negotiate(VirtioFeatures::all(), ProtocolFeatures::KNOWN).unwrap();
    let file = memory(0x10000);
    let refused = start(&mut frontend, &[(region(0), file.as_fd())]).unwrap_err();
    assert_eq!(refused.request(), Some(FrontendCode::SET_VRING_ENABLE.message()));
    assert_eq!(frontend.tear_down().unwrap().len(), 2);
    start(&mut frontend, &[(region(0), file.as_fd())]).unwrap();
    finish(frontend, thread);
}

#[test]
fn a_record_of_requests_in_flight_comes_before_everything() {
    let (mut frontend, thread) = negotiated(BASIC, feature::INFLIGHT_SHMFD);
    let (record, file) = frontend.get_inflight_fd(2, 128).unwrap().unwrap();
    let memory = memory(0x10000);
    let regions = [(region(0), memory.as_fd())];
    let setup = DeviceSetup { memory: &regions, rings: &[ring(0, None)], inflight: Some((record, file.as_fd())) };
    frontend.bring_up(&setup).unwrap();
    let requests = finish(frontend, thread);
    assert_eq!(after_negotiation(&requests)[..3], ["GET_INFLIGHT_FD", "SET_INFLIGHT_FD", "SET_VRING_CALL"]);
    let polled = requests.iter().filter(|request| matches!(request.id(), 12 | 13));
    assert!(polled.clone().count() == 2 && polled.clone().all(|request| request.number() == 0x100));
}
