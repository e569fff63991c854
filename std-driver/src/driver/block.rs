//! A client of a vhost-user disk: what a guest's driver does, without a guest.

mod error;
mod limits;
mod queue;
mod request;

use std::os::fd::AsFd;

use vhost_core::{Negotiated, ProtocolFeatures, VirtioFeatures, wire::config::Config};

pub use self::{
    error::BlockClientError,
    limits::BlockLimits,
    queue::{BlockQueue, Completion},
    request::{BlockRequest, BlockStatus, Unmap},
};
use self::{
    limits::{CONFIG_SIZE, feature},
    queue::Waited,
};
use super::{GuestArea, RingOptions};
use crate::{
    deadline::Deadline,
    frontend::{DeviceSetup, Frontend, FrontendError, VringAddresses},
    memory::MemoryFile,
};

/// Where the memory begins for the device: neither zero nor where it is in this process, so that a back-end which mixes
/// the two up is noticed.
const GUEST_ADDRESS: u64 = 0x1_0000_0000;

/// What a client of a disk is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockClientOptions {
    /// Queues, at least one.
    pub queues: u16,
    /// Descriptors of each queue, a power of two.
    pub queue_size: u16,
    /// Requests that each queue has room for.
    pub slots: u16,
    /// Bytes of data that each request has room for.
    pub slot_size: u32,
    /// Virtio features that are wanted.
    pub features: VirtioFeatures,
    /// Protocol features that are wanted; `CONFIG` always is.
    pub protocol: ProtocolFeatures,
}

impl Default for BlockClientOptions {
    /// One queue of 128 with room for 32 requests of 64 KiB, and all features that the client can make use of. A disk that
    /// offers packed rings gets them.
    fn default() -> Self {
        let disk = feature::READ_ONLY | feature::BLOCK_SIZE | feature::FLUSH | feature::MQ;
        let ring = VirtioFeatures::VERSION_1
            | VirtioFeatures::RING_EVENT_IDX
            | VirtioFeatures::RING_INDIRECT
            | VirtioFeatures::RING_PACKED;
        Self {
            queues: 1,
            queue_size: 128,
            slots: 32,
            slot_size: 64 << 10,
            features: disk | feature::DISCARD | feature::WRITE_ZEROES | ring,
            protocol: ProtocolFeatures::MQ
                | ProtocolFeatures::REPLY_ACK
                | ProtocolFeatures::CONFIG
                | ProtocolFeatures::CONFIGURE_MEM_SLOTS
                | ProtocolFeatures::STATUS
                | ProtocolFeatures::GPA_ADDRESSES,
        }
    }
}

/// A disk behind a back-end.
///
/// [`run`](Self::run) makes one request and waits for it. For more at a time there are the [queues](Self::queues_mut), one
/// for each thread.
///
/// ```no_run
/// use core::time::Duration;
/// use vhost_std::deadline::Deadline;
/// use vhost_std::driver::{BlockClient, BlockClientOptions, BlockRequest, BlockStatus};
/// use vhost_std::frontend::Frontend;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let soon = Deadline::after(Duration::from_secs(5));
/// let frontend = Frontend::connect("/run/disk.sock", soon)?;
/// let mut disk = BlockClient::start(frontend, BlockClientOptions::default())?;
///
/// let written = disk.run(0, BlockRequest::Write { sector: 8, data: &[0xa5; 512] }, soon)?;
/// assert_eq!(written.status(), BlockStatus::Ok);
/// drop(written);
///
/// let read = disk.run(0, BlockRequest::Read { sector: 8, length: 512 }, soon)?;
/// let mut data = [0; 512];
/// assert_eq!(read.read(&mut data)?, 512);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BlockClient {
    frontend: Frontend,
    options: BlockClientOptions,
    agreed: Negotiated,
    limits: BlockLimits,
    memory: MemoryFile,
    queues: Vec<BlockQueue>,
}

impl BlockClient {
    /// Agrees on features, reads what the disk tells of itself, and starts the queues.
    ///
    /// # Errors
    /// See [`BlockClientError`].
    pub fn start(mut frontend: Frontend, options: BlockClientOptions) -> Result<Self, BlockClientError> {
        let (agreed, limits) = agree(&mut frontend, &options)?;
        let ring = RingOptions { size: options.queue_size, features: agreed.acknowledged, table_size: 4 };
        let each = BlockQueue::bytes(&ring, options.slots, options.slot_size)?;
        let memory = MemoryFile::create("disk-client", GUEST_ADDRESS, each * u64::from(options.queues))?;
        let area = GuestArea::of(&memory);
        let queues = (0..u8::try_from(options.queues).unwrap_or(u8::MAX)).map(|index| {
            let area = area.part(u64::from(index) * each, each)?;
            BlockQueue::new(index, &area, &ring, options.slots, options.slot_size)
        });
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        let mut client = Self { frontend, options, agreed, limits, memory, queues };
        client.bring_up()?;
        Ok(client)
    }

    /// What the disk tells of itself.
    #[must_use]
    pub fn limits(&self) -> &BlockLimits {
        &self.limits
    }

    /// What was agreed on.
    #[must_use]
    pub fn agreed(&self) -> &Negotiated {
        &self.agreed
    }

