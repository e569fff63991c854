//! Asking and answering on one socket: order, acknowledgements, exactly one reply.
//!
//! Both channels use this; it does not know which side it plays. `E` is what a request does once
//! it is granted, and waits here until then.

mod answer;

pub use self::answer::Answered;
pub(crate) use self::answer::{
    Reply, Told, answer, content_message, send, tell, tell_content, with_handles, write_number, write_reply,
};

use crate::{
    assembler::Frame,
    error::{ApiMisuse, DecodeError, Fault, PeerMisbehaved},
    frontend::Delivery,
    session::Postcopy,
    wire::{
        feature::ProtocolFeatures,
        frontend_request::FrontendCode,
        header::Header,
        misfit::Found,
        payload::{Form, PayloadKind},
        row::{Channel, HandleRule, MessageName, ReplyRule, Row},
    },
};

/// What answers a request, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// A number, zero for success.
    Acknowledgement,
    /// A reply of its own.
    Reply,
    /// A reply without payload.
    Empty,
}

impl Due {
    /// What answers a request of this row that came with or without the flag; `None` if nobody knows it.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn of(row: Option<&Row>, flagged: Flagged, protocol: ProtocolFeatures, postcopy: Postcopy) -> Self {
        let acknowledged = if flagged == Flagged::Yes && protocol.contains(ProtocolFeatures::REPLY_ACK) {
            Self::Acknowledgement
        } else {
            Self::Nothing
        };
        match row.map_or(ReplyRule::Acknowledged, |row| row.reply) {
            ReplyRule::Acknowledged => acknowledged,
            ReplyRule::AcknowledgedWhenFlagged if flagged == Flagged::Yes => Self::Acknowledgement,
            ReplyRule::AcknowledgedWhenFlagged => Self::Nothing,
            ReplyRule::Status => Self::Acknowledgement,
            ReplyRule::Own(_) => Self::Reply,
            ReplyRule::LogFile if protocol.contains(ProtocolFeatures::LOG_SHMFD) => Self::Reply,
            ReplyRule::LogFile => acknowledged,
            ReplyRule::Postcopy if matches!(postcopy, Postcopy::Listening | Postcopy::Answered) => Self::Reply,
            ReplyRule::Postcopy => acknowledged,
            ReplyRule::OwnWhenFlagged(_) if flagged == Flagged::Yes => Self::Reply,
            ReplyRule::OwnWhenFlagged(_) | ReplyRule::Never => Self::Nothing,
            ReplyRule::Empty => Self::Empty,
        }
    }
}

/// Whether a request carries the need-reply flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flagged {
    Yes,
    No,
}

/// Whether a request carries the need-reply flag, and what answers it then.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn opening(
    row: &Row,
    message: MessageName,
    delivery: Delivery,
    protocol: ProtocolFeatures,
    postcopy: Postcopy,
) -> (Flagged, Due) {
    let acknowledges = protocol.contains(ProtocolFeatures::REPLY_ACK);
    let acknowledged = delivery == Delivery::Acknowledged && acknowledges;
    let flag = match row.reply {
        ReplyRule::Acknowledged => acknowledged && message != FrontendCode::SET_PROTOCOL_FEATURES.message(),
        // When the reply comes anyway, DPDK sends an acknowledgement too if a flag asks for one.
        ReplyRule::LogFile | ReplyRule::Postcopy => {
            acknowledged && Due::of(Some(row), Flagged::No, protocol, postcopy) != Due::Reply
        }
        // A look-up of the other channel is flagged too: some front-ends answer only then.
        ReplyRule::Own(_) => message.channel != Channel::Frontend && acknowledges,
        // QEMU sets it on these whatever was negotiated, and some back-ends answer only then. The older
        // dialects of the other channel answer whenever they are asked, and are always asked.
        ReplyRule::AcknowledgedWhenFlagged | ReplyRule::OwnWhenFlagged(_) => true,
        ReplyRule::Status => message != FrontendCode::CHECK_DEVICE_STATE.message(),
        ReplyRule::Never | ReplyRule::Empty => false,
    };
    let flagged = if flag { Flagged::Yes } else { Flagged::No };
    (flagged, Due::of(Some(row), flagged, protocol, postcopy))
}

impl Flagged {
    #[inline]
    pub(crate) fn from_header(header: &Header) -> Self {
        if header.needs_reply() { Self::Yes } else { Self::No }
    }
}

/// A request that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) message: MessageName,
    /// Its id on the wire, which the answer repeats.
    pub(crate) wire: u32,
    pub(crate) due: Due,
    /// Whether the machine itself refused it already: then it cannot be granted.
    pub(crate) refused: bool,
}

impl Question {
    /// The name of its answer on the wire.
    fn on_wire(&self) -> MessageName {
        MessageName { id: self.wire, ..self.message }
    }

    /// The header of what answers it.
    fn header(&self) -> Header {
        Header::answering(self.on_wire())
    }

