//! What becomes of a request that a machine does not hand on.

use core::fmt;

use crate::error::{ApiMisuse, Fault};

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

    pub(crate) fn misuse(misuse: ApiMisuse) -> Self {
        Self { fault: misuse.into(), verdict: Verdict::Misuse }
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

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl core::error::Error for Rejection {}
