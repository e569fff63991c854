//! Threads that serve rings, for those who want threads: a [`Worker`] does nothing but take turns on a [`RingLoop`].

mod busy_poll;
mod ring_loop;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_busy_poll;
#[cfg(test)]
mod tests_company;
#[cfg(test)]
mod tests_wake;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub use self::ring_loop::{RingLoop, RingWaker};
use crate::poller::WatchError;
use crate::system_error::SystemError;

/// A thread that serves the rings of one [`RingLoop`]. Dropping it stops and joins the thread.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), SystemError>>>,
}

#[derive(Debug)]
struct Shared {
    rings: RingLoop,
    stop: AtomicBool,
}

impl Worker {
    /// Starts a thread called `name` that serves `rings`; more may be added while it runs.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(name: &str, rings: RingLoop) -> Result<Self, WorkerError> {
        let shared = Arc::new(Shared { rings, stop: AtomicBool::new(false) });
        let of_thread = Arc::clone(&shared);
        let run = move || {
            while !of_thread.stop.load(Ordering::Acquire) {
                // What is left is due in the next turn, without a wait.
                of_thread.rings.step(&of_thread.stop)?;
            }
            Ok(())
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|error| WorkerError::Spawn(SystemError { call: "clone", errno: errno_of(&error) }))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The rings it serves.
    #[must_use]
    pub fn rings(&self) -> &RingLoop {
        &self.shared.rings
    }

    /// False after the thread ended by itself: its device panicked or the system failed it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread after the batch under way, and waits for that.
    ///
    /// # Errors
    /// When the thread had ended by itself.
    pub fn stop(mut self) -> Result<(), WorkerError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), WorkerError> {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.rings.wake();
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        // A device may own the last handle of its own worker; a thread cannot wait for itself.
        if thread.thread().id() == thread::current().id() {
            return Ok(());
        }
        match thread.join() {
            Ok(result) => result.map_err(WorkerError::Failed),
            Err(_) => Err(WorkerError::Panicked),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nobody is left to hear how the thread ended.
        let _ = self.end();
    }
}

fn errno_of(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::AGAIN)
}

/// A worker could not start, or ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerError {
    /// The system gives no thread.
    Spawn(SystemError),
    /// A ring cannot be watched.
    Watch(WatchError),
    /// A system call of the loop failed.
    Failed(SystemError),
    /// The device panicked.
    Panicked,
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "no thread for the worker: {error}"),
            Self::Watch(error) => write!(f, "a ring cannot be watched: {error}"),
            Self::Failed(error) => write!(f, "the worker ended: {error}"),
            Self::Panicked => f.write_str("the worker ended: its device panicked"),
        }
    }
}

impl core::error::Error for WorkerError {}
