//! Address spaces as types, so that an address of one can never be used as an address of another.

use crate::wire::scalar::newtype_u64;

newtype_u64! {
    /// A guest physical address in bytes.
    ///
    /// Descriptors in rings hold these unless `VIRTIO_F_ACCESS_PLATFORM` is acknowledged, and
    /// memory regions begin at one.
    pub struct GuestAddress;
}

newtype_u64! {
    /// An address in the front-end's own virtual address space, in bytes.
    ///
    /// It is only ever a key to look a memory region up with; nobody but the front-end can
    /// dereference it.
    pub struct UserAddress;
}

newtype_u64! {
    /// An I/O virtual address in bytes, translated through the IOTLB.
    pub struct Iova;
}

newtype_u64! {
    /// The address of a part of a ring as `SET_VRING_ADDR` carries it.
    ///
    /// Which space it belongs to depends on what was negotiated (vhost-user, section "Ring
    /// addresses"): an [`Iova`] with `VIRTIO_F_ACCESS_PLATFORM`, else a [`GuestAddress`] with
    /// `GPA_ADDRESSES`, else a [`UserAddress`].
    pub struct RingAddress;
}
