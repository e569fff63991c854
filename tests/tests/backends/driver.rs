//! The driver's side of a disk: memory, rings, and requests in slots.

use core::fmt::Debug;
use std::os::fd::AsFd;
use std::time::Instant;

use vhost_core::{RingLayout, VhostBackend, VirtioFeatures, VringSetup, wire::vring::VringBase};
use vhost_std::driver::{Buffer, DriverRing, GuestArea, Kick, RingOptions, Used};
use vhost_std::eventfd::EventFd;
use vhost_std::memory::MemoryFile;
use vhost_tests::dialog::PATIENCE;

pub(crate) use crate::form::{Form, PIECE, Request, SECTORS};
use crate::subject::Subject;

/// Descriptors of a ring: few, so that its indices come around.
const SIZE: u16 = 16;
/// Requests that are under way at a time, and the bytes that each has room for.
pub(crate) const SLOTS: u16 = 4;
const SLOT: u64 = 0x2000;
/// Where the status and the data are in a slot.
const STATUS: u64 = 0x100;
const DATA: u64 = 0x1000;

/// Bytes of memory for each queue.
const QUEUE: u64 = 0x1_0000;
/// Offset of the slots there.
const SLOTS_AT: u64 = 0x8000;

const RING_FEATURES: VirtioFeatures =
    VirtioFeatures::VERSION_1.union(VirtioFeatures::RING_INDIRECT).union(VirtioFeatures::RING_EVENT_IDX);

/// A guest with a disk.
pub(crate) struct Driver {
    form: Form,
    features: VirtioFeatures,
    pub(crate) memory: MemoryFile,
    pub(crate) queues: Vec<Queue>,
}

/// One queue of the disk.
pub(crate) struct Queue {
    form: Form,
    /// The ring's number.
    pub(crate) index: u16,
    pub(crate) ring: DriverRing,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    /// Where slots are.
    pub(crate) slots: GuestArea,
}

impl Driver {
    /// Memory and split rings for a block device, of which nobody knows yet.
    pub(crate) fn new(queues: u16) -> Self {
        Self::with(queues, RingLayout::Split)
    }

    /// Memory and rings for a block device, of which nobody knows yet.
    pub(crate) fn with(queues: u16, layout: RingLayout) -> Self {
        let features = match layout {
            RingLayout::Split => RING_FEATURES,
            RingLayout::Packed => RING_FEATURES | VirtioFeatures::RING_PACKED,
        };
        Self::of_form(Form::Block, queues, features)
    }

    /// Memory and rings for a disk of a SCSI device, of which nobody knows yet.
    #[allow(dead_code, reason = "only kernels have such devices")]
    pub(crate) fn scsi(queues: u16) -> Self {
        Self::of_form(Form::Scsi, queues, RING_FEATURES)
    }

    fn of_form(form: Form, queues: u16, features: VirtioFeatures) -> Self {
        let memory = MemoryFile::create("guest", 0x1_0000_0000, QUEUE * u64::from(queues)).unwrap();
        let area = GuestArea::of(&memory);
        let part = |at: u16| area.part(QUEUE * u64::from(at), QUEUE).unwrap();
        let queues = (0..queues).map(|at| Queue::new(form, form.first_ring() + at, &part(at), features)).collect();
        Self { form, features, memory, queues }
    }

    /// Does everything that starts the disk; the features that were agreed on.
    pub(crate) fn bring_up<B>(&self, backend: &mut B) -> VirtioFeatures
    where
        B: VhostBackend<Handle = dyn AsFd, Memory = dyn AsFd, Error: Debug>,
    {
        let offered = backend.features().unwrap();
        assert!(offered.contains(VirtioFeatures::VERSION_1 | self.form.features()), "{offered:?}");
        assert!(!offered.contains(VirtioFeatures::PROTOCOL_FEATURES), "that is nobody's but the front-end's");
        let agreed = offered & (self.features | self.form.features() | self.form.optional_features());
        assert_eq!(RingLayout::of(agreed), RingLayout::of(self.features), "the rings are there already");
        backend.acknowledge(agreed).unwrap();
        backend.set_memory(&[(*self.memory.region(), &self.memory)]).unwrap();
        for queue in &self.queues {
            queue.start(backend);
        }
        agreed
    }

    /// Fills all slots of all queues with requests, and waits for all of them.
    pub(crate) fn run_all<S: Subject>(&mut self, subject: &mut S, request: impl Fn(u16, u16) -> Request<'static>) {
        for queue in &mut self.queues {
            for slot in 0..SLOTS {
                queue.submit(slot, request(queue.index, slot));
            }
            queue.publish();
        }
        for queue in &mut self.queues {
            for _ in 0..SLOTS {
                queue.wait(subject);
            }
        }
    }
}

