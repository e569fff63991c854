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

    pub(crate) fn set_size(&mut self, size: u16) {
        self.size = size;
    }

    pub(crate) fn set_addressed(&mut self) {
        self.flags.insert(Flags::ADDRESSED);
    }

    pub(crate) fn set_started(&mut self, started: Power) {
        self.flags.set(Flags::STARTED, started == Power::On);
    }

    pub(crate) fn set_enabled(&mut self, enabled: Power) {
        self.flags.set(Flags::ENABLED, enabled == Power::On);
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Power {
    On,
    Off,
}
