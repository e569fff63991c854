//! A front-end's words, whoever lets the back-end work.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::LazyLock;

use vhost_tests::dialog::{FakeFrontend, Received};
use vhost_tests::driver::{GuestMemory, Ring, table};
use vhost_tests::wire::{self, Bytes, REQUEST, REQUEST_NEEDING_REPLY, feature};

/// The virtio features that most of these front-ends take.
pub(crate) const OFFER: u64 = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::INDIRECT_DESCRIPTORS;

/// The protocol features that these front-ends take, as far as they are offered: their rings are told by user addresses.
pub(crate) const EVERYTHING: u64 = !feature::GPA_ADDRESSES;

/// The id of the front-end request of this name.
pub(crate) fn id(name: &str) -> u32 {
    static IDS: LazyLock<BTreeMap<&str, u32>> =
        LazyLock::new(|| wire::all_frontend_requests().iter().map(|fixture| (fixture.name, fixture.id)).collect());
    *IDS.get(name).unwrap_or_else(|| panic!("no request is called {name}"))
}

/// A whole message.
pub(crate) fn message(name: &str, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [&wire::header(id(name), flags, size)[..], payload].concat()
}

/// The payload of a ring's index and a number.
pub(crate) fn state(index: u32, number: u32) -> Vec<u8> {
    Bytes::new().u32(index).u32(number).done()
}

/// The payload of one number.
pub(crate) fn number(value: u64) -> Vec<u8> {
    Bytes::new().u64(value).done()
}

/// A front-end in conversation with a back-end.
pub(crate) trait Dialog {
    /// The front-end's end of the connection.
    fn frontend(&self) -> &FakeFrontend;

    /// Sends bytes, whatever they are, and lets the back-end act on them.
    fn say(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]);

    /// Sends a request that wants no acknowledgement.
    #[track_caller]
    fn request(&mut self, name: &str, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.say(&message(name, REQUEST, payload), descriptors);
    }

    /// Sends a request and takes its own reply.
    #[track_caller]
    fn ask(&mut self, name: &str, payload: &[u8]) -> Received {
        self.request(name, payload, &[]);
        self.frontend().receive_reply(id(name))
    }

    /// Sends a request and takes its own reply, which is a number.
    #[track_caller]
    fn ask_number(&mut self, name: &str) -> u64 {
        self.ask(name, &[]).number()
    }

    /// Sends a request and takes the acknowledgement: 0 is success.
    #[track_caller]
    fn acknowledged(&mut self, name: &str, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> u64 {
        self.say(&message(name, REQUEST_NEEDING_REPLY, payload), descriptors);
        self.frontend().receive_reply(id(name)).number()
    }

    /// Sends a request, which must be granted.
    #[track_caller]
    fn grant(&mut self, name: &str, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        assert_eq!(self.acknowledged(name, payload, descriptors), 0, "{name} was refused");
    }

    /// All earlier requests have been served, and none has a reply that was not taken.
    #[track_caller]
    fn barrier(&mut self) -> u64 {
        self.ask_number("GET_FEATURES")
    }

    /// Begins the way QEMU does: takes these virtio features and these protocol features, as far as they are offered.
    #[track_caller]
    fn negotiate(&mut self, virtio: u64, protocol: u64) {
        let offered = self.ask_number("GET_FEATURES");
        let protocol_offered = self.ask_number("GET_PROTOCOL_FEATURES");
        self.request("SET_PROTOCOL_FEATURES", &number(protocol & protocol_offered), &[]);
        self.request("SET_OWNER", &[], &[]);
        self.request("SET_FEATURES", &number(virtio & offered), &[]);
    }

    /// Shares these regions and no others.
    #[track_caller]
    fn share(&mut self, memories: &[&GuestMemory]) {
        let regions = Vec::from_iter(memories.iter().map(|memory| memory.region()));
        let descriptors = Vec::from_iter(memories.iter().map(|memory| memory.as_fd()));
        self.grant("SET_MEM_TABLE", &table(&regions), &descriptors);
    }

    /// Tells everything about a ring and starts it, but does not enable it.
    #[track_caller]
    fn start(&mut self, ring: &Ring) {
        self.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
        self.grant("SET_VRING_BASE", &ring.base_payload(), &[]);
        self.grant("SET_VRING_ADDR", &ring.address_payload(), &[]);
        self.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
        self.grant("SET_VRING_ERR", &ring.event_payload(), &[ring.error.as_fd()]);
        self.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
    }

    /// Enables (1) or disables (0) a ring.
    #[track_caller]
    fn enable(&mut self, ring: &Ring, number: u32) {
        self.grant("SET_VRING_ENABLE", &ring.state_payload(number), &[]);
    }

    /// Stops a ring; the index where the device stood.
    #[track_caller]
    fn stop(&mut self, ring: &Ring) -> u16 {
        let reply = self.ask("GET_VRING_BASE", &ring.state_payload(0));
        assert_eq!(reply.payload().len(), 8);
        assert_eq!(reply.payload()[..4], ring.index.to_ne_bytes(), "the ring that was asked for");
        u16::try_from(u32::from_ne_bytes(reply.payload()[4..].try_into().unwrap())).unwrap()
    }
}

impl Dialog for FakeFrontend {
    fn frontend(&self) -> &FakeFrontend {
        self
    }

    #[track_caller]
    fn say(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.send(bytes, descriptors);
    }
}