    /// The row of a request with this id, if a reply with content answers it and one to `found` is that.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn row_for(
        &self,
        found: Option<MessageName>,
        row: Option<&'static Row>,
    ) -> Result<&'static Row, ApiMisuse> {
        // There is a reply with content to this request, or the sender did not ask for it.
        let fits = found == Some(self.message) && matches!(self.due, Due::Reply | Due::Nothing) && !self.refused;
        match row {
            Some(row) if fits => Ok(row),
            _ => self.does_not_fit(found),
        }
    }

    /// What a frame tells that answers it.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn answered_by<'b, H, R: Reply<'b, H>>(&self, frame: &mut Frame<'b, H>, form: Form) -> Result<R, Fault> {
        let handles = frame.handles.len();
        let row = if self.due == Due::Reply { R::row_of(self.message.id) } else { None };
        let reply = match row {
            None => frame.number().map(R::telling),
            Some(row) if frame.is_empty_refusal(row) => Some(R::telling(1)),
            Some(row) if frame.fit(row.reply_payload, row.reply_handles, form) => R::of_parts(row, frame, form),
            Some(_) => None,
        };
        match reply {
            Some(reply) => Ok(reply),
            None => Err(self.unfit(row, frame, handles, form)),
        }
    }

    /// What there is to say of a frame that is no answer, and came with so many descriptors.
    #[cold]
    #[inline(never)]
    fn unfit<H>(&self, row: Option<&Row>, frame: &Frame<'_, H>, handles: usize, form: Form) -> Fault {
        let acknowledgement = (PayloadKind::U64, HandleRule::None);
        let (kind, rule) = row.map_or(acknowledgement, |row| (row.reply_payload, row.reply_handles));
        Found::new(self.message, frame, form).with_handles(handles).fault(kind, rule).into()
    }

    /// What there is to say of an answer that belongs to another request, or to any.
    #[cold]
    #[inline(never)]
    pub(crate) fn does_not_fit<T>(&self, found: Option<MessageName>) -> Result<T, ApiMisuse> {
        Err(ApiMisuse::AnswerDoesNotFit { expected: self.message, found })
    }
}

/// A request that waits for its answer, and what it does once it is granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending<E> {
    pub(crate) question: Question,
    pub(crate) effect: E,
}

/// The side that asks: its questions in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asking<E, const DEPTH: usize> {
    outstanding: heapless::Vec<Pending<E>, DEPTH>,
}

impl<E, const DEPTH: usize> Asking<E, DEPTH> {
    pub(crate) const fn new() -> Self {
        Self { outstanding: heapless::Vec::new() }
    }

    pub(crate) fn outstanding(&self) -> &[Pending<E>] {
        &self.outstanding
    }

    /// How many wait for an answer.
    pub(crate) fn awaited(&self) -> usize {
        let awaited = |pending: &&Pending<E>| pending.question.due != Due::Nothing;
        // `count` would add with a check for overflow, which nobody can show to be needless.
        self.outstanding.iter().filter(awaited).fold(0, |count: usize, _| count.saturating_add(1))
    }

    /// The oldest question if no answer comes to it: everything before it was answered.
    pub(crate) fn settled(&self) -> Option<&Pending<E>> {
        self.outstanding.first().filter(|oldest| oldest.question.due == Due::Nothing)
    }

    /// Whether one more question can be remembered.
    pub(crate) fn has_room(&self) -> bool {
        !self.outstanding.is_full()
    }

    /// What there is to say when it cannot.
    #[cold]
    #[inline(never)]
    pub(crate) fn no_room<T>() -> Result<T, ApiMisuse> {
        Err(ApiMisuse::TooManyOutstanding { limit: DEPTH })
    }

    /// Remembers a question that is about to be sent; there is room.
    pub(crate) fn ask(&mut self, question: Question, effect: E) {
        drop(self.outstanding.push(Pending { question, effect }));
    }

    /// The question that a reply answers, which must be the oldest; `None` if it is not, or if that
    /// is no reply.
    pub(crate) fn answered(&self, header: &Header, channel: Channel) -> Option<&Pending<E>> {
        let answers = |oldest: &&Pending<E>| {
            header.is_reply() && header.is_known(channel) && oldest.question.wire == header.request()
        };
        self.outstanding.first().filter(answers)
    }

    /// Forgets the oldest question.
    pub(crate) fn forget_oldest(&mut self) {
        if self.outstanding.len() > 1 {
            drop(self.outstanding.remove(0));
        } else {
            drop(self.outstanding.pop());
        }
    }

    /// Why [`Self::answered`] had no question for a frame.
    #[cold]
    pub(crate) fn unexpected<T>(&self, header: &Header, channel: Channel) -> Result<T, Fault> {
        Err(unexpected(self.outstanding.first().map(|oldest| oldest.question.message), header, channel))
    }
}

#[cold]
#[inline(never)]
fn unexpected(oldest: Option<MessageName>, header: &Header, channel: Channel) -> Fault {
    let found = MessageName { channel, id: header.request() };
    if !header.is_known(channel) || !header.is_reply() {
        return header.fault_or(channel, DecodeError::RequestInsteadOfReply { message: found }).into();
    }
    match oldest {
        Some(expected) => PeerMisbehaved::WrongReply { expected, found }.into(),
        None => PeerMisbehaved::UnsolicitedReply { message: found }.into(),
    }
}
