//! What a pair of queues is connected to.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send, sockopt};

use super::config::feature;
use super::tap::Tap;
use super::{HEADER, NetError, Packet};

/// Where frames go to and come from: one queue of a tap interface, or a datagram socket.
#[derive(Debug)]
pub struct NetLink(Link);

#[derive(Debug)]
enum Link {
    Tap(Tap),
    Datagram(OwnedFd),
}

impl NetLink {
    /// Opens the tap interface `name` with so many queues, one a link. An interface that does not exist is made and goes
    /// with the last link; that needs `CAP_NET_ADMIN`, as does one that belongs to nobody.
    ///
    /// # Errors
    /// When the interface cannot be had like that.
    pub fn tap(name: &str, queues: u16) -> Result<Vec<Self>, NetError> {
        let taps = Tap::open(name, queues)?;
        Ok(taps.into_iter().map(|tap| Self(Link::Tap(tap))).collect())
    }

    /// Takes a connected datagram socket: each datagram is a frame, without any header. Checksums are complete and frames
    /// have the size of the network, as nobody would know otherwise.
    ///
    /// # Errors
    /// When it is no such socket.
    pub fn datagram(socket: OwnedFd) -> Result<Self, NetError> {
        match sockopt::socket_type(&socket) {
            Ok(SocketType::DGRAM | SocketType::SEQPACKET) => Ok(Self(Link::Datagram(socket))),
            _ => Err(NetError::NotADatagramSocket),
        }
    }

    /// Becomes readable when a frame comes.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Link::Tap(tap) => tap.descriptor(),
            Link::Datagram(socket) => socket.as_fd(),
        }
    }

    /// Features of frames that are left for the link, or for the driver, to complete.
    pub(super) fn offloads(&self) -> u64 {
        match self.0 {
            Link::Tap(_) => {
                feature::CSUM
                    | feature::GUEST_CSUM
                    | feature::GUEST_TSO4
                    | feature::GUEST_TSO6
                    | feature::HOST_TSO4
                    | feature::HOST_TSO6
            }
            Link::Datagram(_) => 0,
        }
    }

    /// Has the link leave to the driver what it acknowledged that it can do.
    pub(super) fn set_offloads(&self, acknowledged: u64) {
        if let Link::Tap(tap) = &self.0 {
            tap.set_offloads(acknowledged);
        }
    }

    /// Frames come here.
    pub(super) fn attach(&self) {
        if let Link::Tap(tap) = &self.0 {
            tap.attach();
        }
    }

    /// No frames come here; they go to other links of the same interface.
    pub(super) fn detach(&self) {
        if let Link::Tap(tap) = &self.0 {
            tap.detach();
        }
    }

    /// Takes a frame with its header, if there is one; how many bytes. Never waits.
    pub(super) fn receive(&self, packet: &mut Packet) -> Option<usize> {
        let count = match &self.0 {
            Link::Tap(tap) => rustix::io::retry_on_intr(|| rustix::io::read(tap.descriptor(), &mut packet[..])).ok()?,
            Link::Datagram(socket) => {
                let (header, frame) = packet.split_at_mut(HEADER);
                header.fill(0);
                let (count, _) = rustix::io::retry_on_intr(|| recv(socket, &mut *frame, RecvFlags::DONTWAIT)).ok()?;
                HEADER + count
            }
        };
        // Whatever is shorter has not even a header.
        Some(count).filter(|count| *count >= HEADER)
    }

    /// Sends a frame. What is not taken now is lost, as on any network. Never waits.
    pub(super) fn send(&self, header: &[u8], frame: &[u8]) {
        let _ = match &self.0 {
            Link::Tap(tap) => rustix::io::retry_on_intr(|| {
                rustix::io::writev(tap.descriptor(), &[IoSlice::new(header), IoSlice::new(frame)])
            }),
            Link::Datagram(socket) => {
                rustix::io::retry_on_intr(|| send(socket, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
            }
        };
    }
}
