//! Requests of the back-end: what the handler gets and what the back-end hears.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use vhost_core::wire::fs_cache::CacheEntries;
use vhost_core::wire::iotlb::Iotlb;
use vhost_core::wire::shared::Uuid;
use vhost_core::wire::vring::VringArea;
use vhost_core::{
    CacheAccess, Dialect, FrontendConfig, Iova, MapChange, ProtocolFeatures, UserAddress, VirtioFeatures,
};
use vhost_std::frontend::{
    BackendChannel, BackendRequestHandler, BackendRequestHandlerMut, ChannelState, Frontend, Refusal,
};
use vhost_tests::dialog::{FakeBackend, Received, Socket, borrowed, descriptors_for, memory, same_file};
use vhost_tests::wire::{self, Fixture, REQUEST, REQUEST_NEEDING_REPLY, feature};

/// A handler that refuses everything.
pub(crate) struct Nothing;

impl BackendRequestHandlerMut for Nothing {}

/// Both ends of a back-end channel, and of the connection that it belongs to.
pub(crate) struct Ends {
    pub(crate) frontend: Frontend,
    pub(crate) backend: FakeBackend,
    pub(crate) ours: BackendChannel,
    pub(crate) theirs: Socket,
}

/// With these protocol features and everything else that the fixtures offer.
pub(crate) fn open(protocol: u64) -> Ends {
    let (mut frontend, thread) = crate::script::agreed(protocol, |backend| {
        let theirs = open_next(&backend);
        (backend, theirs)
    });
    let ours = frontend.set_backend_req_fd().unwrap();
    let (backend, theirs) = thread.join().unwrap();
    Ends { frontend, backend, ours, theirs }
}

/// Takes the channel that comes next.
pub(crate) fn open_next(backend: &FakeBackend) -> Socket {
    let request = backend.receive();
    if request.header().needs_reply() {
        backend.acknowledge(&request, 0);
    }
    let [channel] = <[OwnedFd; 1]>::try_from(request.descriptors).unwrap();
    Socket::new(channel.into())
}

/// Remembers what it is asked, in words, and does it.
#[derive(Default)]
struct Diary {
    entries: Vec<String>,
    descriptors: Vec<OwnedFd>,
}

impl BackendRequestHandlerMut for Diary {
    fn iotlb_miss(&mut self, miss: Iotlb) -> Result<(), Refusal> {
        assert_eq!(miss, Iotlb::new(Iova(0xbbbb_1000), 0, UserAddress(0), Iotlb::WRITE, Iotlb::MISS));
        self.note("miss")
    }

    fn iotlb_access_failed(&mut self, access: Iotlb) -> Result<(), Refusal> {
        assert_eq!(access.iova(), Iova(0xbbbb_3000));
        self.note("access failed")
    }

    fn config_changed(&mut self) -> Result<(), Refusal> {
        self.note("config")
    }

    fn host_notifier(&mut self, ring: u8, area: VringArea, descriptor: Option<OwnedFd>) -> Result<(), Refusal> {
        let with = if descriptor.is_some() { "with" } else { "without" };
        self.descriptors.extend(descriptor);
        self.note(&format!("notifier of {ring} {with} a descriptor, {:#x} at {:#x}", area.size(), area.offset()))
    }

    fn vring_call(&mut self, ring: u8) -> Result<(), Refusal> {
        self.note(&format!("call of {ring}"))
    }

    fn vring_error(&mut self, ring: u8) -> Result<(), Refusal> {
        self.note(&format!("error of {ring}"))
    }

    fn shared_object_add(&mut self, object: Uuid) -> Result<(), Refusal> {
        self.note(&format!("add {object}"))
    }

    fn shared_object_remove(&mut self, object: Uuid) -> Result<(), Refusal> {
        self.note(&format!("remove {object}"))
    }

    fn shared_object_lookup(&mut self, object: Uuid) -> Result<OwnedFd, Refusal> {
        self.note(&format!("look up {object}"))?;
        Ok(memory(777))
    }

    fn shmem_map(&mut self, maps: &[MapChange], file: OwnedFd) -> Result<(), Refusal> {
        self.descriptors.push(file);
        maps.iter().try_for_each(|map| self.note_map(map))
    }

    fn shmem_unmap(&mut self, maps: &[MapChange]) -> Result<(), Refusal> {
        maps.iter().try_for_each(|map| self.note_map(map))
    }

    fn cache_sync(&mut self, entries: CacheEntries<'_>) -> Result<(), Refusal> {
        let lengths = Vec::from_iter(entries.iter().map(|entry| entry.length));
        self.note(&format!("sync {lengths:x?}"))
    }

    fn cache_io(&mut self, entries: CacheEntries<'_>, file: Option<OwnedFd>) -> Result<u64, Refusal> {
        self.descriptors.extend(file);
        let length = entries.iter().map(|entry| entry.length).sum();
        self.note(&format!("io {length:#x}"))?;
        if length == 0x2000 { Ok(length) } else { Err(Errno::IO.into()) }
    }
}

