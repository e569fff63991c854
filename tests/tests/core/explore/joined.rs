//! Both machines joined by lines that hold a few messages: every order of asking, hearing and answering, on both channels.

use super::words::{Word, backend_words, frontend_words};
use super::{assert_seen, check, ensure};
use crate::machines::{Back, Front, Packet, Reaction, agree, back, buffer, front};
use crate::pair::{grant, tells_refusal};
use crate::stage::{PROTOCOL_OFFERED, Stage};
use core::hash;
use core::{fmt, num::NonZeroU64};
use std::rc::Rc;
use vhost_core::{
    BackendReply, BackendRequest, Delivery, Form, FrontendCode, FrontendReply, FrontendRequest, Incoming, Postcopy,
};
use vhost_tests::explore::{Model, Outcome, explore};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{HEADER_SIZE, feature};

/// A message under way: its bytes, and how many descriptors came with it.
type Message = (Vec<u8>, usize);

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Mishap {
    #[default]
    Nothing,
    /// The first reply of a session is lost.
    ReplyLost,
    /// The device grants what it says it refuses.
    RefusalIsGrant,
    /// A request that was answered is answered once more.
    ReplyDoubled,
}

/// Who does what next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    FrontAsks(usize, Delivery),
    FrontTakesAddresses(FrontendCode),
    BackHears { refuses: bool },
    FrontHears,
    BackAsks(usize, Delivery),
    FrontIsAsked { refuses: bool },
    BackIsTold,
}

#[derive(Clone)]
struct Joined {
    front: Front,
    back: Back,
    /// Requests of the front-end, replies to it, requests of the back-end, replies to it.
    lines: [Vec<Message>; 4],
    refused: bool,
    mishap: Mishap,
    limits: Limits,
    words: Rc<Vec<Word>>,
    backend_words: Rc<Vec<Word>>,
}

/// What bounds an exploration.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Messages on one line.
    line: usize,
    /// Requests of the front-end that wait for their answers.
    waiting: usize,
    /// Whether every request is to be acknowledged, so that the device may refuse some.
    refusals: bool,
}

