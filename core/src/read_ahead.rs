//! Bytes to frames, many messages at a time: for transports that read as much as there is.

mod wanted;

use core::fmt;

use zerocopy::FromBytes;

use self::wanted::wanted;
use crate::{
    assembler::{Frame, Handles, MAX_HANDLES, MAX_MESSAGE, image_from, unreadable},
    dialect::Dialect,
    error::DecodeError,
    wire::{
        header::Header,
        row::{Channel, HandleCount},
    },
};

/// Collects whatever the transport has, and gives out message by message, on any channel and for
/// either side.
///
/// It costs a read for many messages, where an [`Assembler`](crate::Assembler), which never reads
/// beyond a message, costs two for each. In exchange the transport keeps a promise: the descriptors
/// of one piece were sent together, with a run of bytes that is the *last* of that piece. Linux
/// keeps it: `recvmsg` on a stream ends behind the first buffer of the socket that has descriptors.
///
/// Where in the piece that run begins is not told. A sender begins a run at every message that has
/// descriptors, so they belong to the piece's last message. Of a sender that joined messages they
/// belong to those that want some: how many follows from header and payload. What nobody wants goes
/// with the last message, which is then refused as it would be otherwise.
///
/// An image on the GPU channel is not collected: the frame ends in front of it. A part of it may have
/// been read already, the rest can be read to wherever it is wanted; see [`Self::image_left`].
///
/// `CAP` is the size of the buffer in bytes and bounds the messages it takes.
///
/// ```
/// use vhost_core::{ReadAhead, wire::header::Header};
///
/// // GET_FEATURES, SET_OWNER and a SET_VRING_KICK with its descriptor, in one piece.
/// let mut piece = Vec::new();
/// piece.extend(Header::request_of(1, false, 0).to_bytes());
/// piece.extend(Header::request_of(3, false, 0).to_bytes());
/// piece.extend(Header::request_of(12, false, 8).to_bytes());
/// piece.extend([0; 8]);
///
/// let mut incoming = ReadAhead::<&str>::new();
/// incoming.read_buf()[..piece.len()].copy_from_slice(&piece);
/// incoming.filled(piece.len(), ["kick"]);
/// let mut handles = Vec::new();
/// while let Some(frame) = incoming.next()? {
///     handles.push(frame.handles.len());
/// }
/// assert_eq!(handles, [0, 0, 1]);
/// # Ok::<(), vhost_core::DecodeError>(())
/// ```
pub struct ReadAhead<H, const CAP: usize = MAX_MESSAGE> {
    channel: Channel,
    dialect: Dialect,
    buffer: [u8; CAP],
    /// Where what was not given out begins: an image, then a message.
    start: usize,
    /// Bytes of the image that belongs to the last frame, there or not.
    image: usize,
    /// Where the bytes end.
    filled: usize,
    front: Front,
    /// Where the last piece begins.
    piece: usize,
    /// What came with the last piece and is not given out.
    handles: Handles<H>,
    /// How many of these the messages want, from the one in front on.
    wanted: HandleCount,
    /// The descriptors of the message in front, if it began in an earlier piece.
    begun: Handles<H>,
}

/// What there is to give out next.
#[derive(Clone, Copy, Debug)]
enum Front {
    /// Nothing, or a part of a message.
    Nothing,
    /// A message that ends there, without descriptors on a channel without images, as most are.
    Plain { end: usize },
    /// Another message that ends there.
    Message { end: usize },
    /// What cannot be read.
    Failed(DecodeError),
}

impl<H, const CAP: usize> ReadAhead<H, CAP> {
    const ROOM_FOR_HEADER: () = assert!(CAP >= Header::SIZE, "a header must fit");

    /// Nothing has come, on the main channel.
    #[must_use]
    pub const fn new() -> Self {
        Self::on(Channel::Frontend, Dialect::Standard)
    }

    /// Nothing has come on this channel. The dialect, which only the back-end's channel has, tells
    /// what its messages are: how many descriptors they want.
    #[must_use]
    pub const fn on(channel: Channel, dialect: Dialect) -> Self {
        let () = Self::ROOM_FOR_HEADER;
        Self {
            channel,
            dialect,
            buffer: [0; CAP],
            start: 0,
            image: 0,
            filled: 0,
            front: Front::Nothing,
            piece: 0,
            handles: Handles::new(),
            wanted: HandleCount { least: 0, most: 0 },
            begun: Handles::new(),
        }
    }

