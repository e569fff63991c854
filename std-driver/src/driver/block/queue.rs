//! One queue of a disk: requests in slots of shared memory.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::event::PollFlags;

use super::{BlockClientError, BlockRequest, BlockStatus, request::Data};
use crate::{
    block::format::HEADER_BYTES,
    deadline::Deadline,
    driver::{Buffer, DriverRing, GuestArea, Kick, RingOptions, Used},
    eventfd::EventFd,
    frontend::{RingSetup, wait::wait_for_any},
};

/// Header and status of a slot have a cache line, in which the status is here.
const HEAD: u64 = 64;
const STATUS: u64 = HEADER_BYTES as u64;
/// The data of all slots begin and end at pages, as disks without a cache want it.
const PAGE: u64 = 4096;

/// One queue of a disk.
///
/// Requests are [`submit`](Self::submit)ted, given to the disk together by [`publish`](Self::publish), and come back
/// through [`poll`](Self::poll) or [`wait`](Self::wait), in any order.
#[derive(Debug)]
pub struct BlockQueue {
    index: u8,
    pub(super) ring: DriverRing,
    kick: EventFd,
    call: EventFd,
    heads: GuestArea,
    data: GuestArea,
    slot_size: u32,
    free: Vec<u16>,
    /// The requests by their slots.
    tickets: Vec<u64>,
    /// The next ticket.
    next: u64,
    /// Used buffers that were taken from the ring and not handed out.
    ready: VecDeque<Used>,
}

/// A request that the disk is done with. Its slot is free again when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Completion<'q> {
    queue: &'q mut BlockQueue,
    slot: u16,
    status: BlockStatus,
    length: u32,
}

/// Why a wait ended.
pub(super) enum Waited {
    /// There is a completion.
    Completion,
    /// The connection wants to be looked at.
    Connection,
    /// The deadline came first.
    Deadline,
}

impl BlockQueue {
    /// Bytes of the area of such a queue.
    pub(super) fn bytes(ring: &RingOptions, slots: u16, slot_size: u32) -> Result<u64, BlockClientError> {
        Ok(Places::new(ring, slots, slot_size)?.end)
    }

    pub(super) fn new(
        index: u8,
        area: &GuestArea,
        ring: &RingOptions,
        slots: u16,
        slot_size: u32,
    ) -> Result<Self, BlockClientError> {
        let Places { heads, data, end } = Places::new(ring, slots, slot_size)?;
        Ok(Self {
            index,
            ring: DriverRing::new(area.part(0, heads)?, ring)?,
            kick: EventFd::new()?,
            call: EventFd::new()?,
            heads: area.part(heads, data - heads)?,
            data: area.part(data, end - data)?,
            slot_size,
            free: (0..slots).rev().collect(),
            tickets: vec![0; usize::from(slots)],
            next: 0,
            ready: VecDeque::with_capacity(usize::from(slots)),
        })
    }

    /// Adds a request; what tells its completion from others.
    ///
    /// # Errors
    /// [`Busy`](BlockClientError::Busy), [`TooMuchData`](BlockClientError::TooMuchData), or what is wrong with the ring.
    pub fn submit(&mut self, request: BlockRequest<'_>) -> Result<u64, BlockClientError> {
        let request = request.encode();
        let found = match &request.data {
            Data::Nothing => 0,
            Data::Out(data) => data.len(),
            Data::Range(range) => range.len(),
            Data::In(length) => *length as usize,
        };
        let limit = self.slot_size;
        let length = u32::try_from(found).ok().filter(|length| *length <= limit);
        let length = length.ok_or(BlockClientError::TooMuchData { found, limit })?;
        let slot = *self.free.last().ok_or(BlockClientError::Busy)?;
        let (head, place) = (head_of(slot), data_of(slot, limit));
        let header = Buffer { address: self.heads.guest_address(head), length: HEADER_BYTES as u32 };
        let status = Buffer { address: self.heads.guest_address(head + STATUS), length: 1 };
        let data = Buffer { address: self.data.guest_address(place), length };
        self.heads.write(head, &request.header)?;
        // Not a status that a disk gives: one that it forgets to write is an error.
        self.heads.write(head + STATUS, &[u8::MAX])?;
        match request.data {
            Data::Out(bytes) => self.data.write(place, bytes)?,
            Data::Range(range) => self.data.write(place, &range)?,
            Data::Nothing | Data::In(_) => {}
        }
        match request.data {
            Data::Out(_) | Data::Range(_) if length > 0 => self.ring.add(&[header, data], &[status], slot.into()),
            Data::In(_) if length > 0 => self.ring.add(&[header], &[data, status], slot.into()),
            // A buffer has at least one byte.
            _ => self.ring.add(&[header], &[status], slot.into()),
        }?;
        self.free.pop();
        let ticket = self.next;
        self.next += 1;
        if let Some(kept) = self.tickets.get_mut(usize::from(slot)) {
            *kept = ticket;
        }
        Ok(ticket)
    }

