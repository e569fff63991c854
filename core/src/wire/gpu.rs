//! Bytes: the table of the display's requests and of their replies, a protocol of its own.
//!
//! This is the only list of them. Source: vhost-user-gpu, section "Message types". The back-end asks and the front-end
//! answers, on the socket of `GPU_SET_SOCKET`.

pub(super) mod display;
pub(crate) mod image;
mod response;
mod scanout;

use core::num::NonZeroU64;

use bitflags::bitflags;

use crate::{
    assembler::{Frame, Handles, Transmit},
    channel::{content_message, with_handles, write_number, write_reply},
    error::{ApiMisuse, DecodeError},
};

use super::{
    header::Header,
    misfit::Found,
    payload::{Body, Form, PayloadKind},
    row::{Channel, Gate, HandleRule, MessageName, Refusal, ReplyRule, Row, Table},
    scalar::Scalar,
    table::{content, handle, handle_rule, payload_kind, replies, requests, take},
    writer::Content,
};

pub use display::{Display, DisplayInfo, Edid};
pub use image::{AreaImage, CursorImage};
pub use response::Response;
pub use scanout::{Area, CursorPosition, DmabufScanout, DmabufScanout2, Scanout, ScanoutId};

/// The most scanouts a display has.
pub const MAX_SCANOUTS: u8 = 16;

bitflags! {
    /// Feature bits of the GPU channel (`GET_PROTOCOL_FEATURES`, `SET_PROTOCOL_FEATURES` there).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct GpuFeatures: u64 {
        /// `GET_EDID`.
        const EDID = 1 << 0;
        /// `DMABUF_SCANOUT2`.
        const DMABUF2 = 1 << 1;
        const _ = !0;
    }
}

impl GpuFeatures {
    /// Every bit this crate knows.
    pub const KNOWN: Self = Self::EDID.union(Self::DMABUF2);
}

impl Scalar for GpuFeatures {
    type Wire = <u64 as Scalar>::Wire;
    fn to_wire(self) -> Self::Wire {
        self.bits().to_wire()
    }
    fn from_wire(wire: Self::Wire) -> Self {
        Self::from_bits_retain(u64::from_wire(wire))
    }
}

requests! {
    channel Gpu;
    /// The id of a request on the GPU channel; open, so that unknown ids survive.
    code GpuCode;
    /// A request on the GPU channel, with what it carries. `H` is a descriptor, or whatever stands
    /// for one.
    request GpuRequest<H>;
    /// What answers a request on the GPU channel.
    reply GpuReply<'b, H> WithoutDescriptors;

    /// Asks for the front-end's features.
    1 GET_PROTOCOL_FEATURES (Gate::ALWAYS) None GetProtocolFeatures => Own(Zeros): None [payload: GpuFeatures];
    /// Acknowledges features.
    2 SET_PROTOCOL_FEATURES (Gate::ALWAYS) None SetProtocolFeatures[payload: GpuFeatures] => Never;
    /// Asks which scanouts there are and how large each should be.
    3 GET_DISPLAY_INFO (Gate::ALWAYS) None GetDisplayInfo => Own(GpuError): None [payload: &'b DisplayInfo];
    /// Moves the cursor and shows it.
    4 CURSOR_POS (Gate::ALWAYS) None CursorPos[payload: CursorPosition] => Never;
    /// Hides the cursor.
    5 CURSOR_POS_HIDE (Gate::ALWAYS) None CursorPosHide[payload: CursorPosition] => Never;
    /// Sets the cursor's shape and place; the image follows.
    6 CURSOR_UPDATE (Gate::ALWAYS) None CursorUpdate[payload: CursorImage] => Never;
    /// Sets a scanout's size, or turns it off.
    7 SCANOUT (Gate::ALWAYS) None Scanout[payload: Scanout] => Never;
    /// Replaces a part of a scanout and shows it; the image follows.
    8 UPDATE (Gate::ALWAYS) None Update[payload: AreaImage] => Never;
    /// Makes a DMABUF the content of a scanout, or turns the scanout off.
    9 DMABUF_SCANOUT (Gate::ALWAYS) IfShown DmabufScanout[payload: DmabufScanout, optional: Option<H>] => Never;
    /// Shows a part of a DMABUF that has changed; answered once it is on display.
    10 DMABUF_UPDATE (Gate::ALWAYS) None DmabufUpdate[payload: Area] => Empty;
    /// Asks what the display on a scanout says of itself.
    11 GET_EDID (Gate::EDID) None GetEdid[payload: ScanoutId]
        => Own(GpuError): None [payload: &'b Edid];
    /// As `DMABUF_SCANOUT`, with the DMABUF's modifier.
    12 DMABUF_SCANOUT2 (Gate::DMABUF2) IfShown
        DmabufScanout2[payload: DmabufScanout2, optional: Option<H>] => Never;
}

impl<H> GpuRequest<H> {
    /// The scanout that the request is about; `None` if it is about none.
    #[must_use]
    pub fn scanout(&self) -> Option<u32> {
        match self {
            Self::GetProtocolFeatures | Self::SetProtocolFeatures(_) | Self::GetDisplayInfo => None,
            Self::CursorPos(position) | Self::CursorPosHide(position) => Some(position.scanout()),
            Self::CursorUpdate(image) => Some(image.scanout()),
            Self::Scanout(scanout) => Some(scanout.scanout()),
            Self::Update(image) => Some(image.area().scanout()),
            Self::DmabufScanout(scanout, _) => Some(scanout.scanout()),
            Self::DmabufUpdate(area) => Some(area.scanout()),
            Self::GetEdid(id) => Some(id.scanout()),
            Self::DmabufScanout2(scanout, _) => Some(scanout.base().scanout()),
        }
    }

    /// How many bytes of an image follow the message; zero for most.
    #[must_use]
    pub fn image_bytes(&self) -> u32 {
        match self {
            Self::CursorUpdate(_) => CursorImage::BYTES,
            Self::Update(image) => image.bytes(),
            _ => 0,
        }
    }
}
