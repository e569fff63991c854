//! Bytes: feature bits of the ring transport and of the vhost-user protocol.

use bitflags::bitflags;

use super::scalar::Scalar;

bitflags! {
    /// Virtio feature bits (`GET_FEATURES`, `SET_FEATURES`).
    ///
    /// Bits 24 to 41 concern the rings and have names here; bits 0 to 23 and 50 upwards belong to
    /// the device type and pass through unnamed.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct VirtioFeatures: u64 {
        /// A network device reports its MTU. Bit 3 of the network device; named here because
        /// `NET_SET_MTU` is gated on it.
        const NET_MTU = 1 << 3;
        /// Interrupt when the ring runs empty (legacy).
        const NOTIFY_ON_EMPTY = 1 << 24;
        /// The back-end can log the pages it writes (`VHOST_F_LOG_ALL`).
        const LOG_ALL = 1 << 26;
        /// Any descriptor layout (legacy).
        const ANY_LAYOUT = 1 << 27;
        /// Indirect descriptor tables.
        const RING_INDIRECT = 1 << 28;
        /// Notification suppression by event index.
        const RING_EVENT_IDX = 1 << 29;
        /// There are protocol features to negotiate (`VHOST_USER_F_PROTOCOL_FEATURES`).
        const PROTOCOL_FEATURES = 1 << 30;
        /// Virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// Device addresses are I/O virtual (`VIRTIO_F_IOMMU_PLATFORM`).
        const ACCESS_PLATFORM = 1 << 33;
        /// Packed rings.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order they were made available.
        const IN_ORDER = 1 << 35;
        /// Memory accesses are ordered as the platform defines.
        const ORDER_PLATFORM = 1 << 36;
        /// Single root I/O virtualization.
        const SR_IOV = 1 << 37;
        /// Notifications carry data.
        const NOTIFICATION_DATA = 1 << 38;
        /// A ring can be reset on its own.
        const RING_RESET = 1 << 40;
        const _ = !0;
    }
}

bitflags! {
    /// Protocol feature bits (`GET_PROTOCOL_FEATURES`, `SET_PROTOCOL_FEATURES`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct ProtocolFeatures: u64 {
        /// Several queues; `GET_QUEUE_NUM` tells how many.
        const MQ = 1 << 0;
        /// The dirty log is a shared memory file.
        const LOG_SHMFD = 1 << 1;
        /// `SEND_RARP` after migration.
        const RARP = 1 << 2;
        /// Acknowledgements for requests that have no reply of their own.
        const REPLY_ACK = 1 << 3;
        /// `NET_SET_MTU`.
        const MTU = 1 << 4;
        /// A channel for requests of the back-end.
        const BACKEND_REQ = 1 << 5;
        /// Legacy devices of the other byte order.
        const CROSS_ENDIAN = 1 << 6;
        /// Crypto sessions.
        const CRYPTO_SESSION = 1 << 7;
        /// Postcopy migration.
        const PAGEFAULT = 1 << 8;
        /// The back-end holds the device's configuration space.
        const CONFIG = 1 << 9;
        /// Requests of the back-end may carry descriptors.
        const BACKEND_SEND_FD = 1 << 10;
        /// Doorbells mapped into the guest.
        const HOST_NOTIFIER = 1 << 11;
        /// Requests in flight are recorded in shared memory.
        const INFLIGHT_SHMFD = 1 << 12;
        /// `RESET_DEVICE`.
        const RESET_DEVICE = 1 << 13;
        /// Kicks and calls as messages.
        const INBAND_NOTIFICATIONS = 1 << 14;
        /// Memory regions are added and removed one by one.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// The device status goes over the wire.
        const STATUS = 1 << 16;
        /// Memory regions carry Xen fields.
        const XEN_MMAP = 1 << 17;
        /// Objects shared between devices.
        const SHARED_OBJECT = 1 << 18;
        /// The device's internal state is transferred at migration.
        const DEVICE_STATE = 1 << 19;
        /// `GET_VRING_BASE` leaves requests in the inflight record.
        const GET_VRING_BASE_INFLIGHT = 1 << 20;
        /// User addresses are guest physical addresses.
        const GPA_ADDRESSES = 1 << 21;
        /// Shared memory regions of the device.
        const SHMEM = 1 << 22;
        const _ = !0;
    }
}

impl ProtocolFeatures {
    /// Every bit this crate knows, 0 to 22.
    pub const KNOWN: Self = Self::from_bits_retain((1 << 23) - 1);

    /// Which features need which others.
    ///
    /// Source: vhost-user, sections "In-band notifications", "Back-end communication" and
    /// "Inflight I/O tracking".
    pub const DEPENDENCIES: [(Self, Self); 4] = [
        (Self::INBAND_NOTIFICATIONS, Self::BACKEND_REQ.union(Self::REPLY_ACK)),
        (Self::GET_VRING_BASE_INFLIGHT, Self::INFLIGHT_SHMFD),
        (Self::HOST_NOTIFIER, Self::BACKEND_REQ.union(Self::BACKEND_SEND_FD)),
        (Self::SHMEM, Self::BACKEND_REQ.union(Self::BACKEND_SEND_FD)),
    ];

    /// The first dependency this set breaks: the feature, and what it misses.
    #[must_use]
    pub fn broken_dependency(self) -> Option<(Self, Self)> {
        for (feature, needs) in &Self::DEPENDENCIES {
            let missing = needs.difference(self);
            if self.contains(*feature) && !missing.is_empty() {
                return Some((*feature, missing));
            }
        }
        None
    }

    /// This set with one bit in the place of another.
    #[inline(never)]
    pub(super) fn moved(mut self, from: Self, to: Self) -> Self {
        let has = self.contains(from);
        self.remove(from);
        self.set(to, has);
        self
    }

    /// This set without the features whose dependencies it does not hold.
    #[must_use]
    pub fn without_broken(mut self) -> Self {
        while let Some((feature, _)) = self.broken_dependency() {
            self.remove(feature);
        }
        self
    }
}

macro_rules! feature_scalar {
    ($($flags:ty),*) => {$(
        impl Scalar for $flags {
            type Wire = <u64 as Scalar>::Wire;
            fn to_wire(self) -> Self::Wire {
                self.bits().to_wire()
            }
            fn from_wire(wire: Self::Wire) -> Self {
                Self::from_bits_retain(u64::from_wire(wire))
            }
        }
    )*};
}

feature_scalar!(VirtioFeatures, ProtocolFeatures);
