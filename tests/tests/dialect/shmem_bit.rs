//! The protocol feature bit that means SHMEM was 20, then 21, and is 22.

use crate::session::{FrontendMachine, NEEDED, session_with_bit, tell};
use vhost_core::{FrontendConfig, FrontendReply, FrontendRequest, ProtocolFeatures, ShmemBit};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire;

/// The bits of an acknowledgement as they go over the wire.
fn on_the_wire(bit: ShmemBit, protocol: ProtocolFeatures) -> u64 {
    let (mut frontend, mut backend) = session_with_bit(bit, protocol);
    assert_eq!(frontend.session().negotiated().protocol, protocol);
    let bytes = tell(&mut frontend, &mut backend, FrontendRequest::SetProtocolFeatures(protocol));
    assert_eq!(backend.session().negotiated().protocol, protocol);
    u64::from_ne_bytes(bytes[12..].try_into().unwrap())
}

#[test]
fn shmem_is_the_bit_that_the_peer_knows() {
    let with = NEEDED | ProtocolFeatures::SHMEM;
    for (bit, number) in [(ShmemBit::Bit20, 20), (ShmemBit::Bit21, 21), (ShmemBit::Bit22, 22)] {
        assert_eq!(on_the_wire(bit, with), NEEDED.bits() | 1 << number);
        assert_eq!(on_the_wire(bit, NEEDED), NEEDED.bits());
    }
    assert_eq!(ShmemBit::default(), ShmemBit::Bit22);
}

/// To QEMU bit 21 is GPA_ADDRESSES: taken for SHMEM, ring addresses would mean something else than they say.
#[test]
fn what_an_older_peer_offers_is_taken_for_what_it_means() {
    for (bit, offered, expected) in [
        (ShmemBit::Bit22, 1 << 21, ProtocolFeatures::GPA_ADDRESSES),
        (ShmemBit::Bit22, 1 << 20, ProtocolFeatures::GET_VRING_BASE_INFLIGHT),
        (ShmemBit::Bit21, 1 << 21, ProtocolFeatures::SHMEM),
        (ShmemBit::Bit21, 1 << 20, ProtocolFeatures::GET_VRING_BASE_INFLIGHT),
        (ShmemBit::Bit21, 1 << 22, ProtocolFeatures::empty()),
        (ShmemBit::Bit20, 1 << 20, ProtocolFeatures::SHMEM),
        (ShmemBit::Bit20, 1 << 22, ProtocolFeatures::empty()),
    ] {
        let mut config = FrontendConfig::new(1);
        config.tolerance.shmem_bit = bit;
        let mut frontend = FrontendMachine::new(config);
        frontend.assume_offer(vhost_core::VirtioFeatures::PROTOCOL_FEATURES, ProtocolFeatures::empty());
        let mut out = [0; 64];
        let request = FrontendRequest::<vhost_tests::tracked::Token>::GetProtocolFeatures;
        let _ = frontend.request(request, vhost_core::Delivery::Unacknowledged, &mut out).unwrap();
        let number = offered | NEEDED.bits();
        let bytes = [&wire::header(15, 5, 8)[..], &number.to_ne_bytes()].concat();
        let reply = frontend.handle_reply(crate::session::frame(&bytes, &Ledger::new(), 0));
        assert_eq!(reply, Ok(FrontendReply::GetProtocolFeatures(expected | NEEDED)), "{bit:?} {offered:#x}");
    }
}
