//! A split ring from the driver's side: buffers in, used buffers out.
//!
//! Source: virtio 1.3, section "Split Virtqueues". What the device can write is never believed: chains and descriptors are
//! remembered here, and only used elements are read, each once.

mod rebuild;

use core::sync::atomic::{Ordering, fence};

use vhost_core::{RingAddress, VirtioFeatures, wire::vring::VringBase};

use super::{
    DeviceFault, DriverError, GuestArea, RingOptions,
    layout::{DESCRIPTOR, Layout, USED_ELEMENT},
};
use crate::frontend::{Logging, VringAddresses};

/// Descriptor flag: the chain goes on at `next`.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes to the buffer.
const WRITE: u16 = 2;
/// Descriptor flag: the buffer holds a table of descriptors.
const INDIRECT: u16 = 4;
/// Flag of the used ring: the device wants no kick.
const NO_NOTIFY: u16 = 1;

/// A piece of guest memory that a device reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Where it begins.
    pub address: vhost_core::GuestAddress,
    /// Bytes.
    pub length: u32,
}

/// Whether the device wants to be told of new buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Kick {
    /// It does: signal the kick descriptor.
    Needed,
    /// It looks by itself.
    NotNeeded,
}

/// A chain that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What it was added with.
    pub token: u64,
    /// Bytes that the device says to have written, never more than there is room for.
    pub written: u32,
}

/// A split ring.
///
/// Buffers are [`add`](Self::add)ed, then [`publish`](Self::publish)ed together, and come back through
/// [`poll_used`](Self::poll_used).
///
/// ```
/// use vhost_core::VirtioFeatures;
/// use vhost_std::driver::{Buffer, GuestArea, Kick, RingOptions, SplitRing};
/// use vhost_std::memory::MemoryFile;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let memory = MemoryFile::create("guest", 0x10_0000, 0x4000)?;
/// let area = GuestArea::of(&memory);
/// let options = RingOptions { size: 8, features: VirtioFeatures::VERSION_1, table_size: 0 };
/// let mut ring = SplitRing::new(area.part(0, options.bytes()?)?, &options)?;
///
/// let request = Buffer { address: area.guest_address(0x2000), length: 16 };
/// let answer = Buffer { address: area.guest_address(0x3000), length: 512 };
/// ring.add(&[request], &[answer], 42)?;
/// assert_eq!(ring.publish()?, Kick::Needed);
/// assert_eq!(ring.poll_used()?, None); // nobody serves this ring
/// assert_eq!(ring.outstanding(), [42]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SplitRing {
    area: GuestArea,
    layout: Layout,
    size: u16,
    has_event_index: bool,
    /// The descriptors as this side wrote them.
    descriptors: Vec<Descriptor>,
    /// The descriptors of all indirect tables.
    tables: Vec<Descriptor>,
    /// The chains that the device has, by their first descriptor.
    chains: Vec<Option<Chain>>,
    free: Vec<u16>,
    /// Chains that were ever added, and published; the lower half is the available index.
    added: u64,
    published: u64,
    /// Chains that the device has.
    given: u16,
    /// The used index up to which chains were taken.
    used: u16,
}

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    token: u64,
    /// How many chains were added before it.
    order: u64,
    /// How many buffers it has.
    buffers: u16,
    indirect: bool,
    /// Bytes that the device may write.
    room: u64,
}

impl SplitRing {
    /// A new ring at the beginning of `area`, which is cleared.
    ///
    /// # Errors
    /// [`RingSize`](DriverError::RingSize), [`OutsideArea`](DriverError::OutsideArea),
    /// [`Misaligned`](DriverError::Misaligned).
    pub fn new(area: GuestArea, options: &RingOptions) -> Result<Self, DriverError> {
        let layout = Layout::new(options)?;
        let area = area.part(0, layout.end)?;
        let address = area.guest_address(0);
        if !address.0.is_multiple_of(DESCRIPTOR) || !area.user_address(0).0.is_multiple_of(DESCRIPTOR) {
            return Err(DriverError::Misaligned { address });
        }
        let entries = usize::from(options.size);
        let mut ring = Self {
            area,
            layout,
            size: options.size,
            has_event_index: options.features.contains(VirtioFeatures::RING_EVENT_IDX),
            descriptors: vec![Descriptor::default(); entries],
            tables: vec![Descriptor::default(); entries * usize::from(layout.table_size)],
            chains: vec![None; entries],
            free: Vec::with_capacity(entries),
            added: 0,
            published: 0,
            given: 0,
            used: 0,
        };
        ring.reset()?;
        Ok(ring)
    }