    /// Gives the disk what was submitted.
    ///
    /// # Errors
    /// The errno of signalling the disk.
    pub fn publish(&mut self) -> Result<(), BlockClientError> {
        if self.ring.publish()? == Kick::Needed {
            self.kick.signal()?;
        }
        Ok(())
    }

    /// Takes a completion if there is one.
    ///
    /// # Errors
    /// [`Ring`](BlockClientError::Ring) if the disk broke it.
    pub fn poll(&mut self) -> Result<Option<Completion<'_>>, BlockClientError> {
        if !self.has_completion()? {
            return Ok(None);
        }
        let Some(used) = self.ready.pop_front() else { return Ok(None) };
        let slot = index(used.token);
        let mut status = [0];
        self.heads.read(head_of(slot) + STATUS, &mut status)?;
        let [status] = status.map(BlockStatus::from_byte);
        // The status is the last byte that a disk writes; only what it writes before is data.
        let length = used.written.saturating_sub(1).min(self.slot_size);
        Ok(Some(Completion { queue: self, slot, status, length }))
    }

    /// Publishes what was submitted and waits for a completion; `None` if the deadline came first.
    ///
    /// # Errors
    /// As [`poll`](Self::poll) and [`publish`](Self::publish).
    pub fn wait(&mut self, deadline: Deadline) -> Result<Option<Completion<'_>>, BlockClientError> {
        self.publish()?;
        match self.wait_beside(None, deadline)? {
            Waited::Completion => self.poll(),
            Waited::Connection | Waited::Deadline => Ok(None),
        }
    }

    /// How many requests were submitted and are not handed out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.tickets.len() - self.free.len()
    }

    /// Waits for a completion, and beside it for something to read on the connection.
    pub(super) fn wait_beside(
        &mut self,
        connection: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<Waited, BlockClientError> {
        loop {
            if self.has_completion()? || self.ring.request_call()? {
                return Ok(Waited::Completion);
            }
            let call = (self.call.as_fd(), PollFlags::IN);
            let ready = match connection {
                Some(connection) => wait_for_any([call, (connection, PollFlags::IN)], deadline)?,
                None => wait_for_any([call], deadline)?.map(|[call]| [call, false]),
            };
            match ready {
                None => return Ok(Waited::Deadline),
                Some([true, _]) => drop(self.call.drain()?),
                Some([false, _]) => return Ok(Waited::Connection),
            }
        }
    }

    /// Takes everything out of the ring that the disk is done with.
    pub(super) fn collect(&mut self) -> Result<(), BlockClientError> {
        while let Some(used) = self.ring.poll_used()? {
            self.ready.push_back(used);
        }
        Ok(())
    }

    pub(super) fn setup(&self, addresses: crate::frontend::VringAddresses) -> RingSetup<'_> {
        RingSetup {
            ring: self.index,
            size: self.ring.size(),
            base: self.ring.base(),
            addresses,
            kick: Some(self.kick.as_fd()),
            call: Some(self.call.as_fd()),
            error: None,
        }
    }

    /// Has the disk look at its queue.
    pub(super) fn signal(&self) -> Result<(), BlockClientError> {
        Ok(self.kick.signal()?)
    }

    fn has_completion(&mut self) -> Result<bool, BlockClientError> {
        if self.ready.is_empty() {
            self.ready.extend(self.ring.poll_used()?);
        }
        Ok(!self.ready.is_empty())
    }
}

impl Completion<'_> {
    /// What [`BlockQueue::submit`] gave for the request.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.queue.tickets.get(usize::from(self.slot)).copied().unwrap_or_default()
    }

    /// How the request went.
    #[must_use]
    pub fn status(&self) -> BlockStatus {
        self.status
    }

    /// Bytes of data that the disk gave.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Copies the data into `buffer`, as much as there is room for and the disk gave; how many bytes.
    ///
    /// # Errors
    /// None that a completion can have.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, BlockClientError> {
        let count = buffer.len().min(self.length as usize);
        let at = data_of(self.slot, self.queue.slot_size);
        self.queue.data.read(at, buffer.get_mut(..count).unwrap_or_default())?;
        Ok(count)
    }
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        self.queue.free.push(self.slot);
    }
}

impl AsFd for BlockQueue {
    /// The eventfd that becomes readable when the disk is done with something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }
}

/// Where things lie in the area of a queue: the ring, the heads of all slots, the data of all slots.
struct Places {
    heads: u64,
    data: u64,
    end: u64,
}

impl Places {
    fn new(ring: &RingOptions, slots: u16, slot_size: u32) -> Result<Self, BlockClientError> {
        let heads = ring.bytes()?.next_multiple_of(HEAD);
        let data = (heads + head_of(slots)).next_multiple_of(PAGE);
        Ok(Self { heads, data, end: data + data_of(slots, slot_size) })
    }
}

fn head_of(slot: u16) -> u64 {
    u64::from(slot) * HEAD
}

fn data_of(slot: u16, slot_size: u32) -> u64 {
    u64::from(slot) * u64::from(slot_size).next_multiple_of(PAGE)
}

/// Tokens are slots.
fn index(token: u64) -> u16 {
    u16::try_from(token).unwrap_or(u16::MAX)
}
