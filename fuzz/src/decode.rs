//! Any payload under any id of any channel and dialect: what decodes encodes, to bytes that decode to the same and encode to
//! the same bytes again.

use vhost_core::{
    BackendCode, BackendReply, BackendRequest, Dialect, Form, Frame, FrontendCode, FrontendReply, FrontendRequest,
    GpuCode, GpuReply, GpuRequest, MAX_MESSAGE, ProtocolFeatures, TrailingBytes, wire::header::Header,
};

use crate::{
    message::{Message, dialect},
    reader::Reader,
};

/// Room for any message.
const ROOM: usize = MAX_MESSAGE + 0x1_0000;

/// Messages of the front-end's channel with padding that means nothing, or with surplus bytes that some peer sends: the
/// bytes that go out are not those that came in. `SET_LOG_BASE`, `SET_MEM_TABLE`, `GET_CONFIG`, `SET_CONFIG`,
/// `POSTCOPY_ADVISE`, the two about the inflight record, the two about one region, `GET_SHARED_OBJECT`, `GET_SHMEM_CONFIG`.
const TIDIED: [FrontendCode; 11] = [
    FrontendCode::SET_LOG_BASE,
    FrontendCode::SET_MEM_TABLE,
    FrontendCode::GET_CONFIG,
    FrontendCode::SET_CONFIG,
    FrontendCode::POSTCOPY_ADVISE,
    FrontendCode::GET_INFLIGHT_FD,
    FrontendCode::SET_INFLIGHT_FD,
    FrontendCode::ADD_MEM_REG,
    FrontendCode::REM_MEM_REG,
    FrontendCode::GET_SHARED_OBJECT,
    FrontendCode::GET_SHMEM_CONFIG,
];

/// There and back, twice. The bytes are those that came, if that is `exact`.
macro_rules! both_ways {
    ($exact:expr, $type:ident, $frame:expr, $form:expr, |$value:ident, $out:ident| $encode:expr) => {{
        let (Ok($value), Ok(expected)) = ($type::decode($frame, $form), $type::decode($frame, $form)) else { return };
        let (mut first, mut second) = (vec![0; ROOM], vec![0; ROOM]);
        let $out = &mut first[..];
        let sent = match $encode {
            Ok(sent) => sent,
            Err(misuse) => panic!("{expected:?} came in and cannot go out: {misuse}"),
        };
        let (header, payload) = Header::split_from(sent.bytes).expect("a message has a header");
        let again = Frame { header: *header, payload, handles: sent.handles };
        let $value = $type::decode(again, $form).expect("our own message");
        assert_eq!($value, expected);
        let $out = &mut second[..];
        let bytes = $encode.expect("as before").bytes;
        assert_eq!(bytes, sent.bytes);
        if $exact {
            assert_eq!(payload, $frame.payload, "{expected:?}");
        }
    }};
}

/// Decodes and encodes.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let (Some(kind), Some(setting)) = (reader.byte(), reader.byte()) else { return };
    let protocol = ProtocolFeatures::from_bits_retain(reader.number());
    let Some(message) = Message::read(&mut reader, kind & 0xf0) else { return };
    let dialect = dialect(setting);
    let trailing = if setting & 0x80 == 0 { TrailingBytes::Refuse } else { TrailingBytes::Ignore };
    let form = |form: Form| form.with_dialect(dialect).with_trailing_bytes(trailing);
    let (request, reply) = (form(Form::request(protocol)), form(Form::reply(protocol)));
    let id = message.id;
    // A list of mappings has padding too.
    let is_tidied = if kind % 8 < 2 { TIDIED.contains(&FrontendCode(id)) } else { dialect == Dialect::FsB };
    let exact = trailing == TrailingBytes::Refuse && !is_tidied;
    match kind % 8 {
        0 => {
            both_ways!(exact, FrontendRequest, message.request(false), request, |value, out| value
                .encode(false, request, out))
        }
        1 => both_ways!(exact, FrontendReply, message.reply(), reply, |value, out| {
            value.encode(FrontendCode(id), reply, out)
        }),
        2 => {
            both_ways!(exact, BackendRequest, message.request(false), request, |value, out| value
                .encode(false, request, out))
        }
        3 => {
            let code = dialect.code(id).unwrap_or(BackendCode(id));
            both_ways!(exact, BackendReply, message.reply(), reply, |value, out| value.encode(code, reply, out));
        }
        4 => both_ways!(exact, GpuRequest, message.request(false), request, |value, out| value
            .encode(false, request, out)),
        _ => both_ways!(exact, GpuReply, message.reply(), reply, |value, out| value.encode(GpuCode(id), reply, out)),
    }
}
