//! Bytes: what must be negotiated before a request may be sent.

use core::fmt;

use super::{
    feature::{ProtocolFeatures, VirtioFeatures},
    gpu::GpuFeatures,
};

/// What must be negotiated before a request may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gate(u32);

/// How far the negotiation of protocol features must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Negotiation {
    /// It does not matter.
    Any,
    /// `VHOST_USER_F_PROTOCOL_FEATURES` is offered.
    Offered,
    /// It is offered, and either acknowledged or protocol features were asked for: QEMU's network
    /// front-end enables rings before its first `SET_FEATURES`.
    Opened,
}

/// Who holds a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// Both sides.
    BothSides,
    /// The front-end; the back-end answers anyway, because real front-ends ask anyway.
    FrontendOnly,
}

/// Where the protocol features of a gate are. Above them is what else requests need.
const PROTOCOL: u32 = low_half(ProtocolFeatures::KNOWN.bits());
const ACCESS_PLATFORM: u32 = 1 << 23;
const EDID: u32 = 1 << 24;
const DMABUF2: u32 = 1 << 25;
const OFFERED: u32 = 1 << 26;
const OPENED: u32 = 1 << 27;
const FRONTEND_ONLY: u32 = 1 << 28;

const _: () = assert!(PROTOCOL < ACCESS_PLATFORM);

impl Gate {
    /// Open from the start.
    pub(crate) const ALWAYS: Self = Self(0);
    /// Needs `VHOST_USER_F_PROTOCOL_FEATURES` offered.
    pub(super) const OFFERED: Self = Self(OFFERED);
    /// Needs protocol features to be negotiated.
    pub(super) const OPENED: Self = Self(OPENED);
    /// Needs [`VirtioFeatures::ACCESS_PLATFORM`].
    pub(super) const ACCESS_PLATFORM: Self = Self(ACCESS_PLATFORM);
    /// Needs [`GpuFeatures::EDID`].
    pub(super) const EDID: Self = Self(EDID);
    /// Needs [`GpuFeatures::DMABUF2`].
    pub(super) const DMABUF2: Self = Self(DMABUF2);

    /// Needs these protocol features.
    pub(super) const fn needs(protocol: ProtocolFeatures) -> Self {
        Self(low_half(protocol.bits()) & PROTOCOL)
    }

    /// Needs both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The back-end does not insist.
    pub(super) const fn frontend_only(self) -> Self {
        Self(self.0 | FRONTEND_ONLY)
    }

    /// Protocol features acknowledged.
    #[must_use]
    pub fn protocol(&self) -> ProtocolFeatures {
        ProtocolFeatures::from_bits_retain(u64::from(self.0 & PROTOCOL))
    }

    /// Virtio features acknowledged.
    #[must_use]
    pub fn virtio(&self) -> VirtioFeatures {
        if self.has(ACCESS_PLATFORM) { VirtioFeatures::ACCESS_PLATFORM } else { VirtioFeatures::empty() }
    }

    /// Features of the GPU channel acknowledged there.
    #[must_use]
    pub fn gpu(&self) -> GpuFeatures {
        let mut features = GpuFeatures::empty();
        features.set(GpuFeatures::EDID, self.has(EDID));
        features.set(GpuFeatures::DMABUF2, self.has(DMABUF2));
        features
    }

    /// How far the negotiation of protocol features must be.
    #[must_use]
    pub fn negotiation(&self) -> Negotiation {
        match (self.has(OFFERED), self.has(OPENED)) {
            (false, false) => Negotiation::Any,
            (true, false) => Negotiation::Offered,
            (_, true) => Negotiation::Opened,
        }
    }

    /// Whether the back-end too refuses the request when the gate is closed.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        if self.has(FRONTEND_ONLY) { Enforcement::FrontendOnly } else { Enforcement::BothSides }
    }

    const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

const fn low_half(bits: u64) -> u32 {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({self}")?;
        if self.enforcement() == Enforcement::FrontendOnly {
            f.write_str("; for the front-end only")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        match self.negotiation() {
            Negotiation::Any => {}
            Negotiation::Offered => {
                f.write_str("PROTOCOL_FEATURES offered")?;
                separator = ", ";
            }
            Negotiation::Opened => {
                f.write_str("PROTOCOL_FEATURES negotiated")?;
                separator = ", ";
            }
        }
        for (name, _) in self.protocol().iter_names() {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        for (name, _) in self.virtio().iter_names() {
            write!(f, "{separator}virtio {name}")?;
            separator = ", ";
        }
        for (name, _) in self.gpu().iter_names() {
            write!(f, "{separator}GPU {name}")?;
            separator = ", ";
        }
        Ok(())
    }
}
