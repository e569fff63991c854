//! Doorbells of hardware in the guest (`VRING_HOST_NOTIFIER_MSG`): pages that a back-end lends, one a ring, which the guest
//! writes to in the place of a kick.

use core::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};

use vhost_core::{CacheAccess, wire::vring::VringArea};

use crate::{
    frontend::{BackendRequestHandlerMut, Refusal},
    shared_memory::{Kinds, MapRules, Reservation, SharedWindow, WindowError},
};

/// The doorbells that a back-end has lent: a page of address space for each ring, in which the doorbell is while it is lent.
///
/// A VMM maps the page of a ring to where the guest notifies that ring. The doorbell goes when the ring is stopped, see
/// [`remove`](Self::remove); the back-end lends it again when the ring has started. It is a handler of this one request, to
/// which a VMM's own handler hands it on.
///
/// ```
/// use vhost_std::host_notifiers::HostNotifiers;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let mut notifiers = HostNotifiers::new(2)?;
/// assert!(notifiers.page(0).is_none(), "nothing was lent yet");
/// notifiers.remove(1)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HostNotifiers {
    window: SharedWindow,
    page: u64,
}

impl HostNotifiers {
    /// Room for the doorbells of so many rings, at least one.
    ///
    /// # Errors
    /// The errno of `mmap`.
    pub fn new(rings: u16) -> Result<Self, WindowError> {
        let page = rustix::param::page_size();
        let reservation = Reservation::new(page.saturating_mul(rings.into()))?;
        let window = SharedWindow::new(reservation, MapRules::Replacing).with_kinds(Kinds::FilesAndDevices);
        Ok(Self { window, page: page as u64 })
    }

    /// The page of a ring's doorbell in this process; `None` while there is none. It is the same one each time.
    #[must_use]
    pub fn page(&self, ring: u8) -> Option<*mut c_void> {
        let offset = self.offset(ring);
        let is_there = self.window.mappings().any(|mapped| mapped.offset == offset);
        let offset = usize::try_from(offset).ok().filter(|_| is_there)?;
        Some(self.window.reservation().start().wrapping_byte_add(offset))
    }

    /// Takes a ring's doorbell away, if it has one: to be done when the ring is stopped, and whatever the back-end says.
    ///
    /// # Errors
    /// [`OutOfBounds`](WindowError::OutOfBounds) for a ring that there is no room for, or the errno of `mmap`.
    pub fn remove(&mut self, ring: u8) -> Result<(), WindowError> {
        self.window.unmap(self.offset(ring), self.page)
    }

    /// Takes all doorbells away: for when the device is reset or its back-end goes.
    ///
    /// # Errors
    /// The errno of `mmap`.
    pub fn remove_all(&mut self) -> Result<(), WindowError> {
        self.window.unmap_all()
    }

    fn offset(&self, ring: u8) -> u64 {
        self.page.saturating_mul(ring.into())
    }

    fn lend(&mut self, ring: u8, area: VringArea, descriptor: &OwnedFd) -> Result<(), WindowError> {
        // Doorbells that share a page with something else cannot be lent (specification, "VRING_HOST_NOTIFIER_MSG").
        if area.size() != self.page {
            return Err(WindowError::Misaligned { found: area.size(), page: self.page });
        }
        let access = CacheAccess::READ | CacheAccess::WRITE;
        self.window.map(self.offset(ring), self.page, descriptor.as_fd(), area.offset(), access)
    }
}

impl BackendRequestHandlerMut for HostNotifiers {
    fn host_notifier(&mut self, ring: u8, area: VringArea, descriptor: Option<OwnedFd>) -> Result<(), Refusal> {
        match descriptor {
            Some(descriptor) => self.lend(ring, area, &descriptor)?,
            None => self.remove(ring)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    const PAGE: u64 = 0x1000;

    /// A file of two pages, the second of which stands for a doorbell.
    fn device() -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; PAGE as usize], PAGE).unwrap();
        file
    }

    fn lend(notifiers: &mut HostNotifiers, ring: u8, size: u64, offset: u64, file: &File) -> Result<(), Refusal> {
        let area = VringArea::new(ring.into(), size, offset);
        notifiers.host_notifier(ring, area, Some(file.try_clone().unwrap().into()))
    }

    #[test]
    fn a_doorbell_is_the_page_of_the_device_until_it_is_taken_away() {
        let mut notifiers = HostNotifiers::new(3).unwrap();
        let file = device();
        lend(&mut notifiers, 2, PAGE, PAGE, &file).unwrap();
        assert!([0, 1].iter().all(|ring| notifiers.page(*ring).is_none()));
        let page = notifiers.page(2).unwrap();
        assert_eq!(page.addr(), notifiers.window.reservation().start().addr() + 2 * PAGE as usize);
        // What the guest writes there is written to the device.
        notifiers.window.write(2 * PAGE + 8, &[99]).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, PAGE + 8).unwrap();
        assert_eq!(byte, [99]);
        // Another one in its place, and then none.
        lend(&mut notifiers, 2, PAGE, 0, &file).unwrap();
        assert_eq!(notifiers.page(2), Some(page));
        let gone = VringArea::new(2 | 1 << 8, 0, 0);
        notifiers.host_notifier(2, gone, None).unwrap();
        assert!(notifiers.page(2).is_none());
        notifiers.host_notifier(2, gone, None).unwrap();
        lend(&mut notifiers, 1, PAGE, PAGE, &file).unwrap();
        notifiers.remove_all().unwrap();
        assert!(notifiers.page(1).is_none());
    }

    #[test]
    fn what_is_no_page_of_a_mappable_descriptor_is_refused() {
        let mut notifiers = HostNotifiers::new(2).unwrap();
        let file = device();
        for (ring, size, offset) in
            [(0, 0, 0), (0, 2 * PAGE, 0), (0, 1, 0), (0, u64::MAX, 0), (0, PAGE, 1), (2, PAGE, 0), (255, PAGE, 0)]
        {
            lend(&mut notifiers, ring, size, offset, &file).unwrap_err();
        }
        let pipe = OwnedFd::from(std::io::pipe().unwrap().0);
        notifiers.host_notifier(0, VringArea::new(0, PAGE, 0), Some(pipe)).unwrap_err();
        assert!((0..=255).all(|ring| notifiers.page(ring).is_none()));
        notifiers.remove(2).unwrap_err();
        // A device of characters can have doorbells.
        let zero = OwnedFd::from(File::options().read(true).write(true).open("/dev/zero").unwrap());
        notifiers.host_notifier(0, VringArea::new(0, PAGE, 0), Some(zero)).unwrap();
        assert!(notifiers.page(0).is_some());
    }
}
