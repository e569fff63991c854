//! Bytes: crypto sessions, and what a session's parameters and keys are.
//!
//! The parameters are a C union of QEMU's and DPDK's: two layouts, each with room for the longest
//! key. A key's length is compared with its room before the key is handed out (CVE-2020-10724), and
//! no `Debug` shows a key.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, native_endian::U64};

use super::{
    payload::{Body, Field, Form, Payload, PayloadFault, PayloadKind},
    scalar::layout,
    writer::Content,
};

/// Parameters and keys.
type Parameters = [u8; 1056];

/// A session to create, and in the reply its id (`CREATE_CRYPTO_SESSION`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CryptoSession {
    op_code: U64,
    parameters: Parameters,
    session_id: U64,
}

const _: () = assert!(size_of::<CryptoSession>() == CryptoSession::SIZE);

impl CryptoSession {
    /// Size on the wire in bytes.
    pub const SIZE: usize = 1072;
    /// Bytes in front of the session's id.
    pub(crate) const BEFORE_ID: usize = core::mem::offset_of!(Self, session_id);
    /// The id that tells an error.
    pub const FAILED: u64 = u64::MAX;

    /// Operation code: a session that ciphers, perhaps with a hash or MAC before or after it.
    pub const CIPHER: u64 = 0x0002;
    /// Operation code: a session that hashes.
    pub const HASH: u64 = 0x0102;
    /// Operation code: a session that authenticates.
    pub const MAC: u64 = 0x0202;
    /// Operation code: a session that ciphers and authenticates at once.
    pub const AEAD: u64 = 0x0302;
    /// Operation code: a session with an asymmetric key.
    pub const ASYMMETRIC: u64 = 0x0404;

    /// A session with these bytes as its parameters.
    #[must_use]
    pub fn new(op_code: u64, parameters: Parameters, session_id: u64) -> Self {
        Self { op_code: op_code.into(), parameters, session_id: session_id.into() }
    }

    /// A session to create with symmetric keys.
    ///
    /// # Errors
    /// A key is too long.
    pub fn with_symmetric(op_code: u64, keys: &SymmetricKeys<'_>) -> Result<Self, PayloadFault> {
        let head = SymmetricLayout::new(
            keys.cipher,
            CIPHER_KEY.length(keys.cipher_key)?,
            keys.hash,
            keys.digest_length,
            AUTHENTICATION_KEY.length(keys.authentication_key)?,
            keys.associated_length,
            keys.operation,
            keys.direction,
            keys.hash_mode,
            keys.chaining,
        );
        let mut session = Self::new(op_code, [0; 1056], 0);
        session.put(0, head.as_bytes());
        session.put(CIPHER_KEY.offset, keys.cipher_key);
        session.put(AUTHENTICATION_KEY.offset, keys.authentication_key);
        Ok(session)
    }

    /// A session to create with an asymmetric key.
    ///
    /// # Errors
    /// The key is too long.
    pub fn with_asymmetric(op_code: u64, key: &AsymmetricKey<'_>) -> Result<Self, PayloadFault> {
        let length = ASYMMETRIC_KEY.length(key.key)?;
        let head = AsymmetricLayout::new(key.algorithm, key.kind, length, key.padding, key.hash);
        let mut session = Self::new(op_code, [0; 1056], 0);
        session.put(0, head.as_bytes());
        session.put(ASYMMETRIC_KEY.offset, key.key);
        Ok(session)
    }

    /// The virtio crypto operation code (QEMU sends 64 bits; DPDK's 32 and padding are the same
    /// bytes on little-endian machines). It says which layout the parameters have.
    #[must_use]
    pub fn op_code(&self) -> u64 {
        self.op_code.get()
    }

    /// Parameters and keys, laid out as the operation code says.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// In the reply: the session's id; negative for an error.
    #[must_use]
    pub fn session_id(&self) -> u64 {
        self.session_id.get()
    }

    /// The parameters of a session with symmetric keys.
    ///
    /// # Errors
    /// A key is longer than there is room for.
    pub fn symmetric(&self) -> Result<SymmetricKeys<'_>, PayloadFault> {
        let head: &SymmetricLayout = head(&self.parameters)?;
        Ok(SymmetricKeys {
            cipher: head.cipher(),
            cipher_key: CIPHER_KEY.find(&self.parameters, head.cipher_key_length())?,
            hash: head.hash(),
            digest_length: head.digest_length(),
            authentication_key: AUTHENTICATION_KEY.find(&self.parameters, head.authentication_key_length())?,
            associated_length: head.associated_length(),
            operation: head.operation(),
            direction: head.direction(),
            hash_mode: head.hash_mode(),
            chaining: head.chaining(),
        })
    }

    /// The parameters of a session with an asymmetric key.
    ///
    /// # Errors
    /// The key is longer than there is room for.
    pub fn asymmetric(&self) -> Result<AsymmetricKey<'_>, PayloadFault> {
        let head: &AsymmetricLayout = head(&self.parameters)?;
        Ok(AsymmetricKey {
            algorithm: head.algorithm(),
            kind: head.kind(),
            key: ASYMMETRIC_KEY.find(&self.parameters, head.key_length())?,
            padding: head.padding(),
            hash: head.hash(),
        })
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        // The keys' lengths were compared with their room.
        self.parameters.iter_mut().skip(offset).zip(bytes).for_each(|(to, from)| *to = *from);
    }
}

impl fmt::Debug for CryptoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut session = f.debug_struct("CryptoSession");
        session.field("op_code", &self.op_code()).field("session_id", &self.session_id()).finish_non_exhaustive()
    }
}

