//! The front-end's machine alone, facing a back-end that answers anything at any time.

use super::back::{MEMORY, RINGS};
use super::words::{Due, Heard, Word, backend_words, frontend_words, is_reply_to};
use super::{assert_seen, check, ensure};
use crate::machines::{Front, Reaction, buffer, frame, front};
use crate::stage::{Stage, flagged};
use core::hash;
use core::{fmt, num::NonZeroU64};
use std::collections::BTreeSet;
use std::rc::Rc;
use vhost_core::{
    ApiMisuse, BackendReply, BackendRequest, Delivery, Fault, Form, FrontendCode, FrontendReply, FrontendRequest,
    Postcopy, Verdict,
};
use vhost_tests::explore::Model;
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, HEADER_SIZE, Header, REPLY, REQUEST, feature};

/// What happens to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// This request is made.
    Asks(usize, Delivery),
    /// The oldest request is answered in this way.
    IsAnswered(usize),
    /// The addresses of postcopy are taken.
    TakesAddresses(FrontendCode),
}

/// The machine, what it waits for, and what it may be asked to say.
#[derive(Clone)]
struct Alone {
    machine: Front,
    waiting: Vec<(usize, bool, Due)>,
    depth: usize,
    words: Rc<Vec<Word>>,
    /// Those that lead to new states; the others are said and answered, but what they lead to is not followed.
    followed: Rc<BTreeSet<&'static str>>,
}

impl hash::Hash for Alone {
    fn hash<S: hash::Hasher>(&self, state: &mut S) {
        self.machine.hash(state);
        self.waiting.iter().for_each(|(word, flagged, _)| (word, flagged).hash(state));
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting.iter().map(|(word, ..)| self.words[*word].name());
        f.debug_struct("Frontend")
            .field("session", self.machine.session())
            .field("waiting", &Vec::from_iter(waiting))
            .finish_non_exhaustive()
    }
}