impl hash::Hash for Joined {
    fn hash<S: hash::Hasher>(&self, state: &mut S) {
        (&self.front, &self.back, &self.lines, self.refused, self.mishap).hash(state);
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined")
            .field("front", self.front.session())
            .field("back", self.back.session())
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

fn message(packet: Packet) -> Message {
    (packet.bytes, packet.handles.len())
}

fn packet((bytes, handles): Message, ledger: &Ledger) -> Packet {
    Packet { bytes, handles: ledger.tokens(handles) }
}

impl Joined {
    fn new(front: Front, back: Back, limits: Limits, frontend: &[(&str, &str)], backend: &[&str]) -> Self {
        let words = frontend_words().into_iter().filter(|word| !word.flagged);
        let words = Vec::from_iter(words.filter(|word| frontend.contains(&(word.fixture.name, word.fixture.form))));
        assert_eq!(words.len(), frontend.len());
        let backend_words = backend_words().into_iter().filter(|word| !word.flagged && word.fixture.is_usual());
        let backend_words = backend_words.filter(|word| backend.contains(&word.fixture.name)).collect();
        let (words, backend_words) = (Rc::new(words), Rc::new(backend_words));
        let (lines, refused, mishap) = (Default::default(), false, Mishap::Nothing);
        Self { front, back, lines, refused, mishap, limits, words, backend_words }
    }

    /// Nothing is under way and nobody waits.
    fn is_quiet(&self) -> bool {
        self.lines.iter().all(Vec::is_empty)
    }

    fn front_asks(&self, number: usize, delivery: Delivery) -> Option<Self> {
        let fixture = &self.words[number].fixture;
        let bytes = fixture.request();
        let ledger = Ledger::new();
        let form = Form::request(self.front.session().negotiated().protocol);
        let frame = crate::machines::frame(&bytes, ledger.tokens(fixture.descriptors));
        let request = FrontendRequest::decode(frame, form).unwrap();
        let mut after = self.clone();
        let mut out = buffer();
        let transmit = after.front.request(request, delivery, &mut out).ok()?;
        after.lines[0].push(message(Packet::from_transmit(transmit)));
        Some(after)
    }

    fn back_hears(&self, refuses: bool) -> Result<Option<Self>, String> {
        let ledger = Ledger::new();
        let mut after = self.clone();
        let mut said = packet(after.lines[0].remove(0), &ledger);
        let incoming = after.back.handle_request(said.frame());
        let reply = match incoming {
            Ok(Incoming::PostcopyMemoryMapped) if refuses => return Ok(None),
            Ok(Incoming::PostcopyMemoryMapped) => return Ok(Some(after)),
            Ok(Incoming::Request(request)) if refuses && !tells_refusal(&after.back, request.code()) => {
                return Ok(None);
            }
            Ok(Incoming::Request(_)) if refuses => FrontendReply::Refused(NonZeroU64::MIN),
            Ok(Incoming::Request(request)) => grant(&after.back, request, &ledger),
            // Only something that the device has refused can make a later request wrong.
            Err(_) if self.refused => FrontendReply::Refused(NonZeroU64::MIN),
            Err(rejection) => return Err(format!("the back-end refuses what the front-end may say: {rejection}")),
        };
        after.refused |= refuses;
        if self.mishap == Mishap::RefusalIsGrant && refuses {
            let mut granting = after.back.clone();
            drop(granting.answer(FrontendReply::<Token>::Done, &mut buffer()));
            let reaction =
                Reaction::from(after.back.answer(reply, &mut buffer()).map_err(|misuse| misuse.to_string())?);
            after.back = granting;
            after.take(reaction, 1)?;
            return Ok(Some(after));
        }
        let reaction = Reaction::from(after.back.answer(reply, &mut buffer()).map_err(|misuse| misuse.to_string())?);
        ensure(!refuses || matches!(reaction, Reaction::Sent(_)) || !self.limits.refusals, || {
            "an unheard refusal".into()
        })?;
        after.take(reaction, 1)?;
        match self.mishap {
            Mishap::ReplyLost => drop(after.lines[1].pop()),
            Mishap::ReplyDoubled => after.lines[1].extend(after.lines[1].last().cloned()),
            _ => {}
        }
        Ok(Some(after))
    }

    fn take(&mut self, reaction: Reaction, line: usize) -> Result<(), String> {
        match reaction {
            Reaction::Sent(packet) => self.lines[line].push(message(packet)),
            Reaction::Silent => {}
            Reaction::Closed => return Err("closed".into()),
        }
        Ok(())
    }

    fn front_hears(&self) -> Result<Self, String> {
        let ledger = Ledger::new();
        let mut after = self.clone();
        let mut told = packet(after.lines[1].remove(0), &ledger);
        let descriptors = ledger.open().len();
        let reply = after.front.handle_reply(told.frame());
        let reply = reply.map_err(|fault| format!("the front-end does not take the answer: {fault}"))?;
        let kept = ledger.open().len() == descriptors || matches!(reply, FrontendReply::Refused(_));
        ensure(kept, || "a descriptor is lost".into())?;
        Ok(after)
    }

    fn back_asks(&self, number: usize, delivery: Delivery) -> Option<Self> {
        let fixture = &self.backend_words[number].fixture;
        let ledger = Ledger::new();
        let bytes = fixture.request();
        let form = Form::request(self.back.session().negotiated().protocol);
        let frame = crate::machines::frame(&bytes, ledger.tokens(fixture.descriptors));
        let request = BackendRequest::decode(frame, form).unwrap();
        let mut after = self.clone();
        let mut out = buffer();
        let transmit = after.back.request(request, delivery, &mut out).ok()?;
        after.lines[2].push(message(Packet::from_transmit(transmit)));
        Some(after)
    }

    fn front_is_asked(&self, refuses: bool) -> Result<Self, String> {
        let ledger = Ledger::new();
        let mut after = self.clone();
        let mut said = packet(after.lines[2].remove(0), &ledger);
        let reply = match after.front.handle_request(said.frame()) {
            _ if refuses => BackendReply::Refused(NonZeroU64::MIN),
            Ok(BackendRequest::SharedObjectLookup(_)) => BackendReply::SharedObjectLookup(0, Some(ledger.token())),
            Ok(_) => BackendReply::Done,
            Err(rejection) => return Err(format!("the front-end refuses what the back-end may say: {rejection}")),
        };
        let mut out = buffer();
        let answered = after.front.answer_backend(reply, &mut out).map_err(|misuse| misuse.to_string())?;
        let reaction = Reaction::from(answered);
        after.take(reaction, 3)?;
        Ok(after)
    }

    fn back_is_told(&self) -> Result<Self, String> {
        let ledger = Ledger::new();
        let mut after = self.clone();
        let mut told = packet(after.lines[3].remove(0), &ledger);
        let reply = after.back.handle_reply(told.frame());
        reply.map_err(|fault| format!("the back-end does not take the answer: {fault}"))?;
        Ok(after)
    }

    fn deliveries(&self) -> &'static [Delivery] {
        if self.limits.refusals {
            &[Delivery::Acknowledged]
        } else {
            &[Delivery::Acknowledged, Delivery::Unacknowledged]
        }
    }
}

impl Model for Joined {
    type Step = Step;

