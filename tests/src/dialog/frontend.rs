//! The front-end's end, to test back-ends from outside.

use super::{Received, Socket, borrowed, descriptors_for};
use crate::wire::{self, Bytes, Fixture, REPLY, REQUEST, REQUEST_NEEDING_REPLY, feature};
use core::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A front-end that does what the test says, right or wrong.
#[derive(Debug)]
pub struct FakeFrontend {
    socket: Socket,
}

impl FakeFrontend {
    /// A front-end at this end of a connection.
    pub fn new(stream: UnixStream) -> Self {
        Self { socket: Socket::new(stream) }
    }

    /// A front-end, and the other end for the back-end under test.
    pub fn pair() -> (Self, UnixStream) {
        let (socket, theirs) = Socket::pair();
        (Self { socket }, theirs)
    }

    /// A front-end that connects to a back-end which listens already.
    #[track_caller]
    pub fn connect(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    /// Sends a request that wants no acknowledgement.
    #[track_caller]
    pub fn request(&self, id: u32, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.send(&whole(id, REQUEST, payload), descriptors);
    }

    /// Sends a request and takes the reply, which must be of the same id and have flags 0x5.
    #[track_caller]
    pub fn ask(&self, id: u32, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Received {
        self.request(id, payload, descriptors);
        self.receive_reply(id)
    }

    /// Sends a request that wants an acknowledgement, and takes it: 0 is success.
    #[track_caller]
    pub fn ask_acknowledged(&self, id: u32, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> u64 {
        self.send(&whole(id, REQUEST_NEEDING_REPLY, payload), descriptors);
        self.receive_reply(id).number()
    }

    /// Sends a fixture with descriptors of its own and flags of one's choice; takes no reply.
    #[track_caller]
    pub fn send_fixture(&self, fixture: &Fixture, flags: u32) {
        let descriptors = descriptors_for(fixture);
        self.send(&fixture.message(flags), &borrowed(&descriptors));
    }

    /// The next message, which must be the reply to the request of this id and have flags 0x5.
    #[track_caller]
    pub fn receive_reply(&self, id: u32) -> Received {
        let reply = self.receive();
        assert_eq!((reply.id(), reply.header().flags), (id, REPLY), "id and flags of the reply: {reply:?}");
        reply
    }

    /// Asks for the features; nothing else may come before the answer. So all earlier requests have been served, and none of
    /// them has a reply that the test did not take.
    #[track_caller]
    pub fn barrier(&self) -> u64 {
        self.ask(1, &[], &[]).number()
    }

    /// Takes the features of these that the back-end offers, the way QEMU begins a connection. Gives back what was offered:
    /// virtio features, protocol features. Protocol features are left alone when the back-end offers none.
    #[track_caller]
    pub fn negotiate(&self, virtio: u64, protocol: u64) -> (u64, u64) {
        let offered = self.ask(1, &[], &[]).number();
        let mut protocol_offered = 0;
        if offered & feature::PROTOCOL_FEATURES != 0 {
            protocol_offered = self.ask(15, &[], &[]).number();
            self.request(16, &(protocol & protocol_offered).to_ne_bytes(), &[]);
        }
        self.request(3, &[], &[]);
        self.request(2, &(virtio & offered).to_ne_bytes(), &[]);
        (offered, protocol_offered)
    }

    /// Gives the back-end a channel for its own requests; this end of it. Takes no acknowledgement.
    #[track_caller]
    pub fn open_backend_channel(&self) -> Socket {
        let (ours, theirs) = Socket::pair();
        self.request(21, &[], &[theirs.as_fd()]);
        ours
    }
}

impl Deref for FakeFrontend {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

fn whole(id: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    Bytes::new().raw(&wire::header(id, flags, size)).raw(payload).done()
}
