//! What a back-end has mapped into the VMM: its requests by hand, and the mappings as the kernel has them.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::process::Command;

use vhost_core::{Dialect, FrontendConfig, ProtocolFeatures, VirtioFeatures};
use vhost_std::frontend::{BackendChannel, BackendRequestHandlerMut, ChannelState, Frontend};
use vhost_std::host_notifiers::HostNotifiers;
use vhost_std::memory::{MemoryFile, MemoryTable};
use vhost_std::shared_memory::{MapRules, Reservation, SharedRegions, SharedWindow};
use vhost_std::shared_objects::SharedObjects;
use vhost_tests::dialog::{FakeBackend, PATIENCE, Socket, memory, same_file};
use vhost_tests::program::{Running, built_example};
use vhost_tests::wire::{self, Bytes, REQUEST_NEEDING_REPLY, feature};
use vm_memory::Bytes as _;

use crate::channel::{Ends, open, open_next};

const PAGE: u64 = 0x1000;

/// A file of so many pages, each filled with its number.
fn numbered(pages: u8) -> File {
    let file = File::from(memory(u64::from(pages) * PAGE));
    for page in 0..pages {
        file.write_all_at(&[page; PAGE as usize], u64::from(page) * PAGE).unwrap();
    }
    file
}

/// Regions 0 and 7 of 16 pages.
fn regions(rules: MapRules) -> SharedRegions {
    let mut regions = SharedRegions::default();
    for id in [0, 7] {
        let window = SharedWindow::new(Reservation::new(16 * PAGE as usize).unwrap(), rules);
        assert!(regions.insert(id, window).is_none());
    }
    regions
}

/// The first byte of a page of region 7.
fn byte(regions: &SharedRegions, region: u8, page: u64) -> Option<u8> {
    let mut byte = [0];
    regions.window(region).unwrap().read(page * PAGE, &mut byte).ok().map(|()| byte[0])
}

/// Has the handler carry out one request; the answer's number.
#[track_caller]
fn ask(
    (ours, theirs): (&mut BackendChannel, &Socket),
    handler: &mut dyn BackendRequestHandlerMut,
    id: u32,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> u64 {
    let header = wire::header(id, REQUEST_NEEDING_REPLY, u32::try_from(payload.len()).unwrap());
    theirs.send(&[&header, payload].concat(), descriptors);
    assert_eq!(ours.process(handler), Ok(ChannelState::Open));
    let reply = theirs.receive();
    assert_eq!(reply.id(), id);
    reply.number()
}

fn mapping(region: u8, file_offset: u64, offset: u64, length: u64, flags: u64) -> Vec<u8> {
    Bytes::new().u8(region).padding(7).u64(file_offset).u64(offset).u64(length).u64(flags).done()
}

#[test]
fn a_back_end_maps_and_unmaps_what_it_may_and_nothing_else() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let mut regions = regions(MapRules::Exact);
    let file = numbered(8);
    let pipe = std::io::pipe().unwrap().0;
    let mut map = |regions: &mut SharedRegions, payload: &[u8], file: BorrowedFd<'_>| {
        ask((&mut ours, &theirs), regions, 9, payload, &[file]).cast_signed()
    };
    assert_eq!(map(&mut regions, &mapping(7, 3 * PAGE, 2 * PAGE, 2 * PAGE, 1), file.as_fd()), 0);
    for (payload, errno) in [
        (mapping(7, 0, 3 * PAGE, PAGE, 0), -17),
        (mapping(6, 0, 0, PAGE, 0), -22),
        (mapping(7, 0, 16 * PAGE, PAGE, 0), -22),
        (mapping(7, 0, 15 * PAGE, 2 * PAGE, 0), -22),
        (mapping(7, 0, 0, PAGE - 1, 0), -22),
        (mapping(7, 1, 0, PAGE, 0), -22),
        (mapping(7, 0, 0, 0, 0), -22),
        // These wrap around: the core refuses them.
        (mapping(7, u64::MAX - PAGE + 1, 0, 2 * PAGE, 0), 1),
        (mapping(7, 0, u64::MAX - PAGE + 1, 2 * PAGE, 0), 1),
    ] {
        assert_eq!(map(&mut regions, &payload, file.as_fd()), errno, "{payload:?}");
    }
    assert_eq!(map(&mut regions, &mapping(7, 0, 0, PAGE, 0), pipe.as_fd()), -19);
    let found = Vec::from_iter((0..6).map(|page| byte(&regions, 7, page)));
    assert_eq!(found, [None, None, Some(3), Some(4), None, None]);

    let mut unmap = |payload: &[u8]| ask((&mut ours, &theirs), &mut regions, 10, payload, &[]).cast_signed();
    assert_eq!(unmap(&mapping(7, 0, 2 * PAGE, PAGE, 0)), -22);
    assert_eq!(unmap(&mapping(7, 0, 2 * PAGE, 2 * PAGE, 0)), 0);
    assert_eq!(unmap(&mapping(7, 0, 2 * PAGE, 2 * PAGE, 0)), -22);
    assert_eq!(byte(&regions, 7, 2), None);
}

