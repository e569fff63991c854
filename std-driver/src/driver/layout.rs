//! Where the parts of a ring and its indirect tables lie.

use vhost_core::{MAX_RING_SIZE, RingFault, RingLayout, VirtioFeatures};

use super::DriverError;

/// Bytes of a descriptor, in a ring and in an indirect table.
const DESCRIPTOR: u64 = 16;
/// The parts begin at multiples of a cache line, so that the two sides do not write to the same one.
const CACHE_LINE: u64 = 64;

/// The most descriptors of a ring on this side: what virtual machine monitors give a queue.
pub const CAPACITY: usize = 1024;

/// What a ring is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Descriptors, from 1 to [`CAPACITY`]; a power of two without `RING_PACKED`.
    pub size: u16,
    /// The features that are acknowledged. `RING_PACKED` says how the ring is laid out; `RING_EVENT_IDX`, `RING_INDIRECT`
    /// and `IN_ORDER` make a difference, too.
    pub features: VirtioFeatures,
    /// Descriptors of each indirect table, which chains of up to so many buffers use with `RING_INDIRECT`; 0 for none.
    pub table_size: u16,
}

/// Where the parts of a ring lie, as offsets in its area.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) ring: RingLayout,
    /// What the driver writes: the available ring, or what it says about calls.
    pub(super) driver: u64,
    /// What the device writes: the used ring, or what it says about kicks.
    pub(super) device: u64,
    /// Indirect tables, one for each descriptor of the ring.
    pub(super) tables: u64,
    /// Bytes of an indirect table; zero without them.
    pub(super) table_bytes: u64,
    pub(super) end: u64,
}

impl Layout {
    pub(super) fn new(options: &RingOptions) -> Result<Self, RingFault> {
        let RingOptions { size, features, table_size } = *options;
        let ring = RingLayout::of(features);
        ring.check_size(size.into())?;
        let [descriptors, of_driver, of_device] = ring.lengths(size);
        let has_tables = features.contains(VirtioFeatures::RING_INDIRECT);
        let table_bytes = if has_tables { u64::from(table_size.min(MAX_RING_SIZE)) * DESCRIPTOR } else { 0 };
        let driver = descriptors.next_multiple_of(CACHE_LINE);
        let device = (driver + of_driver).next_multiple_of(CACHE_LINE);
        let tables = (device + of_device).next_multiple_of(CACHE_LINE);
        let end = tables + u64::from(size) * table_bytes;
        Ok(Self { ring, driver, device, tables, table_bytes, end })
    }

    /// Whether a chain of so many buffers goes into an indirect table.
    pub(super) fn has_table_for(&self, buffers: usize) -> bool {
        buffers > 1 && buffers as u64 * DESCRIPTOR <= self.table_bytes
    }
}

impl RingOptions {
    /// Bytes that the ring takes, with its indirect tables.
    ///
    /// # Errors
    /// [`Ring`](DriverError::Ring) if there is no ring of this size.
    pub fn bytes(&self) -> Result<u64, DriverError> {
        Ok(Layout::new(self)?.end)
    }
}
