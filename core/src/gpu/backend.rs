//! The back-end's end of the GPU channel: it asks.

use core::num::NonZeroU64;

use crate::{
    assembler::{Frame, Transmit},
    channel::{Asking, Due, Flagged, Pending, Question},
    error::{ApiMisuse, Fault},
    rules::Violation,
    session::Postcopy,
    wire::{
        feature::ProtocolFeatures,
        gpu::{GpuFeatures, GpuReply, GpuRequest, MAX_SCANOUTS, Response},
        header::Header,
        row::Channel,
    },
};

use super::{GpuViolation, REPLY, REQUEST, check};

/// What a back-end's GPU machine is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GpuBackendConfig {
    /// Scanouts of the device, 1 to 16; more are not used.
    pub scanouts: u8,
    /// How many `DMABUF_UPDATE` of one scanout may wait for their answers, which come when the
    /// display was refreshed. Default: one, so that the back-end draws no faster than is shown.
    pub updates: u8,
}

impl GpuBackendConfig {
    /// For a device of so many scanouts.
    #[must_use]
    pub const fn new(scanouts: u8) -> Self {
        Self { scanouts, updates: 1 }
    }
}

/// The state of a back-end's end of the GPU channel: a plain value without buffers, descriptors or
/// I/O. It remembers up to `DEPTH` requests that wait for their answers.
///
/// ```
/// use vhost_core::{
///     Assembler, Channel, GpuBackend, GpuBackendConfig, GpuReply, GpuRequest, MAX_MESSAGE,
///     wire::gpu::{Area, AreaImage, Scanout},
/// };
///
/// # fn answer_of_the_front_end() -> [u8; 20] {
/// #     let mut bytes = [0; 20];
/// #     for (at, word) in [(0, 1_u32), (4, 4), (8, 8), (12, 3)] {
/// #         bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
/// #     }
/// #     bytes
/// # }
/// let mut gpu = GpuBackend::<4>::new(GpuBackendConfig::new(1));
/// let mut out = [0; MAX_MESSAGE];
/// let mut socket: Vec<u8> = Vec::new(); // stands for the socket
///
/// // Ask, and read the answer.
/// socket.extend(gpu.request(GpuRequest::<u32>::GetProtocolFeatures, &mut out)?.bytes);
/// let mut assembler = Assembler::<u32>::new(Channel::Gpu);
/// for byte in answer_of_the_front_end() {
///     assembler.read_buf()[0] = byte;
///     assembler.filled(1, [])?;
/// }
/// let reply = gpu.handle_reply(assembler.take().expect("the answer is whole"))?;
/// let GpuReply::GetProtocolFeatures(offered) = reply else { unreachable!() };
/// socket.extend(gpu.request(GpuRequest::<u32>::SetProtocolFeatures(offered), &mut out)?.bytes);
///
/// // Draw. The image goes out from where it is, line by line if need be.
/// socket.extend(gpu.request(GpuRequest::<u32>::Scanout(Scanout::new(0, 640, 480)), &mut out)?.bytes);
/// let screen = vec![0x55; 640 * 480 * 4];
/// let image = AreaImage::new(Area::new(0, 0, 0, 640, 480)).expect("it fits into a message");
/// socket.extend(gpu.request(GpuRequest::<u32>::Update(image), &mut out)?.bytes);
/// for line in screen.chunks(640 * 4) {
///     socket.extend(line);
///     gpu.image_sent(line.len())?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuBackend<const DEPTH: usize> {
    config: GpuBackendConfig,
    offered: GpuFeatures,
    acknowledged: GpuFeatures,
    asking: Asking<Asked, DEPTH>,
    image: u32,
    failed: bool,
}

/// What a question was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asked {
    Something,
    Update { scanout: u32 },
}

impl<const DEPTH: usize> GpuBackend<DEPTH> {
    /// The machine of a channel on which nothing was said yet.
    #[must_use]
    pub fn new(config: GpuBackendConfig) -> Self {
        Self {
            config: GpuBackendConfig { scanouts: config.scanouts.min(MAX_SCANOUTS), ..config },
            offered: GpuFeatures::empty(),
            acknowledged: GpuFeatures::empty(),
            asking: Asking::new(),
            image: 0,
            failed: false,
        }
    }

    /// What the front-end offers; empty until it was asked.
    #[must_use]
    pub fn offered(&self) -> GpuFeatures {
        self.offered
    }

    /// What was acknowledged of it.
    #[must_use]
    pub fn acknowledged(&self) -> GpuFeatures {
        self.acknowledged
    }

