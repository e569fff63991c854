//! Bytes: which displays there are and what they say of themselves.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U32};

use crate::wire::{
    payload::{Body, Form, Payload, PayloadKind},
    writer::Content,
};

use super::{MAX_SCANOUTS, Response};

/// How large a scanout should be and where it lies among the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Display {
    /// Pixels from the left of all scanouts.
    pub x: u32,
    /// Pixels from the top of all scanouts.
    pub y: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Whether there is a display on the scanout.
    pub enabled: bool,
    /// No flag is defined.
    pub flags: u32,
}

/// A display as it lies on the wire, field after field.
type DisplayLayout = [U32; 6];

impl Display {
    fn to_wire(self) -> DisplayLayout {
        let Self { x, y, width, height, enabled, flags } = self;
        [x, y, width, height, u32::from(enabled), flags].map(U32::new)
    }

    fn from_wire(wire: &DisplayLayout) -> Self {
        let [x, y, width, height, enabled, flags] = wire.map(U32::get);
        Self { x, y, width, height, enabled: enabled != 0, flags }
    }
}

/// All scanouts (`GET_DISPLAY_INFO`); little-endian on all machines, because it belongs to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DisplayInfo {
    response: Response,
    displays: [DisplayLayout; 16],
}

impl DisplayInfo {
    /// Size on the wire in bytes.
    pub const SIZE: usize = 408;

    /// These displays, from scanout 0 on; the rest is off. Those after the 16th are left out.
    #[must_use]
    pub fn new(displays: &[Display]) -> Self {
        let mut layouts = [Display::default().to_wire(); 16];
        for (layout, display) in layouts.iter_mut().zip(displays) {
            *layout = display.to_wire();
        }
        Self { response: Response::new(Response::DISPLAY_INFO), displays: layouts }
    }

    /// What stands in front.
    #[must_use]
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The display on this scanout; `None` beyond the 16th.
    #[must_use]
    pub fn display(&self, scanout: u8) -> Option<Display> {
        self.displays.get(usize::from(scanout)).map(Display::from_wire)
    }

    /// The displays on all 16 scanouts in order.
    pub fn displays(&self) -> impl Iterator<Item = Display> + '_ {
        self.displays.iter().map(Display::from_wire)
    }
}

const _: () = assert!(size_of::<DisplayInfo>() == DisplayInfo::SIZE);
const _: () = assert!(MAX_SCANOUTS == 16);

impl fmt::Debug for DisplayInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enabled = self.displays().enumerate().filter(|(_, display)| display.enabled);
        f.debug_map().entry(&"response", &self.response).entries(enabled).finish()
    }
}

impl<'b> Payload<'b> for &'b DisplayInfo {
    const KIND: PayloadKind = PayloadKind::DisplayInfo;

    fn decode(body: Body<'b>, _form: Form) -> Option<Self> {
        DisplayInfo::ref_from_bytes(body.bytes).ok()
    }

    fn content(&self, _form: Form) -> Content<'_> {
        Content::Bytes(self.as_bytes())
    }
}

/// What the display on a scanout says of itself (`GET_EDID`); little-endian on all machines,
/// because it belongs to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Edid {
    response: Response,
    size: U32,
    padding: U32,
    data: [u8; Self::MAX_DATA],
}

impl Edid {
    /// Size on the wire in bytes.
    pub const SIZE: usize = 1056;
    /// The most bytes that a display says of itself.
    pub const MAX_DATA: usize = 1024;

    /// The EDID of these bytes; `None` if there are more than [`Self::MAX_DATA`].
    #[must_use]
    pub fn new(data: &[u8]) -> Option<Self> {
        let size = u32::try_from(data.len()).ok()?;
        let response = Response::new(Response::EDID);
        let mut edid = Self { response, size: size.into(), padding: 0.into(), data: [0; Self::MAX_DATA] };
        for (to, from) in edid.data.get_mut(..data.len())?.iter_mut().zip(data) {
            *to = *from;
        }
        Some(edid)
    }

    /// What stands in front.
    #[must_use]
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// What the display says, at most [`Self::MAX_DATA`] bytes; nothing if it says nothing.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let size = usize::try_from(self.size.get()).unwrap_or(usize::MAX);
        self.data.get(..size).unwrap_or(&self.data)
    }
}

const _: () = assert!(size_of::<Edid>() == Edid::SIZE);

impl fmt::Debug for Edid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edid").field("response", &self.response).field("size", &self.size.get()).finish_non_exhaustive()
    }
}

impl<'b> Payload<'b> for &'b Edid {
    const KIND: PayloadKind = PayloadKind::Edid;

    fn decode(body: Body<'b>, _form: Form) -> Option<Self> {
        let edid = Edid::ref_from_bytes(body.bytes).ok()?;
        let fits = usize::try_from(edid.size.get()).is_ok_and(|size| size <= Edid::MAX_DATA);
        fits.then_some(edid)
    }

    fn content(&self, _form: Form) -> Content<'_> {
        Content::Bytes(self.as_bytes())
    }
}

/// How many bytes a display says of itself, if these are too many.
pub(in crate::wire) fn wrong_size(bytes: &[u8]) -> Option<u32> {
    Edid::ref_from_bytes(bytes).ok().map(|edid| edid.size.get())
}
