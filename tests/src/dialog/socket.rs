//! Bytes and descriptors over a Unix socket, one message at a time.

use crate::wire::{Fields, HEADER_SIZE, Header, Layout, Message};
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// How long a silent peer is waited for. Only a test that fails ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Descriptors that a receiver has room for: more than the protocol allows, so that too many are seen and not cut off.
const ROOM: usize = 32;

/// One end of a connection.
#[derive(Debug)]
pub struct Socket {
    stream: UnixStream,
}

/// A message as it came, with its descriptors.
#[derive(Debug)]
pub struct Received {
    /// Header and payload.
    pub message: Message,
    /// What came with the header's first byte.
    pub descriptors: Vec<OwnedFd>,
}

impl Received {
    /// The 12 bytes before the payload.
    pub fn header(&self) -> Header {
        self.message.header
    }

    /// The request's id.
    pub fn id(&self) -> u32 {
        self.message.header.request
    }

    /// The bytes after the header.
    pub fn payload(&self) -> &[u8] {
        &self.message.payload
    }

    /// The payload as one 64-bit number.
    pub fn number(&self) -> u64 {
        self.message.number()
    }

    /// The payload's fields.
    pub fn fields(&self, layout: Layout) -> Fields {
        self.message.fields(layout)
    }
}

impl Socket {
    /// This end of a connection, from now on with limits to its patience.
    pub fn new(stream: UnixStream) -> Self {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// One end, and the other for the code under test.
    pub fn pair() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Self::new(ours), theirs)
    }

    /// The stream itself.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends bytes, whatever they are, in one system call with these descriptors.
    #[track_caller]
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.try_send(bytes, descriptors).unwrap();
    }

    /// The same with the chance to see that the peer has closed its end.
    ///
    /// # Errors
    /// `BrokenPipe` when the peer is gone; `WouldBlock` when it has not read for too long.
    pub fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut sent = self.send_some(bytes, descriptors)?;
        // A stream may take fewer bytes than it was given; the descriptors went with the first of them.
        while sent < bytes.len() {
            sent += self.send_some(&bytes[sent..], &[])?;
        }
        Ok(())
    }

    /// Sends bytes in pieces that end at these positions, the descriptors with the first piece. Nothing makes the peer read the
    /// pieces one by one: where that matters, see [`Socket::send_cut_with`].
    #[track_caller]
    pub fn send_cut(&self, bytes: &[u8], positions: &[usize], descriptors: &[BorrowedFd<'_>]) {
        self.send_cut_with(bytes, positions, descriptors, || ());
    }

    /// The same, with something to do between each piece and the next: let the peer read.
    #[track_caller]
    pub fn send_cut_with(
        &self,
        bytes: &[u8],
        positions: &[usize],
        descriptors: &[BorrowedFd<'_>],
        mut between: impl FnMut(),
    ) {
        assert!(positions.is_sorted(), "cuts in order: {positions:?}");
        let mut start = 0;
        for &end in positions.iter().chain([&bytes.len()]) {
            // A cut at either end makes an empty piece; a stream cannot send those.
            if end > start {
                if start > 0 {
                    between();
                }
                self.send(&bytes[start..end], if start == 0 { descriptors } else { &[] });
                start = end;
            }
        }
    }

    /// The next message. Fails the test when there is none, or when descriptors came with any byte but the header's first.
    #[track_caller]
    pub fn receive(&self) -> Received {
        match self.try_receive() {
            Ok(Some(received)) => received,
            Ok(None) => panic!("the peer closed the connection where a message was expected"),
            Err(error) => panic!("no message: {error}"),
        }
    }

    /// The next message; `None` when the peer closed the connection after the last one.
    ///
    /// # Errors
    /// `TimedOut` when the peer is silent, `UnexpectedEof` when it stops inside a message, `InvalidData` when descriptors come
    /// with any byte but the header's first.
    pub fn try_receive(&self) -> io::Result<Option<Received>> {
        let mut bytes = [0; HEADER_SIZE];
        // One byte alone: a longer read would join it with bytes that the peer sent later, and take their descriptors for its own.
        let (first, rest) = bytes.split_at_mut(1);
        let (count, descriptors) = self.receive_some(first)?;
        if count == 0 {
            return Ok(None);
        }
        self.receive_rest(rest)?;
        let header = Header::read(bytes);
        let mut payload = vec![0; usize::try_from(header.size).unwrap()];
        self.receive_rest(&mut payload)?;
        Ok(Some(Received { message: Message { header, payload }, descriptors }))
    }

    /// Fails unless the peer has closed the connection, or closes it now, without another message.
    #[track_caller]
    pub fn assert_closed(&self) {
        match self.try_receive() {
            Ok(None) => {}
            // What a close with unread bytes looks like.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Ok(Some(received)) => {
                panic!("a message where the connection should close: {received:?}")
            }
            Err(error) => panic!("the connection should close: {error}"),
        }
    }

    fn receive_rest(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let (count, descriptors) = self.receive_some(buffer)?;
            if !descriptors.is_empty() {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "descriptors came late, in the middle of a message",
                ));
            }
            if count == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the peer closed inside a message"));
            }
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "no room for {}", descriptors.len());
        }
        let vector = [IoSlice::new(bytes)];
        // With a time limit the kernel does not go on by itself after a signal.
        Ok(rustix::io::retry_on_intr(|| sendmsg(&self.stream, &vector, &mut control, SendFlags::NOSIGNAL))?)
    }

    fn receive_some(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut vector = [IoSliceMut::new(buffer)];
        let message =
            rustix::io::retry_on_intr(|| recvmsg(&self.stream, &mut vector, &mut control, RecvFlags::CMSG_CLOEXEC))
                .map_err(|errno| match errno {
                    rustix::io::Errno::AGAIN => io::Error::new(ErrorKind::TimedOut, "the peer is silent"),
                    other => other.into(),
                })?;
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::new(ErrorKind::InvalidData, "more descriptors than any message may carry"));
        }
        Ok((message.bytes, descriptors))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
