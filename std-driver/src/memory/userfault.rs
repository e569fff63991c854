//! Page faults of this process that another one serves: postcopy migration.
//!
//! The system call and the two ioctls of userfaultfd (linux/userfaultfd.h) are `unsafe`, in this file.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use super::MappedRegion;
use crate::system_error::SystemError;

/// `UFFD_API`: the only version there is.
const API_VERSION: u64 = 0xaa;

/// `struct uffdio_api`
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`
#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_range`
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
}

/// `UFFDIO_REGISTER_MODE_MISSING`: faults on pages that are not there.
const MODE_MISSING: u64 = 1;

const API: Opcode = opcode::read_write::<Api>(0xaa, 0x3f);
const REGISTER: Opcode = opcode::read_write::<Register>(0xaa, 0);
const UNREGISTER: Opcode = opcode::read::<Range>(0xaa, 1);

/// A userfaultfd: whoever touches a missing page of memory that was registered with it waits until whoever else has the
/// descriptor provides the page. When this is dropped memory is released, and waiting threads go on, with zeros where
/// nothing came, whether somebody else keeps the descriptor open or not.
#[derive(Debug)]
pub(crate) struct Userfault {
    descriptor: OwnedFd,
    /// What was registered; what is not there any more has no pages.
    registered: Vec<Weak<MappedRegion>>,
}

impl Userfault {
    /// A descriptor without memory.
    ///
    /// # Errors
    /// The errno of `userfaultfd`, `EPERM` for example where only the administrator may have one, or of its ioctl.
    pub(crate) fn new() -> Result<Self, SystemError> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: a new descriptor by itself does nothing to memory; what is registered with it is the matter of `register`.
        let descriptor = unsafe { userfaultfd(flags) }.map_err(SystemError::of("userfaultfd"))?;
        let mut api = Api { api: API_VERSION, features: 0, ioctls: 0 };
        // SAFETY: the ioctl reads and writes one `struct uffdio_api`, which `Api` is, field by field.
        let request = unsafe { Updater::<API, Api>::new(&mut api) };
        // SAFETY: UFFDIO_API does nothing but compare versions; the descriptor is a userfaultfd.
        unsafe { ioctl(&descriptor, request) }.map_err(SystemError::of("UFFDIO_API"))?;
        Ok(Self { descriptor, registered: Vec::new() })
    }

    /// Has faults in `region` served through this descriptor, until this is dropped.
    ///
    /// # Errors
    /// The errno of the ioctl.
    pub(crate) fn register(&mut self, region: &Arc<MappedRegion>) -> Result<(), SystemError> {
        let (start, length) = region.pages();
        let mut register = Register { start: start as u64, length: length as u64, mode: MODE_MISSING, ioctls: 0 };
        // SAFETY: the ioctl reads and writes one `struct uffdio_register`, which `Register` is, field by field.
        let request = unsafe { Updater::<REGISTER, Register>::new(&mut register) };
        // SAFETY: the range is a whole mapping of our own, of a file that others change at any time, to which no Rust
        // reference exists. A page that is missing is provided later instead of at once; nothing else changes.
        unsafe { ioctl(&self.descriptor, request) }.map_err(SystemError::of("UFFDIO_REGISTER"))?;
        self.registered.retain(|region| region.strong_count() > 0);
        self.registered.push(Arc::downgrade(region));
        Ok(())
    }

    /// Takes the region back, and wakes whoever waits for a page of it.
    fn unregister(&self, region: &MappedRegion) -> Result<(), SystemError> {
        let (start, length) = region.pages();
        let mut range = Range { start: start as u64, length: length as u64 };
        // SAFETY: the ioctl reads one `struct uffdio_range`, which `Range` is, field by field.
        let request = unsafe { Updater::<UNREGISTER, Range>::new(&mut range) };
        // SAFETY: the range is a whole mapping that `region` keeps; whoever touches a missing page of it has zeros, as of any
        // other file.
        unsafe { ioctl(&self.descriptor, request) }.map_err(SystemError::of("UFFDIO_UNREGISTER"))
    }
}

impl Drop for Userfault {
    fn drop(&mut self) {
        for region in self.registered.iter().filter_map(Weak::upgrade) {
            // It fails only for what is not registered.
            let _ = self.unregister(&region);
        }
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
