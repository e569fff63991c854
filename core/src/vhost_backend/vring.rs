//! What a ring needs to run, and where changes of memory are logged.

use crate::{
    address::{GuestAddress, RingAddress, UserAddress},
    wire::vring::VringBase,
};

/// Where the three parts of a ring lie, in the address space that was negotiated: see [`RingAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VringAddresses {
    /// Descriptor table, or the packed descriptor ring. A multiple of 16.
    pub descriptor: RingAddress,
    /// Available ring (a multiple of 2), or the driver event suppression area (of 4).
    pub available: RingAddress,
    /// Used ring, or the device event suppression area. A multiple of 4.
    pub used: RingAddress,
    /// The guest address under which writes to the used ring are logged.
    pub log: GuestAddress,
    /// Whether they are.
    pub logging: Logging,
}

/// Whether writes to a used ring are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Logging {
    /// They are not.
    #[default]
    Off,
    /// They are, for migration.
    On,
}

/// One thing about a ring that is to change.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum VringSetting<'h, H: ?Sized> {
    /// Descriptors, 1 to 32768, in a split ring a power of two. Not while it runs.
    Size(u16),
    /// Where to go on in it. Not while it runs.
    Base(VringBase),
    /// Where it lies. A ring that runs goes on there.
    Addresses(VringAddresses),
    /// What the driver signals new buffers with. Without one the ring is polled, where the implementer can.
    Kick(Option<&'h H>),
    /// What the driver is signalled used buffers with. Without one it polls.
    Call(Option<&'h H>),
    /// What a fault of the ring is signalled with, if anybody cares.
    Error(Option<&'h H>),
    /// Buffers are taken from it once it has everything else.
    Enable,
    /// No buffers are taken from it; it keeps its place.
    Disable,
}

impl<H: ?Sized> Clone for VringSetting<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: ?Sized> Copy for VringSetting<'_, H> {}

/// All that a ring needs to run.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct VringSetup<'h, H: ?Sized> {
    /// Descriptors, 1 to 32768, in a split ring a power of two.
    pub size: u16,
    /// Where to go on in it.
    pub base: VringBase,
    /// Where it lies.
    pub addresses: VringAddresses,
    /// What the driver signals new buffers with.
    pub kick: Option<&'h H>,
    /// What the driver is signalled used buffers with.
    pub call: Option<&'h H>,
    /// What a fault of the ring is signalled with.
    pub error: Option<&'h H>,
}

impl<H: ?Sized> Clone for VringSetup<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H: ?Sized> Copy for VringSetup<'_, H> {}

impl<'h, H: ?Sized> VringSetup<'h, H> {
    /// The settings in an order that every implementer takes: the call comes first, as some learn from it which rings there
    /// are; then what cannot change any more once the kick starts the ring; and buffers are taken last. An error that
    /// nobody wants to hear of is not mentioned, as not every implementer knows what to do with it.
    pub fn settings(&self) -> impl Iterator<Item = VringSetting<'h, H>> + use<'h, H> {
        let settings = [
            VringSetting::Call(self.call),
            VringSetting::Error(self.error),
            VringSetting::Size(self.size),
            VringSetting::Base(self.base),
            VringSetting::Addresses(self.addresses),
            VringSetting::Kick(self.kick),
            VringSetting::Enable,
        ];
        settings.into_iter().filter(|setting| !matches!(setting, VringSetting::Error(None)))
    }
}

/// Where pages of guest memory that are written to are marked: a bit for each 4096 bytes, from guest address 0 on.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LogArea<'m, M: ?Sized> {
    /// Bytes.
    pub size: u64,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// The same byte's address in this process, for implementers that share its address space.
    pub user_address: UserAddress,
    /// The file.
    pub memory: &'m M,
}

impl<M: ?Sized> Clone for LogArea<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: ?Sized> Copy for LogArea<'_, M> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_started_by_its_kick_and_enabled_after_everything_else() {
        let [descriptor, available, used] = [0x1000, 0x2000, 0x3000].map(RingAddress);
        let addresses = VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off };
        let base = VringBase::Split { available: 9 };
        let setup = VringSetup { size: 4, base, addresses, kick: Some(&1), call: Some(&2), error: Some(&3) };
        let expected = [
            VringSetting::Call(Some(&2)),
            VringSetting::Error(Some(&3)),
            VringSetting::Size(4),
            VringSetting::Base(base),
            VringSetting::Addresses(addresses),
            VringSetting::Kick(Some(&1)),
            VringSetting::Enable,
        ];
        assert!(setup.settings().eq(expected));
        let silent = VringSetup { error: None, ..setup };
        assert_eq!(silent.settings().count(), expected.len() - 1);
    }
}