    /// Descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where the ring lies in this process, for a back-end without `GPA_ADDRESSES`.
    #[must_use]
    pub fn user_addresses(&self) -> VringAddresses {
        self.addresses(|offset| self.area.user_address(offset).0)
    }

    /// Where the ring lies in the guest, for a back-end with `GPA_ADDRESSES`.
    #[must_use]
    pub fn guest_addresses(&self) -> VringAddresses {
        self.addresses(|offset| self.area.guest_address(offset).0)
    }

    /// Where a back-end that starts now has to begin.
    #[must_use]
    pub fn base(&self) -> VringBase {
        VringBase::Split { available: self.used }
    }

    /// Adds a chain of buffers that the device first reads and then writes. It is the device's once it is published.
    ///
    /// # Errors
    /// [`Full`](DriverError::Full), [`ChainTooLong`](DriverError::ChainTooLong), [`EmptyChain`](DriverError::EmptyChain).
    pub fn add(&mut self, readable: &[Buffer], writable: &[Buffer], token: u64) -> Result<(), DriverError> {
        let count = readable.len() + writable.len();
        let indirect = count > 1 && count <= usize::from(self.layout.table_size);
        let needed = if indirect { 1 } else { count };
        let free = self.free.len();
        let limit = usize::from(self.size);
        if count == 0 {
            return Err(DriverError::EmptyChain);
        }
        if needed > limit {
            return Err(DriverError::ChainTooLong {
                found: count,
                limit: limit.max(usize::from(self.layout.table_size)),
            });
        }
        let Some(&head) = self.free.last().filter(|_| needed <= free) else {
            return Err(DriverError::Full { needed, free });
        };
        let buffers = readable.iter().map(|buffer| (buffer, 0)).chain(writable.iter().map(|buffer| (buffer, WRITE)));
        let mut at = head;
        for (position, (buffer, flags)) in (0_u16..).zip(buffers) {
            let last = usize::from(position) + 1 == count;
            if !indirect {
                self.free.pop();
            }
            let next = match (last, indirect) {
                (true, _) => 0,
                (false, true) => position + 1,
                (false, false) => self.free.last().copied().unwrap_or_default(),
            };
            let flags = if last { flags } else { flags | NEXT };
            let descriptor = Descriptor { address: buffer.address.0, length: buffer.length, flags, next };
            if indirect {
                self.write_indirect(head, position, descriptor)?;
            } else {
                self.write(at, descriptor)?;
                at = next;
            }
        }
        if indirect {
            self.free.pop();
            self.write(head, self.table_of(head, count))?;
        }
        let buffers = u16::try_from(count).unwrap_or(u16::MAX);
        let room = writable.iter().map(|buffer| u64::from(buffer.length)).sum();
        let chain = Chain { token, order: self.added, buffers, indirect, room };
        self.offer(head)?;
        if let Some(slot) = self.chains.get_mut(usize::from(head)) {
            *slot = Some(chain);
        }
        Ok(())
    }

    /// Makes the chains that were added visible to the device.
    ///
    /// # Errors
    /// None that a ring which was made without error can have.
    pub fn publish(&mut self) -> Result<Kick, DriverError> {
        let (before, now) = (index(self.published), index(self.added));
        if before == now {
            return Ok(Kick::NotNeeded);
        }
        // Release: a device that sees the index sees the descriptors and the elements.
        self.area.store_u16(self.layout.available_index(), now, Ordering::Release)?;
        self.given += now.wrapping_sub(before);
        self.published = self.added;
        // The device publishes its wish and then looks at our index; we publish our index and then look at its wish. With
        // both in this order at least one side sees the other.
        fence(Ordering::SeqCst);
        let wants_kick = if self.has_event_index {
            let event = self.area.load_u16(self.layout.available_event(), Ordering::Relaxed)?;
            // Whether the index passed the event (virtio, section "Used Buffer Notification Suppression").
            now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
        } else {
            self.area.load_u16(self.layout.used_flags(), Ordering::Relaxed)? & NO_NOTIFY == 0
        };
        Ok(if wants_kick { Kick::Needed } else { Kick::NotNeeded })
    }

