//! What a connection waits for, and what of it has come.
//!
//! An `epoll` instance: a wait costs the same for one descriptor and for six. The main socket is reported at its changes, so
//! that it is looked at once a message and not twice; the others are reported for as long as there is something to do.

use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::{deadline::Deadline, endpoint::Reading, system_error::SystemError};

/// Which descriptors there is something to do at.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    pub(super) main: bool,
    pub(super) notifier: bool,
    pub(super) iommu: bool,
    pub(super) channel: bool,
    pub(super) transfer: bool,
    pub(super) rings: bool,
    /// How far the main socket is to be read.
    pub(super) reading: Reading,
}

impl Ready {
    /// Nobody has looked: any of them may be.
    pub(super) const UNKNOWN: Self = Self {
        main: true,
        notifier: true,
        iommu: true,
        channel: true,
        transfer: true,
        rings: true,
        reading: Reading::ToTheEnd,
    };
    const NOTHING: Self = Self {
        main: false,
        notifier: false,
        iommu: false,
        channel: false,
        transfer: false,
        rings: false,
        reading: Reading::WhatIsThere,
    };
}

/// The descriptors that are there as long as the connection, and the one that ends it.
pub(super) struct Descriptors<'c> {
    pub(super) main: BorrowedFd<'c>,
    pub(super) notifier: BorrowedFd<'c>,
    pub(super) iommu: BorrowedFd<'c>,
    pub(super) rings: Option<BorrowedFd<'c>>,
    pub(super) stop: BorrowedFd<'c>,
}

/// What the main socket is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Main {
    /// To have a message, or to be closed.
    Message,
    /// To have room: while a reply is not taken, nothing more is heard from this front-end.
    Room,
}

/// How long to wait.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    Until(Deadline),
    /// Not at all, as there may be more on the main socket.
    None,
}

/// Waits for a connection.
pub(super) struct Waiter {
    epoll: Arc<OwnedFd>,
    main: Main,
    /// The front-end will say no more than what is there.
    hung_up: bool,
}

/// Where a descriptor that comes and goes is watched.
#[derive(Debug)]
pub(super) struct Watched {
    epoll: Arc<OwnedFd>,
    events: EventFlags,
}

const MAIN: u64 = 0;
const NOTIFIER: u64 = 1;
const IOMMU: u64 = 2;
const RINGS: u64 = 3;
const STOP: u64 = 4;
const CHANNEL: u64 = 5;
const TRANSFER: u64 = 6;
/// All of them.
const MOST: usize = 7;

/// The longest wait that every kernel takes; whoever wakes too early waits again.
const LONGEST: Duration = Duration::from_secs(86_400);

impl Main {
    fn events(self) -> EventFlags {
        EventFlags::ET
            | match self {
                Self::Message => EventFlags::IN | EventFlags::RDHUP,
                Self::Room => EventFlags::OUT,
            }
    }
}

impl Waiter {
    pub(super) fn new(descriptors: &Descriptors<'_>) -> Result<Self, SystemError> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC).map_err(SystemError::of("epoll_create1"))?);
        let main = Main::Message;
        let Descriptors { main: socket, notifier, iommu, rings, stop } = *descriptors;
        let always = [(NOTIFIER, Some(notifier)), (IOMMU, Some(iommu)), (RINGS, rings), (STOP, Some(stop))];
        let readable = always.map(|(token, descriptor)| (token, descriptor, EventFlags::IN));
        for (token, descriptor, events) in readable.into_iter().chain([(MAIN, Some(socket), main.events())]) {
            if let Some(descriptor) = descriptor {
                let added = epoll::add(&epoll, descriptor, EventData::new_u64(token), events);
                added.map_err(SystemError::of("epoll_ctl"))?;
            }
        }
        Ok(Self { epoll, main, hung_up: false })
    }

    /// Has the main socket watched for this.
    pub(super) fn watch_main(&mut self, socket: BorrowedFd<'_>, main: Main) -> Result<(), SystemError> {
        if self.main != main {
            let changed = epoll::modify(&self.epoll, socket, EventData::new_u64(MAIN), main.events());
            changed.map_err(SystemError::of("epoll_ctl"))?;
            self.main = main;
        }
        Ok(())
    }

    /// Has the back-end's channel watched for these.
    pub(super) fn watch_channel(
        &self,
        watched: &mut Option<Watched>,
        channel: BorrowedFd<'_>,
        events: EventFlags,
    ) -> Result<(), SystemError> {
        self.watch(watched, channel, CHANNEL, events)
    }

    /// Has the transfer of a state watched.
    pub(super) fn watch_transfer(
        &self,
        watched: &mut Option<Watched>,
        transfer: BorrowedFd<'_>,
    ) -> Result<(), SystemError> {
        self.watch(watched, transfer, TRANSFER, EventFlags::IN)
    }

    fn watch(
        &self,
        watched: &mut Option<Watched>,
        descriptor: BorrowedFd<'_>,
        token: u64,
        events: EventFlags,
    ) -> Result<(), SystemError> {
        let data = EventData::new_u64(token);
        let outcome = match watched {
            Some(watched) if watched.events == events => Ok(()),
            Some(_) => epoll::modify(&self.epoll, descriptor, data, events),
            None => epoll::add(&self.epoll, descriptor, data, events),
        };
        outcome.map_err(SystemError::of("epoll_ctl"))?;
        if watched.as_ref().is_none_or(|watched| watched.events != events) {
            *watched = Some(Watched { epoll: Arc::clone(&self.epoll), events });
        }
        Ok(())
    }

    /// Waits for any of them; `None` when it is the one that ends the connection.
    pub(super) fn wait(&mut self, patience: Patience) -> Result<Option<Ready>, SystemError> {
        let limit = match patience {
            Patience::None => Some(Duration::ZERO),
            Patience::Until(deadline) => deadline.remaining().map(|limit| limit.min(LONGEST)),
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; MOST];
        let count = rustix::io::retry_on_intr(|| epoll::wait(&self.epoll, &mut events[..], limit.as_ref()))
            .map_err(SystemError::of("epoll_wait"))?;
        let mut ready = Ready::NOTHING;
        for event in events.iter().take(count) {
            match event.data.u64() {
                MAIN => {
                    ready.main = true;
                    let flags = event.flags;
                    self.hung_up |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                }
                NOTIFIER => ready.notifier = true,
                IOMMU => ready.iommu = true,
                RINGS => ready.rings = true,
                CHANNEL => ready.channel = true,
                TRANSFER => ready.transfer = true,
                _ => return Ok(None),
            }
        }
        ready.main |= matches!(patience, Patience::None);
        if self.hung_up {
            // Nothing changes any more, so nobody would wake for the end.
            ready.reading = Reading::ToTheEnd;
        }
        Ok(Some(ready))
    }
}

impl Watched {
    /// The descriptor is about to be closed here. Somebody else may have it too, and it would be watched on.
    pub(super) fn end(&self, descriptor: BorrowedFd<'_>) {
        // It fails only for one that is not there.
        let _ = epoll::delete(&self.epoll, descriptor.as_fd());
    }
}
