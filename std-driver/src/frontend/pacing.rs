//! Several requests under way at a time.

use std::collections::VecDeque;

use vhost_core::{Delivery, MessageName};

use super::{
    Confirmation, Frontend, FrontendError,
    call::{Due, Request},
};

/// Requests that wait for their answers at most: their answers fit into the smallest buffer of a socket, so that a
/// back-end can always go on.
const MOST_WAITING: usize = 32;

/// How [`bring_up`](Frontend::bring_up) and [`tear_down`](Frontend::tear_down) make their requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pacing {
    /// Each is confirmed before the next is made.
    OneByOne,
    /// One after the other; then all are confirmed. Several times as fast, and every back-end that reads its requests from
    /// a stream takes it. After a refusal the requests behind it have been carried out too.
    #[default]
    Pipelined,
}

/// Requests that were made together and are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: VecDeque<MessageName>,
    /// The last request that nothing answers and that no barrier has followed.
    unconfirmed: Option<MessageName>,
    refused: Option<FrontendError>,
}

impl Frontend {
    /// Sets how devices are started and stopped.
    pub fn set_pacing(&mut self, pacing: Pacing) {
        self.pacing = pacing;
    }

    /// Makes all orders of `requests` and then has them confirmed. The first one that failed decides.
    pub(super) fn together<T>(
        &mut self,
        requests: impl FnOnce(&mut Self) -> Result<T, FrontendError>,
    ) -> Result<T, FrontendError> {
        if self.pacing == Pacing::Pipelined {
            self.batch = Some(Batch::default());
        }
        let outcome = requests(self);
        let confirmed = self.confirm_batch();
        self.batch = None;
        confirmed.and(outcome)
    }

    /// Makes a request of a batch, if there is one; else gives the request back.
    pub(super) fn add_to_batch<'b>(&mut self, request: Request<'b>) -> Result<Option<Request<'b>>, FrontendError> {
        let Some(batch) = &self.batch else { return Ok(Some(request)) };
        if batch.waiting.len() >= MOST_WAITING {
            self.take_answer()?;
        }
        let message = request.code().message();
        let deadline = self.limit.deadline();
        let sent = self.send(message, request, self.confirmation.delivery(), deadline);
        if let Err(FrontendError::Closed(_)) = sent {
            // What the back-end has answered before it went tells why.
            self.confirm_batch()?;
        }
        let due = self.conclude(None, sent)?;
        if let Some(batch) = &mut self.batch {
            match due {
                Due::Answer => batch.waiting.push_back(message),
                Due::Nothing => batch.unconfirmed = Some(message),
            }
        }
        Ok(None)
    }

    /// Has everything confirmed that was made in the batch so far.
    pub(super) fn confirm_batch(&mut self) -> Result<(), FrontendError> {
        while self.batch.as_ref().is_some_and(|batch| !batch.waiting.is_empty()) {
            self.take_answer()?;
        }
        let Some(batch) = &mut self.batch else { return Ok(()) };
        let refused = batch.refused.take();
        if let Some(message) = batch.unconfirmed.take() {
            if self.confirmation == Confirmation::Barrier {
                let deadline = self.limit.deadline();
                let outcome = self.send(message, Request::GetFeatures, Delivery::Unacknowledged, deadline);
                let outcome = outcome.and_then(|_| self.receive(message, deadline, |_| Some(())));
                self.conclude(Some(message), outcome)?;
            }
            self.previous = Some(message);
        }
        refused.map_or(Ok(()), Err)
    }

    /// Takes the answer to the oldest request of the batch. A refusal is kept for the end.
    fn take_answer(&mut self) -> Result<(), FrontendError> {
        let Some(message) = self.batch.as_mut().and_then(|batch| batch.waiting.pop_front()) else { return Ok(()) };
        let outcome = self.receive(message, self.limit.deadline(), |_| Some(()));
        let outcome = self.conclude(Some(message), outcome);
        let Some(batch) = &mut self.batch else { return outcome };
        match outcome {
            Err(error) if error.ends_session().is_none() => {
                batch.refused.get_or_insert(error);
                Ok(())
            }
            Err(error) => {
                // Nothing else comes.
                batch.waiting.clear();
                batch.unconfirmed = None;
                Err(batch.refused.take().unwrap_or(error))
            }
            Ok(()) => Ok(()),
        }
    }
}
