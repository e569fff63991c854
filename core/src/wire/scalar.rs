//! Bytes: how a field of a payload is stored, and the macros that define payloads and newtypes.
//!
//! Every payload is a `zerocopy` type of unaligned fields in the machine's byte order. Its fields
//! are private and read through accessors, so the public API shows plain integers and newtypes.

use zerocopy::native_endian::{I32, I64, U16, U32, U64};

/// A value that has a place in a payload.
pub trait Scalar: Copy {
    /// How it is stored: unaligned, in native byte order.
    type Wire: Copy;
    /// The stored form of this value.
    fn to_wire(self) -> Self::Wire;
    /// The value of a stored form.
    fn from_wire(wire: Self::Wire) -> Self;
}

macro_rules! scalar_integers {
    ($($integer:ty => $wire:ty),*) => {$(
        impl Scalar for $integer {
            type Wire = $wire;
            fn to_wire(self) -> $wire {
                <$wire>::from(self)
            }
            fn from_wire(wire: $wire) -> Self {
                wire.into()
            }
        }
    )*};
}

scalar_integers! { u8 => u8, u16 => U16, u32 => U32, u64 => U64, i32 => I32, i64 => I64 }

impl<const N: usize> Scalar for [u8; N] {
    type Wire = [u8; N];
    fn to_wire(self) -> [u8; N] {
        self
    }
    fn from_wire(wire: [u8; N]) -> Self {
        wire
    }
}

/// Defines a payload layout: the stored struct, its constructor, its accessors and its decoding.
macro_rules! layout {
    (
        $(#[$meta:meta])*
        pub struct $name:ident ($size:literal bytes) {
            $(
                $($(#[$field_meta:meta])* field $field:ident : $type:tt)?
                $(padding $padding:ident : $length:literal)?
            ),*
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
            zerocopy::KnownLayout, zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            $(
                $($field: <$type as $crate::wire::scalar::Scalar>::Wire,)?
                $($padding: [u8; $length],)?
            )*
        }

        impl $name {
            /// Size on the wire in bytes.
            pub const SIZE: usize = $size;

            /// A payload with these fields; padding is zero.
            #[allow(clippy::too_many_arguments, reason = "one argument a field of the wire layout")]
            #[allow(clippy::new_without_default, reason = "a payload of zeros rarely means anything")]
            #[must_use]
            pub fn new($($($field: $type,)?)*) -> Self {
                Self {
                    $(
                        $($field: $crate::wire::scalar::Scalar::to_wire($field),)?
                        $($padding: [0; $length],)?
                    )*
                }
            }

            $($(
                $(#[$field_meta])*
                #[must_use]
                pub fn $field(&self) -> $type {
                    $crate::wire::scalar::Scalar::from_wire(self.$field)
                }
            )?)*
        }

        const _: () = assert!(core::mem::size_of::<$name>() == $size);

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name))
                    $($(.field(stringify!($field), &self.$field()))?)*
                    .finish()
            }
        }
    };
}

/// Defines a transparent newtype over `u64` that may stand in a payload.
macro_rules! newtype_u64 {
    ($(#[$meta:meta])* pub struct $name:ident;) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// The number itself.
            pub u64,
        );

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl $crate::wire::scalar::Scalar for $name {
            type Wire = <u64 as $crate::wire::scalar::Scalar>::Wire;
            fn to_wire(self) -> Self::Wire {
                $crate::wire::scalar::Scalar::to_wire(self.0)
            }
            fn from_wire(wire: Self::Wire) -> Self {
                Self($crate::wire::scalar::Scalar::from_wire(wire))
            }
        }
    };
}

pub(crate) use layout;
pub(crate) use newtype_u64;
