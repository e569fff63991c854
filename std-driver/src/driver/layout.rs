//! Where the parts of a split ring lie.

use vhost_core::VirtioFeatures;

use super::DriverError;

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR: u64 = 16;
/// Bytes of an element of the used ring.
pub(super) const USED_ELEMENT: u64 = 8;
/// Offset of the elements in the available and in the used ring, behind flags and index.
const ELEMENTS: u64 = 4;
/// The parts begin at multiples of a cache line, so that the two sides do not write to the same one.
const CACHE_LINE: u64 = 64;

/// What a ring is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Descriptors, a power of two from 1 to 32768.
    pub size: u16,
    /// The features that are acknowledged; `RING_EVENT_IDX` and `RING_INDIRECT` make a difference.
    pub features: VirtioFeatures,
    /// Descriptors of each indirect table, which chains of up to so many buffers use with `RING_INDIRECT`; 0 for none.
    pub table_size: u16,
}

/// Where the parts of a ring lie, as offsets in its area.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    size: u16,
    /// Zero without indirect tables.
    pub(super) table_size: u16,
    pub(super) available: u64,
    pub(super) used: u64,
    tables: u64,
    pub(super) end: u64,
}

impl Layout {
    pub(super) fn new(options: &RingOptions) -> Result<Self, DriverError> {
        let RingOptions { size, features, table_size } = *options;
        if !size.is_power_of_two() {
            return Err(DriverError::RingSize { found: size });
        }
        let table_size = if features.contains(VirtioFeatures::RING_INDIRECT) { table_size } else { 0 };
        let entries = u64::from(size);
        // Both rings end with the index of an event.
        let event = size_of::<u16>() as u64;
        let available = (entries * DESCRIPTOR).next_multiple_of(CACHE_LINE);
        let used = (available + ELEMENTS + 2 * entries + event).next_multiple_of(CACHE_LINE);
        let tables = (used + ELEMENTS + USED_ELEMENT * entries + event).next_multiple_of(CACHE_LINE);
        let end = tables + entries * u64::from(table_size) * DESCRIPTOR;
        Ok(Self { size, table_size, available, used, tables, end })
    }

    /// A descriptor of the ring.
    pub(super) fn descriptor(&self, index: u16) -> u64 {
        u64::from(index) * DESCRIPTOR
    }

    /// A descriptor in the indirect table that belongs to a descriptor of the ring.
    pub(super) fn indirect(&self, head: u16, position: u16) -> u64 {
        self.tables + (u64::from(head) * u64::from(self.table_size) + u64::from(position)) * DESCRIPTOR
    }

    pub(super) fn available_index(&self) -> u64 {
        self.available + 2
    }

    /// The element of the available ring for a free-running index.
    pub(super) fn available_element(&self, index: u16) -> u64 {
        self.available + ELEMENTS + 2 * u64::from(index % self.size)
    }

    /// Where the driver says at which used index it wants a call.
    pub(super) fn used_event(&self) -> u64 {
        self.available + ELEMENTS + 2 * u64::from(self.size)
    }

    pub(super) fn used_flags(&self) -> u64 {
        self.used
    }

    pub(super) fn used_index(&self) -> u64 {
        self.used + 2
    }

    /// The element of the used ring for a free-running index.
    pub(super) fn used_element(&self, index: u16) -> u64 {
        self.used + ELEMENTS + USED_ELEMENT * u64::from(index % self.size)
    }

    /// Where the device says at which available index it wants a kick.
    pub(super) fn available_event(&self) -> u64 {
        self.used + ELEMENTS + USED_ELEMENT * u64::from(self.size)
    }
}

impl RingOptions {
    /// Bytes that the ring takes, with its indirect tables.
    ///
    /// # Errors
    /// [`RingSize`](DriverError::RingSize).
    pub fn bytes(&self) -> Result<u64, DriverError> {
        Layout::new(self).map(|layout| layout.end)
    }
}
