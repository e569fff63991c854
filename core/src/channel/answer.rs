//! Answering: what is written for success, for a refusal, and for a reply of its own.

use super::{Due, Question};
use crate::{
    assembler::{Frame, Handles, Transmit},
    error::ApiMisuse,
    wire::{
        crypto::CryptoSession,
        header::Header,
        migration::Transfer,
        payload::Form,
        row::{HandleRule, MessageName, Refusal, ReplyRule, Row},
        writer::{Content, Writer},
    },
};

/// Writes what answers a request of this row when nothing but success or failure is to be told.
pub(crate) fn write_number<'o, H>(
    wire: MessageName,
    row: Option<&Row>,
    number: u64,
    out: &'o mut [u8],
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let header = Header::answering(wire);
    let bytes = match row {
        Some(row) if row.reply == ReplyRule::Empty => Writer::new(out).seal(wire, header)?,
        _ => number_message(wire, header, number, out)?,
    };
    Ok(Transmit { bytes, handles: Handles::new() })
}

/// Writes a message that is a number.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
fn number_message(message: MessageName, header: Header, number: u64, out: &mut [u8]) -> Result<&[u8], ApiMisuse> {
    let mut writer = Writer::new(out);
    writer.put_number(number);
    writer.seal(message, header)
}

/// Writes a message of this content.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn content_message<'o>(
    message: MessageName,
    header: Header,
    content: Content<'_>,
    form: Form,
    out: &'o mut [u8],
) -> Result<&'o [u8], ApiMisuse> {
    match content {
        // Most are no more than that.
        Content::Number(number) => number_message(message, header, number, out),
        content => {
            let mut writer = Writer::new(out);
            writer.put_content(content, form);
            writer.seal(message, header)
        }
    }
}

/// Writes a reply with content, which may have a descriptor.
pub(crate) fn write_reply<'o, 'b, H, R: Reply<'b, H>>(
    message: MessageName,
    row: &Row,
    wire: MessageName,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let bytes = content_message(message, Header::answering(wire), reply.content(form), form, out)?;
    with_handles(message, row.reply_handles, bytes, reply.handles(), form)
}

/// Gives its descriptors to a message that is written, and refuses it if this rule wants another number of them.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn with_handles<'o, H>(
    message: MessageName,
    rule: HandleRule,
    bytes: &'o [u8],
    handles: Handles<H>,
    form: Form,
) -> Result<Transmit<'o, H>, ApiMisuse> {
    let payload = bytes.get(Header::SIZE..).unwrap_or_default();
    if rule.allows(handles.len(), payload, form) {
        return Ok(Transmit { bytes, handles });
    }
    Err(ApiMisuse::HandleCount { message, expected: rule.count(payload, form), found: handles.len() })
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
    /// What there is to write.
    fn content(&self, form: Form) -> Content<'_>;
    /// The descriptor, if it has one.
    fn handles(self) -> Handles<H>;
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

/// What a request is told that succeeded, or was refused.
#[derive(Debug)]
pub(crate) enum Told<'o> {
    /// This.
    Message(&'o [u8]),
    /// Nothing, because nothing is due.
    Nothing,
    /// Nothing, because it cannot be told.
    Close,
}

impl<'o, H> From<Told<'o>> for Answered<'o, H> {
    #[inline]
    fn from(told: Told<'o>) -> Self {
        match told {
            Told::Message(bytes) => Self::Send(Transmit { bytes, handles: Handles::new() }),
            Told::Nothing => Self::Silent,
            Told::Close => Self::Close,
        }
    }
}

/// Writes the answer to a question; the question and the session stay as they are.
pub(crate) fn answer<'o, 'b, H, R: Reply<'b, H>>(
    question: &Question,
    reply: R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Answered<'o, H>, ApiMisuse> {
    match reply.number() {
        Some(number) => tell(question, R::row_of, number, out).map(Told::into),
        None => {
            let row = question.row_for(reply.message(), R::row_of(question.message.id))?;
            match tell_content(question, &reply, form, out)? {
                Told::Message(bytes) => {
                    with_handles(question.message, row.reply_handles, bytes, reply.handles(), form).map(Answered::Send)
                }
                told => Ok(told.into()),
            }
        }
    }
}

/// Writes a reply of its own, but for its descriptor.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn tell_content<'o, 'b, H, R: Reply<'b, H>>(
    question: &Question,
    reply: &R,
    form: Form,
    out: &'o mut [u8],
) -> Result<Told<'o>, ApiMisuse> {
    if question.due == Due::Nothing {
        return Ok(Told::Nothing);
    }
    let content = reply.content(form);
    content_message(question.message, question.header(), content, form, out).map(Told::Message)
}

/// Tells success, zero, or a refusal; `row_of` finds the row of a request of the channel.
#[cfg_attr(for_size, inline(never))]
#[cfg_attr(not(for_size), inline)]
pub(crate) fn tell<'o>(
    question: &Question,
    row_of: fn(u32) -> Option<&'static Row>,
    number: u64,
    out: &'o mut [u8],
) -> Result<Told<'o>, ApiMisuse> {
    // What the machine itself refused cannot be granted.
    if question.refused && number == 0 {
        return question.does_not_fit(None);
    }
    match question.due {
        Due::Acknowledgement => number_message(question.message, question.header(), number, out).map(Told::Message),
        Due::Nothing => Ok(Told::Nothing),
        Due::Reply | Due::Empty => tell_otherwise(question, row_of(question.message.id), number, out),
    }
}

/// The same of a question of this row that is not answered with a number.
#[cold]
#[inline(never)]
fn tell_otherwise<'o>(
    question: &Question,
    row: Option<&Row>,
    number: u64,
    out: &'o mut [u8],
) -> Result<Told<'o>, ApiMisuse> {
    let mut writer = Writer::new(out);
    match question.due {
        Due::Reply if number == 0 => return question.does_not_fit(None),
        Due::Reply if !put_refusal(row, number, &mut writer) => return Ok(Told::Close),
        _ => {}
    }
    writer.seal(question.message, question.header()).map(Told::Message)
}

/// Sends an answer without descriptors that is written; one is due.
pub(crate) fn send<'o, H>(question: &Question, writer: Writer<'o>) -> Result<Answered<'o, H>, ApiMisuse> {
    writer.seal(question.message, question.header()).map(|bytes| Told::Message(bytes).into())
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
