//! What is in a crypto session: parameters and keys, and keys that are longer than their room.

use vhost_core::FrontendRequest;
use vhost_core::wire::crypto::{AsymmetricKey, CryptoSession, SymmetricKeys};
use vhost_core::wire::payload::{Field, Form, PayloadFault};
use vhost_core::{MAX_MESSAGE, ProtocolFeatures};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{Bytes, header};

const FORM: Form = Form::request(ProtocolFeatures::CRYPTO_SESSION);

fn counting(length: usize, first: u8) -> Vec<u8> {
    (0..length).map(|place| first.wrapping_add(u8::try_from(place % 251).unwrap())).collect()
}

/// A whole CREATE_CRYPTO_SESSION with symmetric keys, as QEMU lays it out: the two pointers are its own.
fn symmetric(cipher_key_length: u32, authentication_key_length: u32) -> Vec<u8> {
    let payload = Bytes::new().u64(CryptoSession::CIPHER);
    let payload = payload.u32(3).u32(cipher_key_length).u32(2).u32(20).u32(authentication_key_length).u32(16);
    let payload = payload.u8(2).u8(1).u8(4).u8(3).padding(4).u64(0x7f01_0203_0405_0607).u64(0x7f08_090a_0b0c_0d0e);
    let payload = payload.raw(&counting(64, 1)).raw(&counting(512, 100));
    message(payload.padding(1056 - 48 - 64 - 512).u64(0).done())
}

/// The same with an asymmetric key.
fn asymmetric(key_length: u32) -> Vec<u8> {
    let payload = Bytes::new().u64(CryptoSession::ASYMMETRIC);
    let payload = payload.u32(1).u32(2).u32(key_length).padding(4).u64(0x7f01_0203_0405_0607).u32(5).u32(6);
    message(payload.raw(&counting(1024, 7)).u64(0).done())
}

fn message(payload: Vec<u8>) -> Vec<u8> {
    assert_eq!(payload.len(), 1072);
    [&header(26, 1, 1072)[..], &payload].concat()
}

fn session(bytes: &[u8]) -> CryptoSession {
    let frame = crate::session::frame(bytes, &Ledger::new(), 0);
    let FrontendRequest::CreateCryptoSession(session) = FrontendRequest::<Token>::decode(frame, FORM).unwrap() else {
        panic!("another request")
    };
    *session
}

fn encoded(session: &CryptoSession) -> Vec<u8> {
    let mut out = [0xee; MAX_MESSAGE];
    let request = FrontendRequest::<Token>::CreateCryptoSession(session);
    request.encode(false, FORM, &mut out).unwrap().bytes.to_vec()
}

#[test]
fn symmetric_parameters_are_where_c_programs_put_them() {
    let bytes = symmetric(16, 20);
    let session = session(&bytes);
    let expected = SymmetricKeys {
        cipher: 3,
        cipher_key: &counting(16, 1),
        hash: 2,
        digest_length: 20,
        authentication_key: &counting(20, 100),
        associated_length: 16,
        operation: 2,
        direction: 1,
        hash_mode: 4,
        chaining: 3,
    };
    assert_eq!(session.symmetric(), Ok(expected));
    assert_eq!((session.op_code(), session.session_id()), (CryptoSession::CIPHER, 0));
    // Pointers and what is behind a key are the peer's own; ours are zeros.
    let mut again = bytes;
    again[12 + 8 + 32..][..16].fill(0);
    again[12 + 8 + 48 + 16..][..64 - 16].fill(0);
    again[12 + 8 + 48 + 64 + 20..][..512 - 20].fill(0);
    let ours = CryptoSession::with_symmetric(CryptoSession::CIPHER, &expected).unwrap();
    assert_eq!(encoded(&ours), again);
    assert_eq!(ours.symmetric(), Ok(expected));
}

