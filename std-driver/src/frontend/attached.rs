//! A back-end's channel that is served while calls of the front-end wait.

use super::{BackendChannel, BackendRequestHandlerMut, ChannelError, ChannelState, Frontend};
use crate::endpoint::Reading;

/// The channel and who handles its requests.
pub(super) struct Attached {
    pub(super) channel: BackendChannel,
    handler: Box<dyn BackendRequestHandlerMut + Send>,
}

impl Attached {
    /// Serves what is there. How the channel ended stays with it, for [`Frontend::process_channel`].
    pub(super) fn serve(&mut self) {
        let _ = self.channel.process_as_far_as(Reading::WhatIsThere, &mut self.handler);
    }
}

impl Frontend {
    /// Has `channel` served while calls of this front-end wait for their answers.
    ///
    /// So a back-end that waits for an answer before it serves the front-end again does not hold up a call. Between calls
    /// the channel is the caller's to poll, see [`attached_channel`](Self::attached_channel). A handler cannot call the
    /// front-end, as that is in a call; it takes a note and leaves the rest to after the call. The time that it takes
    /// counts for the call, whose deadline is not looked at meanwhile.
    ///
    /// A channel that was attached before is dropped, which closes it.
    pub fn attach(&mut self, channel: BackendChannel, handler: impl BackendRequestHandlerMut + Send + 'static) {
        self.attached = Some(Attached { channel, handler: Box::new(handler) });
    }

    /// The attached channel, to be polled between calls.
    #[must_use]
    pub fn attached_channel(&self) -> Option<&BackendChannel> {
        self.attached.as_ref().map(|attached| &attached.channel)
    }

    /// [`process`](BackendChannel::process)es the attached channel; closed if there is none.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub fn process_channel(&mut self) -> Result<ChannelState, ChannelError> {
        match &mut self.attached {
            Some(attached) => attached.channel.process(&mut attached.handler),
            None => Ok(ChannelState::Closed),
        }
    }

    /// Gives the attached channel back, as it is.
    pub fn detach(&mut self) -> Option<BackendChannel> {
        self.attached.take().map(|attached| attached.channel)
    }
}
