//! The stream: bytes in pieces of any size, images in between, descriptors in the wrong place, flags.

use crate::message::{self, Message, image, message};
use vhost_core::wire::payload::Form;
use vhost_core::{Assembler, Channel, DecodeError, GpuCode, GpuRequest, MAX_PAYLOAD, ProtocolFeatures};
use vhost_tests::tracked::{Ledger, Token};

const FORM: Form = Form::request(ProtocolFeatures::empty());

/// What a receiver made of a stream: each message with its image.
type Received = Vec<(GpuCode, Vec<u8>)>;

fn all_bytes() -> Vec<u8> {
    message::all().iter().flat_map(Message::whole).collect()
}

fn all_received() -> Received {
    message::all().iter().map(|message| (GpuCode(message.id), image(message.image))).collect()
}

/// Whether a receiver reads images or leaves them to the assembler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Images {
    Read,
    Skip,
}

/// Receives messages without descriptors from a stream that gives at most `piece` bytes at a time.
fn receive(mut stream: &[u8], piece: usize, images: Images) -> Received {
    let mut assembler = Assembler::<Token>::new(Channel::Gpu);
    let mut received = Received::new();
    let mut from_stream = |buffer: &mut [u8]| {
        let count = buffer.len().min(piece).min(stream.len());
        buffer[..count].copy_from_slice(&stream[..count]);
        stream = &stream[count..];
        count
    };
    loop {
        let left = usize::try_from(assembler.image_left()).unwrap();
        if images == Images::Read && left > 0 {
            let mut line = vec![0; left.min(13)];
            let count = from_stream(&mut line);
            assembler.image_read(count);
            received.last_mut().unwrap().1.extend(&line[..count]);
            continue;
        }
        let buffer = assembler.read_buf();
        assert!(!buffer.is_empty());
        let count = from_stream(buffer);
        if count == 0 {
            assert!(assembler.is_between_messages());
            return received;
        }
        assembler.filled(count, []).unwrap();
        if let Some(frame) = assembler.take() {
            received.push((GpuCode(frame.header.request()), Vec::new()));
        }
    }
}

#[test]
fn a_stream_in_pieces_of_any_size_gives_the_same_messages_and_images() {
    let (bytes, mut expected) = (all_bytes(), all_received());
    for piece in [1, 2, 3, 5, 11, 12, 13, 19, 20, 21, 31, 32, 33, 64, 4096, 5000, bytes.len()] {
        assert_eq!(receive(&bytes, piece, Images::Read), expected, "pieces of {piece}");
    }
    expected.iter_mut().for_each(|(_, image)| image.clear());
    for piece in [1, 7, 12, 32, 4096, bytes.len()] {
        assert_eq!(receive(&bytes, piece, Images::Skip), expected, "pieces of {piece}");
    }
}

/// Two reads, cut at every byte of every message; the image is skipped.
#[test]
fn a_message_cut_at_any_byte_is_whole_only_at_its_end() {
    for message in message::all() {
        let bytes = message.head();
        for cut in 0..bytes.len() {
            let ledger = Ledger::new();
            let mut assembler = Assembler::<Token>::new(Channel::Gpu);
            let mut rest = &bytes[..];
            for end in [cut, bytes.len()] {
                while bytes.len() - rest.len() < end {
                    let left = end - (bytes.len() - rest.len());
                    let at_start = rest.len() == bytes.len();
                    let buffer = assembler.read_buf();
                    let count = buffer.len().min(left);
                    buffer[..count].copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    let handles = if at_start { ledger.tokens(message.descriptors) } else { Vec::new() };
                    assembler.filled(count, handles).unwrap();
                }
                assert_eq!(assembler.is_whole(), end == bytes.len(), "{} at {cut}", message.name);
            }
            ledger.assert_open(message.descriptors);
            let request = GpuRequest::decode(assembler.take().unwrap(), FORM).unwrap();
            assert_eq!(request.code().0, message.id);
            assert_eq!(usize::try_from(assembler.image_left()).unwrap(), message.image);
            drop(request);
            ledger.assert_settled();
        }
    }
}

