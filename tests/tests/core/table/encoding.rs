//! Messages written and read without a session: what no message has room for, and sizes that depend on who reads.

use crate::machines::frame;
use crate::stage::flagged;
use vhost_core::wire::config::{Config, MAX_CONFIG_SIZE};
use vhost_core::wire::header::Header;
use vhost_core::wire::log::{Log, LogBase};
use vhost_core::wire::payload::{PayloadFault, SizeRule};
use vhost_core::{
    ApiMisuse, DecodeError, Form, FrontendCode, FrontendReply, FrontendRequest, ProtocolFeatures, TrailingBytes,
};
use vhost_tests::tracked::Token;
use vhost_tests::wire::REPLY;

#[test]
fn more_configuration_than_a_message_has_room_for() {
    let data = [7; MAX_CONFIG_SIZE + 1];
    let mut out = [0; 1024];
    let mut encode = |size: usize| {
        let request = FrontendRequest::<Token>::SetConfig(Config { offset: 0, flags: 0, data: &data[..size] });
        let form = Form::request(ProtocolFeatures::CONFIG);
        request.encode(false, form, &mut out).map(|transmit| transmit.bytes.len())
    };
    assert_eq!(encode(MAX_CONFIG_SIZE), Ok(Header::SIZE + 12 + 256));
    let message = FrontendCode::SET_CONFIG.message();
    assert_eq!(encode(MAX_CONFIG_SIZE + 1), Err(ApiMisuse::BufferTooSmall { message, given: 1024 }));
}

#[test]
fn a_header_in_front_of_bytes() {
    let bytes = flagged(3, 9, &[1, 2]);
    let (header, behind) = Header::split_from(&bytes).unwrap();
    assert_eq!((header.request(), header.needs_reply(), header.size(), behind), (3, true, 2, &[1, 2][..]));
    assert!(Header::split_from(&bytes[..Header::SIZE]).is_some_and(|(_, behind)| behind.is_empty()));
    assert!(Header::split_from(&bytes[..Header::SIZE - 1]).is_none());
}

#[test]
fn a_reply_about_the_log_has_one_of_three_sizes_and_may_be_longer_if_that_is_let_pass() {
    let decode = |size: usize, trailing| {
        let bytes = flagged(6, REPLY, &vec![0; size]);
        let form = Form::reply(ProtocolFeatures::LOG_SHMFD).with_trailing_bytes(trailing);
        FrontendReply::<Token>::decode(frame(&bytes, Vec::new()), form).map(|reply| match reply {
            FrontendReply::SetLogBase(log) => log,
            other => panic!("{other:?}"),
        })
    };
    let message = FrontendCode::SET_LOG_BASE.message();
    let wrong = |expected, found| {
        let fault = PayloadFault::Size { expected, found };
        Err(DecodeError::Payload { message, fault })
    };
    for trailing in [TrailingBytes::Refuse, TrailingBytes::Ignore] {
        assert_eq!(decode(0, trailing), Ok(LogBase::Empty));
        assert_eq!(decode(8, trailing), Ok(LogBase::Number(0)));
        assert_eq!(decode(16, trailing), Ok(LogBase::Shared(Log::new(0, 0))));
    }
    assert_eq!(decode(12, TrailingBytes::Refuse), wrong(SizeRule::Either(16, 8), 12));
    assert_eq!(decode(24, TrailingBytes::Refuse), wrong(SizeRule::Either(16, 8), 24));
    assert_eq!(decode(12, TrailingBytes::Ignore), wrong(SizeRule::Exactly(16), 12));
    assert_eq!(decode(24, TrailingBytes::Ignore), Ok(LogBase::Shared(Log::new(0, 0))));
}
