//! Two machines whose back-end channel is open.

use core::num::NonZeroU64;
use vhost_core::wire::header::Header;
use vhost_core::{
    Answered, Backend, BackendConfig, BackendReply, BackendRequest, Delivery, Dialect, Frame, Frontend, FrontendConfig,
    FrontendReply, FrontendRequest, Handles, Incoming, MAX_MESSAGE, ProtocolFeatures, Rejection, ShmemBit, Verdict,
    VirtioFeatures,
};
use vhost_tests::tracked::{Ledger, Token};

pub(crate) type FrontendMachine = Frontend<2, 8, 8>;
pub(crate) type BackendMachine = Backend<2, 8, 8>;

/// What the dialects need.
pub(crate) const NEEDED: ProtocolFeatures = ProtocolFeatures::BACKEND_REQ.union(ProtocolFeatures::BACKEND_SEND_FD);

/// A channel on which no descriptor may be sent, and acknowledgements.
pub(crate) const WITHOUT_DESCRIPTORS: ProtocolFeatures =
    ProtocolFeatures::BACKEND_REQ.union(ProtocolFeatures::REPLY_ACK);

/// What they need, acknowledgements, and what gates the standard requests.
pub(crate) const EVERYTHING: ProtocolFeatures = NEEDED
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::INBAND_NOTIFICATIONS)
    .union(ProtocolFeatures::SHARED_OBJECT)
    .union(ProtocolFeatures::SHMEM);

/// What the front-end's side makes of a message of the back-end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was handed on and answered so.
    Granted(Option<Vec<u8>>),
    /// It was refused and answered so.
    Refused(Option<Vec<u8>>),
}

/// The frame of these bytes.
pub(crate) fn frame<'b>(bytes: &'b [u8], ledger: &Ledger, descriptors: usize) -> Frame<'b, Token> {
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let handles = ledger.tokens(descriptors).into_iter().collect();
    Frame { header: Header::new(word(0), word(4), word(8)), payload: &bytes[12..], handles }
}

/// Both machines after a bring-up in which everything that is offered was acknowledged.
pub(crate) fn session(dialect: Dialect, protocol: ProtocolFeatures) -> (FrontendMachine, BackendMachine) {
    let mut frontend = FrontendConfig::new(2);
    let mut backend = BackendConfig::new(VirtioFeatures::VERSION_1, protocol, 2);
    (frontend.dialect, backend.dialect) = (dialect, dialect);
    bring_up(frontend, backend)
}

/// The same where the peers mean the same bit by SHMEM.
pub(crate) fn session_with_bit(bit: ShmemBit, protocol: ProtocolFeatures) -> (FrontendMachine, BackendMachine) {
    let mut frontend = FrontendConfig::new(2);
    let mut backend = BackendConfig::new(VirtioFeatures::VERSION_1, protocol, 2);
    (frontend.tolerance.shmem_bit, backend.tolerance.shmem_bit) = (bit, bit);
    bring_up(frontend, backend)
}

fn bring_up(frontend: FrontendConfig, backend: BackendConfig) -> (FrontendMachine, BackendMachine) {
    let ledger = Ledger::new();
    let (mut frontend, mut backend) = (FrontendMachine::new(frontend), BackendMachine::new(backend));
    tell(&mut frontend, &mut backend, FrontendRequest::GetFeatures);
    tell(&mut frontend, &mut backend, FrontendRequest::GetProtocolFeatures);
    let negotiated = *frontend.session().negotiated();
    tell(&mut frontend, &mut backend, FrontendRequest::SetProtocolFeatures(negotiated.protocol_offered));
    tell(&mut frontend, &mut backend, FrontendRequest::SetFeatures(negotiated.offered));
    if negotiated.protocol_offered.contains(ProtocolFeatures::BACKEND_REQ) {
        tell(&mut frontend, &mut backend, FrontendRequest::SetBackendReqFd(ledger.token()));
    }
    ledger.assert_settled();
    assert_eq!(frontend.session(), backend.session());
    (frontend, backend)
}

/// A front-end request that the back-end grants; the bytes of the request.
pub(crate) fn tell(
    frontend: &mut FrontendMachine,
    backend: &mut BackendMachine,
    request: FrontendRequest<'_, Token>,
) -> Vec<u8> {
    let (mut out, mut back) = ([0; MAX_MESSAGE], [0; MAX_MESSAGE]);
    let asked = frontend.request(request, Delivery::Unacknowledged, &mut out).unwrap();
    let bytes = asked.bytes.to_vec();
    let incoming = Frame { handles: asked.handles, ..frame(&bytes, &Ledger::new(), 0) };
    let Incoming::Request(request) = backend.handle_request(incoming).unwrap() else { panic!("no request") };
    drop(request);
    let reply = backend.own_answer().unwrap_or(FrontendReply::Done);
    if let Answered::Send(answer) = backend.answer::<Token>(reply, &mut back).unwrap() {
        let answer = answer.bytes.to_vec();
        frontend.handle_reply(frame(&answer, &Ledger::new(), 0)).unwrap();
    }
    bytes
}

/// Hands a message of the back-end to the front-end, which answers what it takes with `reply` and refuses the rest.
pub(crate) fn deliver<'b>(
    frontend: &mut FrontendMachine,
    frame: Frame<'b, Token>,
    reply: BackendReply<Token>,
    look: impl FnOnce(BackendRequest<'b, Token>),
) -> (Outcome, Option<Rejection>) {
    let mut out = [0; MAX_MESSAGE];
    let (reply, rejection) = match frontend.handle_request(frame) {
        Ok(request) => {
            look(request);
            (reply, None)
        }
        Err(rejection) => {
            assert_eq!(rejection.verdict(), Verdict::Refuse, "{rejection}");
            (BackendReply::Refused(NonZeroU64::MIN), Some(rejection))
        }
    };
    let sent = match frontend.answer_backend(reply, &mut out).unwrap() {
        Answered::Send(transmit) => Some(transmit.bytes.to_vec()),
        Answered::Silent => None,
        Answered::Close => panic!("no reason to close"),
    };
    (if rejection.is_some() { Outcome::Refused(sent) } else { Outcome::Granted(sent) }, rejection)
}

/// A request of the back-end as bytes, and how many descriptors go with it.
pub(crate) fn ask(
    backend: &mut BackendMachine,
    request: BackendRequest<'_, Token>,
) -> Result<(Vec<u8>, Handles<Token>), vhost_core::ApiMisuse> {
    let before = backend.clone();
    let mut out = [0; MAX_MESSAGE];
    let result = backend.request(request, Delivery::Unacknowledged, &mut out);
    let result = result.map(|transmit| (transmit.bytes.to_vec(), transmit.handles));
    if result.is_err() {
        assert_eq!(*backend, before, "misuse changes nothing");
    }
    result
}

/// The acknowledgement of a back-end request as bytes.
pub(crate) fn acknowledgement(id: u32, number: u64) -> Vec<u8> {
    [&vhost_tests::wire::header(id, 5, 8)[..], &number.to_ne_bytes()].concat()
}
