//! A ring from the driver's side: buffers in, used buffers out, through rings of either layout.
//!
//! The ring code is the core's. Here are its memory, its indirect tables, and what each chain was made of, so that a ring
//! outlives its device.

mod rebuild;

use vhost_core::{
    Buffer, DriverQueue, RingAddress, RingAddresses, RingLayout, RingParts, RingUser, wire::vring::VringBase,
};

use super::{
    DriverError, GuestArea, RingOptions,
    layout::{CAPACITY, Layout},
};
use crate::{
    frontend::{Logging, VringAddresses},
    memory::OwnedRange,
};

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

/// A ring, split or packed.
///
/// Buffers are [`add`](Self::add)ed, then [`publish`](Self::publish)ed together, and come back through
/// [`poll_used`](Self::poll_used).
///
/// ```
/// use vhost_core::VirtioFeatures;
/// use vhost_std::driver::{Buffer, DriverRing, GuestArea, Kick, RingOptions};
/// use vhost_std::memory::MemoryFile;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let memory = MemoryFile::create("guest", 0x10_0000, 0x4000)?;
/// let area = GuestArea::of(&memory);
/// let features = VirtioFeatures::VERSION_1 | VirtioFeatures::RING_PACKED;
/// let options = RingOptions { size: 8, features, table_size: 0 };
/// let mut ring = DriverRing::new(area.part(0, options.bytes()?)?, &options)?;
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
pub struct DriverRing {
    area: GuestArea,
    options: RingOptions,
    layout: Layout,
    parts: RingParts<OwnedRange>,
    queue: Box<Queue>,
    /// The indirect tables that no chain uses.
    tables: Vec<OwnedRange>,
    /// The chains that were added and have not come back, by the tokens that the queue gave them.
    chains: Vec<Option<Chain>>,
    /// Lists of buffers of chains that came back, to be filled anew.
    spare: Vec<Vec<Buffer>>,
    /// Chains that were ever added.
    added: u64,
}

type Queue = DriverQueue<OwnedRange, CAPACITY>;

/// What a chain was made of.
#[derive(Debug)]
struct Chain {
    token: u64,
    /// How many chains were added before it.
    order: u64,
    buffers: Vec<Buffer>,
    /// How many of them the device reads; it writes the others.
    readable: usize,
    table: Option<OwnedRange>,
}

impl DriverRing {
    /// A new ring at the beginning of `area`, which is cleared.
    ///
    /// # Errors
    /// [`Ring`](DriverError::Ring) if there is no ring of this size, or none that begins there;
    /// [`OutsideArea`](DriverError::OutsideArea).
    pub fn new(area: GuestArea, options: &RingOptions) -> Result<Self, DriverError> {
        let layout = Layout::new(options)?;
        let area = area.part(0, layout.end)?;
        area.clear()?;
        let addresses = RingAddresses {
            descriptor: area.guest_address(0),
            driver: area.guest_address(layout.driver),
            device: area.guest_address(layout.device),
        };
        let parts = RingParts::translate(&area, addresses, layout.ring, options.size.into(), RingUser::Driver)?;
        let queue = Box::new(Queue::new(parts.clone(), options.size.into(), options.features)?);
        let entries = usize::from(options.size);
        let place = |number: u64| area.owned(layout.tables + number * layout.table_bytes, layout.table_bytes);
        let tables = if layout.table_bytes == 0 { 0 } else { u64::from(options.size) };
        let tables = (0..tables).map(place).collect::<Result<_, _>>()?;
        let chains = core::iter::repeat_with(|| None).take(entries).collect();
        Ok(Self { area, options: *options, layout, parts, queue, tables, chains, spare: Vec::new(), added: 0 })
    }

    /// Descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.options.size
    }

    /// How it is laid out.
    #[must_use]
    pub fn layout(&self) -> RingLayout {
        self.layout.ring
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

    /// Where a back-end that starts now has to begin, if all chains before came back in the order in which they were
    /// added; after others see [`rebuild`](Self::rebuild).
    #[must_use]
    pub fn base(&self) -> VringBase {
        self.queue.base()
    }

    /// Adds a chain of buffers that the device first reads and then writes. It is the device's once it is published.
    ///
    /// # Errors
    /// [`Add`](DriverError::Add).
    pub fn add(&mut self, readable: &[Buffer], writable: &[Buffer], token: u64) -> Result<(), DriverError> {
        let has_table = self.layout.has_table_for(readable.len() + writable.len());
        let table = if has_table { self.tables.pop() } else { None };
        let added = match &table {
            Some(table) => self.queue.add_indirect(table, readable, writable),
            None => self.queue.add(readable, writable),
        };
        let slot = added.map(|slot| self.chains.get_mut(usize::from(slot)));
        let Ok(Some(slot)) = slot else {
            self.tables.extend(table);
            return slot.map(drop).map_err(DriverError::from);
        };
        let mut buffers = self.spare.pop().unwrap_or_default();
        buffers.clear();
        buffers.extend(readable.iter().chain(writable));
        *slot = Some(Chain { token, order: self.added, buffers, readable: readable.len(), table });
        self.added += 1;
        Ok(())
    }

    /// Makes the chains that were added visible to the device.
    ///
    /// # Errors
    /// None that a ring which was made without error can have.
    pub fn publish(&mut self) -> Result<Kick, DriverError> {
        self.queue.publish()?;
        Ok(if self.queue.needs_kick()? { Kick::Needed } else { Kick::NotNeeded })
    }

    /// Takes the next chain that the device is done with, if there is one.
    ///
    /// # Errors
    /// [`Device`](DriverError::Device): the ring is of no use until it is [`reset`](Self::reset).
    pub fn poll_used(&mut self) -> Result<Option<Used>, DriverError> {
        let Some(vhost_core::Used { token, written }) = self.queue.poll()? else { return Ok(None) };
        let Some(chain) = self.chains.get_mut(usize::from(token)).and_then(Option::take) else { return Ok(None) };
        let token = chain.token;
        self.recycle(chain);
        Ok(Some(Used { token, written }))
    }

    /// Asks for a call when the device is done with one more chain. Whether there is one already, so that nobody should
    /// wait.
    ///
    /// # Errors
    /// [`Device`](DriverError::Device).
    pub fn request_call(&mut self) -> Result<bool, DriverError> {
        Ok(self.queue.enable_calls()?)
    }

    /// The tokens of the chains that are not used yet, in the order in which they were added.
    #[must_use]
    pub fn outstanding(&self) -> Vec<u64> {
        let chains = self.chains.iter().flatten().map(|chain| (chain.order, chain.token));
        let mut chains: Vec<_> = chains.collect();
        chains.sort_unstable();
        chains.into_iter().map(|(_, token)| token).collect()
    }

    /// Takes back what a chain was made of.
    fn recycle(&mut self, chain: Chain) {
        self.tables.extend(chain.table);
        self.spare.push(chain.buffers);
    }

    fn addresses(&self, address: impl Fn(u64) -> u64) -> VringAddresses {
        VringAddresses {
            descriptor: RingAddress(address(0)),
            available: RingAddress(address(self.layout.driver)),
            used: RingAddress(address(self.layout.device)),
            log: self.area.guest_address(self.layout.device),
            logging: Logging::Off,
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_layouts;
