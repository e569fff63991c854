//! A back-end and a front-end in loops around `epoll`, with whatever else the program waits for.
//!
//! The back-end, its rings included, runs on the main thread. The front-end has the only other one, because its calls wait
//! for answers of the back-end.

#[path = "event_loop/vmm.rs"]
mod vmm;

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    thread,
};

use rustix::{
    buffer::spare_capacity,
    event::epoll,
    io::{Errno, retry_on_intr},
};
use vhost_std::{
    server::{DeviceNotifier, Progress},
    socket::Socket,
};
use vmm::{Result, Vmm};

fn main() -> Result<()> {
    let (near, far) = Socket::pair()?;
    let mut server = vmm::disk()?;
    let notifier = server.notifier();
    let vmm = thread::spawn(move || run_vmm(near, notifier));

    let waiting = Waiting::new()?;
    let mut connection = server.connect(far);
    while connection.process()? != Progress::Closed {
        waiting.wait(connection.descriptors())?;
    }
    vmm.join().map_err(|_| "the VMM panicked")?
}

fn run_vmm(socket: Socket, notifier: DeviceNotifier) -> Result<()> {
    let waiting = Waiting::new()?;
    let mut vmm = Vmm::start(socket, notifier)?;
    while vmm.process()? == vmm::Progress::Working {
        waiting.wait(vmm.descriptors())?;
    }
    Ok(())
}

struct Waiting(OwnedFd);

impl Waiting {
    fn new() -> Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Waits until one of them is readable.
    ///
    /// Which descriptors there are changes with what the peer sends: one that is there already is no fault, and one that is
    /// closed leaves the set by itself.
    fn wait<'f>(&self, descriptors: impl IntoIterator<Item = BorrowedFd<'f>>) -> Result<()> {
        for descriptor in descriptors {
            match epoll::add(&self.0, descriptor, epoll::EventData::new_u64(0), epoll::EventFlags::IN) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Level-triggered: what is left over is reported again. Which of them it was is not asked here.
        let mut events = Vec::with_capacity(4);
        retry_on_intr(|| epoll::wait(&self.0, spare_capacity(&mut events), None))?;
        Ok(())
    }
}
