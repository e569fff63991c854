//! The console's two queues, with pipes that fill up and a terminal.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;

use rustix::fs::{OFlags, fcntl_getfl};

use super::*;
use crate::vring::test_ring::{BUFFERS, TestRing, WRITE};
use crate::vring::{Turn, Vring};

/// A queue of the device, with its place in guest memory.
struct Side {
    ring: TestRing,
    vring: Vring,
}

impl Side {
    fn new(queue: u16) -> Self {
        let ring = TestRing::new(64);
        let vring = ring.running_as(queue);
        Self { ring, vring }
    }

    fn process(&mut self, device: &ConsoleDevice) {
        assert_eq!(self.vring.process(device), Ok(Turn::Idle));
    }

    /// Has the driver print `text`, in descriptor `head`.
    fn print(&self, head: u16, text: &[u8]) {
        let at = BUFFERS + 0x2000 * u64::from(head);
        self.ring.write(at, text);
        self.ring.descriptor(head, (at, u32::try_from(text.len()).unwrap()), 0, 0);
        self.ring.offer(head);
    }

    /// Gives the device a buffer for input.
    fn listen(&self, head: u16, length: u32) {
        self.ring.descriptor(head, (BUFFERS + 0x2000 * u64::from(head), length), WRITE, 0);
        self.ring.offer(head);
    }

    /// What was typed so far.
    fn heard(&self) -> Vec<Vec<u8>> {
        let used = self.ring.all_used().into_iter();
        used.map(|(head, length)| self.ring.read(BUFFERS + 0x2000 * u64::from(head), length as usize)).collect()
    }
}

fn pipes() -> (ConsoleDevice, PipeWriter, PipeReader) {
    let (input, typing) = io::pipe().unwrap();
    let (reading, output) = io::pipe().unwrap();
    (ConsoleDevice::new(input.into(), output.into()).unwrap(), typing, reading)
}

#[test]
fn what_the_guest_prints_comes_out_in_order() {
    let (device, _typing, mut reading) = pipes();
    let mut side = Side::new(TRANSMIT);
    side.print(0, b"one ");
    side.print(1, b"two");
    side.process(&device);
    assert_eq!(side.ring.all_used(), [(0, 0), (1, 0)]);
    let mut text = [0; 7];
    reading.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"one two");
}

#[test]
fn an_output_that_is_full_holds_the_queue_and_loses_nothing() {
    let (device, _typing, mut reading) = pipes();
    let mut side = Side::new(TRANSMIT);
    let line = |head: u16| vec![b'a' + u8::try_from(head).unwrap(); 0x2000];
    for head in 0..12 {
        side.print(head, &line(head));
    }
    side.process(&device);
    // What the pipe holds, and one more that is kept.
    let taken = u16::try_from(rustix::pipe::fcntl_getpipe_size(&reading).unwrap() / 0x2000).unwrap() + 1;
    assert_eq!(side.ring.used_index(), taken);
    side.process(&device);
    assert_eq!(side.ring.used_index(), taken, "nothing has changed");
    let mut text = Vec::new();
    while text.len() < 12 * 0x2000 {
        let mut piece = vec![0; 5000];
        let count = reading.read(&mut piece).unwrap();
        text.extend_from_slice(&piece[..count]);
        side.process(&device);
    }
    assert_eq!(side.ring.used_index(), 12);
    assert!(text.chunks(0x2000).zip(0..).all(|(found, head)| found == line(head)));
}

#[test]
fn an_output_without_a_reader_takes_everything() {
    let (device, _typing, reading) = pipes();
    drop(reading);
    let mut side = Side::new(TRANSMIT);
    side.print(0, b"nobody hears this");
    side.process(&device);
    assert_eq!(side.ring.all_used(), [(0, 0)]);
}

#[test]
fn what_is_typed_waits_for_buffers_and_fills_them_in_order() {
    let (device, mut typing, _reading) = pipes();
    let mut side = Side::new(RECEIVE);
    side.process(&device);
    typing.write_all(b"hello, guest").unwrap();
    side.process(&device);
    side.listen(0, 5);
    side.listen(1, 100);
    side.listen(2, 100);
    side.process(&device);
    assert_eq!(side.heard(), [&b"hello"[..], b", guest"]);
    side.process(&device);
    assert_eq!(side.ring.used_index(), 2, "a buffer is kept for what comes");
    typing.write_all(b"more").unwrap();
    drop(typing);
    side.listen(3, 100);
    side.process(&device);
    side.process(&device);
    assert_eq!(side.heard()[2..], [b"more"], "the end of the input fills no buffer");
}

#[test]
fn a_terminal_neither_echoes_nor_edits() {
    let (device, name) = ConsoleDevice::pseudoterminal().unwrap();
    let (mut receiving, mut sending) = (Side::new(RECEIVE), Side::new(TRANSMIT));
    for round in 0..3 {
        // Somebody opens the terminal, and leaves again.
        let mut terminal = File::options().read(true).write(true).open(&name).unwrap();
        sending.print(round, b"login: \x04\n");
        sending.process(&device);
        let mut text = [0; 9];
        terminal.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"login: \x04\n");
        receiving.listen(round, 100);
        receiving.process(&device);
        assert_eq!(receiving.heard().len(), usize::from(round), "an echo");
        terminal.write_all(b"root\r\x7f").unwrap();
        receiving.process(&device);
        assert_eq!(receiving.heard()[usize::from(round)], b"root\r\x7f");
    }
}

#[test]
fn descriptors_get_their_mode_back_although_both_are_one() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let device = ConsoleDevice::new(ours.try_clone().unwrap().into(), ours.try_clone().unwrap().into()).unwrap();
    let mode = || fcntl_getfl(ours.as_fd()).unwrap() & OFlags::NONBLOCK;
    assert_eq!(mode(), OFlags::NONBLOCK);
    drop(device);
    assert_eq!(mode(), OFlags::empty());
    drop(theirs);
}

#[test]
fn each_queue_is_woken_by_its_own_descriptor() {
    let (device, ..) = pipes();
    assert_eq!(device.wake_on(RECEIVE).map(|wake| wake.when), Some(Readiness::Readable));
    assert_eq!(device.wake_on(TRANSMIT).map(|wake| wake.when), Some(Readiness::Writable));
    assert!(device.wake_on(2).is_none());
}
