//! What both sides know of one ring.

use bitflags::bitflags;

bitflags! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    struct Flags: u8 {
        const STARTED = 1;
        const ENABLED = 1 << 1;
        const ADDRESSED = 1 << 2;
    }
}

/// The state of one ring: two independent bits, and what was set up.
///
/// ```text
///            SET_VRING_KICK                 SET_VRING_ENABLE 1
///   stopped ----------------> started   disabled ----------------> enabled
///           <----------------                    <----------------
///            GET_VRING_BASE                 SET_VRING_ENABLE 0
/// ```
/// A ring runs while it is started and enabled. A `SET_FEATURES` without
/// `VHOST_USER_F_PROTOCOL_FEATURES` enables all rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vring {
    size: u16,
    flags: Flags,
}

impl Vring {
    /// A ring that is stopped, disabled and not set up.
    pub(crate) const NEW: Self = Self { size: 0, flags: Flags::empty() };

    /// Descriptors in the ring, 1 to 32768; `None` before `SET_VRING_NUM`.
    #[must_use]
    pub const fn size(&self) -> Option<u16> {
        if self.size == 0 { None } else { Some(self.size) }
    }

    /// Whether `SET_VRING_ADDR` was accepted.
    #[must_use]
    pub const fn has_addresses(&self) -> bool {
        self.flags.contains(Flags::ADDRESSED)
    }

    /// Whether the ring was started and not stopped since.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.flags.contains(Flags::STARTED)
    }

    /// Whether the ring is enabled.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.flags.contains(Flags::ENABLED)
    }

    /// Whether the ring is started and enabled: the back-end takes buffers from it.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.is_started() && self.is_enabled()
    }

    /// Carries out what a request does to it.
    pub(crate) fn change(&mut self, change: RingChange) {
        self.size = self.size & change.kept_size | change.size;
        self.flags = self.flags.intersection(change.kept_flags).union(change.flags);
    }
}

/// What a request does to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RingChange {
    /// All bits if the size stays, else none.
    kept_size: u16,
    size: u16,
    kept_flags: Flags,
    flags: Flags,
}

impl RingChange {
    const NOTHING: Self = Self { kept_size: u16::MAX, size: 0, kept_flags: Flags::all(), flags: Flags::empty() };
    pub(crate) const ADDRESSED: Self = Self { flags: Flags::ADDRESSED, ..Self::NOTHING };
    pub(crate) const STARTED: Self = Self { flags: Flags::STARTED, ..Self::NOTHING };
    pub(crate) const STOPPED: Self = Self { kept_flags: Flags::STARTED.complement(), ..Self::NOTHING };
    pub(crate) const ENABLED: Self = Self { flags: Flags::ENABLED, ..Self::NOTHING };
    pub(crate) const DISABLED: Self = Self { kept_flags: Flags::ENABLED.complement(), ..Self::NOTHING };
    /// It is as it was at first.
    pub(crate) const RESET: Self = Self { kept_size: 0, kept_flags: Flags::empty(), ..Self::NOTHING };

    pub(crate) const fn size(size: u16) -> Self {
        Self { kept_size: 0, size, ..Self::NOTHING }
    }
}
