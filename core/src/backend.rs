//! The back-end's machine: what a device's process hears from a VMM, and what it says.

mod channel;

use crate::{
    assembler::Frame,
    channel::{Answered, Asking, Due, Flagged, Pending, Question, Reply, answer, tell},
    dialect::Dialect,
    difference::{Difference, difference},
    error::ApiMisuse,
    memory_map::TableExtents,
    projection::Projection,
    rejection::{Rejection, Verdict, admit},
    rules::{Rules, Violation},
    session::{Effect, Negotiated, Postcopy, Session},
    tolerance::{ExtraHandles, SilentRefusal, Tolerance, UnknownRequest},
    wire::{
        feature::{ProtocolFeatures, VirtioFeatures},
        frontend_request::{FrontendCode, FrontendReply, FrontendRequest},
        header::Header,
        misfit::Found,
        payload::{Form, Role},
        row::{HandleRule, MessageName, Row},
    },
};

/// What a back-end's machine is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BackendConfig {
    /// Virtio features offered; `PROTOCOL_FEATURES` is added if there are any.
    pub features: VirtioFeatures,
    /// Protocol features offered.
    pub protocol: ProtocolFeatures,
    /// Rings the device has, at most the machine's `VRINGS`.
    pub rings: u16,
    /// The answer to `GET_QUEUE_NUM`: as `rings`, or the number of pairs for a network device.
    pub queue_num: u16,
    /// The answer to `GET_MAX_MEM_SLOTS`, at most the machine's `REGIONS`.
    pub memory_slots: u16,
    /// What is let pass.
    pub tolerance: Tolerance,
    /// What the back-end's channel speaks. Default: the standard dialect.
    pub dialect: Dialect,
}

impl BackendConfig {
    /// For a device of so many rings; as many memory slots as libvhost-user has.
    #[must_use]
    pub const fn new(features: VirtioFeatures, protocol: ProtocolFeatures, rings: u16) -> Self {
        let (tolerance, dialect) = (Tolerance::new(), Dialect::Standard);
        Self { features, protocol, rings, queue_num: rings, memory_slots: 509, tolerance, dialect }
    }
}

/// What a message from the front-end is.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'b, H> {
    /// A request; it must be answered with [`Backend::answer`] before the next message is taken.
    Request(FrontendRequest<'b, H>),
    /// The front-end has registered the addresses it was answered during postcopy. This is not
    /// answered.
    PostcopyMemoryMapped,
}

/// The back-end's state: a plain value without buffers, descriptors or I/O.
///
/// It holds `VRINGS` rings and `REGIONS` memory regions and remembers up to `DEPTH` requests of its
/// own.
///
/// ```
/// use core::num::NonZeroU64;
/// use vhost_core::{
///     Answered, Assembler, Backend, BackendConfig, Channel, FrontendReply, Incoming, MAX_MESSAGE, ProtocolFeatures,
///     Transport, Verdict, VirtioFeatures, receive,
/// };
///
/// /// Serves a device over any transport until the front-end closes it.
/// fn serve<T: Transport>(transport: &mut T) -> Result<(), &'static str> {
///     let config = BackendConfig::new(VirtioFeatures::VERSION_1, ProtocolFeatures::REPLY_ACK, 1);
///     let mut backend = Backend::<1, 8, 4>::new(config);
///     let mut assembler = Assembler::<T::Handle>::new(Channel::Frontend);
///     let mut out = [0; MAX_MESSAGE];
///     while let Some(frame) = receive(transport, &mut assembler).map_err(|_| "broken")? {
///         let reply = match backend.handle_request(frame) {
///             Ok(Incoming::PostcopyMemoryMapped) => continue, // not answered
///             // The machine knows some answers; the others are the device's: act on `request` here.
///             Ok(Incoming::Request(request)) => backend.own_answer().unwrap_or(FrontendReply::Done),
///             // A request that breaks a rule is refused like one that the device refuses.
///             Err(rejection) if rejection.verdict() == Verdict::Refuse => FrontendReply::Refused(NonZeroU64::MIN),
///             Err(_) => return Err("the front-end does not speak vhost-user"),
///         };
///         match backend.answer(reply, &mut out).map_err(|_| "needs content")? {
///             Answered::Send(message) => transport.send(message).map_err(|_| "broken")?,
///             Answered::Silent => {}
///             Answered::Close => return Err("a refusal that cannot be told"),
///         }
///     }
///     Ok(())
/// }
/// # use vhost_core::{Handles, Transmit, wire::header::Header};
/// # struct Once(Vec<u8>, Vec<u8>);
/// # impl Transport for Once {
/// #     type Handle = u8;
/// #     type Error = ();
/// #     fn send(&mut self, message: Transmit<'_, u8>) -> Result<(), ()> { Ok(self.1.extend(message.bytes)) }
/// #     fn receive(&mut self, buffer: &mut [u8], _: &mut Handles<u8>) -> Result<usize, ()> {
/// #         let count = buffer.len().min(self.0.len());
/// #         self.0.drain(..count).zip(buffer).for_each(|(from, to)| *to = from);
/// #         Ok(count)
/// #     }
/// # }
/// # let mut once = Once(Header::request_of(1, false, 0).to_bytes().to_vec(), Vec::new());
/// # serve(&mut once).unwrap();
/// # assert_eq!(once.1.len(), 20);
/// # assert_eq!(once.1[12..], 0x1_4000_0000_u64.to_ne_bytes());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend<const VRINGS: usize, const REGIONS: usize, const DEPTH: usize> {
    config: BackendConfig,
    session: Session<VRINGS, REGIONS>,
    answering: Option<Pending<Effect>>,
    table: TableExtents,
    asking: Asking<(), DEPTH>,
    failed: bool,
    backend_channel_failed: bool,
}

