//! The conversation as a readable timeline.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use vhost_core::{FrontendCode, wire::header::Header};
use vhost_std::endpoint::{Direction, Observer};

/// Remembers every message of the front-end's channel.
pub(crate) struct Timeline {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    at: Duration,
    text: String,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), entries: Mutex::default() }
    }

    /// Something else than a message happened.
    pub(crate) fn note(&self, text: &str) {
        self.push(format!("* {text}"));
    }

    /// All lines in order.
    pub(crate) fn lines(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|entry| format!("{:>10.3} ms  {}", entry.at.as_secs_f64() * 1e3, entry.text)).collect()
    }

    fn push(&self, text: String) {
        let entry = Entry { at: self.start.elapsed(), text };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}

impl Observer for Timeline {
    fn message(&self, direction: Direction, header: &Header, payload: &[u8], handles: usize) {
        let arrow = match direction {
            Direction::Sent => "->",
            Direction::Received => "  <-",
        };
        let mut text = format!("{arrow} {}", FrontendCode(header.request()).message());
        match *payload {
            [] => {}
            // The only payload of eight bytes in a reply to a request without content is its outcome.
            ref number if number.len() == 8 && direction == Direction::Received => {
                let bytes: [u8; 8] = number.try_into().unwrap_or_default();
                text += &format!(": {:#x}", u64::from_ne_bytes(bytes));
            }
            ref bytes => text += &format!(", {} bytes", bytes.len()),
        }
        if handles > 0 {
            text += &format!(", {handles} descriptor{}", if handles == 1 { "" } else { "s" });
        }
        if header.needs_reply() {
            text += ", to be acknowledged";
        }
        self.push(text);
    }
}
