//! The machines as these tests use them, and messages as bytes with tokens in the place of descriptors.

use vhost_core::wire::header::Header;
use vhost_core::{
    Answered, Assembler, Backend, BackendConfig, DecodeError, Frame, Frontend, FrontendConfig, Handles, MAX_MESSAGE,
    Session, Transmit,
};
use vhost_tests::tracked::Token;
use vhost_tests::wire::{self, Message};

/// Rings of the machines under test; all fixtures use rings 0 and 1.
pub(crate) const RINGS: usize = 4;
/// Memory regions of the machines under test: those of a full table and one more.
pub(crate) const REGIONS: usize = 9;
/// Requests that the machines under test remember.
pub(crate) const DEPTH: usize = 4;

/// The front-end under test.
pub(crate) type Front = Frontend<RINGS, REGIONS, DEPTH>;
/// The back-end under test.
pub(crate) type Back = Backend<RINGS, REGIONS, DEPTH>;

/// A front-end that has all its rings.
pub(crate) fn front() -> Front {
    Front::new(FrontendConfig::new(RINGS as u16))
}

/// A back-end that offers these features and has all its rings.
pub(crate) fn back(features: u64, protocol: u64) -> Back {
    Back::new(offering(features, protocol))
}

/// What such a back-end is made from.
pub(crate) fn offering(features: u64, protocol: u64) -> BackendConfig {
    BackendConfig::new(virtio_features(features), protocol_features(protocol), RINGS as u16)
}

/// Virtio features by their bits.
pub(crate) fn virtio_features(bits: u64) -> vhost_core::VirtioFeatures {
    vhost_core::VirtioFeatures::from_bits_retain(bits)
}

/// Protocol features by their bits.
pub(crate) fn protocol_features(bits: u64) -> vhost_core::ProtocolFeatures {
    vhost_core::ProtocolFeatures::from_bits_retain(bits)
}

/// Where a machine writes a message.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; MAX_MESSAGE]
}

/// A message under way: its bytes, and what came with the first of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) handles: Vec<Token>,
}

impl Packet {
    /// What a machine wants sent.
    pub(crate) fn from_transmit(transmit: Transmit<'_, Token>) -> Self {
        Self { bytes: transmit.bytes.to_vec(), handles: transmit.handles.into_iter().collect() }
    }

    /// The message as a machine takes it. The header is read by hand.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame<'_, Token> {
        frame(&self.bytes, core::mem::take(&mut self.handles))
    }
}

/// One whole message as a machine takes it; its header is read by hand.
#[track_caller]
pub(crate) fn frame(bytes: &[u8], tokens: Vec<Token>) -> Frame<'_, Token> {
    let (message, length) = Message::read(bytes).unwrap_or_else(|| panic!("{} bytes are no message", bytes.len()));
    assert_eq!(length, bytes.len(), "one message");
    let wire::Header { request, flags, size } = message.header;
    let mut handles = Handles::new();
    for token in tokens {
        handles.push(token).unwrap_or_else(|_| panic!("no frame has so many handles"));
    }
    Frame { header: Header::new(request, flags, size), payload: &bytes[wire::HEADER_SIZE..], handles }
}

/// Pours a message into an assembler in pieces that end at these places; its tokens come with the first byte.
pub(crate) fn pour<'a, const CAP: usize>(
    assembler: &'a mut Assembler<Token, CAP>,
    bytes: &[u8],
    tokens: Vec<Token>,
    cuts: &[usize],
) -> Result<Option<Frame<'a, Token>>, DecodeError> {
    let mut tokens = Some(tokens);
    let mut start = 0;
    for end in cuts.iter().map(|cut| (*cut).min(bytes.len())).chain([bytes.len()]) {
        let mut piece = &bytes[start..end];
        start = end;
        while !piece.is_empty() {
            let room = assembler.read_buf();
            let count = room.len().min(piece.len());
            if count == 0 {
                break;
            }
            room[..count].copy_from_slice(&piece[..count]);
            piece = &piece[count..];
            assembler.filled(count, tokens.take().unwrap_or_default())?;
        }
    }
    Ok(assembler.take())
}

/// What a machine did about a request in the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It sent this.
    Sent(Packet),
    /// It sent nothing.
    Silent,
    /// It closed the connection.
    Closed,
}

impl From<Answered<'_, Token>> for Reaction {
    fn from(answered: Answered<'_, Token>) -> Self {
        match answered {
            Answered::Send(transmit) => Self::Sent(Packet::from_transmit(transmit)),
            Answered::Silent => Self::Silent,
            Answered::Close => Self::Closed,
        }
    }
}

/// Whether both sides are of one mind. What the back-end offers counts only if the front-end has asked.
pub(crate) fn agree<const VRINGS: usize, const REGIONS: usize>(
    front: &Session<VRINGS, REGIONS>,
    back: &Session<VRINGS, REGIONS>,
) -> bool {
    let (ours, theirs) = (front.negotiated(), back.negotiated());
    (ours.offered.is_empty() || ours.offered == theirs.offered)
        && (ours.protocol_offered.is_empty() || ours.protocol_offered == theirs.protocol_offered)
        && (ours.acknowledged, ours.protocol, ours.protocol_opened)
            == (theirs.acknowledged, theirs.protocol, theirs.protocol_opened)
        && front.rings() == back.rings()
        && front.memory() == back.memory()
        && (front.postcopy(), front.has_backend_channel(), front.log(), front.status())
            == (back.postcopy(), back.has_backend_channel(), back.log(), back.status())
}