impl Alone {
    fn new(machine: Front, depth: usize, followed: &[&'static str]) -> Self {
        let words = frontend_words().into_iter().filter(|word| !word.flagged && word.fixture.name != "UNKNOWN");
        let followed = followed.iter().copied().collect();
        Self { machine, waiting: Vec::new(), depth, words: Rc::new(words.collect()), followed: Rc::new(followed) }
    }

    /// Makes a request; `None` if the machine refuses to.
    fn ask(&self, number: usize, delivery: Delivery) -> Result<Option<Self>, String> {
        let word = &self.words[number];
        let ledger = Ledger::new();
        let bytes = word.bytes();
        let form = Form::request(self.machine.session().negotiated().protocol);
        let tokens = ledger.tokens(word.fixture.descriptors);
        // What is no request at all cannot be made.
        let Ok(request) = FrontendRequest::decode(frame(&bytes, tokens), form) else { return Ok(None) };
        let handles = ledger.open().len();
        let mut after = self.clone();
        let mut out = buffer();
        let allowed = word.is_allowed(self.machine.session()) || word.fixture.name == "GET_QUEUE_NUM";
        let transmit = match after.machine.request(request, delivery, &mut out) {
            Ok(transmit) => transmit,
            Err(misuse) => {
                ledger.assert_settled();
                ensure(after.machine == self.machine, || format!("misuse changes something: {misuse}"))?;
                return Ok(None);
            }
        };
        ensure(allowed || self.depth > 1, || "the gate is closed".into())?;
        ensure(transmit.handles.len() == handles, || "not its descriptors".into())?;
        let header = Header::read(*transmit.bytes.first_chunk().unwrap());
        ensure(header.request == word.fixture.id && header.version() == 1, || format!("{header:?}"))?;
        // A configuration that is asked for has no content yet; everything else is said as it stands.
        let said = transmit.bytes[HEADER_SIZE..] == word.fixture.payload[..];
        ensure(said || word.fixture.name == "GET_INFLIGHT_FD" || word.fixture.name == "SET_INFLIGHT_FD", || {
            format!("{:?}", transmit.bytes)
        })?;
        drop(transmit);
        ledger.assert_settled();
        let flagged = Word { flagged: header.needs_reply(), ..word.clone() };
        let due = flagged.due(self.machine.session(), Heard::Understood);
        if due != Due::Nothing {
            after.waiting.push((number, header.needs_reply(), due));
        }
        ensure(after.machine.outstanding() == after.waiting.len(), || format!("{due:?} is awaited or not"))?;
        Ok(Some(after))
    }

    /// The answers that may come to the oldest request.
    fn answers(&self) -> Vec<(Vec<u8>, usize)> {
        self.waiting.first().map(|(word, _, due)| self.words[*word].answers(*due)).unwrap_or_default()
    }

    fn is_answered(&self, (bytes, descriptors): &(Vec<u8>, usize)) -> Result<Self, String> {
        let ledger = Ledger::new();
        let mut after = self.clone();
        let (word, ..) = after.waiting.remove(0);
        let reply = after.machine.handle_reply(frame(bytes, ledger.tokens(*descriptors)));
        let reply = reply.map_err(|fault| format!("a good answer is refused: {fault}"))?;
        if let FrontendReply::Refused(_) = reply {
            let same = after.machine.session() == self.machine.session();
            ensure(same || self.depth > 1, || "a refusal changes something".into())?;
            let possible = self.words[word].answers(self.waiting[0].2).len() > 1;
            ensure(possible, || "an answer is taken for a refusal".into())?;
        } else {
            ensure(ledger.open().len() == *descriptors, || "descriptors are not handed on".into())?;
        }
        drop(reply);
        ledger.assert_settled();
        ensure(after.machine.outstanding() == after.waiting.len(), || "answered, and still awaited".into())?;
        Ok(after)
    }

    /// Answers that nobody asked for, and those that are wrong, end the session and close their descriptors.
    fn is_told_nonsense(&self) -> Result<(), String> {
        let mut nonsense = vec![
            (wire::frontend_request("SET_OWNER").acknowledgement(0), 0),
            (flagged(1, REQUEST, &[0; 8]), 0),
            (flagged(99, REPLY, &[0; 8]), 1),
        ];
        if let Some((bytes, descriptors)) = self.answers().first() {
            let id = Header::read(*bytes.first_chunk().unwrap()).request;
            let payload = &bytes[HEADER_SIZE..];
            // Some back-ends answer a configuration with all the bytes there can be, an object with its name, and a
            // userfault descriptor with whatever.
            if ![24, 28, 41].contains(&id) {
                nonsense.push((flagged(id, REPLY, &[payload, &[1]].concat()), *descriptors));
            }
            nonsense.push((bytes.clone(), descriptors + 1));
            // An acknowledgement of this request too would be in order.
            nonsense
                .retain(|(bytes, _)| !is_reply_to(bytes, id) || bytes.len() != HEADER_SIZE + 8 || payload.len() == 8);
            if id == 3 {
                nonsense.remove(0);
            }
        }
        for (bytes, descriptors) in nonsense {
            let ledger = Ledger::new();
            let mut machine = self.machine.clone();
            let heard =
                machine.handle_reply(frame(&bytes, ledger.tokens(descriptors))).map(|reply| format!("{reply:?}"));
            ensure(heard.is_err(), || format!("{bytes:?} is taken for {heard:?}"))?;
            ledger.assert_settled();
            dead(&machine)?;
        }
        Ok(())
    }

    /// A request of the back-end, and both answers to it.
    fn is_asked(&self, word: &Word) -> Result<(), String> {
        for refused in [false, true] {
            let ledger = Ledger::new();
            let mut machine = self.machine.clone();
            let bytes = word.bytes();
            let request = machine.handle_request(frame(&bytes, ledger.tokens(word.fixture.descriptors)));
            let allowed = word.is_allowed(self.machine.session());
            let answer = match request {
                Ok(request) => {
                    ensure(allowed, || "the gate is closed".into())?;
                    match request {
                        _ if refused => BackendReply::Refused(NonZeroU64::MIN),
                        BackendRequest::SharedObjectLookup(_) => {
                            BackendReply::SharedObjectLookup(0, Some(ledger.token()))
                        }
                        _ => BackendReply::Done,
                    }
                }
                Err(rejection) => {
                    ensure(!allowed, || format!("{rejection}"))?;
                    ensure(rejection.verdict() == Verdict::Refuse, || format!("{rejection}"))?;
                    BackendReply::Refused(NonZeroU64::MIN)
                }
            };
            let told = matches!(answer, BackendReply::Refused(_));
            let due = word.due(self.machine.session(), Heard::Understood);
            let reaction =
                Reaction::from(machine.answer_backend(answer, &mut buffer()).map_err(|misuse| misuse.to_string())?);
            match &reaction {
                Reaction::Sent(packet) => {
                    ensure(due != Due::Nothing && is_reply_to(&packet.bytes, word.fixture.id), || {
                        format!("{packet:?}")
                    })?;
                    let zero = packet.bytes[HEADER_SIZE..] == 0_u64.to_ne_bytes();
                    ensure(zero != told, || format!("{packet:?}"))?;
                }
                Reaction::Silent => ensure(due == Due::Nothing, || "silence".into())?,
                Reaction::Closed => return Err("closed".into()),
            }
            drop(reaction);
            ledger.assert_settled();
            ensure(machine == self.machine, || "a request of the back-end changes something".into())?;
        }
        Ok(())
    }
}

/// A machine that has failed stays so.
fn dead(machine: &Front) -> Result<(), String> {
    ensure(machine.has_failed(), || "it goes on".into())?;
    let mut after = machine.clone();
    let request = FrontendRequest::<Token>::GetFeatures;
    let asked = after.request(request, Delivery::Unacknowledged, &mut buffer()).map(drop);
    ensure(asked == Err(ApiMisuse::SessionFailed), || "a dead machine asks".into())?;
    let bytes = wire::frontend_request("GET_FEATURES").reply();
    let heard = after.handle_reply::<Token>(frame(&bytes, Vec::new())).map(drop);
    ensure(heard == Err(Fault::Caller(ApiMisuse::SessionFailed)), || "a dead machine hears".into())?;
    ensure(after == *machine, || "a dead machine changes".into())
}

impl Model for Alone {
    type Step = Step;

