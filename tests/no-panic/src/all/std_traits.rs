//! What every type can do: being told in words, copied, compared. `Debug` is not here: the standard library's helpers for
//! it assert what they are given.

use core::{
    fmt::Display,
    hash::{Hash, Hasher},
};

use vhost_core::*;

use crate::Handle;

type Receiving = ReceiveError<u32>;
type Back = Backend<256, 509, 16>;
type Front = Frontend<256, 509, 16>;
type GpuBack = GpuBackend<16>;
type Asked = FrontendRequest<'static, Handle>;
type Told = FrontendReply<'static, Handle>;
type Queue = DeviceQueueState;
type DriverSide = DriverQueueState<1024>;
type Table = Iotlb<UserAddress, 64>;

reach_traits! { derived;
    Clone for Back: clone;
    Clone for Front: clone;
    Clone for GpuBack: clone;
    Clone for GpuFrontend: clone;
    Clone for DriverSide: clone;
    Clone for Table: clone;
    PartialEq for Back: eq;
    PartialEq for Front: eq;
    PartialEq for GpuBack: eq;
    PartialEq for GpuFrontend: eq;
    PartialEq for Asked: eq;
    PartialEq for Told: eq;
    PartialEq for Queue: eq;
    PartialEq for DriverSide: eq;
    PartialEq for Table: eq;
    Hash for Back: hash = hash::<Back>;
    Hash for Front: hash = hash::<Front>;
    Hash for GpuBack: hash = hash::<GpuBack>;
    Hash for GpuFrontend: hash = hash::<GpuFrontend>;
    Hash for Queue: hash = hash::<Queue>;
    Hash for DriverSide: hash = hash::<DriverSide>;
    Hash for Table: hash = hash::<Table>;
}

reach_traits! { faults;
    Display for AddError: fmt;
    Display for ApiMisuse: fmt;
    Display for ChainFault: fmt;
    Display for DecodeError: fmt;
    Display for Dialect: fmt;
    Display for DriverFault: fmt;
    Display for Fault: fmt;
    Display for IotlbMisuse: fmt;
    Display for LogFault: fmt;
    Display for MemoryFault: fmt;
    Display for MessageName: fmt;
    Display for PartFault: fmt;
    Display for PeerMisbehaved: fmt;
    Display for PopError: fmt;
    Display for PushError: fmt;
    Display for Receiving: fmt;
    Display for Rejection: fmt;
    Display for RingFault: fmt;
    Display for Unmapped: fmt;
    Display for Violation: fmt;
}

/// Somebody's hash function.
pub struct Opaque(fn(&[u8]));

impl Hasher for Opaque {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        (self.0)(bytes);
    }
}

fn hash<T: Hash>(value: &T, hasher: &mut Opaque) {
    value.hash(hasher);
}
