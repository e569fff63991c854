//! The back-end's end, to test front-ends from outside.

use super::{Received, Socket, borrowed, memory};
use crate::wire::{self, Answer, Bytes, Fixture, REPLY, Reply, feature};
use core::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

// The requests whose reply depends on what was asked or what the test offers.
const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_CONFIG: u32 = 24;
const GET_INFLIGHT_FD: u32 = 31;

/// A back-end that answers from the fixtures unless the test does.
#[derive(Debug)]
pub struct FakeBackend {
    socket: Socket,
    virtio: u64,
    protocol: u64,
}

impl FakeBackend {
    /// A back-end at this end of a connection.
    pub fn new(stream: UnixStream) -> Self {
        Self { socket: Socket::new(stream), virtio: feature::OFFERED, protocol: feature::PROTOCOL_OFFERED }
    }

    /// A back-end, and the other end for the front-end under test.
    pub fn pair() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Self::new(ours), theirs)
    }

    /// The same back-end with these virtio and protocol features on offer in the place of the fixtures'.
    pub fn offering(self, virtio: u64, protocol: u64) -> Self {
        Self { virtio, protocol, ..self }
    }

    /// A back-end for the next front-end that connects.
    #[track_caller]
    pub fn accept(listener: &UnixListener) -> Self {
        Self::new(listener.accept().unwrap().0)
    }

    /// Replies to a request, with flags 0x5.
    #[track_caller]
    pub fn reply(&self, request: &Received, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let size = u32::try_from(payload.len()).unwrap();
        let bytes = Bytes::new().raw(&wire::header(request.id(), REPLY, size)).raw(payload).done();
        self.send(&bytes, descriptors);
    }

    /// Acknowledges a request: 0 is success.
    #[track_caller]
    pub fn acknowledge(&self, request: &Received, value: u64) {
        self.reply(request, &value.to_ne_bytes(), &[]);
    }

    /// Gives a request the usual reply of its fixture, if the protocol wants one, with descriptors where the fixture has some
    /// and fitted to what was asked (ring, part of the config space, number of queues).
    #[track_caller]
    pub fn answer(&self, request: &Received) {
        let fixture = fixture_of(request);
        match fixture.answers().first() {
            Some(usual) => {
                let descriptors = Vec::from_iter((0..usual.descriptors).map(|_| memory(0x1000_0000)));
                self.reply(request, &self.fitted(usual, request), &borrowed(&descriptors));
            }
            None if matches!(fixture.reply, Reply::Acknowledgement) && request.header().needs_reply() => {
                self.acknowledge(request, 0);
            }
            None => {}
        }
    }

    /// Takes and answers requests until one of this id comes, which is left to the test. Gives back all that came before it.
    #[track_caller]
    pub fn serve_until(&self, id: u32) -> (Received, Vec<Received>) {
        let mut before = Vec::new();
        loop {
            let request = self.receive();
            if request.id() == id {
                return (request, before);
            }
            self.answer(&request);
            before.push(request);
        }
    }

    /// Takes and answers one request, which must be of this id and carry as many descriptors as it should.
    #[track_caller]
    pub fn serve(&self, id: u32) -> Received {
        let request = self.receive();
        assert_eq!(request.id(), id, "another request was expected: {request:?}");
        self.answer(&request);
        request
    }

    /// The channel for the back-end's own requests that came with a SET_BACKEND_REQ_FD.
    #[track_caller]
    pub fn backend_channel(request: Received) -> Self {
        let [channel] = <[OwnedFd; 1]>::try_from(request.descriptors).unwrap();
        Self::new(channel.into())
    }

    fn fitted(&self, usual: &Answer, request: &Received) -> Vec<u8> {
        let mut payload = usual.payload.clone();
        match request.id() {
            GET_FEATURES => self.virtio.to_ne_bytes().to_vec(),
            GET_PROTOCOL_FEATURES => self.protocol.to_ne_bytes().to_vec(),
            GET_VRING_BASE => {
                payload[..4].copy_from_slice(&request.payload()[..4]);
                payload
            }
            GET_CONFIG => {
                let (asked, space) = request.payload().split_at(12);
                let contents = Vec::from_iter((0xc1..=u8::MAX).cycle().take(space.len()));
                [asked, &contents].concat()
            }
            GET_INFLIGHT_FD => {
                payload[16..20].copy_from_slice(&request.payload()[16..20]);
                payload
            }
            _ => payload,
        }
    }
}

impl Deref for FakeBackend {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

#[track_caller]
fn fixture_of(request: &Received) -> Fixture {
    let mut forms = wire::all_frontend_forms();
    forms.retain(|fixture| fixture.id == request.id());
    let same_size = forms.iter().position(|fixture| fixture.payload.len() == request.payload().len());
    assert!(!forms.is_empty(), "no request has the id of {request:?}");
    // A table of three regions has the size of no fixture and yet the reply of the first.
    forms.swap_remove(same_size.unwrap_or(0))
}
