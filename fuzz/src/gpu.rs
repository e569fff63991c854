//! Operations on both machines of the GPU channel, with peers that say anything.

use core::num::NonZeroU64;

use vhost_core::{
    Fault, Form, Frame, GpuBackend, GpuBackendConfig, GpuFeatures, GpuFrontend, GpuFrontendConfig, GpuReply,
    GpuRequest, Handles, MAX_MESSAGE, ProtocolFeatures, Verdict, wire::header::Header,
};

use crate::{reader::Reader, token::Token};

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(scanouts) = reader.byte() else { return };
    let mut asking = GpuBackend::<4>::new(GpuBackendConfig::new(scanouts & 0x1f));
    let features = GpuFeatures::from_bits_retain(reader.number());
    let mut answering = GpuFrontend::new(GpuFrontendConfig::new(features, scanouts & 0x1f));
    let mut out = [0; MAX_MESSAGE];
    while let (Some(operation), Some(id), Some(size)) = (reader.byte(), reader.byte(), reader.byte()) {
        let before = (asking.clone(), answering.clone());
        let handles: Handles<Token> = (0..operation >> 4).take(8).map(|_| Token::new()).collect();
        let payload = reader.take(usize::from(size) * 5);
        let id = u32::from(id & 0xf);
        let size = u32::try_from(payload.len()).expect("inputs are short");
        let frame = |flags| Frame { header: Header::new(id, flags, size), payload, handles };
        match operation & 7 {
            0 | 1 => {
                let form = Form::request(ProtocolFeatures::empty());
                let Ok(request) = GpuRequest::decode(frame(0), form) else { continue };
                if asking.request(request, &mut out).is_err() {
                    assert_eq!(asking, before.0, "misuse changes nothing");
                }
            }
            2 => {
                if asking.image_sent(usize::try_from(reader.number()).unwrap_or(usize::MAX)).is_err() {
                    assert_eq!(asking, before.0, "misuse changes nothing");
                }
            }
            3 | 4 => match asking.handle_reply(frame(4)) {
                Ok(_) => {}
                Err(Fault::Caller(_)) => assert!(before.0.has_failed()),
                Err(_) => assert!(asking.has_failed()),
            },
            5 => match answering.handle_request(frame(u32::from(operation >> 3 & 1))) {
                Ok(_) => {}
                Err(rejection) if rejection.verdict() == Verdict::Misuse => assert_eq!(answering, before.1),
                Err(_) => assert_eq!(answering.acknowledged(), before.1.acknowledged()),
            },
            _ => {
                let reply = match operation & 8 {
                    0 => answering.own_answer::<Token>().unwrap_or(GpuReply::Done),
                    _ => GpuReply::Refused(NonZeroU64::MIN),
                };
                if answering.answer(reply, &mut out).is_err() {
                    assert_eq!(answering, before.1, "misuse changes nothing");
                }
            }
        }
        assert!(asking.has_failed() >= before.0.has_failed() && answering.has_failed() >= before.1.has_failed());
    }
}
