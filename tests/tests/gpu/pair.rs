//! Both machines joined: every state they can reach with a few requests and any timing.

use crate::codec::frame;
use core::num::NonZeroU64;
use std::collections::{HashSet, VecDeque};
use vhost_core::wire::gpu::{Area, AreaImage, DisplayInfo, Edid, Scanout, ScanoutId};
use vhost_core::{
    Answered, GpuBackend, GpuBackendConfig, GpuCode, GpuFeatures, GpuFrontend, GpuFrontendConfig, GpuReply, GpuRequest,
    MAX_MESSAGE, Verdict,
};
use vhost_tests::tracked::{Ledger, Token};

/// Messages that are under way in each direction.
const WIRE: usize = 2;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Pair {
    backend: GpuBackend<2>,
    frontend: GpuFrontend,
    /// The request that the front-end's display works on.
    taken: Option<GpuCode>,
    requests: VecDeque<Vec<u8>>,
    replies: VecDeque<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(usize),
    SendImage,
    Take,
    Grant,
    Refuse,
    Hear,
}

fn requests() -> Vec<GpuRequest<Token>> {
    vec![
        GpuRequest::GetProtocolFeatures,
        GpuRequest::SetProtocolFeatures(GpuFeatures::EDID),
        GpuRequest::SetProtocolFeatures(GpuFeatures::empty()),
        GpuRequest::GetDisplayInfo,
        GpuRequest::GetEdid(ScanoutId::new(0)),
        GpuRequest::GetEdid(ScanoutId::new(1)),
        GpuRequest::DmabufUpdate(Area::new(0, 0, 0, 1, 1)),
        GpuRequest::DmabufUpdate(Area::new(1, 0, 0, 1, 1)),
        GpuRequest::Scanout(Scanout::new(0, 4, 4)),
        GpuRequest::Update(AreaImage::new(Area::new(0, 0, 0, 1, 1)).unwrap()),
    ]
}

impl Pair {
    /// The front-end has one scanout less than the back-end believes.
    fn new() -> Self {
        Self {
            backend: GpuBackend::new(GpuBackendConfig::new(2)),
            frontend: GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::EDID, 1)),
            taken: None,
            requests: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    /// The pair after a step; `None` if the step is not possible now.
    fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        let mut out = [0; MAX_MESSAGE];
        match step {
            Step::Ask(_) if self.requests.len() == WIRE => return None,
            Step::Ask(which) => {
                let request = requests().swap_remove(which);
                let Ok(transmit) = next.backend.request(request, &mut out) else {
                    assert!(next == *self, "misuse changes nothing");
                    return None;
                };
                next.requests.push_back(transmit.bytes.to_vec());
            }
            Step::SendImage if self.backend.image_left() == 0 => return None,
            Step::SendImage => next.backend.image_sent(4).unwrap(),
            Step::Take if self.taken.is_some() => return None,
            Step::Take => {
                let bytes = next.requests.pop_front()?;
                match next.frontend.handle_request(frame(&bytes, &Ledger::new(), 0)) {
                    Ok(request) => next.taken = Some(request.code()),
                    Err(rejection) => {
                        assert_eq!(rejection.verdict(), Verdict::Refuse, "{rejection}");
                        next.answer(GpuReply::Refused(NonZeroU64::MIN));
                    }
                }
            }
            Step::Grant => {
                let (info, edid) = (DisplayInfo::new(&[]), Edid::new(&[]).unwrap());
                let reply = match self.taken? {
                    GpuCode::GET_PROTOCOL_FEATURES => next.frontend.own_answer().unwrap(),
                    GpuCode::GET_DISPLAY_INFO => GpuReply::GetDisplayInfo(&info),
                    GpuCode::GET_EDID => GpuReply::GetEdid(&edid),
                    _ => GpuReply::Done,
                };
                next.answer(reply);
            }
            Step::Refuse => {
                self.taken?;
                next.answer(GpuReply::Refused(NonZeroU64::MIN));
            }
            Step::Hear => {
                let bytes = next.replies.pop_front()?;
                next.backend.handle_reply(frame(&bytes, &Ledger::new(), 0)).unwrap();
            }
        }
        Some(next)
    }

    fn answer(&mut self, reply: GpuReply<'_, Token>) {
        let mut out = [0; MAX_MESSAGE];
        match self.frontend.answer(reply, &mut out).unwrap() {
            Answered::Send(transmit) => self.replies.push_back(transmit.bytes.to_vec()),
            Answered::Silent => {}
            Answered::Close => panic!("nothing is worth closing for"),
        }
        self.taken = None;
    }
}

/// Replies that are under way or to come.
fn due(pair: &Pair) -> usize {
    let answered = |id: u32| matches!(id, 1 | 3 | 10 | 11);
    let ids = pair.requests.iter().map(|bytes| u32::from_ne_bytes(bytes[..4].try_into().unwrap()));
    let coming = ids.chain(pair.taken.map(|code| code.0)).filter(|id| answered(*id)).count();
    coming + pair.replies.len()
}

#[test]
fn whatever_the_timing_every_question_has_exactly_one_answer() {
    let steps = [Step::SendImage, Step::Take, Step::Grant, Step::Refuse, Step::Hear];
    let steps = Vec::from_iter((0..requests().len()).map(Step::Ask).chain(steps));
    let mut seen = HashSet::from([Pair::new()]);
    let mut open = VecDeque::from([Pair::new()]);
    let (mut agreed, mut disagreed) = (0, 0);
    while let Some(pair) = open.pop_front() {
        assert!(!pair.backend.has_failed() && !pair.frontend.has_failed());
        assert_eq!(pair.backend.outstanding(), due(&pair));
        if pair.requests.is_empty() && pair.taken.is_none() {
            // An acknowledgement that the front-end refuses is not told to anybody.
            let same = pair.backend.acknowledged() == pair.frontend.acknowledged();
            *if same { &mut agreed } else { &mut disagreed } += 1;
        }
        let next = Vec::from_iter(steps.iter().filter_map(|step| pair.after(*step)));
        assert!(!next.is_empty(), "somebody can always do something");
        for pair in next {
            if seen.insert(pair.clone()) {
                open.push_back(pair);
            }
        }
    }
    assert_eq!((seen.len(), agreed, disagreed), (55606, 568, 552));
}
