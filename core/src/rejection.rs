//! What becomes of a request that a machine does not hand on.

use core::fmt;

use crate::{
    assembler::Frame,
    error::{ApiMisuse, DecodeError, Fault, PeerMisbehaved},
    rules::Violation,
    session::Negotiated,
    wire::{
        header::Header,
        misfit::Found,
        payload::Form,
        row::{Channel, Enforcement, MessageName, Row},
    },
};

/// Why a request was not handed on, and what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    fault: Fault,
    verdict: Verdict,
}

/// What is to be done about a rejected request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Answer it with a refusal, like a request that the device refuses; the session goes on.
    Refuse,
    /// Close the connection; the machine has failed.
    Close,
    /// Nothing: the machine was used wrongly and is as before.
    Misuse,
}

impl Rejection {
    pub(crate) fn refuse(fault: impl Into<Fault>) -> Self {
        Self { fault: fault.into(), verdict: Verdict::Refuse }
    }

    pub(crate) fn close(fault: impl Into<Fault>) -> Self {
        Self { fault: fault.into(), verdict: Verdict::Close }
    }

    /// The machine was used after its end.
    #[cold]
    #[inline(never)]
    pub(crate) fn session_failed() -> Self {
        Self { fault: ApiMisuse::SessionFailed.into(), verdict: Verdict::Misuse }
    }

    /// The machine was used before `message` was answered.
    #[cold]
    #[inline(never)]
    pub(crate) fn answer_outstanding(message: MessageName) -> Self {
        Self { fault: ApiMisuse::AnswerOutstanding { message }.into(), verdict: Verdict::Misuse }
    }

    /// The header's flags are not those of a request.
    #[cold]
    pub(crate) fn no_request(header: &Header, channel: Channel) -> Self {
        let message = MessageName { channel, id: header.request() };
        Self::close(header.fault_or(channel, DecodeError::ReplyInsteadOfRequest { message }))
    }

    /// The request breaks a rule.
    #[cold]
    #[inline(never)]
    pub(crate) fn violation(message: MessageName, violation: &Violation) -> Self {
        let violation = *violation;
        Self::refuse(PeerMisbehaved::Violation { message, violation })
    }

    /// What was wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// What is to be done.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

/// Why a request is not looked at any further.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Obstacle {
    /// It is none.
    NoRequest,
    /// Its gate is closed.
    Gate,
    /// It is not what its row says, or there is no such request.
    Misfit,
}

/// Whether a request of this row may come now, and its size and descriptors are those of its row.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn admit<H>(
    frame: &mut Frame<'_, H>,
    row: &Row,
    form: Form,
    negotiated: &Negotiated,
) -> Result<(), Obstacle> {
    if !frame.header.is_request() {
        return Err(Obstacle::NoRequest);
    }
    let open = row.gate.enforcement() == Enforcement::FrontendOnly || negotiated.opens(&row.gate);
    if !open {
        return Err(Obstacle::Gate);
    }
    if frame.fit(row.payload, row.handles, form) { Ok(()) } else { Err(Obstacle::Misfit) }
}

impl Obstacle {
    /// What there is in the way of a message that has no row.
    #[cold]
    pub(crate) fn without_row(header: &Header) -> Self {
        if header.is_request() { Self::Misfit } else { Self::NoRequest }
    }

    /// What becomes of a request of this row; `None` if there is no such request.
    #[cold]
    #[inline(never)]
    pub(crate) fn rejection(self, header: &Header, found: &Found<'_>, row: Option<&Row>) -> Rejection {
        let message = found.message;
        match (self, row) {
            (Self::NoRequest, _) => Rejection::no_request(header, message.channel),
            (Self::Gate, Some(row)) => Rejection::violation(message, &Violation::NotNegotiated { gate: row.gate }),
            (Self::Misfit, Some(row)) => Rejection::refuse(found.fault(row.payload, row.handles)),
            (Self::Gate | Self::Misfit, None) => Rejection::refuse(DecodeError::UnknownRequest { message }),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl core::error::Error for Rejection {}
