//! The back-end's machine alone, facing a front-end that says anything at any time.

use super::words::{Due, Heard, Word, addresses_taken, frontend_words, frontend_words_of, is_reply_to};
use super::{assert_seen, check, ensure};
use crate::machines::{Back, Reaction, back, buffer, frame};
use crate::pair::grant;
use crate::stage::Stage;
use core::{cell::RefCell, hash};
use core::{fmt, num::NonZeroU64};
use std::collections::BTreeSet;
use std::rc::Rc;
use vhost_core::{ApiMisuse, Fault, FrontendReply, Incoming, Postcopy, Verdict};
use vhost_tests::explore::Model;
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, feature};

/// What the device does about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Will {
    Grants,
    Refuses,
}

/// The machine, and what may be said to it.
#[derive(Clone)]
struct Alone {
    machine: Back,
    words: Rc<Vec<Word>>,
    /// Those that lead to new states; the others are said, but what they lead to is not followed.
    followed: Rc<BTreeSet<&'static str>>,
    accepted: Rc<RefCell<BTreeSet<String>>>,
}

impl hash::Hash for Alone {
    fn hash<S: hash::Hasher>(&self, state: &mut S) {
        self.machine.hash(state);
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("session", self.machine.session())
            .field("failed", &self.machine.has_failed())
            .finish()
    }
}

