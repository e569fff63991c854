//! An entropy source: the shortest device that is of use.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vhost_std::{
//!     entropy::EntropyDevice,
//!     eventfd::EventFd,
//!     server::{BackendServer, ServerOptions},
//!     socket::Listener,
//! };
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let device = EntropyDevice::open("/dev/urandom".as_ref())?;
//! let mut server = BackendServer::new(Arc::new(device), ServerOptions::default())?;
//! let stop = EventFd::new()?; // whoever signals it ends the service
//! server.listen(&Listener::bind("entropy.sock")?, &stop, |end| println!("{end:?}"))?;
//! # Ok(())
//! # }
//! ```

use core::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

use crate::device::{Device, Queue};
use crate::{file_kind, guest_io};

/// The virtio device type of an entropy source.
const DEVICE_ID: u32 = 4;

/// Bytes for one request. The driver asks again for more (specification, 5.4.6), so that nobody waits long for others.
const MOST: u64 = 64 << 10;

/// A virtio entropy source: it fills the driver's buffers from a character device.
#[derive(Debug)]
pub struct EntropyDevice {
    source: OwnedFd,
}

impl EntropyDevice {
    /// Takes the bytes from the character device at `path`, normally `/dev/urandom`. One that makes readers wait for
    /// entropy makes its queue wait too, and whoever wants to stop it.
    ///
    /// # Errors
    /// When it cannot be opened, or is something else: a file always begins with the same bytes.
    pub fn open(path: &Path) -> Result<Self, EntropyError> {
        let failed = |errno| EntropyError::Open { path: path.to_owned(), errno };
        let source = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        let kind = FileType::from_raw_mode(fstat(&source).map_err(failed)?.st_mode);
        if kind != FileType::CharacterDevice {
            return Err(EntropyError::NotASource { path: path.to_owned(), found: file_kind::name_of(kind) });
        }
        Ok(Self { source })
    }
}

impl Device for EntropyDevice {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            let room = chain.writable();
            let target = room.split_front(room.len().min(MOST)).map_or(room, |(front, _)| front);
            // A source that fails gives nothing; the driver asks again when it needs some.
            let filled = guest_io::read_at(self.source.as_fd(), 0, target).unwrap_or(0);
            queue.complete(chain, u32::try_from(filled).unwrap_or(u32::MAX));
        }
    }
}

/// Something that is no source of entropy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntropyError {
    /// It cannot be opened.
    Open {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        errno: Errno,
    },
    /// It is no character device.
    NotASource {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
}

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, errno } => write!(f, "{}: {errno}", path.display()),
            Self::NotASource { path, found } => {
                write!(f, "{}: a character device was expected, got {found}", path.display())
            }
        }
    }
}

impl core::error::Error for EntropyError {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::vring::Turn;
    use crate::vring::test_ring::{BUFFERS, TestRing, WRITE};

    fn device() -> EntropyDevice {
        EntropyDevice::open("/dev/urandom".as_ref()).unwrap()
    }

    #[test]
    fn buffers_are_filled_up_to_a_bound() {
        let device: Arc<dyn Device> = Arc::new(device());
        let ring = TestRing::new(8);
        let most = u32::try_from(MOST).unwrap();
        for (head, length) in [(0, 64), (1, most), (2, most + 1)] {
            ring.descriptor(head, (BUFFERS, length), WRITE, 0);
            ring.offer(head);
        }
        // Nothing to write to.
        ring.descriptor(3, (BUFFERS, 64), 0, 0);
        ring.offer(3);
        assert_eq!(ring.running().process(&*device), Ok(Turn::Idle));
        assert_eq!(ring.all_used(), [(0, 64), (1, most), (2, most), (3, 0)]);
    }

    #[test]
    fn no_two_requests_get_the_same() {
        let (device, ring) = (device(), TestRing::new(2));
        let mut vring = ring.running();
        let mut seen = Vec::new();
        for _ in 0..4 {
            ring.write(BUFFERS, &[0; 32]);
            ring.descriptor(0, (BUFFERS, 32), WRITE, 0);
            ring.offer(0);
            assert_eq!(vring.process(&device), Ok(Turn::Idle));
            let bytes = ring.read(BUFFERS, 32);
            assert!(!seen.contains(&bytes) && bytes != [0; 32]);
            seen.push(bytes);
        }
    }

    #[test]
    fn only_a_character_device_is_a_source() {
        let folder = tempfile::tempdir().unwrap();
        let error = EntropyDevice::open(folder.path()).unwrap_err();
        assert!(matches!(error, EntropyError::NotASource { found: "a directory", .. }), "{error}");
        let missing = folder.path().join("missing");
        let error = EntropyDevice::open(&missing).unwrap_err();
        assert_eq!(error, EntropyError::Open { path: missing, errno: Errno::NOENT });
    }
}