#[test]
fn asymmetric_parameters_are_where_c_programs_put_them() {
    let bytes = asymmetric(1000);
    let expected = AsymmetricKey { algorithm: 1, kind: 2, key: &counting(1000, 7), padding: 5, hash: 6 };
    assert_eq!(session(&bytes).asymmetric(), Ok(expected));
    let mut again = bytes;
    again[12 + 8 + 16..][..8].fill(0);
    again[12 + 8 + 32 + 1000..][..24].fill(0);
    let ours = CryptoSession::with_asymmetric(CryptoSession::ASYMMETRIC, &expected).unwrap();
    assert_eq!(encoded(&ours), again);
}

#[test]
fn what_came_goes_back_to_the_same_bytes() {
    for bytes in [symmetric(16, 20), asymmetric(3), symmetric(u32::MAX, u32::MAX)] {
        assert_eq!(encoded(&session(&bytes)), bytes);
    }
}

/// CVE-2020-10724: a length beyond the room reads what lies behind it.
#[test]
fn a_key_is_no_longer_than_its_room() {
    let too_long = |field, found: u32| PayloadFault::Field { field, found: found.into() };
    for (cipher, authentication) in [(0, 0), (64, 512)] {
        let session = session(&symmetric(cipher, authentication));
        let keys = session.symmetric().unwrap();
        assert_eq!(keys.cipher_key, counting(cipher as usize, 1));
        assert_eq!(keys.authentication_key, counting(authentication as usize, 100));
    }
    for found in [65, 512, 0x100, 0x1_0010, 0x8000_0000, u32::MAX] {
        let fault = too_long(Field::CipherKeyLength, found);
        assert_eq!(session(&symmetric(found, 20)).symmetric(), Err(fault));
    }
    for found in [513, 0x1_0010, u32::MAX - 112, u32::MAX] {
        let fault = too_long(Field::AuthenticationKeyLength, found);
        assert_eq!(session(&symmetric(16, found)).symmetric(), Err(fault));
    }
    assert_eq!(session(&asymmetric(1024)).asymmetric().unwrap().key, counting(1024, 7));
    for found in [1025, 0x1_0010, u32::MAX] {
        let fault = too_long(Field::KeyLength, found);
        assert_eq!(session(&asymmetric(found)).asymmetric(), Err(fault));
    }
}

#[test]
fn a_key_that_is_too_long_is_not_sent() {
    let keys = SymmetricKeys {
        cipher: 0,
        cipher_key: &[0; 64],
        hash: 0,
        digest_length: 0,
        authentication_key: &[0; 512],
        associated_length: 0,
        operation: 0,
        direction: 0,
        hash_mode: 0,
        chaining: 0,
    };
    let with = |keys: SymmetricKeys<'_>| CryptoSession::with_symmetric(CryptoSession::MAC, &keys).map(drop);
    assert_eq!(with(keys), Ok(()));
    let fault = |field, found| Err(PayloadFault::Field { field, found });
    let long = SymmetricKeys { cipher_key: &[0; 65], ..keys };
    assert_eq!(with(long), fault(Field::CipherKeyLength, 65));
    let long = SymmetricKeys { authentication_key: &[0; 513], ..keys };
    assert_eq!(with(long), fault(Field::AuthenticationKeyLength, 513));
    let long = AsymmetricKey { algorithm: 0, kind: 0, key: &[0; 1025], padding: 0, hash: 0 };
    let with = CryptoSession::with_asymmetric(CryptoSession::ASYMMETRIC, &long).map(drop);
    assert_eq!(with, fault(Field::KeyLength, 1025));
}

#[test]
fn keys_are_not_shown() {
    let session = session(&symmetric(16, 20));
    let keys = session.symmetric().unwrap();
    let key = AsymmetricKey { algorithm: 1, kind: 2, key: &[0xab; 3], padding: 5, hash: 6 };
    let request = FrontendRequest::<Token>::CreateCryptoSession(&session);
    assert_eq!(format!("{request:?}"), "CreateCryptoSession(CryptoSession { op_code: 2, session_id: 0, .. })");
    let shown = "SymmetricKeys { cipher: 3, cipher_key_length: 16, hash: 2, authentication_key_length: 20, .. }";
    assert_eq!(format!("{keys:?}"), shown);
    assert_eq!(format!("{key:?}"), "AsymmetricKey { algorithm: 1, key_length: 3, .. }");
}
