//! Bytes: the columns of the request tables.

use core::fmt;

use super::{
    feature::ProtocolFeatures,
    gpu::DmabufScanout,
    memory::{MAX_TABLE_REGIONS, TableHeader},
    migration::Transfer,
    payload::{Form, PayloadKind},
    vring::VringDescriptor,
};

pub use super::gate::{Enforcement, Gate, Negotiation};

use zerocopy::FromBytes;

/// One line of a request table. Its name is told by [`MessageName::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// What must be negotiated before it may be sent.
    pub gate: Gate,
    /// See [`Self::id`]; no known one is larger.
    pub(super) id: u16,
    /// What the request carries.
    pub payload: PayloadKind,
    /// Which descriptors come with the request.
    pub handles: HandleRule,
    /// How it is answered.
    pub reply: ReplyRule,
    /// What a reply of its own carries.
    pub reply_payload: PayloadKind,
    /// Which descriptors come with a reply of its own.
    pub reply_handles: HandleRule,
}

impl Row {
    /// The id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        u32::from(self.id)
    }
}

/// The lines of a table in the order of their ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    /// Those of the ids 1, 2, 3 and so on.
    ordered: &'static [Row],
    /// Those behind a gap.
    others: &'static [Row],
}

impl Table {
    pub(super) const fn new(rows: &'static [Row]) -> Self {
        let (mut others, mut count) = (rows, 0_u16);
        while let [Row { id, .. }, rest @ ..] = others
            && *id == count.wrapping_add(1)
        {
            (others, count) = (rest, *id);
        }
        let ordered = match rows.split_at_checked(rows.len().wrapping_sub(others.len())) {
            Some((ordered, _)) => ordered,
            None => rows,
        };
        Self { ordered, others }
    }

    /// The line of this id.
    #[inline]
    pub(super) fn row(self, id: u32) -> Option<&'static Row> {
        let place = usize::try_from(id).ok()?.checked_sub(1)?;
        match self.ordered.get(place) {
            Some(row) => Some(row),
            None if self.others.is_empty() => None,
            None => find(self.others, id),
        }
    }
}

#[inline(never)]
fn find(rows: &'static [Row], id: u32) -> Option<&'static Row> {
    rows.iter().find(|row| row.id() == id)
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

    /// The name in the specification, without its prefix; `None` for an unknown id.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match self.channel {
            Channel::Frontend => super::frontend_request::FrontendCode(self.id).name(),
            Channel::Backend => super::backend_request::BackendCode(self.id).name(),
            Channel::Gpu => super::gpu::GpuCode(self.id).name(),
        }
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.channel) {
            (Some(name), _) => write!(f, "{name} ({})", self.id),
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
    /// Whether a message with this payload may have so many descriptors.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn allows(self, found: usize, payload: &[u8], form: Form) -> bool {
        // Most have none.
        if self == Self::None {
            return found == 0;
        }
        let HandleCount { least, most } = self.count(payload, form);
        least <= found && found <= most
    }

    /// How many descriptors a message with this payload takes. If the payload cannot tell, any
    /// number: then decoding the payload tells what is wrong with it.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
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
