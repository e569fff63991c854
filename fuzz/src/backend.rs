//! Operations on a back-end's machine, with a front-end that sends any stream of bytes and descriptors and answers anything:
//! exactly one answer where one is due, a refused request and misuse change nothing, a failed machine stays failed.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, Assembler, Backend, BackendConfig, BackendRequest, Channel, Delivery, Fault, Form, FrontendCode,
    FrontendReply, Incoming, MAX_MESSAGE, ProtocolFeatures, Verdict, VirtioFeatures,
    wire::{header::REPLY, row::ReplyRule},
};

use crate::{
    device::grant,
    message::{Message, assert_answers, dialect, handles},
    reader::Reader,
    token::Token,
};

type Machine = Backend<4, 16, 4>;

/// What waits for its answer.
#[derive(Clone, Copy)]
struct Question {
    id: u32,
    /// Whether an acknowledgement was asked for.
    flagged: bool,
}

struct Subject {
    machine: Machine,
    question: Option<Question>,
    /// Whether the request that waits may be granted.
    is_fine: bool,
}

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(setting) = reader.byte() else { return };
    let xen = if setting & 8 == 0 { ProtocolFeatures::XEN_MMAP } else { ProtocolFeatures::empty() };
    let mut config = BackendConfig::new(
        VirtioFeatures::from_bits_retain(0x1_7500_7e44) | VirtioFeatures::ACCESS_PLATFORM,
        ProtocolFeatures::KNOWN.difference(xen),
        4,
    );
    config.dialect = dialect(setting);
    let mut assembler = Assembler::new(Channel::Frontend);
    let mut subject = Subject { machine: Machine::new(config), question: None, is_fine: false };
    while let Some(operation) = reader.byte() {
        let before = subject.machine.clone();
        let going_on = subject.step(operation, &mut reader, &mut assembler);
        assert!(subject.machine.has_failed() >= before.has_failed(), "a failed machine stays failed");
        if going_on.is_none() {
            return;
        }
    }
}

impl Subject {
    fn step(&mut self, operation: u8, reader: &mut Reader<'_>, stream: &mut Assembler<Token>) -> Option<()> {
        match operation & 7 {
            0 => self.hear(operation, reader, stream),
            1 => self.answer(FrontendReply::Done),
            2 => self.answer(FrontendReply::Refused(NonZeroU64::MIN)),
            3 => {
                let message = Message::read(reader, operation)?;
                let form = Form::reply(self.machine.session().negotiated().protocol);
                match FrontendReply::decode(message.reply(), form) {
                    Ok(reply) => self.answer(reply),
                    Err(_) => Some(()),
                }
            }
            4 | 5 => self.ask(operation, reader),
            _ => self.be_told(operation, reader),
        }
    }

    /// Up to one message of the stream, in the pieces that the assembler asks for.
    fn hear(&mut self, operation: u8, reader: &mut Reader<'_>, stream: &mut Assembler<Token>) -> Option<()> {
        let mut left = (usize::from(reader.byte()?) + 1) * 8;
        while !stream.is_whole() {
            let room = stream.read_buf();
            let bytes = reader.take(room.len().min(left));
            if bytes.is_empty() {
                return Some(());
            }
            room[..bytes.len()].copy_from_slice(bytes);
            left -= bytes.len();
            let count = if stream.is_between_messages() { operation >> 4 } else { 0 };
            stream.filled(bytes.len(), handles(count.into())).ok()?;
        }
        let frame = stream.take().expect("it is whole");
        let before = self.machine.clone();
        let asked = Question { id: frame.header.request(), flagged: frame.header.needs_reply() };
        match self.machine.handle_request(frame) {
            Ok(Incoming::PostcopyMemoryMapped) => return Some(()),
            Ok(Incoming::Request(request)) => {
                let reply = grant(&self.machine, request);
                (self.question, self.is_fine) = (Some(asked), true);
                if operation & 8 == 0 {
                    return self.answer(reply);
                }
            }
            Err(rejection) => {
                assert_eq!(before.session(), self.machine.session(), "a rejected request changes nothing");
                match rejection.verdict() {
                    Verdict::Refuse => (self.question, self.is_fine) = (Some(asked), false),
                    Verdict::Close => {
                        assert!(self.machine.has_failed());
                        return None;
                    }
                    Verdict::Misuse => {
                        assert!(self.question.is_some(), "every request was answered");
                        assert_eq!(before, self.machine, "misuse changes nothing");
                    }
                }
            }
        }
        Some(())
    }

