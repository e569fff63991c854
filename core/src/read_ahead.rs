//! Bytes to frames, many messages at a time: for transports that read as much as there is.

use core::fmt;

use zerocopy::FromBytes;

use crate::{
    assembler::{Frame, Handles, MAX_HANDLES, MAX_MESSAGE},
    error::DecodeError,
    wire::{
        feature::ProtocolFeatures,
        frontend_request::FrontendCode,
        header::Header,
        payload::Form,
        row::{Channel, HandleCount, HandleRule},
    },
};

/// Collects whatever the transport has, and gives out message by message. On the main channel, for
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
    buffer: [u8; CAP],
    /// Where the message in front begins.
    start: usize,
    /// Where the bytes end.
    filled: usize,
    /// Where the message in front ends, once all of it is there.
    end: Option<usize>,
    /// Where the last piece begins.
    piece: usize,
    /// What came with the last piece and is not given out.
    handles: Handles<H>,
    /// How many of these the messages want, from the one in front on.
    wanted: HandleCount,
    /// The descriptors of the message in front, if it began in an earlier piece.
    begun: Handles<H>,
    failed: Option<DecodeError>,
}

impl<H, const CAP: usize> ReadAhead<H, CAP> {
    const ROOM_FOR_HEADER: () = assert!(CAP >= Header::SIZE, "a header must fit");

    /// Nothing has come.
    #[must_use]
    pub const fn new() -> Self {
        let () = Self::ROOM_FOR_HEADER;
        Self {
            buffer: [0; CAP],
            start: 0,
            filled: 0,
            end: None,
            piece: 0,
            handles: Handles::new(),
            wanted: HandleCount { least: 0, most: 0 },
            begun: Handles::new(),
            failed: None,
        }
    }