    fn successors(&self) -> Result<Vec<(Step, Self)>, String> {
        if self.is_quiet() {
            ensure(self.front.outstanding() == 0 && self.back.outstanding() == 0, || "somebody waits in vain".into())?;
            ensure(agree(self.front.session(), self.back.session()), || "they are not of one mind".into())?;
        }
        let mut all = Vec::new();
        if self.lines[0].len() < self.limits.line && self.front.outstanding() < self.limits.waiting {
            for number in 0..self.words.len() {
                for delivery in self.deliveries() {
                    let after = self.front_asks(number, *delivery);
                    all.extend(after.map(|after| (Step::FrontAsks(number, *delivery), after)));
                }
            }
            for code in [FrontendCode::SET_MEM_TABLE, FrontendCode::ADD_MEM_REG] {
                let mut after = self.clone();
                let mut out = buffer();
                if let Ok(transmit) = after.front.acknowledge_postcopy_memory::<Token>(code, &mut out) {
                    after.lines[0].push(message(Packet::from_transmit(transmit)));
                    all.push((Step::FrontTakesAddresses(code), after));
                }
            }
        }
        if !self.lines[0].is_empty() && self.lines[1].len() < self.limits.line {
            for refuses in [false, true] {
                if !refuses || self.limits.refusals {
                    let after = self.back_hears(refuses)?;
                    all.extend(after.map(|after| (Step::BackHears { refuses }, after)));
                }
            }
        }
        if !self.lines[1].is_empty() {
            all.push((Step::FrontHears, self.front_hears()?));
        }
        if self.lines[2].len() < self.limits.line && self.back.outstanding() < self.limits.waiting {
            for number in 0..self.backend_words.len() {
                for delivery in self.deliveries() {
                    let after = self.back_asks(number, *delivery);
                    all.extend(after.map(|after| (Step::BackAsks(number, *delivery), after)));
                }
            }
        }
        if !self.lines[2].is_empty() && self.lines[3].len() < self.limits.line {
            for refuses in [false, true] {
                all.push((Step::FrontIsAsked { refuses }, self.front_is_asked(refuses)?));
            }
        }
        if !self.lines[3].is_empty() {
            all.push((Step::BackIsTold, self.back_is_told()?));
        }
        Ok(all)
    }

    fn is_finished(&self) -> bool {
        false
    }

