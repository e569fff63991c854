//! What goes out on a socket for somebody who does not wait: messages in order, as many in a system call as can be.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vhost_core::{Handles, MAX_HANDLES};

use crate::socket::{Socket, SocketError};

/// Messages that the peer was not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them are sent already.
    sent: usize,
    /// A system call begins at each of these.
    starts: VecDeque<Start>,
}

/// The first byte of a message with descriptors.
#[derive(Debug)]
struct Start {
    at: usize,
    handles: Handles<OwnedFd>,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }

    /// Adds a message, or the rest of one.
    pub(crate) fn push(&mut self, bytes: &[u8], handles: Handles<OwnedFd>) {
        if !handles.is_empty() {
            self.starts.push_back(Start { at: self.bytes.len(), handles });
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Sends as much as the peer takes at once.
    pub(crate) fn flush(&mut self, socket: &Socket) -> Result<(), SocketError> {
        while self.sent < self.bytes.len() {
            let first = self.starts.front().filter(|start| start.at == self.sent);
            let next = if first.is_some() { self.starts.get(1) } else { self.starts.front() };
            let end = next.map_or(self.bytes.len(), |start| start.at);
            let handles: heapless::Vec<BorrowedFd<'_>, MAX_HANDLES> =
                first.iter().flat_map(|start| &start.handles).map(AsFd::as_fd).collect();
            let Some(count) = socket.try_send(self.bytes.get(self.sent..end).unwrap_or_default(), &handles)? else {
                return Ok(());
            };
            drop(handles);
            if self.starts.front().is_some_and(|start| start.at == self.sent) {
                self.starts.pop_front();
            }
            self.sent += count;
        }
        // Its room is for the next ones.
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}
