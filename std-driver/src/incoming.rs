//! What comes in on a socket, read exactly or ahead.

use core::fmt;
use std::os::fd::OwnedFd;

use vhost_core::{Assembler, Channel, DecodeError, Dialect, Frame, ReadAhead};

use crate::socket::{Received, ReceivedHandles};

/// The messages that come in on one socket.
pub(crate) enum Incoming {
    /// Two reads a message.
    Exact {
        assembler: Box<Assembler<OwnedFd>>,
        /// Found out when the bytes came, told when the message is taken.
        fault: Option<DecodeError>,
    },
    /// One read for as many as there are.
    Ahead {
        messages: Box<ReadAhead<OwnedFd>>,
        /// Bytes that there was room for in the last read.
        room: usize,
        /// The last read found less than it had room for.
        emptied: bool,
    },
}

impl Incoming {
    pub(crate) fn ahead(channel: Channel, dialect: Dialect) -> Self {
        Self::Ahead { messages: Box::new(ReadAhead::on(channel, dialect)), room: 0, emptied: false }
    }

    pub(crate) fn exact(channel: Channel) -> Self {
        Self::Exact { assembler: Box::new(Assembler::new(channel)), fault: None }
    }

    /// Where the next bytes go; empty while there is something to take.
    pub(crate) fn read_buf(&mut self) -> &mut [u8] {
        match self {
            Self::Exact { assembler, .. } => assembler.read_buf(),
            Self::Ahead { messages, room, .. } => {
                let buffer = messages.read_buf();
                *room = buffer.len();
                buffer
            }
        }
    }

    /// Takes note of what one system call has put there; how many bytes, zero at the end of the stream.
    pub(crate) fn take_in(&mut self, received: Received) -> usize {
        match received {
            Received::EndOfStream => 0,
            Received::Data { bytes, handles } => {
                self.filled(bytes, handles);
                bytes
            }
        }
    }

    /// The same of a system call that brings no descriptors.
    #[inline]
    pub(crate) fn filled_without_handles(&mut self, count: usize) {
        match self {
            Self::Exact { assembler, fault } => *fault = assembler.filled(count, None).err(),
            Self::Ahead { messages, room, emptied } => {
                *emptied = count < *room;
                messages.filled(count, None);
            }
        }
    }

    fn filled(&mut self, count: usize, handles: ReceivedHandles) {
        match self {
            Self::Exact { assembler, fault } => *fault = assembler.filled(count, handles).err(),
            Self::Ahead { messages, room, emptied } => {
                // A read that found descriptors ends there, whatever is behind.
                *emptied = handles.len() == 0 && count < *room;
                messages.filled(count, handles);
            }
        }
    }

    /// Whether there is something to take: a message, or an error.
    pub(crate) fn has_next(&self) -> bool {
        match self {
            Self::Exact { assembler, fault } => fault.is_some() || assembler.is_whole(),
            Self::Ahead { messages, .. } => messages.has_next(),
        }
    }

    /// Takes it.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_, OwnedFd>>, DecodeError> {
        match self {
            Self::Exact { assembler, fault } => fault.map_or_else(|| Ok(assembler.take()), Err),
            Self::Ahead { messages, .. } => messages.next(),
        }
    }

    /// Whether nothing of a message is there.
    pub(crate) fn is_between_messages(&self) -> bool {
        match self {
            Self::Exact { assembler, .. } => assembler.is_between_messages(),
            Self::Ahead { messages, .. } => messages.is_between_messages(),
        }
    }

    /// Bytes of the image behind the last message that were not taken.
    pub(crate) fn image_left(&self) -> usize {
        match self {
            Self::Exact { assembler, .. } => usize::try_from(assembler.image_left()).unwrap_or(usize::MAX),
            Self::Ahead { messages, .. } => messages.image_left(),
        }
    }

    /// Moves what was read of the image already to the start of `buffer`; how many bytes.
    pub(crate) fn take_image(&mut self, buffer: &mut [u8]) -> usize {
        let Self::Ahead { messages, .. } = self else { return 0 };
        let part = messages.image_part();
        let count = part.len().min(buffer.len());
        let (target, source) = (buffer.get_mut(..count), part.get(..count));
        target.unwrap_or_default().copy_from_slice(source.unwrap_or_default());
        messages.image_read(count);
        count
    }

    /// Takes note of bytes of the image that were received to somewhere else.
    pub(crate) fn image_read(&mut self, count: usize) {
        match self {
            Self::Exact { assembler, .. } => assembler.image_read(count),
            Self::Ahead { messages, .. } => messages.image_read(count),
        }
    }

    /// Whether the last read took all that there was.
    pub(crate) fn was_emptied(&self) -> bool {
        matches!(self, Self::Ahead { emptied: true, .. })
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact { assembler, .. } => assembler.fmt(f),
            Self::Ahead { messages, .. } => messages.fmt(f),
        }
    }
}
