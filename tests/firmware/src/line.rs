//! The serial line as a transport: both channels on one line, and numbers for descriptors.
//!
//! What goes over the line, in both directions:
//!
//! ```text
//! channel (1 byte), count of handles (1 byte), the handles (1 byte each), the message (header and payload)
//! ```
//! The channel is 0 for the front-end's, 1 for the back-end's own. 255 comes alone: the front-end has gone.

use core::{convert::Infallible, hint::spin_loop};

use vhost_core::{Channel, Handles, Transmit, Transport};

use crate::machine::{read_port, write_port};

/// What stands for a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u8);

impl Number {
    /// The file of this machine's RAM.
    pub(crate) const RAM: Self = Self(0);
    /// The other end of the back-end's channel.
    pub(crate) const CHANNEL: Self = Self(1);
}

const GONE: u8 = 255;

// Registers of a 16550 and their bits.
const DATA: u16 = 0;
const STATUS: u16 = 5;
const RECEIVED: u8 = 1;
const CAN_SEND: u8 = 1 << 5;

/// The line.
pub(crate) struct Line {
    /// The channel of the message that is sent.
    sending: Channel,
    /// What was announced of the message that comes in.
    handles: Handles<Number>,
}

impl Line {
    /// Nothing was said on it yet. The line is as the machine has set it up: touching its queues would empty them.
    pub(crate) const fn open() -> Self {
        Self { sending: Channel::Frontend, handles: Handles::new() }
    }

    /// Whether the front-end has sent something.
    pub(crate) fn has_byte() -> bool {
        read_port(STATUS) & RECEIVED != 0
    }

    /// Waits for the beginning of a message: which channel it is on; `None` when the front-end has gone.
    pub(crate) fn announced(&mut self) -> Option<Channel> {
        let channel = match read_byte() {
            GONE => return None,
            1 => Channel::Backend,
            _ => Channel::Frontend,
        };
        self.handles.clear();
        for _ in 0..read_byte() {
            // More than a message can have are dropped; then their number is wrong.
            let _ = self.handles.push(Number(read_byte()));
        }
        Some(channel)
    }

    /// The line for messages on `channel`.
    pub(crate) fn on(&mut self, channel: Channel) -> &mut Self {
        self.sending = channel;
        self
    }
}

impl Transport for Line {
    type Handle = Number;
    /// A line has no errors: what is lost is waited for, for ever.
    type Error = Infallible;

    fn send(&mut self, message: Transmit<'_, Number>) -> Result<(), Infallible> {
        write_byte(if self.sending == Channel::Backend { 1 } else { 0 });
        write_byte(message.handles.len() as u8);
        message.handles.iter().for_each(|handle| write_byte(handle.0));
        message.bytes.iter().copied().for_each(write_byte);
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], handles: &mut Handles<Number>) -> Result<usize, Infallible> {
        *handles = core::mem::take(&mut self.handles);
        buffer.fill_with(read_byte);
        Ok(buffer.len())
    }
}

fn read_byte() -> u8 {
    while !Line::has_byte() {
        spin_loop();
    }
    read_port(DATA)
}

fn write_byte(byte: u8) {
    while read_port(STATUS) & CAN_SEND == 0 {
        spin_loop();
    }
    write_port(DATA, byte);
}
