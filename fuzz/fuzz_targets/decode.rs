//! Any payload under any id: what decodes encodes to a message that decodes to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vhost_core::{
    Form, Frame, FrontendRequest, Handles, MAX_HANDLES, MAX_MESSAGE, MAX_PAYLOAD, ProtocolFeatures,
    wire::header::Header,
};

fuzz_target!(|data: &[u8]| {
    let [id, handles, features @ .., _] = *data.first_chunk::<8>().unwrap_or(&[0; 8]);
    let payload = data.get(8..).unwrap_or_default();
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let protocol = ProtocolFeatures::from_bits_retain(u64::from_le_bytes([
        features[0], features[1], features[2], features[3], 0, 0, 0, 0,
    ]));
    let count = usize::from(handles) % (MAX_HANDLES + 1);
    let form = Form::request(protocol);
    let frame = |payload| Frame {
        header: Header::request_of(u32::from(id), false, 0),
        payload,
        handles: (0..count as u32).collect::<Handles<u32>>(),
    };
    let Ok(request) = FrontendRequest::decode(frame(payload), form) else { return };
    let mut out = [0; MAX_MESSAGE];
    let Ok(transmit) = FrontendRequest::decode(frame(payload), form)
        .expect("decoding has no memory")
        .encode(false, form, &mut out)
    else {
        // A descriptor that old front-ends send needlessly is not sent again.
        return;
    };
    let again = Frame {
        header: Header::request_of(u32::from(id), false, 0),
        payload: &transmit.bytes[Header::SIZE..],
        handles: transmit.handles,
    };
    assert_eq!(FrontendRequest::decode(again, form), Ok(request));
});
