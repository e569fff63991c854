//! The GPU channel of a recorded session: QEMU shows what its vhost-user-gpu draws.

use crate::codec::frame;
use vhost_core::wire::payload::Form;
use vhost_core::{
    Answered, Assembler, Channel, GpuBackend, GpuBackendConfig, GpuFeatures, GpuFrontend, GpuFrontendConfig, GpuReply,
    GpuRequest, MAX_MESSAGE, ProtocolFeatures,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::vectors::{self, Direction, Message};
use vhost_tests::wire;

const REQUEST: Form = Form::request(ProtocolFeatures::empty());

/// Header and payload; what the recorder left out of a payload is zeros up to `limit` bytes of it.
fn bytes(message: &Message, limit: usize) -> Vec<u8> {
    let header = message.header;
    let mut payload = message.payload.clone();
    payload.resize(limit.min(usize::try_from(header.size).unwrap()), 0);
    [&wire::header(header.request, header.flags, header.size), &payload[..]].concat()
}

/// What a message is without its image.
fn head(message: &Message) -> Vec<u8> {
    let limit = if message.plain_name() == "UPDATE" { 20 } else { usize::MAX };
    bytes(message, limit)
}

#[test]
fn both_machines_take_the_session_in_its_order_and_write_the_same_bytes() {
    let session = vectors::session("qemu-gpu");
    let mut backend = GpuBackend::<4>::new(GpuBackendConfig::new(1));
    let mut frontend = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::KNOWN, 1));
    let ledger = Ledger::new();
    let mut from_backend = Assembler::<Token>::new(Channel::Gpu);
    let (mut messages, mut pixels) = (0, 0_u64);
    for (_, message) in session.messages(vectors::Channel::Gpu) {
        let title = format!("{}, message {messages}", message.name);
        messages += 1;
        let head = head(message);
        let mut out = [0; MAX_MESSAGE];
        match message.direction {
            Direction::BackendToFrontend => {
                // The stream as the front-end reads it.
                let mut rest = &head[..];
                while !from_backend.is_whole() {
                    let buffer = from_backend.read_buf();
                    let count = buffer.len();
                    buffer.copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    from_backend.filled(count, []).unwrap();
                }
                assert!(rest.is_empty(), "{title}");

                // The back-end says the same.
                let request = GpuRequest::decode(frame(&head, &ledger, 0), REQUEST).unwrap();
                let transmit = backend.request(request, &mut out).unwrap_or_else(|misuse| panic!("{title}: {misuse}"));
                assert_eq!(transmit.bytes, head, "{title}");
                let image = backend.image_left();
                assert_eq!(usize::try_from(image).unwrap() + head.len() - 12, message.header.size as usize, "{title}");
                backend.image_sent(image as usize).unwrap();

                let request = frontend.handle_request(from_backend.take().unwrap());
                let request = request.unwrap_or_else(|rejection| panic!("{title}: {rejection}"));
                assert_eq!(request.image_bytes(), from_backend.image_left(), "{title}");
                if let GpuRequest::Update(update) = request {
                    assert_eq!((update.area().width(), update.area().height()), (1280, 800), "{title}");
                    pixels += u64::from(update.bytes());
                    from_backend.image_read(update.bytes() as usize);
                }
                assert!(from_backend.is_between_messages());
                if backend.outstanding() == 0 {
                    assert_eq!(frontend.answer::<Token>(GpuReply::Done, &mut out), Ok(Answered::Silent), "{title}");
                }
            }
            Direction::FrontendToBackend => {
                let mut again = [0; MAX_MESSAGE];
                let reply = backend.handle_reply(frame(&head, &ledger, 0));
                let reply = reply.unwrap_or_else(|fault| panic!("{title}: {fault}"));
                match &reply {
                    GpuReply::GetDisplayInfo(info) => {
                        let on = Vec::from_iter(info.displays().filter(|display| display.enabled));
                        assert_eq!(on.len(), 1);
                        assert_eq!((on[0].width, on[0].height), (1280, 800));
                    }
                    GpuReply::GetEdid(edid) => {
                        assert_eq!(edid.data()[..8], [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
                        assert_eq!(edid.data().len(), 1024);
                    }
                    GpuReply::GetProtocolFeatures(features) => assert_eq!(*features, GpuFeatures::KNOWN),
                    _ => panic!("{title}"),
                }
                let answered = frontend.answer(reply, &mut again).unwrap_or_else(|misuse| panic!("{title}: {misuse}"));
                let Answered::Send(transmit) = answered else { panic!("{title}") };
                assert_eq!(transmit.bytes, head, "{title}");
            }
        }
    }
    assert_eq!((messages, pixels), (17, 8 * 4 * 1280 * 800));
    assert_eq!((backend.outstanding(), backend.acknowledged()), (0, GpuFeatures::KNOWN));
    assert_eq!(frontend.acknowledged(), GpuFeatures::KNOWN);
    ledger.assert_settled();
}
