//! Every message is read as what it says and written as the bytes it came from.

use crate::message::{self, Message, Reply, edid_data, message};
use vhost_core::wire::gpu::{
    Area, AreaImage, CursorImage, CursorPosition, Display, DisplayInfo, DmabufScanout, DmabufScanout2, Edid, Scanout,
    ScanoutId,
};
use vhost_core::wire::header::Header;
use vhost_core::wire::payload::{Field, Form, PayloadFault, SizeRule};
use vhost_core::wire::row::{HandleCount, HandleRule, ReplyRule};
use vhost_core::{DecodeError, Frame, GpuCode, GpuFeatures, GpuReply, GpuRequest, MAX_MESSAGE, ProtocolFeatures};
use vhost_tests::tracked::{Ledger, Token};

const REQUEST: Form = Form::request(ProtocolFeatures::empty());
const REPLY: Form = Form::reply(ProtocolFeatures::empty());

/// The frame in front of the image.
pub(crate) fn frame<'b>(head: &'b [u8], ledger: &Ledger, descriptors: usize) -> Frame<'b, Token> {
    let words: Vec<u32> = head[..12].chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
    let handles = ledger.tokens(descriptors).into_iter().collect();
    Frame { header: Header::new(words[0], words[1], words[2]), payload: &head[12..], handles }
}

fn decode(message: &Message, head: &[u8], descriptors: usize) -> Result<GpuRequest<Token>, DecodeError> {
    assert_eq!(head[..4], message.id.to_ne_bytes());
    GpuRequest::decode(frame(head, &Ledger::new(), descriptors), REQUEST)
}

fn area() -> Area {
    Area::new(1, 50, 60, 7, 3)
}

/// What each message says, in the order of the table.
fn expected(ledger: &Ledger) -> Vec<GpuRequest<Token>> {
    let dmabuf =
        DmabufScanout::new(3, 10, 20, 640, 480, 1280, 800, 5120, DmabufScanout::FIRST_LINE_ON_TOP, 0x3432_5258);
    vec![
        GpuRequest::GetProtocolFeatures,
        GpuRequest::SetProtocolFeatures(GpuFeatures::EDID | GpuFeatures::DMABUF2),
        GpuRequest::GetDisplayInfo,
        GpuRequest::CursorPos(CursorPosition::new(2, 30, 40)),
        GpuRequest::CursorPosHide(CursorPosition::new(2, 31, 41)),
        GpuRequest::CursorUpdate(CursorImage::new(2, 30, 40, 5, 6)),
        GpuRequest::Scanout(Scanout::new(1, 1280, 800)),
        GpuRequest::Update(AreaImage::new(area()).unwrap()),
        GpuRequest::DmabufScanout(dmabuf, Some(ledger.token())),
        GpuRequest::DmabufUpdate(Area::new(3, 11, 21, 600, 400)),
        GpuRequest::GetEdid(ScanoutId::new(1)),
        GpuRequest::DmabufScanout2(DmabufScanout2::new(dmabuf, 0x0100_0000_0000_0002), Some(ledger.token())),
    ]
}

#[test]
fn the_table_has_the_twelve_messages() {
    let names = GpuCode::ALL.iter().map(|code| (code.0, code.name().unwrap()));
    assert_eq!(Vec::from_iter(names), Vec::from_iter(message::all().iter().map(|message| (message.id, message.name))));
    for message in message::all() {
        let row = GpuCode(message.id).row().unwrap();
        let whole = message.payload.len() + message.image;
        assert!(row.payload.size().allows(whole), "{}", message.name);
        assert_eq!(row.payload.before_image(), (message.image > 0).then_some(20), "{}", message.name);
        assert_eq!(row.gate.gpu().bits(), message.gate, "{}", message.name);
        assert_eq!(row.handles == HandleRule::IfShown, message.descriptors == 1, "{}", message.name);
        match &message.reply {
            Reply::Nothing => assert_eq!(row.reply, ReplyRule::Never, "{}", message.name),
            Reply::Payload(payload) => {
                assert_eq!(row.reply_payload.size(), SizeRule::Exactly(payload.len()), "{}", message.name);
                assert_eq!(row.reply == ReplyRule::Empty, payload.is_empty(), "{}", message.name);
            }
        }
    }
    assert_eq!(GpuCode(13).row(), None);
}

