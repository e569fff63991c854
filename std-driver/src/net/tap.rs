//! A queue of a tap interface.
#![allow(unsafe_code, reason = "the kernel sets these up by ioctls")]

use core::ffi::{c_int, c_short, c_uint};
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::config::feature;
use super::{HEADER, MAX_PAIRS, NetError};
use crate::system_error::SystemError;

/// A queue of a tap interface, whose frames have virtio's own header.
#[derive(Debug)]
pub(super) struct Tap {
    descriptor: OwnedFd,
    /// One of several, which can be taken out of use.
    is_one_of_many: bool,
    /// Whether the kernel gives it frames.
    attached: AtomicBool,
}

/// Bytes of `struct ifreq` behind name and flags.
const REST: usize = size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<c_short>();

/// `struct ifreq` with the flags of `TUNSETIFF` and `TUNSETQUEUE`.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: c_short,
    rest: [u8; REST],
}

// The kernel copies as many bytes in and out.
const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

impl InterfaceRequest {
    fn new(name: [u8; libc::IFNAMSIZ], flags: c_int) -> Self {
        Self { name, flags: flags as c_short, rest: [0; REST] }
    }
}

impl Tap {
    /// Opens so many queues of the interface `name`.
    pub(super) fn open(name: &str, queues: u16) -> Result<Vec<Self>, NetError> {
        let mut bytes = [0; libc::IFNAMSIZ];
        // The name ends with a zero.
        if name.is_empty() || name.len() >= bytes.len() || name.contains('\0') {
            return Err(NetError::Name { found: name.to_owned() });
        }
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        if queues == 0 || usize::from(queues) > MAX_PAIRS {
            return Err(NetError::Pairs { found: queues.into(), most: MAX_PAIRS });
        }
        (0..queues).map(|_| Self::open_queue(bytes, queues > 1).map_err(NetError::from)).collect()
    }

    fn open_queue(name: [u8; libc::IFNAMSIZ], is_one_of_many: bool) -> Result<Self, SystemError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = open("/dev/net/tun", flags, Mode::empty()).map_err(SystemError::of("open"))?;
        let many = if is_one_of_many { libc::IFF_MULTI_QUEUE } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | many;
        let tap = Self { descriptor, is_one_of_many, attached: AtomicBool::new(true) };
        tap.request(libc::TUNSETIFF, InterfaceRequest::new(name, flags)).map_err(SystemError::of("TUNSETIFF"))?;
        tap.set(libc::TUNSETVNETHDRSZ, HEADER as c_int).map_err(SystemError::of("TUNSETVNETHDRSZ"))?;
        tap.set(libc::TUNSETVNETLE, 1).map_err(SystemError::of("TUNSETVNETLE"))?;
        tap.set_offloads(0);
        Ok(tap)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Has the kernel leave checksums, and the cutting into frames, to a driver that acknowledged that it can do them.
    pub(super) fn set_offloads(&self, acknowledged: u64) {
        let bits = [
            (feature::GUEST_CSUM, libc::TUN_F_CSUM),
            (feature::GUEST_TSO4, libc::TUN_F_TSO4),
            (feature::GUEST_TSO6, libc::TUN_F_TSO6),
        ];
        // Nothing can be cut without its checksums being made.
        let acknowledged = if acknowledged & feature::GUEST_CSUM == 0 { 0 } else { acknowledged };
        let offloads: c_uint =
            bits.iter().filter(|(bit, _)| acknowledged & bit != 0).fold(0, |all, (_, offload)| all | offload);
        // SAFETY: this ioctl takes a number and no address, so the kernel reads and writes no memory of ours. The
        // descriptor is borrowed and open during the call.
        let outcome = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
        // Every kernel with these names knows them.
        debug_assert!(outcome == 0, "TUNSETOFFLOAD {offloads:#x}");
    }

    /// The kernel gives it frames from now on.
    pub(super) fn attach(&self) {
        self.use_queue(true, libc::IFF_ATTACH_QUEUE);
    }

    /// The kernel gives its frames to the other queues.
    pub(super) fn detach(&self) {
        self.use_queue(false, libc::IFF_DETACH_QUEUE);
    }

    fn use_queue(&self, attached: bool, flags: c_int) {
        if self.is_one_of_many && self.attached.swap(attached, Ordering::Relaxed) != attached {
            // It can only fail after somebody removed the interface; then no frames come or go, as on any broken link.
            let _ = self.request(libc::TUNSETQUEUE, InterfaceRequest::new([0; libc::IFNAMSIZ], flags));
        }
    }

    fn request(&self, operation: libc::Ioctl, request: InterfaceRequest) -> Result<(), Errno> {
        let mut request = request;
        // SAFETY: both operations that come here read and write one `struct ifreq`, and `request` is as large as that and
        // lives during the call. Every bit pattern is a valid `InterfaceRequest`. The descriptor is borrowed and open.
        let outcome = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), operation, &raw mut request) };
        checked(outcome)
    }

    fn set(&self, operation: libc::Ioctl, number: c_int) -> Result<(), Errno> {
        // SAFETY: both operations that come here read one `int`, and `number` is one and lives during the call. The
        // descriptor is borrowed and open.
        let outcome = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), operation, &raw const number) };
        checked(outcome)
    }
}

fn checked(outcome: c_int) -> Result<(), Errno> {
    if outcome < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}
