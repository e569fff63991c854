//! The same bytes to our back-ends and to others', the same calls and replies to our front-end and to another: every difference
//! stands in a list with its reason, and nothing else stands there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the numbers of cases are asked for")]

mod accepted;
mod case;
mod cases;
mod channels;
mod checked_list;
mod conversation;
mod difference;
mod frontends;
mod our_disk;
mod our_machine;
mod outcome;
mod qemu;
#[path = "../rust_vmm/recorder.rs"]
#[allow(dead_code, reason = "these tests do not look at all of it")]
mod recorder;
mod stage;
mod their_machine;

use case::Case;
use difference::{Compared, check};
use our_disk::OurDisk;
use our_machine::OurMachine;
use outcome::{Contents, End};
use qemu::Qemu;
use stage::Offer;
use their_machine::TheirMachine;
use vhost_std::socket::Socket;
use vhost_tests::dialog;
use vhost_tests::program::not_run;
use vhost_tests::wire::feature;

#[test]
fn our_machine_and_rust_vmms_make_the_same_of_the_same_bytes() {
    let offer = Offer { virtio: recorder::VIRTIO, protocol: recorder::PROTOCOL };
    let compare = |case: &Case| {
        let (socket, end) = dialog::Socket::pair();
        let ours = conversation::hold(case, offer, Contents::Compared, &socket, OurMachine::new(end));
        let (socket, end) = dialog::Socket::pair();
        let theirs = conversation::hold(case, offer, Contents::Compared, &socket, TheirMachine::new(end));
        Compared { case: case.name.clone(), ours: ours.line(), theirs: theirs.line() }
    };
    let compared = Vec::from_iter(cases::all(offer).iter().map(compare));
    println!("{}", check("rust-vmm's back-end", &compared, accepted::rust_vmm::ACCEPTED));
}

/// What both disks offer. The cases do not use what only some systems grant (`PAGEFAULT`).
const DISKS: Offer = Offer {
    virtio: feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::LOG_ALL | feature::EVENT_INDEX,
    protocol: feature::MQ
        | feature::LOG_SHMFD
        | feature::REPLY_ACK
        | feature::BACKEND_REQ
        | feature::CONFIG
        | feature::CONFIGURE_MEM_SLOTS,
};

#[test]
fn our_disk_and_qemus_make_the_same_of_the_same_bytes() {
    let Some(mut qemu) = Qemu::start() else { return };
    let version = qemu.version();
    if !version.contains(accepted::qemu::VERSION) {
        return not_run(&format!("the list of differences is that of {}, not of {version}", accepted::qemu::VERSION));
    }
    let offer = qemu.offer();
    let common = (offer.virtio & DISKS.virtio, offer.protocol & DISKS.protocol);
    assert_eq!(common, (DISKS.virtio, DISKS.protocol), "what qemu-storage-daemon offers: {offer:x?}");
    let mut server = our_disk::server();
    let mut echoes = 0;
    let mut compare = |case: &Case| {
        let (socket, end) = dialog::Socket::pair();
        let served = OurDisk::new(server.connect(Socket::from(end)));
        let mut ours = conversation::hold(case, DISKS, Contents::OfTheDevice, &socket, served);
        // All other refusals are seen from outside, as all of QEMU's are.
        if ours.end != End::GoesOn || !ours.replies.is_empty() {
            ours.told.clear();
        }
        let theirs = qemu.hold(case, DISKS);
        echoes += theirs.echoes;
        assert_eq!(ours.echoes, 0, "{}: ours has flags that are not 5", case.name);
        Compared { case: case.name.clone(), ours: ours.line(), theirs: theirs.line() }
    };
    let cases = difference::without(cases::all(DISKS), accepted::qemu::NOT_ASKED);
    let compared = Vec::from_iter(cases.iter().map(&mut compare));
    println!("{}", check("qemu-storage-daemon", &compared, accepted::qemu::ACCEPTED));
    assert_eq!(echoes, accepted::qemu::ECHOES, "replies of theirs with the flags of their requests");
}
