//! The front-end's machine: what a VMM says to a back-end, and what it hears.

use core::num::NonZeroU64;

use crate::{
    assembler::{Frame, Handles, Transmit},
    channel::{Answered, Asking, Due, Flagged, Pending, Question, answer, opening},
    dialect::Dialect,
    difference::{Difference, difference},
    error::{ApiMisuse, Fault, PeerMisbehaved},
    memory_map::TableExtents,
    projection::{Later, Projection},
    rejection::{Obstacle, Rejection, Verdict, admit},
    rules::{Rules, Violation, check_backend_request},
    session::{Effect, Negotiated, Postcopy, Session},
    tolerance::{BrokenDependency, Tolerance},
    wire::{
        backend_request::{BackendCode, BackendReply, BackendRequest},
        crypto::CryptoSession,
        feature::{ProtocolFeatures, VirtioFeatures},
        frontend_request::{FrontendCode, FrontendReply, FrontendRequest},
        header::Header,
        migration::Transfer,
        misfit::Found,
        payload::{Form, Role},
        row::{Channel, MessageName, ReplyRule, Row},
        writer::Writer,
    },
};

/// Whether a request should be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// If the back-end can (`REPLY_ACK`), it tells whether it granted the request.
    Acknowledged,
    /// The request is sent and believed.
    Unacknowledged,
}

/// What a front-end's machine is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FrontendConfig {
    /// Rings the device may have, at most the machine's `VRINGS`.
    pub rings: u16,
    /// What is let pass.
    pub tolerance: Tolerance,
    /// What the back-end's channel speaks. Default: the standard dialect.
    pub dialect: Dialect,
}

impl FrontendConfig {
    /// For a device of so many rings.
    #[must_use]
    pub const fn new(rings: u16) -> Self {
        let tolerance = Tolerance {
            broken_dependency: BrokenDependency::Refuse,
            // What is tolerated of others is not sent.
            always_accepted: VirtioFeatures::empty(),
            ..Tolerance::new()
        };
        Self { rings, tolerance, dialect: Dialect::Standard }
    }
}

/// The front-end's state: a plain value without buffers, descriptors or I/O.
///
/// It remembers up to `DEPTH` outstanding requests (at least one), `VRINGS` rings and `REGIONS` memory regions.
///
/// ```
/// use vhost_core::{Delivery, Frontend, FrontendConfig, FrontendRequest, MAX_MESSAGE};
///
/// let mut frontend = Frontend::<1, 8, 4>::new(FrontendConfig::new(1));
/// let mut out = [0; MAX_MESSAGE];
/// let request = FrontendRequest::<std::os::fd::OwnedFd>::GetFeatures;
/// let transmit = frontend.request(request, Delivery::Unacknowledged, &mut out)?;
/// assert_eq!(transmit.bytes.len(), 12); // to the socket with it
/// assert_eq!(frontend.outstanding(), 1); // then feed the reply to `handle_reply`
/// # Ok::<(), vhost_core::ApiMisuse>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frontend<const VRINGS: usize, const REGIONS: usize, const DEPTH: usize> {
    config: FrontendConfig,
    session: Session<VRINGS, REGIONS>,
    asking: Asking<Effect, DEPTH>,
    table: TableExtents,
    answering: Option<Question>,
    failed: bool,
    backend_channel_failed: bool,
}

impl<const VRINGS: usize, const REGIONS: usize, const DEPTH: usize> Frontend<VRINGS, REGIONS, DEPTH> {
    const ROOM_FOR_A_REQUEST: () = assert!(DEPTH > 0, "a request must be remembered until it is answered");

    /// The machine of a connection on which nothing was said yet.
    #[must_use]
    pub fn new(config: FrontendConfig) -> Self {
        let () = Self::ROOM_FOR_A_REQUEST;
        Self {
            session: Session::new(Negotiated::default(), config.dialect),
            config,
            asking: Asking::new(),
            table: TableExtents::new(),
            answering: None,
            failed: false,
            backend_channel_failed: false,
        }
    }