impl Diary {
    fn note_map(&mut self, map: &MapChange) -> Result<(), Refusal> {
        match *map {
            MapChange::Map { region, offset, length, file_offset, access } => {
                let access = if access.contains(CacheAccess::WRITE) { "rw" } else { "ro" };
                self.note(&format!("map {file_offset:#x}+{length:#x} at {region}:{offset:#x} {access}"))
            }
            MapChange::Unmap { region, offset, length } => {
                self.note(&format!("unmap {length:#x} at {region}:{offset:#x}"))
            }
            MapChange::UnmapAll { region } => self.note(&format!("unmap all of {region}")),
            _ => Err(Refusal::UNSUPPORTED),
        }
    }

    fn note(&mut self, entry: &str) -> Result<(), Refusal> {
        self.entries.push(entry.to_owned());
        Ok(())
    }
}

/// What a diary has in it after all forms of all requests.
const ENTRIES: [&str; 13] = [
    "miss",
    "access failed",
    "config",
    "notifier of 1 with a descriptor, 0x1000 at 0x3000",
    "notifier of 1 without a descriptor, 0x1000 at 0x0",
    "call of 1",
    "error of 1",
    "add 01234567-89ab-cdef-1032-547698badcfe",
    "remove 01234567-89ab-cdef-1032-547698badcfe",
    "look up 01234567-89ab-cdef-1032-547698badcfe",
    "map 0x3000+0x2000 at 7:0x4000 rw",
    "map 0x3000+0x2000 at 7:0x4000 ro",
    "unmap 0x2000 at 7:0x4000",
];

/// Sends a fixture with descriptors of its own; those.
fn send(theirs: &Socket, fixture: &Fixture, flags: u32) -> Vec<OwnedFd> {
    let descriptors = descriptors_for(fixture);
    theirs.send(&fixture.message(flags), &borrowed(&descriptors));
    descriptors
}

fn is_look_up(fixture: &Fixture) -> bool {
    fixture.name == "SHARED_OBJECT_LOOKUP"
}

fn assert_answer(reply: &Received, fixture: &Fixture, number: u64) {
    assert_eq!(reply.message.bytes(), fixture.acknowledgement(number), "{}", fixture.name);
}

#[test]
fn every_request_reaches_the_handler_and_is_answered_if_the_back_end_wants_it() {
    for flags in [REQUEST, REQUEST_NEEDING_REPLY] {
        let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
        let mut diary = Diary::default();
        for fixture in wire::all_backend_forms() {
            let sent = send(&theirs, &fixture, flags);
            assert_eq!(ours.process(&mut diary), Ok(ChannelState::Open));
            let received = diary.descriptors.drain(..);
            assert_eq!(received.len(), sent.len(), "{}", fixture.name);
            assert!(sent.iter().zip(received).all(|(sent, received)| same_file(sent, received)));
            if flags == REQUEST_NEEDING_REPLY || is_look_up(&fixture) {
                let reply = theirs.receive();
                assert_answer(&reply, &fixture, 0);
                assert_eq!(reply.descriptors.len(), usize::from(is_look_up(&fixture)));
            }
        }
        assert_eq!(diary.entries, ENTRIES);
        drop(ours);
        theirs.assert_closed();
    }
}

#[test]
fn a_handler_without_methods_refuses_everything_and_the_channel_goes_on() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    for fixture in wire::all_backend_forms() {
        for flags in [REQUEST, REQUEST_NEEDING_REPLY] {
            send(&theirs, &fixture, flags);
            assert_eq!(ours.process(Nothing), Ok(ChannelState::Open));
            if flags == REQUEST_NEEDING_REPLY || is_look_up(&fixture) {
                let reply = theirs.receive();
                assert_answer(&reply, &fixture, 1);
                assert!(reply.descriptors.is_empty());
            }
        }
    }
}

