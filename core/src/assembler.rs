//! Bytes to frames: which bytes and which descriptors make one message.

use core::fmt;

use zerocopy::FromBytes;

use crate::{
    error::DecodeError,
    wire::{
        gpu::GpuCode,
        header::Header,
        memory::MAX_TABLE_REGIONS,
        row::{Channel, MessageName},
    },
};

/// The most descriptors of one message: a memory table has one for each of its eight regions.
pub const MAX_HANDLES: usize = MAX_TABLE_REGIONS;

/// The most payload bytes of one message that a standard [`Assembler`] takes. The largest message
/// of the protocol has 2056 (`GET_SHMEM_CONFIG`).
pub const MAX_PAYLOAD: usize = 4096;

/// The size of a buffer that holds any message: header and payload, in bytes.
pub const MAX_MESSAGE: usize = Header::SIZE + MAX_PAYLOAD;

/// The descriptors of one message, or whatever stands for them.
///
/// Any type will do: `OwnedFd` on Unix, a capability in a kernel, a number on a serial line. A
/// handle that nobody takes is dropped, so one that must be given back does that in its `Drop`:
///
/// ```
/// use core::cell::Cell;
/// use vhost_core::{Backend, BackendConfig, Frame, Handles, ProtocolFeatures, VirtioFeatures, wire::header::Header};
///
/// /// A capability of a microkernel.
/// struct Capability<'k>(&'k Cell<u32>);
///
/// impl Drop for Capability<'_> {
///     fn drop(&mut self) {
///         self.0.set(self.0.get() + 1); // the system call that gives it back
///     }
/// }
///
/// let given_back = Cell::new(0);
/// let mut backend = Backend::<1, 8, 4>::new(BackendConfig::new(VirtioFeatures::VERSION_1, ProtocolFeatures::empty(), 1));
/// // SET_OWNER has no descriptors. The peer sends one all the same: refused, and given back.
/// let frame = Frame {
///     header: Header::request_of(3, false, 0),
///     payload: &[],
///     handles: Handles::from_iter([Capability(&given_back)]),
/// };
/// assert!(backend.handle_request(frame).is_err());
/// assert_eq!(given_back.get(), 1);
/// ```
pub type Handles<H> = heapless::Vec<H, MAX_HANDLES>;

/// One whole message as it came in.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Frame<'b, H> {
    /// The first twelve bytes.
    pub header: Header,
    /// The bytes after them, as many as the header says; of a message that an image follows (on
    /// the GPU channel) those in front of the image.
    pub payload: &'b [u8],
    /// The descriptors that came with the first byte.
    pub handles: Handles<H>,
}

/// One whole message to send: all bytes in one piece, the descriptors with the first byte.
///
/// DPDK, VPP and passt read the header with a single call, so a message must not be cut on
/// purpose; when a transport takes a part only, the rest goes before anything else.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Transmit<'o, H> {
    /// Header and payload. An image (on the GPU channel) follows from where the caller has it.
    pub bytes: &'o [u8],
    /// The descriptors that go with the first byte.
    pub handles: Handles<H>,
}

/// Collects bytes and descriptors until a message is whole.
///
/// It asks for exactly the bytes that are missing, first of the header and then of the payload,
/// so no byte and no descriptor of the next message is ever read early. `CAP` is the size of its
/// buffer in bytes and bounds the messages it takes; memory is never reserved by a peer's word.
///
/// An image on the GPU channel is not collected: the frame ends in front of it, and what follows
/// can be read to wherever it is wanted, see [`Self::image_left`].
///
/// ```
/// use vhost_core::{Assembler, Channel, wire::header::Header};
///
/// let mut incoming: &[u8] = &Header::request_of(1, false, 0).to_bytes();
/// let mut assembler = Assembler::<std::os::fd::OwnedFd>::new(Channel::Frontend);
/// let frame = loop {
///     if let Some(frame) = assembler.take() {
///         break frame;
///     }
///     let count = std::io::Read::read(&mut incoming, assembler.read_buf())?;
///     assembler.filled(count, [])?;
/// };
/// assert_eq!(frame.header.request(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Assembler<H, const CAP: usize = MAX_MESSAGE> {
    channel: Channel,
    buffer: [u8; CAP],
    filled: usize,
    image: u32,
    handles: Handles<H>,
    failed: Option<Failure>,
}

/// Why nothing more can be read. What there is to tell of it is in the buffer.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Header,
    HandlesAfterStart,
    TooManyHandles,
}

impl<H, const CAP: usize> Assembler<H, CAP> {
    const ROOM_FOR_HEADER: () = assert!(CAP >= Header::SIZE, "a header must fit");

    /// An empty assembler. The channel only names messages in errors.
    #[must_use]
    pub const fn new(channel: Channel) -> Self {
        let () = Self::ROOM_FOR_HEADER;
        Self { channel, buffer: [0; CAP], filled: 0, image: 0, handles: Handles::new(), failed: None }
    }

    /// Where the transport puts the next bytes; empty when a frame waits to be taken, and after an
    /// error.
    ///
    /// What is left of an image goes there too, and is then forgotten.
    #[must_use]
    pub fn read_buf(&mut self) -> &mut [u8] {
        let end = match usize::try_from(self.image) {
            _ if self.failed.is_some() => self.filled,
            Ok(0) => self.wanted(),
            Ok(image) => image.min(CAP),
            Err(_) => CAP,
        };
        self.buffer.get_mut(self.filled..end).unwrap_or_default()
    }

