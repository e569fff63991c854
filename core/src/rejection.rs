//! What becomes of a request that a machine does not hand on.

use core::fmt;

use crate::{
    error::{ApiMisuse, DecodeError, Fault, PeerMisbehaved},
    rules::Violation,
    session::Negotiated,
    wire::{
        header::Header,
        misfit::Found,
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
    #[inline(never)]
    pub(crate) fn no_request(header: &Header, channel: Channel) -> Self {
        let message = MessageName { channel, id: header.request() };
        Self::close(header.fault_or(channel, DecodeError::ReplyInsteadOfRequest { message }))
    }

    /// The bytes do not make the request of this row; `None` if there is no such request.
    #[cold]
    #[inline(never)]
    pub(crate) fn misfit(found: &Found<'_>, row: Option<&Row>) -> Self {
        Self::refuse(match row {
            Some(row) => found.fault(row.payload, row.handles),
            None => DecodeError::UnknownRequest { message: found.message },
        })
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

/// The row of a request and its payload; `None` if there is no such request.
///
/// Refuses what is no request, a request whose gate is closed, and one whose size or descriptors are
/// not those of its row.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn admit<'b>(
    header: &Header,
    found: &Found<'b>,
    row: Option<&'static Row>,
    negotiated: &Negotiated,
) -> Result<(&'static Row, &'b [u8]), Rejection> {
    if !header.is_request() {
        return Err(Rejection::no_request(header, found.message.channel));
    }
    let Some(row) = row else { return Err(Rejection::misfit(found, None)) };
    if row.gate.enforcement() == Enforcement::BothSides && !negotiated.opens(&row.gate) {
        return Err(Rejection::violation(found.message, &Violation::NotNegotiated { gate: row.gate }));
    }
    match found.payload_of(row.payload, row.handles) {
        Some(payload) => Ok((row, payload)),
        None => Err(Rejection::misfit(found, Some(row))),
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl core::error::Error for Rejection {}
