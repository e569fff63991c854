//! Every request of a front-end × every missing gate × every ring state × every number of descriptors × flag and
//! acknowledgements: what the back-end makes of it, and what it answers.

use super::missing;
use crate::machines::{Back, Packet, Reaction, buffer, frame};
use crate::stage::{Rings, Stage, say};
use core::num::NonZeroU64;
use std::collections::BTreeMap;
use vhost_core::wire::row::HandleCount;
use vhost_core::{
    ApiMisuse, DecodeError, Fault, Form, FrontendCode, FrontendReply, Incoming, PeerMisbehaved, ProtocolFeatures,
    Verdict, Violation,
};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire::{self, Fixture, Layout, MAXIMUM_DESCRIPTORS, Message, Reply, feature};

/// What a message should come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Accepted,
    /// Because the gate is closed.
    NotNegotiated,
    /// Because of the number of descriptors.
    Descriptors,
    /// Because a ring runs.
    Running,
}

/// One case: a message as it is sent, in a stage.
struct Case<'f> {
    fixture: &'f Fixture,
    stage: Stage,
    /// Whether something that the request needs was not agreed on, although a back-end insists on it.
    is_gated: bool,
    descriptors: usize,
    flagged: bool,
}

/// Forms that can be sent without the history of a postcopy migration.
fn fixtures() -> Vec<Fixture> {
    let mut all = wire::all_frontend_forms();
    all.retain(|fixture| !fixture.form.starts_with("postcopy"));
    // Who asks with the 20 bytes of the specification is answered with the 24 that all real programs send.
    let asks_short = all.iter_mut().find(|fixture| fixture.name == "GET_INFLIGHT_FD" && !fixture.is_usual());
    asks_short.unwrap().reply = wire::frontend_request("GET_INFLIGHT_FD").reply;
    all
}

#[test]
fn every_request_in_every_situation_comes_to_what_its_fixture_says() {
    let ledger = Ledger::new();
    let mut outcomes = BTreeMap::new();
    for fixture in fixtures() {
        for (stage, is_gated) in missing::stages(&fixture) {
            for rings in Rings::ALL {
                for stage in [stage, stage.acknowledging()] {
                    let back = prepared(&fixture, stage.rings(rings), &ledger);
                    for descriptors in 0..=MAXIMUM_DESCRIPTORS {
                        for flagged in [false, true] {
                            let case =
                                Case { fixture: &fixture, stage: stage.rings(rings), is_gated, descriptors, flagged };
                            case.check(back.clone(), &ledger);
                            *outcomes.entry(case.expected()).or_insert(0) += 1;
                        }
                    }
                }
            }
        }
    }
    let counts = [
        (Outcome::Accepted, 1212),
        (Outcome::NotNegotiated, 5472),
        (Outcome::Descriptors, 9280),
        (Outcome::Running, 20),
    ];
    assert_eq!(outcomes, BTreeMap::from(counts));
    ledger.assert_settled();
}

/// A back-end in this stage, after what must come before the request.
fn prepared(fixture: &Fixture, stage: Stage, ledger: &Ledger) -> Back {
    let mut back = stage.back();
    let slots = stage.protocol & feature::CONFIGURE_MEM_SLOTS != 0;
    if fixture.name == "REM_MEM_REG" && slots {
        let form = if fixture.form == "xen" { "xen" } else { Fixture::USUAL };
        let add = wire::frontend_form("ADD_MEM_REG", form);
        if stage.protocol & add.gate.protocol == add.gate.protocol {
            say(&mut back, &add.request(), ledger.tokens(1));
        }
    }
    if fixture.name == "POSTCOPY_LISTEN" && stage.protocol & feature::PAGEFAULT != 0 {
        let advise = wire::frontend_request("POSTCOPY_ADVISE").request();
        drop(back.handle_request(frame(&advise, Vec::new())).unwrap());
        let reply = FrontendReply::PostcopyAdvise(Some(ledger.token()));
        drop(back.answer(reply, &mut buffer()).unwrap());
    }
    back
}

