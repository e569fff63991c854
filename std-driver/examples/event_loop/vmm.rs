//! What all three examples of event loops have in common: a disk, and a VMM that uses it. Nothing here waits, but for
//! [`Vmm::start`], and nothing starts a thread.

use core::{error::Error, time::Duration};
use std::{os::fd::AsFd, os::fd::BorrowedFd, sync::Arc};

use vhost_core::ProtocolFeatures;
use vhost_std::{
    block::{BlockDevice, BlockOptions},
    deadline::Deadline,
    driver::{BlockClient, BlockClientOptions, BlockQueue, BlockRequest, BlockStatus},
    frontend::{BackendChannel, BackendRequestHandlerMut, Frontend, Refusal},
    server::{BackendServer, DeviceNotifier, RingThreads, ServerOptions},
    socket::Socket,
};

pub(crate) type Result<T> = core::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How many sectors are written and read.
const SECTORS: u64 = 100;

/// A disk whose rings are processed by whoever calls `Connection::process`.
pub(crate) fn disk() -> Result<BackendServer> {
    let image = tempfile::tempfile()?;
    image.set_len(1 << 20)?;
    let device = BlockDevice::from_fd(image.into(), &BlockOptions::default())?;
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Caller;
    Ok(BackendServer::new(Arc::new(device), options)?)
}

/// A VMM that writes to its disk, reads it back, and at last hears that the disk's configuration has changed.
pub(crate) struct Vmm {
    client: BlockClient,
    channel: BackendChannel,
    notifier: DeviceNotifier,
    heard: Heard,
    step: u64,
}

/// Whether the VMM goes on.
#[derive(PartialEq, Eq)]
pub(crate) enum Progress {
    Working,
    Done,
}

/// What the back-end told by itself.
#[derive(Default)]
struct Heard {
    config_changes: u32,
}

impl BackendRequestHandlerMut for Heard {
    fn config_changed(&mut self) -> core::result::Result<(), Refusal> {
        self.config_changes += 1;
        Ok(())
    }
}

impl Vmm {
    /// Starts the disk. These calls wait for the back-end's answers, so they have a thread of their own in every loop.
    pub(crate) fn start(socket: Socket, notifier: DeviceNotifier) -> Result<Self> {
        let mut frontend = Frontend::from_socket(socket);
        frontend.set_timeout(Some(Duration::from_secs(10)));
        let mut options = BlockClientOptions::default();
        options.protocol |= ProtocolFeatures::BACKEND_REQ;
        let mut client = BlockClient::start(frontend, options)?;
        let channel = client.frontend_mut().set_backend_req_fd()?;
        let mut vmm = Self { client, channel, notifier, heard: Heard::default(), step: 0 };
        vmm.next()?;
        Ok(vmm)
    }

    /// What to wait for: the disk's queue, its own requests, and the end of the connection.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.client.frontend().as_fd(), self.client.queues()[0].as_fd(), self.channel.as_fd()]
    }

    /// Does what can be done now.
    pub(crate) fn process(&mut self) -> Result<Progress> {
        self.client.frontend_mut().process()?;
        let _ = self.channel.process(&mut self.heard)?;
        while let Some(sector) = self.completed()? {
            if let Some(sector) = sector {
                let expected = [u8::try_from(self.step / 2)?; 512];
                assert!(sector == expected, "sector {} is wrong", self.step / 2);
            }
            self.step += 1;
            match self.step {
                step if step < 2 * SECTORS => self.next()?,
                // Somebody changes the disk; here the same program, in life its owner.
                _ => self.notifier.config_changed()?,
            }
        }
        Ok(if self.heard.config_changes > 0 { Progress::Done } else { Progress::Working })
    }

    /// Each sector is written, then read.
    fn next(&mut self) -> Result<()> {
        let sector = self.step / 2;
        let data = [u8::try_from(sector)?; 512];
        let request = match self.step % 2 {
            0 => BlockRequest::Write { sector, data: &data },
            _ => BlockRequest::Read { sector, length: 512 },
        };
        let queue = self.queue();
        queue.submit(request)?;
        Ok(queue.publish()?)
    }

    /// The end of a request, with what was read.
    fn completed(&mut self) -> Result<Option<Option<[u8; 512]>>> {
        let reads = self.step % 2 == 1;
        // With a deadline that has passed, a wait takes what is there and asks to be called for what is not.
        let Some(completion) = self.queue().wait(Deadline::after(Duration::ZERO))? else { return Ok(None) };
        assert!(completion.status() == BlockStatus::Ok);
        let mut data = [0; 512];
        if reads {
            completion.read(&mut data)?;
        }
        Ok(Some(reads.then_some(data)))
    }

    fn queue(&mut self) -> &mut BlockQueue {
        &mut self.client.queues_mut()[0]
    }
}