/// The columns of an older request: for each mapping file offset, offset in the window, length and access.
fn columns(mappings: &[[u64; 4]]) -> Vec<u8> {
    let column =
        |at: usize| (0..8).flat_map(move |row| mappings.get(row).map_or(0, |mapping| mapping[at]).to_ne_bytes());
    (0..4).flat_map(column).collect()
}

#[test]
fn the_window_of_virtio_fs_is_filled_synchronised_and_emptied_by_eight_mappings_at_once() {
    let (backend, stream) = FakeBackend::pair();
    let mut config = FrontendConfig::new(1);
    config.dialect = Dialect::FsA2;
    let mut frontend = Frontend::with_config(stream.into(), config);
    let thread = std::thread::spawn(move || {
        let protocol = feature::BACKEND_REQ | feature::BACKEND_SEND_FD | feature::REPLY_ACK;
        let backend = backend.offering(feature::OFFERED, protocol);
        let (features, _) = backend.serve_until(2);
        backend.answer(&features);
        let theirs = open_next(&backend);
        (backend, theirs)
    });
    frontend.negotiate(VirtioFeatures::VERSION_1, ProtocolFeatures::KNOWN).unwrap();
    let mut ours = frontend.set_backend_req_fd().unwrap();
    let (_backend, theirs) = thread.join().unwrap();

    let mut regions = regions(MapRules::Replacing);
    let guest = MemoryFile::create("guest", 0x10_0000, 4 * PAGE).unwrap();
    regions.set_memory(MemoryTable::new([guest.mapped().clone()]).unwrap());
    let file = numbered(16);
    let mut ask = |regions: &mut SharedRegions, id, mappings: &[[u64; 4]], file: Option<&File>| {
        let descriptors = Vec::from_iter(file.map(AsFd::as_fd));
        ask((&mut ours, &theirs), regions, id, &columns(mappings), &descriptors).cast_signed()
    };
    // Eight pages in the order of a mirror, one of them twice.
    let eight = Vec::from_iter((0..8).map(|page| [(15 - page) * PAGE, page * PAGE, PAGE, 3]));
    let eight = <[[u64; 4]; 8]>::try_from(eight).unwrap();
    assert_eq!(ask(&mut regions, 6, &eight, Some(&file)), 0);
    let found = Vec::from_iter((0..9).map(|page| byte(&regions, 0, page)));
    assert_eq!(found, [15, 14, 13, 12, 11, 10, 9, 8].map(Some).into_iter().chain([None]).collect::<Vec<_>>());
    // Over what is there, as guests do; and with one that is wrong, nothing.
    assert_eq!(ask(&mut regions, 6, &[[0, PAGE, 2 * PAGE, 1]], Some(&file)), 0);
    assert_eq!(ask(&mut regions, 6, &[[0, 0, PAGE, 1], [0, 16 * PAGE, PAGE, 1]], Some(&file)), -22);
    let found = Vec::from_iter((0..4).map(|page| byte(&regions, 0, page)));
    assert_eq!(found, [15, 0, 1, 12].map(Some));
    assert_eq!(ask(&mut regions, 8, &[[0, 0, 16 * PAGE, 0]], None), 0);
    assert_eq!(ask(&mut regions, 8, &[[0, 0, 17 * PAGE, 0]], None), -22);
    assert_eq!(ask(&mut regions, 7, &[[0, 2 * PAGE, 3 * PAGE, 0], [0, 10 * PAGE, PAGE, 0]], None), 0);
    let found = Vec::from_iter((0..6).map(|page| byte(&regions, 0, page)));
    assert_eq!(found, [Some(15), Some(0), None, None, None, Some(10)]);
    assert_eq!(ask(&mut regions, 7, &[[0, 0, u64::MAX, 0]], None), 0);
    assert!((0..16).all(|page| byte(&regions, 0, page).is_none()));

    // A file into guest memory and back, which the back-end itself cannot reach.
    let at = 0x10_0000;
    assert_eq!(ask(&mut regions, 9, &[[5 * PAGE, at, PAGE, 1], [7 * PAGE, at + PAGE, 100, 1]], Some(&file)), 4196);
    let read = |offset| guest.mapped().read_obj::<u8>(vm_memory::MemoryRegionAddress(offset)).unwrap();
    assert_eq!([read(0), read(PAGE - 1), read(PAGE), read(PAGE + 99), read(PAGE + 100)], [5, 5, 7, 7, 0]);
    assert_eq!(ask(&mut regions, 9, &[[0, at + PAGE, 10, 2]], Some(&file)), 10);
    let mut start = [0; 11];
    file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
    assert_eq!(ask(&mut regions, 9, &[[15 * PAGE, at, 2 * PAGE, 1], [0, at, PAGE, 1]], Some(&file)), 4096, "its end");
    for (wrong, errno) in [([0, at + 3 * PAGE, 2 * PAGE, 1], -14), ([0, 0, 1, 1], -14), ([0, at, 1, 0], -22)] {
        assert_eq!(ask(&mut regions, 9, &[wrong], Some(&file)), errno);
        assert_eq!(ask(&mut regions, 9, &[[0, at, 8, 1], wrong], Some(&file)), 8, "what was done before");
    }
    assert_eq!(ask(&mut regions, 9, &[[0, at, 1, 1]], None), -9);
    let pipe = File::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().0));
    assert_eq!(ask(&mut regions, 9, &[[0, at, 1, 1]], Some(&pipe)), -19);
    assert_eq!(read(0), 7);
}

