//! One front-end's connection: messages in, answers out, until one side ends it.

use core::{fmt, num::NonZeroU64};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vhost_core::{
    Answered, ApiMisuse, Backend, BackendRequest, Channel, Frame, FrontendReply, Incoming, MAX_MESSAGE, Rejection,
    Session, Verdict,
};

use super::{
    BackendServer, MAX_RINGS,
    channel::BackendChannel,
    dispatch::{Dispatch, Room},
    mapping::MappingError,
    postcopy::Postcopy,
    ready::{Descriptors, Main, Patience, Ready, Waiter},
    transfer::Transfer,
};
use crate::{
    deadline::Deadline,
    endpoint::{Endpoint, EndpointError, Message, Reading},
    memory::{AddressSpace, MAX_REGIONS},
    rings::{Control, Guest},
    socket::{Socket, SocketError},
    system_error::SystemError,
};

/// Requests of the back-end that may be outstanding.
const DEPTH: usize = 16;

/// Messages served at once, beside those that were read already: a front-end that never pauses must keep nobody from
/// anything else.
const MESSAGES_AT_ONCE: usize = 64;

/// Bytes of replies that wait for each other at most. Those to requests that came together go together.
const REPLIES_AT_ONCE: usize = 4096;

pub(super) type Machine = Backend<MAX_RINGS, MAX_REGIONS, DEPTH>;

/// A front-end's connection to a [`BackendServer`]. Dropping it stops the rings and lets the
/// guest's memory and descriptors go.
pub struct Connection<'s> {
    server: &'s mut BackendServer,
    endpoint: Endpoint,
    machine: Box<Machine>,
    guest: Guest,
    channel: Option<BackendChannel>,
    transfer: Option<Transfer>,
    postcopy: Postcopy,
    out: Box<[u8; MAX_MESSAGE]>,
    /// Until when the front-end must take a reply that it did not take whole.
    reply_deadline: Deadline,
    refusals: u64,
    last_refusal: Option<String>,
}

/// How far a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Everything that was there is done.
    Idle,
    /// Many messages were served and there may be more: then the socket is still readable. The rings, and
    /// whatever else the caller has to do, come first.
    Busy,
    /// The front-end has closed the connection.
    Closed,
}

/// Why a connection ended without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The front-end closed it.
    PeerClosed,
    /// The caller's descriptor said so.
    Stopped,
}

/// Why a connection was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeError {
    /// Nothing more can be received.
    Receive(EndpointError),
    /// A reply could not be sent.
    Send(SocketError),
    /// The front-end broke the protocol in a way that leaves nothing to say.
    Protocol(Rejection),
    /// A request was refused and the front-end cannot be told in any other way. The text says which
    /// and why.
    Refused(String),
    /// A system call failed.
    System(SystemError),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive(error) => error.fmt(f),
            Self::Send(error) => write!(f, "a reply could not be sent: {error}"),
            Self::Protocol(rejection) => rejection.fmt(f),
            Self::Refused(reason) => f.write_str(reason),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ServeError {}

impl From<SystemError> for ServeError {
    fn from(error: SystemError) -> Self {
        Self::System(error)
    }
}

impl BackendServer {
    /// Takes a front-end's connection. Only one front-end uses the device at a time.
    pub fn connect(&mut self, socket: Socket) -> Connection<'_> {
        self.connect_over(Endpoint::new(socket, Channel::Frontend))
    }

    /// As [`connect`](Self::connect), on the main channel as it is given: one that is read [exactly](Endpoint::exact), for a
    /// socket that somebody else goes on with, who then misses nothing.
    pub fn connect_over(&mut self, endpoint: Endpoint) -> Connection<'_> {
        let machine = Box::new(Machine::new(self.config()));
        let guest = Guest::new(self.rings.count());
        *self.notifier.posted() = Some(VecDeque::new());
        Connection {
            endpoint,
            machine,
            guest,
            channel: None,
            transfer: None,
            postcopy: Postcopy::default(),
            out: Box::new([0; MAX_MESSAGE]),
            reply_deadline: Deadline::NEVER,
            refusals: 0,
            last_refusal: None,
            server: self,
        }
    }
}

