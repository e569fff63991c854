//! Every recorded session goes through both machines, in order and with both channels: what the front-end said through ours
//! as its requests, what the back-end said through ours as its answers.

use super::difference::{Difference, Differences, FLAGS};
use crate::machines::{agree, buffer, frame, protocol_features, virtio_features};
use std::collections::BTreeSet;
use vhost_core::wire::row::ReplyRule;
use vhost_core::{
    Answered, Backend, BackendConfig, BackendReply, BackendRequest, Delivery, Form, Frontend, FrontendCode,
    FrontendConfig, FrontendReply, FrontendRequest, Incoming, VirtioFeatures,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::vectors::{self, Channel, Direction, Event, Message, Session, What};

const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const GET_CONFIG: u32 = 24;
const GET_MAX_MEM_SLOTS: u32 = 36;

/// More than any recorded device has.
const RINGS: u16 = 16;

type Front = Frontend<16, 512, 4>;
type Back = Backend<16, 512, 4>;

fn differences() -> Differences {
    let repeated = |sessions| Difference {
        sessions,
        direction: Direction::BackendToFrontend,
        ids: &[GET_CONFIG],
        bytes: FLAGS,
        reason: "libvhost-user repeats need_reply in replies; QEMU refuses that, so we do not",
    };
    let needless = |sessions| Difference {
        sessions,
        direction: Direction::FrontendToBackend,
        ids: &[GET_QUEUE_NUM, GET_CONFIG, GET_MAX_MEM_SLOTS],
        bytes: FLAGS,
        reason: "libblkio flags every request, also those that have a reply of their own",
    };
    let both = ["blkio-qsd", "qemutools-qsd"];
    Differences::new(both.map(repeated).into_iter().chain(both.map(needless)))
}

/// One connection of a session, with its machines.
struct Replay<'s> {
    session: &'s Session,
    ledger: &'s Ledger,
    differences: &'s Differences,
    front: Front,
    back: Back,
    /// What the recorded back-end replied, and how much of it ours has answered too.
    replies: Vec<&'s Message>,
    answered: usize,
}

#[test]
fn every_recorded_session_passes_both_machines() {
    let (ledger, differences) = (Ledger::new(), differences());
    let mut replayed = 0;
    for session in vectors::sessions() {
        let connections = BTreeSet::from_iter(session.events.iter().map(|event| event.connection));
        for connection in connections {
            let mut replay = Replay::new(&session, connection, &ledger, &differences);
            for event in session.events.iter().filter(|event| event.connection == connection) {
                replay.event(event);
            }
            replay.finish();
            replayed += 1;
        }
    }
    assert_eq!(replayed, 29, "connections of all sessions");
    differences.assert_all_seen();
    ledger.assert_settled();
}

impl<'s> Replay<'s> {
    fn new(session: &'s Session, connection: u64, ledger: &'s Ledger, differences: &'s Differences) -> Self {
        let main = session.messages(Channel::Main).filter(|(of, _)| *of == connection).map(|(_, message)| message);
        let replies = Vec::from_iter(main.filter(|message| message.direction == Direction::BackendToFrontend));
        let first = |id| {
            let found = replies.iter().find(|message| message.header.request == id);
            found.map_or(0, |message| number(message))
        };
        let features = virtio_features(first(GET_FEATURES));
        let protocol = protocol_features(first(GET_PROTOCOL_FEATURES));
        let mut config = BackendConfig::new(features, protocol, RINGS);
        config.queue_num = first(GET_QUEUE_NUM).try_into().unwrap();
        config.memory_slots = first(GET_MAX_MEM_SLOTS).try_into().unwrap();
        let mut front = FrontendConfig::new(RINGS);
        if session.name == "qemu-gpu" {
            // QEMU passes this bit through although the back-end does not offer it.
            front.tolerance.always_accepted = VirtioFeatures::RING_RESET;
        }
        let (front, back) = (Front::new(front), Back::new(config));
        Self { session, ledger, differences, front, back, replies, answered: 0 }
    }

    fn event(&mut self, event: &Event) {
        let What::Message(message) = &event.what else { return };
        match (event.channel, message.direction) {
            (Channel::Main, Direction::FrontendToBackend) => {
                self.ask(message);
                self.answer(message);
            }
            (Channel::Main, Direction::BackendToFrontend) => self.hear(message),
            (Channel::Backend, Direction::BackendToFrontend) => self.backend_request(message),
            (Channel::Backend, Direction::FrontendToBackend) => panic!("no recording has one: {message:?}"),
            (Channel::Gpu, _) => {}
        }
        if self.front.outstanding() == 0 {
            assert!(agree(self.front.session(), self.back.session()), "{}", self.title(message));
        }
    }

