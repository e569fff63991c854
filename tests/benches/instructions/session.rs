//! A back-end's machine in a session that is set up.

use core::hint::black_box;
use core::num::NonZeroU64;

use vhost_core::{
    Answered, Backend, BackendConfig, FrontendReply, Incoming, MAX_MESSAGE, ProtocolFeatures, ReadAhead, VirtioFeatures,
};
use vhost_tests::wire::{Bytes, REQUEST, REQUEST_NEEDING_REPLY, feature, header};

/// The requests that have one size.
pub(crate) const NAMES: [&str; 16] = [
    "GET_FEATURES",
    "SET_FEATURES",
    "SET_OWNER",
    "SET_VRING_NUM",
    "SET_VRING_ADDR",
    "SET_VRING_BASE",
    "SET_VRING_KICK",
    "SET_VRING_CALL",
    "SET_VRING_ERR",
    "GET_PROTOCOL_FEATURES",
    "GET_QUEUE_NUM",
    "SET_VRING_ENABLE",
    "GET_MAX_MEM_SLOTS",
    "SET_STATUS",
    "GET_STATUS",
    "ADD_MEM_REG and REM_MEM_REG",
];

/// Bytes of a region, and from one to the next.
const REGION: u64 = 0x1_0000;

pub(crate) struct Session {
    machine: Box<Backend<256, 512, 16>>,
    incoming: Box<ReadAhead<u32>>,
    out: Box<[u8; MAX_MESSAGE]>,
    rings: u16,
    regions: u16,
}

impl Session {
    /// With so many rings, of which all but the last are started, and so many regions.
    pub(crate) fn new(rings: u16, regions: u16) -> Self {
        let mut config = BackendConfig::new(VirtioFeatures::VERSION_1, ProtocolFeatures::KNOWN, rings);
        config.memory_slots = 512;
        let machine = Box::new(Backend::new(config));
        let mut session = Self { machine, incoming: Box::default(), out: Box::new([0; MAX_MESSAGE]), rings, regions };
        let protocol = feature::REPLY_ACK | feature::MQ | feature::CONFIGURE_MEM_SLOTS | feature::STATUS;
        session.serve(&message(1, REQUEST, &[]));
        session.serve(&message(16, REQUEST, &protocol.to_ne_bytes()));
        session.serve(&session.request("SET_FEATURES"));
        (0..regions).for_each(|at| session.serve(&message(37, REQUEST, &region(at))));
        for ring in 0..rings - 1 {
            for request in [num(ring), addr(ring), message(12, REQUEST, &u64::from(0x100 | ring).to_ne_bytes())] {
                session.serve(&request);
            }
        }
        session
    }

    /// The bytes of a request; about a ring or a region it is about the last.
    pub(crate) fn request(&self, name: &str) -> Vec<u8> {
        let ring = self.rings - 1;
        let state = |number: u32| Bytes::new().u32(ring.into()).u32(number).done();
        let polled = u64::from(0x100 | ring).to_ne_bytes();
        let features = feature::VERSION_1 | feature::PROTOCOL_FEATURES;
        let flags = REQUEST_NEEDING_REPLY;
        match name {
            "GET_FEATURES" => message(1, REQUEST, &[]),
            "SET_FEATURES" => message(2, flags, &features.to_ne_bytes()),
            "SET_OWNER" => message(3, flags, &[]),
            "SET_VRING_NUM" => num(ring),
            "SET_VRING_ADDR" => addr(ring),
            "SET_VRING_BASE" => message(10, flags, &state(0)),
            "SET_VRING_KICK" => message(12, flags, &polled),
            "SET_VRING_CALL" => message(13, flags, &polled),
            "SET_VRING_ERR" => message(14, flags, &polled),
            "GET_PROTOCOL_FEATURES" => message(15, REQUEST, &[]),
            "GET_QUEUE_NUM" => message(17, REQUEST, &[]),
            "SET_VRING_ENABLE" => message(18, flags, &state(1)),
            "GET_MAX_MEM_SLOTS" => message(36, REQUEST, &[]),
            "ADD_MEM_REG" => message(37, flags, &region(self.regions)),
            "REM_MEM_REG" => message(38, flags, &region(self.regions)),
            "SET_STATUS" => message(39, flags, &7_u64.to_ne_bytes()),
            "GET_STATUS" => message(40, REQUEST, &[]),
            both => both.split(" and ").flat_map(|name| self.request(name)).collect(),
        }
    }

    /// Copies a request, and no more.
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        black_box(&mut self.out)[..bytes.len()].copy_from_slice(bytes);
    }

    /// Takes a request in, and no more.
    pub(crate) fn frame(&mut self, bytes: &[u8]) {
        self.incoming.read_buf()[..bytes.len()].copy_from_slice(bytes);
        self.incoming.filled(bytes.len(), (bytes[0] == 37).then_some(7));
        let _ = black_box(self.incoming.next().unwrap().unwrap());
    }

    /// Takes a request in and answers it.
    pub(crate) fn serve(&mut self, bytes: &[u8]) {
        self.incoming.read_buf()[..bytes.len()].copy_from_slice(bytes);
        // A region comes with its file.
        self.incoming.filled(bytes.len(), (bytes[0] == 37).then_some(7));
        let frame = self.incoming.next().unwrap().unwrap();
        let reply = match self.machine.handle_request(frame) {
            Ok(Incoming::Request(_)) => self.machine.own_answer::<u32>().unwrap_or(FrontendReply::Done),
            Ok(Incoming::PostcopyMemoryMapped) => return,
            Err(_) => FrontendReply::Refused(NonZeroU64::MIN),
        };
        let refused = matches!(reply, FrontendReply::Refused(_));
        assert!(!refused, "request {} was refused", bytes[0]);
        if let Answered::Send(transmit) = self.machine.answer(reply, &mut self.out[..]).unwrap() {
            black_box(transmit.bytes);
        }
    }
}

fn message(id: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [&header(id, flags, size)[..], payload].concat()
}

fn region(at: u16) -> Vec<u8> {
    let place = u64::from(at) * 2 * REGION;
    Bytes::new().u64(0).u64(place).u64(REGION).u64(place).u64(0).done()
}

fn num(ring: u16) -> Vec<u8> {
    message(8, REQUEST_NEEDING_REPLY, &Bytes::new().u32(ring.into()).u32(128).done())
}

fn addr(ring: u16) -> Vec<u8> {
    let places = Bytes::new().u32(ring.into()).u32(0).u64(0).u64(0x2000).u64(0x1000).u64(0).done();
    message(9, REQUEST_NEEDING_REPLY, &places)
}
