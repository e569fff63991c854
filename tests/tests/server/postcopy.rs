//! Postcopy: memory whose pages come when they are touched.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vhost_core::Postcopy;
use vhost_std::server::RingThreads;
use vhost_tests::dialog::Received;
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR, table};
use vhost_tests::program::not_run;
use vhost_tests::userfault::{Provider, is_granted};
use vhost_tests::wire::REQUEST;

use crate::support::{Bench, Dialog, Image, id, message, number};

fn is_possible() -> bool {
    if !is_granted() {
        not_run("userfaultfd is not granted");
    }
    is_granted()
}

/// Announces postcopy and listens; the descriptor that tells of faults.
fn listen(bench: &mut Bench<'_>) -> OwnedFd {
    let Received { message, mut descriptors } = bench.ask("POSTCOPY_ADVISE", &[]);
    assert_eq!((message.payload.len(), descriptors.len()), (0, 1));
    bench.grant("POSTCOPY_LISTEN", &[], &[]);
    descriptors.remove(0)
}

/// Shares memory in one of both ways; where the back-end has it. It is not acknowledged.
fn share(bench: &mut Bench<'_>, name: &str, memory: &GuestMemory) -> u64 {
    let payload = if name == "SET_MEM_TABLE" { table(&[memory.region()]) } else { memory.single() };
    bench.say(&message(name, REQUEST, &payload), &[memory.as_fd()]);
    let reply = bench.frontend().receive_reply(id(name));
    let mut expected = payload;
    expected[24..32].copy_from_slice(&reply.payload()[24..32]);
    assert_eq!(reply.payload(), expected, "{name}: the same but for the user address");
    let address = u64::from_ne_bytes(reply.payload()[24..32].try_into().unwrap());
    assert_ne!(address, memory.region().user);
    address
}

#[test]
fn s43_pages_come_when_the_rings_touch_them() {
    if !is_possible() {
        return;
    }
    for (name, threads) in [("SET_MEM_TABLE", RingThreads::Shared(1)), ("ADD_MEM_REG", RingThreads::Caller)] {
        let image = Image::new();
        let mut server = image.server(1, threads);
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let mut ring = Ring::new(&memory, 0, 16);
        ring.request(0, Command::Write(&[7; SECTOR]), 5);
        ring.request(1, Command::Read(SECTOR as u32), 5);
        let mut bench = Bench::negotiated(&mut server);
        let faults = listen(&mut bench);
        let address = share(&mut bench, name, &memory);
        let provider = Provider::start(&memory, faults, address);
        // Third part of the exchange: it is not answered.
        bench.request(name, &number(0), &[]);
        assert_eq!(bench.connection().session().postcopy(), Postcopy::Listening);
        bench.start(&ring);
        bench.enable(&ring, 1);
        assert_eq!(bench.wait_used(&mut ring), (0, 1), "{name}");
        assert_eq!(bench.wait_used(&mut ring).0, 3, "{name}");
        assert_eq!(ring.data(1, SECTOR), [7; SECTOR]);
        assert_eq!(image.read(5, SECTOR), [7; SECTOR]);
        assert_eq!(bench.ask_number("POSTCOPY_END"), 0);
        assert_eq!(bench.stop(&ring), 2);
        assert!(provider.finish() >= 4, "three parts of the ring, and buffers");
    }
}

/// The front-end cannot provide anything before it was told where the back-end has the memory, and has said so.
#[test]
fn s43_memory_is_not_touched_before_it_is_acknowledged() {
    if !is_possible() {
        return;
    }
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Caller);
    let (first, second) = (Arc::new(GuestMemory::new(BLOCK)), GuestMemory::new(0x1000));
    let mut region = second.region();
    (region.guest, region.user) = (0x1000, 0x1000);
    let second = GuestMemory::at(region);
    let mut ring = Ring::new(&first, 0, 16);
    ring.request(0, Command::Flush, 0);
    let mut bench = Bench::negotiated(&mut server);
    let faults = listen(&mut bench);
    let address = share(&mut bench, "ADD_MEM_REG", &first);
    let provider = Provider::start(&first, faults, address);
    share(&mut bench, "ADD_MEM_REG", &second);
    bench.start(&ring);
    bench.enable(&ring, 1);
    bench.settle();
    assert_eq!(ring.take_used(), None);
    bench.grant("REM_MEM_REG", &second.single(), &[]);
    bench.request("ADD_MEM_REG", &number(0), &[]);
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
    assert_eq!(bench.ask_number("POSTCOPY_END"), 0);
    let _ = provider.finish();
}

#[test]
fn a_front_end_that_goes_away_leaves_no_thread_waiting_for_its_pages() {
    if !is_possible() {
        return;
    }
    go_away(drop);
}

#[test]
fn a_front_end_that_keeps_the_descriptor_of_its_pages_keeps_no_thread() {
    if !is_possible() {
        return;
    }
    let mut kept = None;
    go_away(|faults| kept = Some(faults));
    assert!(kept.is_some());
}

/// Goes away while a ring's thread waits for a page, and does something with what it would be provided through.
fn go_away(leave: impl FnOnce(OwnedFd)) {
    let image = Image::new();
    let mut server = image.server(1, RingThreads::Shared(1));
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    ring.request(0, Command::Read(SECTOR as u32), 0);
    let mut bench = Bench::negotiated(&mut server);
    let faults = listen(&mut bench);
    let address = share(&mut bench, "SET_MEM_TABLE", &memory);
    bench.request("SET_MEM_TABLE", &number(0), &[]);
    let provider = Provider::start(&memory, faults.try_clone().unwrap(), address);
    bench.start(&ring);
    let _ = provider.finish();
    bench.enable(&ring, 1);
    // The ring's thread waits for a page now, and nobody provides it.
    vhost_tests::driver::wait_readable(&faults);
    leave(faults);
    drop(bench);
    // The device serves the next one.
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    ring.request(0, Command::Flush, 0);
    ring.kick();
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}
