//! Asking and answering on one socket: order, acknowledgements, exactly one reply.
//!
//! Both channels use this; it does not know which side it plays. `E` is what a request does once
//! it is granted, and waits here until then.

use zerocopy::IntoBytes;

use crate::{
    assembler::{Frame, Handles, Transmit},
    error::{ApiMisuse, DecodeError, Fault, PeerMisbehaved},
    frontend::Delivery,
    session::Postcopy,
    wire::{
        crypto::CryptoSession,
        feature::ProtocolFeatures,
        frontend_request::FrontendCode,
        header::Header,
        migration::Transfer,
        misfit::Found,
        payload::{Form, PayloadKind},
        row::{Channel, HandleRule, MessageName, Refusal, ReplyRule, Row},
        scalar::Scalar,
        writer::Writer,
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
    let flag = match row.reply {
        // The reply comes anyway, and DPDK sends an acknowledgement too if a flag asks for one.
        _ if message.channel == Channel::Frontend
            && Due::of(Some(row), Flagged::No, protocol, postcopy) == Due::Reply =>
        {
            false
        }
        // QEMU sets it on these whatever was negotiated, and some back-ends answer only then. The older
        // dialects of the other channel answer whenever they are asked, and are always asked.
        ReplyRule::AcknowledgedWhenFlagged | ReplyRule::OwnWhenFlagged(_) => true,
        ReplyRule::Status => message != FrontendCode::CHECK_DEVICE_STATE.message(),
        // A look-up is flagged too: some front-ends answer only then.
        ReplyRule::Own(_) => acknowledges,
        ReplyRule::Acknowledged | ReplyRule::LogFile | ReplyRule::Postcopy => {
            delivery == Delivery::Acknowledged
                && acknowledges
                && message != FrontendCode::SET_PROTOCOL_FEATURES.message()
        }
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
    /// The header of what answers it.
    fn header(&self) -> Header {
        Header::answering(MessageName { id: self.wire, ..self.message })
    }

    /// What a frame tells that answers it.
    pub(crate) fn answered_by<'b, H, R: Reply<'b, H>>(&self, frame: &mut Frame<'b, H>, form: Form) -> Result<R, Fault> {
        let (row, handles) = (R::row_of(self.message.id).filter(|_| self.due == Due::Reply), frame.handles.len());
        match (hear(row, frame, form), row) {
            (Heard::Number(number), _) => return Ok(R::telling(number)),
            (Heard::Content, Some(row)) => {
                if let Some(reply) = R::of_parts(row, frame, form) {
                    return Ok(reply);
                }
            }
            _ => {}
        }
        Err(self.unfit(row, frame, handles, form))
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
    fn does_not_fit<T>(&self, found: Option<MessageName>) -> Result<T, ApiMisuse> {
        Err(ApiMisuse::AnswerDoesNotFit { expected: self.message, found })
    }
}

/// What answers a request.
enum Heard {
    /// Success, zero, or a refusal.
    Number(u64),
    /// A payload of the size and with the descriptors that a reply of its own has.
    Content,
    /// Neither.
    Nothing,
}

/// What a frame tells that answers a request; of this row if the answer is a reply of its own.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
fn hear<H>(row: Option<&Row>, frame: &mut Frame<'_, H>, form: Form) -> Heard {
    match row {
        None => frame.number().map_or(Heard::Nothing, Heard::Number),
        Some(row) if frame.is_empty_refusal(row) => Heard::Number(1),
        Some(row) if frame.fit(row.reply_payload, row.reply_handles, form) => Heard::Content,
        Some(_) => Heard::Nothing,
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
        if !self.outstanding.is_empty() {
            drop(self.outstanding.remove(0));
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

/// Writes what answers a request of this row when nothing but success or failure is to be told.
pub(crate) fn write_number<'o, H>(
    wire: MessageName,
    row: Option<&Row>,
    number: u64,
    out: &'o mut [u8],
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let mut writer = Writer::new(out);
    if row.is_none_or(|row| row.reply != ReplyRule::Empty) {
        writer.put(number.to_wire().as_bytes());
    }
    let bytes = writer.seal(wire, Header::answering(wire))?;
    Ok(Transmit { bytes, handles: Handles::new() })
}

/// Writes a reply with content.
pub(crate) fn write_reply<'o, 'b, H, R: Reply<'b, H>>(
    message: MessageName,
    row: &Row,
    wire: MessageName,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let (mut writer, mut handles) = (Writer::new(out), Handles::new());
    reply.put(&mut writer, &mut handles, form);
    seal(writer, message, Header::answering(wire), row.reply_handles, handles, form)
}

/// A typed reply of either channel.
pub(crate) trait Reply<'b, H>: Sized {
    /// Success, zero, or a refusal.
    fn telling(number: u64) -> Self;
    /// The number of an acknowledgement, zero for success; `None` for a reply of its own.
    fn number(&self) -> Option<u64>;
    /// The request that a reply of its own answers.
    fn message(&self) -> Option<MessageName>;
    /// The row of a request on the channel of these replies.
    fn row_of(id: u32) -> Option<&'static Row>;
    /// Takes the reply to a request of this row out of its frame.
    fn of_parts(row: &Row, frame: &mut Frame<'b, H>, form: Form) -> Option<Self>;
    /// Writes the payload and hands out the descriptors.
    fn put(self, out: &mut Writer<'_>, handles: &mut Handles<H>, form: Form);
}

/// What is left to do after a request was answered.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Answered<'o, H> {
    /// Send this.
    Send(Transmit<'o, H>),
    /// Nothing: no answer is due.
    Silent,
    /// Close the connection: the refusal cannot be told in any other way. The machine has failed.
    Close,
}

/// Writes the answer to a question; the question and the session stay as they are.
pub(crate) fn answer<'o, 'b, H, R: Reply<'b, H>>(
    question: &Question,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Answered<'o, H>, ApiMisuse> {
    match reply.number() {
        Some(number) => tell(question, R::row_of, number, out),
        None => answer_with_content(question, reply, form, out),
    }
}

/// Writes a reply of its own.
pub(crate) fn answer_with_content<'o, 'b, H, R: Reply<'b, H>>(
    question: &Question,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Answered<'o, H>, ApiMisuse> {
    let found = reply.message();
    // There is a reply with content to this request, or the sender did not ask for it.
    let fits = found == Some(question.message) && matches!(question.due, Due::Reply | Due::Nothing);
    let row = if fits && !question.refused { R::row_of(question.message.id) } else { None };
    let Some(row) = row else { return question.does_not_fit(found) };
    let (mut writer, mut handles) = (Writer::new(out), Handles::new());
    reply.put(&mut writer, &mut handles, form);
    send(question, writer, row.reply_handles, handles, form)
}

/// Tells success, zero, or a refusal; `row_of` finds the row of a request of the channel.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn tell<'o, H>(
    question: &Question,
    row_of: fn(u32) -> Option<&'static Row>,
    number: u64,
    out: &'o mut [u8],
) -> Result<Answered<'o, H>, ApiMisuse> {
    let mut writer = Writer::new(out);
    match question.due {
        // What the machine itself refused cannot be granted.
        due if number == 0 && (question.refused || due == Due::Reply) => return question.does_not_fit(None),
        Due::Nothing => return Ok(Answered::Silent),
        Due::Acknowledgement => writer.put_number(number),
        Due::Reply if !put_refusal(row_of(question.message.id), number, &mut writer) => return Ok(Answered::Close),
        Due::Reply | Due::Empty => {}
    }
    match writer.seal(question.message, question.header()) {
        Ok(bytes) => Ok(Answered::Send(Transmit { bytes, handles: Handles::new() })),
        Err(misuse) => Err(misuse),
    }
}

/// Sends an answer that is written if one is due.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn send<'o, H>(
    question: &Question,
    writer: Writer<'o>,
    rule: HandleRule,
    handles: Handles<H>,
    form: Form,
) -> Result<Answered<'o, H>, ApiMisuse> {
    if question.due == Due::Nothing {
        return Ok(Answered::Silent);
    }
    let bytes = whole(writer, question.message, question.header(), rule, handles.len(), form)?;
    Ok(Answered::Send(Transmit { bytes, handles }))
}

