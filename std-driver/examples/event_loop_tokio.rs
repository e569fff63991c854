//! A back-end and a front-end as tasks of one tokio runtime, on one thread.
//!
//! The only other thread makes the front-end's calls, which wait for answers of the back-end, and ends after them.

#[path = "event_loop/vmm.rs"]
mod vmm;

use core::{future::poll_fn, task::Poll};
use std::os::fd::BorrowedFd;

use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Builder,
    task::{LocalSet, spawn_blocking, spawn_local},
};
use vhost_std::{
    server::{Connection, DeviceNotifier, Progress},
    socket::Socket,
};
use vmm::{Result, Vmm};

fn main() -> Result<()> {
    let (near, far) = Socket::pair()?;
    let mut server = vmm::disk()?;
    let notifier = server.notifier();
    let runtime = Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let vmm = spawn_local(run_vmm(near, notifier));
        serve(server.connect(far)).await?;
        vmm.await?
    })
}

async fn serve(mut connection: Connection<'_>) -> Result<()> {
    while connection.process()? != Progress::Closed {
        readable(connection.descriptors()).await?;
    }
    Ok(())
}

async fn run_vmm(socket: Socket, notifier: DeviceNotifier) -> Result<()> {
    let mut vmm = spawn_blocking(move || Vmm::start(socket, notifier)).await??;
    while vmm.process()? == vmm::Progress::Working {
        readable(vmm.descriptors()).await?;
    }
    Ok(())
}

/// Waits until one of them is readable. They are registered anew each time, as they change with what the peer sends.
async fn readable<'f>(descriptors: impl IntoIterator<Item = BorrowedFd<'f>>) -> Result<()> {
    let watch = |descriptor: BorrowedFd<'f>| {
        // SAFETY: needed is a descriptor that stays open and means the same file for as long as it is registered. A borrowed
        // one does so during its lifetime, and the `AsyncFd` that owns it and ends the registration cannot live longer.
        unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
    };
    let watched = descriptors.into_iter().map(watch).collect::<core::result::Result<Vec<_>, _>>();
    let watched = watched.map_err(std::io::Error::from)?;
    poll_fn(|context| {
        let ready = watched.iter().any(|descriptor| descriptor.poll_read_ready(context).is_ready());
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(())
}