    /// How many bytes of the image that belongs to the last frame were not read yet.
    ///
    /// They are next in the stream. A transport may read them to anywhere and then call
    /// [`Self::image_read`]; those it does not are skipped by the way of [`Self::read_buf`].
    #[must_use]
    pub const fn image_left(&self) -> u32 {
        self.image
    }

    /// Tells that `count` bytes of the image were read to some other place.
    pub fn image_read(&mut self, count: usize) {
        self.image = self.image.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Tells that the transport put `count` bytes into [`Self::read_buf`], together with these
    /// descriptors.
    ///
    /// # Errors
    /// The stream cannot be read any further after an error, which every later call repeats: a
    /// version other than 1, a payload that does not fit, descriptors after the first byte of a
    /// message or with an image, or more than [`MAX_HANDLES`] of them.
    pub fn filled(&mut self, count: usize, handles: impl IntoIterator<Item = H>) -> Result<(), DecodeError> {
        if self.failed.is_none() {
            self.failed = self.collect(count, handles).err();
        }
        match self.failed {
            None => Ok(()),
            Some(failure) => {
                self.handles.clear();
                Err(self.error(failure))
            }
        }
    }

    /// Whether a frame waits to be taken.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failed.is_none() && self.filled >= Header::SIZE && self.filled >= self.wanted()
    }

    /// Takes the frame if it is whole.
    pub fn take(&mut self) -> Option<Frame<'_, H>> {
        let end = self.wanted();
        if self.failed.is_some() || self.filled < end {
            return None;
        }
        let header = *self.header()?;
        let following = header.size().saturating_sub(self.collected(&header));
        self.filled = 0;
        self.image = following;
        let handles = core::mem::take(&mut self.handles);
        let payload = self.buffer.get(Header::SIZE..end).unwrap_or_default();
        Some(Frame { header, payload, handles })
    }

    /// Whether nothing of a message has arrived yet: a stream that ends here ends cleanly.
    #[must_use]
    pub const fn is_between_messages(&self) -> bool {
        self.filled == 0 && self.image == 0 && self.failed.is_none()
    }

    fn collect(&mut self, count: usize, handles: impl IntoIterator<Item = H>) -> Result<(), Failure> {
        let at_start = self.is_between_messages();
        let header_was_missing = self.filled < Header::SIZE;
        if self.image == 0 {
            self.filled = self.filled.saturating_add(count).min(self.wanted());
        } else {
            self.image_read(count);
        }
        for handle in handles {
            if !at_start {
                return Err(Failure::HandlesAfterStart);
            }
            if self.handles.push(handle).is_err() {
                return Err(Failure::TooManyHandles);
            }
        }
        match self.header() {
            Some(header) if header_was_missing && !self.can_be_read(header) => Err(Failure::Header),
            _ => Ok(()),
        }
    }

    /// How many bytes the current message has as far as is known.
    #[cfg_attr(for_size, inline(never))]
    fn wanted(&self) -> usize {
        let payload = self.header().map_or(0, |header| self.collected(header));
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        Header::SIZE.saturating_add(payload).min(CAP)
    }

    /// How many payload bytes make the frame: all but an image.
    #[inline(never)]
    fn collected(&self, header: &Header) -> u32 {
        match image_from(header, self.channel).map(u32::try_from) {
            Some(Ok(front)) => header.size().min(front),
            _ => header.size(),
        }
    }

    fn header(&self) -> Option<&Header> {
        let bytes = self.buffer.get(..self.filled)?;
        Header::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    fn can_be_read(&self, header: &Header) -> bool {
        let fits = usize::try_from(self.collected(header)).is_ok_and(|size| size <= CAP.saturating_sub(Header::SIZE));
        fits && header.is_known(self.channel)
    }

    #[cold]
    fn error(&self, failure: Failure) -> DecodeError {
        let channel = self.channel;
        match (failure, self.header()) {
            (Failure::Header, Some(header)) => unreadable(header, channel, CAP),
            (Failure::TooManyHandles, _) => DecodeError::TooManyHandles { channel, limit: MAX_HANDLES },
            _ => DecodeError::HandlesAfterStart { channel },
        }
    }
}

/// Where in the payload of a message its image begins.
#[inline]
pub(crate) fn image_from(header: &Header, channel: Channel) -> Option<usize> {
    if channel == Channel::Gpu { image_on_gpu_channel(header) } else { None }
}

#[inline(never)]
fn image_on_gpu_channel(header: &Header) -> Option<usize> {
    if header.is_reply() {
        return None;
    }
    GpuCode(header.request()).row()?.payload.before_image()
}

/// Why a message cannot be read into a buffer of `room` bytes.
#[cold]
#[inline(never)]
pub(crate) fn unreadable(header: &Header, channel: Channel, room: usize) -> DecodeError {
    let message = MessageName { channel, id: header.request() };
    let limit = room.saturating_sub(Header::SIZE);
    header.fault_or(channel, DecodeError::PayloadTooLarge { message, found: header.size(), limit })
}

impl<H, const CAP: usize> fmt::Debug for Assembler<H, CAP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembler")
            .field("channel", &self.channel)
            .field("filled", &self.filled)
            .field("wanted", &self.wanted())
            .field("image", &self.image)
            .field("handles", &self.handles.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
