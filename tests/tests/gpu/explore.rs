//! Every state that both machines of the GPU channel can reach, joined by lines that hold two messages.

use crate::codec::frame;
use crate::message::{self, Message, Reply, message, reply};
use core::num::NonZeroU64;
use vhost_core::wire::gpu::{DisplayInfo, Edid};
use vhost_core::wire::payload::Form;
use vhost_core::{
    Answered, ApiMisuse, Fault, GpuBackend, GpuBackendConfig, GpuFeatures, GpuFrontend, GpuFrontendConfig, GpuReply,
    GpuRequest, MAX_MESSAGE, ProtocolFeatures, Verdict,
};
use vhost_tests::explore::{Model, Outcome, explore};
use vhost_tests::tracked::{Ledger, Token};

/// Two requests wait, so that answers have an order.
type Backend = GpuBackend<2>;

#[derive(Clone, Debug, Hash)]
struct Joined {
    backend: Backend,
    frontend: GpuFrontend,
    /// Requests under way: which of the twelve.
    requests: Vec<usize>,
    replies: Vec<Vec<u8>>,
    /// Answered requests that are lost, as a mishap.
    loses: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Asks(usize),
    SendsImage,
    Shows,
    Refuses,
    Hears,
}

fn buffer() -> [u8; MAX_MESSAGE] {
    [0; MAX_MESSAGE]
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Joined {
    fn new() -> Self {
        Self {
            backend: Backend::new(GpuBackendConfig::new(4)),
            frontend: GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::KNOWN, 4)),
            requests: Vec::new(),
            replies: Vec::new(),
            loses: false,
        }
    }

    fn asks(&self, number: usize, message: &Message) -> Result<Option<Self>, String> {
        let ledger = Ledger::new();
        let mut after = self.clone();
        let head = message.head();
        let form = Form::request(ProtocolFeatures::empty());
        let request = GpuRequest::decode(frame(&head, &ledger, message.descriptors), form).unwrap();
        let mut out = buffer();
        let gate = GpuFeatures::from_bits_retain(message.gate);
        match after.backend.request(request, &mut out) {
            Ok(transmit) => {
                ensure(self.backend.acknowledged().contains(gate), || "the gate is closed".into())?;
                ensure(self.backend.image_left() == 0, || "an image is interrupted".into())?;
                let whole = transmit.bytes == head && transmit.handles.len() == message.descriptors;
                ensure(whole, || "other bytes".into())?;
            }
            Err(_) => {
                ledger.assert_settled();
                ensure(after.backend == self.backend, || "misuse changes something".into())?;
                return Ok(None);
            }
        }
        let awaited = usize::from(message.reply != Reply::Nothing);
        ensure(after.backend.outstanding() == self.backend.outstanding() + awaited, || "awaited or not".into())?;
        after.requests.push(number);
        Ok(Some(after))
    }

    fn answers(&self, message: &Message, refuses: bool) -> Result<Self, String> {
        let ledger = Ledger::new();
        let (mut after, mut out) = (self.clone(), buffer());
        after.requests.remove(0);
        let head = message.head();
        let request = after.frontend.handle_request(frame(&head, &ledger, message.descriptors));
        drop(request.map_err(|rejection| format!("the front-end rejects {}: {rejection}", message.name))?);
        let pending = after.frontend.clone();
        let second = after.frontend.handle_request(frame(&head, &ledger, message.descriptors));
        ensure(second.is_err_and(|rejection| rejection.verdict() == Verdict::Misuse), || "two at once".into())?;
        ensure(after.frontend == pending, || "misuse changes something".into())?;
        let info = DisplayInfo::new(&[]);
        let edid = Edid::new(&message::edid_data()).unwrap();
        let answer = match (refuses, message.name) {
            (true, _) => GpuReply::<Token>::Refused(NonZeroU64::MIN),
            (_, "GET_DISPLAY_INFO") => GpuReply::GetDisplayInfo(&info),
            (_, "GET_EDID") => GpuReply::GetEdid(&edid),
            _ => after.frontend.own_answer().unwrap_or(GpuReply::Done),
        };
        let due = message.reply != Reply::Nothing;
        match after.frontend.answer(answer, &mut out).map_err(|misuse| misuse.to_string())? {
            Answered::Send(transmit) => {
                ensure(due, || "an answer where none is due".into())?;
                after.replies.push(transmit.bytes.to_vec());
            }
            Answered::Silent => ensure(!due, || "silence where an answer is due".into())?,
            Answered::Close => return Err("closed".into()),
        }
        if refuses {
            ensure(after.frontend == self.frontend, || "a refusal changes something".into())?;
        }
        ledger.assert_settled();
        if self.loses {
            after.replies.clear();
        }
        Ok(after)
    }

    fn hears(&self) -> Result<Self, String> {
        let mut after = self.clone();
        let told = after.replies.remove(0);
        let heard = after.backend.handle_reply(frame(&told, &Ledger::new(), 0));
        match heard {
            Ok(_) => Ok(after),
            Err(fault) => Err(format!("the back-end does not take the answer: {fault}")),
        }
    }

    /// Answers that nobody asked for end the channel, and what has failed stays so.
    fn nonsense(&self) -> Result<(), String> {
        for told in [reply(99, &[]), message("GET_EDID").head()] {
            let ledger = Ledger::new();
            let mut backend = self.backend.clone();
            ensure(backend.handle_reply(frame(&told, &ledger, 1)).is_err(), || format!("{told:?} is taken"))?;
            ledger.assert_settled();
            let failed = backend.clone();
            let asked = backend.request(GpuRequest::<Token>::GetDisplayInfo, &mut buffer()).map(drop);
            let heard = backend.handle_reply(frame(&told, &ledger, 0)).map(drop);
            let dead = asked == Err(ApiMisuse::SessionFailed)
                && heard == Err(Fault::Caller(ApiMisuse::SessionFailed))
                && backend == failed
                && backend.has_failed();
            ensure(dead, || "it goes on after a failure".into())?;
            let mut frontend = self.frontend.clone();
            let told = reply(3, &[]);
            let asked = frontend.handle_request(frame(&told, &ledger, 1));
            ensure(asked.is_err_and(|rejection| rejection.verdict() == Verdict::Close), || "a reply asks".into())?;
            ensure(frontend.has_failed(), || "closed and not failed".into())?;
        }
        Ok(())
    }
}

