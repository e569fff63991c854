//! The back-end's machine: what it may ask when, and what it takes for an answer.

use crate::codec::frame;
use crate::message::{self, Reply, message};
use core::num::NonZeroU64;
use vhost_core::wire::gpu::{
    Area, AreaImage, CursorImage, CursorPosition, DmabufScanout, Response, Scanout, ScanoutId,
};
use vhost_core::{
    ApiMisuse, DecodeError, Fault, GpuBackend, GpuBackendConfig, GpuCode, GpuFeatures, GpuReply, GpuRequest,
    GpuViolation, MAX_MESSAGE, PeerMisbehaved, Violation,
};
use vhost_tests::tracked::{Ledger, Token};

type Backend = GpuBackend<4>;
type Request = GpuRequest<Token>;

fn ask(backend: &mut Backend, request: Request) -> Result<Vec<u8>, ApiMisuse> {
    let before = backend.clone();
    let mut out = [0; MAX_MESSAGE];
    let result = backend.request(request, &mut out).map(|transmit| transmit.bytes.to_vec());
    if result.is_err() {
        assert_eq!(*backend, before, "misuse changes nothing");
    }
    result
}

fn violation(result: Result<Vec<u8>, ApiMisuse>) -> Violation {
    match result {
        Err(ApiMisuse::Violation { violation, .. }) => violation,
        _ => panic!("{result:?}"),
    }
}

fn hear(backend: &mut Backend, bytes: &[u8]) -> Result<Reply, Fault> {
    let reply = backend.handle_reply(frame(bytes, &Ledger::new(), 0));
    reply.map(|_| Reply::Payload(bytes[12..].to_vec()))
}

/// A machine that has both features.
fn negotiated(config: GpuBackendConfig) -> Backend {
    let mut backend = Backend::new(config);
    ask(&mut backend, Request::GetProtocolFeatures).unwrap();
    hear(&mut backend, &message("GET_PROTOCOL_FEATURES").whole_reply().unwrap()).unwrap();
    ask(&mut backend, Request::SetProtocolFeatures(GpuFeatures::KNOWN)).unwrap();
    backend
}

#[test]
fn features_are_offered_then_acknowledged_then_used() {
    let mut backend = Backend::new(GpuBackendConfig::new(2));
    let all = GpuFeatures::KNOWN;
    let not_offered = Violation::Gpu(GpuViolation::FeaturesNotOffered { excess: all });
    assert_eq!(violation(ask(&mut backend, Request::SetProtocolFeatures(all))), not_offered);
    let edid = || Request::GetEdid(ScanoutId::new(0));
    let gate = GpuCode::GET_EDID.row().unwrap().gate;
    assert_eq!(violation(ask(&mut backend, edid())), Violation::NotNegotiated { gate });

    ask(&mut backend, Request::GetProtocolFeatures).unwrap();
    assert_eq!(backend.offered(), GpuFeatures::empty());
    hear(&mut backend, &message::reply(1, &1_u64.to_ne_bytes())).unwrap();
    assert_eq!((backend.offered(), backend.acknowledged()), (GpuFeatures::EDID, GpuFeatures::empty()));
    violation(ask(&mut backend, edid()));
    let excess = GpuFeatures::DMABUF2;
    let not_offered = Violation::Gpu(GpuViolation::FeaturesNotOffered { excess });
    assert_eq!(violation(ask(&mut backend, Request::SetProtocolFeatures(all))), not_offered);
    ask(&mut backend, Request::SetProtocolFeatures(GpuFeatures::EDID)).unwrap();
    assert_eq!(ask(&mut backend, edid()).unwrap().len(), 16);
}

#[test]
fn exactly_four_requests_wait_for_an_answer_and_take_it() {
    let ledger = Ledger::new();
    for message in message::all() {
        let mut backend = negotiated(GpuBackendConfig::new(16));
        let head = message.head();
        let request = Request::decode(
            frame(&head, &ledger, message.descriptors),
            vhost_core::wire::payload::Form::request(vhost_core::ProtocolFeatures::empty()),
        );
        assert_eq!(ask(&mut backend, request.unwrap()).unwrap(), message.head(), "{}", message.name);
        match message.whole_reply() {
            None => {
                assert_eq!(backend.outstanding(), 0, "{}", message.name);
                let answer = message::reply(message.id, &[]);
                let name = GpuCode(message.id).message();
                let unasked = PeerMisbehaved::UnsolicitedReply { message: name };
                assert_eq!(hear(&mut backend, &answer), Err(Fault::Peer(unasked)), "{}", message.name);
            }
            Some(reply) => {
                assert_eq!(backend.outstanding(), 1, "{}", message.name);
                assert_eq!(hear(&mut backend, &reply).unwrap(), message.reply, "{}", message.name);
                assert_eq!(backend.outstanding(), 0, "{}", message.name);
            }
        }
    }
    ledger.assert_settled();
}