#[test]
fn requests_say_what_their_fields_say_and_go_back_to_the_same_bytes() {
    let ledger = Ledger::new();
    for (message, expected) in message::all().iter().zip(expected(&ledger)) {
        let request = decode(message, &message.head(), message.descriptors).unwrap();
        // Tokens are told apart by ledger, so the bytes of the two are compared instead where there is one.
        if message.descriptors == 0 {
            assert_eq!(request, expected);
        }
        assert_eq!(request.code(), expected.code());
        assert_eq!(usize::try_from(request.image_bytes()).unwrap(), message.image, "{}", message.name);
        for request in [request, expected] {
            let mut out = [0xee; MAX_MESSAGE];
            let transmit = request.encode(false, REQUEST, &mut out).unwrap();
            assert_eq!(transmit.bytes, message.head(), "{}", message.name);
            assert_eq!(transmit.handles.len(), message.descriptors, "{}", message.name);
        }
    }
    ledger.assert_settled();
}

#[test]
fn the_request_knows_its_scanout() {
    let scanouts = expected(&Ledger::new()).into_iter().map(|request| request.scanout());
    let expected = [0, 0, 0, 2, 2, 2, 1, 1, 3, 3, 1, 3].map(|scanout| (scanout > 0).then_some(scanout));
    assert_eq!(Vec::from_iter(scanouts), expected);
}

#[test]
fn replies_say_what_their_fields_say_and_go_back_to_the_same_bytes() {
    let mut displays = [Display::default(); 3];
    displays[0] = Display { width: 1280, height: 800, enabled: true, ..Display::default() };
    displays[2] = Display { x: 1280, y: 5, width: 640, height: 480, enabled: true, flags: 7 };
    let info = DisplayInfo::new(&displays);
    let edid = Edid::new(&edid_data()).unwrap();
    let expected = [
        (1, GpuReply::GetProtocolFeatures(GpuFeatures::KNOWN)),
        (3, GpuReply::GetDisplayInfo(&info)),
        (10, GpuReply::Done),
        (11, GpuReply::GetEdid(&edid)),
    ];
    for (id, expected) in expected {
        let message = message::all().into_iter().find(|message| message.id == id).unwrap();
        let bytes = message.whole_reply().unwrap();
        let reply: GpuReply<Token> = GpuReply::decode(frame(&bytes, &Ledger::new(), 0), REPLY).unwrap();
        assert_eq!(reply, expected);
        for reply in [reply, expected] {
            let mut out = [0xee; MAX_MESSAGE];
            assert_eq!(reply.encode(GpuCode(id), REPLY, &mut out).unwrap().bytes, bytes, "{}", message.name);
        }
    }
    assert_eq!(info.display(2), Some(displays[2]));
    assert_eq!(info.display(16), None);
    assert_eq!(info.displays().filter(|display| display.enabled).count(), 2);
    assert_eq!(edid.data(), edid_data());
    assert_eq!(Edid::new(&[0; 1025]), None);
}

#[test]
fn a_payload_cut_anywhere_is_refused_by_its_size() {
    for message in message::all() {
        for end in 0..message.payload.len() {
            let mut head = message.head_with(0, end);
            head.truncate(12 + end);
            let error = decode(&message, &head, message.descriptors).unwrap_err();
            match error {
                DecodeError::Payload { fault: PayloadFault::Size { expected, found }, .. } => {
                    assert_eq!((expected, found), (SizeRule::Exactly(message.payload.len()), end), "{}", message.name);
                }
                // Too short to hold the size of the scanout: nothing is shown, so no descriptor is expected.
                DecodeError::HandleCount { found: 1, .. } => assert!(end < 40 && message.descriptors == 1),
                _ => panic!("{}: {error}", message.name),
            }
        }
        let mut longer = message.head_with(0, message.payload.len() + 1);
        longer.push(0);
        decode(&message, &longer, message.descriptors).unwrap_err();
    }
}

#[test]
fn a_reply_cut_anywhere_is_refused_by_its_size() {
    for message in message::all() {
        let Reply::Payload(payload) = &message.reply else { continue };
        for size in (0..payload.len()).chain([payload.len() + 1]) {
            let mut cut = payload.clone();
            cut.resize(size, 0);
            let bytes = message::reply(message.id, &cut);
            let error = GpuReply::<Token>::decode(frame(&bytes, &Ledger::new(), 0), REPLY).unwrap_err();
            let fault = PayloadFault::Size { expected: SizeRule::Exactly(payload.len()), found: size };
            assert_eq!(error, DecodeError::Payload { message: GpuCode(message.id).message(), fault });
        }
    }
}

