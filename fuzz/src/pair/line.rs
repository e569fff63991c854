//! One direction of a socket: bytes under way, cut anywhere, with the descriptors of each message at its first byte.

use std::collections::VecDeque;

use vhost_core::{Assembler, Channel, Frame, Handles, ReadAhead, Transmit};

use crate::token::Token;

/// How the receiver collects its messages.
enum Collector {
    /// Never a byte beyond a message.
    Exact(Box<Assembler<Token>>),
    /// Whatever there is.
    Ahead(Box<ReadAhead<Token>>),
}

/// Bytes under way, and what the receiver has of them.
pub struct Line {
    channel: Channel,
    bytes: Vec<u8>,
    /// The messages that were not begun yet: where each begins, and what comes with it.
    messages: VecDeque<(usize, Handles<Token>)>,
    collector: Collector,
}

impl Line {
    /// A line on which nothing is under way, whose receiver reads as much as a message has.
    pub fn new(channel: Channel) -> Self {
        let collector = Collector::Exact(Box::new(Assembler::new(channel)));
        Self { channel, bytes: Vec::new(), messages: VecDeque::new(), collector }
    }

    /// The same for a receiver that reads as much as there is.
    pub fn ahead() -> Self {
        Self { collector: Collector::Ahead(Box::default()), ..Self::new(Channel::Frontend) }
    }

    /// Closes it and opens another one of its kind.
    pub fn replace(&mut self) {
        *self = Self::new(self.channel);
    }

    /// Nothing is under way, not even a part of a message.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
            && match &self.collector {
                Collector::Exact(assembler) => assembler.is_between_messages(),
                Collector::Ahead(ahead) => ahead.is_between_messages(),
            }
    }

    /// Puts a message in.
    pub fn send(&mut self, message: Transmit<'_, Token>) {
        self.messages.push_back((self.bytes.len(), message.handles));
        self.bytes.extend_from_slice(message.bytes);
    }

    /// Carries up to `count` bytes, as far as one read goes.
    pub fn carry(&mut self, count: usize) {
        let count = count.min(self.readable());
        let room = match &mut self.collector {
            Collector::Exact(assembler) => assembler.read_buf(),
            Collector::Ahead(ahead) => ahead.read_buf(),
        };
        let count = count.min(room.len());
        room[..count].copy_from_slice(&self.bytes[..count]);
        let mut handles = Handles::new();
        while self.messages.front().is_some_and(|(place, _)| *place < count) {
            let (_, begun) = self.messages.pop_front().expect("it is there");
            if !begun.is_empty() {
                handles = begun;
            }
        }
        match &mut self.collector {
            Collector::Exact(assembler) => assembler.filled(count, handles).expect("our own messages are whole"),
            Collector::Ahead(ahead) => ahead.filled(count, handles),
        }
        self.bytes.drain(..count);
        self.messages.iter_mut().for_each(|(place, _)| *place -= count);
    }

    /// What one read gives at most: as on Linux it ends behind the first message that has descriptors.
    fn readable(&self) -> usize {
        let carrying = self.messages.iter().position(|(_, handles)| !handles.is_empty());
        let next = carrying.and_then(|carrying| self.messages.get(carrying + 1));
        next.map_or(self.bytes.len(), |(place, _)| *place)
    }

    /// The next message that is whole.
    pub fn take(&mut self) -> Option<Frame<'_, Token>> {
        match &mut self.collector {
            Collector::Exact(assembler) => assembler.take(),
            Collector::Ahead(ahead) => ahead.next().expect("our own messages are whole"),
        }
    }
}
