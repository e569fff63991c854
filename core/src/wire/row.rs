//! Bytes: the columns of the request tables.

use core::fmt;

use super::{
    feature::{ProtocolFeatures, VirtioFeatures},
    gpu::{DmabufScanout, GpuFeatures},
    memory::{MAX_TABLE_REGIONS, TableHeader},
    migration::Transfer,
    payload::{Form, PayloadKind},
    vring::VringDescriptor,
};

use zerocopy::FromBytes;

/// One line of a request table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// The id on the wire.
    pub id: u32,
    /// The name in the specification, without its prefix.
    pub name: &'static str,
    /// What the request carries.
    pub payload: PayloadKind,
    /// Which descriptors come with the request.
    pub handles: HandleRule,
    /// What must be negotiated before it may be sent.
    pub gate: Gate,
    /// How it is answered.
    pub reply: ReplyRule,
    /// What a reply of its own carries.
    pub reply_payload: PayloadKind,
    /// Which descriptors come with a reply of its own.
    pub reply_handles: HandleRule,
}

/// The channel on which a message travels; each has its own ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Requests of the front-end and their replies.
    Frontend,
    /// Requests of the back-end and their replies (the channel of `SET_BACKEND_REQ_FD`).
    Backend,
    /// The display's requests and their replies (the channel of `GPU_SET_SOCKET`): a protocol of
    /// its own without versions.
    Gpu,
}

/// A message by channel and id; shows itself by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageName {
    /// The channel.
    pub channel: Channel,
    /// The id, known or not.
    pub id: u32,
}

impl MessageName {
    /// The message's line in its table; `None` for an unknown id.
    #[must_use]
    pub fn row(&self) -> Option<&'static Row> {
        match self.channel {
            Channel::Frontend => super::frontend_request::FrontendCode(self.id).row(),
            Channel::Backend => super::backend_request::BackendCode(self.id).row(),
            Channel::Gpu => super::gpu::GpuCode(self.id).row(),
        }
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.row(), self.channel) {
            (Some(row), _) => write!(f, "{} ({})", row.name, self.id),
            (None, Channel::Frontend) => write!(f, "front-end request {}", self.id),
            (None, Channel::Backend) => write!(f, "back-end request {}", self.id),
            (None, Channel::Gpu) => write!(f, "GPU request {}", self.id),
        }
    }
}

/// Which descriptors come with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandleRule {
    /// None.
    None,
    /// Exactly one.
    One,
    /// One or none, whatever the payload says.
    Optional,
    /// None; old front-ends send one, which is closed unused.
    Tolerated,
    /// One for each region of the memory table.
    PerRegion,
    /// One, unless bit 8 of the payload is set.
    UnlessBit8,
    /// The same, but an error in bits 0 to 7 may come without either.
    UnlessBit8OrError,
    /// One with `LOG_SHMFD`, else none.
    WithLogFile,
    /// One, unless width or height is zero: then the scanout is turned off.
    IfShown,
}

/// How many descriptors a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleCount {
    /// At least so many.
    pub least: usize,
    /// At most so many.
    pub most: usize,
}

impl fmt::Display for HandleCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least == self.most { write!(f, "{}", self.least) } else { write!(f, "{} to {}", self.least, self.most) }
    }
}

