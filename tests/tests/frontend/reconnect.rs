//! Back-ends that go and come back: the next session is as the first one was.

use core::time::Duration;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use vhost_core::{Buffer, ProtocolFeatures, VirtioFeatures};
use vhost_std::deadline::Deadline;
use vhost_std::device::{Device, Queue};
use vhost_std::driver::{DriverRing, GuestArea, RingOptions};
use vhost_std::eventfd::EventFd;
use vhost_std::frontend::{DeviceSetup, FrontendError, Reconnect, ReconnectError, RingSetup, SessionEnd};
use vhost_std::memory::MemoryFile;
use vhost_std::server::{BackendServer, ServerOptions, ServerThread};
use vhost_std::socket::{Listener, SocketError};
use vhost_tests::dialog::{FakeBackend, PATIENCE};
use vhost_tests::wire::feature;

const WANTED: VirtioFeatures = VirtioFeatures::VERSION_1.union(VirtioFeatures::RING_EVENT_IDX);
const PROTOCOL: ProtocolFeatures = ProtocolFeatures::REPLY_ACK.union(ProtocolFeatures::CONFIG);

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// A back-end that offers these features and serves until the front-end goes; which it was told.
fn serve(backend: FakeBackend, virtio: u64, protocol: u64) -> [u64; 2] {
    let backend = backend.offering(virtio, protocol);
    let mut told = [0; 2];
    while let Some(request) = backend.try_receive().unwrap() {
        match request.id() {
            2 => told[0] = request.number(),
            16 => told[1] = request.number(),
            _ => {}
        }
        backend.answer(&request);
    }
    told
}

#[test]
fn each_session_agrees_on_what_the_first_one_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let virtio = feature::VERSION_1 | feature::PROTOCOL_FEATURES;
    let more = virtio | feature::EVENT_INDEX;
    let offers = [
        (virtio, feature::REPLY_ACK | feature::CONFIG, None),
        // Now there is an event index, but the guest does not know it.
        (more, feature::REPLY_ACK | feature::CONFIG | feature::MQ, None),
        (virtio, feature::REPLY_ACK, Some((VirtioFeatures::empty(), ProtocolFeatures::CONFIG))),
        (feature::PROTOCOL_FEATURES, u64::MAX >> 41, Some((VirtioFeatures::VERSION_1, ProtocolFeatures::empty()))),
        (more, feature::REPLY_ACK | feature::CONFIG, None),
    ];
    let listener = UnixListener::bind(&path).unwrap();
    let backends = thread::spawn(move || {
        offers.map(|(virtio, protocol, _)| serve(FakeBackend::accept(&listener), virtio, protocol))
    });
    let mut reconnect = Reconnect::to(&path, WANTED, PROTOCOL);
    assert!(reconnect.agreed().is_none());
    for (_, _, lacks) in offers {
        match (reconnect.connect(soon()), lacks) {
            (Ok(mut frontend), None) => {
                assert_eq!(frontend.negotiated().acknowledged.bits(), virtio);
                frontend.get_features().unwrap();
            }
            (Err(error), Some((virtio, protocol))) => assert_eq!(error, ReconnectError::Lacks { virtio, protocol }),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }
    let told = backends.join().unwrap();
    for session in [0, 1, 4] {
        assert_eq!(told[session], [virtio, feature::REPLY_ACK | feature::CONFIG], "session {session}");
    }
}

#[test]
fn a_back_end_that_is_not_there_or_says_nothing_is_waited_for_until_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut reconnect = Reconnect::to(&path, WANTED, PROTOCOL);
    let passed = || Deadline::after(Duration::from_millis(1));
    let missing = reconnect.connect(passed()).unwrap_err();
    assert!(missing.to_string().contains("connect: "), "{missing}");
    let _silent = UnixListener::bind(&path).unwrap();
    let silent = reconnect.connect(passed()).unwrap_err();
    let ReconnectError::Frontend(silent) = silent else { panic!("{silent}") };
    assert_eq!(silent.ends_session(), Some(SessionEnd::TimedOut));

    let path = folder.path().join("other");
    let mut reconnect = Reconnect::from(Listener::bind(&path).unwrap(), WANTED, PROTOCOL);
    assert_eq!(reconnect.connect(passed()).unwrap_err(), ReconnectError::Socket(SocketError::TimedOut));
    // One that comes and goes at once, and then one that stays.
    drop(UnixStream::connect(&path).unwrap());
    let gone = reconnect.connect(soon()).unwrap_err();
    assert!(matches!(gone, ReconnectError::Frontend(FrontendError::Closed(_))), "{gone}");
    for _ in 0..2 {
        let stream = UnixStream::connect(&path).unwrap();
        let backend =
            thread::spawn(move || serve(FakeBackend::new(stream), feature::OFFERED, feature::PROTOCOL_OFFERED));
        drop(reconnect.connect(soon()).unwrap());
        assert_eq!(backend.join().unwrap()[1], PROTOCOL.bits());
    }
}

/// A device that writes one byte into whatever it is given.
struct Stamp(u8);

impl Device for Stamp {
    fn device_id(&self) -> u32 {
        42
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            let written = chain.writable().write(&[self.0]).is_ok();
            queue.complete(chain, u32::from(written));
        }
    }
}

fn stamp(path: &Path, byte: u8) -> ServerThread {
    let server = BackendServer::new(Arc::new(Stamp(byte)), ServerOptions::default()).unwrap();
    server.spawn(Listener::bind(path).unwrap()).unwrap()
}

/// The ring and the memory outlive the back-ends; each one goes on where the one before stood.
#[test]
fn a_ring_goes_on_with_the_next_back_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let memory = MemoryFile::create("guest", 0, 0x4000).unwrap();
    let area = GuestArea::of(&memory);
    let options = RingOptions { size: 4, features: VirtioFeatures::VERSION_1, table_size: 0 };
    let mut ring = DriverRing::new(area.part(0, 0x2000).unwrap(), &options).unwrap();
    let (kick, call) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    let mut reconnect = Reconnect::to(&path, VirtioFeatures::VERSION_1, PROTOCOL);
    reconnect.set_timeout(Some(PATIENCE));
    for byte in 1..8 {
        let server = stamp(&path, byte);
        let mut frontend = reconnect.connect(soon()).unwrap();
        let queue = RingSetup {
            ring: 0,
            size: 4,
            base: ring.base(),
            addresses: ring.user_addresses(),
            kick: Some(kick.as_fd()),
            call: Some(call.as_fd()),
            error: None,
        };
        let memory = [(*memory.region(), memory.as_fd())];
        frontend.bring_up(&DeviceSetup { memory: &memory, rings: &[queue], inflight: None }).unwrap();
        for round in 0..byte {
            let place = 0x3000 + u64::from(byte) * 16 + u64::from(round);
            let buffer = Buffer { address: area.guest_address(place), length: 1 };
            ring.add(&[], &[buffer], round.into()).unwrap();
            let _ = ring.publish().unwrap();
            kick.signal().unwrap();
            let used = loop {
                match ring.poll_used().unwrap() {
                    Some(used) => break used,
                    None => assert!(call.wait(soon()).unwrap().is_some(), "the device does not answer"),
                }
            };
            assert_eq!((used.token, used.written), (round.into(), 1));
            let mut stamped = [0];
            area.read(place, &mut stamped).unwrap();
            assert_eq!(stamped, [byte]);
        }
        server.stop().unwrap();
        let ended = frontend.get_features().unwrap_err();
        assert_eq!(ended.ends_session(), Some(SessionEnd::Closed));
    }
}
