//! A front-end and a back-end of ours, joined on both channels, with every message cut anywhere: neither ever blames the
//! other, and when nothing is under way they are of one mind.

mod line;

use core::num::NonZeroU64;

use vhost_core::{
    Answered, Backend, BackendConfig, BackendReply, BackendRequest, Channel, Delivery, Form, Frontend, FrontendCode,
    FrontendConfig, FrontendReply, FrontendRequest, Incoming, MAX_MESSAGE, Postcopy, ProtocolFeatures, Verdict,
    VirtioFeatures, wire::row::ReplyRule,
};

use crate::{
    device::grant,
    message::{Message, dialect},
    reader::Reader,
    token::Token,
};

use line::Line;

/// The memory regions of a full table and one more.
const REGIONS: usize = 9;

/// Both sides and what is under way between them.
struct Pair {
    front: Frontend<2, REGIONS, 4>,
    back: Backend<2, REGIONS, 4>,
    /// Requests of the front-end, replies to it, requests of the back-end, replies to it.
    lines: [Line; 4],
    /// The device refuses requests, which are all acknowledged then.
    refusing: bool,
    /// It has: then later requests, sent before that was known, may break rules.
    refused: bool,
    /// Nothing was under way on the main channel since the back-end asked: it knows what the front-end knows.
    calm: bool,
    /// Protocol features are on their way since everything had arrived for the last time.
    negotiating: bool,
    /// The back-end asked while protocol features were on their way. The two sides may have seen that request with and
    /// without acknowledgements, so that its answer may never come.
    crossed: bool,
}

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(setting) = reader.byte() else { return };
    let mut pair = Pair::new(setting, &mut reader);
    while let Some(operation) = reader.byte() {
        if pair.step(operation, &mut reader).is_none() {
            return;
        }
    }
    let _ = pair.run(0);
}

impl Pair {
    fn new(setting: u8, reader: &mut Reader<'_>) -> Self {
        let refusing = setting & 1 != 0;
        let features = VirtioFeatures::from_bits_retain(reader.number()) | VirtioFeatures::VERSION_1;
        let mut protocol = ProtocolFeatures::from_bits_retain(reader.number()) & ProtocolFeatures::KNOWN;
        let mut config = FrontendConfig::new(2);
        config.dialect = dialect(setting >> 1);
        if refusing {
            protocol |= ProtocolFeatures::REPLY_ACK;
        }
        let mut backend = BackendConfig::new(features, protocol, 2);
        backend.dialect = config.dialect;
        let requests = if setting & 16 == 0 { Line::new(Channel::Frontend) } else { Line::ahead() };
        let replies = if setting & 32 == 0 { Line::new(Channel::Frontend) } else { Line::ahead() };
        let lines = [requests, replies, Line::new(Channel::Backend), Line::new(Channel::Backend)];
        let (front, back) = (Frontend::new(config), Backend::new(backend));
        let mut pair = Self {
            front,
            back,
            lines,
            refusing: false,
            refused: false,
            calm: true,
            negotiating: false,
            crossed: false,
        };
        if refusing {
            pair.agree_on_acknowledgements();
            pair.refusing = true;
        }
        pair
    }

    fn agree_on_acknowledgements(&mut self) {
        let acknowledgements = ProtocolFeatures::REPLY_ACK.bits().to_ne_bytes();
        for (id, payload) in [(1, &[][..]), (15, &[]), (16, &acknowledgements)] {
            self.front_asks(&Message { id, payload, handles: 0 }, 0);
            let _ = self.run(0);
        }
    }

    fn step(&mut self, operation: u8, reader: &mut Reader<'_>) -> Option<()> {
        match operation & 7 {
            0 => self.front_asks(&Message::read(reader, operation)?, operation),
            line @ 1..=4 => {
                self.lines[usize::from(line) - 1].carry(usize::from(reader.byte()?) + 1);
                self.hear(operation)?;
            }
            5 => self.back_asks(&Message::read(reader, operation)?, operation),
            6 => {
                let mut out = [0; MAX_MESSAGE];
                let code = FrontendCode(reader.id()?);
                if let Ok(message) = self.front.acknowledge_postcopy_memory(code, &mut out) {
                    self.lines[0].send(message);
                    self.calm = false;
                }
            }
            _ => self.run(operation)?,
        }
        Some(())
    }

