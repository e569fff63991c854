//! `vhost-core` as firmware: a machine without an operating system is the back-end of our front-end, on rings in memory that
//! both share, over a serial line. The image is `tests/firmware`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod adaptor;
mod board;
mod guest;
mod image;

use std::io::Write as _;

use vhost_core::{GuestAddress, MemoryRegion, ProtocolFeatures, RingLayout, UserAddress, VirtioFeatures};
use vhost_std::frontend::{DeviceSetup, FrontendError};

use crate::board::Board;
use crate::guest::Guest;
use crate::image::Machine;

/// What the image says with its status; see its `device::End`.
const FRONTEND_GONE: u8 = 0;
const NOT_VHOST_USER: u8 = 2;

#[test]
fn a_pc_without_an_operating_system_is_a_back_end() {
    serves(Machine::Pc);
}

#[test]
fn a_risc_v_machine_without_an_operating_system_is_a_back_end() {
    serves(Machine::RiscV);
}

fn serves(machine: Machine) {
    for layout in [RingLayout::Split, RingLayout::Packed] {
        let Some(board) = Board::start(machine) else { return };
        let (mut frontend, board) = board.connect();
        let mut guest = Guest::new(&board.ram, layout);
        let protocol =
            ProtocolFeatures::INBAND_NOTIFICATIONS | ProtocolFeatures::BACKEND_REQ | ProtocolFeatures::REPLY_ACK;
        let agreed = frontend.negotiate(guest.features(), protocol).unwrap();
        assert_eq!(agreed.protocol, protocol);
        assert_eq!(agreed.acknowledged, guest.features() | VirtioFeatures::PROTOCOL_FEATURES);
        let mut channel = frontend.set_backend_req_fd().unwrap();

        let mut base = guest.first_base();
        for round in 0..2 {
            let region = (guest.region, guest.file.try_clone().unwrap());
            let memory = [(region.0, std::os::fd::AsFd::as_fd(&region.1))];
            let rings = [guest.ring_setup(base)];
            frontend.bring_up(&DeviceSetup { memory: &memory, rings: &rings, inflight: None }).unwrap();
            guest.exchange(&mut frontend, &mut channel, round);
            let stopped = frontend.tear_down().unwrap();
            assert_eq!(stopped.len(), 1);
            base = stopped[0].base;
            assert_eq!(base, guest.expected_base(), "{layout} ring on {machine:?}, round {round}");
        }
        assert!(guest.calls > 0, "the device never told of used buffers");
        drop(frontend);
        assert_eq!(board.status(), FRONTEND_GONE);
    }
}

#[test]
fn memory_in_which_the_image_lies_is_not_taken() {
    let Some(board) = Board::start(Machine::Pc) else { return };
    let (mut frontend, board) = board.connect();
    let protocol = ProtocolFeatures::INBAND_NOTIFICATIONS | ProtocolFeatures::BACKEND_REQ | ProtocolFeatures::REPLY_ACK;
    frontend.negotiate(VirtioFeatures::VERSION_1, protocol).unwrap();
    let whole = MemoryRegion::new(GuestAddress(0), board::RAM_SIZE, UserAddress(0x7000_0000), 0);
    let refused = frontend.set_mem_table(&[(whole, std::os::fd::AsFd::as_fd(&board.ram))]);
    // A refused memory table leaves both sides with different ideas of memory, so it ends the session or is told.
    assert!(refused.is_err_and(|error: FrontendError| error.request().is_some()));
    drop(frontend);
    assert_eq!(board.status(), FRONTEND_GONE);
}

#[test]
fn whoever_does_not_speak_vhost_user_ends_the_machine_with_its_own_status() {
    let Some(mut board) = Board::start(Machine::Pc) else { return };
    // On the front-end's channel, without handles: GET_FEATURES of a version that does not exist.
    board.line.write_all(&[[0, 0].as_slice(), &[1, 0, 0, 0], &[2, 0, 0, 0], &[0; 4]].concat()).unwrap();
    assert_eq!(board.status(), NOT_VHOST_USER);
}
