//! Feature bits and configuration space of a network device (virtio specification, 5.1.3 and 5.1.4).

use super::NetOptions;

/// Bytes of `struct virtio_net_config` up to the MTU.
pub(super) const SIZE: usize = 12;

/// The smallest MTU of the specification, that of IPv4.
pub(super) const LEAST_MTU: u16 = 68;

/// `VIRTIO_NET_F_*`, and `VIRTIO_F_VERSION_1`.
pub(super) mod feature {
    /// The device takes frames whose checksum is to be completed.
    pub(crate) const CSUM: u64 = 1;
    /// The driver takes such frames.
    pub(crate) const GUEST_CSUM: u64 = 1 << 1;
    pub(crate) const MTU: u64 = 1 << 3;
    pub(crate) const MAC: u64 = 1 << 5;
    /// The driver takes frames that are to be cut into several.
    pub(crate) const GUEST_TSO4: u64 = 1 << 7;
    pub(crate) const GUEST_TSO6: u64 = 1 << 8;
    /// The device takes such frames.
    pub(crate) const HOST_TSO4: u64 = 1 << 11;
    pub(crate) const HOST_TSO6: u64 = 1 << 12;
    /// A received frame may lie in several buffers.
    pub(crate) const MRG_RXBUF: u64 = 1 << 15;
    pub(crate) const MQ: u64 = 1 << 22;
    pub(crate) const VERSION_1: u64 = 1 << 32;
}

/// The configuration space. `status` (offset 6) stays 0, as its feature is not offered.
pub(super) fn encode(options: &NetOptions, pairs: u16) -> [u8; SIZE] {
    let [a, b, c, d, e, f] = options.mac.unwrap_or_default();
    let [pairs_low, pairs_high] = pairs.to_le_bytes();
    let [mtu_low, mtu_high] = options.mtu.unwrap_or_default().to_le_bytes();
    [a, b, c, d, e, f, 0, 0, pairs_low, pairs_high, mtu_low, mtu_high]
}