#[test]
fn doorbells_are_lent_and_taken_away() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let mut notifiers = HostNotifiers::new(2).unwrap();
    let file = numbered(2);
    let area = |ring, size, offset| Bytes::new().u64(ring).u64(size).u64(offset).done();
    let mut lend = |payload: &[u8], file: Option<&File>| {
        let descriptors = Vec::from_iter(file.map(AsFd::as_fd));
        let number = ask((&mut ours, &theirs), &mut notifiers, 3, payload, &descriptors).cast_signed();
        (number, [0, 1].map(|ring| notifiers.page(ring).is_some()))
    };
    assert_eq!(lend(&area(1, PAGE, PAGE), Some(&file)), (0, [false, true]));
    assert_eq!(lend(&area(0, 2 * PAGE, 0), Some(&file)), (-22, [false, true]));
    assert_eq!(lend(&area(2, PAGE, 0), Some(&file)), (-22, [false, true]));
    assert_eq!(lend(&area(0x100, PAGE, 0), None), (0, [false, true]));
    assert_eq!(lend(&area(0x101, PAGE, 0), None), (0, [false, false]));
}

#[test]
fn objects_of_one_device_are_looked_up_by_another() {
    let Ends { frontend: owning, backend: owner, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let other = open(feature::PROTOCOL_OFFERED);
    let (mut their_channel, their_socket) = (other.ours, other.theirs);
    let objects = SharedObjects::default();
    // The owner's back-end is asked, by its front-end.
    let owner_frontend = std::sync::Mutex::new(owning);
    let mut sharing = objects.device(move |object| {
        let mut frontend = owner_frontend.try_lock().map_err(|_| vhost_std::frontend::Refusal::UNSUPPORTED)?;
        frontend.get_shared_object(object).map_err(|_| vhost_std::frontend::Refusal::UNSUPPORTED)
    });
    let mut looking = objects.device(|_| Err(vhost_std::frontend::Refusal::UNSUPPORTED));
    let name = wire::backend_request("SHARED_OBJECT_ADD").payload;
    assert_eq!(ask((&mut ours, &theirs), &mut sharing, 6, &name, &[]), 0);
    assert_ne!(ask((&mut their_channel, &their_socket), &mut looking, 7, &name, &[]), 0, "not its own");

    let object = memory(0x5000);
    let kept = object.try_clone().unwrap();
    let answering = std::thread::spawn(move || {
        let request = owner.receive();
        assert_eq!(request.payload(), name);
        owner.reply(&request, &[], &[object.as_fd()]);
        (owner, name)
    });
    let lookup = wire::backend_request("SHARED_OBJECT_LOOKUP");
    their_socket.send(&lookup.message(REQUEST_NEEDING_REPLY), &[]);
    assert_eq!(their_channel.process(&mut looking), Ok(ChannelState::Open));
    let reply = their_socket.receive();
    assert_eq!((reply.number(), reply.descriptors.len()), (0, 1));
    assert!(same_file(&reply.descriptors[0], &kept));
    let (_owner, name) = answering.join().unwrap();
    assert_eq!(ask((&mut ours, &theirs), &mut sharing, 7, &name, &[]), 0);
    assert_ne!(ask((&mut their_channel, &their_socket), &mut looking, 8, &name, &[]), 0);
}

/// A device and a VMM that are both ours, as an example to read.
#[test]
fn the_example_of_a_window_does_what_it_says() {
    let mut running = Running::start(&mut Command::new(built_example("vhost-std", "dax_window")));
    let status = running.wait(3 * PATIENCE);
    assert!(status.success(), "{status}");
}
