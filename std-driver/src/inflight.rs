//! The inflight record in shared memory: which requests a back-end has, for the one that comes after it.
//!
//! The front-end keeps the file while back-ends come and go. What is in it, and how it is written, is the matter of
//! [`vhost_core::DeviceQueue::recover`]; here are the file, its mapping, and each ring's part.
//!
//! ```
//! use vhost_core::RingLayout;
//! use vhost_std::inflight::{self, InflightRecord};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let (shape, file) = inflight::create(RingLayout::Split, 2, 128)?;
//! assert_eq!(shape.mmap_size(), 2 * 2112);
//! let record = InflightRecord::new(&shape, file)?;
//! record.check(RingLayout::Split)?;
//! assert!(record.check(RingLayout::Packed).is_err());
//! # Ok(())
//! # }
//! ```

mod error;

use std::os::fd::OwnedFd;

use rustix::fs::{SealFlags, fcntl_add_seals};
use vhost_core::wire::inflight::Inflight;
use vhost_core::{Access, DeviceQueue, GuestAddress, GuestMemory, MemoryRegion, RingLayout, UserAddress};

pub use self::error::InflightError;

use crate::memory::{MappedRegion, MemoryTable, OwnedRange, sealed};

/// The most descriptors of a ring (virtio, section "Virtqueues").
const MAX_QUEUE_SIZE: u16 = 32768;

/// What a record begins at a multiple of, so that its numbers of eight bytes are stored at once.
const ALIGNMENT: u64 = 8;

/// Makes an empty record for so many rings of one size: a file that nobody can make shorter, and where in it the record is.
///
/// # Errors
/// [`Shape`](InflightError::Shape), or [`Memory`](InflightError::Memory) when the system gives no memory.
pub fn create(layout: RingLayout, queues: u16, queue_size: u16) -> Result<(Inflight, OwnedFd), InflightError> {
    let size = needed(layout, queues, queue_size)?;
    Ok((Inflight::new(size, 0, queues, queue_size), sealed("inflight", size)?))
}

/// An inflight record, mapped: a part for each ring, one after the other.
///
/// It is unmapped when the last clone of it, and the last ring that uses it, are gone.
#[derive(Clone, Debug)]
pub struct InflightRecord {
    /// One region that begins at zero.
    memory: MemoryTable,
    shape: Inflight,
}

impl InflightRecord {
    /// Maps the record of this shape in `file`, which is closed afterwards.
    ///
    /// The file is sealed against being made shorter if it can be. One that cannot be, because it is no memfd or was made
    /// without `MFD_ALLOW_SEALING`, is a matter of trust as guest memory is: whoever shortens it raises a `SIGBUS` here.
    ///
    /// # Errors
    /// - [`Shape`](InflightError::Shape), [`Misaligned`](InflightError::Misaligned): the numbers make no record.
    /// - [`TooSmall`](InflightError::TooSmall): it is too small for rings of any layout.
    /// - [`Memory`](InflightError::Memory): the file is none, is too short, or cannot be mapped.
    pub fn new(shape: &Inflight, file: OwnedFd) -> Result<Self, InflightError> {
        let offset = shape.mmap_offset();
        if !offset.is_multiple_of(ALIGNMENT) {
            return Err(InflightError::Misaligned { offset });
        }
        check(shape, RingLayout::Split)?;
        // Before its size is looked at. Whether it worked does not matter, see above.
        let _ = fcntl_add_seals(&file, SealFlags::SHRINK);
        let region = MemoryRegion::new(GuestAddress(0), shape.mmap_size(), UserAddress(0), offset);
        let memory = MemoryTable::new([MappedRegion::new(region, file)?])?;
        Ok(Self { memory, shape: *shape })
    }

    /// Where the record is, how many rings it covers, and of which size.
    #[must_use]
    pub fn shape(&self) -> &Inflight {
        &self.shape
    }

    /// Checks that it has room for its rings in this layout: those of packed ones are larger.
    ///
    /// # Errors
    /// [`TooSmall`](InflightError::TooSmall).
    pub fn check(&self, layout: RingLayout) -> Result<(), InflightError> {
        check(&self.shape, layout)
    }

    /// The part of a ring; `None` if the record does not cover it.
    pub(crate) fn part(&self, ring: u16, layout: RingLayout) -> Result<Option<OwnedRange>, InflightError> {
        self.check(layout)?;
        if ring >= self.shape.num_queues() {
            return Ok(None);
        }
        let size = part_size(layout, self.shape.queue_size());
        let start = GuestAddress(size.saturating_mul(ring.into()));
        // All parts are inside, as was just checked.
        Ok(self.memory.range(start, size, Access::ReadWrite).ok())
    }
}

/// Bytes of the part of one ring.
fn part_size(layout: RingLayout, queue_size: u16) -> u64 {
    DeviceQueue::<OwnedRange>::inflight_size(layout, queue_size)
}

/// Bytes of the whole record.
fn needed(layout: RingLayout, queues: u16, queue_size: u16) -> Result<u64, InflightError> {
    if queues == 0 || queue_size == 0 || queue_size > MAX_QUEUE_SIZE {
        return Err(InflightError::Shape { queues, queue_size });
    }
    Ok(part_size(layout, queue_size).saturating_mul(queues.into()))
}

fn check(shape: &Inflight, layout: RingLayout) -> Result<(), InflightError> {
    let needed = needed(layout, shape.num_queues(), shape.queue_size())?;
    match shape.mmap_size() {
        found if found < needed => Err(InflightError::TooSmall { needed, found }),
        _ => Ok(()),
    }
}
