//! The back-end's machine: what a device's process hears from a VMM, and what it says.

use crate::{
    assembler::{Frame, Transmit},
    channel::{Answered, Asking, Due, Flagged, Question, acknowledgement, answer},
    dialect::Dialect,
    error::{ApiMisuse, DecodeError, Fault},
    frontend::Delivery,
    memory_map::TableExtents,
    projection::Projection,
    rejection::{Rejection, Verdict},
    rules::{Rules, Violation},
    session::{Effect, Negotiated, Postcopy, Session},
    tolerance::{ExtraHandles, LogReply, SilentRefusal, Tolerance, UnknownRequest},
    wire::{
        backend_request::{BackendReply, BackendRequest},
        feature::{ProtocolFeatures, VirtioFeatures},
        frontend_request::{FrontendCode, FrontendReply, FrontendRequest},
        header::Header,
        log::LogBase,
        misfit::{Found, Misfit},
        payload::{Form, Role},
        row::{Channel, Enforcement, HandleRule, MessageName, ReplyRule, Row},
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
    answering: Option<Question<Effect>>,
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
        if let Some(question) = &self.answering {
            return Err(Rejection::answer_outstanding(question.message));
        }
        if self.session.postcopy == Postcopy::Answered && is_postcopy_acknowledgement(&frame) {
            self.session.postcopy = Postcopy::Listening;
            return Ok(Incoming::PostcopyMemoryMapped);
        }
        let flagged = Flagged::from_header(&frame.header);
        let message = FrontendCode(frame.header.request()).message();
        let row = message.row();
        let mut effect = None;
        let result = self.request_of(message, row, &mut frame, &mut effect);
        let negotiated = &self.session.negotiated;
        let due = match (row, &effect) {
            // The flag on the request that negotiates acknowledgements counts.
            (Some(row), Some(Effect::AcknowledgeProtocol(features))) => {
                let negotiated = Negotiated { protocol: *features, ..*negotiated };
                Due::of(row, flagged, &negotiated, self.session.postcopy)
            }
            (Some(row), _) => Due::of(row, flagged, negotiated, self.session.postcopy),
            (None, _) => Due::of_unknown(flagged, negotiated),
        };
        if let Err(rejection) = &result {
            let unknown = row.is_none() && due == Due::Nothing;
            if rejection.verdict() == Verdict::Close {
                self.failed = true;
                return result;
            }
            if unknown && self.config.tolerance.unknown_request == UnknownRequest::Close {
                self.failed = true;
                return Err(Rejection::close(rejection.fault()));
            }
        }
        self.answering = Some(Question { message, wire: message, due, effect });
        result
    }

    /// The answer to the pending request, if the machine knows it without the device.
    #[must_use]
    pub fn own_answer<H>(&self) -> Option<FrontendReply<'static, H>> {
        let question = self.answering.as_ref()?;
        question.effect?;
        match FrontendCode(question.message.id) {
            FrontendCode::GET_FEATURES => Some(FrontendReply::GetFeatures(self.config.features)),
            FrontendCode::GET_PROTOCOL_FEATURES => Some(FrontendReply::GetProtocolFeatures(self.config.protocol)),
            FrontendCode::GET_QUEUE_NUM => Some(FrontendReply::GetQueueNum(u64::from(self.config.queue_num))),
            FrontendCode::GET_MAX_MEM_SLOTS => {
                let slots = u64::try_from(self.memory_slots()).unwrap_or(u64::MAX);
                Some(FrontendReply::GetMaxMemSlots(slots))
            }
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
        let question = self.answering.as_ref().ok_or(ApiMisuse::NothingToAnswer)?;
        let reply = match &question.effect {
            Some(Effect::Log(Some(log))) if question.due == Due::Reply && matches!(reply, FrontendReply::Done) => {
                FrontendReply::SetLogBase(match self.config.tolerance.log_reply {
                    LogReply::Echo => LogBase::Shared(*log),
                    LogReply::Zero => LogBase::Number(0),
                    LogReply::Empty => LogBase::Empty,
                })
            }
            _ => reply,
        };
        self.check_answer(question, &reply)?;
        let refused = matches!(reply, FrontendReply::Refused(_));
        let code = FrontendCode(question.message.id);
        let answered = answer(question, reply, self.form(Role::Reply), out)?;
        if refused {
            self.answering = None;
            self.table.clear();
            if matches!(answered, Answered::Close) || matches!(answered, Answered::Silent) && self.closes_silently(code)
            {
                self.failed = true;
                return Ok(Answered::Close);
            }
            return Ok(answered);
        }
        if let Some(effect) = &question.effect {
            self.session.apply(effect, &mut self.table);
            if matches!(effect, Effect::OpenBackendChannel) {
                // Nothing that was asked on an earlier channel is answered on this one.
                self.asking = Asking::new();
                self.backend_channel_failed = false;
            }
        }
        self.answering = None;
        Ok(answered)
    }

    /// Makes a request on the back-end's own channel.
    ///
    /// The two channels are independent: neither machine ever waits. A driver must not wait for the
    /// answer without serving the main channel, because QEMU asks for the configuration there before
    /// it answers a `CONFIG_CHANGE_MSG`.
    ///
    /// ```
    /// # use vhost_core::{Answered, Backend, BackendConfig, BackendReply, BackendRequest, Delivery, Frame, FrontendReply,
    /// #     Handles, MAX_MESSAGE, ProtocolFeatures, VirtioFeatures, wire::header::Header};
    /// # let features = ProtocolFeatures::BACKEND_REQ | ProtocolFeatures::CONFIG | ProtocolFeatures::REPLY_ACK;
    /// # let mut backend = Backend::<1, 8, 4>::new(BackendConfig::new(VirtioFeatures::VERSION_1, features, 1));
    /// # let mut out = [0; MAX_MESSAGE];
    /// # let bits = features.bits().to_ne_bytes();
    /// # for (id, payload, handles) in [(16, &bits[..], Handles::new()), (21, &[][..], Handles::from_iter([7_u8]))] {
    /// #     let header = Header::request_of(id, false, payload.len() as u32);
    /// #     backend.handle_request(Frame { header, payload, handles })?;
    /// #     let Answered::Silent = backend.answer::<u8>(FrontendReply::Done, &mut out)? else { unreachable!() };
    /// # }
    /// // The front-end has sent SET_BACKEND_REQ_FD; now the device's configuration changes.
    /// let request = BackendRequest::<u8>::ConfigChangeMsg;
    /// let message = backend.request(request, Delivery::Acknowledged, &mut out)?;
    /// assert_eq!(message.bytes[..4], 2_u32.to_ne_bytes()); // to the back-end channel with it
    ///
    /// // Later, a frame comes in on the back-end channel.
    /// let acknowledgement =
    ///     Frame::<u8> { header: Header::reply_to(2, 8), payload: &[0; 8], handles: Handles::new() };
    /// assert_eq!(backend.handle_reply(acknowledgement)?, BackendReply::Done);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse`]; the machine is as before, and the request's descriptors are dropped.
    pub fn request<'o, H>(
        &mut self,
        request: BackendRequest<'_, H>,
        delivery: Delivery,
        out: &'o mut [u8],
    ) -> Result<Transmit<'o, H>, ApiMisuse> {
        if self.failed || self.backend_channel_failed {
            return Err(ApiMisuse::SessionFailed);
        }
        let message = request.code().message();
        let violates = |violation| ApiMisuse::Violation { message, violation };
        let request = request.said_in(self.session.dialect).map_err(|violation| violates(violation.into()))?;
        let message = request.code().message();
        let form = self.form(Role::Request);
        let wire = form.on_wire(message)?;
        let row = request.code().row().ok_or(ApiMisuse::NothingToAnswer)?;
        let negotiated = self.session.negotiated;
        negotiated.check(&row.gate).map_err(violates)?;
        if !self.session.backend_channel {
            return Err(violates(Violation::NoBackendChannel));
        }
        self.rules().check_backend_request(&request).map_err(violates)?;
        // A look-up is flagged too: some front-ends answer only then.
        let wanted = delivery == Delivery::Acknowledged || matches!(row.reply, ReplyRule::Own(_));
        let flagged = match row.reply {
            // The older dialects answer whenever they are asked, and are always asked.
            ReplyRule::AcknowledgedWhenFlagged | ReplyRule::OwnWhenFlagged(_) => Flagged::Yes,
            _ if wanted && negotiated.has_acknowledgements() => Flagged::Yes,
            _ => Flagged::No,
        };
        let due = Due::of(row, flagged, &negotiated, Postcopy::Off);
        if due != Due::Nothing {
            self.asking.check_room()?;
        }
        let transmit = request.write(message, row, Header::opening(wire, flagged == Flagged::Yes), form, out)?;
        if due != Due::Nothing {
            self.asking.ask(Question { message, wire, due, effect: Some(()) });
        }
        Ok(transmit)
    }

    /// Takes the answer to the oldest outstanding request of the back-end.
    ///
    /// # Errors
    /// The back-end's channel is of no use after one, except for [`Fault::Caller`]; the session
    /// goes on.
    pub fn handle_reply<'b, H>(&mut self, frame: Frame<'b, H>) -> Result<BackendReply<H>, Fault> {
        if self.failed || self.backend_channel_failed {
            return Err(ApiMisuse::SessionFailed.into());
        }
        let result = self.reply(frame);
        self.backend_channel_failed = result.is_err();
        result
    }

    fn reply<'b, H>(&mut self, mut frame: Frame<'b, H>) -> Result<BackendReply<H>, Fault> {
        let question = self.asking.answered(Channel::Backend, &frame)?;
        let message = question.message;
        if question.due != Due::Reply {
            let number = acknowledgement(message, frame.payload, frame.handles.len())?;
            return Ok(number.map_or(BackendReply::Done, BackendReply::Refused));
        }
        let row = message.row().ok_or(DecodeError::UnknownRequest { message })?;
        let form = self.form(Role::Reply);
        let reply = BackendReply::of_frame(row, &mut frame, form)
            .map_err(|misfit| misfit.of(&Found::new(message, &frame, form), row.reply_payload, row.reply_handles))?;
        match reply {
            BackendReply::SharedObjectLookup(number, _) => {
                Ok(core::num::NonZeroU64::new(number).map_or(reply, BackendReply::Refused))
            }
            BackendReply::CacheIo(count) if count < 0 => {
                let number = core::num::NonZeroU64::new(count.unsigned_abs());
                Ok(number.map_or(reply, BackendReply::Refused))
            }
            reply => Ok(reply),
        }
    }

    /// The request that a frame holds, and what it does once it is granted. The regions of a table
    /// go to where the effect expects them.
    #[inline(never)]
    fn request_of<'b, H>(
        &mut self,
        message: MessageName,
        row: Option<&Row>,
        frame: &mut Frame<'b, H>,
        effect: &mut Option<Effect>,
    ) -> Result<Incoming<'b, H>, Rejection> {
        if !frame.header.is_request() {
            return Err(Rejection::no_request(&frame.header, Channel::Frontend));
        }
        let form = self.form(Role::Request);
        let Some(row) = row else {
            return Err(Rejection::misfit(Misfit::Unknown, &Found::new(message, frame, form), row));
        };
        if row.gate.enforcement == Enforcement::BothSides
            && let Err(violation) = self.session.negotiated.check(&row.gate)
        {
            return Err(Rejection::violation(message, &violation));
        }
        if self.config.tolerance.extra_handles == ExtraHandles::Close
            && row.handles != HandleRule::PerRegion
            && row.handles.count(frame.payload, form).most == 0
        {
            frame.handles.clear();
        }
        let request = match FrontendRequest::of_frame(row, frame, form) {
            Ok(request) => request,
            Err(misfit) => return Err(Rejection::misfit(misfit, &Found::new(message, frame, form), Some(row))),
        };
        let rings = usize::from(self.config.rings).min(VRINGS);
        let state = Projection::settled(&self.session);
        let rules = Rules { state, rings, slots: self.memory_slots(), tolerance: &self.config.tolerance };
        match rules.effect(&request, &mut self.table) {
            Ok(granted) => *effect = Some(granted),
            Err(violation) => {
                self.table.clear();
                return Err(broken(message, &violation));
            }
        }
        Ok(Incoming::Request(request))
    }

    /// Refuses an answer that contradicts its request; front-ends close the connection over these.
    fn check_answer<H>(&self, question: &Question<Effect>, reply: &FrontendReply<'_, H>) -> Result<(), ApiMisuse> {
        let (field, expected, found) = match (reply, question.effect) {
            (FrontendReply::GetVringBase(state), Some(Effect::Ring { index, .. })) => {
                ("ring", u64::from(index), u64::from(state.index()))
            }
            (FrontendReply::GetConfig(config), Some(Effect::ReadConfig(size))) => {
                ("size", u64::from(size), u64::try_from(config.data.len()).unwrap_or(u64::MAX))
            }
            (FrontendReply::SetMemTable(regions), Some(Effect::ReplaceMemory)) => {
                let count = |regions| u64::try_from(regions).unwrap_or(u64::MAX);
                ("regions", count(self.table.len()), count(regions.len()))
            }
            _ => return Ok(()),
        };
        let message = question.message;
        if expected == found { Ok(()) } else { Err(ApiMisuse::AnswerDiffers { message, field, expected, found }) }
    }

    fn closes_silently(&self, code: FrontendCode) -> bool {
        match self.config.tolerance.silent_refusal {
            SilentRefusal::CloseIfDisagreeing => changes_features(code) || changes_memory(code),
            SilentRefusal::Close => true,
            SilentRefusal::Continue => false,
        }
    }

    fn memory_slots(&self) -> usize {
        usize::from(self.config.memory_slots).min(REGIONS)
    }

    fn rules(&self) -> Rules<'_, VRINGS, REGIONS> {
        let rings = usize::from(self.config.rings).min(VRINGS);
        let state = Projection::settled(&self.session);
        Rules { state, rings, slots: self.memory_slots(), tolerance: &self.config.tolerance }
    }

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
        && frame.header.check(Channel::Frontend).is_ok()
        && !frame.header.is_reply()
        && (id == 0 || changes_memory(FrontendCode(id)))
}