impl<'b> Payload<'b> for &'b CryptoSession {
    const KIND: PayloadKind = PayloadKind::CryptoSession;

    #[inline]
    fn decode(body: Body<'b>, _form: Form) -> Option<Self> {
        CryptoSession::ref_from_bytes(body.bytes).ok()
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        Content::Bytes(self.as_bytes())
    }
}

/// The parameters of a session with symmetric keys. The numbers are those of virtio, section
/// "Crypto Device".
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SymmetricKeys<'b> {
    /// The cipher's algorithm.
    pub cipher: u32,
    /// The cipher's key, at most 64 bytes.
    pub cipher_key: &'b [u8],
    /// The algorithm of the hash or MAC.
    pub hash: u32,
    /// Bytes of the digest.
    pub digest_length: u32,
    /// The key of the MAC, at most 512 bytes.
    pub authentication_key: &'b [u8],
    /// Bytes of associated data.
    pub associated_length: u32,
    /// A cipher alone or a chain of algorithms.
    pub operation: u8,
    /// Encryption or decryption.
    pub direction: u8,
    /// A plain, an authenticated or a nested hash.
    pub hash_mode: u8,
    /// Which algorithm of a chain comes first.
    pub chaining: u8,
}

impl fmt::Debug for SymmetricKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys = f.debug_struct("SymmetricKeys");
        keys.field("cipher", &self.cipher).field("cipher_key_length", &self.cipher_key.len());
        keys.field("hash", &self.hash).field("authentication_key_length", &self.authentication_key.len());
        keys.finish_non_exhaustive()
    }
}

/// The parameters of a session with an asymmetric key. The numbers are those of virtio, section
/// "Crypto Device".
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AsymmetricKey<'b> {
    /// The algorithm.
    pub algorithm: u32,
    /// A public or a private key.
    pub kind: u32,
    /// The key, at most 1024 bytes.
    pub key: &'b [u8],
    /// The padding's algorithm.
    pub padding: u32,
    /// The hash's algorithm.
    pub hash: u32,
}

impl fmt::Debug for AsymmetricKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = f.debug_struct("AsymmetricKey");
        key.field("algorithm", &self.algorithm).field("key_length", &self.key.len()).finish_non_exhaustive()
    }
}

layout! {
    /// What stands in front of symmetric keys. Peers leave their own pointers at its end.
    pub struct SymmetricLayout (48 bytes) {
        /// The cipher's algorithm.
        field cipher: u32,
        /// Bytes of the cipher's key.
        field cipher_key_length: u32,
        /// The algorithm of the hash or MAC.
        field hash: u32,
        /// Bytes of the digest.
        field digest_length: u32,
        /// Bytes of the key of the MAC.
        field authentication_key_length: u32,
        /// Bytes of associated data.
        field associated_length: u32,
        /// A cipher alone or a chain of algorithms.
        field operation: u8,
        /// Encryption or decryption.
        field direction: u8,
        /// A plain, an authenticated or a nested hash.
        field hash_mode: u8,
        /// Which algorithm of a chain comes first.
        field chaining: u8,
        padding pointers: 20,
    }
}

layout! {
    /// What stands in front of an asymmetric key. Peers leave a pointer of their own in its middle.
    pub struct AsymmetricLayout (32 bytes) {
        /// The algorithm.
        field algorithm: u32,
        /// A public or a private key.
        field kind: u32,
        /// Bytes of the key.
        field key_length: u32,
        padding pointer: 12,
        /// The padding's algorithm.
        field padding: u32,
        /// The hash's algorithm.
        field hash: u32,
    }
}

/// Where a key lies in the parameters and how long it may be.
struct Room {
    field: Field,
    offset: usize,
    size: usize,
}

const CIPHER_KEY: Room = Room { field: Field::CipherKeyLength, offset: SymmetricLayout::SIZE, size: 64 };
const AUTHENTICATION_KEY: Room = Room { field: Field::AuthenticationKeyLength, offset: 112, size: 512 };
const ASYMMETRIC_KEY: Room = Room { field: Field::KeyLength, offset: AsymmetricLayout::SIZE, size: 1024 };

const _: () = assert!(AUTHENTICATION_KEY.offset == CIPHER_KEY.offset + CIPHER_KEY.size);
const _: () = assert!(ASYMMETRIC_KEY.offset + ASYMMETRIC_KEY.size == size_of::<Parameters>());

impl Room {
    /// The key of this length.
    fn find<'b>(&self, parameters: &'b Parameters, length: u32) -> Result<&'b [u8], PayloadFault> {
        let too_long = self.too_long(u64::from(length));
        let length = usize::try_from(length).ok().filter(|length| *length <= self.size).ok_or(too_long)?;
        let room = parameters.get(self.offset..).ok_or(too_long)?;
        room.get(..length).ok_or(too_long)
    }

    /// The length of this key.
    fn length(&self, key: &[u8]) -> Result<u32, PayloadFault> {
        let too_long = self.too_long(u64::try_from(key.len()).unwrap_or(u64::MAX));
        let length = u32::try_from(key.len()).map_err(|_| too_long)?;
        if key.len() <= self.size { Ok(length) } else { Err(too_long) }
    }

    const fn too_long(&self, found: u64) -> PayloadFault {
        PayloadFault::Field { field: self.field, found }
    }
}

/// What stands in front of the keys; there is always room for it.
fn head<T>(parameters: &Parameters) -> Result<&T, PayloadFault>
where
    T: FromBytes + Immutable + KnownLayout + Unaligned,
{
    let fault = PayloadFault::Field { field: Field::Parameters, found: 0 };
    T::ref_from_prefix(parameters).map(|(head, _)| head).map_err(|_| fault)
}
