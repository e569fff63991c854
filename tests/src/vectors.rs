//! The recorded sessions of `tests/vectors`: what real programs said to each other.
//!
//! All were recorded on little-endian machines; the numbers in their payloads are given in this machine's byte order.

mod native;

use crate::wire::{self, Bytes, Header};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One recorded session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The file's name without its ending.
    pub name: String,
    /// The program that was the front-end, with its version.
    pub frontend: String,
    /// The program that was the back-end, with its version.
    pub backend: String,
    /// What was done.
    pub scenario: String,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// One line of a session.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number in the session, from 1.
    pub sequence: u64,
    /// The connection it belongs to, from 1; every reconnect counts up.
    pub connection: u64,
    /// The socket it was seen on.
    pub channel: Channel,
    /// What happened.
    pub what: What,
}

/// One of the sockets between two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// The connection itself.
    Main,
    /// The socket of SET_BACKEND_REQ_FD.
    Backend,
    /// The socket of GPU_SET_SOCKET, with a protocol of its own.
    Gpu,
}

/// What happened on a socket.
#[derive(Clone, Debug)]
pub enum What {
    /// It came to be.
    Connect,
    /// The recorded side closed it.
    Close,
    /// The recorded side read its end.
    EndOfFile,
    /// The recorded side shut it down.
    Shutdown,
    /// A message passed.
    Message(Message),
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The front-end to the back-end.
    FrontendToBackend,
    /// The back-end to the front-end.
    BackendToFrontend,
}

/// One recorded message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who sent it.
    pub direction: Direction,
    /// The header as it was on the wire.
    pub header: Header,
    /// The request's name as the recorder knows it, with its prefix (`BACKEND_`, `GPU_`).
    pub name: String,
    /// The bytes after the header, numbers in native byte order; only the first ones when `truncated`.
    pub payload: Vec<u8>,
    /// Whether the recorder kept only the first bytes of the payload.
    pub truncated: bool,
    /// The kinds of the descriptors that came with it: `memfd`, `eventfd`, `socket`, `pipe`.
    pub descriptors: Vec<String>,
}

/// All recorded sessions in the order of their names.
pub fn sessions() -> Vec<Session> {
    paths().iter().map(|path| read(path)).collect()
}

/// The session of this name.
pub fn session(name: &str) -> Session {
    read(&folder().join(name).with_extension("jsonl"))
}

/// The files of the recorded sessions in the order of their names.
pub fn paths() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut paths = Vec::from_iter(entries.map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    paths.sort();
    paths
}

impl Session {
    /// The messages of one kind of socket, each with its connection.
    pub fn messages(&self, channel: Channel) -> impl Iterator<Item = (u64, &Message)> {
        let events = self.events.iter().filter(move |event| event.channel == channel);
        events.filter_map(|event| match &event.what {
            What::Message(message) => Some((event.connection, message)),
            What::Connect | What::Close | What::EndOfFile | What::Shutdown => None,
        })
    }
}

impl Message {
    /// The whole message as it was on the wire, or would have been between machines like this one.
    pub fn bytes(&self) -> Vec<u8> {
        assert!(!self.truncated, "{} was not recorded whole", self.name);
        let Header { request, flags, size } = self.header;
        Bytes::new().raw(&wire::header(request, flags, size)).raw(&self.payload).done()
    }

    /// The name without the prefix that says which of the three protocols it belongs to.
    pub fn plain_name(&self) -> &str {
        let name = self.name.as_str();
        // GPU_SET_SOCKET belongs to the main channel: there the prefix is part of the name.
        if name == "GPU_SET_SOCKET" {
            return name;
        }
        name.strip_prefix("BACKEND_").or_else(|| name.strip_prefix("GPU_")).unwrap_or(name)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn read(path: &Path) -> Session {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = lines.next().unwrap();
    let meta = &first["meta"];
    assert_eq!(meta["format"], 1, "{}: the format that this reader knows", path.display());
    Session {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        frontend: text_of(meta, "frontend"),
        backend: text_of(meta, "backend"),
        scenario: text_of(meta, "scenario"),
        events: lines.map(|line| event(&line)).collect(),
    }
}

fn event(line: &Value) -> Event {
    let channel = match line["chan"].as_str() {
        Some("main") => Channel::Main,
        Some("backend") => Channel::Backend,
        Some("gpu") => Channel::Gpu,
        _ => panic!("unknown channel: {line}"),
    };
    Event {
        sequence: number_of(line, "seq"),
        connection: number_of(line, "conn"),
        channel,
        what: match line["event"].as_str() {
            Some("connect") => What::Connect,
            Some("close") => What::Close,
            Some("eof") => What::EndOfFile,
            Some("shutdown") => What::Shutdown,
            Some(_) => panic!("unknown event: {line}"),
            None => What::Message(message(line, channel)),
        },
    }
}

fn message(line: &Value, channel: Channel) -> Message {
    let word = |name| u32::try_from(number_of(line, name)).unwrap();
    let kinds = line["fd_kinds"].as_array().unwrap();
    let direction = match line["dir"].as_str() {
        Some("F>B") => Direction::FrontendToBackend,
        Some("B>F") => Direction::BackendToFrontend,
        _ => panic!("unknown direction: {line}"),
    };
    let header = Header { request: word("req"), flags: word("flags"), size: word("size") };
    let message = Message {
        direction,
        header,
        name: text_of(line, "name"),
        payload: native::payload(channel, direction, header.request, &bytes_of(line, "payload")),
        truncated: line["payload_truncated"] == true,
        descriptors: kinds.iter().map(|kind| kind.as_str().unwrap().to_owned()).collect(),
    };
    assert_eq!(message.descriptors.len() as u64, number_of(line, "fds"), "a kind for each descriptor: {line}");
    assert_eq!(message.payload.len() as u64 != u64::from(message.header.size), message.truncated, "whole: {line}");
    message
}

fn number_of(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or_else(|| panic!("no number {name}: {line}"))
}

fn text_of(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_else(|| panic!("no text {name}: {line}")).to_owned()
}

fn bytes_of(line: &Value, name: &str) -> Vec<u8> {
    let text = text_of(line, name);
    assert_eq!(text.len() % 2, 0, "two digits a byte: {line}");
    let digits = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
