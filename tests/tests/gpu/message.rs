//! The twelve requests of the GPU channel and their replies as bytes, field after field from the protocol's table.

use vhost_tests::wire::{self, Bytes};

/// Pixels of a cursor: 64 x 64, four bytes each.
pub(crate) const CURSOR_BYTES: usize = 64 * 64 * 4;

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    /// The payload without an image.
    pub(crate) payload: Vec<u8>,
    /// Bytes of the image behind it.
    pub(crate) image: usize,
    pub(crate) descriptors: usize,
    pub(crate) reply: Reply,
    /// The bit of the feature that it needs.
    pub(crate) gate: u64,
}

/// What the front-end sends back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    /// A reply of these bytes, perhaps none.
    Payload(Vec<u8>),
}

impl Message {
    fn new(id: u32, name: &'static str, payload: Bytes) -> Self {
        let payload = payload.done();
        Self { id, name, payload, image: 0, descriptors: 0, reply: Reply::Nothing, gate: 0 }
    }

    fn reply(self, payload: Bytes) -> Self {
        Self { reply: Reply::Payload(payload.done()), ..self }
    }

    /// The bytes in front of the image, as a back-end sends them.
    pub(crate) fn head(&self) -> Vec<u8> {
        self.head_with(0, self.payload.len() + self.image)
    }

    /// The same with other flags and another size.
    pub(crate) fn head_with(&self, flags: u32, size: usize) -> Vec<u8> {
        let size = u32::try_from(size).unwrap();
        [&wire::header(self.id, flags, size), &self.payload[..]].concat()
    }

    /// The whole message; the image counts up.
    pub(crate) fn whole(&self) -> Vec<u8> {
        [self.head(), image(self.image)].concat()
    }

    /// The whole reply, if there is one.
    pub(crate) fn whole_reply(&self) -> Option<Vec<u8>> {
        match &self.reply {
            Reply::Nothing => None,
            Reply::Payload(payload) => Some(reply(self.id, payload)),
        }
    }
}

/// A whole reply.
pub(crate) fn reply(id: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [&wire::header(id, 4, size), payload].concat()
}

/// An image whose bytes count up; 251 is prime, so that no two lines are alike.
pub(crate) fn image(bytes: usize) -> Vec<u8> {
    (0..251).cycle().take(bytes).collect()
}

/// The virtio-gpu response header: little-endian on all machines.
pub(crate) fn response(kind: u32) -> Bytes {
    Bytes::new().raw(&kind.to_le_bytes()).padding(20)
}

/// The answer to GET_DISPLAY_INFO: scanouts 0 and 2 are on.
pub(crate) fn display_info() -> Bytes {
    let displays = (0..16_u32).map(|scanout| match scanout {
        0 => [0, 0, 1280, 800, 1, 0],
        2 => [1280, 5, 640, 480, 1, 7],
        _ => [0; 6],
    });
    displays.flatten().fold(response(0x1101), |bytes, field: u32| bytes.raw(&field.to_le_bytes()))
}

/// What a display says of itself: 128 bytes.
pub(crate) fn edid_data() -> Vec<u8> {
    (1..=128).collect()
}

/// The answer to GET_EDID.
pub(crate) fn edid() -> Bytes {
    response(0x1104).raw(&128_u32.to_le_bytes()).padding(4).raw(&edid_data()).padding(1024 - 128)
}

/// All twelve in the order of their ids.
pub(crate) fn all() -> Vec<Message> {
    let words = |words: &[u32]| words.iter().fold(Bytes::new(), |bytes, &word| bytes.u32(word));
    let dmabuf = || words(&[3, 10, 20, 640, 480, 1280, 800, 5120, 1]).raw(&0x3432_5258_i32.to_ne_bytes());
    vec![
        Message::new(1, "GET_PROTOCOL_FEATURES", Bytes::new()).reply(Bytes::new().u64(3)),
        Message::new(2, "SET_PROTOCOL_FEATURES", Bytes::new().u64(3)),
        Message::new(3, "GET_DISPLAY_INFO", Bytes::new()).reply(display_info()),
        Message::new(4, "CURSOR_POS", words(&[2, 30, 40])),
        Message::new(5, "CURSOR_POS_HIDE", words(&[2, 31, 41])),
        Message { image: CURSOR_BYTES, ..Message::new(6, "CURSOR_UPDATE", words(&[2, 30, 40, 5, 6])) },
        Message::new(7, "SCANOUT", words(&[1, 1280, 800])),
        Message { image: 7 * 3 * 4, ..Message::new(8, "UPDATE", words(&[1, 50, 60, 7, 3])) },
        Message { descriptors: 1, ..Message::new(9, "DMABUF_SCANOUT", dmabuf()) },
        Message::new(10, "DMABUF_UPDATE", words(&[3, 11, 21, 600, 400])).reply(Bytes::new()),
        Message { gate: 1, ..Message::new(11, "GET_EDID", words(&[1])).reply(edid()) },
        Message { gate: 2, descriptors: 1, ..Message::new(12, "DMABUF_SCANOUT2", dmabuf().u64(0x0100_0000_0000_0002)) },
    ]
}

/// The message of this name.
pub(crate) fn message(name: &str) -> Message {
    all().into_iter().find(|message| message.name == name).unwrap()
}

/// DMABUF_SCANOUT of zero size, which turns the scanout off.
pub(crate) fn dmabuf_off() -> Message {
    let payload = Bytes::new().u32(3).padding(36).done();
    Message { payload, descriptors: 0, ..message("DMABUF_SCANOUT") }
}