impl Alone {
    fn new(machine: Back, words: Vec<Word>, followed: &[&'static str]) -> Self {
        let followed = followed.iter().copied().collect();
        Self { machine, words: Rc::new(words), followed: Rc::new(followed), accepted: Rc::default() }
    }

    /// Says a word. Returns the machine after it; `None` when it has failed.
    fn say(&self, word: &Word, will: Will) -> Result<Back, String> {
        let ledger = Ledger::new();
        let bytes = word.bytes();
        let tokens = ledger.tokens(word.fixture.descriptors);
        let mut machine = self.machine.clone();
        let incoming = machine.handle_request(frame(&bytes, tokens));
        let heard = if incoming.is_ok() { Heard::Understood } else { Heard::Rejected };
        let due = word.due(self.machine.session(), heard);
        let allowed = word.is_allowed(self.machine.session());
        let reply = match incoming {
            Ok(Incoming::PostcopyMemoryMapped) => {
                ensure(self.machine.session().postcopy() == Postcopy::Answered, || "nothing was answered".into())?;
                ledger.assert_settled();
                return Ok(machine);
            }
            Ok(Incoming::Request(request)) => {
                ensure(allowed, || "the gate is closed".into())?;
                let handed = ledger.open().len();
                // Older front-ends send the region's descriptor once more; it is closed.
                let expected = if word.fixture.name == "REM_MEM_REG" { 0 } else { word.fixture.descriptors };
                ensure(handed == expected, || format!("{handed} descriptors are handed on"))?;
                self.accepted.borrow_mut().insert(word.fixture.name.to_owned());
                self.misuse_while_pending(&machine)?;
                match will {
                    Will::Grants => grant(&machine, request, &ledger),
                    Will::Refuses => FrontendReply::Refused(NonZeroU64::MIN),
                }
            }
            Err(rejection) => match rejection.verdict() {
                Verdict::Misuse => return Err(format!("misuse: {rejection}")),
                Verdict::Close => {
                    ledger.assert_settled();
                    return dead(machine);
                }
                Verdict::Refuse => {
                    ledger.assert_settled();
                    let granted = machine.clone().answer(FrontendReply::<Token>::Done, &mut buffer()).is_ok();
                    ensure(!granted, || "what was rejected can be granted".into())?;
                    FrontendReply::Refused(NonZeroU64::MIN)
                }
            },
        };
        ensure(machine.session() == self.machine.session(), || "an effect before the answer".into())?;
        let refused = matches!(reply, FrontendReply::Refused(_));
        if due != Due::Nothing && !refused {
            let mut early = machine.clone();
            let granted = early.answer(FrontendReply::<Token>::Done, &mut [0; 3]).is_ok();
            ensure(!granted && early == machine, || "an answer without room".into())?;
        }
        let reaction = Reaction::from(machine.answer(reply, &mut buffer()).map_err(|misuse| misuse.to_string())?);
        match &reaction {
            Reaction::Closed => {
                ledger.assert_settled();
                return dead(machine);
            }
            Reaction::Silent => ensure(due == Due::Nothing, || format!("silence where {due:?} is due"))?,
            Reaction::Sent(packet) => {
                ensure(due != Due::Nothing, || "an answer where none is due".into())?;
                ensure(is_reply_to(&packet.bytes, word.fixture.id), || format!("not the answer: {packet:?}"))?;
                let payload = &packet.bytes[wire::HEADER_SIZE..];
                let told = payload == 0_u64.to_ne_bytes();
                ensure(due != Due::Number || (payload.len() == 8 && told != refused), || format!("{packet:?}"))?;
            }
        }
        drop(reaction);
        ledger.assert_settled();
        if refused {
            ensure(machine.session() == self.machine.session(), || "a refused request changes something".into())?;
        }
        let mut again = machine.clone();
        let unasked = again.answer(FrontendReply::<Token>::Done, &mut buffer()).is_err();
        ensure(unasked && again == machine, || "an answer to nothing".into())?;
        Ok(machine)
    }

    /// While a request waits for its answer, nothing else is taken, and that changes nothing.
    fn misuse_while_pending(&self, machine: &Back) -> Result<(), String> {
        let mut misused = machine.clone();
        let bytes = wire::frontend_request("SET_OWNER").request();
        match misused.handle_request::<Token>(frame(&bytes, Vec::new())) {
            Err(rejection) if rejection.verdict() == Verdict::Misuse => {}
            other => return Err(format!("a second request while one is pending: {other:?}")),
        }
        ensure(misused == *machine, || "misuse changes something".into())
    }
}

/// A machine that has failed stays so.
fn dead(machine: Back) -> Result<Back, String> {
    ensure(machine.has_failed(), || "closed and not failed".into())?;
    let mut after = machine.clone();
    let bytes = wire::frontend_request("GET_FEATURES").request();
    let heard = after.handle_request::<Token>(frame(&bytes, Vec::new()));
    let failed = |fault| fault == Fault::Caller(ApiMisuse::SessionFailed);
    ensure(heard.is_err_and(|rejection| failed(rejection.fault())), || "a dead machine takes requests".into())?;
    let answered = after.answer(FrontendReply::<Token>::Done, &mut buffer()).map(drop);
    ensure(answered == Err(ApiMisuse::SessionFailed), || "a dead machine answers".into())?;
    let told = after.handle_reply::<Token>(frame(&bytes, Vec::new()));
    ensure(told.is_err_and(failed), || "a dead machine takes replies".into())?;
    ensure(after == machine, || "a dead machine changes".into())?;
    Ok(machine)
}

impl Model for Alone {
    type Step = (usize, Will);

    fn successors(&self) -> Result<Vec<(Self::Step, Self)>, String> {
        let mut all = Vec::new();
        if self.machine.has_failed() {
            return Ok(all);
        }
        for (number, word) in self.words.iter().enumerate() {
            for will in [Will::Grants, Will::Refuses] {
                let machine = self.say(word, will).map_err(|reason| format!("{}, {will:?}: {reason}", word.name()))?;
                if machine.has_failed() || self.followed.contains(word.fixture.name) {
                    all.push(((number, will), Self { machine, ..self.clone() }));
                }
            }
        }
        for id in [5, 37] {
            let mut machine = self.machine.clone();
            let bytes = addresses_taken(id);
            if let Ok(Incoming::PostcopyMemoryMapped) = machine.handle_request::<Token>(frame(&bytes, Vec::new())) {
                all.push(((usize::MAX, Will::Grants), Self { machine, ..self.clone() }));
            }
        }
        Ok(all)
    }

