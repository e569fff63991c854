//! The conversation as a readable timeline.

use core::time::Duration;
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use vhost_core::{Form, Frame, FrontendCode, FrontendReply, FrontendRequest, ProtocolFeatures, wire::header::Header};
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
        let frame = Frame { header: *header, payload, handles: vec![(); handles].into_iter().collect() };
        let name = FrontendCode(header.request()).message();
        let (arrow, words) = match direction {
            Direction::Sent => ("->", request(frame)),
            Direction::Received => ("  <-", reply(frame)),
        };
        let mut text = format!("{arrow} {name}{words}");
        if handles > 0 {
            text += &format!(", {handles} descriptor{}", if handles == 1 { "" } else { "s" });
        }
        if header.needs_reply() {
            text += ", to be acknowledged";
        }
        self.push(text);
    }
}

/// What a request carries, as its type shows itself.
fn request(frame: Frame<'_, ()>) -> String {
    let length = frame.payload.len();
    match FrontendRequest::decode(frame, Form::request(ProtocolFeatures::empty())) {
        Ok(_) if length == 0 => String::new(),
        Ok(request) => content(&format!("{request:?}")),
        Err(_) => format!(", {length} bytes"),
    }
}

/// What a reply says: its content, or whether the request was granted.
fn reply(frame: Frame<'_, ()>) -> String {
    let outcome: Option<[u8; 8]> = frame.payload.try_into().ok();
    match (FrontendReply::decode(frame, Form::reply(ProtocolFeatures::empty())), outcome) {
        (Ok(reply), _) => content(&format!("{reply:?}")),
        (Err(_), Some([0, 0, 0, 0, 0, 0, 0, 0])) => ": granted".to_owned(),
        (Err(_), _) => ": refused".to_owned(),
    }
}

/// The content of `Variant(content)`, not too long for a line, without the descriptor that is counted elsewhere.
fn content(debug: &str) -> String {
    let inner = debug.split_once('(').map_or("", |(_, rest)| rest.strip_suffix(')').unwrap_or(rest));
    let inner = inner.trim_end_matches(", ()").trim_end_matches(", Some(())").trim_end_matches(", None");
    let short: String = inner.chars().take(90).collect();
    let more = if short.len() < inner.len() { " ..." } else { "" };
    if short.is_empty() { short } else { format!(": {short}{more}") }
}
