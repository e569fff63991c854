//! The front-end's end of the GPU channel: it answers.

use zerocopy::IntoBytes;

use crate::{
    assembler::Frame,
    channel::{Answered, Due, Flagged, Pending, Question, answer, send},
    error::ApiMisuse,
    rejection::{Obstacle, Rejection, Verdict},
    rules::Violation,
    session::Postcopy,
    wire::{
        feature::ProtocolFeatures,
        gpu::{GpuCode, GpuFeatures, GpuReply, GpuRequest, MAX_SCANOUTS, Response},
        misfit::Found,
        row::{Channel, Refusal, ReplyRule, Row},
        writer::Writer,
    },
};

use super::{REPLY, REQUEST, check};

/// What a front-end's GPU machine is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GpuFrontendConfig {
    /// Features offered.
    pub features: GpuFeatures,
    /// Scanouts that can be shown, 1 to 16; more are not used.
    pub scanouts: u8,
}

impl GpuFrontendConfig {
    /// For a display of so many scanouts.
    #[must_use]
    pub const fn new(features: GpuFeatures, scanouts: u8) -> Self {
        Self { features, scanouts }
    }
}

/// The state of a front-end's end of the GPU channel: a plain value without buffers, descriptors
/// or I/O.
///
/// Every request is answered before the next is taken, also one that was rejected with
/// [`Verdict::Refuse`]; most answers turn out to be [`Answered::Silent`]. The answer to
/// `DMABUF_UPDATE` may come late, when the display was refreshed: until then the back-end draws
/// nothing new, which is how the display sets the pace.
///
/// A back-end waits for the answers without a limit. So what is refused is answered too: `GET_EDID`
/// and `GET_DISPLAY_INFO` with a virtio-gpu error that the back-end can hand on to its guest, in
/// front of as many zeros as make the usual size, so that an EDID of no bytes is found there;
/// `DMABUF_UPDATE` as if it had been shown; `GET_PROTOCOL_FEATURES` with no features.
///
/// ```
/// use vhost_core::{
///     Answered, Assembler, Channel, GpuFeatures, GpuFrontend, GpuFrontendConfig, GpuReply, GpuRequest, MAX_MESSAGE,
///     Verdict, wire::gpu::{Display, DisplayInfo},
/// };
///
/// # fn words(words: &[u32]) -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() }
/// # let image = [0x55; 2 * 3 * 4];
/// # let stream = [words(&[3, 0, 0]), words(&[8, 0, 20 + 24, 0, 5, 6, 2, 3]), image.to_vec()].concat();
/// # let mut socket: &[u8] = &stream;
/// let mut gpu = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::EDID, 1));
/// let mut assembler = Assembler::<u32>::new(Channel::Gpu);
/// let displays = DisplayInfo::new(&[Display { width: 640, height: 480, enabled: true, ..Display::default() }]);
/// let mut out = [0; MAX_MESSAGE];
/// loop {
///     let count = std::io::Read::read(&mut socket, assembler.read_buf())?;
///     if count == 0 {
///         break; // the back-end has closed the channel
///     }
///     assembler.filled(count, [])?;
///     let Some(frame) = assembler.take() else { continue };
///     let reply: GpuReply<u32> = match gpu.handle_request(frame) {
///         Ok(GpuRequest::GetDisplayInfo) => GpuReply::GetDisplayInfo(&displays),
///         Ok(GpuRequest::Update(update)) => {
///             // The image is next in the stream; read it to where it is shown, a line at a time.
///             let mut line = vec![0; update.area().width() as usize * 4];
///             for _ in 0..update.area().height() {
///                 std::io::Read::read_exact(&mut socket, &mut line)?;
///                 assembler.image_read(line.len());
///             }
///             GpuReply::Done
///         }
///         Ok(_) => gpu.own_answer().unwrap_or(GpuReply::Done),
///         Err(rejection) if rejection.verdict() == Verdict::Refuse => GpuReply::Refused(core::num::NonZeroU64::MIN),
///         Err(rejection) => return Err(rejection.into()),
///     };
///     match gpu.answer(reply, &mut out)? {
///         Answered::Send(transmit) => assert_eq!(transmit.bytes.len(), 12 + 408), // to the socket with it
///         Answered::Silent => {}
///         Answered::Close => break,
///     }
/// }
/// # assert!(socket.is_empty() && assembler.is_between_messages());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuFrontend {
    config: GpuFrontendConfig,
    acknowledged: GpuFeatures,
    answering: Option<Pending<Effect>>,
    failed: bool,
}

/// What a request does once it is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Effect {
    None,
    Acknowledge(GpuFeatures),
}

