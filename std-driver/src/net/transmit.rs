//! Frames that the guest sends.

use super::{FRAME, HEADER, NetLink, Packet, header_size};
use crate::device::Queue;

/// Sends all frames that the driver has for the link. Those that are too long to be frames, or too short for a header, are
/// lost.
pub(super) fn send(link: &NetLink, queue: &mut Queue<'_>, acknowledged: u64, packet: &mut Packet) {
    let header_size = header_size(acknowledged);
    while let Some(chain) = queue.next() {
        let mut readable = chain.readable();
        let (header, frame) = packet.split_at_mut(HEADER);
        // An old driver's header has no number of buffers, which means nothing in this direction.
        header.fill(0);
        let length = usize::try_from(readable.len()).unwrap_or(usize::MAX);
        let frame = length.checked_sub(header_size).filter(|length| *length <= FRAME).and_then(|l| frame.get_mut(..l));
        if let (Some(frame), Some(copied)) = (frame, header.get_mut(..header_size))
            && readable.read(copied).is_ok()
            && readable.read(frame).is_ok()
        {
            link.send(header, frame);
        }
        queue.complete(chain, 0);
    }
}
