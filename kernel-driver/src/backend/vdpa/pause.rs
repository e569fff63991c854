//! How the rings of a vDPA device are stopped, with nothing lost.

use core::time::Duration;
use std::thread;
use std::time::Instant;

use vhost_core::RingLayout;
use vhost_core::uapi::bits::BackendFeatures;
use vhost_core::wire::vring::VringBase;
use vm_memory::Bytes;

use super::VdpaBackend;
use crate::device::VhostDevice;
use crate::error::KernelError;

/// How long requests that are under way may take when rings stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether they have come to an end; nothing announces it.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

impl VdpaBackend {
    /// Stops all rings; each goes on at its base.
    pub(super) fn pause(&mut self) -> Result<(), KernelError> {
        if self.running.is_empty() {
            return Ok(());
        }
        let bases = if self.backend_features.contains(BackendFeatures::SUSPEND) {
            self.vdpa.suspend()?;
            let layout = self.layout();
            let bases = self.running.iter().map(|ring| self.vdpa.vring_base((*ring).into(), layout));
            bases.collect::<Result<Vec<_>, _>>()?
        } else {
            self.come_to_rest()?
        };
        self.vdpa.reset()?;
        let running = core::mem::take(&mut self.running);
        for (ring, base) in running.iter().zip(bases) {
            self.plans.get_mut(*ring)?.base = Some(base);
        }
        if self.backend_features.contains(BackendFeatures::SUSPEND) {
            return Ok(());
        }
        for ring in running {
            // A kick that was on its way may have brought one more request.
            if let Some(used) = self.used_index(ring)? {
                self.plans.get_mut(ring)?.base = Some(VringBase::Split { available: used });
            }
        }
        Ok(())
    }

    /// Leaves the rings without kicks until nothing is under way; where they go on. If they do not get there they have their
    /// kicks back.
    fn come_to_rest(&self) -> Result<Vec<VringBase>, KernelError> {
        let rest = || -> Result<_, KernelError> {
            for ring in &self.running {
                self.vdpa.set_vring_kick((*ring).into(), None)?;
            }
            self.running.iter().map(|ring| self.wait_for_rest(*ring)).collect()
        };
        let outcome = rest();
        if outcome.is_err() {
            for ring in &self.running {
                let plan = self.plans.get(*ring)?;
                plan.tell_kick(&self.vdpa, (*ring).into())?;
                plan.kick()?;
            }
        }
        outcome
    }

    /// Waits until a ring has nothing under way that its device has seen.
    fn wait_for_rest(&self, ring: u16) -> Result<VringBase, KernelError> {
        let start = Instant::now();
        loop {
            let base = self.vdpa.vring_base(ring.into(), self.layout())?;
            let rests = match base {
                VringBase::Split { available } => self.used_index(ring)?.is_none_or(|used| used == available),
                VringBase::Packed { available, available_wrap, used, used_wrap } => {
                    (available, available_wrap) == (used, used_wrap)
                }
            };
            if rests {
                return Ok(base);
            }
            if start.elapsed() > PATIENCE {
                return Err(KernelError::Restless { ring });
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// How many chains a split ring has ever completed, modulo 65536.
    fn used_index(&self, ring: u16) -> Result<Option<u16>, KernelError> {
        /// Offset of the index in the used ring.
        const INDEX: u64 = 2;
        if self.layout() == RingLayout::Packed {
            return Ok(None);
        }
        let Some(addresses) = self.plans.get(ring)?.addresses else { return Ok(None) };
        let at = self.table.user_to_guest(addresses.used.0.saturating_add(INDEX), 2)?;
        Ok(self.table.guest_memory().read_obj::<u16>(vm_memory::GuestAddress(at)).map(u16::from_le).ok())
    }
}
