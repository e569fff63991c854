//! What messages and their tables show of themselves, and values that are made of nothing.

use crate::say;
use vhost_core::uapi::MessageFault;
use vhost_core::uapi::ioctl::IoctlNumber;
use vhost_core::uapi::vduse_message::VduseVersion;
use vhost_core::uapi::vhost::VhostIoctl;
use vhost_core::wire::gpu::{Display, DisplayInfo, Edid};
use vhost_core::wire::payload::SizeRule;
use vhost_core::wire::row::{Enforcement, HandleCount};
use vhost_core::wire::shared::{SharedMemoryConfig, Uuid};
use vhost_core::{
    Assembler, BackendCode, CacheAccess, CacheEntries, Channel, Dialect, DialectViolation, FrontendCode, GpuCode,
    GuestAddress, MemoryMap, MemoryRegion, MemoryTable, ProtocolFeatures, ReadAhead, ReceiveError, Tolerance,
    UserAddress, Violation,
};

#[test]
fn gates_say_what_they_need() {
    let frontend = |code: FrontendCode| code.row().unwrap().gate;
    let gate = BackendCode::IOTLB_MSG.row().unwrap().gate;
    say([
        (frontend(FrontendCode::SET_OWNER), ""),
        (frontend(FrontendCode::GET_PROTOCOL_FEATURES), "PROTOCOL_FEATURES offered"),
        (frontend(FrontendCode::SET_VRING_ENABLE), "PROTOCOL_FEATURES negotiated"),
        (gate, "BACKEND_REQ, virtio ACCESS_PLATFORM"),
        (frontend(FrontendCode::IOTLB_MSG), "virtio ACCESS_PLATFORM"),
        (GpuCode::GET_EDID.row().unwrap().gate, "GPU EDID"),
        (GpuCode::DMABUF_SCANOUT2.row().unwrap().gate, "GPU DMABUF2"),
    ]);
    let queues = frontend(FrontendCode::GET_QUEUE_NUM);
    assert_eq!(queues.enforcement(), Enforcement::FrontendOnly);
    assert_eq!(
        format!("{gate:?} {queues:?}"),
        "Gate(BACKEND_REQ, virtio ACCESS_PLATFORM) Gate(MQ; for the front-end only)"
    );
    let violation = Violation::NotNegotiated { gate };
    assert_eq!(violation.to_string(), "it needs BACKEND_REQ, virtio ACCESS_PLATFORM, which was not negotiated");
}

#[test]
fn sizes_and_counts_are_one_or_a_range() {
    say([
        (SizeRule::Exactly(8), "8"),
        (SizeRule::Either(24, 20), "24 or 20"),
        (SizeRule::Between(8, 328), "8 to 328"),
        (SizeRule::Between(20, usize::MAX), "20 or more"),
    ]);
    say([(HandleCount { least: 1, most: 1 }, "1"), (HandleCount { least: 0, most: 1 }, "0 to 1")]);
}

#[test]
fn a_dialect_says_what_it_cannot_say() {
    let dialect = Dialect::FsA1;
    say([
        (DialectViolation::Flags { dialect, found: 0x10 }, "the dialect FsA1 cannot say the flags 0x10"),
        (
            DialectViolation::Access { dialect, found: CacheAccess::empty() },
            "the dialect FsA1 cannot say the access 0x0",
        ),
        (DialectViolation::WholeWindow { dialect }, "the dialect FsA1 cannot unmap everything at once"),
    ]);
}

#[test]
fn the_kernel_s_numbers_and_messages() {
    say([(IoctlNumber(0xaf01), "0x0000af01")]);
    assert_eq!(format!("{:?}", IoctlNumber(0xaf01)), "IoctlNumber(0x0000af01)");
    assert_eq!(VhostIoctl::ALL[0].to_string(), VhostIoctl::ALL[0].name());
    assert_eq!((VduseVersion::V0.number(), VduseVersion::V1.number()), (0, 1));
    say([
        (MessageFault::TooShort { expected: 72, found: 71 }, "a message of the kernel has 72 bytes or more, 71 came"),
        (MessageFault::Field { name: "type", expected: "1 to 6", found: 9 }, "type must be 1 to 6, 9 came"),
    ]);
}

#[test]
fn what_is_shared_and_mapped() {
    let uuid = Uuid::new(core::array::from_fn(|at| at as u8));
    assert_eq!(uuid.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    let region = MemoryRegion::new(GuestAddress(0), 0x1000, UserAddress(0x7000), 0x2000);
    assert_eq!(region.to_string(), "region (guest 0x0, user 0x7000, size 0x1000, file offset 0x2000)");
    let (one, other) = ([region], [MemoryRegion { size: 0x2000, ..region }]);
    assert_eq!(MemoryTable::new(&one), MemoryTable::new(&one));
    assert_ne!(MemoryTable::new(&one), MemoryTable::new(&other));
    let none = CacheEntries::new(&[]);
    assert!(none.is_empty());
    assert_eq!((none, format!("{none:?}")), (CacheEntries::new(&[]), "[]".to_owned()));
    assert_ne!(none, none.with_flags(CacheEntries::DROP_FSETID));
    let sizes = SharedMemoryConfig::new(&[0, 0x1000]);
    assert_eq!((sizes, format!("{sizes:?}")), (SharedMemoryConfig::new(&[0, 0x1000, 0]), "{1: 4096}".to_owned()));
    assert_ne!(sizes, SharedMemoryConfig::new(&[0x1000]));
}

#[test]
fn displays_show_what_is_there() {
    let off = Display { width: 1, ..Display::default() };
    let on = Display { width: 1280, height: 800, enabled: true, ..off };
    let shown = format!("{:?}", DisplayInfo::new(&[off, on]));
    assert_eq!(shown, format!("{{\"response\": Response(0x1101), 1: {on:?}}}"));
    let shown = format!("{:?}", Edid::new(&[0; 128]).unwrap());
    assert_eq!(shown, "Edid { response: Response(0x1104), size: 128, .. }");
}

#[test]
fn what_is_made_of_nothing_is_empty() {
    assert_eq!(Tolerance::default(), Tolerance::new());
    assert_eq!(MemoryMap::<4>::default(), MemoryMap::new());
    let reader = ReadAhead::<u32, 8192>::default();
    assert!(reader.is_between_messages() && format!("{reader:?}").starts_with("ReadAhead {"));
    let assembler = Assembler::<u32, 64>::new(Channel::Frontend);
    assert!(format!("{assembler:?}").starts_with("Assembler { channel: Frontend, filled: 0,"), "{assembler:?}");
    let both = ProtocolFeatures::HOST_NOTIFIER | ProtocolFeatures::BACKEND_REQ;
    assert_eq!(both.without_broken(), ProtocolFeatures::BACKEND_REQ, "it needs BACKEND_SEND_FD too");
}

#[test]
fn a_transport_fails_in_one_of_three_ways() {
    let bytes = vhost_core::DecodeError::HandlesAfterStart { channel: Channel::Frontend };
    say([
        (ReceiveError::Transport("it broke"), "it broke"),
        (ReceiveError::Bytes(bytes), "descriptors came after the first byte of a message on the Frontend channel"),
        (ReceiveError::Truncated, "the peer closed in the middle of a message"),
    ]);
}