impl<const VRINGS: usize, const REGIONS: usize, const DEPTH: usize> Backend<VRINGS, REGIONS, DEPTH> {
    /// The machine of a connection on which nothing was said yet.
    #[must_use]
    pub fn new(config: BackendConfig) -> Self {
        let mut config = config;
        config.features.set(VirtioFeatures::PROTOCOL_FEATURES, !config.protocol.is_empty());
        config.rings = config.rings.min(u16::try_from(VRINGS).unwrap_or(u16::MAX));
        config.memory_slots = config.memory_slots.min(u16::try_from(REGIONS).unwrap_or(u16::MAX));
        let negotiated =
            Negotiated { offered: config.features, protocol_offered: config.protocol, ..Negotiated::default() };
        Self {
            session: Session::new(negotiated, config.dialect),
            config,
            answering: None,
            table: TableExtents::new(),
            asking: Asking::new(),
            failed: false,
            backend_channel_failed: false,
        }
    }

    /// What both sides agreed on.
    #[must_use]
    pub fn session(&self) -> &Session<VRINGS, REGIONS> {
        &self.session
    }

    /// How many requests of the back-end wait for their answers.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.asking.awaited()
    }

    /// Whether the session is over.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Takes a message from the front-end. Nothing happens to the session until it is answered.
    ///
    /// # Errors
    /// See [`Rejection`]: a rejected request too is answered, with a refusal.
    pub fn handle_request<'b, H>(&mut self, mut frame: Frame<'b, H>) -> Result<Incoming<'b, H>, Rejection> {
        if self.failed {
            return Err(Rejection::session_failed());
        }
        if let Some(asked) = &self.answering {
            return Err(Rejection::answer_outstanding(asked.question.message));
        }
        if self.session.postcopy == Postcopy::Answered && is_postcopy_acknowledgement(&frame) {
            self.session.postcopy = Postcopy::Listening;
            return Ok(Incoming::PostcopyMemoryMapped);
        }
        let code = FrontendCode(frame.header.request());
        let row = code.row();
        match self.request_of(code.message(), row, &mut frame) {
            Ok(request) => Ok(request),
            Err(rejection) => Err(self.rejected(&frame.header, row, &rejection)),
        }
    }

    /// The answer to the pending request, if the machine knows it without the device.
    #[must_use]
    pub fn own_answer<H>(&self) -> Option<FrontendReply<'static, H>> {
        let question = self.answering.as_ref().map(|asked| asked.question).filter(|question| !question.refused)?;
        match FrontendCode(question.message.id) {
            FrontendCode::GET_FEATURES => Some(FrontendReply::GetFeatures(self.config.features)),
            FrontendCode::GET_PROTOCOL_FEATURES => Some(FrontendReply::GetProtocolFeatures(self.config.protocol)),
            FrontendCode::GET_QUEUE_NUM => Some(FrontendReply::GetQueueNum(u64::from(self.config.queue_num))),
            FrontendCode::GET_MAX_MEM_SLOTS => Some(FrontendReply::GetMaxMemSlots(u64::from(self.config.memory_slots))),
            FrontendCode::GET_STATUS => Some(FrontendReply::GetStatus(u64::from(self.session.status))),
            _ => None,
        }
    }

    /// Answers the pending request; a granted one takes effect now.
    ///
    /// # Errors
    /// [`ApiMisuse`]; the machine is as before, the request is still pending.
    pub fn answer<'o, H>(
        &mut self,
        reply: FrontendReply<'_, H>,
        out: &'o mut [u8],
    ) -> Result<Answered<'o, H>, ApiMisuse> {
        if self.failed {
            return Err(ApiMisuse::SessionFailed);
        }
        let Some(asked) = &self.answering else { return Err(ApiMisuse::NothingToAnswer) };
        let number = reply.number();
        let mut result = match (number, &asked.effect) {
            // Most answers are this; but that a log was taken has content.
            (Some(number), effect) if !matches!(effect, Effect::Log(Some(_))) => {
                tell(&asked.question, number, self.form(Role::Reply), out)
            }
            _ => self.answer_with_content(asked, reply, out),
        };
        if let Ok(answered) = &mut result {
            if number.is_some_and(|number| number != 0) {
                self.refuse(answered);
            } else {
                self.grant();
            }
        }
        result
    }

    /// Answers with more than a number, mostly.
    #[inline(never)]
    fn answer_with_content<'o, H>(
        &self,
        asked: &Pending<Effect>,
        reply: FrontendReply<'_, H>,
        out: &'o mut [u8],
    ) -> Result<Answered<'o, H>, ApiMisuse> {
        let mut reply = reply;
        if let (FrontendReply::Done, Effect::Log(Some(log)), Due::Reply) = (&reply, &asked.effect, asked.question.due) {
            reply = FrontendReply::SetLogBase(self.config.tolerance.log_reply.to(log));
        }
        // Front-ends close the connection over these.
        if let Some(difference) = difference(&reply, asked, &self.table) {
            return differs(asked.question.message, &difference);
        }
        answer(&asked.question, reply, self.form(Role::Reply), out)
    }

    /// Carries out the pending request.
    fn grant(&mut self) {
        let Some(Pending { effect, .. }) = &self.answering else { return };
        self.session.apply(effect, &mut self.table);
        if matches!(effect, Effect::OpenBackendChannel) {
            // Nothing that was asked on an earlier channel is answered on this one.
            self.asking = Asking::new();
            self.backend_channel_failed = false;
        }
        self.answering = None;
    }

    /// Leaves everything as it was before the pending request, and closes if the peer would not hear of
    /// the refusal and needs to.
    fn refuse<H>(&mut self, answered: &mut Answered<'_, H>) {
        let code = self.answering.take().map(|asked| FrontendCode(asked.question.message.id));
        self.table.clear();
        self.failed = match answered {
            Answered::Send(_) => false,
            Answered::Silent => code.is_some_and(|code| self.closes_silently(code)),
            Answered::Close => true,
        };
        if self.failed {
            *answered = Answered::Close;
        }
    }

    /// The request that a frame holds, remembered until it is answered. The regions of a table go to
    /// where its effect expects them.
    fn request_of<'b, H>(
        &mut self,
        message: MessageName,
        row: Option<&'static Row>,
        frame: &mut Frame<'b, H>,
    ) -> Result<Incoming<'b, H>, Rejection> {
        let form = self.form(Role::Request);
        if self.config.tolerance.extra_handles == ExtraHandles::Close
            && row.is_some_and(|row| row.handles.count(frame.payload, form).most == 0)
            // A table without regions is not a message that has none.
            && row.is_some_and(|row| row.handles != HandleRule::PerRegion)
        {
            frame.handles.clear();
        }
        let found = Found::new(message, frame, form);
        let (row, payload) = admit(&frame.header, &found, row, &self.session.negotiated)?;
        frame.payload = payload;
        let request = match FrontendRequest::of_parts(row, frame, form) {
            Some(request) => request,
            None => return Err(Rejection::misfit(&found, Some(row))),
        };
        let (rings, slots) = (usize::from(self.config.rings), usize::from(self.config.memory_slots));
        let state = Projection::settled(&self.session);
        let rules = Rules { state, rings, slots, tolerance: &self.config.tolerance };
        let effect = match rules.effect(&request, &mut self.table) {
            Ok(effect) => effect,
            Err(violation) => {
                self.table.clear();
                return Err(broken(message, &violation));
            }
        };
        let due = self.due(Some(row), Flagged::from_header(&frame.header), &effect);
        self.answering =
            Some(Pending { question: Question { message, wire: message.id, due, refused: false }, effect });
        Ok(Incoming::Request(request))
    }

    /// What answers a request that is well-formed.
    fn due(&self, row: Option<&Row>, flagged: Flagged, effect: &Effect) -> Due {
        let (negotiated, postcopy) = (&self.session.negotiated, self.session.postcopy);
        match effect {
            // The flag on the request that negotiates acknowledgements counts.
            Effect::AcknowledgeProtocol(protocol) => {
                Due::of(row, flagged, &Negotiated { protocol: *protocol, ..*negotiated }, postcopy)
            }
            _ => Due::of(row, flagged, negotiated, postcopy),
        }
    }

    /// What becomes of a request that is rejected: it is to be answered with a refusal, or the
    /// session ends.
    #[cold]
    fn rejected(&mut self, header: &Header, row: Option<&Row>, rejection: &Rejection) -> Rejection {
        let flagged = Flagged::from_header(header);
        let message = FrontendCode(header.request()).message();
        let due = self.due(row, flagged, &Effect::None);
        let untold = row.is_none() && due == Due::Nothing;
        if rejection.verdict() == Verdict::Close
            || untold && self.config.tolerance.unknown_request == UnknownRequest::Close
        {
            self.failed = true;
            return Rejection::close(rejection.fault());
        }
        let question = Question { message, wire: message.id, due, refused: true };
        self.answering = Some(Pending { question, effect: Effect::None });
        *rejection
    }

    fn closes_silently(&self, code: FrontendCode) -> bool {
        match self.config.tolerance.silent_refusal {
            SilentRefusal::CloseIfDisagreeing => changes_features(code) || changes_memory(code),
            SilentRefusal::Close => true,
            SilentRefusal::Continue => false,
        }
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn form(&self, role: Role) -> Form {
        self.config.tolerance.form(role, self.session.negotiated.protocol, self.session.dialect)
    }
}

