//! Bytes: payloads about one scanout.

use crate::wire::scalar::layout;

layout! {
    /// Which scanout is meant (`GET_EDID`).
    pub struct ScanoutId (4 bytes) {
        /// The scanout, from 0.
        field scanout: u32,
    }
}

layout! {
    /// Where a cursor is.
    pub struct CursorPosition (12 bytes) {
        /// The scanout, from 0.
        field scanout: u32,
        /// Pixels from the left.
        field x: u32,
        /// Pixels from the top.
        field y: u32,
    }
}

layout! {
    /// A scanout's size.
    pub struct Scanout (12 bytes) {
        /// The scanout, from 0.
        field scanout: u32,
        /// Pixels; zero turns the scanout off.
        field width: u32,
        /// Pixels; zero turns the scanout off.
        field height: u32,
    }
}

layout! {
    /// A part of a scanout. It may reach beyond the scanout's edges: clip it.
    pub struct Area (20 bytes) {
        /// The scanout, from 0.
        field scanout: u32,
        /// Pixels from the left.
        field x: u32,
        /// Pixels from the top.
        field y: u32,
        /// Pixels.
        field width: u32,
        /// Pixels.
        field height: u32,
    }
}

layout! {
    /// A scanout whose content is a part of a DMABUF.
    pub struct DmabufScanout (40 bytes) {
        /// The scanout, from 0.
        field scanout: u32,
        /// Pixels from the DMABUF's left edge.
        field x: u32,
        /// Pixels from the DMABUF's top edge.
        field y: u32,
        /// The scanout's width in pixels; zero turns it off.
        field width: u32,
        /// The scanout's height in pixels; zero turns it off.
        field height: u32,
        /// The DMABUF's width in pixels.
        field dmabuf_width: u32,
        /// The DMABUF's height in pixels.
        field dmabuf_height: u32,
        /// Bytes from one line of the DMABUF to the next.
        field stride: u32,
        /// See [`DmabufScanout::FIRST_LINE_ON_TOP`].
        field flags: u32,
        /// The DRM code of the DMABUF's pixel format.
        field fourcc: i32,
    }
}

impl DmabufScanout {
    /// Flag bit 0: the first line is the upper one (`VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP`).
    pub const FIRST_LINE_ON_TOP: u32 = 1;

    /// The message that turns a scanout off; no descriptor goes with it.
    #[must_use]
    pub fn off(scanout: u32) -> Self {
        Self::new(scanout, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    }

    /// Whether the scanout is shown; else it is turned off, and no descriptor comes.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.width() != 0 && self.height() != 0
    }
}

layout! {
    /// A scanout whose content is a part of a DMABUF with a modifier.
    pub struct DmabufScanout2 (48 bytes) {
        /// What is known without the modifier.
        field base: DmabufScanout,
        /// The DRM modifier of the DMABUF's format.
        field modifier: u64,
    }
}

impl crate::wire::scalar::Scalar for DmabufScanout {
    type Wire = Self;
    fn to_wire(self) -> Self {
        self
    }
    fn from_wire(wire: Self) -> Self {
        wire
    }
}
