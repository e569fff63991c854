//! Memory regions of Xen guests: with `XEN_MMAP` they are eight bytes longer, and only then.

use crate::session::{BackendMachine, FrontendMachine, frame};
use vhost_core::wire::payload::{Form, PayloadFault, SizeRule};
use vhost_core::{
    ApiMisuse, Backend, BackendConfig, DecodeError, Delivery, Fault, Frontend, FrontendConfig, FrontendReply,
    FrontendRequest, GuestAddress, Incoming, MAX_MESSAGE, MemoryRegion, MemoryTable, ProtocolFeatures, UserAddress,
    VirtioFeatures, Xen,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Fixture};

const PLAIN: ProtocolFeatures = ProtocolFeatures::CONFIGURE_MEM_SLOTS.union(ProtocolFeatures::REPLY_ACK);
const XEN: ProtocolFeatures = PLAIN.union(ProtocolFeatures::XEN_MMAP);

fn machines(protocol: ProtocolFeatures) -> (FrontendMachine, BackendMachine) {
    let backend = Backend::new(BackendConfig::new(VirtioFeatures::VERSION_1, protocol, 2));
    let mut frontend = Frontend::new(FrontendConfig::new(2));
    frontend.assume_offer(VirtioFeatures::VERSION_1 | VirtioFeatures::PROTOCOL_FEATURES, protocol);
    let mut pair = (frontend, backend);
    crate::session::tell(&mut pair.0, &mut pair.1, FrontendRequest::SetProtocolFeatures(protocol));
    pair
}

/// Whether the back-end takes the message and does what it says.
fn take(backend: &mut BackendMachine, fixture: &Fixture) -> Result<(), Fault> {
    let ledger = Ledger::new();
    let bytes = fixture.request();
    let result = backend.handle_request(frame(&bytes, &ledger, fixture.descriptors));
    let (reply, result) = match result {
        Ok(Incoming::Request(request)) => {
            drop(request);
            (FrontendReply::Done, Ok(()))
        }
        Ok(Incoming::PostcopyMemoryMapped) => panic!("no such thing"),
        Err(rejection) => (FrontendReply::Refused(core::num::NonZeroU64::MIN), Err(rejection.fault())),
    };
    let mut out = [0; 64];
    let answered = backend.answer::<Token>(reply, &mut out);
    // A refused change of memory that cannot be told ends the session.
    assert_eq!(matches!(answered, Ok(vhost_core::Answered::Close)), result.is_err());
    ledger.assert_settled();
    result
}

fn forms(name: &str) -> [Fixture; 2] {
    [Fixture::USUAL, "xen"].map(|form| wire::frontend_form(name, form))
}

#[test]
fn regions_have_the_size_that_was_negotiated() {
    for (protocol, which, other) in [(PLAIN, 0, 1), (XEN, 1, 0)] {
        let mut backend = machines(protocol).1;
        take(&mut backend, &forms("SET_MEM_TABLE")[which]).unwrap();
        take(&mut backend, &forms("ADD_MEM_REG")[which]).unwrap();
        assert_eq!(backend.session().memory().regions().len(), 3);
        take(&mut backend, &forms("REM_MEM_REG")[which]).unwrap();
        assert_eq!(backend.session().memory().regions().len(), 2);
        for name in ["SET_MEM_TABLE", "ADD_MEM_REG", "REM_MEM_REG"] {
            let mut backend = machines(protocol).1;
            let (right, wrong) = (&forms(name)[which], &forms(name)[other]);
            let fault =
                PayloadFault::Size { expected: SizeRule::Exactly(right.payload.len()), found: wrong.payload.len() };
            let Err(Fault::Bytes(DecodeError::Payload { fault: found, .. })) = take(&mut backend, wrong) else {
                panic!("{name}")
            };
            assert_eq!(found, fault, "{name}");
            assert!(backend.session().memory().regions().is_empty());
        }
    }
}

#[test]
fn eight_regions_fit_and_go_back_to_the_same_bytes() {
    for (name, form) in [("SET_MEM_TABLE", "xen, eight regions"), ("SET_MEM_TABLE", "xen"), ("ADD_MEM_REG", "xen")] {
        let fixture = wire::frontend_form(name, form);
        let bytes = fixture.request();
        let request = FrontendRequest::decode(frame(&bytes, &Ledger::new(), fixture.descriptors), Form::request(XEN));
        let mut out = [0; MAX_MESSAGE];
        let transmit = request.unwrap().encode(false, Form::request(XEN), &mut out).unwrap();
        assert_eq!(transmit.bytes, bytes, "{name} ({form})");
    }
    take(&mut machines(XEN).1, &wire::frontend_form("SET_MEM_TABLE", "xen, eight regions")).unwrap();
}

