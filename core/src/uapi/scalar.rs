//! Bytes: how signed numbers and feature sets stand in an argument.

use zerocopy::native_endian::I32;

use crate::wire::scalar::Scalar;

impl Scalar for i32 {
    type Wire = I32;
    fn to_wire(self) -> I32 {
        I32::from(self)
    }
    fn from_wire(wire: I32) -> Self {
        wire.into()
    }
}
