//! Operations on a front-end's machine, with a peer that says anything: misuse changes nothing, a refused request neither,
//! and a failed machine stays failed.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, BackendReply, Delivery, Fault, Form, Frontend, FrontendCode, FrontendConfig, FrontendRequest,
    MAX_MESSAGE, ProtocolFeatures, Verdict, VirtioFeatures, wire::header::REPLY,
};

use crate::{
    message::{Message, assert_answers, dialect},
    reader::Reader,
    token::Token,
};

type Machine = Frontend<4, 16, 4>;

/// Runs operations.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    let Some(setting) = reader.byte() else { return };
    let mut config = FrontendConfig::new(4);
    config.dialect = dialect(setting);
    let mut machine = Machine::new(config);
    let offered = VirtioFeatures::from_bits_retain(reader.number()) | VirtioFeatures::PROTOCOL_FEATURES;
    machine.assume_offer(offered, ProtocolFeatures::KNOWN);
    // What the back-end asked last, until it is answered.
    let mut asked = None;
    while let Some(operation) = reader.byte() {
        let before = machine.clone();
        if step(&mut machine, &mut asked, operation, &mut reader).is_none() {
            return;
        }
        assert!(machine.has_failed() >= before.has_failed(), "a failed machine stays failed");
    }
}

fn step(machine: &mut Machine, asked: &mut Option<u32>, operation: u8, reader: &mut Reader<'_>) -> Option<()> {
    let before = machine.clone();
    let out = &mut [0; MAX_MESSAGE];
    match operation & 7 {
        0..=2 => {
            let message = Message::read(reader, operation)?;
            let form = Form::request(machine.session().negotiated().protocol);
            let Ok(request) = FrontendRequest::decode(message.request(false), form) else { return Some(()) };
            let delivery = if operation & 8 == 0 { Delivery::Acknowledged } else { Delivery::Unacknowledged };
            match machine.request(request, delivery, out) {
                Ok(_) => assert!((0..=1).contains(&(machine.outstanding() - before.outstanding()))),
                Err(_) => assert_eq!(*machine, before, "misuse changes nothing"),
            }
        }
        3 | 4 => match machine.handle_reply(Message::read(reader, operation)?.reply()) {
            Ok(_) => assert_eq!(machine.outstanding() + 1, before.outstanding(), "one answer to one request"),
            Err(Fault::Caller(_)) => assert!(before.has_failed()),
            Err(_) => {
                assert!(machine.has_failed());
                assert_eq!(machine.session(), before.session(), "a wrong answer changes nothing");
            }
        },
        5 => {
            let message = Message::read(reader, operation)?;
            match machine.handle_request(message.request(operation & 8 != 0)) {
                Ok(_) => *asked = Some(message.id),
                Err(rejection) => {
                    assert_eq!(machine.session(), before.session(), "a rejected request changes nothing");
                    match rejection.verdict() {
                        Verdict::Misuse => assert_eq!(*machine, before, "misuse changes nothing"),
                        Verdict::Refuse => *asked = Some(message.id),
                        Verdict::Close => {}
                    }
                }
            }
        }
        6 => {
            let reply = if operation & 8 == 0 { BackendReply::Done } else { BackendReply::Refused(NonZeroU64::MIN) };
            match machine.answer_backend::<Token>(reply, out) {
                Ok(answered) => {
                    let id = asked.take().expect("only a question is answered");
                    if let Answered::Send(message) = answered {
                        assert_answers(message.bytes, id, REPLY);
                    }
                }
                Err(_) => assert_eq!(*machine, before, "misuse changes nothing"),
            }
        }
        _ => {
            if machine.acknowledge_postcopy_memory::<Token>(FrontendCode(reader.id()?), out).is_err() {
                assert_eq!(*machine, before, "misuse changes nothing");
            }
        }
    }
    Some(())
}