    fn is_finished(&self) -> bool {
        self.machine.has_failed()
    }

    fn sometimes(&self, note: &mut dyn FnMut(&'static str)) {
        let session = self.machine.session();
        let mut fact = |holds, name| {
            if holds {
                note(name);
            }
        };
        fact(session.is_running(), "a ring runs");
        fact(self.machine.has_failed(), "a failure");
        fact(session.log().is_some() && session.is_running(), "a migration with running rings");
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

fn all_names() -> BTreeSet<String> {
    let words = frontend_words().into_iter().map(|word| word.fixture.name.to_owned());
    words.filter(|name| name != "UNKNOWN").collect()
}

#[test]
fn negotiation_and_rings_from_the_beginning() {
    let followed = [
        "GET_PROTOCOL_FEATURES",
        "SET_PROTOCOL_FEATURES",
        "SET_FEATURES",
        "SET_VRING_KICK",
        "GET_VRING_BASE",
        "SET_VRING_ENABLE",
        "RESET_OWNER",
        "RESET_DEVICE",
    ];
    let start = Alone::new(back(feature::OFFERED, feature::PROTOCOL_OFFERED), frontend_words(), &followed);
    let accepted = Rc::clone(&start.accepted);
    let report = check("back-end, negotiation and rings", start);
    assert_eq!(report.states, 448);
    assert_seen(&report, &["a ring runs", "a failure", "a running ring without protocol features"]);
    let never = Vec::from_iter(all_names().difference(&accepted.borrow()).cloned());
    // They follow on requests that are not followed here.
    assert_eq!(never, ["POSTCOPY_LISTEN", "REM_MEM_REG"]);
}

fn agreed(followed: &[&'static str]) -> Alone {
    let words = frontend_words_of(&Vec::from_iter(frontend_words().iter().map(|word| word.fixture.name)));
    Alone::new(Stage::with(feature::PROTOCOL_OFFERED).back(), words, followed)
}

/// What concerns rings, and resets.
pub(crate) const RINGS: [&str; 9] = [
    "SET_VRING_NUM",
    "SET_VRING_ADDR",
    "SET_VRING_KICK",
    "VRING_KICK",
    "GET_VRING_BASE",
    "SET_VRING_ENABLE",
    "RESET_OWNER",
    "RESET_DEVICE",
    "SET_STATUS",
];
/// What concerns memory, and migration.
pub(crate) const MEMORY: [&str; 8] = [
    "SET_MEM_TABLE",
    "ADD_MEM_REG",
    "REM_MEM_REG",
    "SET_LOG_BASE",
    "SET_BACKEND_REQ_FD",
    "POSTCOPY_ADVISE",
    "POSTCOPY_LISTEN",
    "POSTCOPY_END",
];

#[test]
fn rings_and_resets() {
    let report = check("back-end, rings and resets", agreed(&RINGS));
    assert_eq!(report.states, 512);
    assert_seen(&report, &["a status", "a failure"]);
}

#[test]
fn memory_and_migration() {
    let report = check("back-end, memory and migration", agreed(&MEMORY));
    assert_eq!(report.states, 256);
    assert_seen(&report, &["postcopy has answered", "three regions", "a back-end channel", "a failure"]);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; .ci/peers runs it")]
fn everything_after_negotiation() {
    // Without the sizes and places of rings, which multiply everything and decide nothing.
    let followed = [&RINGS[2..], &MEMORY].concat();
    let start = Alone { words: Rc::new(frontend_words_of(&followed)), ..agreed(&followed) };
    let report = check("back-end, everything after negotiation", start);
    assert_eq!(report.states, 8192);
    assert_seen(&report, &["a migration with running rings", "postcopy has answered", "a back-end channel"]);
}
