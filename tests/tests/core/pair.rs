//! Both machines joined in memory, with a device that does whatever it is asked.

use crate::machines::{Back, Front, Packet, Reaction, agree, buffer, pour};
use core::num::NonZeroU64;
use std::collections::VecDeque;
use vhost_core::wire::config::Config;
use vhost_core::wire::row::ReplyRule;
use vhost_core::wire::shared::SharedMemoryConfig;
use vhost_core::wire::vring::VringState;
use vhost_core::{
    ApiMisuse, Assembler, BackendReply, BackendRequest, Channel, Delivery, FrontendCode, FrontendReply,
    FrontendRequest, Incoming, Postcopy,
};
use vhost_tests::tracked::{Ledger, Token};

/// What the device's configuration space holds, over and over.
const CONFIG: [u8; 8] = [0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8];

/// Two machines, the messages between them, and what they heard.
pub(crate) struct Pair {
    pub(crate) front: Front,
    pub(crate) back: Back,
    pub(crate) ledger: Ledger,
    /// What either side was told, in words.
    pub(crate) events: Vec<String>,
    /// Where every message is cut.
    cuts: Vec<usize>,
    /// Whether the device refuses what it is asked, where the answer can tell it.
    pub(crate) refusing: bool,
    main: [Line; 2],
    backend: [Line; 2],
}

/// One direction of a socket.
struct Line {
    sent: VecDeque<Packet>,
    assembler: Assembler<Token>,
}

impl Line {
    fn new(channel: Channel) -> Self {
        Self { sent: VecDeque::new(), assembler: Assembler::new(channel) }
    }
}

impl Pair {
    /// Two machines that have said nothing; all their messages are cut at these places.
    pub(crate) fn new(front: Front, back: Back, cuts: &[usize]) -> Self {
        Self {
            front,
            back,
            ledger: Ledger::new(),
            events: Vec::new(),
            cuts: cuts.to_vec(),
            refusing: false,
            main: [Line::new(Channel::Frontend), Line::new(Channel::Frontend)],
            backend: [Line::new(Channel::Backend), Line::new(Channel::Backend)],
        }
    }

    /// The front-end sends a request, if it may.
    pub(crate) fn try_send(
        &mut self,
        request: FrontendRequest<'_, Token>,
        delivery: Delivery,
    ) -> Result<(), ApiMisuse> {
        let mut out = buffer();
        let transmit = self.front.request(request, delivery, &mut out)?;
        self.main[0].sent.push_back(Packet::from_transmit(transmit));
        Ok(())
    }

