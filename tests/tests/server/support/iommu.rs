//! A front-end with an IOMMU in front of its guest's memory.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_core::ProtocolFeatures;
use vhost_std::server::BackendServer;
use vhost_tests::dialog::{PATIENCE, Socket};
use vhost_tests::driver::{Command, GuestMemory, Ring};
use vhost_tests::wire::{Bytes, Layout, REQUEST, feature};

use super::{Bench, Dialog, OFFER};

pub(crate) const PAGE: u64 = 0x1000;

/// Kinds of messages, and permissions.
const MISS: u64 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const INVALIDATE: u8 = 3;
pub(crate) const READ: u8 = 1;
pub(crate) const READ_WRITE: u8 = 3;

/// Where drivers see memory: so much above its guest addresses.
pub(crate) const SHIFT: u64 = 0x77_0000_0000;

/// A front-end with an IOMMU in front of its memory, and its channel.
pub(crate) struct Iommu<'s> {
    pub(crate) bench: Bench<'s>,
    pub(crate) channel: Socket,
    memory: Arc<GuestMemory>,
    /// Whether translations lead to guest addresses.
    guest_addresses: bool,
}

impl<'s> Iommu<'s> {
    pub(crate) fn new(server: &'s mut BackendServer, memory: &Arc<GuestMemory>) -> Self {
        Self::with_features(server, memory, 0)
    }

    /// With features of the device too.
    pub(crate) fn with_features(server: &'s mut BackendServer, memory: &Arc<GuestMemory>, features: u64) -> Self {
        let mut bench = Bench::new(server);
        bench.negotiate(OFFER | feature::IOMMU_PLATFORM | features, u64::MAX);
        let channel = bench.open_channel();
        bench.share(&[memory]);
        let protocol = bench.connection().session().negotiated().protocol;
        let guest_addresses = protocol.contains(ProtocolFeatures::GPA_ADDRESSES);
        Self { bench, channel, memory: Arc::clone(memory), guest_addresses }
    }

    /// Starts and enables a ring that its driver sees `SHIFT` above where it is.
    pub(crate) fn start(&mut self, ring: &Ring) {
        self.bench.grant("SET_VRING_NUM", &ring.num_payload(), &[]);
        self.bench.grant("SET_VRING_BASE", &ring.base_payload(), &[]);
        let [descriptors, used, available] = [ring.descriptors, ring.used, ring.available].map(|at| at + SHIFT);
        let places = Bytes::new().u32(ring.index).u32(0).u64(descriptors).u64(used).u64(available).u64(0).done();
        self.bench.grant("SET_VRING_ADDR", &places, &[]);
        self.bench.grant("SET_VRING_CALL", &ring.event_payload(), &[ring.call.as_fd()]);
        self.bench.grant("SET_VRING_ERR", &ring.event_payload(), &[ring.error.as_fd()]);
        self.bench.grant("SET_VRING_KICK", &ring.event_payload(), &[ring.kick.as_fd()]);
        self.bench.enable(ring, 1);
    }

    /// Gives a translation, whatever it is; 0 if it was taken.
    pub(crate) fn tell(&mut self, iova: u64, size: u64, target: u64, permission: u8, kind: u8) -> u64 {
        let payload = Bytes::new().u64(iova).u64(size).u64(target).u8(permission).u8(kind).padding(6).done();
        let reply = self.bench.ask("IOTLB_MSG", &payload);
        assert_eq!(reply.payload().len(), 8);
        reply.number()
    }

    /// Has a driver's page lead to a page of guest memory.
    pub(crate) fn map(&mut self, iova: u64, guest: u64, permission: u8) {
        let target = if self.guest_addresses { guest } else { self.memory.user(guest) };
        assert_eq!(self.tell(iova, PAGE, target, permission, UPDATE), 0);
    }

    pub(crate) fn unmap(&mut self, iova: u64, size: u64) {
        assert_eq!(self.tell(iova, size, 0, 0, INVALIDATE), 0);
    }

    /// The next page that is asked for, and for what.
    #[track_caller]
    pub(crate) fn asked(&mut self) -> (u64, u64) {
        self.bench.wait_for(self.channel.as_fd());
        let message = self.channel.receive();
        assert_eq!((message.id(), message.header().flags), (1, REQUEST));
        let fields = message.fields(Layout::Iotlb);
        assert_eq!((fields.number("size"), fields.number("type")), (0, MISS));
        (fields.number("iova"), fields.number("permission"))
    }

    /// Answers what is asked as an IOMMU would that maps every page where the driver sees it, until a chain comes back: its
    /// first descriptor and how much was written, and what was asked.
    #[track_caller]
    pub(crate) fn serve(&mut self, ring: &mut Ring) -> ((u32, u32), Vec<(u64, u64)>) {
        let mut asked = Vec::new();
        loop {
            self.bench.settle();
            if let Some(used) = ring.take_used() {
                return (used, asked);
            }
            self.wait_for_either(ring);
            while self.is_asked() {
                let (iova, permission) = self.asked();
                asked.push((iova, permission));
                let page = iova & !(PAGE - 1);
                self.map(page, page - SHIFT, READ_WRITE);
            }
        }
    }

    fn wait_for_either(&mut self, ring: &Ring) {
        let limit = Timespec::try_from(PATIENCE).unwrap();
        let connection = self.bench.connection();
        let waiting = connection.descriptors().chain([self.channel.as_fd(), ring.call.as_fd()]);
        let mut waiting = Vec::from_iter(waiting.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        assert!(poll(&mut waiting, Some(&limit)).unwrap() > 0, "nothing happens any more");
        drop(waiting);
        vhost_tests::driver::signals(&ring.call);
    }

    /// Whether something is asked for.
    pub(crate) fn is_asked(&self) -> bool {
        let mut polled = [PollFd::new(&self.channel, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }
}

/// Puts a request into the ring whose buffers are where the driver sees them.
pub(crate) fn request(ring: &mut Ring, slot: u16, command: Command<'_>, sector: u64) {
    let head = prepare(ring, slot, command, sector);
    ring.offer(head);
    ring.kick();
}

/// The same without making it available; its first descriptor.
pub(crate) fn prepare(ring: &Ring, slot: u16, command: Command<'_>, sector: u64) -> u16 {
    let head = ring.prepare(slot, command, sector);
    for number in head..head + 3 {
        let place = ring.descriptors + 16 * u64::from(number);
        let address = u64::from_le_bytes(ring.memory.read(place, 8).try_into().unwrap());
        ring.memory.write(place, &(address + SHIFT).to_le_bytes());
    }
    head
}