    fn answer(&mut self, reply: FrontendReply<'_, Token>) -> Option<()> {
        let before = self.machine.clone();
        let refused = matches!(reply, FrontendReply::Refused(_));
        let mut out = [0; MAX_MESSAGE];
        match self.machine.answer(reply, &mut out) {
            Err(_) => {
                assert_eq!(before, self.machine, "misuse changes nothing");
                assert!(!refused || self.question.is_none(), "every request can be refused");
                Some(())
            }
            Ok(answered) => {
                let question = self.question.take().expect("only a question is answered");
                assert!(refused || self.is_fine, "what was rejected is not granted");
                assert!(!refused || before.session() == self.machine.session(), "a refused request changes nothing");
                question.assert_due(&answered, &before, &self.machine);
                match answered {
                    Answered::Send(message) => assert_answers(message.bytes, question.id, REPLY),
                    Answered::Silent => {}
                    Answered::Close => {
                        assert!(self.machine.has_failed());
                        return None;
                    }
                }
                Some(())
            }
        }
    }

    /// A request of the back-end's own.
    fn ask(&mut self, operation: u8, reader: &mut Reader<'_>) -> Option<()> {
        let message = Message::read(reader, operation)?;
        let session = self.machine.session();
        let form = Form::request(session.negotiated().protocol).with_dialect(session.dialect());
        let Ok(request) = BackendRequest::decode(message.request(false), form) else { return Some(()) };
        let delivery = if operation & 8 == 0 { Delivery::Acknowledged } else { Delivery::Unacknowledged };
        let (before, waiting) = (self.machine.clone(), self.machine.outstanding());
        match self.machine.request(request, delivery, &mut [0; MAX_MESSAGE]) {
            Ok(_) => assert!((0..=1).contains(&(self.machine.outstanding() - waiting))),
            Err(_) => assert_eq!(before, self.machine, "misuse changes nothing"),
        }
        Some(())
    }

    /// An answer to such a request.
    fn be_told(&mut self, operation: u8, reader: &mut Reader<'_>) -> Option<()> {
        let message = Message::read(reader, operation)?;
        let before = self.machine.clone();
        match self.machine.handle_reply(message.reply()) {
            Ok(_) => assert_eq!(before.outstanding(), self.machine.outstanding() + 1),
            Err(Fault::Caller(_)) => {}
            Err(_) => {
                let again = self.machine.handle_reply(message.reply());
                assert!(matches!(again, Err(Fault::Caller(_))), "a failed channel stays failed");
            }
        }
        assert_eq!(before.session(), self.machine.session(), "the other channel is no part of the session");
        Some(())
    }
}

impl Question {
    /// Exactly one answer where one is due, as far as that is not the device's affair.
    fn assert_due(self, answered: &Answered<'_, Token>, before: &Machine, after: &Machine) {
        let is_sent = matches!(answered, Answered::Send(_));
        let acknowledges = [before, after]
            .map(|machine| machine.session().negotiated().protocol.contains(ProtocolFeatures::REPLY_ACK));
        match FrontendCode(self.id).row().map(|row| row.reply) {
            Some(ReplyRule::Own(_) | ReplyRule::Status) => assert!(!matches!(answered, Answered::Silent)),
            Some(ReplyRule::Acknowledged) | None if self.flagged && acknowledges[0] => {
                // What takes acknowledgements back is not acknowledged.
                assert!(is_sent || !acknowledges[1], "an acknowledgement is missing");
            }
            Some(ReplyRule::Acknowledged) | None if !self.flagged => assert!(!is_sent, "nobody asked for that"),
            Some(ReplyRule::Never) => assert!(!is_sent),
            _ => {}
        }
    }
}
