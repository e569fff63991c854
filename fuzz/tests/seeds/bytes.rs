//! The targets' inputs, as `vhost_fuzz::reader` reads them.

use vhost_fuzz::reader::{FAR_ID, LONG};
use vhost_tests::wire::feature;

/// A message: the operation, how many descriptors, the id and the payload.
pub fn message(operation: u8, handles: usize, id: u32, payload: &[u8]) -> Vec<u8> {
    [&[with_handles(operation, handles), id_byte(id)], &slice(payload)[..]].concat()
}

/// A whole message for the back-end's stream.
pub fn stream(operation: u8, handles: usize, bytes: &[u8]) -> Vec<u8> {
    [&[with_handles(operation, handles), u8::MAX], bytes].concat()
}

/// Bytes behind their length.
pub fn slice(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let front = match u8::try_from(length) {
        Ok(short) if short != LONG => vec![short],
        _ => [&[LONG][..], &length.to_le_bytes()].concat(),
    };
    [front, bytes.to_vec()].concat()
}

/// A front-end's request that negotiates: id and payload.
pub fn negotiation() -> Vec<(u32, Vec<u8>)> {
    vec![
        (1, vec![]),
        (2, feature::ACKNOWLEDGED.to_ne_bytes().to_vec()),
        (15, vec![]),
        (16, feature::PROTOCOL_ACKNOWLEDGED.to_ne_bytes().to_vec()),
        (3, vec![]),
    ]
}

/// How the pair begins: its setting and what the device offers.
pub fn pair(setting: u8) -> Vec<u8> {
    [&[setting], &feature::OFFERED.to_le_bytes()[..], &feature::PROTOCOL_OFFERED.to_le_bytes()].concat()
}

/// How the front-end begins: the standard dialect, and what the device offers.
pub fn frontend() -> Vec<u8> {
    [&[0], &feature::OFFERED.to_le_bytes()[..]].concat()
}

fn with_handles(operation: u8, handles: usize) -> u8 {
    operation | u8::try_from(handles).unwrap() << 4
}

fn id_byte(id: u32) -> u8 {
    u8::try_from(if id >= 1000 { id - 1000 + u32::from(FAR_ID) } else { id }).unwrap()
}