    /// The front-end sends a request, and everything is heard.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: FrontendRequest<'_, Token>) {
        self.try_send(request, Delivery::Acknowledged).unwrap();
        self.run();
    }

    /// The front-end says that it has registered the addresses of postcopy, and that is heard.
    #[track_caller]
    pub(crate) fn acknowledge_postcopy(&mut self, code: FrontendCode) {
        let mut out = buffer();
        let transmit = self.front.acknowledge_postcopy_memory(code, &mut out).unwrap();
        self.main[0].sent.push_back(Packet::from_transmit(transmit));
        self.run();
    }

    /// The back-end sends a request, and everything is heard.
    #[track_caller]
    pub(crate) fn ask_back(&mut self, request: BackendRequest<Token>, delivery: Delivery) {
        let mut out = buffer();
        let transmit = self.back.request(request, delivery, &mut out).unwrap();
        self.backend[0].sent.push_back(Packet::from_transmit(transmit));
        self.run();
    }

    /// Lets both sides hear and answer until all lines are empty; then they are of one mind.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        while self.back_hears() || self.front_hears() || self.front_is_asked() || self.back_is_told() {}
        assert_eq!((self.front.outstanding(), self.back.outstanding()), (0, 0), "{:#?}", self.events);
        assert!(agree(self.front.session(), self.back.session()), "{:#?}", self.events);
    }

    /// The back-end takes a message and answers.
    #[track_caller]
    pub(crate) fn back_hears(&mut self) -> bool {
        let [requests, replies] = &mut self.main;
        let Some(Packet { bytes, handles }) = requests.sent.pop_front() else { return false };
        let frame = pour(&mut requests.assembler, &bytes, handles, &self.cuts).unwrap().unwrap();
        let incoming = self.back.handle_request(frame);
        self.events.push(format!("back-end: {incoming:?}"));
        let reply = match incoming {
            Ok(Incoming::PostcopyMemoryMapped) => return true,
            Ok(Incoming::Request(request)) if !self.refusing || !tells_refusal(&self.back, request.code()) => {
                grant(&self.back, request, &self.ledger)
            }
            _ => FrontendReply::Refused(NonZeroU64::MIN),
        };
        match self.back.answer(reply, &mut buffer()).unwrap().into() {
            Reaction::Sent(packet) => replies.sent.push_back(packet),
            Reaction::Silent => {}
            Reaction::Closed => panic!("closed: {:#?}", self.events),
        }
        true
    }

    /// The front-end takes an answer.
    #[track_caller]
    pub(crate) fn front_hears(&mut self) -> bool {
        let Some(Packet { bytes, handles }) = self.main[1].sent.pop_front() else { return false };
        let frame = pour(&mut self.main[1].assembler, &bytes, handles, &self.cuts).unwrap().unwrap();
        let reply = self.front.handle_reply(frame);
        self.events.push(format!("front-end: {reply:?}"));
        true
    }

    /// The front-end takes a request of the back-end and answers.
    #[track_caller]
    fn front_is_asked(&mut self) -> bool {
        let [requests, replies] = &mut self.backend;
        let Some(Packet { bytes, handles }) = requests.sent.pop_front() else { return false };
        let frame = pour(&mut requests.assembler, &bytes, handles, &self.cuts).unwrap().unwrap();
        let request = self.front.handle_request(frame);
        self.events.push(format!("front-end is asked: {request:?}"));
        let reply = match request {
            Ok(BackendRequest::SharedObjectLookup(_)) if !self.refusing => {
                BackendReply::SharedObjectLookup(0, Some(self.ledger.token()))
            }
            Ok(_) if !self.refusing => BackendReply::Done,
            _ => BackendReply::Refused(NonZeroU64::MIN),
        };
        if let Reaction::Sent(packet) = self.front.answer_backend(reply, &mut buffer()).unwrap().into() {
            replies.sent.push_back(packet);
        }
        true
    }

    /// The back-end takes an answer.
    #[track_caller]
    fn back_is_told(&mut self) -> bool {
        let Some(Packet { bytes, handles }) = self.backend[1].sent.pop_front() else { return false };
        let frame = pour(&mut self.backend[1].assembler, &bytes, handles, &self.cuts).unwrap().unwrap();
        let reply = self.back.handle_reply(frame);
        self.events.push(format!("back-end is told: {reply:?}"));
        true
    }
}

/// Whether the answer to this request is an acknowledgement.
pub(crate) fn tells_refusal(back: &Back, code: FrontendCode) -> bool {
    match code.row().unwrap().reply {
        ReplyRule::Postcopy => back.session().postcopy() == Postcopy::Off,
        rule => matches!(rule, ReplyRule::Acknowledged | ReplyRule::Status),
    }
}

/// The answer of a device that does whatever it is asked.
pub(crate) fn grant<'b>(back: &Back, request: FrontendRequest<'b, Token>, ledger: &Ledger) -> FrontendReply<'b, Token> {
    let in_postcopy = matches!(back.session().postcopy(), Postcopy::Listening | Postcopy::Answered);
    match request {
        FrontendRequest::SetMemTable(table, _) if in_postcopy => FrontendReply::SetMemTable(table),
        FrontendRequest::AddMemReg(region, _) if in_postcopy => FrontendReply::AddMemReg(region),
        FrontendRequest::GetVringBase(state) => FrontendReply::GetVringBase(VringState::new(state.index(), 0x0def)),
        FrontendRequest::GetConfig(config) => {
            let data = CONFIG.get(..config.data.len()).unwrap_or(config.data);
            FrontendReply::GetConfig(Config { data, ..config })
        }
        FrontendRequest::CreateCryptoSession(session) => FrontendReply::CreateCryptoSession(session),
        FrontendRequest::PostcopyAdvise => FrontendReply::PostcopyAdvise(Some(ledger.token())),
        FrontendRequest::GetInflightFd(inflight) => FrontendReply::GetInflightFd(inflight, Some(ledger.token())),
        FrontendRequest::GetSharedObject(_) => FrontendReply::GetSharedObject(Some(ledger.token())),
        FrontendRequest::SetDeviceStateFd(..) => FrontendReply::SetDeviceStateFd(0x100, None),
        FrontendRequest::GetShmemConfig => FrontendReply::GetShmemConfig(SharedMemoryConfig::new(&[0, 0x1000])),
        _ => back.own_answer().unwrap_or(FrontendReply::Done),
    }
}
