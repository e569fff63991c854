//! The back-end: a machine of `vhost-core`, and what its requests are for this device.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, Assembler, Backend, BackendConfig, BackendRequest, Channel, Delivery, Frame, FrontendReply,
    FrontendRequest, Incoming, MAX_MESSAGE, ProtocolFeatures, RingAddress, Transport, Verdict, VirtioFeatures, receive,
    wire::vring::VringState,
};

use crate::{
    line::{Line, Number},
    ram::Region,
    ring::Ring,
};

/// Rings of the device.
const RINGS: usize = 1;
/// Regions of memory it can have.
const REGIONS: usize = 1;

pub(crate) const FEATURES: VirtioFeatures = VirtioFeatures::VERSION_1
    .union(VirtioFeatures::RING_PACKED)
    .union(VirtioFeatures::RING_INDIRECT)
    .union(VirtioFeatures::RING_EVENT_IDX);
/// There are no descriptors to signal with, so notifications are messages.
pub(crate) const PROTOCOL: ProtocolFeatures =
    ProtocolFeatures::INBAND_NOTIFICATIONS.union(ProtocolFeatures::BACKEND_REQ).union(ProtocolFeatures::REPLY_ACK);

/// Why the machine ends; each is a status.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum End {
    /// The front-end has gone.
    Gone = 0,
    /// The self-test failed.
    SelfTest = 1,
    /// The front-end does not speak vhost-user.
    Peer = 2,
    /// A panic, which nothing of `vhost-core` can cause.
    Panic = 3,
    /// The device was used in a wrong way by itself.
    Misuse = 4,
}

pub(crate) struct Device {
    backend: Backend<RINGS, REGIONS, 4>,
    ring: Ring,
    region: Option<Region>,
    /// The ring has requests for which no kick comes.
    more: bool,
    /// What the front-end is to be told.
    due: Option<Due>,
    out: [u8; MAX_MESSAGE],
}

/// What a ring tells of itself.
#[derive(Clone, Copy)]
enum Due {
    /// Requests are done.
    Call,
    /// It is broken.
    Error,
}

impl Device {
    pub(crate) fn new() -> Self {
        let mut config = BackendConfig::new(FEATURES, PROTOCOL, RINGS as u16);
        config.memory_slots = REGIONS as u16;
        Self {
            backend: Backend::new(config),
            ring: Ring::default(),
            region: None,
            more: false,
            due: None,
            out: [0; MAX_MESSAGE],
        }
    }

    /// Serves the front-end until it goes.
    pub(crate) fn serve(&mut self, line: &mut Line) -> End {
        let mut requests = Assembler::<Number>::new(Channel::Frontend);
        let mut answers = Assembler::<Number>::new(Channel::Backend);
        loop {
            while self.more && !Line::has_byte() {
                if let Err(end) = self.follow(true, line) {
                    return end;
                }
            }
            let Some(channel) = line.announced() else { return End::Gone };
            let assembler = if channel == Channel::Backend { &mut answers } else { &mut requests };
            let Ok(Some(frame)) = receive(line, assembler) else { return End::Peer };
            let result = match channel {
                Channel::Backend => match self.backend.handle_reply(frame) {
                    Ok(_) => self.notify(line),
                    Err(_) => Err(End::Peer),
                },
                _ => self.request(frame, line),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    fn request(&mut self, frame: Frame<'_, Number>, line: &mut Line) -> Result<(), End> {
        let mut kicked = false;
        let reply = match self.backend.handle_request(frame) {
            Ok(Incoming::Request(request)) => {
                kicked = matches!(request, FrontendRequest::VringKick(_) | FrontendRequest::SetVringKick(..));
                match self.backend.own_answer() {
                    Some(reply) => reply,
                    None => self.act(request),
                }
            }
            Ok(Incoming::PostcopyMemoryMapped) => return Ok(()),
            Err(rejection) if rejection.verdict() == Verdict::Refuse => FrontendReply::Refused(NonZeroU64::MIN),
            Err(_) => return Err(End::Peer),
        };
        match self.backend.answer(reply, &mut self.out).map_err(|_| End::Misuse)? {
            Answered::Send(message) => line.on(Channel::Frontend).send(message).map_err(|_| End::Peer)?,
            Answered::Silent => {}
            Answered::Close => return Err(End::Peer),
        }
        self.follow(kicked, line)
    }

    /// What a request is for the device. What it is for the session, the machine knows.
    fn act(&mut self, request: FrontendRequest<'_, Number>) -> FrontendReply<'static, Number> {
        match request {
            FrontendRequest::SetMemTable(regions, handles) => {
                self.region = regions.iter().next().and_then(Region::find);
                if handles.iter().any(|handle| *handle != Number::RAM) || self.region.is_none() {
                    return FrontendReply::Refused(NonZeroU64::MIN);
                }
            }
            FrontendRequest::SetBackendReqFd(Number::CHANNEL) => {}
            FrontendRequest::SetBackendReqFd(_) => return FrontendReply::Refused(NonZeroU64::MIN),
            FrontendRequest::SetVringNum(state) => self.ring.size = state.num(),
            FrontendRequest::SetVringBase(state) => self.ring.base = state.num(),
            FrontendRequest::SetVringAddr(addresses) => {
                let parts: [RingAddress; 3] = [addresses.descriptor(), addresses.available(), addresses.used()];
                self.ring.addresses = Some(parts);
            }
            FrontendRequest::GetVringBase(state) => {
                return FrontendReply::GetVringBase(VringState::new(state.index(), self.ring.stop()));
            }
            _ => {}
        }
        FrontendReply::Done
    }

    /// Starts and stops the ring as the session says, and processes it when it was kicked.
    fn follow(&mut self, kicked: bool, line: &mut Line) -> Result<(), End> {
        let session = self.backend.session();
        let runs = session.ring(0).is_some_and(|ring| ring.is_running());
        let features = session.negotiated().acknowledged;
        self.more &= runs;
        let Some(region) = self.region.filter(|_| runs) else { return Ok(()) };
        let begun = !self.ring.runs();
        let done = match begun {
            true => self.ring.start(&region, features),
            false => Ok(()),
        };
        // A front-end that kicks once gets everything that was there when the ring began, too.
        let outcome = match done {
            Ok(()) if kicked || begun => self.ring.process(&region.memory),
            Ok(()) => return Ok(()),
            Err(broken) => Err(broken),
        };
        self.more = outcome.as_ref().is_ok_and(|turn| turn.more);
        self.due = match outcome {
            Ok(turn) if turn.call => self.due.or(Some(Due::Call)),
            Ok(_) => self.due,
            Err(_) => Some(Due::Error),
        };
        self.notify(line)
    }

    /// Tells what is to be told, one at a time: a front-end that does not listen gets no second one.
    fn notify(&mut self, line: &mut Line) -> Result<(), End> {
        if self.backend.outstanding() > 0 {
            return Ok(());
        }
        let ring = VringState::new(0, 0);
        let notification = match self.due.take() {
            Some(Due::Call) => BackendRequest::VringCall(ring),
            Some(Due::Error) => BackendRequest::VringErr(ring),
            None => return Ok(()),
        };
        let message = self.backend.request(notification, Delivery::Acknowledged, &mut self.out);
        line.on(Channel::Backend).send(message.map_err(|_| End::Misuse)?).map_err(|_| End::Peer)
    }
}
