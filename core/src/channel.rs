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
        gpu::Response,
        header::Header,
        migration::Transfer,
        payload::{Form, Payload, PayloadFault, SizeRule, Writer},
        row::{Channel, HandleCount, HandleRule, MessageName, Refusal, ReplyRule, Row},
        scalar::Scalar,
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
    /// What answers a request that nobody knows.
    #[inline]
    pub(crate) fn of_unknown(flagged: Flagged, negotiated: &Negotiated) -> Self {
        if flagged == Flagged::Yes && negotiated.has_acknowledgements() { Self::Acknowledgement } else { Self::Nothing }
    }

    /// What answers a request of this row that came with or without the flag.
    #[inline]
    pub(crate) fn of(row: &Row, flagged: Flagged, negotiated: &Negotiated, postcopy: Postcopy) -> Self {
        let acknowledged = Self::of_unknown(flagged, negotiated);
        match row.reply {
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

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question<E> {
    pub(crate) message: MessageName,
    /// The same as it is called on the wire, which the answer repeats.
    pub(crate) wire: MessageName,
    pub(crate) due: Due,
    /// What it does once it is granted; `None` if the machine itself refused it already.
    pub(crate) effect: Option<E>,
}

/// The side that asks: its questions in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asking<E, const DEPTH: usize> {
    outstanding: heapless::Vec<Question<E>, DEPTH>,
}

impl<E, const DEPTH: usize> Asking<E, DEPTH> {
    pub(crate) const fn new() -> Self {
        Self { outstanding: heapless::Vec::new() }
    }

    pub(crate) fn outstanding(&self) -> &[Question<E>] {
        &self.outstanding
    }

    /// How many wait for an answer.
    pub(crate) fn awaited(&self) -> usize {
        let awaited = |question: &&Question<E>| question.due != Due::Nothing;
        // `count` would add with a check for overflow, which nobody can show to be needless.
        self.outstanding.iter().filter(awaited).fold(0, |count: usize, _| count.saturating_add(1))
    }

    /// Takes the oldest question if no answer comes to it: everything before it was answered.
    pub(crate) fn settled(&mut self) -> Option<Question<E>> {
        let oldest = self.outstanding.first()?;
        if oldest.due == Due::Nothing { Some(self.outstanding.remove(0)) } else { None }
    }

    /// Refuses one more question when there is no room to remember it.
    pub(crate) fn check_room(&self) -> Result<(), ApiMisuse> {
        if self.outstanding.is_full() { Err(ApiMisuse::TooManyOutstanding { limit: DEPTH }) } else { Ok(()) }
    }

    /// Remembers a question that is about to be sent; room was checked.
    pub(crate) fn ask(&mut self, question: Question<E>) {
        drop(self.outstanding.push(question));
    }

    /// Takes the question that a reply answers, which must be the oldest; `None` if it is not, or if
    /// that is no reply.
    pub(crate) fn answered(&mut self, header: &Header, channel: Channel) -> Option<Question<E>> {
        let oldest = self.outstanding.first()?;
        let answers = header.is_reply() && header.is_known(channel) && oldest.wire.id == header.request();
        answers.then(|| self.outstanding.remove(0))
    }

    /// Why [`Self::answered`] had no question for a frame.
    #[cold]
    #[inline(never)]
    pub(crate) fn unexpected(&self, header: &Header, channel: Channel) -> Fault {
        let found = MessageName { channel, id: header.request() };
        if let Err(error) = header.check(channel) {
            return error.into();
        }
        if !header.is_reply() {
            return DecodeError::RequestInsteadOfReply { message: found }.into();
        }
        match self.outstanding.first() {
            Some(oldest) => PeerMisbehaved::WrongReply { expected: oldest.message, found }.into(),
            None => PeerMisbehaved::UnsolicitedReply { message: found }.into(),
        }
    }
}

/// Reads an acknowledgement: zero for success. `None` if it is not one.
pub(crate) fn acknowledgement<H>(frame: &Frame<'_, H>) -> Option<u64> {
    let bytes = <[u8; 8]>::try_from(frame.payload).ok()?;
    frame.handles.is_empty().then_some(u64::from_ne_bytes(bytes))
}

/// Why a frame is no acknowledgement.
#[cold]
#[inline(never)]
pub(crate) fn no_acknowledgement(message: MessageName, payload: &[u8], handles: usize) -> Fault {
    let fault = PayloadFault::Size { expected: SizeRule::Exactly(8), found: payload.len() };
    let expected = HandleCount { least: 0, most: 0 };
    let error = match handles {
        0 => DecodeError::Payload { message, fault },
        found => DecodeError::HandleCount { message, expected, found },
    };
    error.into()
}

/// Writes an acknowledgement.
#[inline]
fn write_acknowledgement(wire: MessageName, number: u64, out: &mut [u8]) -> Result<&[u8], ApiMisuse> {
    let mut writer = Writer::new(out);
    writer.put(number.to_wire().as_bytes());
    writer.seal(wire, Header::answering(wire))
}

/// Writes what answers a request of this row when nothing but success or failure is to be told.
pub(crate) fn write_number<'o, H>(
    wire: MessageName,
    row: Option<&Row>,
    number: u64,
    out: &'o mut [u8],
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let bytes = match row.map(|row| row.reply) {
        Some(ReplyRule::Empty) => Writer::new(out).seal(wire, Header::answering(wire))?,
        _ => write_acknowledgement(wire, number, out)?,
    };
    Ok(Transmit { bytes, handles: Handles::new() })
}

