//! Between a socket and a serial line: a descriptor becomes a number, and both channels share the line.
//!
//! The other end is `tests/firmware/src/line.rs`, which says what goes over the line.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use vhost_core::{Assembler, Channel, FrontendCode, Handles, MAX_MESSAGE, Transmit, Transport, receive};
use vhost_std::deadline::Deadline;
use vhost_std::socket::{Received, Socket};

/// The file of the machine's RAM.
const RAM: u8 = 0;
/// The other end of the back-end's channel.
const CHANNEL: u8 = 1;

/// Comes alone: the front-end has gone.
const GONE: u8 = 255;

/// The serial line, as a transport for messages that were announced.
struct Line {
    stream: UnixStream,
    sending: Channel,
}

impl Transport for Line {
    type Handle = u8;
    type Error = io::Error;

    fn send(&mut self, message: Transmit<'_, u8>) -> io::Result<()> {
        let mut bytes = vec![u8::from(self.sending == Channel::Backend), u8::try_from(message.handles.len()).unwrap()];
        bytes.extend_from_slice(&message.handles);
        bytes.extend_from_slice(message.bytes);
        self.stream.write_all(&bytes)
    }

    fn receive(&mut self, buffer: &mut [u8], _: &mut Handles<u8>) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

/// Carries messages until the machine ends; once the front-end has gone, tells the machine.
pub(crate) fn carry(main: &Socket, line: UnixStream, ram: &File) {
    let mut line = Line { stream: line, sending: Channel::Frontend };
    let mut requests = Assembler::<OwnedFd>::new(Channel::Frontend);
    let mut answers = Assembler::<OwnedFd>::new(Channel::Backend);
    let mut channel: Option<Socket> = None;
    let mut gone = false;
    loop {
        // A descriptor that nobody is behind any more stands for the line, which is asked anyway.
        let main_end = if gone { line.stream.as_fd() } else { main.as_fd() };
        let channel_end = channel.as_ref().map_or(line.stream.as_fd(), AsFd::as_fd);
        let mut ends =
            [line.stream.as_fd(), main_end, channel_end].map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN));
        rustix::io::retry_on_intr(|| poll(&mut ends, None)).unwrap();
        let [from_line, from_main, from_channel] = ends.map(|end| !end.revents().is_empty());
        if from_line && !to_sockets(&mut line, main, channel.as_ref()) {
            return;
        }
        if from_main && !gone {
            line.sending = Channel::Frontend;
            if let Some(opened) = to_line(main, &mut requests, &mut line, ram) {
                channel = opened.or(channel);
            } else {
                line.stream.write_all(&[GONE]).unwrap();
                gone = true;
            }
        }
        if from_channel {
            line.sending = Channel::Backend;
            if channel.as_ref().is_some_and(|socket| to_line(socket, &mut answers, &mut line, ram).is_none()) {
                channel = None;
            }
        }
    }
}

/// Takes what a socket has; `None` when its peer has closed it. A message may open the back-end's channel.
fn to_line(socket: &Socket, assembler: &mut Assembler<OwnedFd>, line: &mut Line, ram: &File) -> Option<Option<Socket>> {
    match socket.receive(assembler.read_buf(), Deadline::NEVER).unwrap() {
        Received::Data { bytes, handles } => assembler.filled(bytes, handles).unwrap(),
        Received::EndOfStream => return None,
    }
    let Some(frame) = assembler.take() else { return Some(None) };
    let mut opened = None;
    let mut numbers = Handles::new();
    for handle in frame.handles {
        let number = if is_same(&handle, ram) { RAM } else { CHANNEL };
        if number == CHANNEL {
            assert_eq!(
                FrontendCode(frame.header.request()),
                FrontendCode::SET_BACKEND_REQ_FD,
                "a descriptor that is no number"
            );
            opened = Some(Socket::from(handle));
        }
        numbers.push(number).unwrap();
    }
    let bytes = [&frame.header.to_bytes(), frame.payload].concat();
    line.send(Transmit { bytes: &bytes, handles: numbers }).unwrap();
    Some(opened)
}

/// Takes a message that the machine sends; `false` when it has ended.
fn to_sockets(line: &mut Line, main: &Socket, channel: Option<&Socket>) -> bool {
    let mut front = [0; 2];
    if line.stream.read_exact(&mut front).is_err() {
        return false;
    }
    assert_eq!(front[1], 0, "the machine has no descriptors to give away");
    let (name, socket) = if front[0] == 0 { (Channel::Frontend, Some(main)) } else { (Channel::Backend, channel) };
    let mut assembler = Assembler::<u8, MAX_MESSAGE>::new(name);
    let frame = receive(line, &mut assembler).unwrap().expect("the machine ended in the middle of a message");
    let bytes = [&frame.header.to_bytes(), frame.payload].concat();
    if let Some(socket) = socket {
        // It fails only when the front-end has gone, and then nobody misses it.
        let _ = socket.send(&bytes, &[], Deadline::NEVER);
    }
    true
}

fn is_same(handle: &OwnedFd, file: &File) -> bool {
    let [handle, file] = [rustix::fs::fstat(handle), rustix::fs::fstat(file)].map(Result::unwrap);
    (handle.st_dev, handle.st_ino) == (file.st_dev, file.st_ino)
}
