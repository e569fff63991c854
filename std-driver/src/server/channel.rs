//! The back-end's own requests: the channel of `SET_BACKEND_REQ_FD`, and who may speak on it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::event::epoll::EventFlags;
use vhost_core::{ApiMisuse, BackendReply, BackendRequest, Channel, Delivery, MAX_MESSAGE};

use super::{
    connection::Machine,
    mapping::{Asker, MappingError, Posted},
    ready::{Waiter, Watched},
};
use crate::{
    endpoint::{Endpoint, EndpointError, Message, Reading},
    eventfd::EventFd,
    socket::Socket,
    system_error::SystemError,
};

/// The back-end's channel of one connection.
#[derive(Debug)]
pub(super) struct BackendChannel {
    endpoint: Endpoint,
    /// Who waits for the answers, in the order of the requests.
    waiting: VecDeque<Asker>,
    watched: Option<Watched>,
}

impl BackendChannel {
    pub(super) fn new(socket: Socket) -> Self {
        Self { endpoint: Endpoint::new(socket, Channel::Backend), waiting: VecDeque::new(), watched: None }
    }

    /// Makes a request if the session allows it and nothing waits to be sent; `false` if not.
    ///
    /// An answer is never waited for here: the front-end may ask us something on the other channel
    /// before it answers (QEMU reads the configuration first).
    pub(super) fn request(
        &mut self,
        machine: &mut Machine,
        request: BackendRequest<'_, BorrowedFd<'_>>,
    ) -> Result<bool, EndpointError> {
        self.endpoint.flush()?;
        if self.endpoint.has_unsent() {
            return Ok(false);
        }
        let mut out = [0; MAX_MESSAGE];
        match machine.request(request, Delivery::Unacknowledged, &mut out) {
            Ok(transmit) => self.endpoint.offer(&transmit).map(|()| true).map_err(EndpointError::Socket),
            Err(_) => Ok(false),
        }
    }

    /// Makes a request of the device, and remembers who waits for its answer. Gives it back if that is not possible yet.
    pub(super) fn forward(&mut self, machine: &mut Machine, posted: Posted) -> Result<Option<Posted>, EndpointError> {
        self.endpoint.flush()?;
        if self.endpoint.has_unsent() {
            return Ok(Some(posted));
        }
        let mut out = [0; MAX_MESSAGE];
        let before = machine.outstanding();
        let refused = match machine.request(posted.request(), Delivery::Acknowledged, &mut out) {
            Ok(transmit) => {
                self.endpoint.offer(&transmit)?;
                None
            }
            Err(misuse) => Some(misuse),
        };
        match refused {
            None => {}
            // There is room when an answer has come.
            Some(ApiMisuse::TooManyOutstanding { .. }) => return Ok(Some(posted)),
            Some(misuse) => {
                posted.fail(MappingError::NotAsked(misuse));
                return Ok(None);
            }
        }
        if machine.outstanding() > before {
            self.waiting.push_back(posted.asker);
        } else {
            // Without acknowledgements it counts as done.
            let _ = posted.asker.try_send(Ok(()));
        }
        Ok(None)
    }

    /// Whether a request waits for room in the socket.
    pub(super) fn has_unsent(&self) -> bool {
        self.endpoint.has_unsent()
    }

    /// Has it watched: also for room, while something is not sent.
    pub(super) fn watch(&mut self, waiter: &Waiter) -> Result<(), SystemError> {
        let events = if self.has_unsent() { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        waiter.watch_channel(&mut self.watched, self.endpoint.as_fd(), events)
    }

    /// Takes the answers that are there. `false` when the front-end has closed the channel or it is
    /// of no further use; the session itself goes on.
    pub(super) fn receive(&mut self, machine: &mut Machine, reading: Reading) -> bool {
        if self.endpoint.flush().is_err() {
            return false;
        }
        for count in 0_usize.. {
            if count > 0 && !self.endpoint.has_received() && self.endpoint.is_read(reading) {
                break;
            }
            match self.endpoint.try_receive() {
                Ok(Message::NotYet) => return true,
                Ok(Message::Frame(frame)) => match machine.handle_reply(frame) {
                    // What was merely told is not answered, so each answer is for whoever has waited longest.
                    Ok(reply) => {
                        if let Some(asker) = self.waiting.pop_front() {
                            let _ = asker.try_send(match reply {
                                BackendReply::Refused(number) => Err(MappingError::Refused(number)),
                                _ => Ok(()),
                            });
                        }
                    }
                    Err(_) => return false,
                },
                Ok(Message::Closed) | Err(_) => return false,
            }
        }
        true
    }
}

impl Drop for BackendChannel {
    fn drop(&mut self) {
        if let Some(watched) = &self.watched {
            watched.end(self.endpoint.as_fd());
        }
    }
}

impl AsFd for BackendChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.endpoint.as_fd()
    }
}

/// Tells the front-end, through whatever connection there is, that something about the device
/// changed, and asks it for mappings. Cheap to clone; from any thread.
#[derive(Clone, Debug)]
pub struct DeviceNotifier {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config_changed: AtomicBool,
    /// `None` while there is no connection.
    posted: Mutex<Option<VecDeque<Posted>>>,
    event: EventFd,
}

impl DeviceNotifier {
    pub(super) fn new() -> Result<Self, SystemError> {
        let event = EventFd::new()?;
        let (config_changed, posted) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { config_changed, posted, event }) })
    }

    /// The configuration space reads differently now. Without a channel to tell it on, the next
    /// one that opens is told.
    ///
    /// # Errors
    /// The errno of `write`.
    pub fn config_changed(&self) -> Result<(), SystemError> {
        self.shared.config_changed.store(true, Ordering::Release);
        self.signal()
    }

    /// Requests that wait to be sent; `None` while there is no connection.
    pub(super) fn posted(&self) -> MutexGuard<'_, Option<VecDeque<Posted>>> {
        // Nothing under the lock can panic half way.
        self.shared.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that waits longest.
    pub(super) fn next_posted(&self) -> Option<Posted> {
        self.posted().as_mut()?.pop_front()
    }

    /// Puts the request back that could not be sent yet.
    pub(super) fn post_again(&self, posted: Posted) {
        if let Some(waiting) = self.posted().as_mut() {
            waiting.push_front(posted);
        }
    }

    /// Wakes the connection.
    pub(super) fn signal(&self) -> Result<(), SystemError> {
        self.shared.event.signal()
    }

    /// Becomes readable when there is something to tell.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Whether a change waits to be told, without a look at the descriptor.
    pub(super) fn has_news(&self) -> bool {
        self.shared.config_changed.load(Ordering::Acquire)
            || self.posted().as_ref().is_some_and(|waiting| !waiting.is_empty())
    }

    /// Whether a change is to be told; the caller tells it, or [keeps](Self::keep_config_change) it.
    ///
    /// It is forgotten before it is told, so that a change that comes meanwhile is told too.
    pub(super) fn take_config_change(&self) -> Result<bool, SystemError> {
        self.shared.event.drain()?;
        Ok(self.shared.config_changed.swap(false, Ordering::AcqRel))
    }

    /// The change could not be told. Nobody wakes for it: it is looked for after the next message.
    pub(super) fn keep_config_change(&self) {
        self.shared.config_changed.store(true, Ordering::Release);
    }
}