/// Writes a reply with content.
pub(crate) fn write_reply<'o, H, R: Reply<H>>(
    message: MessageName,
    row: &Row,
    wire: MessageName,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let (mut writer, mut handles) = (Writer::new(out), Handles::new());
    reply.put(&mut writer, &mut handles, form);
    let bytes = writer.seal(message, Header::answering(wire))?;
    check_handles(message, row.reply_handles, bytes, handles.len(), form)?;
    Ok(Transmit { bytes, handles })
}

/// A typed reply of either channel.
pub(crate) trait Reply<H>: Sized {
    /// The number of an acknowledgement, zero for success; `None` for a reply of its own.
    fn number(&self) -> Option<u64>;
    /// The request that a reply of its own answers.
    fn message(&self) -> Option<MessageName>;
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

impl<'o, H> From<Told<'o>> for Answered<'o, H> {
    #[inline]
    fn from(told: Told<'o>) -> Self {
        match told {
            Told::Send(bytes) => Self::Send(Transmit { bytes, handles: Handles::new() }),
            Told::Silent => Self::Silent,
            Told::Close => Self::Close,
        }
    }
}

/// An answer without descriptors.
#[derive(Debug)]
pub(crate) enum Told<'o> {
    /// These bytes.
    Send(&'o [u8]),
    /// None is due.
    Silent,
    /// It cannot be told.
    Close,
}

/// Tells success, zero, or a refusal.
#[inline]
pub(crate) fn tell<'o, E>(
    question: &Question<E>,
    number: u64,
    form: Form,
    out: &'o mut [u8],
) -> Result<Told<'o>, ApiMisuse> {
    let Question { message, wire, due, ref effect } = *question;
    // What the machine itself refused cannot be granted.
    if number == 0 && (effect.is_none() || due == Due::Reply) {
        return Err(ApiMisuse::AnswerDoesNotFit { expected: message, found: None });
    }
    match due {
        Due::Nothing => Ok(Told::Silent),
        Due::Acknowledgement => write_acknowledgement(wire, number, out).map(Told::Send),
        Due::Empty => Writer::new(out).seal(wire, Header::answering(wire)).map(Told::Send),
        Due::Reply => Ok(refuse(message, wire, number, form, out)?.map_or(Told::Close, Told::Send)),
    }
}

/// Writes a reply of its own; the question and the session stay as they are.
pub(crate) fn answer_with_content<'o, H, E, R: Reply<H>>(
    question: &Question<E>,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Answered<'o, H>, ApiMisuse> {
    let Question { message, wire, due, ref effect } = *question;
    let found = reply.message();
    let misfit = ApiMisuse::AnswerDoesNotFit { expected: message, found };
    if effect.is_none() || found != Some(message) {
        return Err(misfit);
    }
    match due {
        // A reply that the sender did not ask for.
        Due::Nothing => Ok(Answered::Silent),
        Due::Reply => {
            let row = message.row().ok_or(misfit)?;
            write_reply(message, row, wire, reply, form, out).map(Answered::Send)
        }
        Due::Acknowledgement | Due::Empty => Err(misfit),
    }
}

/// Writes the answer to a question; the question and the session stay as they are.
pub(crate) fn answer<'o, H, E, R: Reply<H>>(
    question: &Question<E>,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Answered<'o, H>, ApiMisuse> {
    match reply.number() {
        Some(number) => tell(question, number, form, out).map(Answered::from),
        None => answer_with_content(question, reply, form, out),
    }
}

/// Refuses a request that has a reply of its own, in the way that reply can tell it; `None` if it
/// cannot.
fn refuse(
    message: MessageName,
    wire: MessageName,
    number: u64,
    form: Form,
    out: &mut [u8],
) -> Result<Option<&[u8]>, ApiMisuse> {
    let Some(row) = message.row() else { return Ok(None) };
    let (ReplyRule::Own(refusal) | ReplyRule::OwnWhenFlagged(refusal)) = row.reply else { return Ok(None) };
    let mut writer = Writer::new(out);
    match refusal {
        Refusal::Close => return Ok(None),
        Refusal::Empty => {}
        Refusal::Zeros => writer.put_zeros(row.reply_payload.size().usual()),
        Refusal::ErrorNumber => number.encode(&mut writer, form),
        Refusal::ErrorWithoutDescriptor => {
            let error = (number & Transfer::ERROR_MASK).max(1);
            (error | Transfer::NO_DESCRIPTOR).encode(&mut writer, form);
        }
        Refusal::NoSession => writer.put(CryptoSession::new(0, [0; 1056], CryptoSession::FAILED).as_bytes()),
        Refusal::NegativeNumber => {
            let error = i64::try_from(number).unwrap_or(i64::MAX);
            error.saturating_neg().encode(&mut writer, form);
        }
        Refusal::GpuError => {
            writer.put(Response::refusing(number).as_bytes());
            writer.put_zeros(row.reply_payload.size().usual().saturating_sub(Response::SIZE));
        }
    }
    writer.seal(message, Header::answering(wire)).map(Some)
}

/// Refuses a message with another number of descriptors than its row says.
pub(crate) fn check_handles(
    message: MessageName,
    rule: HandleRule,
    bytes: &[u8],
    found: usize,
    form: Form,
) -> Result<(), ApiMisuse> {
    let expected = rule.count(bytes.get(Header::SIZE..).unwrap_or_default(), form);
    if found < expected.least || found > expected.most {
        return Err(ApiMisuse::HandleCount { message, expected, found });
    }
    Ok(())
}