    fn sometimes(&self, note: &mut dyn FnMut(&'static str)) {
        let (front, back) = (self.front.session(), self.back.session());
        let mut fact = |holds, name| {
            if holds {
                note(name);
            }
        };
        fact(front.is_running() && back.is_running(), "a ring runs");
        fact(front.is_running() != back.is_running(), "one side is ahead");
        fact(self.front.outstanding() > 1, "two requests wait");
        fact(self.refused, "a refusal");
        fact(back.log().is_some() && back.is_running(), "a migration");
        fact(back.postcopy() == Postcopy::Listening && !back.memory().regions().is_empty(), "postcopy with memory");
        fact(!self.lines[0].is_empty() && !self.lines[2].is_empty(), "both ask at once");
        fact(
            self.lines.iter().any(|line| line.iter().any(|(bytes, _)| bytes.len() == HEADER_SIZE)),
            "an empty message",
        );
    }
}

const USUAL: &str = "usual";
const ONE: Limits = Limits { line: 2, waiting: 2, refusals: false };
const REFUSING: Limits = Limits { refusals: true, ..ONE };

/// Both sides after negotiation.
fn agreed(limits: Limits, frontend: &[(&str, &str)], backend: &[&str]) -> Joined {
    let stage = Stage::with(feature::PROTOCOL_OFFERED);
    Joined::new(stage.front(), stage.back(), limits, frontend, backend)
}

/// From the first byte: features, protocol features, a ring.
fn from_the_beginning() -> Joined {
    let words = [
        ("GET_FEATURES", USUAL),
        ("SET_FEATURES", USUAL),
        ("SET_FEATURES", "no protocol features"),
        ("GET_PROTOCOL_FEATURES", USUAL),
        ("SET_PROTOCOL_FEATURES", USUAL),
        ("SET_VRING_KICK", USUAL),
        ("GET_VRING_BASE", USUAL),
    ];
    Joined::new(front(), back(feature::OFFERED, PROTOCOL_OFFERED), ONE, &words, &[])
}

#[test]
fn negotiation_from_the_beginning() {
    let report = check("joined, negotiation", from_the_beginning());
    assert_eq!(report.states, 39734);
    assert_seen(&report, &["a ring runs", "one side is ahead", "two requests wait"]);
}

const RINGS: [(&str, &str); 4] = [
    ("SET_VRING_KICK", USUAL),
    ("GET_VRING_BASE", USUAL),
    ("SET_VRING_ENABLE", "the same ring"),
    ("SET_VRING_NUM", USUAL),
];

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; .ci/peers runs it")]
fn rings_and_a_device_that_grants_everything() {
    let report = check("joined, rings", agreed(ONE, &[&RINGS[..], &[("RESET_DEVICE", USUAL)]].concat(), &[]));
    assert_eq!(report.states, 37972);
    assert_seen(&report, &["a ring runs", "one side is ahead", "two requests wait"]);
}

#[test]
fn rings_and_a_device_that_refuses_what_it_likes() {
    let report = check("joined, rings and refusals", agreed(REFUSING, &RINGS, &[]));
    assert_eq!(report.states, 1130);
    assert_seen(&report, &["a ring runs", "a refusal", "two requests wait"]);
}

#[test]
fn memory_and_migration() {
    let words = [
        ("SET_MEM_TABLE", USUAL),
        ("ADD_MEM_REG", USUAL),
        ("REM_MEM_REG", USUAL),
        ("SET_LOG_BASE", USUAL),
        ("SET_FEATURES", "logging"),
        ("POSTCOPY_ADVISE", USUAL),
        ("POSTCOPY_LISTEN", USUAL),
        ("POSTCOPY_END", USUAL),
    ];
    let running = Stage::with(feature::PROTOCOL_OFFERED).rings(crate::stage::Rings::RUNNING);
    let limits = Limits { line: 1, ..ONE };
    let report =
        check("joined, memory and migration", Joined::new(running.front(), running.back(), limits, &words, &[]));
    assert_eq!(report.states, 4520);
    assert_seen(&report, &["a migration", "postcopy with memory"]);
}

#[test]
fn two_channels() {
    let frontend = [("GET_CONFIG", USUAL), ("SET_VRING_ENABLE", USUAL)];
    let backend = ["CONFIG_CHANGE_MSG", "SHARED_OBJECT_LOOKUP", "SHMEM_MAP"];
    // Opened before: with another channel, what is under way on the first would be gone.
    let closed = agreed(ONE, &[("SET_BACKEND_REQ_FD", USUAL)], &[]);
    let open = closed.front_asks(0, Delivery::Unacknowledged).unwrap().back_hears(false).unwrap().unwrap();
    let start = Joined::new(open.front, open.back, Limits { line: 1, ..ONE }, &frontend, &backend);
    let report = check("joined, two channels", start);
    assert_eq!(report.states, 1008);
    assert_seen(&report, &["both ask at once"]);
}

/// What the exploration is worth: it notices each of these.
#[test]
fn mishaps_are_noticed() {
    for (mishap, reason) in [
        (Mishap::ReplyLost, "somebody waits in vain"),
        (Mishap::RefusalIsGrant, "they are not of one mind"),
        (Mishap::ReplyDoubled, "the front-end does not take the answer"),
    ] {
        let report = explore(Joined { mishap, ..agreed(REFUSING, &RINGS, &[]) });
        let last = report.trace.last().cloned().unwrap_or_default();
        assert!(report.outcome == Outcome::Broken && last.starts_with(reason), "{mishap:?}: {last}");
    }
}