/// Refuses a request that has a reply of its own, in the way that reply can tell it; says whether it
/// can.
fn put_refusal(row: Option<&Row>, number: u64, writer: &mut Writer<'_>) -> bool {
    let Some(row) = row else { return false };
    let (ReplyRule::Own(refusal) | ReplyRule::OwnWhenFlagged(refusal)) = row.reply else { return false };
    let (zeros, number) = match refusal {
        // The GPU channel tells them itself.
        Refusal::Close | Refusal::GpuError => return false,
        Refusal::Empty => return true,
        Refusal::Zeros => (row.reply_payload.size().usual(), None),
        Refusal::NoSession => (CryptoSession::BEFORE_ID, Some(CryptoSession::FAILED)),
        Refusal::ErrorNumber => (0, Some(number)),
        Refusal::ErrorWithoutDescriptor => (0, Some((number & Transfer::ERROR_MASK).max(1) | Transfer::NO_DESCRIPTOR)),
        Refusal::NegativeNumber => (0, Some(number.min(i64::MAX.unsigned_abs()).wrapping_neg())),
    };
    writer.put_zeros(zeros);
    if let Some(number) = number {
        writer.put_number(number);
    }
    true
}

/// Makes a message whole whose payload is written.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn seal<'o, H>(
    writer: Writer<'o>,
    message: MessageName,
    header: Header,
    rule: HandleRule,
    handles: Handles<H>,
    form: Form,
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let bytes = whole(writer, message, header, rule, handles.len(), form)?;
    Ok(Transmit { bytes, handles })
}

/// Puts its header in front of a message, and refuses it if its row wants another number of
/// descriptors.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
fn whole<'o>(
    writer: Writer<'o>,
    message: MessageName,
    header: Header,
    rule: HandleRule,
    found: usize,
    form: Form,
) -> Result<&'o [u8], ApiMisuse> {
    let bytes = writer.seal(message, header)?;
    if rule == HandleRule::None && found == 0 {
        return Ok(bytes);
    }
    let expected = rule.count(bytes.get(Header::SIZE..).unwrap_or_default(), form);
    if found < expected.least || found > expected.most {
        return Err(ApiMisuse::HandleCount { message, expected, found });
    }
    Ok(bytes)
}