#[test]
fn a_handler_may_be_shared_owned_borrowed_or_locked() {
    struct Counting(core::sync::atomic::AtomicU64);
    impl BackendRequestHandler for Counting {
        fn config_changed(&self) -> Result<(), Refusal> {
            self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    }
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let changed = wire::backend_request("CONFIG_CHANGE_MSG");
    let mut serve = |handler: &mut dyn BackendRequestHandlerMut| {
        send(&theirs, &changed, REQUEST_NEEDING_REPLY);
        assert_eq!(ours.process(handler), Ok(ChannelState::Open));
        assert_answer(&theirs.receive(), &changed, 0);
    };
    let counting = Arc::new(Counting(0.into()));
    serve(&mut &*counting);
    serve(&mut counting.clone());
    serve(&mut Box::new(counting.clone()));
    assert_eq!(counting.0.load(core::sync::atomic::Ordering::Relaxed), 3);
    let diary = Arc::new(Mutex::new(Diary::default()));
    serve(&mut diary.clone());
    serve(&mut &*diary);
    assert_eq!(diary.lock().unwrap().entries, ["config", "config"]);
}

#[test]
fn a_refusal_has_a_number_that_is_not_zero() {
    assert_eq!(Refusal::UNSUPPORTED.number().get(), 1);
    let number = Refusal::from(Errno::NOENT).number().get();
    assert_eq!(number.cast_signed(), -2);
}

#[test]
fn requests_that_make_no_sense_are_refused_without_asking_the_handler() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } =
        open(feature::BACKEND_REQ | feature::REPLY_ACK | feature::CONFIG | feature::INBAND_NOTIFICATIONS);
    let mut refused = |id: u32, payload: &[u8], descriptors: usize| {
        let size = u32::try_from(payload.len()).unwrap();
        let header = wire::header(id, REQUEST_NEEDING_REPLY, size);
        let files = Vec::from_iter((0..descriptors).map(|_| memory(1)));
        theirs.send(&[&header, payload].concat(), &borrowed(&files));
        let mut diary = Diary::default();
        assert_eq!(ours.process(&mut diary), Ok(ChannelState::Open));
        assert!(diary.entries.is_empty(), "{:?}", diary.entries);
        let reply = theirs.receive();
        assert_eq!((reply.id(), reply.number()), (id, 1));
    };
    // Unknown, too long, with a descriptor too many, not agreed on, of a ring that does not exist, in the wrong direction.
    refused(99, &[], 0);
    refused(2, &[0; 8], 0);
    refused(2, &[], 1);
    refused(9, &wire::backend_request("SHMEM_MAP").payload, 1);
    refused(4, &[256_u32, 0].map(u32::to_ne_bytes).concat(), 0);
    let mut update = wire::backend_request("IOTLB_MSG").payload;
    update[25] = Iotlb::UPDATE;
    refused(1, &update, 0);
}

/// The columns of an older request: for each mapping file offset, offset in the window, length and access.
fn columns(mappings: &[[u64; 4]]) -> Vec<u8> {
    let column =
        |at: usize| (0..8).flat_map(move |row| mappings.get(row).map_or(0, |mapping| mapping[at]).to_ne_bytes());
    (0..4).flat_map(column).collect()
}

#[test]
fn older_dialects_of_virtio_fs_reach_the_same_handler() {
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
    let mut diary = Diary::default();
    let mut ask = |id: u32, mappings: &[[u64; 4]], descriptors: usize| {
        let payload = columns(mappings);
        let files = Vec::from_iter((0..descriptors).map(|_| memory(1)));
        let header = wire::header(id, REQUEST_NEEDING_REPLY, 256);
        theirs.send(&[&header, &payload[..]].concat(), &borrowed(&files));
        assert_eq!(ours.process(&mut diary), Ok(ChannelState::Open));
        let reply = theirs.receive();
        assert_eq!(reply.id(), id);
        reply.number().cast_signed()
    };
    assert_eq!(ask(6, &[[0x3000, 0x4000, 0x2000, 3], [0, 0x8000, 0x1000, 1]], 1), 0);
    assert_eq!(ask(7, &[[0, 0x4000, 0x2000, 0]], 0), 0);
    assert_eq!(ask(7, &[[0, 0, u64::MAX, 0]], 0), 0);
    assert_eq!(ask(8, &[[0, 0x8000, 0x1000, 0]], 0), 0);
    assert_eq!(ask(9, &[[0, 0x9000, 0x2000, 1]], 0), 0x2000, "bytes");
    assert_eq!(ask(9, &[[0, 0x9000, 0x2001, 1]], 0), -5, "an errno");
    // Both in one system call: the descriptor is the first one's, whose id is today that of a request without.
    let message = |id, mapping| [&wire::header(id, REQUEST_NEEDING_REPLY, 256), &columns(&[mapping])[..]].concat();
    let joined = [message(6, [0, 0x4000, 0x1000, 1]), message(7, [0, 0x4000, 0x1000, 0])].concat();
    theirs.send(&joined, &borrowed(&[memory(1)]));
    assert_eq!(ours.process(&mut diary), Ok(ChannelState::Open));
    assert_eq!([6, 7].map(|id| (theirs.receive().number(), id)), [(0, 6), (0, 7)]);
    assert_eq!(
        diary.entries,
        [
            "map 0x3000+0x2000 at 0:0x4000 rw",
            "map 0x0+0x1000 at 0:0x8000 ro",
            "unmap 0x2000 at 0:0x4000",
            "unmap all of 0",
            "sync [1000]",
            "io 0x2000",
            "io 0x2001",
            "map 0x0+0x1000 at 0:0x4000 ro",
            "unmap 0x1000 at 0:0x4000",
        ]
    );
    assert_eq!(diary.descriptors.len(), 2);
}