impl Connection<'_> {
    /// Does what can be done without waiting: messages, and rings if the caller processes them. Call
    /// it when one of [`descriptors`](Self::descriptors) is readable. No message that was read stays behind, unless
    /// [`has_unsent`](Self::has_unsent).
    ///
    /// # Errors
    /// The connection is of no use after one.
    pub fn process(&mut self) -> Result<Progress, ServeError> {
        self.step(Ready::UNKNOWN)
    }

    /// Does what there is to do at those descriptors that are ready.
    fn step(&mut self, ready: Ready) -> Result<Progress, ServeError> {
        let reading = ready.reading;
        if ready.rings {
            self.server.rings.turn()?;
        }
        if ready.channel || self.channel.as_ref().is_some_and(BackendChannel::has_unsent) {
            self.receive_answers(reading);
        }
        if let Some(transfer) = self.transfer.as_mut().filter(|_| ready.transfer) {
            transfer.step(&*self.server.device);
        }
        // While a reply is not taken no request is, but all else goes on, and nothing wakes for it again and again.
        let is_taken = self.flush()?;
        let progress = match is_taken && (ready.main || self.endpoint.has_received()) {
            true => self.receive_requests(reading)?,
            false => Progress::Idle,
        };
        if ready.notifier || self.server.notifier.has_news() {
            self.notify()?;
        }
        if ready.iommu || self.server.rings.iommu().has_unasked() {
            self.ask_for_translations()?;
        }
        Ok(progress)
    }

    /// Whether a reply waits for the front-end to take it: then wait for the first of
    /// [`descriptors`](Self::descriptors) to be writable instead of readable.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.endpoint.has_unsent()
    }

    /// Goes on with a reply that the front-end did not take whole. `false` while it still does not:
    /// nothing else is done for it meanwhile.
    fn flush(&mut self) -> Result<bool, ServeError> {
        self.endpoint.flush().map_err(ServeError::Send)?;
        if !self.endpoint.has_unsent() {
            self.reply_deadline = Deadline::NEVER;
            return Ok(true);
        }
        if self.reply_deadline.is_never() {
            self.reply_deadline = Deadline::after(self.server.options.reply_timeout);
        }
        if self.reply_deadline.has_passed() { Err(ServeError::Send(SocketError::TimedOut)) } else { Ok(false) }
    }

    fn receive_requests(&mut self, reading: Reading) -> Result<Progress, ServeError> {
        let outcome = self.serve_requests(reading);
        if outcome.is_err() {
            // What was answered before is said; the reason to end is the one above.
            let _ = self.endpoint.flush();
        }
        outcome
    }

    fn serve_requests(&mut self, reading: Reading) -> Result<Progress, ServeError> {
        for count in 0_usize.. {
            let asks_socket = !self.endpoint.has_received();
            if (asks_socket || self.endpoint.unsent() >= REPLIES_AT_ONCE) && !self.flush()? {
                return Ok(Progress::Idle);
            }
            if asks_socket && count > 0 {
                if self.endpoint.is_read(reading) {
                    return Ok(Progress::Idle);
                }
                if count >= MESSAGES_AT_ONCE {
                    return Ok(Progress::Busy);
                }
            }
            match self.endpoint.try_receive().map_err(ServeError::Receive)? {
                Message::NotYet => return Ok(Progress::Idle),
                Message::Closed => return Ok(Progress::Closed),
                Message::Frame(frame) => {
                    let mut turn = Turn {
                        dispatch: Dispatch {
                            device: &*self.server.device,
                            rings: &self.server.rings,
                            guest: &mut self.guest,
                            channel: &mut self.channel,
                            transfer: &mut self.transfer,
                            postcopy: &mut self.postcopy,
                        },
                        machine: &mut self.machine,
                        out: &mut self.out,
                        refusals: &mut self.refusals,
                        last_refusal: &mut self.last_refusal,
                    };
                    if let Answered::Send(transmit) = turn.answer(frame)? {
                        self.endpoint.keep(transmit);
                    }
                }
            }
        }
        Ok(Progress::Busy)
    }

    fn receive_answers(&mut self, reading: Reading) {
        if self.channel.as_mut().is_some_and(|channel| !channel.receive(&mut self.machine, reading)) {
            self.channel = None;
        }
    }

    /// Tells the front-end what changed; what cannot be told yet is told when a channel opens.
    fn notify(&mut self) -> Result<(), ServeError> {
        let config_changed = self.server.notifier.take_config_change()?;
        self.forward();
        if !config_changed {
            return Ok(());
        }
        // A suspended device sends nothing (vhost-user, section "Suspended device state").
        let suspended = self.machine.session().is_suspended();
        let told = match &mut self.channel {
            Some(channel) if !suspended => channel.request(&mut self.machine, BackendRequest::ConfigChangeMsg),
            _ => Ok(false),
        };
        if told.is_err() {
            self.channel = None;
        }
        if told != Ok(true) {
            self.server.notifier.keep_config_change();
        }
        Ok(())
    }

    /// Asks the front-end for what rings behind an IOMMU lack; what cannot be asked for yet is when a channel opens.
    fn ask_for_translations(&mut self) -> Result<(), ServeError> {
        let Self { server, channel, machine, .. } = self;
        server.rings.iommu().ask(|miss| {
            let request = BackendRequest::IotlbMsg(miss.message());
            let asked = channel.as_mut().map(|channel| channel.request(machine, request));
            if matches!(asked, Some(Err(_))) {
                *channel = None;
            }
            asked == Some(Ok(true))
        })?;
        Ok(())
    }

    /// Asks the front-end what the device wants of it, as far as that is possible now.
    fn forward(&mut self) {
        loop {
            let Some(posted) = self.server.notifier.next_posted() else { return };
            let forwarded = match &mut self.channel {
                Some(channel) => channel.forward(&mut self.machine, posted),
                None => {
                    posted.fail(MappingError::NoChannel);
                    continue;
                }
            };
            match forwarded {
                Ok(None) => {}
                // It is looked at again after the next answer.
                Ok(Some(later)) => return self.server.notifier.post_again(later),
                Err(_) => self.channel = None,
            }
        }
    }

    /// What to wait for before [`process`](Self::process): the sockets, the notifier, and the rings
    /// if the caller processes them.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let channel = self.channel.as_ref().map(AsFd::as_fd);
        let always = [self.endpoint.as_fd(), self.server.notifier.event(), self.server.rings.iommu().event()];
        let transfer = self.transfer.as_ref().and_then(Transfer::event);
        always.into_iter().chain(channel).chain(transfer).chain(self.server.rings.caller_fd())
    }

    /// Serves the front-end until it closes the connection or `stop` becomes readable.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn run(mut self, stop: impl AsFd) -> Result<End, ServeError> {
        let mut waiter = Waiter::new(&Descriptors {
            main: self.endpoint.as_fd(),
            notifier: self.server.notifier.event(),
            iommu: self.server.rings.iommu().event(),
            rings: self.server.rings.caller_fd(),
            stop: stop.as_fd(),
        })?;
        let mut ready = Ready { reading: Reading::WhatIsThere, ..Ready::UNKNOWN };
        loop {
            let patience = match self.step(ready)? {
                Progress::Closed => return Ok(End::PeerClosed),
                Progress::Busy => Patience::None,
                Progress::Idle => Patience::Until(self.reply_deadline),
            };
            self.watch(&mut waiter)?;
            match waiter.wait(patience)? {
                Some(what) => ready = what,
                None => return Ok(End::Stopped),
            }
        }
    }

    /// Has watched what changes between two waits.
    fn watch(&mut self, waiter: &mut Waiter) -> Result<(), SystemError> {
        waiter.watch_main(self.endpoint.as_fd(), if self.has_unsent() { Main::Room } else { Main::Message })?;
        if self.channel.as_mut().is_some_and(|channel| channel.watch(waiter).is_err()) {
            // No channel: the front-end gave something else.
            self.channel = None;
        }
        self.transfer.as_mut().map_or(Ok(()), |transfer| transfer.watch(waiter))
    }

    /// What the front-end and this back-end agreed on.
    #[must_use]
    pub fn session(&self) -> &Session<MAX_RINGS, MAX_REGIONS> {
        self.machine.session()
    }

    /// How many requests were refused, and why the last one was.
    #[must_use]
    pub fn refusals(&self) -> (u64, Option<&str>) {
        (self.refusals, self.last_refusal.as_deref())
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // A ring may wait for a page that nobody will provide any more.
        self.postcopy.end();
        // The next front-end is not asked for what was meant for this one: whoever waits hears that there is no channel.
        drop(self.server.notifier.posted().take());
        // Before rings are stopped: whoever waits for an answer within `process` holds its ring.
        self.channel = None;
        let (device, rings) = (&*self.server.device, &self.server.rings);
        Control { device, rings, guest: &mut self.guest, addresses: AddressSpace::User }.forget();
    }
}

