//! Bytes: messages about the device IOTLB.

use crate::address::{Iova, UserAddress};

use super::scalar::layout;

layout! {
    /// A miss, an update, an invalidation or an access failure of the IOTLB.
    pub struct Iotlb (32 bytes) {
        /// The I/O virtual address.
        field iova: Iova,
        /// Bytes; zero in a miss.
        field size: u64,
        /// Where the range lies in the front-end's address space (a guest address with
        /// `GPA_ADDRESSES`, in messages of the front-end).
        field user_address: UserAddress,
        /// Allowed or wanted access: see [`Iotlb::READ`] and [`Iotlb::WRITE`].
        field permission: u8,
        /// What this is: see [`Iotlb::MISS`] and the constants beside it.
        field message_type: u8,
        padding reserved: 6,
    }
}

impl Iotlb {
    /// Permission bit: reading.
    pub const READ: u8 = 1;
    /// Permission bit: writing.
    pub const WRITE: u8 = 2;
    /// The back-end asks for a translation.
    pub const MISS: u8 = 1;
    /// The front-end gives a translation.
    pub const UPDATE: u8 = 2;
    /// The front-end takes a translation back.
    pub const INVALIDATE: u8 = 3;
    /// The back-end was refused an access.
    pub const ACCESS_FAIL: u8 = 4;
}
