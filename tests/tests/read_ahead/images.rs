//! Images of the GPU channel: never collected, skipped when nobody reads them.

use vhost_core::{Channel, DecodeError, Dialect, ReadAhead};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::header;

fn on_gpu() -> ReadAhead<Token> {
    ReadAhead::on(Channel::Gpu, Dialect::Standard)
}

/// `UPDATE` with so many bytes of image to follow.
fn update(image: u32) -> Vec<u8> {
    [&header(8, 0, 20 + image)[..], &[1; 20]].concat()
}

fn fill(incoming: &mut ReadAhead<Token>, bytes: &[u8], handles: Vec<Token>) {
    incoming.read_buf()[..bytes.len()].copy_from_slice(bytes);
    incoming.filled(bytes.len(), handles);
}

#[test]
fn an_image_of_four_gigabytes_takes_no_room() {
    let mut incoming = on_gpu();
    fill(&mut incoming, &update(0xffff_ffff - 20), Vec::new());
    assert_eq!(incoming.next().unwrap().unwrap().payload.len(), 20);
    assert!(!incoming.has_next() && !incoming.is_between_messages());
    assert_eq!(incoming.image_left(), 0xffff_ffff - 20);
    fill(&mut incoming, &[0; 4000], Vec::new());
    assert_eq!(incoming.image_left(), 0xffff_ffff - 20 - 4000, "skipped");
    assert!(!incoming.has_next() && incoming.image_part().is_empty());
    incoming.image_read(usize::MAX);
    assert!(incoming.is_between_messages(), "not one byte of the next message");
    fill(&mut incoming, &update(0), Vec::new());
    assert!(incoming.next().unwrap().is_some() && incoming.is_between_messages());
}

#[test]
fn a_message_behind_an_image_has_its_descriptor_and_the_image_has_none() {
    let scanout = [&header(9, 0, 40)[..], &[1; 40]].concat();
    for cut in 0..=8 {
        let ledger = Ledger::new();
        let mut incoming = on_gpu();
        let image = b"an image";
        fill(&mut incoming, &[&update(8), &image[..cut]].concat(), Vec::new());
        assert!(incoming.next().unwrap().unwrap().handles.is_empty());
        assert_eq!(incoming.image_part(), &image[..cut]);
        fill(&mut incoming, &[&image[cut..], &scanout].concat(), ledger.tokens(1));
        assert_eq!(incoming.next().unwrap().unwrap().handles.len(), 1, "{cut}");
        assert!(incoming.is_between_messages());

        fill(&mut incoming, &[&update(8), &image[..cut]].concat(), ledger.tokens(1));
        assert_eq!(incoming.next().unwrap().unwrap().handles.len(), 1, "the last of its piece");
        if cut < 8 {
            fill(&mut incoming, &image[cut..], ledger.tokens(1));
            let error = incoming.next().unwrap_err();
            assert_eq!(error, DecodeError::HandlesAfterStart { channel: Channel::Gpu });
        }
        ledger.assert_settled();
    }
}

#[test]
fn replies_and_requests_of_other_kinds_have_no_image() {
    for (id, flags, limit) in [(8, 4, 4096), (7, 0, 4096), (99, 0, 4096)] {
        let mut incoming = on_gpu();
        fill(&mut incoming, &header(id, flags, 4097), Vec::new());
        let error = incoming.next().unwrap_err();
        assert!(matches!(error, DecodeError::PayloadTooLarge { found: 4097, limit: at, .. } if at == limit), "{error}");
    }
}