impl HandleRule {
    /// How many descriptors a message with this payload takes. If the payload cannot tell, any
    /// number: then decoding the payload tells what is wrong with it.
    pub(crate) fn count(self, payload: &[u8], form: Form) -> HandleCount {
        let exactly = |count| HandleCount { least: count, most: count };
        let any = HandleCount { least: 0, most: usize::MAX };
        match self {
            Self::None => exactly(0),
            Self::One => exactly(1),
            Self::Optional | Self::Tolerated => HandleCount { least: 0, most: 1 },
            Self::PerRegion => match TableHeader::ref_from_prefix(payload) {
                Ok((header, _)) => match usize::try_from(header.count()) {
                    Ok(count) if count <= MAX_TABLE_REGIONS => exactly(count),
                    _ => any,
                },
                Err(_) => any,
            },
            Self::UnlessBit8OrError => match VringDescriptor::ref_from_prefix(payload) {
                Ok((reply, _)) if reply.bits() & Transfer::ERROR_MASK != 0 => HandleCount { least: 0, most: 1 },
                _ => Self::UnlessBit8.count(payload, form),
            },
            Self::UnlessBit8 => match VringDescriptor::ref_from_prefix(payload) {
                Ok((target, _)) if target.has_descriptor() => exactly(1),
                Ok(_) => exactly(0),
                Err(_) => any,
            },
            Self::WithLogFile if form.protocol.contains(ProtocolFeatures::LOG_SHMFD) => exactly(1),
            Self::WithLogFile => exactly(0),
            Self::IfShown => match DmabufScanout::ref_from_prefix(payload) {
                Ok((scanout, _)) if scanout.is_shown() => exactly(1),
                _ => exactly(0),
            },
        }
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplyRule {
    /// A number, zero for success, if the sender asked and `REPLY_ACK` is negotiated.
    Acknowledged,
    /// The same, and with the flag set even without `REPLY_ACK` (as QEMU sends it).
    AcknowledgedWhenFlagged,
    /// A number, zero for success, always.
    Status,
    /// A reply of its own, always; and what is sent instead when the request is refused.
    Own(Refusal),
    /// With `LOG_SHMFD` a reply whose content means nothing; else as [`ReplyRule::Acknowledged`].
    LogFile,
    /// While postcopy listens, the memory with the addresses it got; else as
    /// [`ReplyRule::Acknowledged`].
    Postcopy,
    /// Nothing, ever.
    Never,
    /// A reply without payload, always: it tells when, not whether.
    Empty,
    /// A reply of its own if the sender asked, even without `REPLY_ACK`; and what is sent instead
    /// when the request is refused.
    OwnWhenFlagged(Refusal),
}

/// What answers a request that has a reply of its own and is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such answer: the connection is closed.
    Close,
    /// A reply without payload and without descriptor.
    Empty,
    /// A payload of zeros without descriptor.
    Zeros,
    /// The error number without descriptor.
    ErrorNumber,
    /// The error number with bit 8, which says that no descriptor comes.
    ErrorWithoutDescriptor,
    /// The payload of the request with a session id that tells the failure.
    NoSession,
    /// A virtio-gpu response of the reply's size that tells the error, and zeros.
    GpuError,
    /// The error number below zero.
    NegativeNumber,
}

/// What must be negotiated before a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Gate {
    /// Protocol features acknowledged.
    pub protocol: ProtocolFeatures,
    /// Virtio features acknowledged.
    pub virtio: VirtioFeatures,
    /// Features of the GPU channel acknowledged there.
    pub gpu: GpuFeatures,
    /// How far the negotiation of protocol features must be.
    pub negotiation: Negotiation,
    /// Whether the back-end too refuses the request when the gate is closed.
    pub enforcement: Enforcement,
}

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

impl Gate {
    /// Open from the start.
    pub const ALWAYS: Self = Self {
        protocol: ProtocolFeatures::empty(),
        virtio: VirtioFeatures::empty(),
        gpu: GpuFeatures::empty(),
        negotiation: Negotiation::Any,
        enforcement: Enforcement::BothSides,
    };
    /// Needs `VHOST_USER_F_PROTOCOL_FEATURES` offered.
    pub const OFFERED: Self = Self { negotiation: Negotiation::Offered, ..Self::ALWAYS };
    /// Needs protocol features to be negotiated.
    pub const OPENED: Self = Self { negotiation: Negotiation::Opened, ..Self::ALWAYS };

    /// Needs these protocol features.
    #[must_use]
    pub const fn protocol(protocol: ProtocolFeatures) -> Self {
        Self { protocol, ..Self::ALWAYS }
    }

    /// Needs these virtio features.
    #[must_use]
    pub const fn virtio(virtio: VirtioFeatures) -> Self {
        Self { virtio, ..Self::ALWAYS }
    }

    /// Needs these features of the GPU channel.
    #[must_use]
    pub const fn gpu(gpu: GpuFeatures) -> Self {
        Self { gpu, ..Self::ALWAYS }
    }

    /// Needs these virtio features too.
    #[must_use]
    pub const fn and_virtio(self, virtio: VirtioFeatures) -> Self {
        Self { virtio, ..self }
    }

    /// The back-end does not insist.
    #[must_use]
    pub const fn frontend_only(self) -> Self {
        Self { enforcement: Enforcement::FrontendOnly, ..self }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        match self.negotiation {
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
        for (name, _) in self.protocol.iter_names() {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        for (name, _) in self.virtio.iter_names() {
            write!(f, "{separator}virtio {name}")?;
            separator = ", ";
        }
        for (name, _) in self.gpu.iter_names() {
            write!(f, "{separator}GPU {name}")?;
            separator = ", ";
        }
        Ok(())
    }
}