#[test]
fn a_scanout_beyond_the_last_is_refused() {
    let position = CursorPosition::new(2, 0, 0);
    let area = Area::new(2, 0, 0, 1, 1);
    let requests = [
        Request::CursorPos(position),
        Request::CursorPosHide(position),
        Request::CursorUpdate(CursorImage::new(2, 0, 0, 0, 0)),
        Request::Scanout(Scanout::new(2, 1, 1)),
        Request::Update(AreaImage::new(area).unwrap()),
        Request::DmabufScanout(DmabufScanout::off(2), None),
        Request::DmabufUpdate(area),
        Request::GetEdid(ScanoutId::new(2)),
    ];
    let mut backend = negotiated(GpuBackendConfig::new(2));
    for request in requests {
        let expected = Violation::Gpu(GpuViolation::Scanout { found: 2, scanouts: 2 });
        assert_eq!(violation(ask(&mut backend, request)), expected);
    }
    let mut all = negotiated(GpuBackendConfig::new(200));
    ask(&mut all, Request::Scanout(Scanout::new(15, 1, 1))).unwrap();
    let expected = Violation::Gpu(GpuViolation::Scanout { found: 16, scanouts: 16 });
    assert_eq!(violation(ask(&mut all, Request::Scanout(Scanout::new(16, 1, 1)))), expected);
}

#[test]
fn one_update_of_a_scanout_waits_for_the_display_unless_configured() {
    let update = |scanout| Request::DmabufUpdate(Area::new(scanout, 0, 0, 1, 1));
    let refreshed = message::reply(10, &[]);
    let mut backend = negotiated(GpuBackendConfig::new(3));
    ask(&mut backend, update(0)).unwrap();
    let limit = Violation::Gpu(GpuViolation::UpdateOutstanding { scanout: 0, limit: 1 });
    assert_eq!(violation(ask(&mut backend, update(0))), limit);
    ask(&mut backend, update(1)).unwrap();
    hear(&mut backend, &refreshed).unwrap();
    // The first answer is scanout 0's.
    violation(ask(&mut backend, update(1)));
    ask(&mut backend, update(0)).unwrap();

    let mut config = GpuBackendConfig::new(3);
    config.updates = 3;
    let mut backend = negotiated(config);
    for _ in 0..3 {
        ask(&mut backend, update(2)).unwrap();
    }
    violation(ask(&mut backend, update(2)));
    ask(&mut backend, update(1)).unwrap();
    assert_eq!(ask(&mut backend, update(0)), Err(ApiMisuse::TooManyOutstanding { limit: 4 }));
}

#[test]
fn an_image_goes_before_anything_else() {
    let mut backend = Backend::new(GpuBackendConfig::new(2));
    let image = AreaImage::new(Area::new(1, 0, 0, 4, 2)).unwrap();
    ask(&mut backend, Request::Update(image)).unwrap();
    assert_eq!(backend.image_left(), 32);
    assert_eq!(ask(&mut backend, Request::GetDisplayInfo), Err(ApiMisuse::ImageOutstanding { left: 32 }));
    backend.image_sent(16).unwrap();
    assert_eq!(backend.image_sent(17), Err(ApiMisuse::ImageTooLong { left: 16, found: 17 }));
    assert_eq!(ask(&mut backend, Request::GetDisplayInfo), Err(ApiMisuse::ImageOutstanding { left: 16 }));
    backend.image_sent(16).unwrap();
    ask(&mut backend, Request::GetDisplayInfo).unwrap();
    assert_eq!(backend.image_sent(1), Err(ApiMisuse::ImageTooLong { left: 0, found: 1 }));
    // An answer may come while an image is under way.
    ask(&mut backend, Request::CursorUpdate(CursorImage::new(0, 0, 0, 0, 0))).unwrap();
    hear(&mut backend, &message("GET_DISPLAY_INFO").whole_reply().unwrap()).unwrap();
    assert_eq!(backend.image_left(), 16384);
}