impl Case<'_> {
    fn title(&self) -> String {
        let Self { fixture, stage, is_gated, descriptors, flagged } = self;
        let name = format!("{} ({})", fixture.name, fixture.form);
        format!("{name}: {descriptors} descriptors, flag {flagged}, gate closed {is_gated}, {stage:x?}")
    }

    fn has_acknowledgements(&self) -> bool {
        // The fixture negotiates them, and its own flag counts.
        let negotiates = self.fixture.name == "SET_PROTOCOL_FEATURES" && self.expected() == Outcome::Accepted;
        self.stage.protocol & feature::REPLY_ACK != 0 || negotiates
    }

    /// The outcome by the fixture alone.
    fn expected(&self) -> Outcome {
        let most = if self.fixture.name == "REM_MEM_REG" { 1 } else { self.fixture.descriptors };
        let least = if self.fixture.name == "REM_MEM_REG" { 0 } else { self.fixture.descriptors };
        let needs_stopped = ["SET_VRING_NUM", "SET_VRING_BASE", "SET_INFLIGHT_FD"].contains(&self.fixture.name);
        if self.is_gated {
            Outcome::NotNegotiated
        } else if !(least..=most).contains(&self.descriptors) {
            Outcome::Descriptors
        } else if needs_stopped && self.stage.rings == Rings::RUNNING {
            Outcome::Running
        } else {
            Outcome::Accepted
        }
    }

    fn check(&self, mut back: Back, ledger: &Ledger) {
        let before = back.clone();
        let bytes = self.fixture.message(if self.flagged { 9 } else { 1 });
        let mut out = buffer();
        let taken = back.handle_request(frame(&bytes, ledger.tokens(self.descriptors)));
        match (self.expected(), taken) {
            (Outcome::Accepted, Ok(Incoming::Request(request))) => {
                assert_eq!(request.code(), FrontendCode(self.fixture.id));
                drop(request);
                let usual = self.fixture.answers().first();
                let bytes = usual.map(|answer| answer.message(self.fixture.id)).unwrap_or_default();
                let reply = match usual {
                    Some(answer) if !self.is_status() => {
                        let form = Form::reply(ProtocolFeatures::from_bits_retain(self.stage.protocol));
                        FrontendReply::decode(frame(&bytes, ledger.tokens(answer.descriptors)), form).unwrap()
                    }
                    _ => FrontendReply::Done,
                };
                let reaction = back.answer(reply, &mut out).unwrap().into();
                self.check_granted(reaction);
                assert!(!back.has_failed(), "{}", self.title());
            }
            (expected, Err(rejection)) if expected != Outcome::Accepted => {
                assert_eq!(
                    (rejection.verdict(), rejection.fault()),
                    (Verdict::Refuse, self.fault(expected)),
                    "{}",
                    self.title()
                );
                let refusal = FrontendReply::Refused(NonZeroU64::MIN);
                let reaction = back.answer(refusal, &mut out).unwrap().into();
                self.check_refused(&reaction);
                if reaction == Reaction::Closed {
                    assert!(back.has_failed(), "{}", self.title());
                    let again = back.handle_request(frame(&bytes, ledger.tokens(self.descriptors))).unwrap_err();
                    assert_eq!(again.fault(), Fault::Caller(ApiMisuse::SessionFailed), "{}", self.title());
                } else {
                    assert_eq!(back, before, "refused is unchanged: {}", self.title());
                }
            }
            (expected, found) => panic!("{expected:?} and not {found:?}: {}", self.title()),
        }
    }

    /// Whether the reply of its own is success or failure alone.
    fn is_status(&self) -> bool {
        ["IOTLB_MSG", "POSTCOPY_END", "CHECK_DEVICE_STATE"].contains(&self.fixture.name)
    }

    fn fault(&self, expected: Outcome) -> Fault {
        let code = FrontendCode(self.fixture.id);
        let message = code.message();
        let violation = |violation| Fault::Peer(PeerMisbehaved::Violation { message, violation });
        match expected {
            Outcome::NotNegotiated => violation(Violation::NotNegotiated { gate: code.row().unwrap().gate }),
            Outcome::Running => {
                // The inflight record is of all rings, the others are about ring 1.
                let ring = if self.fixture.name == "SET_INFLIGHT_FD" { 0 } else { 1 };
                violation(Violation::RingRunning { ring })
            }
            _ => {
                let least = if self.fixture.name == "REM_MEM_REG" { 0 } else { self.fixture.descriptors };
                let most = if self.fixture.name == "REM_MEM_REG" { 1 } else { self.fixture.descriptors };
                let expected = HandleCount { least, most };
                Fault::Bytes(DecodeError::HandleCount { message, expected, found: self.descriptors })
            }
        }
    }

    /// One reply of its own, or an acknowledgement if it is wanted, or nothing.
    fn check_granted(&self, reaction: Reaction) {
        match (&self.fixture.reply, reaction) {
            (Reply::Own(answers), Reaction::Sent(Packet { bytes, handles })) => {
                let [usual, ..] = &answers[..] else { panic!("an answer") };
                assert_eq!(bytes, usual.message(self.fixture.id), "{}", self.title());
                assert_eq!(handles.len(), usual.descriptors, "{}", self.title());
            }
            (Reply::Acknowledgement, Reaction::Sent(Packet { bytes, handles })) => {
                assert!(self.wants_acknowledgement(), "{}", self.title());
                assert_eq!((bytes, handles.len()), (self.fixture.acknowledgement(0), 0), "{}", self.title());
            }
            (Reply::Acknowledgement, Reaction::Silent) => assert!(!self.wants_acknowledgement(), "{}", self.title()),
            (_, reaction) => panic!("{reaction:?}: {}", self.title()),
        }
    }

    /// The refusal that the fixture knows, or a refusing acknowledgement if it is wanted, or nothing, or the end.
    fn check_refused(&self, reaction: &Reaction) {
        let telling = ["refused", "not found", "unsound", "nothing to track"];
        match (&self.fixture.reply, reaction) {
            (Reply::Own(answers), Reaction::Sent(Packet { bytes, handles })) => {
                let told = answers.iter().find(|answer| telling.contains(&answer.form));
                let told = told.unwrap_or_else(|| panic!("nothing tells it: {}", self.title()));
                let (message, length) = Message::read(bytes).unwrap();
                assert_eq!((length, message.header.flags), (bytes.len(), wire::REPLY), "{}", self.title());
                assert_eq!((message.header.request, handles.len()), (self.fixture.id, 0), "{}", self.title());
                // Only what tells the failure has a meaning then.
                let telling_field = match told.layout {
                    Layout::CryptoSession => "session",
                    Layout::Inflight => "mmap_size",
                    _ => return assert_eq!(*bytes, told.message(self.fixture.id), "{}", self.title()),
                };
                let expected = told.layout.decode(&told.payload).unwrap();
                assert_eq!(
                    message.fields(told.layout).bytes(telling_field),
                    expected.bytes(telling_field),
                    "{}",
                    self.title()
                );
            }
            (Reply::Own(answers), Reaction::Closed) => {
                assert!(!answers.iter().any(|answer| telling.contains(&answer.form)), "{}", self.title());
            }
            (Reply::Acknowledgement, Reaction::Sent(Packet { bytes, handles })) => {
                assert!(self.wants_acknowledgement(), "{}", self.title());
                assert_eq!((bytes, handles.len()), (&self.fixture.acknowledgement(1), 0), "{}", self.title());
            }
            (Reply::Acknowledgement, Reaction::Silent) => {
                assert!(!self.wants_acknowledgement() && !self.must_be_known(), "{}", self.title());
            }
            (Reply::Acknowledgement, Reaction::Closed) => {
                assert!(!self.wants_acknowledgement() && self.must_be_known(), "{}", self.title());
            }
            (_, reaction) => panic!("{reaction:?}: {}", self.title()),
        }
    }

    fn wants_acknowledgement(&self) -> bool {
        // QEMU flags it whatever was negotiated, and waits.
        self.flagged && (self.has_acknowledgements() || self.fixture.name == "POSTCOPY_LISTEN")
    }

    /// Whether a front-end that does not hear of the refusal goes on with something else than the back-end.
    fn must_be_known(&self) -> bool {
        ["SET_FEATURES", "SET_PROTOCOL_FEATURES", "SET_MEM_TABLE", "ADD_MEM_REG", "REM_MEM_REG"]
            .contains(&self.fixture.name)
    }
}
