//! Another process as a [`VhostBackend`]: what a VMM asks, in messages.

use std::os::fd::AsFd;

use vhost_core::{
    ApiMisuse, FrontendCode, LogArea, MemoryRegion, ProtocolFeatures, VhostBackend, Violation, VirtioFeatures,
    VringSetting,
    wire::{log::Log, vring::VringBase},
};

use super::{Enabled, Frontend, FrontendError, MAX_RINGS, bring_up};

/// Protocol features that the calls of [`VhostBackend`] make use of and that need nothing else of the caller.
const PROTOCOL_FEATURES: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::LOG_SHMFD)
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::RESET_DEVICE)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// The first call of [`features`](VhostBackend::features) also agrees on protocol features, unless the caller has done so
/// before with a choice of its own.
impl VhostBackend for Frontend {
    type Handle = dyn AsFd;
    type Memory = dyn AsFd;
    type Error = FrontendError;

    fn set_owner(&mut self) -> Result<(), FrontendError> {
        self.set_owner()
    }

    fn features(&mut self) -> Result<VirtioFeatures, FrontendError> {
        let offered = self.get_features()?;
        if offered.contains(VirtioFeatures::PROTOCOL_FEATURES) && !self.negotiated().protocol_opened {
            let protocol = self.get_protocol_features()?;
            self.set_protocol_features(protocol.intersection(PROTOCOL_FEATURES).without_broken())?;
        }
        Ok(offered.difference(VirtioFeatures::PROTOCOL_FEATURES))
    }

    fn acknowledge(&mut self, features: VirtioFeatures) -> Result<(), FrontendError> {
        let transport = self.negotiated().offered & VirtioFeatures::PROTOCOL_FEATURES;
        self.set_features(features | transport)?;
        self.raise_status(bring_up::FEATURES_OK)
    }

    /// As [`share_memory`](Frontend::share_memory): the memory may have changed in part after an error.
    fn set_memory(&mut self, regions: &[(MemoryRegion, &Self::Memory)]) -> Result<(), FrontendError> {
        let regions: Vec<_> = regions.iter().map(|(region, memory)| (*region, memory.as_fd())).collect();
        self.share_memory(&regions)
    }

    fn set_log(&mut self, log: &LogArea<'_, Self::Memory>) -> Result<(), FrontendError> {
        self.set_log_base(&Log::new(log.size, log.offset), log.memory.as_fd())
    }

    fn set_vring(&mut self, ring: u16, setting: VringSetting<'_, Self::Handle>) -> Result<(), FrontendError> {
        let ring = index(ring)?;
        match setting {
            VringSetting::Size(size) => self.set_vring_num(ring, size),
            VringSetting::Base(base) => self.set_vring_base(ring, base),
            VringSetting::Addresses(addresses) => self.set_vring_addr(ring, &addresses),
            VringSetting::Kick(kick) => self.set_vring_kick(ring, kick.map(AsFd::as_fd)),
            VringSetting::Call(call) => self.set_vring_call(ring, call.map(AsFd::as_fd)),
            VringSetting::Error(error) => self.set_vring_err(ring, error.map(AsFd::as_fd)),
            // Without protocol features all rings are enabled already.
            VringSetting::Enable if !self.can_enable() => Ok(()),
            VringSetting::Enable => {
                self.set_vring_enable(ring, Enabled::Yes)?;
                self.raise_status(bring_up::DRIVER_OK)
            }
            VringSetting::Disable => self.set_vring_enable(ring, Enabled::No),
        }
    }

    fn stop_vring(&mut self, ring: u16) -> Result<VringBase, FrontendError> {
        let ring = index(ring)?;
        if self.can_enable() && self.vring(ring).is_enabled() {
            self.set_vring_enable(ring, Enabled::No)?;
        }
        self.get_vring_base(ring)
    }

    /// Memory stays shared. Without `RESET_DEVICE` and `STATUS` all that can be done is to stop the rings.
    fn reset(&mut self) -> Result<(), FrontendError> {
        self.tear_down()?;
        if self.has(ProtocolFeatures::RESET_DEVICE) {
            self.reset_device()?;
        }
        Ok(())
    }
}

/// Messages have eight bits for a ring's index.
fn index(ring: u16) -> Result<u8, FrontendError> {
    u8::try_from(ring).map_err(|_| {
        let violation = Violation::RingIndex { found: ring.into(), rings: MAX_RINGS.into() };
        FrontendError::Misuse(ApiMisuse::Violation { message: FrontendCode::SET_VRING_NUM.message(), violation })
    })
}
