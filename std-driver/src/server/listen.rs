//! One connection after another, from whoever connects or to whoever listens: on the caller's thread, or on a thread of its own.

use core::time::Duration;
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::{event::PollFlags, io::Errno};

use super::{BackendServer, End, ServeError};
use crate::{
    deadline::Deadline,
    eventfd::EventFd,
    frontend::wait::wait_for_any,
    socket::{Listener, Socket, SocketError},
    system_error::SystemError,
};

/// The first and the longest pause between two attempts at what did not work.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

impl BackendServer {
    /// Accepts front-ends one after another and serves each until it closes its connection; ends
    /// when `stop` becomes readable. `ended` hears how each connection ended; an error of one
    /// connection does not keep the next from being served.
    ///
    /// While the system has no descriptor or memory for another connection, front-ends wait for it;
    /// `ended` hears of that once.
    ///
    /// # Errors
    /// When accepting or waiting fails for another reason.
    pub fn listen(
        &mut self,
        listener: &Listener,
        stop: impl AsFd,
        mut ended: impl FnMut(Result<End, ServeError>),
    ) -> Result<(), SocketError> {
        let mut pause = None;
        loop {
            let socket = match listener.try_accept() {
                Ok(Some(socket)) => socket,
                Ok(None) => match wait_for(Some(listener.as_fd()), stop.as_fd(), Deadline::NEVER)? {
                    Wake::Stop => return Ok(()),
                    Wake::GoOn => continue,
                },
                Err(SocketError::System(error)) if is_shortage(error) => {
                    if pause.is_none() {
                        ended(Err(ServeError::System(error)));
                    }
                    if rest(&mut pause, stop.as_fd())? == Wake::Stop {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            pause = None;
            let end = self.connect(socket).run(&stop);
            let stopped = end == Ok(End::Stopped);
            ended(end);
            if stopped {
                return Ok(());
            }
        }
    }

    /// Connects to the front-end that listens at `path`, as soon as one does, and again whenever the
    /// connection has ended; ends when `stop` becomes readable. `ended` hears how each connection
    /// ended.
    ///
    /// # Errors
    /// When connecting fails for another reason than that nobody is there, or waiting fails.
    pub fn connect_again(
        &mut self,
        path: impl AsRef<Path>,
        stop: impl AsFd,
        mut ended: impl FnMut(Result<End, ServeError>),
    ) -> Result<(), SocketError> {
        let path = path.as_ref();
        let mut pause = None;
        loop {
            // A front-end that listens and takes nobody must not keep the service from ending.
            match Socket::connect(path, Deadline::after(PAUSES.1)) {
                Ok(socket) => {
                    pause = None;
                    let end = self.connect(socket).run(&stop);
                    let stopped = end == Ok(End::Stopped);
                    ended(end);
                    if stopped {
                        return Ok(());
                    }
                }
                Err(SocketError::TimedOut) => {}
                Err(SocketError::System(error)) if is_absence(error) || is_shortage(error) => {}
                Err(error) => return Err(error),
            }
            // Also after a connection: it may have been closed at once.
            if rest(&mut pause, stop.as_fd())? == Wake::Stop {
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

/// The system has no room for another connection now; that may change.
fn is_shortage(error: SystemError) -> bool {
    matches!(error.errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

/// Nobody listens now; that may change.
fn is_absence(error: SystemError) -> bool {
    matches!(error.errno, Errno::NOENT | Errno::CONNREFUSED)
}

#[derive(PartialEq, Eq)]
enum Wake {
    GoOn,
    Stop,
}

/// Lets some time pass, longer each time, unless it is time to stop.
fn rest(pause: &mut Option<Duration>, stop: BorrowedFd<'_>) -> Result<Wake, SystemError> {
    let now = pause.map_or(PAUSES.0, |last| last.saturating_mul(2).min(PAUSES.1));
    *pause = Some(now);
    wait_for(None, stop, Deadline::after(now))
}

fn wait_for(listener: Option<BorrowedFd<'_>>, stop: BorrowedFd<'_>, deadline: Deadline) -> Result<Wake, SystemError> {
    let stops = match listener {
        Some(listener) => {
            wait_for_any([(listener, PollFlags::IN), (stop, PollFlags::IN)], deadline)?.is_some_and(|[_, stop]| stop)
        }
        None => wait_for_any([(stop, PollFlags::IN)], deadline)?.is_some_and(|[stop]| stop),
    };
    Ok(if stops { Wake::Stop } else { Wake::GoOn })
}