#[test]
fn a_scanout_has_a_descriptor_exactly_when_it_is_shown() {
    let off = message::dmabuf_off();
    let request = decode(&off, &off.head(), 0).unwrap();
    assert_eq!(request, GpuRequest::DmabufScanout(DmabufScanout::off(3), None));
    for (message, descriptors, expected) in [
        (off, 1, 0),
        (message("DMABUF_SCANOUT"), 0, 1),
        (message("DMABUF_SCANOUT"), 2, 1),
        (message("DMABUF_SCANOUT2"), 0, 1),
        (message("UPDATE"), 1, 0),
    ] {
        let error = decode(&message, &message.head(), descriptors).unwrap_err();
        let expected = HandleCount { least: expected, most: expected };
        assert_eq!(
            error,
            DecodeError::HandleCount { message: GpuCode(message.id).message(), expected, found: descriptors }
        );
    }
}

/// CVE-2026-3886: a product that does not fit into 32 bits looks small.
#[test]
fn an_image_of_another_size_than_width_and_height_is_refused() {
    let update = message("UPDATE");
    let with = |width: u32, height: u32, following: u32| {
        let mut message = update.clone();
        message.payload[12..16].copy_from_slice(&width.to_ne_bytes());
        message.payload[16..20].copy_from_slice(&height.to_ne_bytes());
        let result = decode(&message, &message.head_with(0, 20 + following as usize), 0);
        (result.map(|request| request.image_bytes()), PayloadFault::Image { width, height, found: following })
    };
    for (width, height, following) in [
        (7, 3, 83),
        (7, 3, 85),
        (7, 3, 0),
        (0x4000_0000, 1, 0),     // 2^32 bytes
        (0x1_0000, 0x1_0000, 0), // 2^34 bytes
        (0x8000_0001, 2, 8),     // 2^34 + 8
        (u32::MAX, u32::MAX, 4), // (2^32 - 1)^2 * 4 is 4 modulo 2^32, and more than 2^64
        (0x4000_0000, 4, 0),     // 2^34
        (0, 5, 1),
        (0x3fff_ffff, 1, 0xffff_ffeb), // as much as the header can tell, one byte less than it takes
    ] {
        let (result, fault) = with(width, height, following);
        assert_eq!(result, Err(DecodeError::Payload { message: GpuCode::UPDATE.message(), fault }));
    }
    assert_eq!(with(0, 5, 0).0, Ok(0));
    assert_eq!(with(0xffff, 0x4000, 0xffff_0000).0, Ok(0xffff_0000));
    assert_eq!(AreaImage::new(Area::new(0, 0, 0, 0x3fff_ffff, 1)), None, "no header can tell its size");

    let cursor = message("CURSOR_UPDATE");
    for following in [0, message::CURSOR_BYTES - 1, message::CURSOR_BYTES + 4] {
        let error = decode(&cursor, &cursor.head_with(0, 20 + following), 0).unwrap_err();
        let fault = PayloadFault::Image { width: 64, height: 64, found: u32::try_from(following).unwrap() };
        assert_eq!(error, DecodeError::Payload { message: GpuCode::CURSOR_UPDATE.message(), fault });
    }
}

#[test]
fn an_edid_longer_than_its_room_is_refused() {
    let mut payload = message::edid().done();
    payload[24..28].copy_from_slice(&1025_u32.to_le_bytes());
    let bytes = message::reply(11, &payload);
    let error = GpuReply::<Token>::decode(frame(&bytes, &Ledger::new(), 0), REPLY).unwrap_err();
    let fault = PayloadFault::Field { field: Field::EdidSize, found: 1025 };
    assert_eq!(error, DecodeError::Payload { message: GpuCode::GET_EDID.message(), fault });
}

#[test]
fn errors_name_what_was_expected_and_what_came() {
    let update = message("UPDATE");
    let error = decode(&update, &update.head_with(0, 103), 0).unwrap_err();
    assert_eq!(error.to_string(), "UPDATE (8): expected an image of 7 x 3 pixels of 4 bytes, found 83 bytes of it");
    let unknown = decode(&Message { id: 77, ..update.clone() }, &Message { id: 77, ..update }.head(), 0).unwrap_err();
    assert_eq!(unknown.to_string(), "GPU request 77 is unknown");
    let gate = GpuCode::GET_EDID.row().unwrap().gate;
    assert_eq!(gate.to_string(), "GPU EDID");
}