    /// Lets everything arrive, after which both sides agree.
    fn run(&mut self, operation: u8) -> Option<()> {
        while !self.lines.iter().all(Line::is_empty) {
            self.lines.iter_mut().for_each(|line| line.carry(usize::MAX));
            self.hear(operation)?;
        }
        assert_eq!(self.front.outstanding(), 0, "the front-end waits in vain");
        assert!(self.crossed || self.back.outstanding() == 0, "the back-end waits in vain");
        self.negotiating = false;
        self.assert_agreement();
        Some(())
    }

    /// What the back-end offers counts only if the front-end has asked.
    fn assert_agreement(&self) {
        let (front, back) = (self.front.session(), self.back.session());
        let (ours, theirs) = (front.negotiated(), back.negotiated());
        assert!(ours.offered.is_empty() || ours.offered == theirs.offered);
        assert!(ours.protocol_offered.is_empty() || ours.protocol_offered == theirs.protocol_offered);
        assert_eq!(ours.acknowledged, theirs.acknowledged);
        assert_eq!((ours.protocol, ours.protocol_opened), (theirs.protocol, theirs.protocol_opened));
        assert_eq!(front.rings(), back.rings());
        assert_eq!(front.memory(), back.memory());
        assert_eq!((front.postcopy(), front.log()), (back.postcopy(), back.log()));
        assert_eq!((front.has_backend_channel(), front.status()), (back.has_backend_channel(), back.status()));
    }

    fn front_asks(&mut self, message: &Message<'_>, operation: u8) {
        let form = Form::request(self.front.session().negotiated().protocol);
        let Ok(request) = FrontendRequest::decode(message.request(false), form) else { return };
        let code = FrontendCode(message.id);
        if self.refusing && code == FrontendCode::SET_PROTOCOL_FEATURES {
            let kept = |features: &ProtocolFeatures| features.contains(ProtocolFeatures::REPLY_ACK);
            if !matches!(&request, FrontendRequest::SetProtocolFeatures(features) if kept(features)) {
                return;
            }
        }
        let is_acknowledged = self.refusing || operation & 8 == 0;
        let delivery = if is_acknowledged { Delivery::Acknowledged } else { Delivery::Unacknowledged };
        let mut out = [0; MAX_MESSAGE];
        if let Ok(message) = self.front.request(request, delivery, &mut out) {
            self.lines[0].send(message);
            self.calm = false;
            if code == FrontendCode::SET_PROTOCOL_FEATURES {
                self.negotiating = true;
                self.crossed |= self.back.outstanding() != 0;
            }
        }
    }

    fn back_asks(&mut self, message: &Message<'_>, operation: u8) {
        let session = self.back.session();
        let form = Form::request(session.negotiated().protocol).with_dialect(session.dialect());
        let Ok(request) = BackendRequest::decode(message.request(false), form) else { return };
        let delivery = if operation & 8 == 0 { Delivery::Acknowledged } else { Delivery::Unacknowledged };
        let mut out = [0; MAX_MESSAGE];
        if let Ok(message) = self.back.request(request, delivery, &mut out) {
            let is_first = self.lines[2].is_empty();
            let is_settled = self.front.outstanding() == 0 && self.lines[..2].iter().all(Line::is_empty);
            self.calm = is_settled && (self.calm || is_first);
            self.lines[2].send(message);
            self.crossed |= self.negotiating;
        }
    }

