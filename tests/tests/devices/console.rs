//! A guest prints on our console and reads what is typed there.
//!
//! The guest is a machine made by hand: the QEMU of Debian bookworm lets nobody have its device for back-ends of any kind.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;
use vhost_core::VirtioFeatures;

use crate::machine::{Machine, PATIENCE};
use vhost_tests::program::Daemon;

/// The queue of what the guest receives, and that of what it sends.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

#[test]
fn what_is_typed_reaches_the_guest_without_a_kick_and_what_it_prints_comes_out() {
    let folder = TempDir::new().unwrap();
    let terminal = folder.path().join("terminal");
    let listener = UnixListener::bind(&terminal).unwrap();
    let daemon = Daemon::start_in(folder, "console", [format!("--connect={}", terminal.display())]);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for features in [VirtioFeatures::empty(), VirtioFeatures::RING_EVENT_IDX] {
        let mut machine = Machine::connect(&daemon.socket(), 2, features);
        for round in 0..40 {
            machine.queues[TRANSMIT].send(0, format!("line {round}\n").as_bytes());
            let mut line = vec![0; format!("line {round}\n").len()];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(line, format!("line {round}\n").as_bytes());
            assert_eq!(machine.queues[TRANSMIT].wait(), (0, Vec::new()));

            machine.queues[RECEIVE].offer(1, 100);
            stream.write_all(format!("typed {round}").as_bytes()).unwrap();
            assert_eq!(machine.queues[RECEIVE].wait(), (1, format!("typed {round}").into_bytes()));
        }
    }
    drop(stream);
    daemon.end();
}

#[test]
fn an_output_that_blocks_keeps_nobody_from_stopping_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let terminal = folder.path().join("terminal");
    let listener = UnixListener::bind(&terminal).unwrap();
    let daemon = Daemon::start_in(folder, "console", [format!("--connect={}", terminal.display())]);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut machine = Machine::connect(&daemon.socket(), 2, VirtioFeatures::RING_EVENT_IDX);

    // More than a socket holds: the queue fills up while nobody reads.
    let (mut printed, mut slots): (Vec<u8>, Vec<u16>) = (Vec::new(), (0..32).collect());
    let page = |number: usize| vec![u8::try_from(number % 251).unwrap(); 0x2000];
    while let Some(slot) = slots.pop() {
        let bytes = page(printed.len());
        machine.queues[TRANSMIT].send(slot, &bytes);
        printed.extend(bytes);
    }
    // Neither side waits for the one who does not read.
    machine.frontend.set_vring_enable(1, vhost_std::frontend::Enabled::No).unwrap();
    machine.frontend.set_vring_enable(1, vhost_std::frontend::Enabled::Yes).unwrap();
    let mut read = vec![0; printed.len()];
    stream.read_exact(&mut read).unwrap();
    assert!(read == printed);
    let mut back = Vec::from_iter((0..32).map(|_| machine.queues[TRANSMIT].wait().0));
    back.sort_unstable();
    assert_eq!(back, Vec::from_iter(0..32));
    assert!(machine.queues[TRANSMIT].is_quiet());
    drop((stream, machine));
    daemon.end();
}

#[test]
fn a_pseudoterminal_is_named_and_works_for_one_after_another() {
    let daemon = Daemon::start("console", ["--pty".to_owned()]);
    let mut machine = Machine::connect(&daemon.socket(), 2, VirtioFeatures::empty());
    for round in 0..3 {
        let name = daemon.printed().trim().to_owned();
        let mut terminal = File::options().read(true).write(true).open(name).unwrap();
        machine.queues[TRANSMIT].send(0, b"login:");
        assert_eq!(machine.queues[TRANSMIT].wait().0, 0);
        let mut prompt = [0; 6];
        terminal.read_exact(&mut prompt).unwrap();
        assert_eq!(&prompt, b"login:", "round {round}");
        machine.queues[RECEIVE].offer(0, 10);
        terminal.write_all(b"root\n").unwrap();
        assert_eq!(machine.queues[RECEIVE].wait(), (0, b"root\n".to_vec()));
    }
}