    /// Where the transport puts the next piece; empty while [`Self::next`] has something to give.
    ///
    /// What is left of an image is skipped from here on.
    #[must_use]
    #[inline]
    pub fn read_buf(&mut self) -> &mut [u8] {
        if self.has_next() {
            return &mut [];
        }
        if self.start > 0 || self.image > 0 {
            self.make_room();
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Moves what is left of a message to the front.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self) {
        self.skip_image();
        // Both bounds hold always; said again, they cost nothing.
        let filled = self.filled.min(CAP);
        let start = self.start.min(filled);
        self.buffer.copy_within(start..filled, 0);
        (self.start, self.filled) = (0, filled.saturating_sub(start));
    }

    /// Tells that the transport put `count` bytes into [`Self::read_buf`], together with these
    /// descriptors. What is wrong with them, [`Self::next`] tells.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub fn filled(&mut self, count: usize, handles: impl IntoIterator<Item = H>) {
        if self.has_next() {
            return;
        }
        if !self.handles.is_empty() {
            // What came with the beginning of a message is not mixed with what comes now.
            self.begun = core::mem::take(&mut self.handles);
        }
        self.piece = self.filled;
        self.filled = self.filled.saturating_add(count).min(CAP);
        self.skip_image();
        for handle in handles {
            if self.handles.push(handle).is_err() {
                return self.fail(DecodeError::TooManyHandles { channel: self.channel, limit: MAX_HANDLES });
            }
        }
        if self.handles.is_empty() {
            self.look();
        } else {
            self.look_with_handles();
        }
    }

    /// Whether [`Self::next`] has a message or an error, without anything more from the transport.
    #[must_use]
    pub const fn has_next(&self) -> bool {
        !matches!(self.front, Front::Nothing)
    }