impl Model for Joined {
    type Step = Step;

    fn successors(&self) -> Result<Vec<(Step, Self)>, String> {
        let messages = message::all();
        let mut all = Vec::new();
        self.nonsense()?;
        if self.requests.is_empty() && self.replies.is_empty() {
            ensure(self.backend.outstanding() == 0, || "the back-end waits in vain".into())?;
            let known = self.frontend.acknowledged() == self.backend.acknowledged();
            // A front-end may refuse an acknowledgement, and cannot tell it.
            ensure(known || self.frontend.acknowledged().is_empty(), || "they are not of one mind".into())?;
        }
        if self.requests.len() < 2 {
            for (number, message) in messages.iter().enumerate() {
                let asked = self.asks(number, message).map_err(|reason| format!("{}: {reason}", message.name))?;
                all.extend(asked.map(|after| (Step::Asks(number), after)));
            }
        }
        if self.backend.image_left() > 0 {
            let mut after = self.clone();
            let left = usize::try_from(self.backend.image_left()).unwrap();
            ensure(after.backend.image_sent(left + 1).is_err(), || "too long an image".into())?;
            ensure(after.backend == self.backend, || "misuse changes something".into())?;
            after.backend.image_sent(left).map_err(|misuse| misuse.to_string())?;
            all.push((Step::SendsImage, after));
        }
        if let Some(number) = self.requests.first() {
            let message = &messages[*number];
            // Whoever refuses features has none that could be used: what is asked later is refused, too.
            let refusable = message.name != "SET_PROTOCOL_FEATURES";
            all.push((Step::Shows, self.answers(message, false)?));
            if refusable {
                all.push((Step::Refuses, self.answers(message, true)?));
            }
        }
        if !self.replies.is_empty() {
            all.push((Step::Hears, self.hears()?));
        }
        Ok(all)
    }

    fn is_finished(&self) -> bool {
        false
    }

    fn sometimes(&self, note: &mut dyn FnMut(&'static str)) {
        let mut fact = |holds, name| {
            if holds {
                note(name);
            }
        };
        fact(self.backend.outstanding() == 2, "two requests wait");
        fact(self.backend.image_left() > 0, "an image is on its way");
        fact(self.frontend.acknowledged() == GpuFeatures::KNOWN, "features are acknowledged");
        fact(self.replies.len() == 2, "two answers are on their way");
    }
}

#[test]
fn every_state_of_the_joined_machines() {
    let report = explore(Joined::new());
    println!("gpu, joined: {} states", report.states);
    assert_eq!(report.outcome, Outcome::Holds, "{:#?}", report.trace);
    assert_eq!(report.states, 15477);
    let facts =
        ["an image is on its way", "features are acknowledged", "two answers are on their way", "two requests wait"];
    assert_eq!(report.seen, facts);
}

#[test]
fn a_lost_answer_is_noticed() {
    let report = explore(Joined { loses: true, ..Joined::new() });
    let last = report.trace.last().unwrap();
    assert!(report.outcome == Outcome::Broken && last.starts_with("the back-end waits in vain"), "{last}");
}
