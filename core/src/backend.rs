//! The back-end's machine: what a device's process hears from a VMM, and what it says.

mod channel;

use crate::{
    assembler::{Frame, Handles},
    channel::{Answered, Asking, Due, Flagged, Question, Reply, Told, tell, tell_content, with_handles},
    dialect::Dialect,
    difference::{Difference, difference},
    error::ApiMisuse,
    memory_map::TableExtents,
    projection::Projection,
    rejection::{Obstacle, Rejection, Verdict, admit},
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
    /// The request that is to be answered.
    answering: Option<Question>,
    /// What it does once it is granted; nothing while there is none.
    effect: Effect,
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
            effect: Effect::None,
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
            return Err(Rejection::answer_outstanding(asked.message));
        }
        if self.session.postcopy == Postcopy::Answered && is_postcopy_acknowledgement(&frame) {
            self.session.postcopy = Postcopy::Listening;
            return Ok(Incoming::PostcopyMemoryMapped);
        }
        let code = FrontendCode(frame.header.request());
        let (message, form) = (code.message(), self.form(Role::Request));
        let Some(row) = code.row() else {
            return self.obstructed(Obstacle::without_row(&frame.header), &frame, frame.handles.len());
        };
        if self.config.tolerance.extra_handles == ExtraHandles::Close {
            close_extra_handles(&mut frame, row, form);
        }
        if let Err(obstacle) = admit(&mut frame, row, form, &self.session.negotiated) {
            return self.obstructed(obstacle, &frame, frame.handles.len());
        }
        let handles = frame.handles.len();
        let decoded = FrontendRequest::of_parts(row, &mut frame, form);
        let Some(request) = &decoded else { return self.obstructed(Obstacle::Misfit, &frame, handles) };
        let (rings, slots) = (usize::from(self.config.rings), usize::from(self.config.memory_slots));
        let state = Projection::new(&self.session, None);
        let rules = Rules { state, rings, slots, tolerance: &self.config.tolerance };
        if let Err(violation) = rules.judge(request, &mut self.table, &mut self.effect) {
            self.table.clear();
            return self.rejected(&frame.header, &broken(message, &violation));
        }
        let protocol = match request {
            // The flag on the request that negotiates acknowledgements counts.
            FrontendRequest::SetProtocolFeatures(protocol) => *protocol,
            _ => self.session.negotiated.protocol,
        };
        let due = Due::of(Some(row), Flagged::from_header(&frame.header), protocol, self.session.postcopy);
        self.answering = Some(Question { message, wire: message.id, due, refused: false });
        match decoded {
            Some(request) => Ok(Incoming::Request(request)),
            None => self.obstructed(Obstacle::Misfit, &frame, handles),
        }
    }

    /// The answer to the pending request, if the machine knows it without the device.
    #[must_use]
    pub fn own_answer<H>(&self) -> Option<FrontendReply<'static, H>> {
        let question = self.answering.as_ref().filter(|question| !question.refused)?;
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
        let Some(question) = &self.answering else { return Err(ApiMisuse::NothingToAnswer) };
        let told = match reply.number() {
            Some(0) if question.due == Due::Reply => {
                let Effect::Log(Some(log)) = &self.effect else { return question.does_not_fit(None) };
                let reply = self.config.tolerance.log_reply.to(log);
                return self.answer(FrontendReply::<H>::SetLogBase(reply), out);
            }
            Some(number) => tell(question, |id| FrontendCode(id).row(), number, out)?,
            None => {
                let row = question
                    .row_for(reply.code().map(FrontendCode::message), FrontendCode(question.message.id).row())?;
                // Front-ends close the connection over these.
                if let Some(difference) = difference(&reply, &self.effect, &self.table) {
                    return differs(question.message, &difference);
                }
                match tell_content(question, &reply, self.form(Role::Reply), out)? {
                    Told::Message(bytes) if row.reply_handles != HandleRule::None => {
                        return self.grant_with_handles(row, bytes, reply.handles());
                    }
                    told => told,
                }
            }
        };
        if matches!(reply, FrontendReply::Refused(_)) {
            return Ok(self.refuse(told).into());
        }
        self.grant();
        Ok(told.into())
    }

    /// Answers the pending request with a message that may have a descriptor.
    #[inline(never)]
    fn grant_with_handles<'o, H>(
        &mut self,
        row: &Row,
        bytes: &'o [u8],
        handles: Handles<H>,
    ) -> Result<Answered<'o, H>, ApiMisuse> {
        let message = FrontendCode(row.id()).message();
        let transmit = with_handles(message, row.reply_handles, bytes, handles, self.form(Role::Reply))?;
        self.grant();
        Ok(Answered::Send(transmit))
    }

    /// Carries out the pending request.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn grant(&mut self) {
        self.session.apply(&self.effect, &mut self.table);
        if matches!(self.effect, Effect::OpenBackendChannel) {
            // Nothing that was asked on an earlier channel is answered on this one.
            self.asking = Asking::new();
            self.backend_channel_failed = false;
        }
        self.effect = Effect::None;
        self.answering = None;
    }

    /// Leaves everything as it was before the pending request, and closes if the peer would not hear of
    /// the refusal and needs to.
    #[cold]
    #[inline(never)]
    fn refuse<'o>(&mut self, told: Told<'o>) -> Told<'o> {
        let code = self.answering.take().map(|question| FrontendCode(question.message.id));
        self.effect = Effect::None;
        self.table.clear();
        self.failed = match told {
            Told::Message(_) => false,
            Told::Nothing => code.is_some_and(|code| self.closes_silently(code)),
            Told::Close => true,
        };
        if self.failed { Told::Close } else { told }
    }

    /// What becomes of a request that is not looked at any further and came with so many descriptors.
    #[cold]
    #[inline(never)]
    fn obstructed<T, H>(&mut self, obstacle: Obstacle, frame: &Frame<'_, H>, handles: usize) -> Result<T, Rejection> {
        let code = FrontendCode(frame.header.request());
        let found = Found::new(code.message(), frame, self.form(Role::Request)).with_handles(handles);
        self.rejected(&frame.header, &obstacle.rejection(&frame.header, &found, code.row()))
    }

    /// What becomes of a request that is rejected: it is to be answered with a refusal, or the
    /// session ends.
    #[cold]
    #[inline(never)]
    fn rejected<T>(&mut self, header: &Header, rejection: &Rejection) -> Result<T, Rejection> {
        let code = FrontendCode(header.request());
        let (message, row) = (code.message(), code.row());
        let due = Due::of(row, Flagged::from_header(header), self.session.negotiated.protocol, self.session.postcopy);
        let untold = row.is_none() && due == Due::Nothing;
        if rejection.verdict() == Verdict::Close
            || untold && self.config.tolerance.unknown_request == UnknownRequest::Close
        {
            self.failed = true;
            return Err(Rejection::close(rejection.fault()));
        }
        self.answering = Some(Question { message, wire: message.id, due, refused: true });
        Err(*rejection)
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

/// Drops the descriptors of a message that has none.
#[cold]
fn close_extra_handles<H>(frame: &mut Frame<'_, H>, row: &Row, form: Form) {
    // A table without regions is not a message that has none.
    if row.handles != HandleRule::PerRegion && row.handles.count(frame.payload, form).most == 0 {
        frame.handles.clear();
    }
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