    /// Whatever has arrived is heard.
    fn hear(&mut self, operation: u8) -> Option<()> {
        let refuses = operation & 0x80 != 0;
        while self.back_hears(refuses)? {}
        while let Some(frame) = self.lines[1].take() {
            if let Err(fault) = self.front.handle_reply(frame) {
                panic!("the front-end does not take our own reply: {fault}");
            }
        }
        while self.front_is_asked(refuses) {}
        while let Some(frame) = self.lines[3].take() {
            if let Err(fault) = self.back.handle_reply(frame) {
                panic!("the back-end does not take our own reply: {fault}");
            }
        }
        Some(())
    }

    /// The back-end takes a request; `None` when that ends the connection.
    fn back_hears(&mut self, refuses: bool) -> Option<bool> {
        let [requests, replies, backend_requests, backend_replies] = &mut self.lines;
        let Some(frame) = requests.take() else { return Some(false) };
        let code = FrontendCode(frame.header.request());
        let mut granted = false;
        let reply = match self.back.handle_request(frame) {
            Ok(Incoming::PostcopyMemoryMapped) => return Some(true),
            Ok(Incoming::Request(_)) if refuses && self.refusing && is_told(code, self.back.session().postcopy()) => {
                self.refused = true;
                FrontendReply::Refused(NonZeroU64::MIN)
            }
            Ok(Incoming::Request(request)) => {
                granted = true;
                grant(&self.back, request)
            }
            Err(rejection) => {
                assert!(self.refused && rejection.verdict() == Verdict::Refuse, "{code:?}: {rejection}");
                FrontendReply::Refused(NonZeroU64::MIN)
            }
        };
        let mut out = [0; MAX_MESSAGE];
        match self.back.answer(reply, &mut out) {
            Ok(Answered::Send(message)) => replies.send(message),
            Ok(Answered::Silent) => {}
            Ok(Answered::Close) => {
                assert!(self.refused, "closed over {code:?}");
                return None;
            }
            Err(misuse) => panic!("{code:?} cannot be answered: {misuse}"),
        }
        if granted && code == FrontendCode::SET_BACKEND_REQ_FD {
            // What was under way on the channel before is lost with it.
            backend_requests.replace();
            backend_replies.replace();
        }
        Some(true)
    }

    fn front_is_asked(&mut self, refuses: bool) -> bool {
        let [_, _, requests, replies] = &mut self.lines;
        let Some(frame) = requests.take() else { return false };
        let code = frame.header.request();
        let reply = match self.front.handle_request(frame) {
            Ok(BackendRequest::SharedObjectLookup(_)) if !refuses => {
                BackendReply::SharedObjectLookup(0, Some(Token::new()))
            }
            Ok(BackendRequest::CacheIo(..)) if !refuses => BackendReply::CacheIo(0x1000),
            Ok(_) if !refuses => BackendReply::Done,
            Ok(_) => BackendReply::Refused(NonZeroU64::MIN),
            Err(rejection) => {
                assert!(!self.calm && rejection.verdict() == Verdict::Refuse, "{code}: {rejection}");
                BackendReply::Refused(NonZeroU64::MIN)
            }
        };
        let mut out = [0; MAX_MESSAGE];
        match self.front.answer_backend(reply, &mut out) {
            Ok(Answered::Send(message)) => replies.send(message),
            Ok(Answered::Silent) => {}
            Ok(Answered::Close) => panic!("closed over {code}"),
            Err(misuse) => panic!("{code} cannot be answered: {misuse}"),
        }
        true
    }
}

/// Whether a refusal of this request is heard, and in words that fit whatever was asked before it was known.
fn is_told(code: FrontendCode, postcopy: Postcopy) -> bool {
    match code.row().map(|row| row.reply) {
        // It is never acknowledged, and the end of postcopy decides about the answers to requests behind it.
        _ if code == FrontendCode::SET_PROTOCOL_FEATURES || code == FrontendCode::POSTCOPY_END => false,
        Some(ReplyRule::Postcopy) => postcopy == Postcopy::Off,
        rule => matches!(rule, Some(ReplyRule::Acknowledged | ReplyRule::Status)),
    }
}
