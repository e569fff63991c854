//! The back-end's own channel: what it asks of the front-end.

use core::num::NonZeroU64;

use crate::{
    assembler::{Frame, Transmit},
    channel::{Asking, Due, Flagged, Pending, Question},
    error::{ApiMisuse, Fault},
    frontend::Delivery,
    rules::{Violation, check_backend_request},
    session::Postcopy,
    wire::{
        backend_request::{BackendReply, BackendRequest},
        header::Header,
        payload::Role,
        row::{Channel, ReplyRule},
    },
};

use super::Backend;

impl<const VRINGS: usize, const REGIONS: usize, const DEPTH: usize> Backend<VRINGS, REGIONS, DEPTH> {
    /// Makes a request on the back-end's own channel.
    ///
    /// The two channels are independent: neither machine ever waits. A driver must not wait for the
    /// answer without serving the main channel, because QEMU asks for the configuration there before
    /// it answers a `CONFIG_CHANGE_MSG`.
    ///
    /// ```
    /// # use vhost_core::{Answered, Backend, BackendConfig, BackendReply, BackendRequest, Delivery, Frame, FrontendReply,
    /// #     Handles, MAX_MESSAGE, ProtocolFeatures, VirtioFeatures, wire::header::Header};
    /// # let features = ProtocolFeatures::BACKEND_REQ | ProtocolFeatures::CONFIG | ProtocolFeatures::REPLY_ACK;
    /// # let mut backend = Backend::<1, 8, 4>::new(BackendConfig::new(VirtioFeatures::VERSION_1, features, 1));
    /// # let mut out = [0; MAX_MESSAGE];
    /// # let bits = features.bits().to_ne_bytes();
    /// # for (id, payload, handles) in [(16, &bits[..], Handles::new()), (21, &[][..], Handles::from_iter([7_u8]))] {
    /// #     let header = Header::request_of(id, false, payload.len() as u32);
    /// #     backend.handle_request(Frame { header, payload, handles })?;
    /// #     let Answered::Silent = backend.answer::<u8>(FrontendReply::Done, &mut out)? else { unreachable!() };
    /// # }
    /// // The front-end has sent SET_BACKEND_REQ_FD; now the device's configuration changes.
    /// let request = BackendRequest::<u8>::ConfigChangeMsg;
    /// let message = backend.request(request, Delivery::Acknowledged, &mut out)?;
    /// assert_eq!(message.bytes[..4], 2_u32.to_ne_bytes()); // to the back-end channel with it
    ///
    /// // Later, a frame comes in on the back-end channel.
    /// let acknowledgement =
    ///     Frame::<u8> { header: Header::reply_to(2, 8), payload: &[0; 8], handles: Handles::new() };
    /// assert_eq!(backend.handle_reply(acknowledgement)?, BackendReply::Done);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ApiMisuse`]; the machine is as before, and the request's descriptors are dropped.
    pub fn request<'o, H>(
        &mut self,
        mut request: BackendRequest<'_, H>,
        delivery: Delivery,
        out: &'o mut [u8],
    ) -> Result<Transmit<'o, H>, ApiMisuse> {
        if self.failed || self.backend_channel_failed {
            return Err(ApiMisuse::SessionFailed);
        }
        let message = request.code().message();
        if let Err(violation) = request.say_in(self.session.dialect) {
            return Err(ApiMisuse::violation(message, &violation.into()));
        }
        let message = request.code().message();
        let form = self.form(Role::Request);
        let wire = form.on_wire(message)?;
        let row = request.code().row().ok_or(ApiMisuse::NothingToAnswer)?;
        let negotiated = &self.session.negotiated;
        if !negotiated.opens(&row.gate) {
            return Err(ApiMisuse::violation(message, &Violation::NotNegotiated { gate: row.gate }));
        }
        if !self.session.backend_channel {
            return Err(ApiMisuse::violation(message, &Violation::NoBackendChannel));
        }
        if let Err(violation) = check_backend_request(&request, usize::from(self.config.rings)) {
            return Err(ApiMisuse::violation(message, &violation));
        }
        // A look-up is flagged too: some front-ends answer only then.
        let wanted = delivery == Delivery::Acknowledged || matches!(row.reply, ReplyRule::Own(_));
        let flagged = match row.reply {
            // The older dialects answer whenever they are asked, and are always asked.
            ReplyRule::AcknowledgedWhenFlagged | ReplyRule::OwnWhenFlagged(_) => Flagged::Yes,
            _ if wanted && negotiated.has_acknowledgements() => Flagged::Yes,
            _ => Flagged::No,
        };
        let due = Due::of(Some(row), flagged, negotiated, Postcopy::Off);
        if due != Due::Nothing && !self.asking.has_room() {
            return Asking::<(), DEPTH>::no_room();
        }
        let result = request.write(message, row, Header::opening(wire, flagged == Flagged::Yes), form, out);
        if result.is_ok() && due != Due::Nothing {
            self.asking.ask(Question { message, wire: wire.id, due, refused: false }, ());
        }
        result
    }

    /// Takes the answer to the oldest outstanding request of the back-end.
    ///
    /// # Errors
    /// The back-end's channel is of no use after one, except for [`Fault::Caller`]; the session
    /// goes on.
    pub fn handle_reply<'b, H>(&mut self, mut frame: Frame<'b, H>) -> Result<BackendReply<H>, Fault> {
        let mut result = self.reply(&mut frame);
        if let Ok(reply) = &mut result {
            let refusal = match reply {
                BackendReply::SharedObjectLookup(number, _) => NonZeroU64::new(*number),
                BackendReply::CacheIo(count) if *count < 0 => NonZeroU64::new(count.unsigned_abs()),
                _ => None,
            };
            if let Some(number) = refusal {
                *reply = BackendReply::Refused(number);
            }
        }
        self.backend_channel_failed |= result.is_err() && !self.failed;
        result
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn reply<'b, H>(&mut self, frame: &mut Frame<'b, H>) -> Result<BackendReply<H>, Fault> {
        if self.failed || self.backend_channel_failed {
            return Err(ApiMisuse::SessionFailed.into());
        }
        let Some(&Pending { question, .. }) = self.asking.answered(&frame.header, Channel::Backend) else {
            return self.asking.unexpected(&frame.header, Channel::Backend);
        };
        self.asking.forget_oldest();
        question.answered_by(frame, self.form(Role::Reply))
    }
}
