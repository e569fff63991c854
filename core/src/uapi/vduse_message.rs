//! Bytes: the messages that are read from and written to a VDUSE device.

use zerocopy::native_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bits::DeviceStatus;
use super::message_fault::MessageFault;
use super::vduse_layout::VringPosition;
use crate::address::Iova;
use crate::virtqueue::RingLayout;
use crate::wire::vring::VringBase;

/// Bytes of a request, and of an answer.
pub const VDUSE_MESSAGE_SIZE: usize = 152;

const GET_VQ_STATE: u32 = 0;
const SET_STATUS: u32 = 1;
const UPDATE_IOTLB: u32 = 2;
const SET_VQ_GROUP_ASID: u32 = 3;

/// The version of the interface that a device was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VduseVersion {
    /// One address space.
    V0,
    /// Groups of rings and several address spaces; since Linux 7.0.
    V1,
}

impl VduseVersion {
    /// The number for `VDUSE_SET_API_VERSION`.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Whole {
    /// Of a request its type; of an answer the request's id.
    first: U32,
    /// Of a request its id; of an answer the result.
    second: U32,
    reserved: [u8; 16],
    body: [u8; BODY_SIZE],
}

const BODY_SIZE: usize = 128;

const _: () = assert!(size_of::<Whole>() == VDUSE_MESSAGE_SIZE);

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RangeBody {
    first: U64,
    last: U64,
    asid: U32,
    unused: U32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct GroupBody {
    group: U32,
    asid: U32,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct StateBody {
    index: U32,
    position: VringPosition,
}

/// What the kernel asks a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VduseRequest {
    /// Where does this ring go on? Answered by [`VduseAnswer::Position`].
    GetVringState {
        /// The ring, from 0.
        index: u32,
    },
    /// The driver writes the device status; empty means a reset.
    SetStatus(DeviceStatus),
    /// Mappings of this range have changed.
    UpdateIotlb {
        /// The first address.
        first: Iova,
        /// The last address, which is part of the range.
        last: Iova,
        /// The address space; 0 in version 0.
        asid: u32,
    },
    /// A group of rings moves to an address space. Version 1.
    SetGroupAsid {
        /// The group.
        group: u32,
        /// The address space.
        asid: u32,
    },
    /// Something newer; answer it with [`VduseAnswer::Failed`].
    Unknown {
        /// Its type.
        request_type: u32,
    },
}

/// A request with the number that its answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VduseMessage {
    /// The number.
    pub id: u32,
    /// What is asked.
    pub request: VduseRequest,
}

impl VduseMessage {
    /// Reads a request.
    ///
    /// # Errors
    /// There are fewer than 152 bytes.
    pub fn decode(bytes: &[u8], version: VduseVersion) -> Result<Self, MessageFault> {
        let whole = whole(bytes)?;
        let request = match whole.first.get() {
            GET_VQ_STATE => VduseRequest::GetVringState { index: body::<StateBody>(whole).index.get() },
            SET_STATUS => VduseRequest::SetStatus(DeviceStatus::from_bits_retain(body(whole))),
            UPDATE_IOTLB => {
                let range: RangeBody = body(whole);
                let asid = if version == VduseVersion::V0 { 0 } else { range.asid.get() };
                VduseRequest::UpdateIotlb { first: Iova(range.first.get()), last: Iova(range.last.get()), asid }
            }
            SET_VQ_GROUP_ASID if version >= VduseVersion::V1 => {
                let change: GroupBody = body(whole);
                VduseRequest::SetGroupAsid { group: change.group.get(), asid: change.asid.get() }
            }
            request_type => VduseRequest::Unknown { request_type },
        };
        Ok(Self { id: whole.second.get(), request })
    }

    /// Writes the request, as the kernel does.
    #[must_use]
    pub fn encode(&self) -> [u8; VDUSE_MESSAGE_SIZE] {
        let id = self.id;
        match self.request {
            VduseRequest::GetVringState { index } => {
                let position = VringPosition::new(0, 0, 0, 0);
                message(GET_VQ_STATE, id, &StateBody { index: index.into(), position })
            }
            VduseRequest::SetStatus(status) => message(SET_STATUS, id, &status.bits()),
            VduseRequest::UpdateIotlb { first, last, asid } => {
                let (first, last) = (first.0.into(), last.0.into());
                message(UPDATE_IOTLB, id, &RangeBody { first, last, asid: asid.into(), unused: 0.into() })
            }
            VduseRequest::SetGroupAsid { group, asid } => {
                message(SET_VQ_GROUP_ASID, id, &GroupBody { group: group.into(), asid: asid.into() })
            }
            VduseRequest::Unknown { request_type } => message(request_type, id, &()),
        }
    }
}

/// What a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VduseAnswer {
    /// It is done.
    Done,
    /// It cannot be done.
    Failed,
    /// Where a ring goes on.
    Position {
        /// The ring, from 0.
        index: u32,
        /// The position.
        base: VringBase,
    },
}

impl VduseAnswer {
    /// Writes the answer to the request with this number.
    #[must_use]
    pub fn encode(self, id: u32) -> [u8; VDUSE_MESSAGE_SIZE] {
        const DONE: u32 = 0;
        const FAILED: u32 = 1;
        match self {
            Self::Done => message(id, DONE, &()),
            Self::Failed => message(id, FAILED, &()),
            Self::Position { index, base } => {
                message(id, DONE, &StateBody { index: index.into(), position: base.into() })
            }
        }
    }

    /// Reads the number and the answer to `request`, whose ring has this layout, as the kernel does.
    ///
    /// # Errors
    /// There are fewer than 152 bytes, or one that must be zero is not.
    pub fn decode(bytes: &[u8], request: VduseRequest, layout: RingLayout) -> Result<(u32, Self), MessageFault> {
        let whole = whole(bytes)?;
        if let Some(found) = whole.reserved.iter().find(|byte| **byte != 0) {
            return Err(MessageFault::Field { name: "reserved", expected: "0", found: (*found).into() });
        }
        let answer = match (whole.second.get(), request) {
            (0, VduseRequest::GetVringState { .. }) => {
                let state: StateBody = body(whole);
                Self::Position { index: state.index.get(), base: state.position.base(layout) }
            }
            (0, _) => Self::Done,
            _ => Self::Failed,
        };
        Ok((whole.first.get(), answer))
    }
}

fn whole(bytes: &[u8]) -> Result<&Whole, MessageFault> {
    let too_short = MessageFault::TooShort { expected: VDUSE_MESSAGE_SIZE, found: bytes.len() };
    Whole::ref_from_prefix(bytes).map(|(whole, _)| whole).map_err(|_| too_short)
}

/// The first bytes of the body.
fn body<T: FromBytes>(whole: &Whole) -> T {
    const { assert!(size_of::<T>() <= BODY_SIZE) };
    match T::read_from_prefix(&whole.body) {
        Ok((body, _)) => body,
        // The assertion excludes it.
        Err(_) => T::new_zeroed(),
    }
}

fn message<T: IntoBytes + Immutable>(first: u32, second: u32, content: &T) -> [u8; VDUSE_MESSAGE_SIZE] {
    let mut body = [0; BODY_SIZE];
    for (to, from) in body.iter_mut().zip(content.as_bytes()) {
        *to = *from;
    }
    zerocopy::transmute!(Whole { first: first.into(), second: second.into(), reserved: [0; 16], body })
}