#[test]
fn an_error_of_virtio_gpu_is_a_refusal_and_no_fault() {
    let mut backend = negotiated(GpuBackendConfig::new(2));
    let number = |number: u32| GpuReply::<Token>::Refused(NonZeroU64::new(number.into()).unwrap());
    let mut answer = |request, id, payload: &[u8], refused: u32| {
        ask(&mut backend, request).unwrap();
        let bytes = message::reply(id, payload);
        assert_eq!(backend.handle_reply(frame(&bytes, &Ledger::new(), 0)), Ok(number(refused)));
    };
    let edid = || Request::GetEdid(ScanoutId::new(1));
    let invalid = Response::INVALID_SCANOUT;
    answer(edid(), 11, &message::response(invalid).padding(1032).done(), 0x1202);
    answer(Request::GetDisplayInfo, 3, &message::response(0x1200).padding(384).done(), 0x1200);
    // The kind of the other answer, and none at all.
    answer(edid(), 11, &message::response(0x1101).padding(1032).done(), 0x1101);
    answer(edid(), 11, &[0; 1056], 1);
    answer(edid(), 11, &[], 1);
    answer(Request::GetDisplayInfo, 3, &[], 1);
    assert!(!backend.has_failed());
}

#[test]
fn a_bad_answer_ends_the_channel() {
    let edid = GpuCode::GET_EDID.message();
    let info = GpuCode::GET_DISPLAY_INFO.message();
    let cases: [(Vec<u8>, usize, Fault); 4] = [
        (
            message::reply(3, &message::display_info().done()),
            0,
            PeerMisbehaved::WrongReply { expected: edid, found: info }.into(),
        ),
        (message("GET_EDID").head(), 0, DecodeError::RequestInsteadOfReply { message: edid }.into()),
        (
            message::reply(11, &message::edid().done()),
            1,
            DecodeError::HandleCount {
                message: edid,
                expected: vhost_core::wire::row::HandleCount { least: 0, most: 0 },
                found: 1,
            }
            .into(),
        ),
        (
            message::reply(11, &[0; 8]),
            0,
            DecodeError::Payload {
                message: edid,
                fault: vhost_core::wire::payload::PayloadFault::Size {
                    expected: vhost_core::wire::payload::SizeRule::Exactly(1056),
                    found: 8,
                },
            }
            .into(),
        ),
    ];
    for (bytes, descriptors, expected) in cases {
        let ledger = Ledger::new();
        let mut backend = negotiated(GpuBackendConfig::new(2));
        ask(&mut backend, Request::GetEdid(ScanoutId::new(1))).unwrap();
        assert_eq!(backend.handle_reply(frame(&bytes, &ledger, descriptors)), Err(expected));
        ledger.assert_settled();
        assert!(backend.has_failed());
        let before = backend.clone();
        let failed = Fault::Caller(ApiMisuse::SessionFailed);
        assert_eq!(hear(&mut backend, &message("GET_EDID").whole_reply().unwrap()), Err(failed));
        assert_eq!(ask(&mut backend, Request::GetDisplayInfo), Err(ApiMisuse::SessionFailed));
        assert_eq!(backend, before);
    }
}

#[test]
fn descriptors_that_do_not_fit_are_refused_and_closed() {
    let ledger = Ledger::new();
    let mut backend = Backend::new(GpuBackendConfig::new(4));
    let shown = DmabufScanout::new(3, 0, 0, 8, 8, 8, 8, 32, 0, 0);
    for request in
        [Request::DmabufScanout(shown, None), Request::DmabufScanout(DmabufScanout::off(3), Some(ledger.token()))]
    {
        assert!(matches!(ask(&mut backend, request), Err(ApiMisuse::HandleCount { .. })));
    }
    ledger.assert_settled();
}

#[test]
fn a_buffer_too_small_changes_nothing() {
    let mut backend = Backend::new(GpuBackendConfig::new(4));
    let before = backend.clone();
    let image = AreaImage::new(Area::new(1, 0, 0, 4, 2)).unwrap();
    for given in 0..32 {
        let mut out = [0; 32];
        let error = backend.request(Request::Update(image), &mut out[..given]).unwrap_err();
        assert_eq!(error, ApiMisuse::BufferTooSmall { message: GpuCode::UPDATE.message(), given });
    }
    assert_eq!(backend, before);
    let _ = backend.request(Request::Update(image), &mut [0; 32]).unwrap();
}
