//! Operations on a front-end's machine, with a peer that says anything: misuse changes nothing, a refused request neither,
//! and a failed machine stays failed.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, BackendReply, Delivery, Fault, Form, Frame, Frontend, FrontendCode, FrontendConfig, FrontendRequest,
    Handles, MAX_MESSAGE, ProtocolFeatures, Verdict, VirtioFeatures, wire::header::Header,
};

use crate::{reader::Reader, token::Token};

type Machine = Frontend<4, 16, 4>;

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let mut machine = Machine::new(FrontendConfig::new(4));
    machine.assume_offer(
        VirtioFeatures::from_bits_retain(reader.number()) | VirtioFeatures::PROTOCOL_FEATURES,
        ProtocolFeatures::KNOWN,
    );
    let mut out = [0; MAX_MESSAGE];
    while let (Some(operation), Some(id), Some(size)) = (reader.byte(), reader.byte(), reader.byte()) {
        let before = machine.clone();
        let handles: Handles<Token> = (0..operation >> 4).take(8).map(|_| Token::new()).collect();
        let payload = reader.take(size.into());
        let id = u32::from(id & 0x3f);
        let size = u32::try_from(payload.len()).expect("a byte's worth");
        match operation & 7 {
            0..=2 => {
                let form = Form::request(machine.session().negotiated().protocol);
                let frame = Frame { header: Header::request_of(id, false, size), payload, handles };
                let Ok(request) = FrontendRequest::decode(frame, form) else { continue };
                let delivery = if operation & 8 == 0 { Delivery::Acknowledged } else { Delivery::Unacknowledged };
                if machine.request(request, delivery, &mut out).is_err() {
                    assert_eq!(machine, before, "misuse changes nothing");
                }
            }
            3 | 4 => {
                let frame = Frame { header: Header::reply_to(id, size), payload, handles };
                match machine.handle_reply(frame) {
                    Ok(_) => {}
                    Err(Fault::Caller(_)) => assert!(before.has_failed()),
                    Err(_) => assert!(machine.has_failed()),
                }
            }
            5 => {
                let frame = Frame { header: Header::request_of(id, operation & 8 != 0, size), payload, handles };
                match machine.handle_request(frame) {
                    Ok(_) => {}
                    Err(rejection) if rejection.verdict() == Verdict::Misuse => assert_eq!(machine, before),
                    Err(_) => assert_eq!(machine.session(), before.session()),
                }
            }
            6 => {
                let reply =
                    if operation & 8 == 0 { BackendReply::Done } else { BackendReply::Refused(NonZeroU64::MIN) };
                match machine.answer_backend::<Token>(reply, &mut out) {
                    Ok(Answered::Send(_) | Answered::Silent | Answered::Close) => {}
                    Err(_) => assert_eq!(machine, before, "misuse changes nothing"),
                }
            }
            _ => {
                if machine.acknowledge_postcopy_memory::<Token>(FrontendCode(id), &mut out).is_err() {
                    assert_eq!(machine, before, "misuse changes nothing");
                }
            }
        }
        assert!(machine.has_failed() >= before.has_failed(), "a failed machine stays failed");
    }
}
