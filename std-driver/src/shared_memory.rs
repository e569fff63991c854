//! Shared memory regions of a device on the side of the VMM: address space of its own, into which a back-end has parts of
//! files mapped (`SHMEM_MAP`, and the requests about the DAX window of virtio-fs before it).
//!
//! A [`Reservation`] is the address space, a [`SharedWindow`] is one region with its mappings, and [`SharedRegions`] carries
//! the requests of a back-end out on all regions of a device. The guest sees a region where the VMM puts it, for example as a
//! memory slot of KVM that begins at [`Reservation::start`].

mod error;
mod layout;
mod regions;
mod reservation;
mod transfer;
mod window;

pub(crate) use self::window::Kinds;
pub use self::{
    error::WindowError,
    layout::{DEFAULT_LIMIT, MapRules, Mapped},
    regions::SharedRegions,
    reservation::Reservation,
    window::SharedWindow,
};

#[cfg(test)]
mod tests;
