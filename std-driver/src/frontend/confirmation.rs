//! How a front-end learns that a request was carried out.

use vhost_core::Delivery;

/// How requests without a reply of their own are confirmed. Requests with one always wait for it.
///
/// ```no_run
/// use vhost_std::frontend::{Confirmation, Frontend};
///
/// # fn ready(mut frontend: Frontend) -> Result<(), vhost_std::frontend::FrontendError> {
/// // A back-end without acknowledgements should have seen the memory before the guest goes on.
/// frontend.set_confirmation(Confirmation::Barrier);
/// frontend.set_mem_table(&[])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Confirmation {
    /// Not at all: the request is sent and believed. A refusal shows at a later call, as a closed connection.
    None,
    /// By an acknowledgement where `REPLY_ACK` is negotiated, else not at all.
    #[default]
    Acknowledgement,
    /// By an acknowledgement where `REPLY_ACK` is negotiated, else by asking for the features afterwards (which QEMU does
    /// too): requests are processed in order, so the answer means that the back-end has processed the request, or else the
    /// connection is closed.
    Barrier,
}

impl Confirmation {
    pub(super) fn delivery(self) -> Delivery {
        match self {
            Self::None => Delivery::Unacknowledged,
            Self::Acknowledgement | Self::Barrier => Delivery::Acknowledged,
        }
    }
}