    /// Takes the back-end's offer as known, as after a reconnection to a back-end that was asked
    /// before, so that features can be acknowledged without asking again.
    pub fn assume_offer(&mut self, features: VirtioFeatures, protocol: ProtocolFeatures) {
        self.session.negotiated.offered = features;
        self.session.negotiated.protocol_offered = protocol;
    }

    /// What both sides agreed on.
    #[must_use]
    pub fn session(&self) -> &Session<VRINGS, REGIONS> {
        &self.session
    }

    /// How many requests wait for their answers. What was asked without waiting takes effect in
    /// order, so that requests to which no answer comes wait for those before them.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.asking.awaited()
    }

    /// Whether the session is over.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Makes a request. If it is to be answered, [`Self::outstanding`] grows by one.
    ///
    /// # Errors
    /// [`ApiMisuse`]; the machine is as before, and the request's descriptors are dropped.
    pub fn request<'o, H>(
        &mut self,
        request: FrontendRequest<'_, H>,
        delivery: Delivery,
        out: &'o mut [u8],
    ) -> Result<Transmit<'o, H>, ApiMisuse> {
        self.check_alive()?;
        let code = request.code();
        let message = code.message();
        let later = self.later();
        let rules = self.rules(later.as_ref());
        let (negotiated, postcopy) = (rules.state.negotiated(), rules.state.postcopy());
        let row = code.row().ok_or(ApiMisuse::NothingToAnswer)?;
        if !negotiated.opens(&row.gate) {
            return Err(ApiMisuse::violation(message, &Violation::NotNegotiated { gate: row.gate }));
        }
        let mut table = TableExtents::new();
        let mut effect = Effect::None;
        if let Err(violation) = rules.judge(&request, &mut table, &mut effect) {
            return Err(ApiMisuse::violation(message, &violation));
        }
        let replaces_memory = matches!(effect, Effect::ReplaceMemory);
        if replaces_memory && self.has_table_outstanding() {
            return Err(ApiMisuse::MemoryOutstanding);
        }
        let (flagged, due) = opening(row, message, delivery, negotiated.protocol, postcopy);
        if !self.asking.has_room() {
            return Asking::<Effect, DEPTH>::no_room();
        }
        let form = self.config.tolerance.form(Role::Request, negotiated.protocol, self.session.dialect);
        let result = request.write(message, row, Header::opening(message, flagged == Flagged::Yes), form, out);
        if result.is_ok() {
            if replaces_memory {
                self.table = table;
            }
            self.asking.ask(Question { message, wire: message.id, due, refused: false }, effect);
            self.settle();
        }
        result
    }

    /// Tells the back-end that the addresses it answered during postcopy are registered: the third
    /// part of that exchange. No answer comes.
    ///
    /// # Errors
    /// [`ApiMisuse`] if there was no such answer, or if `code` is no request that shares memory.
    pub fn acknowledge_postcopy_memory<'o, H>(
        &mut self,
        code: FrontendCode,
        out: &'o mut [u8],
    ) -> Result<Transmit<'o, H>, ApiMisuse> {
        self.check_alive()?;
        let message = code.message();
        if code.row().is_none_or(|row| row.reply != ReplyRule::Postcopy) {
            return Err(ApiMisuse::NothingToAnswer);
        }
        // Also not after something was asked that ends this exchange.
        let later = self.later();
        for state in [self.session.postcopy, self.rules(later.as_ref()).state.postcopy()] {
            if state != Postcopy::Answered {
                return Err(ApiMisuse::Violation { message, violation: Violation::PostcopyOrder { state } });
            }
        }
        if self.asking.outstanding().iter().any(|pending| pending.effect.shares_memory()) {
            return Err(ApiMisuse::MemoryOutstanding);
        }
        let mut writer = Writer::new(out);
        writer.put_number(0);
        let bytes = writer.seal(message, Header::opening(message, false))?;
        self.session.postcopy = Postcopy::Listening;
        Ok(Transmit { bytes, handles: Handles::new() })
    }

    /// Takes the answer to the oldest outstanding request.
    ///
    /// A refusal is not an error: it comes as [`FrontendReply::Refused`] and the session goes on.
    ///
    /// # Errors
    /// The session is over after one, except for [`Fault::Caller`].
    pub fn handle_reply<'b, H>(&mut self, mut frame: Frame<'b, H>) -> Result<FrontendReply<'b, H>, Fault> {
        let mut reply = match self.reply(&mut frame) {
            Ok(reply) => reply,
            Err(fault) => return self.fail(fault),
        };
        match self.take(&mut reply) {
            Ok(()) => Ok(reply),
            Err(fault) => self.fail(fault),
        }
    }

    /// The session is over.
    #[cold]
    fn fail<T>(&mut self, fault: Fault) -> Result<T, Fault> {
        self.failed = true;
        Err(fault)
    }

    /// Takes a request from the back-end's own channel. It must be answered with
    /// [`Self::answer_backend`] before the next one is taken.
    ///
    /// # Errors
    /// See [`Rejection`].
    pub fn handle_request<'b, H>(&mut self, mut frame: Frame<'b, H>) -> Result<BackendRequest<'b, H>, Rejection> {
        let wire = BackendCode(frame.header.request());
        let dialect = self.session.dialect.chosen_by(&frame);
        let known = dialect.code(wire.0);
        let (message, row) = (known.unwrap_or(wire).message(), known.and_then(BackendCode::row));
        let result = self.backend_request(&mut frame, message, row, dialect);
        match result.as_ref().map_err(Rejection::verdict) {
            Err(Verdict::Misuse) => {}
            Err(Verdict::Close) => self.backend_channel_failed = true,
            Ok(_) | Err(Verdict::Refuse) => {
                if result.is_ok() {
                    self.session.dialect = dialect;
                }
                let (flagged, protocol) = (Flagged::from_header(&frame.header), self.session.negotiated.protocol);
                let due = Due::of(row, flagged, protocol, self.session.postcopy);
                self.answering = Some(Question { message, wire: wire.0, due, refused: result.is_err() });
            }
        }
        result
    }

    /// Answers the request that was taken from the back-end's channel.
    ///
    /// # Errors
    /// [`ApiMisuse`]; the machine is as before.
    pub fn answer_backend<'o, H>(
        &mut self,
        reply: BackendReply<H>,
        out: &'o mut [u8],
    ) -> Result<Answered<'o, H>, ApiMisuse> {
        let result = match &self.answering {
            _ if self.failed || self.backend_channel_failed => Err(ApiMisuse::SessionFailed),
            Some(question) => answer(question, reply, self.form(Role::Reply), out),
            None => Err(ApiMisuse::NothingToAnswer),
        };
        if let Ok(answered) = &result {
            self.answering = None;
            self.backend_channel_failed = matches!(answered, Answered::Close);
        }
        result
    }

    fn check_alive(&self) -> Result<(), ApiMisuse> {
        if self.failed { Err(ApiMisuse::SessionFailed) } else { Ok(()) }
    }

    /// Carries out the requests to which no answer comes and before which none is missing.
    fn settle(&mut self) {
        while self.asking.settled().is_some() {
            self.grant();
        }
    }

    /// Carries out the oldest request.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn grant(&mut self) {
        let Some(Pending { effect, .. }) = self.asking.outstanding().first() else { return };
        self.session.apply(effect, &mut self.table);
        if matches!(effect, Effect::OpenBackendChannel) {
            // What came through an earlier channel cannot be answered through this one.
            self.answering = None;
            self.backend_channel_failed = false;
        }
        self.asking.forget_oldest();
    }

    fn has_table_outstanding(&self) -> bool {
        self.asking.outstanding().iter().any(|pending| matches!(pending.effect, Effect::ReplaceMemory))
    }

    /// What is outstanding.
    fn later(&self) -> Option<Later<'_>> {
        Later::of(&self.session, self.asking.outstanding(), &self.table)
    }

    fn rules<'s>(&'s self, later: Option<&'s Later<'s>>) -> Rules<'s, VRINGS, REGIONS> {
        let state = Projection::new(&self.session, later);
        Rules { state, rings: self.rings(), slots: REGIONS, tolerance: &self.config.tolerance }
    }

    fn rings(&self) -> usize {
        usize::from(self.config.rings).min(VRINGS)
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn form(&self, role: Role) -> Form {
        self.config.tolerance.form(role, self.session.negotiated.protocol, self.session.dialect)
    }

    /// What a frame tells that answers the oldest request.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn reply<'b, H>(&self, frame: &mut Frame<'b, H>) -> Result<FrontendReply<'b, H>, Fault> {
        self.check_alive()?;
        match self.asking.answered(&frame.header, Channel::Frontend) {
            Some(asked) => asked.question.answered_by(frame, self.form(Role::Reply)),
            None => self.asking.unexpected(&frame.header, Channel::Frontend),
        }
    }

    /// Carries out the oldest request if this is its reply, or makes it the refusal that hides in it.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn take<H>(&mut self, reply: &mut FrontendReply<'_, H>) -> Result<(), Fault> {
        let Some(asked) = self.asking.outstanding().first() else { return Ok(()) };
        match (difference(reply, &asked.effect, &self.table), &mut *reply) {
            (None, _) => {}
            // SPDK always replies with 256 bytes.
            (Some(Difference::Size { expected, .. }), FrontendReply::GetConfig(config)) => {
                config.data = config.data.get(..expected).unwrap_or(config.data);
            }
            (Some(difference), _) => return Err(differs(asked.question.message, &difference)),
        }
        let refusal = match reply {
            FrontendReply::Refused(number) => Some(*number),
            FrontendReply::GetConfig(config) if config.data.is_empty() => Some(NonZeroU64::MIN),
            FrontendReply::SetDeviceStateFd(number, _) => NonZeroU64::new(*number & Transfer::ERROR_MASK),
            FrontendReply::CreateCryptoSession(session) if session.session_id() > CryptoSession::FAILED >> 1 => {
                NonZeroU64::new(session.session_id())
            }
            _ => None,
        };
        if let Some(number) = refusal {
            *reply = FrontendReply::Refused(number);
            if matches!(asked.effect, Effect::ReplaceMemory) {
                self.table.clear();
            }
            self.asking.forget_oldest();
        } else {
            self.grant();
        }
        match reply {
            FrontendReply::GetFeatures(features) => self.session.negotiated.offered = *features,
            FrontendReply::GetProtocolFeatures(features) => self.session.negotiated.protocol_offered = *features,
            _ => {}
        }
        self.settle();
        Ok(())
    }

    fn backend_request<'b, H>(
        &self,
        frame: &mut Frame<'b, H>,
        message: MessageName,
        row: Option<&'static Row>,
        dialect: Dialect,
    ) -> Result<BackendRequest<'b, H>, Rejection> {
        if self.failed || self.backend_channel_failed {
            return Err(Rejection::session_failed());
        }
        if let Some(question) = &self.answering {
            return Err(Rejection::answer_outstanding(question.message));
        }
        let form = self.form(Role::Request).with_dialect(dialect);
        let handles = frame.handles.len();
        let obstacle = match row {
            None => Obstacle::without_row(&frame.header),
            Some(row) => match admit(frame, row, form, &self.session.negotiated) {
                Ok(()) => match BackendRequest::of_parts(row, frame, form) {
                    Some(request) => return self.checked(message, request),
                    None => Obstacle::Misfit,
                },
                Err(obstacle) => obstacle,
            },
        };
        let found = Found::new(message, frame, form).with_handles(handles);
        Err(obstacle.rejection(&frame.header, &found, row))
    }

    fn checked<'b, H>(
        &self,
        message: MessageName,
        request: BackendRequest<'b, H>,
    ) -> Result<BackendRequest<'b, H>, Rejection> {
        match check_backend_request(&request, self.rings()) {
            Ok(()) => Ok(request),
            Err(violation) => Err(Rejection::violation(message, &violation)),
        }
    }
}

/// What there is to say of a reply that contradicts its request.
#[cold]
#[inline(never)]
fn differs(message: MessageName, difference: &Difference) -> Fault {
    let error = match *difference {
        Difference::Ring { expected, found } => PeerMisbehaved::WrongRing { message, expected, found },
        Difference::Size { expected, found } | Difference::Regions { expected, found } => {
            PeerMisbehaved::WrongRegionCount { message, expected, found }
        }
        Difference::Region { expected, found } => PeerMisbehaved::WrongRegion { message, expected, found },
    };
    error.into()
}