    /// How many requests wait for their answers.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.asking.outstanding().len()
    }

    /// Bytes of an image that must be sent before the next request.
    #[must_use]
    pub fn image_left(&self) -> u32 {
        self.image
    }

    /// Whether the channel is of no further use.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Makes a request. If it is to be answered, [`Self::outstanding`] grows by one; if an image
    /// follows, its bytes are sent next, see [`Self::image_sent`].
    ///
    /// # Errors
    /// [`ApiMisuse`]; the machine is as before, and the request's descriptor is dropped.
    pub fn request<'o, H>(&mut self, request: GpuRequest<H>, out: &'o mut [u8]) -> Result<Transmit<'o, H>, ApiMisuse> {
        if self.failed {
            return Err(ApiMisuse::SessionFailed);
        }
        if self.image != 0 {
            return Err(ApiMisuse::ImageOutstanding { left: self.image });
        }
        let message = request.code().message();
        let violates = |violation| ApiMisuse::Violation { message, violation };
        let row = request.code().row().ok_or(ApiMisuse::NothingToAnswer)?;
        if !self.acknowledged.contains(row.gate.gpu()) {
            return Err(violates(Violation::NotNegotiated { gate: row.gate }));
        }
        self.check(&request).map_err(|violation| violates(violation.into()))?;
        let due = Due::of(Some(row), Flagged::No, ProtocolFeatures::empty(), Postcopy::Off);
        if due != Due::Nothing && !self.asking.has_room() {
            return Asking::<Asked, DEPTH>::no_room();
        }
        let image = request.image_bytes();
        let (asked, acknowledged) = match &request {
            GpuRequest::DmabufUpdate(area) => (Asked::Update { scanout: area.scanout() }, None),
            GpuRequest::SetProtocolFeatures(features) => (Asked::Something, Some(*features)),
            _ => (Asked::Something, None),
        };
        let transmit = request.write(message, row, Header::opening(message, false), REQUEST, out)?;
        self.acknowledged = acknowledged.unwrap_or(self.acknowledged);
        self.image = image;
        if due != Due::Nothing {
            self.asking.ask(Question { message, wire: message.id, due, refused: false }, asked);
        }
        Ok(transmit)
    }

    /// Tells that `count` bytes of the image were sent.
    ///
    /// # Errors
    /// [`ApiMisuse::ImageTooLong`]: so many were not left.
    pub fn image_sent(&mut self, count: usize) -> Result<(), ApiMisuse> {
        let left = u32::try_from(count).ok().and_then(|count| self.image.checked_sub(count));
        self.image = left.ok_or(ApiMisuse::ImageTooLong { left: self.image, found: count })?;
        Ok(())
    }

    /// Takes the answer to the oldest outstanding request. [`GpuReply::Done`] answers a
    /// `DMABUF_UPDATE`: the display was refreshed.
    ///
    /// A virtio-gpu error where something else was asked for is not a fault; it comes as
    /// [`GpuReply::Refused`] with the error's number.
    ///
    /// # Errors
    /// The channel is of no use after one, except for [`Fault::Caller`].
    pub fn handle_reply<'b, H>(&mut self, frame: Frame<'b, H>) -> Result<GpuReply<'b, H>, Fault> {
        if self.failed {
            return Err(ApiMisuse::SessionFailed.into());
        }
        let result = self.reply(frame);
        self.failed = result.is_err();
        result
    }

    fn reply<'b, H>(&mut self, frame: Frame<'b, H>) -> Result<GpuReply<'b, H>, Fault> {
        let Some(&Pending { question, .. }) = self.asking.answered(&frame.header, Channel::Gpu) else {
            return self.asking.unexpected(&frame.header, Channel::Gpu);
        };
        self.asking.forget_oldest();
        // Nothing at all is the shortest refusal.
        if question.due == Due::Reply && frame.payload.is_empty() {
            return Ok(GpuReply::Refused(NonZeroU64::MIN));
        }
        let reply = GpuReply::decode(frame, REPLY)?;
        let refusal = match &reply {
            GpuReply::GetDisplayInfo(info) => info.response().refusal(Response::DISPLAY_INFO),
            GpuReply::GetEdid(edid) => edid.response().refusal(Response::EDID),
            GpuReply::GetProtocolFeatures(features) => {
                self.offered = *features;
                None
            }
            _ => None,
        };
        Ok(refusal.map_or(reply, GpuReply::Refused))
    }

    fn check<H>(&self, request: &GpuRequest<H>) -> Result<(), GpuViolation> {
        check(request, self.config.scanouts, self.offered)?;
        let GpuRequest::DmabufUpdate(area) = request else { return Ok(()) };
        let (scanout, limit) = (area.scanout(), self.config.updates);
        let same = |pending: &&Pending<Asked>| pending.effect == Asked::Update { scanout };
        let waiting = self.asking.outstanding().iter().filter(same).fold(0, |count: u8, _| count.saturating_add(1));
        if waiting >= limit {
            return Err(GpuViolation::UpdateOutstanding { scanout, limit });
        }
        Ok(())
    }
}