    /// Takes the next chain that the device is done with, if there is one.
    ///
    /// # Errors
    /// [`Device`](DriverError::Device): the ring is of no use until it is [`reset`](Self::reset).
    pub fn poll_used(&mut self) -> Result<Option<Used>, DriverError> {
        // Acquire: whoever sees the index sees the element and the buffers.
        let found = self.area.load_u16(self.layout.used_index(), Ordering::Acquire)?.wrapping_sub(self.used);
        if found == 0 {
            return Ok(None);
        }
        let given = self.given;
        if found > given {
            return Err(DeviceFault::UsedTooMany { found, given }.into());
        }
        let mut element = [0; USED_ELEMENT as usize];
        self.area.read(self.layout.used_element(self.used), &mut element)?;
        let [a, b, c, d, e, f, g, h] = element;
        let (id, written) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let unknown = DeviceFault::UnknownChain { found: id };
        let head = u16::try_from(id).map_err(|_| unknown)?;
        let slot = self.chains.get_mut(usize::from(head)).ok_or(unknown)?;
        let chain = slot.filter(|chain| chain.order < self.published).ok_or(unknown)?;
        if u64::from(written) > chain.room {
            return Err(DeviceFault::WroteTooMuch { found: written, room: chain.room }.into());
        }
        *slot = None;
        self.release(head, &chain);
        self.used = self.used.wrapping_add(1);
        self.given -= 1;
        Ok(Some(Used { token: chain.token, written }))
    }

    /// Asks for a call when the device is done with one more chain. Whether there is one already, so that nobody should
    /// wait.
    ///
    /// # Errors
    /// None that a ring which was made without error can have.
    pub fn request_call(&mut self) -> Result<bool, DriverError> {
        // Without event indices the device always calls.
        self.area.store_u16(self.layout.used_event(), self.used, Ordering::Relaxed)?;
        // As in `publish`, with the sides changed.
        fence(Ordering::SeqCst);
        Ok(self.area.load_u16(self.layout.used_index(), Ordering::Acquire)? != self.used)
    }

    /// The tokens of the chains that are not used yet, in the order in which they were added.
    #[must_use]
    pub fn outstanding(&self) -> Vec<u64> {
        self.in_order().into_iter().map(|(_, chain)| chain.token).collect()
    }

    /// Writes a head into the available ring.
    fn offer(&mut self, head: u16) -> Result<(), DriverError> {
        let element = self.layout.available_element(index(self.added));
        self.area.store_u16(element, head, Ordering::Relaxed)?;
        self.added += 1;
        Ok(())
    }

    /// The descriptor that stands for an indirect table of `count` descriptors.
    fn table_of(&self, head: u16, count: usize) -> Descriptor {
        let address = self.area.guest_address(self.layout.indirect(head, 0)).0;
        let length = u32::try_from(count as u64 * DESCRIPTOR).unwrap_or(u32::MAX);
        Descriptor { address, length, flags: INDIRECT, next: 0 }
    }

    fn write(&mut self, at: u16, descriptor: Descriptor) -> Result<(), DriverError> {
        if let Some(slot) = self.descriptors.get_mut(usize::from(at)) {
            *slot = descriptor;
        }
        self.area.write(self.layout.descriptor(at), &descriptor.to_bytes())
    }

    fn write_indirect(&mut self, head: u16, position: u16, descriptor: Descriptor) -> Result<(), DriverError> {
        let at = usize::from(head) * usize::from(self.layout.table_size) + usize::from(position);
        if let Some(slot) = self.tables.get_mut(at) {
            *slot = descriptor;
        }
        self.area.write(self.layout.indirect(head, position), &descriptor.to_bytes())
    }

    /// Gives the descriptors of a chain back.
    fn release(&mut self, head: u16, chain: &Chain) {
        let mut at = head;
        for _ in 0..if chain.indirect { 1 } else { chain.buffers } {
            self.free.push(at);
            at = self.descriptors.get(usize::from(at)).map_or(0, |descriptor| descriptor.next);
        }
    }

    fn addresses(&self, address: impl Fn(u64) -> u64) -> VringAddresses {
        VringAddresses {
            descriptor: RingAddress(address(0)),
            available: RingAddress(address(self.layout.available)),
            used: RingAddress(address(self.layout.used)),
            log: self.area.guest_address(self.layout.used),
            logging: Logging::Off,
        }
    }
}

impl Descriptor {
    /// Address, length, flags and next, in this order and little-endian.
    fn to_bytes(self) -> [u8; DESCRIPTOR as usize] {
        let low = u128::from(self.address) | u128::from(self.length) << 64;
        (low | u128::from(self.flags) << 96 | u128::from(self.next) << 112).to_le_bytes()
    }
}

/// The free-running index of the ring for a count.
fn index(count: u64) -> u16 {
    (count & 0xffff) as u16
}

#[cfg(test)]
mod tests;
