//! Operations on both machines of the GPU channel, with peers that say anything.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, Fault, Form, GpuBackend, GpuBackendConfig, GpuCode, GpuFeatures, GpuFrontend, GpuFrontendConfig,
    GpuReply, GpuRequest, MAX_MESSAGE, ProtocolFeatures, Verdict,
    wire::{header::REPLY, row::ReplyRule},
};

use crate::{
    message::{Message, assert_answers},
    reader::Reader,
    token::Token,
};

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(scanouts) = reader.byte() else { return };
    let mut asking = GpuBackend::<4>::new(GpuBackendConfig::new(scanouts & 0x1f));
    let features = GpuFeatures::from_bits_retain(reader.number());
    let mut answering = GpuFrontend::new(GpuFrontendConfig::new(features, scanouts & 0x1f));
    let mut out = [0; MAX_MESSAGE];
    // What waits for its answer.
    let mut asked = None;
    while let Some(operation) = reader.byte() {
        let before = (asking.clone(), answering.clone());
        match operation & 7 {
            0 | 1 => {
                let Some(message) = Message::read(&mut reader, operation) else { return };
                let form = Form::request(ProtocolFeatures::empty());
                let Ok(request) = GpuRequest::decode(message.with_flags(0), form) else { continue };
                if asking.request(request, &mut out).is_err() {
                    assert_eq!(asking, before.0, "misuse changes nothing");
                }
            }
            2 => {
                if asking.image_sent(usize::try_from(reader.number()).unwrap_or(usize::MAX)).is_err() {
                    assert_eq!(asking, before.0, "misuse changes nothing");
                }
            }
            3 | 4 => {
                let Some(message) = Message::read(&mut reader, operation) else { return };
                match asking.handle_reply(message.with_flags(REPLY)) {
                    Ok(_) => {}
                    Err(Fault::Caller(_)) => assert!(before.0.has_failed()),
                    Err(_) => assert!(asking.has_failed()),
                }
            }
            5 => {
                let Some(message) = Message::read(&mut reader, operation) else { return };
                match answering.handle_request(message.with_flags(u32::from(operation >> 3 & 1))) {
                    Ok(_) => asked = Some(message.id),
                    Err(rejection) => {
                        assert_eq!(answering.acknowledged(), before.1.acknowledged());
                        match rejection.verdict() {
                            Verdict::Misuse => assert_eq!(answering, before.1, "misuse changes nothing"),
                            Verdict::Refuse => asked = Some(message.id),
                            Verdict::Close => assert!(answering.has_failed()),
                        }
                    }
                }
            }
            _ => {
                let refused = operation & 8 != 0;
                let reply = match operation & 8 {
                    0 => answering.own_answer::<Token>().unwrap_or(GpuReply::Done),
                    _ => GpuReply::Refused(NonZeroU64::MIN),
                };
                match answering.answer(reply, &mut out) {
                    Ok(answered) => {
                        let id = asked.take().expect("only a question is answered");
                        let unchanged = answering.acknowledged() == before.1.acknowledged();
                        assert!(!refused || unchanged, "a refused request changes nothing");
                        let rule = GpuCode(id).row().map(|row| row.reply);
                        let is_due = !matches!(rule, None | Some(ReplyRule::Never));
                        assert_eq!(matches!(answered, Answered::Send(_)), is_due, "one answer where one is due");
                        if let Answered::Send(message) = answered {
                            assert_answers(message.bytes, id, REPLY);
                        }
                    }
                    Err(_) => assert_eq!(answering, before.1, "misuse changes nothing"),
                }
            }
        }
        assert!(asking.has_failed() >= before.0.has_failed() && answering.has_failed() >= before.1.has_failed());
    }
}