impl Queue {
    fn new(form: Form, index: u16, area: &GuestArea, features: VirtioFeatures) -> Self {
        let options = RingOptions { size: SIZE, features, table_size: 3 };
        let ring = DriverRing::new(area.part(0, SLOTS_AT).unwrap(), &options).unwrap();
        let slots = area.part(SLOTS_AT, SLOT * u64::from(SLOTS)).unwrap();
        Self { form, index, ring, kick: EventFd::new().unwrap(), call: EventFd::new().unwrap(), slots }
    }

    pub(crate) fn start<B>(&self, backend: &mut B)
    where
        B: VhostBackend<Handle = dyn AsFd, Memory = dyn AsFd, Error: Debug>,
    {
        let (size, base, addresses) = (self.ring.size(), self.ring.base(), self.ring.user_addresses());
        let setup = VringSetup::<dyn AsFd> {
            size,
            base,
            addresses,
            kick: Some(&self.kick),
            call: Some(&self.call),
            error: None,
        };
        backend.start_vring(self.index, &setup).unwrap();
    }

    /// Puts a request into a slot and into the ring.
    pub(crate) fn submit(&mut self, slot: u16, request: Request<'_>) {
        let at = SLOT * u64::from(slot);
        let (readable, writable) = match request {
            Request::Write(_, data) => {
                self.slots.write(at + DATA, data).unwrap();
                (data.len(), 0)
            }
            Request::Read(_) => (0, PIECE),
            Request::Flush => (0, 0),
        };
        let head = self.form.head(&request);
        self.slots.write(at, &head).unwrap();
        let status = self.form.status_size();
        self.slots.write(at + STATUS, &vec![0xff; status]).unwrap();
        let piece = |offset, length| {
            let length = u32::try_from(length).unwrap();
            (length > 0).then(|| Buffer { address: self.slots.guest_address(at + offset), length })
        };
        let readable = [piece(0, head.len()), piece(DATA, readable)];
        let mut writable = [piece(DATA, writable), piece(STATUS, status)];
        if self.form.has_status_first() {
            writable.reverse();
        }
        let [readable, writable] = [readable, writable].map(|pieces| Vec::from_iter(pieces.into_iter().flatten()));
        self.ring.add(&readable, &writable, slot.into()).unwrap();
    }

    /// Tells the disk of what was submitted.
    pub(crate) fn publish(&mut self) {
        if self.ring.publish().unwrap() == Kick::Needed {
            self.kick.signal().unwrap();
        }
    }

    /// Waits for a request, which must have gone well; its slot.
    pub(crate) fn wait<S: Subject>(&mut self, subject: &mut S) -> u16 {
        loop {
            if let Some(used) = self.ring.poll_used().unwrap() {
                return self.done(used);
            }
            if !self.ring.request_call().unwrap() {
                subject.wait_for(self.call.as_fd());
                self.call.drain().unwrap();
            }
        }
    }

    /// The same without a call: looks again and again.
    pub(crate) fn wait_without_call<S: Subject>(&mut self, subject: &mut S) -> u16 {
        let start = Instant::now();
        loop {
            if let Some(used) = self.ring.poll_used().unwrap() {
                return self.done(used);
            }
            assert!(start.elapsed() < PATIENCE, "nothing happens any more");
            subject.work();
            std::thread::yield_now();
        }
    }

    /// Makes one request and waits for it.
    pub(crate) fn run<S: Subject>(&mut self, subject: &mut S, request: Request<'_>) {
        self.submit(0, request);
        self.publish();
        assert_eq!(self.wait(subject), 0);
    }

    /// What was read into a slot.
    pub(crate) fn data(&self, slot: u16) -> Vec<u8> {
        let mut data = vec![0; PIECE];
        self.slots.read(SLOT * u64::from(slot) + DATA, &mut data).unwrap();
        data
    }

    /// The guest address of a slot's data.
    pub(crate) fn data_address(&self, slot: u16) -> u64 {
        self.slots.guest_address(SLOT * u64::from(slot) + DATA).0
    }

    /// Where the next chain is taken.
    pub(crate) fn base(&self) -> VringBase {
        self.ring.base()
    }

    fn done(&self, used: Used) -> u16 {
        let slot = u16::try_from(used.token).unwrap();
        let mut status = vec![0xee; self.form.status_size()];
        self.slots.read(SLOT * u64::from(slot) + STATUS, &mut status).unwrap();
        assert!(self.form.is_good(&status), "slot {slot} in queue {}: {status:x?}", self.index);
        slot
    }
}

/// Bytes that differ from seed to seed.
pub(crate) fn pattern(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..PIECE).map(step).collect()
}
