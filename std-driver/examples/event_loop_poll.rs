//! A back-end and a front-end in loops around `poll`: ask for the descriptors, wait for one, call `process`.
//!
//! The back-end, its rings included, runs on the main thread. The front-end has the only other one, because its calls wait
//! for answers of the back-end.

#[path = "event_loop/vmm.rs"]
mod vmm;

use std::{os::fd::BorrowedFd, thread};

use rustix::event::{PollFd, PollFlags, poll};
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

    let mut connection = server.connect(far);
    while connection.process()? != Progress::Closed {
        wait(connection.descriptors())?;
    }
    vmm.join().map_err(|_| "the VMM panicked")?
}

fn run_vmm(socket: Socket, notifier: DeviceNotifier) -> Result<()> {
    let mut vmm = Vmm::start(socket, notifier)?;
    while vmm.process()? == vmm::Progress::Working {
        wait(vmm.descriptors())?;
    }
    Ok(())
}

/// Waits until one of them is readable.
fn wait<'f>(descriptors: impl IntoIterator<Item = BorrowedFd<'f>>) -> Result<()> {
    let descriptors = descriptors.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let mut polled: Vec<_> = descriptors.collect();
    rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
    Ok(())
}
