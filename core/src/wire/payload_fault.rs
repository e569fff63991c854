//! Bytes: what is wrong with those of a payload.

use core::fmt;

use super::size_rule::SizeRule;

/// What is wrong with a payload's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadFault {
    /// Too short or too long.
    Size {
        /// What was expected.
        expected: SizeRule,
        /// How many bytes came.
        found: usize,
    },
    /// A field holds a value it cannot have.
    Field {
        /// The field, and what it may hold.
        field: Field,
        /// What it held.
        found: u64,
    },
    /// The image has not as many bytes as its width and height say.
    Image {
        /// Width in pixels of four bytes.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes announced.
        found: u32,
    },
}

impl fmt::Display for PayloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { expected, found } => write!(f, "expected {expected} payload bytes, found {found}"),
            Self::Field { field, found } => write!(f, "field {field}, found {found:#x}"),
            Self::Image { width, height, found } => {
                write!(f, "expected an image of {width} x {height} pixels of 4 bytes, found {found} bytes of it")
            }
        }
    }
}

/// A field that may hold some values only; shows itself with these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// How many regions a memory table has.
    RegionCount,
    /// How many mappings a list has.
    MappingCount,
    /// How many bytes of the configuration space are meant.
    ConfigSize,
    /// The sizes of the shared memory regions.
    RegionSizes,
    /// Bytes that a display says of itself.
    EdidSize,
    /// Bytes of the key of a cipher.
    CipherKeyLength,
    /// Bytes of the key of a MAC.
    AuthenticationKeyLength,
    /// Bytes of an asymmetric key.
    KeyLength,
    /// The parameters of a crypto session.
    Parameters,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RegionCount => "count: expected at most 8 regions",
            Self::MappingCount => "count: expected at most 32 mappings",
            Self::ConfigSize => "size: expected at most the number of bytes that follow",
            Self::RegionSizes => "sizes: expected whole numbers of 8 bytes",
            Self::EdidSize => "size: expected at most 1024 bytes",
            Self::CipherKeyLength => "cipher key length: expected at most 64 bytes",
            Self::AuthenticationKeyLength => "authentication key length: expected at most 512 bytes",
            Self::KeyLength => "key length: expected at most 1024 bytes",
            Self::Parameters => "parameters: expected room for what stands in front",
        })
    }
}
