//! One connection after another: on the caller's thread, or on a thread of its own.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{BackendServer, End, ServeError};
use crate::{
    eventfd::EventFd,
    socket::{Listener, SocketError},
    system_error::SystemError,
};

impl BackendServer {
    /// Accepts front-ends one after another and serves each until it closes its connection; ends
    /// when `stop` becomes readable. `ended` hears how each connection ended; an error of one
    /// connection does not keep the next from being served.
    ///
    /// # Errors
    /// When accepting or waiting fails.
    pub fn listen(
        &mut self,
        listener: &Listener,
        stop: impl AsFd,
        mut ended: impl FnMut(Result<End, ServeError>),
    ) -> Result<(), SocketError> {
        loop {
            let Some(socket) = listener.try_accept()? else {
                if wait_for(listener.as_fd(), stop.as_fd())? == Wake::Stop {
                    return Ok(());
                }
                continue;
            };
            let end = self.connect(socket).run(&stop);
            let stopped = end == Ok(End::Stopped);
            ended(end);
            if stopped {
                return Ok(());
            }
        }
    }

    /// Does what [`listen`](Self::listen) does, on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread or descriptor.
    pub fn spawn(mut self, listener: Listener) -> Result<ServerThread, SystemError> {
        let stop = Arc::new(EventFd::new()?);
        let of_thread = Arc::clone(&stop);
        let run = move || self.listen(&listener, of_thread.as_fd(), drop);
        let thread = thread::Builder::new().name("vhost-user".to_owned()).spawn(run).map_err(|error| SystemError {
            call: "clone",
            errno: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::AGAIN),
        })?;
        Ok(ServerThread { stop, thread: Some(thread) })
    }
}

/// A device served on a thread of its own. Dropping it ends the service and waits for that.
#[derive(Debug)]
pub struct ServerThread {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<Result<(), SocketError>>>,
}

impl ServerThread {
    /// Ends the service, whatever the front-end does.
    ///
    /// # Errors
    /// When the service had ended by itself, with its reason.
    pub fn stop(mut self) -> Result<(), SocketError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), SocketError> {
        self.stop.signal()?;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // A panic of the device has been reported where it happened.
            Some(Err(_)) | None => Ok(()),
        }
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

#[derive(PartialEq, Eq)]
enum Wake {
    Connection,
    Stop,
}

fn wait_for(listener: BorrowedFd<'_>, stop: BorrowedFd<'_>) -> Result<Wake, SystemError> {
    let mut waiting =
        [PollFd::from_borrowed_fd(listener, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut waiting, None)).map_err(SystemError::of("poll"))?;
    let [_, stop] = &waiting;
    Ok(if stop.revents().is_empty() { Wake::Connection } else { Wake::Stop })
}
