//! Any payload under any id of any channel and dialect: what decodes encodes to a message that decodes to the same.

use vhost_core::{
    BackendCode, BackendReply, BackendRequest, Dialect, Form, Frame, FrontendCode, FrontendReply, FrontendRequest,
    GpuCode, GpuReply, GpuRequest, Handles, MAX_HANDLES, MAX_MESSAGE, ProtocolFeatures, wire::header::Header,
};

use crate::{reader::Reader, token::Token};

const DIALECTS: [Dialect; 8] = [
    Dialect::Standard,
    Dialect::FsA1,
    Dialect::FsA2,
    Dialect::FsA2Gen,
    Dialect::FsB,
    Dialect::Private1000,
    Dialect::Crosvm1002,
    Dialect::Auto,
];

/// There and back for requests, which know their own id.
macro_rules! request {
    ($type:ident, $frame:expr, $form:expr) => {{
        let (Ok(request), Ok(same)) = ($type::decode($frame, $form), $type::decode($frame, $form)) else { return };
        let mut out = [0; MAX_MESSAGE + 0x1_0000];
        // A descriptor that old peers send needlessly is not sent again, so that not everything can be encoded.
        let Ok(sent) = same.encode(false, $form, &mut out) else { return };
        let (header, payload) = Header::split_from(sent.bytes).expect("a message has a header");
        let again = Frame { header: *header, payload, handles: sent.handles };
        assert_eq!($type::decode(again, $form), Ok(request));
    }};
}

/// There and back for replies, which are told whose they are.
macro_rules! reply {
    ($type:ident, $code:expr, $frame:expr, $form:expr) => {{
        let (Ok(reply), Ok(same)) = ($type::decode($frame, $form), $type::decode($frame, $form)) else { return };
        let mut out = [0; MAX_MESSAGE];
        let Ok(sent) = same.encode($code, $form, &mut out) else { return };
        let (header, payload) = Header::split_from(sent.bytes).expect("a message has a header");
        let again = Frame { header: *header, payload, handles: sent.handles };
        assert_eq!($type::decode(again, $form), Ok(reply));
    }};
}

/// Decodes, encodes and decodes again.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let (Some(kind), Some(handles), Some(dialect)) = (reader.byte(), reader.byte(), reader.byte()) else { return };
    let id = u32::try_from(reader.number() & 0x7ff).expect("eleven bits");
    let protocol = ProtocolFeatures::from_bits_retain(reader.number());
    let dialect = DIALECTS[usize::from(dialect) % DIALECTS.len()];
    let payload = reader.0;
    let size = u32::try_from(payload.len()).expect("inputs are short");
    let frame = |header: Header| Frame {
        header,
        payload,
        handles: (0..usize::from(handles) % (MAX_HANDLES + 1)).map(|_| Token::new()).collect::<Handles<_>>(),
    };
    let asked = || frame(Header::request_of(id, false, size));
    let answered = || frame(Header::reply_to(id, size));
    let request = Form::request(protocol).with_dialect(dialect);
    let reply = Form::reply(protocol).with_dialect(dialect);
    match kind % 6 {
        0 => request!(FrontendRequest, asked(), request),
        1 => reply!(FrontendReply, FrontendCode(id), answered(), reply),
        2 => request!(BackendRequest, asked(), request),
        3 => match dialect.code(id) {
            Some(code) => reply!(BackendReply, code, answered(), reply),
            None => reply!(BackendReply, BackendCode(id), answered(), reply),
        },
        4 => request!(GpuRequest, asked(), request),
        _ => reply!(GpuReply, GpuCode(id), answered(), reply),
    }
}