    /// Our front-end makes the recorded request.
    fn ask(&mut self, message: &Message) {
        let form = Form::request(self.front.session().negotiated().protocol);
        let bytes = message.bytes();
        let request = FrontendRequest::decode(frame(&bytes, self.tokens(message)), form).unwrap();
        let delivery = if message.header.needs_reply() { Delivery::Acknowledged } else { Delivery::Unacknowledged };
        let mut out = buffer();
        let transmit = self.front.request(request, delivery, &mut out);
        let transmit = transmit.unwrap_or_else(|misuse| panic!("{}: {misuse}", self.title(message)));
        self.differences.compare(&self.session.name, message, transmit.bytes);
    }

    /// Our back-end takes the recorded request and answers as the recorded one did.
    fn answer(&mut self, message: &Message) {
        let title = self.title(message);
        let bytes = message.bytes();
        let incoming = self.back.handle_request(frame(&bytes, self.tokens(message)));
        let incoming = incoming.unwrap_or_else(|rejection| panic!("{title}: {rejection}"));
        assert!(matches!(incoming, Incoming::Request(_)), "{title}");
        drop(incoming);
        let code = FrontendCode(message.header.request);
        let form = Form::reply(self.back.session().negotiated().protocol);
        let recorded = self.replies.get(self.answered).copied();
        let mut out = buffer();
        if let (Some(own), Some(recorded)) = (self.back.own_answer::<Token>(), recorded) {
            let transmit = own.encode(code, form, &mut out).unwrap();
            self.differences.compare(&self.session.name, recorded, transmit.bytes);
        }
        let bytes = recorded.map(Message::bytes).unwrap_or_default();
        let reply = if has_own_reply(code, self.back.session().negotiated().has_log_file()) {
            FrontendReply::decode(frame(&bytes, self.tokens(recorded.unwrap())), form).unwrap()
        } else {
            FrontendReply::Done
        };
        match self.back.answer(reply, &mut out).unwrap() {
            Answered::Send(transmit) => {
                if let Some(recorded) = recorded {
                    self.differences.compare(&self.session.name, recorded, transmit.bytes);
                }
                self.answered += 1;
            }
            Answered::Silent => {}
            Answered::Close => panic!("{title}: closed"),
        }
    }

    /// Our front-end hears what the recorded back-end replied.
    fn hear(&mut self, message: &Message) {
        let bytes = message.bytes();
        let before = self.front.outstanding();
        let reply = self.front.handle_reply(frame(&bytes, self.tokens(message)));
        let reply = reply.unwrap_or_else(|fault| panic!("{}: {fault}", self.title(message)));
        assert!(!matches!(reply, FrontendReply::Refused(_)), "{}", self.title(message));
        drop(reply);
        assert_eq!(self.front.outstanding() + 1, before, "{}", self.title(message));
    }

    /// The recorded back-end's own request; no recorded one wants an answer.
    fn backend_request(&mut self, message: &Message) {
        let title = self.title(message);
        let bytes = message.bytes();
        let form = Form::request(self.back.session().negotiated().protocol);
        let request = BackendRequest::decode(frame(&bytes, self.tokens(message)), form).unwrap();
        let mut out = buffer();
        let transmit = self.back.request(request, Delivery::Unacknowledged, &mut out).unwrap();
        self.differences.compare(&self.session.name, message, transmit.bytes);
        let taken = self.front.handle_request(frame(&bytes, self.tokens(message)));
        drop(taken.unwrap_or_else(|rejection| panic!("{title}: {rejection}")));
        let answered = self.front.answer_backend::<Token>(BackendReply::Done, &mut out).unwrap();
        assert_eq!(answered, Answered::Silent, "{title}");
    }

    fn finish(self) {
        // The recorder was stopped between a request and its reply.
        let missing = if self.session.name == "qemu-testpmd-net-iommu" { 1 } else { 0 };
        assert_eq!(self.answered, self.replies.len() + missing, "{}: as many answers as replies", self.session.name);
        assert_eq!(self.front.outstanding(), missing, "{}: requests without reply", self.session.name);
        assert!(!self.front.has_failed() && !self.back.has_failed());
    }

    fn tokens(&self, message: &Message) -> Vec<Token> {
        self.ledger.tokens(message.descriptors.len())
    }

    fn title(&self, message: &Message) -> String {
        format!("{}: {} {:?}", self.session.name, message.name, message.header)
    }
}

fn has_own_reply(code: FrontendCode, log_file: bool) -> bool {
    match code.row().unwrap().reply {
        ReplyRule::Own(_) => true,
        ReplyRule::LogFile => log_file,
        // No recording has a postcopy migration.
        _ => false,
    }
}

fn number(message: &Message) -> u64 {
    u64::from_ne_bytes(message.payload[..].try_into().unwrap())
}