impl fmt::Debug for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .field("guest", &self.guest)
            .field("refusals", &self.refusals)
            .finish_non_exhaustive()
    }
}

/// One message's way through the machine and the device.
struct Turn<'c> {
    dispatch: Dispatch<'c>,
    machine: &'c mut Machine,
    out: &'c mut [u8; MAX_MESSAGE],
    refusals: &'c mut u64,
    last_refusal: &'c mut Option<String>,
}

impl Turn<'_> {
    fn answer<'o>(&'o mut self, frame: Frame<'_, OwnedFd>) -> Result<Answered<'o, OwnedFd>, ServeError> {
        let request = match self.machine.handle_request(frame) {
            Ok(Incoming::Request(request)) => request,
            Ok(Incoming::PostcopyMemoryMapped) => {
                self.dispatch.memory_acknowledged(self.machine.session());
                return Ok(Answered::Silent);
            }
            Err(rejection) if rejection.verdict() == Verdict::Refuse => return self.refuse(rejection.to_string()),
            Err(rejection) => return Err(ServeError::Protocol(rejection)),
        };
        let code = request.code();
        let mut room = None;
        let reply = match self.machine.own_answer() {
            Some(reply) => reply,
            None => match self.dispatch.carry_out(request, self.machine.session(), room.get_or_insert(Room::EMPTY)) {
                Ok(reply) => reply,
                Err(reason) => return self.refuse(format!("{}: {reason}", code.message())),
            },
        };
        let answered = self.machine.answer(reply, self.out.as_mut_slice()).map_err(misuse)?;
        self.dispatch.follow(code, self.machine.session());
        Ok(answered)
    }

    fn refuse(&mut self, reason: String) -> Result<Answered<'_, OwnedFd>, ServeError> {
        *self.refusals = self.refusals.saturating_add(1);
        let reply = FrontendReply::Refused(NonZeroU64::MIN);
        match self.machine.answer(reply, self.out.as_mut_slice()).map_err(misuse)? {
            Answered::Close => Err(ServeError::Refused(reason)),
            answered => {
                *self.last_refusal = Some(reason);
                Ok(answered)
            }
        }
    }
}

/// The machine is used rightly here; should it say otherwise, the connection ends with its words.
fn misuse(misuse: ApiMisuse) -> ServeError {
    ServeError::Refused(misuse.to_string())
}