fn feed(assembler: &mut Assembler<Token>, mut bytes: &[u8]) -> Result<(), DecodeError> {
    while !bytes.is_empty() && !assembler.is_whole() {
        let buffer = assembler.read_buf();
        let count = buffer.len().min(bytes.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        assembler.filled(count, [])?;
    }
    Ok(())
}

#[test]
fn an_image_of_four_gigabytes_takes_no_room() {
    let mut assembler = Assembler::<Token>::new(Channel::Gpu);
    feed(&mut assembler, &message("UPDATE").head_with(0, 0xffff_ffff)).unwrap();
    let frame = assembler.take().unwrap();
    assert_eq!(frame.payload.len(), 20);
    GpuRequest::decode(frame, FORM).unwrap_err();
    assert_eq!(assembler.image_left(), 0xffff_ffff - 20);
    assert_eq!(assembler.read_buf().len(), 12 + MAX_PAYLOAD);
    assert!(!assembler.is_between_messages() && !assembler.is_whole());
    assembler.image_read(0xffff_ffff - 20);
    assert!(assembler.is_between_messages());
    feed(&mut assembler, &message("SCANOUT").head()).unwrap();
    assert!(assembler.is_whole());
}

/// An image read too far is the caller's mistake; the next message must not be taken for a part of it.
#[test]
fn an_image_ends_where_it_ends() {
    let mut assembler = Assembler::<Token>::new(Channel::Gpu);
    feed(&mut assembler, &message("UPDATE").head()).unwrap();
    let _ = assembler.take();
    assembler.image_read(usize::MAX);
    assert_eq!(assembler.image_left(), 0);
}

#[test]
fn only_requests_with_images_may_be_large() {
    let large = MAX_PAYLOAD + 1;
    let error = |head: &[u8]| feed(&mut Assembler::<Token>::new(Channel::Gpu), head).unwrap_err();
    let found = u32::try_from(large).unwrap();
    for id in [3, 9, 99] {
        let message = Message { id, ..message("SCANOUT") };
        let too_large = DecodeError::PayloadTooLarge { message: GpuCode(id).message(), found, limit: MAX_PAYLOAD };
        assert_eq!(error(&message.head_with(0, large)), too_large);
    }
    let update = DecodeError::PayloadTooLarge { message: GpuCode::UPDATE.message(), found, limit: MAX_PAYLOAD };
    assert_eq!(error(&message("UPDATE").head_with(4, large)), update, "a reply has no image");
}

#[test]
fn a_short_message_has_no_image() {
    for size in [0, 19, 20] {
        let mut assembler = Assembler::<Token>::new(Channel::Gpu);
        let head = message("UPDATE").head_with(0, size);
        feed(&mut assembler, &head[..12 + size]).unwrap();
        assert_eq!(assembler.take().unwrap().payload.len(), size);
        assert_eq!(assembler.image_left(), 0);
    }
}

#[test]
fn descriptors_in_the_middle_of_an_image_are_refused_and_closed() {
    let ledger = Ledger::new();
    let mut assembler = Assembler::<Token>::new(Channel::Gpu);
    feed(&mut assembler, &message("UPDATE").head()).unwrap();
    let _ = assembler.take();
    assert!(!assembler.read_buf().is_empty());
    let error = assembler.filled(4, ledger.tokens(2)).unwrap_err();
    assert_eq!(error, DecodeError::HandlesAfterStart { channel: Channel::Gpu });
    ledger.assert_settled();
}

#[test]
fn flags_are_none_in_requests_and_four_in_replies() {
    let check = |flags| feed(&mut Assembler::<Token>::new(Channel::Gpu), &message("SCANOUT").head_with(flags, 12));
    let message = GpuCode::SCANOUT.message();
    for flags in [0, 1, 4, 8, 0x10] {
        assert_eq!(check(flags), Ok(()), "{flags:#x}");
    }
    for found in [2, 3, 0xa] {
        assert_eq!(check(found), Err(DecodeError::Flags { message, expected: 0, found }));
    }
    for found in [5, 6, 0xc, 0x14] {
        assert_eq!(check(found), Err(DecodeError::Flags { message, expected: 4, found }));
    }
}
