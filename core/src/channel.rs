//! Asking and answering on one socket: order, acknowledgements, exactly one reply.
//!
//! Both channels use this; it does not know which side it plays. `E` is what a request does once
//! it is granted, and waits here until then.

use zerocopy::IntoBytes;

use crate::{
    assembler::{Frame, Handles, Transmit},
    error::{ApiMisuse, DecodeError, Fault, PeerMisbehaved},
    session::{Negotiated, Postcopy},
    wire::{
        crypto::CryptoSession,
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
    pub(crate) fn of(row: Option<&Row>, flagged: Flagged, negotiated: &Negotiated, postcopy: Postcopy) -> Self {
        let acknowledged = if flagged == Flagged::Yes && negotiated.has_acknowledgements() {
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
            ReplyRule::LogFile if negotiated.has_log_file() => Self::Reply,
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
    /// The row of the request if a reply with content that answers `found` can be its answer: there is
    /// one, or the sender did not ask for it.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn row_of_answer(&self, found: Option<MessageName>) -> Option<&'static Row> {
        let fits = !self.refused && found == Some(self.message) && matches!(self.due, Due::Reply | Due::Nothing);
        if fits { self.message.row() } else { None }
    }

    /// What a frame tells that answers it.
    pub(crate) fn answered_by<'b, H, R: Reply<'b, H>>(&self, frame: &mut Frame<'b, H>, form: Form) -> Result<R, Fault> {
        let found = Found::new(self.message, frame, form);
        match self.heard(&found)? {
            Heard::Number(number) => Ok(R::telling(number)),
            Heard::Content(row, payload) => {
                frame.payload = payload;
                match R::of_parts(row, frame, form) {
                    Some(reply) => Ok(reply),
                    None => found.fault_of_reply(row.reply_payload, row.reply_handles),
                }
            }
        }
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn heard<'b>(&self, found: &Found<'b>) -> Result<Heard<'b>, Fault> {
        match self.message.row() {
            Some(row) if self.due == Due::Reply => {
                if found.is_empty_refusal(row) {
                    return Ok(Heard::Number(1));
                }
                match found.payload_of(row.reply_payload, row.reply_handles) {
                    Some(payload) => Ok(Heard::Content(row, payload)),
                    None => found.fault_of_reply(row.reply_payload, row.reply_handles),
                }
            }
            _ => match found.number() {
                Some(number) => Ok(Heard::Number(number)),
                None => found.fault_of_reply(PayloadKind::U64, HandleRule::None),
            },
        }
    }

    /// What there is to say of an answer that belongs to another request, or to any.
    #[cold]
    #[inline(never)]
    fn does_not_fit<T>(&self, found: Option<MessageName>) -> Result<T, ApiMisuse> {
        Err(ApiMisuse::AnswerDoesNotFit { expected: self.message, found })
    }
}

/// What answers a question.
enum Heard<'b> {
    /// Success, zero, or a refusal.
    Number(u64),
    /// A payload that has what a reply to a request of this row is made of.
    Content(&'static Row, &'b [u8]),
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
    if let Some(number) = reply.number() {
        return tell(question, number, form, out);
    }
    let found = reply.message();
    let Some(row) = question.row_of_answer(found) else { return question.does_not_fit(found) };
    let (mut writer, mut handles) = (Writer::new(out), Handles::new());
    reply.put(&mut writer, &mut handles, form);
    send(question, writer, row.reply_handles, handles, form)
}

/// Tells success, zero, or a refusal.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn tell<'o, H>(
    question: &Question,
    number: u64,
    form: Form,
    out: &'o mut [u8],
) -> Result<Answered<'o, H>, ApiMisuse> {
    let mut writer = Writer::new(out);
    match question.due {
        // What the machine itself refused cannot be granted.
        due if number == 0 && (question.refused || due == Due::Reply) => return question.does_not_fit(None),
        Due::Acknowledgement => writer.put_number(number),
        Due::Reply if !put_refusal(question.message, number, &mut writer) => return Ok(Answered::Close),
        Due::Reply | Due::Empty | Due::Nothing => {}
    }
    send(question, writer, HandleRule::None, Handles::new(), form)
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
    let header = Header::answering(MessageName { id: question.wire, ..question.message });
    let bytes = whole(writer, question.message, header, rule, handles.len(), form)?;
    Ok(Answered::Send(Transmit { bytes, handles }))
}

/// Refuses a request that has a reply of its own, in the way that reply can tell it; says whether it
/// can.
fn put_refusal(message: MessageName, number: u64, writer: &mut Writer<'_>) -> bool {
    let Some(row) = message.row() else { return false };
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
    if rule != HandleRule::None || found != 0 {
        let expected = rule.count(bytes.get(Header::SIZE..).unwrap_or_default(), form);
        if found < expected.least || found > expected.most {
            return Err(ApiMisuse::HandleCount { message, expected, found });
        }
    }
    Ok(bytes)
}
