//! How long a front-end's call may take.

use core::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use super::Frontend;
use crate::deadline::Deadline;

/// What bounds a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// Each call has this long; without a duration, for ever.
    Each(Option<Duration>),
    /// All calls have until then.
    Until(Deadline),
}

impl Default for Limit {
    fn default() -> Self {
        Self::Each(None)
    }
}

impl Limit {
    /// The deadline of a call that begins now.
    pub(super) fn deadline(self) -> Deadline {
        match self {
            Self::Each(None) => Deadline::NEVER,
            Self::Each(Some(timeout)) => Deadline::after(timeout),
            Self::Until(deadline) => deadline,
        }
    }
}

/// A front-end whose calls all end by one deadline; as before again when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct WithDeadline<'f> {
    frontend: &'f mut Frontend,
    before: Limit,
}

impl Frontend {
    /// How long each call may take from now on; `None`, the default, is for ever.
    ///
    /// A call that takes longer fails with [`TimedOut`](super::FrontendError::TimedOut) and ends the session, because its
    /// answer may still come and would be taken for that of the next call.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.limit = Limit::Each(timeout);
    }

    /// The same front-end with one deadline for whatever is called on it.
    ///
    /// ```no_run
    /// # fn run(mut frontend: vhost_std::frontend::Frontend) -> Result<(), vhost_std::frontend::FrontendError> {
    /// use core::time::Duration;
    /// use vhost_std::deadline::Deadline;
    ///
    /// let mut soon = frontend.with_deadline(Deadline::after(Duration::from_secs(1)));
    /// let features = soon.get_features()?;
    /// soon.set_features(features)?; // both within one second
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_deadline(&mut self, deadline: Deadline) -> WithDeadline<'_> {
        let before = core::mem::replace(&mut self.limit, Limit::Until(deadline));
        WithDeadline { frontend: self, before }
    }
}

impl Deref for WithDeadline<'_> {
    type Target = Frontend;

    fn deref(&self) -> &Frontend {
        self.frontend
    }
}

impl DerefMut for WithDeadline<'_> {
    fn deref_mut(&mut self) -> &mut Frontend {
        self.frontend
    }
}

impl Drop for WithDeadline<'_> {
    fn drop(&mut self) {
        self.frontend.limit = self.before;
    }
}