impl GpuFrontend {
    /// The machine of a channel on which nothing was said yet.
    #[must_use]
    pub fn new(config: GpuFrontendConfig) -> Self {
        Self {
            config: GpuFrontendConfig { scanouts: config.scanouts.min(MAX_SCANOUTS), ..config },
            acknowledged: GpuFeatures::empty(),
            answering: None,
            failed: false,
        }
    }

    /// What the back-end acknowledged of the offer.
    #[must_use]
    pub fn acknowledged(&self) -> GpuFeatures {
        self.acknowledged
    }

    /// Whether the channel is of no further use.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Takes a request from the back-end. It must be answered with [`Self::answer`] before the
    /// next one is taken.
    ///
    /// # Errors
    /// See [`Rejection`]: a rejected request too is answered, with a refusal. Only a reply and a
    /// version that does not exist are reasons to close the channel; a request that nobody knows
    /// is not.
    pub fn handle_request<'b, H>(&mut self, frame: Frame<'b, H>) -> Result<GpuRequest<H>, Rejection> {
        if self.failed {
            return Err(Rejection::session_failed());
        }
        if let Some(asked) = &self.answering {
            return Err(Rejection::answer_outstanding(asked.question.message));
        }
        let code = GpuCode(frame.header.request());
        let result = self.request(frame, code);
        let effect = match &result {
            Ok(GpuRequest::SetProtocolFeatures(features)) => Effect::Acknowledge(*features),
            _ => Effect::None,
        };
        match &result {
            Err(rejection) if rejection.verdict() == Verdict::Close => self.failed = true,
            _ => {
                let message = code.message();
                let (due, refused) = (due(code.row()), result.is_err());
                let question = Question { message, wire: message.id, due, refused };
                self.answering = Some(Pending { question, effect });
            }
        }
        result
    }

    /// The answer to the pending request, if the machine knows it without the display.
    #[must_use]
    pub fn own_answer<H>(&self) -> Option<GpuReply<'static, H>> {
        let Question { message, refused, .. } = self.answering.as_ref()?.question;
        let asked = GpuCode(message.id) == GpuCode::GET_PROTOCOL_FEATURES;
        (asked && !refused).then_some(GpuReply::GetProtocolFeatures(self.config.features))
    }

    /// Answers the pending request; a granted one takes effect now.
    ///
    /// # Errors
    /// [`ApiMisuse`]; the machine is as before, the request is still pending.
    pub fn answer<'o, H>(&mut self, reply: GpuReply<'_, H>, out: &'o mut [u8]) -> Result<Answered<'o, H>, ApiMisuse> {
        let Pending { question, effect } = self.answering.as_ref().ok_or(ApiMisuse::NothingToAnswer)?;
        let refused = matches!(reply, GpuReply::Refused(_));
        let answered = match (reply, question.message.row()) {
            (GpuReply::Refused(number), Some(row)) if row.reply == ReplyRule::Own(Refusal::GpuError) => {
                let mut writer = Writer::new(out);
                writer.put(Response::refusing(number.get()).as_bytes());
                writer.put_zeros(row.reply_payload.size().usual().saturating_sub(Response::SIZE));
                send(question, writer)?
            }
            (reply, _) => answer(question, reply, REPLY, out)?,
        };
        if let (Effect::Acknowledge(features), false) = (effect, refused) {
            self.acknowledged = *features;
        }
        self.answering = None;
        self.failed = matches!(answered, Answered::Close);
        Ok(answered)
    }

    fn request<'b, H>(&self, mut frame: Frame<'b, H>, code: GpuCode) -> Result<GpuRequest<H>, Rejection> {
        let message = code.message();
        if !frame.header.is_known(Channel::Gpu) || frame.header.is_reply() {
            return Err(Rejection::no_request(&frame.header, Channel::Gpu));
        }
        let found = Found::new(message, &frame, REQUEST);
        let Some(row) = code.row() else { return Err(Obstacle::Misfit.rejection(&frame.header, &found, None)) };
        if !self.acknowledged.contains(row.gate.gpu()) {
            return Err(Rejection::violation(message, &Violation::NotNegotiated { gate: row.gate }));
        }
        let request = GpuRequest::of_frame(row, &mut frame, &found)
            .ok_or_else(|| Rejection::refuse(found.fault_with_image(row.payload, row.handles)))?;
        check(&request, self.config.scanouts, self.config.features)
            .map_err(|violation| Rejection::violation(message, &violation.into()))?;
        Ok(request)
    }
}

/// What answers a request of this row; nothing answers one that nobody knows.
fn due(row: Option<&Row>) -> Due {
    Due::of(row, Flagged::No, ProtocolFeatures::empty(), Postcopy::Off)
}