    /// Where the transport puts the next piece; empty while [`Self::next`] has something to give.
    #[must_use]
    pub fn read_buf(&mut self) -> &mut [u8] {
        if self.has_next() {
            return &mut [];
        }
        // What is left of a message makes room. Both bounds hold always; said again, they cost nothing.
        let filled = self.filled.min(CAP);
        let start = self.start.min(filled);
        if start > 0 {
            self.buffer.copy_within(start..filled, 0);
            (self.start, self.filled) = (0, filled.saturating_sub(start));
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Tells that the transport put `count` bytes into [`Self::read_buf`], together with these
    /// descriptors. What is wrong with them, [`Self::next`] tells.
    pub fn filled(&mut self, count: usize, handles: impl IntoIterator<Item = H>) {
        if self.has_next() {
            return;
        }
        if self.start < self.filled && !self.handles.is_empty() {
            // What came with the beginning of a message is not mixed with what comes now.
            self.begun = core::mem::take(&mut self.handles);
        }
        self.piece = self.filled;
        self.filled = self.filled.saturating_add(count).min(CAP);
        for handle in handles {
            if self.handles.push(handle).is_err() {
                return self.fail(DecodeError::TooManyHandles { channel: Channel::Frontend, limit: MAX_HANDLES });
            }
        }
        if !self.handles.is_empty() && !self.count_wanted() {
            return self.fail(DecodeError::HandlesAfterStart { channel: Channel::Frontend });
        }
        self.look();
    }

    /// Whether [`Self::next`] has a message or an error, without anything more from the transport.
    #[must_use]
    pub const fn has_next(&self) -> bool {
        self.end.is_some() || self.failed.is_some()
    }

    /// Gives out the message in front, if it is whole.
    ///
    /// # Errors
    /// The stream cannot be read any further after an error, which every later call repeats: a
    /// version other than 1, a payload that does not fit, descriptors with a piece in which no
    /// message begins, or more than [`MAX_HANDLES`] of them. Messages in front of it come first.
    #[allow(clippy::should_implement_trait, reason = "a frame borrows the buffer, which no iterator's item can")]
    pub fn next(&mut self) -> Result<Option<Frame<'_, H>>, DecodeError> {
        let Some(end) = self.end.take() else {
            return self.failed.map_or(Ok(None), Err);
        };
        let start = self.start;
        let Some(header) = self.header(start).copied() else { return Ok(None) };
        let body = start.saturating_add(Header::SIZE);
        let handles = self.hand_out(&header, body, end);
        self.start = end;
        if end >= self.filled {
            (self.start, self.filled) = (0, 0);
        }
        self.look();
        let payload = self.buffer.get(body..end).unwrap_or_default();
        Ok(Some(Frame { header, payload, handles }))
    }

    /// Whether nothing of a message is there: a stream that ends here ends cleanly.
    #[must_use]
    pub const fn is_between_messages(&self) -> bool {
        self.start == self.filled && self.failed.is_none()
    }

    /// Finds out where the message in front ends, or what is wrong with it.
    fn look(&mut self) {
        match self.measure(self.start) {
            Some(Ok(end)) => self.end = (end <= self.filled).then_some(end),
            Some(Err(error)) => self.fail(error),
            None => self.end = None,
        }
    }

    /// Where the message ends that begins at `start`; `None` until its header is there.
    fn measure(&self, start: usize) -> Option<Result<usize, DecodeError>> {
        let header = self.header(start)?;
        if let Err(error) = header.check(Channel::Frontend) {
            return Some(Err(error));
        }
        let limit = CAP.saturating_sub(Header::SIZE);
        Some(match usize::try_from(header.size()) {
            Ok(size) if size <= limit => Ok(start.saturating_add(Header::SIZE).saturating_add(size)),
            _ => {
                let message = FrontendCode(header.request()).message();
                Err(DecodeError::PayloadTooLarge { message, found: header.size(), limit })
            }
        })
    }

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
            let Some(Ok(end)) = self.measure(at) else { break };
            if at >= self.piece {
                let payload = self.buffer.get(at.saturating_add(Header::SIZE)..end.min(self.filled));
                let HandleCount { least, most } = wanted(header, payload.unwrap_or_default());
                self.wanted.least = self.wanted.least.saturating_add(least);
                self.wanted.most = self.wanted.most.saturating_add(most);
            }
            at = end;
        }
        begins
    }

    /// The descriptors of the message in front.
    fn hand_out(&mut self, header: &Header, body: usize, end: usize) -> Handles<H> {
        if self.start < self.piece || self.handles.is_empty() {
            return core::mem::take(&mut self.begun);
        }
        if end >= self.filled {
            return core::mem::take(&mut self.handles);
        }
        let HandleCount { least, most } = wanted(header, self.buffer.get(body..end).unwrap_or_default());
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

    fn fail(&mut self, error: DecodeError) {
        self.failed = Some(error);
        self.handles.clear();
        self.begun.clear();
    }
}

impl<H, const CAP: usize> Default for ReadAhead<H, CAP> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many descriptors a message takes, as far as it tells itself.
fn wanted(header: &Header, payload: &[u8]) -> HandleCount {
    let Some(row) = FrontendCode(header.request()).row() else {
        return HandleCount { least: 0, most: MAX_HANDLES };
    };
    let (kind, rule) =
        if header.is_reply() { (row.reply_payload, row.reply_handles) } else { (row.payload, row.handles) };
    let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
    let count = rule.count(payload, Form::request(ProtocolFeatures::LOG_SHMFD));
    // A refusal has none. What was negotiated decides about a log. Messages of other sizes are no such messages, or the
    // last word in an exchange about memory, which has none.
    let may_do_without = header.is_reply() || rule == HandleRule::WithLogFile || !kind.size().allows(size);
    HandleCount { least: if may_do_without { 0 } else { count.least }, most: count.most.min(MAX_HANDLES) }
}

impl<H, const CAP: usize> fmt::Debug for ReadAhead<H, CAP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead")
            .field("start", &self.start)
            .field("filled", &self.filled)
            .field("end", &self.end)
            .field("handles", &self.handles.len())
            .field("begun", &self.begun.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
