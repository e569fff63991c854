//! Any stream of bytes and descriptors into a back-end: no panic, each taken message answered, a
//! refused one changes nothing, a failed machine stays failed.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, Assembler, Backend, BackendConfig, Channel, FrontendReply, Incoming, MAX_MESSAGE, ProtocolFeatures,
    Verdict, VirtioFeatures,
};

use crate::token::Token;

type Machine = Backend<4, 16, 4>;

/// Runs a stream into the machine.
pub fn run(data: &[u8]) {
    let config = BackendConfig::new(
        VirtioFeatures::from_bits_retain(0x1_7500_7e44),
        ProtocolFeatures::KNOWN.difference(ProtocolFeatures::XEN_MMAP),
        4,
    );
    let mut machine = Machine::new(config);
    let mut assembler = Assembler::<Token>::new(Channel::Frontend);
    let mut out = [0; MAX_MESSAGE];
    let mut rest = data;
    while let Some((&control, tail)) = rest.split_first() {
        rest = tail;
        let room = assembler.read_buf();
        let count = room.len().min(rest.len()).min(usize::from(control >> 4) * 8 + 1);
        room[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        let between = assembler.is_between_messages();
        let handles = if between { control & 0xf } else { 0 };
        if assembler.filled(count, (0..handles).map(|_| Token::new())).is_err() {
            return;
        }
        let Some(frame) = assembler.take() else { continue };
        let before = machine.session().clone();
        let reply = match machine.handle_request(frame) {
            Ok(Incoming::PostcopyMemoryMapped) => continue,
            Ok(Incoming::Request(_)) => machine.own_answer::<Token>().unwrap_or(FrontendReply::Done),
            Err(rejection) => {
                assert_eq!(&before, machine.session(), "a rejected request changes nothing");
                match rejection.verdict() {
                    Verdict::Refuse => FrontendReply::Refused(NonZeroU64::MIN),
                    Verdict::Close => {
                        assert!(machine.has_failed());
                        return;
                    }
                    Verdict::Misuse => unreachable!("every request was answered"),
                }
            }
        };
        let answered = match machine.answer(reply, &mut out) {
            Ok(answered) => answered,
            // It needs content that this device does not have.
            Err(_) => machine
                .answer::<Token>(FrontendReply::Refused(NonZeroU64::MIN), &mut out)
                .expect("every request can be refused"),
        };
        if let Answered::Close = answered {
            assert!(machine.has_failed());
            return;
        }
    }
}