    fn successors(&self) -> Result<Vec<(Step, Self)>, String> {
        let mut all = Vec::new();
        self.is_told_nonsense()?;
        if self.machine.session().has_backend_channel() && self.waiting.is_empty() {
            for word in backend_words() {
                self.is_asked(&word).map_err(|reason| format!("asked {}: {reason}", word.name()))?;
            }
        }
        for (choice, answer) in self.answers().iter().enumerate() {
            let name = self.words[self.waiting[0].0].name();
            let after = self.is_answered(answer).map_err(|reason| format!("{name} answered {choice}: {reason}"))?;
            let followed = self.followed.contains(self.words[self.waiting[0].0].fixture.name);
            if followed || after.machine.session() == self.machine.session() {
                all.push((Step::IsAnswered(choice), after));
            }
        }
        for code in [FrontendCode::SET_MEM_TABLE, FrontendCode::ADD_MEM_REG] {
            let mut after = self.clone();
            if after.machine.acknowledge_postcopy_memory::<Token>(code, &mut buffer()).is_ok() {
                all.push((Step::TakesAddresses(code), after));
            }
        }
        if self.waiting.len() == self.depth {
            return Ok(all);
        }
        for number in 0..self.words.len() {
            let fixture = &self.words[number].fixture;
            let short = fixture.is_usual() || fixture.form == "the same ring";
            if self.depth > 1 && !(short && self.followed.contains(fixture.name)) {
                continue;
            }
            for delivery in [Delivery::Unacknowledged, Delivery::Acknowledged] {
                let name = || self.words[number].name();
                let asked =
                    self.ask(number, delivery).map_err(|reason| format!("{}, {delivery:?}: {reason}", name()))?;
                if let Some(after) = asked {
                    let followed = self.followed.contains(self.words[number].fixture.name);
                    if followed || after.machine.session() == self.machine.session() {
                        all.push((Step::Asks(number, delivery), after));
                    }
                }
            }
        }
        Ok(all)
    }

    fn is_finished(&self) -> bool {
        // What is not followed ends here.
        true
    }

    fn sometimes(&self, note: &mut dyn FnMut(&'static str)) {
        let session = self.machine.session();
        let mut fact = |holds, name| {
            if holds {
                note(name);
            }
        };
        fact(session.is_running(), "a ring runs");
        fact(self.waiting.len() > 1, "two requests wait");
        fact(session.log().is_some(), "a dirty log");
        fact(session.postcopy() == Postcopy::Answered, "postcopy has answered");
        fact(session.memory().regions().len() == 3, "three regions");
        fact(session.status() != 0, "a status");
        fact(
            session.negotiated().protocol.is_empty() && session.is_running(),
            "a running ring without protocol features",
        );
        fact(session.has_backend_channel(), "a back-end channel");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; .ci/peers runs it")]
fn negotiation_and_rings_from_the_beginning() {
    let followed = [
        "GET_FEATURES",
        "GET_PROTOCOL_FEATURES",
        "SET_PROTOCOL_FEATURES",
        "SET_FEATURES",
        "SET_VRING_KICK",
        "GET_VRING_BASE",
        "SET_VRING_ENABLE",
    ];
    let report = check("front-end, negotiation and rings", Alone::new(front(), 1, &followed));
    assert_eq!(report.states, 5760);
    assert_seen(&report, &["a ring runs", "a running ring without protocol features"]);
}

fn agreed(depth: usize, followed: &[&'static str]) -> Alone {
    Alone::new(Stage::with(feature::PROTOCOL_OFFERED).front(), depth, followed)
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; .ci/peers runs it")]
fn rings_and_resets() {
    let report = check("front-end, rings and resets", agreed(1, &RINGS));
    assert_eq!(report.states, 15584);
    assert_seen(&report, &["a ring runs", "a status"]);
}

#[test]
fn memory_and_migration() {
    let report = check("front-end, memory and migration", agreed(1, &MEMORY));
    assert_eq!(report.states, 8224);
    assert_seen(&report, &["a dirty log", "postcopy has answered", "three regions", "a back-end channel"]);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; .ci/peers runs it")]
fn two_requests_at_once() {
    let followed = ["SET_VRING_KICK", "GET_VRING_BASE", "SET_VRING_ENABLE", "SET_STATUS", "RESET_DEVICE"];
    let report = check("front-end, two requests at once", agreed(2, &followed));
    assert_eq!(report.states, 65696);
    assert_seen(&report, &["a ring runs", "two requests wait"]);
}
