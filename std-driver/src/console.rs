//! A console: what the guest prints goes to a descriptor, what comes from one is typed into the guest.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vhost_std::{
//!     console::ConsoleDevice,
//!     eventfd::EventFd,
//!     server::{BackendServer, ServerOptions},
//!     socket::Listener,
//! };
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let (device, name) = ConsoleDevice::pseudoterminal()?;
//! println!("the guest's console is {}", name.display());
//! let mut server = BackendServer::new(Arc::new(device), ServerOptions::default())?;
//! let stop = EventFd::new()?; // whoever signals it ends the service
//! server.listen(&Listener::bind("console.sock")?, &stop, |end| println!("{end:?}"))?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here waits: a guest that does not read leaves the input where it is, and an output that takes no more leaves the
//! guest's requests in its queue.

mod output;
mod stream;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use self::output::Output;
use self::stream::Stream;
use crate::device::{Device, Queue, Readiness, WakeOn};
use crate::system_error::SystemError;

/// The virtio device type of a console.
const DEVICE_ID: u32 = 3;

/// The queue of what the driver receives, and that of what it sends.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Bytes of `struct virtio_console_config`; none of its fields counts without a feature, and there are none.
const CONFIG_SIZE: u32 = 12;

/// A virtio console of one port.
#[derive(Debug)]
pub struct ConsoleDevice {
    input: Mutex<Input>,
    output: Mutex<Output>,
    /// What to wait for. Duplicates, so that each queue has its own and nobody's lock is needed.
    readable: OwnedFd,
    writable: OwnedFd,
    /// The other end of a pseudoterminal, without which the first one hangs up each time somebody leaves.
    _peer: Option<OwnedFd>,
}

/// Where what is typed comes from.
#[derive(Debug)]
struct Input {
    stream: Stream,
    /// What was read and did not fit into the driver's buffers.
    kept: Vec<u8>,
}

impl ConsoleDevice {
    /// A console between `input` and `output`: terminals, pipes, sockets or files, and twice the same one too. They are
    /// non-blocking until the device goes. An output that nobody reads any more raises `SIGPIPE`, which Rust programs
    /// ignore.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn new(input: OwnedFd, output: OwnedFd) -> Result<Self, SystemError> {
        Self::with_peer(input, output, None)
    }

    /// A console on a new pseudoterminal, and the name of the terminal to open.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn pseudoterminal() -> Result<(Self, PathBuf), SystemError> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .map_err(SystemError::of("posix_openpt"))?;
        grantpt(&ours).map_err(SystemError::of("grantpt"))?;
        unlockpt(&ours).map_err(SystemError::of("unlockpt"))?;
        let name = ptsname(&ours, Vec::new()).map_err(SystemError::of("ptsname_r"))?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let peer = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).map_err(SystemError::of("open"))?;
        // The guest's own terminal echoes and edits; one that does so too would send it its own words.
        let mut settings = tcgetattr(&peer).map_err(SystemError::of("tcgetattr"))?;
        settings.make_raw();
        tcsetattr(&peer, OptionalActions::Now, &settings).map_err(SystemError::of("tcsetattr"))?;
        let output = duplicate(&ours)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()));
        Ok((Self::with_peer(ours, output, Some(peer))?, path))
    }

    fn with_peer(input: OwnedFd, output: OwnedFd, peer: Option<OwnedFd>) -> Result<Self, SystemError> {
        let (readable, writable) = (duplicate(&input)?, duplicate(&output)?);
        let (input, output) = Stream::pair(input, output)?;
        Ok(Self {
            input: Mutex::new(Input { stream: input, kept: Vec::new() }),
            output: Mutex::new(Output::new(output)),
            readable,
            writable,
            _peer: peer,
        })
    }

    /// Gives the driver what was typed, as far as it has buffers.
    fn receive(&self, queue: &mut Queue<'_>) {
        let mut input = lock(&self.input);
        while input.fill() {
            let Some(chain) = queue.next() else { return };
            let mut target = chain.writable();
            let count = usize::try_from(target.len()).unwrap_or(usize::MAX).min(input.kept.len());
            // It was made to fit.
            let _ = target.write(input.kept.get(..count).unwrap_or_default());
            input.kept.drain(..count);
            queue.complete(chain, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    /// Takes what the driver prints, as far as the output takes it.
    fn transmit(&self, queue: &mut Queue<'_>) {
        let mut output = lock(&self.output);
        while output.is_ready() {
            let Some(chain) = queue.next() else { return };
            output.write(chain.readable());
            queue.complete(chain, 0);
        }
    }
}

impl Input {
    /// Whether there is something for the driver.
    fn fill(&mut self) -> bool {
        if self.kept.is_empty() {
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes);
            self.kept.extend_from_slice(bytes.get(..count).unwrap_or_default());
        }
        !self.kept.is_empty()
    }
}

impl Device for ConsoleDevice {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queues(&self) -> u16 {
        2
    }

    fn process(&self, queue: &mut Queue<'_>) {
        match queue.index() {
            RECEIVE => self.receive(queue),
            _ => self.transmit(queue),
        }
    }

    fn wake_on(&self, queue: u16) -> Option<WakeOn<'_>> {
        match queue {
            RECEIVE => Some(WakeOn { descriptor: self.readable.as_fd(), when: Readiness::Readable }),
            TRANSMIT => Some(WakeOn { descriptor: self.writable.as_fd(), when: Readiness::Writable }),
            _ => None,
        }
    }

    fn config_size(&self) -> u32 {
        CONFIG_SIZE
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn duplicate(descriptor: &OwnedFd) -> Result<OwnedFd, SystemError> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, 0).map_err(|errno: Errno| SystemError { call: "fcntl", errno })
}

#[cfg(test)]
mod tests;
