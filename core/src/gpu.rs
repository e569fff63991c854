//! The machines of the GPU channel: a back-end that draws and a front-end that shows.
//!
//! The roles are crossed: the back-end asks, the front-end answers. The channel begins with
//! `GPU_SET_SOCKET` and has features of its own; nothing of the main session is needed here.

mod backend;
mod frontend;

use core::fmt;

use crate::wire::{
    feature::ProtocolFeatures,
    gpu::{GpuFeatures, GpuRequest},
    payload::Form,
};

pub use backend::{GpuBackend, GpuBackendConfig};
pub use frontend::{GpuFrontend, GpuFrontendConfig};

/// No protocol feature of the main session changes a payload here.
const REQUEST: Form = Form::request(ProtocolFeatures::empty());
const REPLY: Form = Form::reply(ProtocolFeatures::empty());

/// A rule of the GPU channel that a well-formed request breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GpuViolation {
    /// There is no such scanout.
    Scanout {
        /// The number that came.
        found: u32,
        /// How many scanouts there are.
        scanouts: u8,
    },
    /// Features were acknowledged that were not offered.
    FeaturesNotOffered {
        /// Those.
        excess: GpuFeatures,
    },
    /// As many updates of a scanout wait for the display as may.
    UpdateOutstanding {
        /// The scanout.
        scanout: u32,
        /// How many may wait.
        limit: u8,
    },
}

impl fmt::Display for GpuViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scanout { found, scanouts } => write!(f, "expected a scanout below {scanouts}, found {found}"),
            Self::FeaturesNotOffered { excess } => write!(f, "GPU features {excess:?} were not offered"),
            Self::UpdateOutstanding { scanout, limit } => {
                write!(f, "{limit} updates of scanout {scanout} wait for the display, which is the limit")
            }
        }
    }
}

/// What both sides check in a request beside its gate.
fn check<H>(request: &GpuRequest<H>, scanouts: u8, offered: GpuFeatures) -> Result<(), GpuViolation> {
    if let Some(found) = request.scanout()
        && found >= u32::from(scanouts)
    {
        return Err(GpuViolation::Scanout { found, scanouts });
    }
    if let GpuRequest::SetProtocolFeatures(features) = request {
        let excess = features.difference(offered);
        if !excess.is_empty() {
            return Err(GpuViolation::FeaturesNotOffered { excess });
        }
    }
    Ok(())
}