#[test]
fn the_fields_are_those_of_the_wire() {
    let fixture = wire::frontend_form("ADD_MEM_REG", "xen");
    let fields = fixture.layout.decode(&fixture.payload).unwrap();
    let bytes = fixture.request();
    let request = FrontendRequest::decode(frame(&bytes, &Ledger::new(), 1), Form::request(XEN)).unwrap();
    let FrontendRequest::AddMemReg(region, _) = request else { panic!("another request") };
    let xen = region.xen.unwrap();
    assert_eq!(u64::from(xen.flags), fields.number("xen_flags"));
    assert_eq!(u64::from(xen.domain_id), fields.number("domain"));
    assert_eq!(region.guest_address.0, fields.number("guest_address"));
    assert_eq!(region.mmap_offset, fields.number("mmap_offset"));
    assert_eq!((Xen::FOREIGN, Xen::GRANT, Xen::NO_ADVANCE_MAP), (1, 2, 0x100));
}

#[test]
fn the_front_end_sends_what_was_negotiated_whatever_it_was_given() {
    let region = |xen| MemoryRegion {
        guest_address: GuestAddress(0x1000),
        size: 0x2000,
        user_address: UserAddress(0x7f00_0000_1000),
        mmap_offset: 0,
        xen,
    };
    let given = Xen { flags: Xen::GRANT | Xen::NO_ADVANCE_MAP, domain_id: 7 };
    let words =
        |payload: &[u8]| [&payload[payload.len() - 8..][..4], &payload[payload.len() - 4..]].map(<[u8]>::to_vec);
    let zeros = [0_u32, 0].map(|word| word.to_ne_bytes().to_vec());
    let xen_words = [0x102_u32, 7].map(|word| word.to_ne_bytes().to_vec());
    for (protocol, xen, size, last) in [
        (PLAIN, None, 40, None),
        (PLAIN, Some(given), 40, None),
        (XEN, None, 48, Some(&zeros)),
        (XEN, Some(given), 48, Some(&xen_words)),
    ] {
        let mut frontend = machines(protocol).0;
        let mut out = [0xee; MAX_MESSAGE];
        let add = FrontendRequest::AddMemReg(region(xen), Ledger::new().token());
        let bytes = frontend.request(add, Delivery::Unacknowledged, &mut out).unwrap().bytes[12..].to_vec();
        assert_eq!(bytes.len(), size);
        if let Some(last) = last {
            assert_eq!(words(&bytes), *last);
        }
        let regions = [region(xen)];
        let table =
            FrontendRequest::SetMemTable(MemoryTable::new(&regions), [Ledger::new().token()].into_iter().collect());
        let bytes = frontend.request(table, Delivery::Unacknowledged, &mut out).unwrap().bytes[12..].to_vec();
        assert_eq!(bytes.len(), size, "a count of four bytes, padding and one region");
    }
}

#[test]
fn a_cut_region_is_refused() {
    for name in ["SET_MEM_TABLE", "ADD_MEM_REG", "REM_MEM_REG"] {
        let fixture = wire::frontend_form(name, "xen");
        for end in 0..fixture.payload.len() {
            let mut cut = fixture.clone();
            cut.payload.truncate(end);
            assert!(matches!(take(&mut machines(XEN).1, &cut), Err(Fault::Bytes(_))), "{name} of {end}");
        }
    }
}

/// QEMU acknowledges `XEN_MMAP` whenever it is offered and knows nothing of it.
#[test]
fn the_bit_is_not_acknowledged_unless_offered() {
    let mut frontend = machines(PLAIN).0;
    let request = FrontendRequest::<Token>::SetProtocolFeatures(XEN);
    let mut out = [0; MAX_MESSAGE];
    let misuse = frontend.request(request, Delivery::Unacknowledged, &mut out).unwrap_err();
    assert!(matches!(misuse, ApiMisuse::Violation { .. }), "{misuse}");
}
