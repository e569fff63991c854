//! Several requests under way at a time, in as few system calls as their descriptors allow.

use core::ops::Range;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use vhost_core::{Delivery, FrontendRequest, Handles, MessageName};

use super::{
    Confirmation, Frontend, FrontendError, Pacing,
    call::{Due, Request},
};
use crate::{deadline::Deadline, socket::Run};

/// Requests that wait for their answers at most. Their answers fit into the usual buffer of a socket several times, so that
/// a back-end can always go on.
const MOST_WAITING: usize = 60;

/// Requests that are made together: orders, which succeed or fail and tell nothing else.
#[derive(Debug, Default)]
pub(super) struct Batch<'b> {
    bytes: Vec<u8>,
    runs: Vec<Stretch<'b>>,
    /// Each request that was written and not sent.
    written: Vec<(MessageName, Due, Range<usize>)>,
    waiting: VecDeque<MessageName>,
    /// The last request that nothing answers and that no barrier has followed.
    unconfirmed: Option<MessageName>,
    refused: Option<FrontendError>,
}

/// Messages that go with the descriptors of the first.
#[derive(Debug)]
struct Stretch<'b> {
    start: usize,
    handles: Handles<BorrowedFd<'b>>,
}

impl<'b> Batch<'b> {
    /// Makes a request: now, or together with others.
    pub(super) fn order(
        &mut self,
        frontend: &mut Frontend,
        request: FrontendRequest<'_, BorrowedFd<'b>>,
    ) -> Result<(), FrontendError> {
        if frontend.pacing == Pacing::OneByOne {
            return frontend.order(request).inspect_err(|error| {
                if error.ends_session().is_some() {
                    frontend.experience.failed(Pacing::OneByOne);
                }
            });
        }
        frontend.check_alive()?;
        if self.written.len() + self.waiting.len() >= MOST_WAITING {
            self.send(frontend)?;
            while self.waiting.len() > MOST_WAITING / 2 {
                self.take_answer(frontend)?;
            }
        }
        let message = request.code().message();
        let delivery = frontend.confirmation.delivery();
        let start = self.bytes.len();
        let due = {
            let mut state = frontend.shared.lock();
            let before = state.machine.outstanding();
            let transmit = state.machine.request(request, delivery, &mut frontend.out[..])?;
            if self.runs.is_empty() || !transmit.handles.is_empty() {
                self.runs.push(Stretch { start, handles: transmit.handles });
            }
            self.bytes.extend_from_slice(transmit.bytes);
            if state.machine.outstanding() > before { Due::Answer } else { Due::Nothing }
        };
        self.written.push((message, due, start..self.bytes.len()));
        Ok(())
    }

    /// Has everything confirmed that was made so far. The first that was refused decides.
    pub(super) fn confirm(&mut self, frontend: &mut Frontend) -> Result<(), FrontendError> {
        self.send(frontend)?;
        self.take_answers(frontend)?;
        let refused = self.refused.take();
        if let Some(message) = self.unconfirmed.take() {
            if frontend.confirmation == Confirmation::Barrier {
                let deadline = frontend.limit.deadline();
                let outcome = frontend.send(message, Request::GetFeatures, Delivery::Unacknowledged, deadline);
                let outcome = outcome.and_then(|_| frontend.receive(message, deadline, &mut |_| ()));
                frontend.conclude(Some(message), outcome)?;
            }
            frontend.previous = Some(message);
        }
        refused.map_or(Ok(()), Err)
    }

    fn send(&mut self, frontend: &mut Frontend) -> Result<(), FrontendError> {
        let Some((first, ..)) = self.written.first() else { return Ok(()) };
        let first = *first;
        let several = self.written.len() + self.waiting.len() > 1;
        let outcome = self.transmit(frontend, frontend.limit.deadline());
        for (message, due, _) in self.written.drain(..) {
            match due {
                Due::Answer => self.waiting.push_back(message),
                Due::Nothing => self.unconfirmed = Some(message),
            }
        }
        self.bytes.clear();
        self.runs.clear();
        let outcome = outcome.map_err(|error| FrontendError::of_socket(Some(first), frontend.previous, error));
        if let Err(error) = &outcome {
            if several {
                frontend.experience.failed(Pacing::Pipelined);
            }
            if let FrontendError::Closed(_) = error {
                // What the back-end has answered before it went tells why.
                self.take_answers(frontend)?;
            }
        }
        frontend.conclude(None, outcome)
    }

    fn transmit(&self, frontend: &Frontend, deadline: Deadline) -> Result<(), crate::socket::SocketError> {
        let ends = self.runs.iter().skip(1).map(|run| run.start).chain([self.bytes.len()]);
        let runs = self
            .runs
            .iter()
            .zip(ends)
            .map(|(run, end)| Run { bytes: self.bytes.get(run.start..end).unwrap_or_default(), handles: &run.handles });
        frontend.endpoint.send_runs(&Vec::from_iter(runs), deadline)?;
        for (.., range) in &self.written {
            let handles = self.runs.iter().find(|run| run.start == range.start).map_or(0, |run| run.handles.len());
            frontend.endpoint.saw_sent(self.bytes.get(range.clone()).unwrap_or_default(), handles);
        }
        Ok(())
    }

    fn take_answers(&mut self, frontend: &mut Frontend) -> Result<(), FrontendError> {
        while !self.waiting.is_empty() {
            self.take_answer(frontend)?;
        }
        Ok(())
    }

    /// Takes the answer to the oldest request. A refusal is kept for the end.
    fn take_answer(&mut self, frontend: &mut Frontend) -> Result<(), FrontendError> {
        let Some(message) = self.waiting.pop_front() else { return Ok(()) };
        let outcome = frontend.receive(message, frontend.limit.deadline(), &mut |_| ());
        match frontend.conclude(Some(message), outcome) {
            Err(error) if error.ends_session().is_none() => {
                self.refused.get_or_insert(error);
                Ok(())
            }
            Err(error) => {
                // Nothing else comes.
                if !self.waiting.is_empty() {
                    frontend.experience.failed(Pacing::Pipelined);
                }
                self.waiting.clear();
                self.unconfirmed = None;
                Err(self.refused.take().unwrap_or(error))
            }
            Ok(()) => Ok(()),
        }
    }
}

impl Frontend {
    /// Makes all orders of `requests` and then has them confirmed. The first one that failed decides.
    pub(super) fn together<'b, T>(
        &mut self,
        requests: impl FnOnce(&mut Self, &mut Batch<'b>) -> Result<T, FrontendError>,
    ) -> Result<T, FrontendError> {
        let mut batch = Batch::default();
        let outcome = requests(self, &mut batch);
        batch.confirm(self).and(outcome)
    }
}