/// The requests after which the two sides must agree on the form of rings and messages.
fn changes_features(code: FrontendCode) -> bool {
    matches!(code, FrontendCode::SET_FEATURES | FrontendCode::SET_PROTOCOL_FEATURES)
}

/// The requests after which the two sides must agree on what memory is shared.
fn changes_memory(code: FrontendCode) -> bool {
    matches!(code, FrontendCode::SET_MEM_TABLE | FrontendCode::ADD_MEM_REG | FrontendCode::REM_MEM_REG)
}

/// What becomes of a request that breaks a rule.
#[cold]
fn broken(message: MessageName, violation: &Violation) -> Rejection {
    let rejection = Rejection::violation(message, violation);
    match violation {
        // The specification closes the connection here (section "In-band notifications").
        Violation::ProtocolFeatureNeeds { feature, .. } if *feature == ProtocolFeatures::INBAND_NOTIFICATIONS => {
            Rejection::close(rejection.fault())
        }
        _ => rejection,
    }
}

/// The third part of the exchange about memory during postcopy re-uses a request's id.
fn is_postcopy_acknowledgement<H>(frame: &Frame<'_, H>) -> bool {
    let id = frame.header.request();
    frame.payload == [0; 8]
        && frame.handles.is_empty()
        && frame.header.is_request()
        && (id == 0 || changes_memory(FrontendCode(id)))
}

/// What there is to say of an answer that contradicts its request.
#[cold]
#[inline(never)]
fn differs<T>(message: MessageName, difference: &Difference) -> Result<T, ApiMisuse> {
    let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
    let (field, expected, found) = match *difference {
        Difference::Ring { expected, found } => ("ring", u64::from(expected), u64::from(found)),
        Difference::Size { expected, found } => ("size", count(expected), count(found)),
        Difference::Regions { expected, found } => ("regions", count(expected), count(found)),
        Difference::Region { expected, found } if expected.guest_address != found.guest_address => {
            ("guest address", expected.guest_address.0, found.guest_address.0)
        }
        Difference::Region { expected, found } => ("region size", expected.size, found.size),
    };
    Err(ApiMisuse::AnswerDiffers { message, field, expected, found })
}
