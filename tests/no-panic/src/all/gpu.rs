//! The GPU channel.

use vhost_core::*;

use crate::Handle;

reach! { gpu;
    GpuBackend<16>: new, offered, acknowledged, outstanding, image_left, has_failed, request::<Handle>, image_sent,
        handle_reply::<Handle>;
    GpuBackendConfig: new;
    GpuFrontend: new, acknowledged, has_failed, handle_request::<Handle>, own_answer::<Handle>, answer::<Handle>;
    GpuFrontendConfig: new;
    wire::gpu::Area: new, scanout, x, y, width, height;
    wire::gpu::AreaImage: new, area, bytes;
    wire::gpu::CursorImage: new, scanout, x, y, hot_x, hot_y;
    wire::gpu::CursorPosition: new, scanout, x, y;
    wire::gpu::DisplayInfo: new, response, display, displays = displays;
    wire::gpu::DmabufScanout: new, scanout, x, y, width, height, dmabuf_width, dmabuf_height, stride, flags, fourcc,
        off, is_shown;
    wire::gpu::DmabufScanout2: new, base, modifier;
    wire::gpu::Edid: new, response, data;
    wire::gpu::GpuCode: row, name, message;
    wire::gpu::GpuReply<Handle>: code, decode, encode;
    wire::gpu::GpuRequest<Handle>: code, decode, encode, scanout, image_bytes;
    wire::gpu::Response: new, kind;
    wire::gpu::Scanout: new, scanout, width, height;
    wire::gpu::ScanoutId: new, scanout;
}

fn displays(info: &wire::gpu::DisplayInfo, each: fn(wire::gpu::Display)) {
    info.displays().for_each(each);
}
