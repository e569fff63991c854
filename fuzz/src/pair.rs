//! A front-end and a back-end of ours, joined, with every message cut anywhere: neither ever blames the other.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, Assembler, Backend, BackendConfig, Channel, Delivery, Form, Frame, Frontend, FrontendConfig,
    FrontendReply, FrontendRequest, Handles, Incoming, MAX_MESSAGE, ProtocolFeatures, Transmit, Verdict,
    VirtioFeatures, wire::header::Header,
};

use crate::{reader::Reader, token::Token};

/// Bytes under way, and the handles of messages by the place of their first byte.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    handles: Vec<(usize, Handles<Token>)>,
}

impl Wire {
    fn send(&mut self, message: Transmit<'_, Token>) {
        self.handles.push((self.bytes.len(), message.handles));
        self.bytes.extend_from_slice(message.bytes);
    }

    /// Up to `count` bytes to the other side.
    fn carry(&mut self, count: usize, to: &mut Assembler<Token>) {
        let room = to.read_buf();
        let count = count.min(room.len()).min(self.bytes.len());
        room[..count].copy_from_slice(&self.bytes[..count]);
        let begins = count > 0 && self.handles.first().is_some_and(|(place, _)| *place == 0);
        let handles = if begins { self.handles.remove(0).1 } else { Handles::new() };
        to.filled(count, handles).expect("our own messages are whole");
        self.bytes.drain(..count);
        self.handles.iter_mut().for_each(|(place, _)| *place -= count);
    }
}

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let features = VirtioFeatures::from_bits_retain(reader.number()) | VirtioFeatures::VERSION_1;
    let protocol = ProtocolFeatures::from_bits_retain(reader.number()) & ProtocolFeatures::KNOWN;
    let mut frontend = Frontend::<2, 4, 4>::new(FrontendConfig::new(2));
    let mut backend = Backend::<2, 4, 4>::new(BackendConfig::new(features, protocol, 2));
    let (mut there, mut back) = (Wire::default(), Wire::default());
    let mut requests = Assembler::<Token>::new(Channel::Frontend);
    let mut replies = Assembler::<Token>::new(Channel::Frontend);
    let (mut out, mut answers) = ([0; MAX_MESSAGE], [0; MAX_MESSAGE]);
    while let (Some(operation), Some(number)) = (reader.byte(), reader.byte()) {
        match operation & 3 {
            0 => {
                let Some(size) = reader.byte() else { return };
                let payload = reader.take(size.into());
                let handles: Handles<Token> = (0..operation >> 4).take(8).map(|_| Token::new()).collect();
                let header = Header::request_of(u32::from(number & 0x3f), false, u32::from(size));
                let form = Form::request(frontend.session().negotiated().protocol);
                let Ok(request) = FrontendRequest::decode(Frame { header, payload, handles }, form) else { continue };
                let delivery = if operation & 8 == 0 { Delivery::Acknowledged } else { Delivery::Unacknowledged };
                if let Ok(message) = frontend.request(request, delivery, &mut out) {
                    there.send(message);
                }
            }
            1 => there.carry(usize::from(number) + 1, &mut requests),
            2 => back.carry(usize::from(number) + 1, &mut replies),
            _ => {}
        }
        if let Some(frame) = requests.take() {
            let reply = match backend.handle_request(frame) {
                Ok(Incoming::PostcopyMemoryMapped) => continue,
                Ok(Incoming::Request(_)) if operation & 0x80 == 0 => {
                    backend.own_answer().unwrap_or(FrontendReply::Done)
                }
                Ok(Incoming::Request(_)) => FrontendReply::Refused(NonZeroU64::MIN),
                Err(rejection) => {
                    assert_eq!(rejection.verdict(), Verdict::Refuse, "{rejection}");
                    FrontendReply::Refused(NonZeroU64::MIN)
                }
            };
            let answered = match backend.answer::<Token>(reply, &mut answers) {
                Ok(answered) => answered,
                // It needs content, which this device has none of.
                Err(_) => match backend.answer(FrontendReply::Refused(NonZeroU64::MIN), &mut answers) {
                    Ok(answered) => answered,
                    Err(misuse) => panic!("every request can be refused: {misuse}"),
                },
            };
            match answered {
                Answered::Send(message) => back.send(message),
                Answered::Silent => {}
                Answered::Close => return,
            }
        }
        if let Some(frame) = replies.take() {
            if let Err(fault) = frontend.handle_reply(frame) {
                panic!("our own reply: {fault}");
            }
        }
    }
}