    /// The connection, to be polled for its end.
    pub fn frontend(&self) -> &Frontend {
        &self.frontend
    }

    /// The queues, each to be polled for completions.
    #[must_use]
    pub fn queues(&self) -> &[BlockQueue] {
        &self.queues
    }

    /// The connection.
    pub fn frontend_mut(&mut self) -> &mut Frontend {
        &mut self.frontend
    }

    /// The queues. They can be moved to threads of their own as long as the client stays.
    pub fn queues_mut(&mut self) -> &mut [BlockQueue] {
        &mut self.queues
    }

    /// Makes one request on a queue and waits until it is done. Nothing else should be in flight there.
    ///
    /// # Errors
    /// [`TimedOut`](BlockClientError::TimedOut), or if the back-end goes away meanwhile
    /// [`Frontend`](BlockClientError::Frontend): the request is still in flight then.
    pub fn run(
        &mut self,
        queue: usize,
        request: BlockRequest<'_>,
        deadline: Deadline,
    ) -> Result<Completion<'_>, BlockClientError> {
        let no_such_queue = BlockClientError::NoSuchQueue { found: queue };
        self.queues.get_mut(queue).ok_or(no_such_queue)?.submit(request)?;
        self.wait(queue, deadline)
    }

    /// Publishes what was submitted to a queue, and waits for a completion or for the end of the connection.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn wait(&mut self, queue: usize, deadline: Deadline) -> Result<Completion<'_>, BlockClientError> {
        let no_such_queue = BlockClientError::NoSuchQueue { found: queue };
        let queue = self.queues.get_mut(queue).ok_or(no_such_queue)?;
        queue.publish()?;
        loop {
            match queue.wait_beside(Some(self.frontend.as_fd()), deadline)? {
                Waited::Completion => break,
                Waited::Connection => self.frontend.process()?,
                Waited::Deadline => return Err(BlockClientError::TimedOut),
            }
        }
        queue.poll()?.ok_or(BlockClientError::TimedOut)
    }

    /// Goes on with another back-end of the same disk after this one has gone: what was in flight is done once more, and
    /// completions that were not taken yet are still there.
    ///
    /// # Errors
    /// [`OtherDevice`](BlockClientError::OtherDevice), or what else is wrong with the new back-end; then another one may
    /// be tried.
    pub fn reconnect(&mut self, mut frontend: Frontend) -> Result<(), BlockClientError> {
        let (agreed, limits) = agree(&mut frontend, &self.options)?;
        if agreed.acknowledged != self.agreed.acknowledged {
            return Err(BlockClientError::OtherDevice);
        }
        self.frontend = frontend;
        (self.agreed, self.limits) = (agreed, limits);
        for queue in &mut self.queues {
            queue.collect()?;
            queue.ring.rebuild()?;
        }
        self.bring_up()
    }

    /// Stops the queues; the connection. What is in flight is lost.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn stop(mut self) -> Result<Frontend, BlockClientError> {
        self.frontend.tear_down()?;
        Ok(self.frontend)
    }

    fn bring_up(&mut self) -> Result<(), BlockClientError> {
        let by_guest_address = self.agreed.protocol.contains(ProtocolFeatures::GPA_ADDRESSES);
        let addresses = |queue: &BlockQueue| -> VringAddresses {
            if by_guest_address { queue.ring.guest_addresses() } else { queue.ring.user_addresses() }
        };
        let mut region = *self.memory.region();
        if by_guest_address {
            region.user_address.0 = region.guest_address.0;
        }
        let rings: Vec<_> = self.queues.iter().map(|queue| queue.setup(addresses(queue))).collect();
        let memory = [(region, self.memory.as_fd())];
        self.frontend.bring_up(&DeviceSetup { memory: &memory, rings: &rings, inflight: None })?;
        // What is in flight from before waits in rings that are new to the back-end (vhost-user, section "Ring states").
        self.queues.iter().try_for_each(BlockQueue::signal)
    }
}

/// What both sides can, and what the disk tells of itself.
fn agree(frontend: &mut Frontend, options: &BlockClientOptions) -> Result<(Negotiated, BlockLimits), BlockClientError> {
    let protocol = options.protocol | ProtocolFeatures::CONFIG;
    let agreed = frontend.negotiate(options.features, protocol)?;
    let mut config = [0; CONFIG_SIZE];
    let found = match frontend.get_config(0, &mut config, Config::WRITABLE) {
        Ok(found) => found,
        Err(FrontendError::Refused { .. }) => 0,
        Err(error) => return Err(error.into()),
    };
    if found < CONFIG_SIZE {
        return Err(BlockClientError::NoConfig { found });
    }
    let limits = BlockLimits::new(&config, agreed.acknowledged);
    let mut queues = u64::from(limits.queues);
    if agreed.protocol.contains(ProtocolFeatures::MQ) {
        queues = queues.min(frontend.get_queue_num()?);
    }
    if options.queues == 0 || u64::from(options.queues) > queues {
        return Err(BlockClientError::TooFewQueues { wanted: options.queues, found: queues });
    }
    Ok((agreed, limits))
}
