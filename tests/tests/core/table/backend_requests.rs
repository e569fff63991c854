//! Every request of a back-end × every missing gate × every number of descriptors × flag and acknowledgements: what the
//! front-end makes of it, and what it answers.

use super::missing;
use crate::machines::{Front, Packet, Reaction, buffer, frame};
use crate::stage::{Rings, Stage};
use core::num::NonZeroU64;
use std::collections::BTreeMap;
use vhost_core::wire::row::HandleCount;
use vhost_core::{
    BackendCode, BackendReply, DecodeError, Fault, Form, PeerMisbehaved, ProtocolFeatures, Verdict, Violation,
};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire::{self, Fixture, MAXIMUM_DESCRIPTORS, Reply, feature};

/// One case: a message as it is sent, in a stage.
struct Case<'f> {
    fixture: &'f Fixture,
    stage: Stage,
    is_gated: bool,
    descriptors: usize,
    flagged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Accepted,
    NotNegotiated,
    Descriptors,
}

#[test]
fn every_request_of_a_backend_comes_to_what_its_fixture_says() {
    let ledger = Ledger::new();
    let mut outcomes = BTreeMap::new();
    for fixture in wire::all_backend_forms() {
        for (stage, is_gated) in missing::stages(&fixture) {
            for (rings, acknowledging) in Rings::ALL.into_iter().flat_map(|rings| [(rings, false), (rings, true)]) {
                let stage = if acknowledging { stage.acknowledging() } else { stage }.rings(rings);
                let front = stage.front();
                for descriptors in 0..=MAXIMUM_DESCRIPTORS {
                    for flagged in [false, true] {
                        let case = Case { fixture: &fixture, stage, is_gated, descriptors, flagged };
                        case.check(front.clone(), &ledger);
                        *outcomes.entry(case.expected()).or_insert(0) += 1;
                    }
                }
            }
        }
    }
    let counts = [(Outcome::Accepted, 208), (Outcome::NotNegotiated, 4176), (Outcome::Descriptors, 1664)];
    assert_eq!(outcomes, BTreeMap::from(counts));
    ledger.assert_settled();
}

impl Case<'_> {
    fn title(&self) -> String {
        let Self { fixture, stage, is_gated, descriptors, flagged } = self;
        let name = format!("{} ({})", fixture.name, fixture.form);
        format!("{name}: {descriptors} descriptors, flag {flagged}, gate closed {is_gated}, {stage:x?}")
    }

    fn expected(&self) -> Outcome {
        if self.is_gated {
            Outcome::NotNegotiated
        } else if self.descriptors != self.fixture.descriptors {
            Outcome::Descriptors
        } else {
            Outcome::Accepted
        }
    }

    fn check(&self, mut front: Front, ledger: &Ledger) {
        let before = front.clone();
        let code = BackendCode(self.fixture.id);
        let bytes = self.fixture.message(if self.flagged { 9 } else { 1 });
        let taken = front.handle_request(frame(&bytes, ledger.tokens(self.descriptors)));
        match (self.expected(), taken) {
            (Outcome::Accepted, Ok(request)) => {
                assert_eq!(request.code(), code);
                drop(request);
                let usual = self.fixture.answers().first();
                let bytes = usual.map(|answer| answer.message(self.fixture.id)).unwrap_or_default();
                let reply = usual.map_or(BackendReply::Done, |answer| {
                    let form = Form::reply(ProtocolFeatures::from_bits_retain(self.stage.protocol));
                    BackendReply::decode(frame(&bytes, ledger.tokens(answer.descriptors)), form).unwrap()
                });
                let reaction = front.answer_backend(reply, &mut buffer()).unwrap().into();
                let descriptors = usual.map_or(0, |answer| answer.descriptors);
                self.check_reaction(reaction, self.fixture.reply(), descriptors);
            }
            (expected, Err(rejection)) if expected != Outcome::Accepted => {
                let message = code.message();
                let fault = if expected == Outcome::NotNegotiated {
                    let violation = Violation::NotNegotiated { gate: code.row().unwrap().gate };
                    Fault::Peer(PeerMisbehaved::Violation { message, violation })
                } else {
                    let (least, found) = (self.fixture.descriptors, self.descriptors);
                    let expected = HandleCount { least, most: least };
                    Fault::Bytes(DecodeError::HandleCount { message, expected, found })
                };
                assert_eq!((rejection.verdict(), rejection.fault()), (Verdict::Refuse, fault), "{}", self.title());
                let refusal = BackendReply::Refused(NonZeroU64::MIN);
                let reaction = front.answer_backend(refusal, &mut buffer()).unwrap().into();
                // A look-up too tells its failure with a number.
                self.check_reaction(reaction, self.fixture.acknowledgement(1), 0);
            }
            (expected, found) => panic!("{expected:?} and not {found:?}: {}", self.title()),
        }
        assert_eq!(front, before, "no request of a back-end changes the session: {}", self.title());
    }

    /// One reply of its own, or an acknowledgement if it is wanted, or nothing.
    fn check_reaction(&self, reaction: Reaction, expected: Vec<u8>, descriptors: usize) {
        let acknowledged = self.flagged && self.stage.protocol & feature::REPLY_ACK != 0;
        let answered = acknowledged || matches!(self.fixture.reply, Reply::Own(_));
        match reaction {
            Reaction::Sent(Packet { bytes, handles }) => {
                assert!(answered, "{}", self.title());
                assert_eq!((bytes, handles.len()), (expected, descriptors), "{}", self.title());
            }
            Reaction::Silent => assert!(!answered, "{}", self.title()),
            Reaction::Closed => panic!("closed: {}", self.title()),
        }
    }
}