    /// Gives out the message in front, if it is whole.
    ///
    /// # Errors
    /// The stream cannot be read any further after an error, which every later call repeats: a
    /// version other than 1, a payload that does not fit, descriptors with a piece in which no
    /// message begins, or more than [`MAX_HANDLES`] of them. Messages in front of it come first.
    #[allow(clippy::should_implement_trait, reason = "a frame borrows the buffer, which no iterator's item can")]
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub fn next(&mut self) -> Result<Option<Frame<'_, H>>, DecodeError> {
        let Front::Plain { end } = self.front else { return self.next_unusual() };
        let start = self.start;
        self.pass(end);
        Ok(self.frame(start, end, Handles::new()))
    }

    /// Gives out a message to which descriptors or an image belong, or an error.
    #[inline(never)]
    fn next_unusual(&mut self) -> Result<Option<Frame<'_, H>>, DecodeError> {
        let end = match self.front {
            Front::Nothing => return Ok(None),
            Front::Plain { end } | Front::Message { end } => end,
            Front::Failed(error) => return Err(error),
        };
        self.skip_image();
        let start = self.start;
        self.image = self.header(start).map_or(0, |header| self.image_behind(header));
        let handles = self.hand_out(end);
        self.pass(end);
        Ok(self.frame(start, end, handles))
    }

    /// Goes on behind the message in front.
    #[inline]
    fn pass(&mut self, end: usize) {
        self.front = Front::Nothing;
        if end == self.filled {
            (self.start, self.filled) = (0, 0);
        } else {
            self.pass_to(end);
        }
    }

    #[inline(never)]
    fn pass_to(&mut self, end: usize) {
        self.start = end;
        self.look();
    }

    /// The message that lies there, which was found whole before.
    #[inline]
    fn frame(&self, start: usize, end: usize, handles: Handles<H>) -> Option<Frame<'_, H>> {
        let (header, payload) = Header::split_from(self.buffer.get(start..end)?)?;
        Some(Frame { header: *header, payload, handles })
    }

    /// Whether nothing of a message is there: a stream that ends here ends cleanly.
    #[must_use]
    pub const fn is_between_messages(&self) -> bool {
        self.start == self.filled && self.image == 0 && !matches!(self.front, Front::Failed(_))
    }

    /// How many bytes of the image that belongs to the last frame were not read yet by
    /// [`Self::image_part`] and [`Self::image_read`].
    ///
    /// Those that are not when the next message is asked for, or [`Self::read_buf`], are skipped.
    #[must_use]
    pub const fn image_left(&self) -> usize {
        self.image
    }

    /// The part of [`Self::image_left`] that has come with the message already, in front of what
    /// the transport has.
    #[must_use]
    pub fn image_part(&self) -> &[u8] {
        let end = self.start.saturating_add(self.image).min(self.filled);
        self.buffer.get(self.start..end).unwrap_or_default()
    }

    /// Tells that `count` bytes of the image were taken: of [`Self::image_part`], and behind it from
    /// the transport.
    pub fn image_read(&mut self, count: usize) {
        let count = count.min(self.image);
        self.image = self.image.saturating_sub(count);
        self.start = self.start.saturating_add(count).min(self.filled);
    }

    /// Forgets what is there of an image.
    #[inline]
    fn skip_image(&mut self) {
        if self.image > 0 {
            self.skip_part();
        }
    }

    #[cold]
    #[inline(never)]
    fn skip_part(&mut self) {
        self.image_read(self.image_part().len());
    }

    /// Bytes of the image behind a message.
    #[inline]
    fn image_behind(&self, header: &Header) -> usize {
        if self.channel != Channel::Gpu {
            return 0;
        }
        let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
        image_from(header, self.channel).map_or(0, |front| size.saturating_sub(front))
    }

    /// Finds out where the message in front ends, or what is wrong with it.
    #[inline]
    fn look(&mut self) {
        match self.plain_end() {
            Some(end) => self.front = Front::Plain { end },
            None => self.look_closer(),
        }
    }

    /// Where the message in front ends if it is whole and nothing belongs to it but its bytes.
    #[inline]
    fn plain_end(&self) -> Option<usize> {
        if !self.handles.is_empty() || !self.begun.is_empty() || self.channel == Channel::Gpu {
            return None;
        }
        let (header, rest) = Header::split_from(self.buffer.get(..self.filled)?.get(self.start..)?)?;
        let size = usize::try_from(header.size()).ok()?;
        let is_whole = size <= rest.len() && header.is_known(self.channel);
        // They lie in the buffer.
        is_whole.then(|| self.start.wrapping_add(Header::SIZE).wrapping_add(size))
    }

    /// The same after descriptors have come.
    #[inline(never)]
    fn look_with_handles(&mut self) {
        if self.count_wanted() {
            self.look_closer();
        } else {
            self.fail(DecodeError::HandlesAfterStart { channel: self.channel });
        }
    }

    #[inline(never)]
    fn look_closer(&mut self) {
        let start = self.start.saturating_add(self.image);
        let Some(header) = self.header(start) else { return };
        match self.measure(start, header) {
            Some(end) => self.front = if end <= self.filled { Front::Message { end } } else { Front::Nothing },
            None => self.fail_at(start),
        }
    }

    /// The message that begins at `start` cannot be read.
    #[cold]
    #[inline(never)]
    fn fail_at(&mut self, start: usize) {
        if let Some(header) = self.header(start) {
            self.fail(unreadable(header, self.channel, CAP));
        }
    }

    /// Where the message ends that begins at `start`, but for an image; `None` if it cannot be read.
    #[inline]
    fn measure(&self, start: usize, header: &Header) -> Option<usize> {
        let front = image_from(header, self.channel).unwrap_or(usize::MAX);
        let size = usize::try_from(header.size()).ok()?.min(front);
        let readable = size <= CAP.saturating_sub(Header::SIZE) && header.is_known(self.channel);
        // Neither is larger than `CAP`.
        readable.then(|| start.wrapping_add(Header::SIZE).wrapping_add(size))
    }

    #[inline]
    fn header(&self, start: usize) -> Option<&Header> {
        let bytes = self.buffer.get(start..self.filled)?;
        Header::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Counts what the messages want that begin in the last piece; `false` if none does.
    fn count_wanted(&mut self) -> bool {
        self.wanted = HandleCount { least: 0, most: 0 };
        let mut at = self.start;
        let mut begins = false;
        while at < self.filled {
            begins |= at >= self.piece;
            let Some(header) = self.header(at) else {
                // It may want any number.
                self.wanted.most = self.wanted.most.saturating_add(MAX_HANDLES);
                break;
            };
            let image = self.image_behind(header);
            let Some(end) = self.measure(at, header) else { break };
            if at >= self.piece {
                let payload = self.buffer.get(at.saturating_add(Header::SIZE)..end.min(self.filled));
                let HandleCount { least, most } = self.wanted_by(header, payload.unwrap_or_default());
                self.wanted.least = self.wanted.least.saturating_add(least);
                self.wanted.most = self.wanted.most.saturating_add(most);
            }
            at = end.saturating_add(image);
        }
        begins
    }

    fn wanted_by(&self, header: &Header, payload: &[u8]) -> HandleCount {
        wanted(self.channel, self.dialect, header, payload)
    }

    /// The descriptors of the message in front.
    #[inline(never)]
    fn hand_out(&mut self, end: usize) -> Handles<H> {
        if self.start < self.piece {
            return core::mem::take(&mut self.begun);
        }
        let message = self.buffer.get(self.start..end).and_then(Header::split_from);
        let (Some((header, payload)), false) = (message, end.saturating_add(self.image) >= self.filled) else {
            return core::mem::take(&mut self.handles);
        };
        let HandleCount { least, most } = self.wanted_by(header, payload);
        let later = &mut self.wanted;
        *later = HandleCount { least: later.least.saturating_sub(least), most: later.most.saturating_sub(most) };
        // What may be for a later message is, unless this one cannot do without.
        let found = self.handles.len();
        let needed = least.min(found.saturating_sub(later.least));
        let count = found.saturating_sub(later.most).max(needed).min(most);
        let (mut given, mut kept) = (Handles::new(), Handles::new());
        for (at, handle) in core::mem::take(&mut self.handles).into_iter().enumerate() {
            // Both have room for all of them.
            drop(if at < count { given.push(handle) } else { kept.push(handle) });
        }
        self.handles = kept;
        given
    }

    #[cold]
    fn fail(&mut self, error: DecodeError) {
        self.front = Front::Failed(error);
        self.handles.clear();
        self.begun.clear();
    }
}

impl<H, const CAP: usize> Default for ReadAhead<H, CAP> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H, const CAP: usize> fmt::Debug for ReadAhead<H, CAP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead")
            .field("channel", &self.channel)
            .field("start", &self.start)
            .field("image", &self.image)
            .field("filled", &self.filled)
            .field("front", &self.front)
            .field("handles", &self.handles.len())
            .field("begun", &self.begun.len())
            .finish_non_exhaustive()
    }
}
