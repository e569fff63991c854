//! What a virtual machine monitor asks of whatever processes its rings.

mod vring;

use crate::wire::{feature::VirtioFeatures, memory::MemoryRegion, vring::VringBase};

pub use self::vring::{LogArea, Logging, VringAddresses, VringSetting, VringSetup};

/// Whatever processes the rings of one device: another process, the kernel, hardware, or threads of this process.
///
/// A virtual machine monitor that is written for this trait does not care which. The order of calls is:
///
/// ```text
///  set_owner -> features -> acknowledge -> set_memory -> start_vring (each ring) ... stop_vring (each ring)
///                               ^                                                          |
///                               +------------------------- reset <-------------------------+
/// ```
///
/// What stands for a descriptor is the implementer's choice: on Unix `dyn AsFd`, so that one implementer can take the place
/// of another behind `dyn VhostBackend<Handle = dyn AsFd, Memory = dyn AsFd, Error = E>`; elsewhere a capability, an index,
/// a pointer to a device's register.
///
/// ```
/// use vhost_core::{
///     GuestAddress, LogArea, Logging, MemoryRegion, RingAddress, UserAddress, VhostBackend, VirtioFeatures, VringAddresses,
///     VringSetting, VringSetup, wire::vring::VringBase,
/// };
///
/// /// A task of a microkernel; descriptors are numbers of capabilities.
/// #[derive(Default)]
/// struct Task { owned: bool, running: u64 }
///
/// /// The task's error code.
/// #[derive(Debug, PartialEq)]
/// struct Code(u8);
///
/// impl VhostBackend for Task {
///     type Handle = u32;
///     type Memory = u32;
///     type Error = Code;
///
///     fn set_owner(&mut self) -> Result<(), Code> {
///         if core::mem::replace(&mut self.owned, true) { Err(Code(16)) } else { Ok(()) }
///     }
///     fn features(&mut self) -> Result<VirtioFeatures, Code> { Ok(VirtioFeatures::VERSION_1) }
///     fn acknowledge(&mut self, _: VirtioFeatures) -> Result<(), Code> { Ok(()) }
///     fn set_memory(&mut self, _: &[(MemoryRegion, &u32)]) -> Result<(), Code> { Ok(()) }
///     fn set_log(&mut self, _: &LogArea<'_, u32>) -> Result<(), Code> { Err(Code(95)) }
///     fn set_vring(&mut self, ring: u16, setting: VringSetting<'_, u32>) -> Result<(), Code> {
///         if setting == VringSetting::Enable { self.running |= 1 << ring }
///         Ok(())
///     }
///     fn stop_vring(&mut self, ring: u16) -> Result<VringBase, Code> {
///         self.running &= !(1 << ring);
///         Ok(VringBase::Split { available: 0 })
///     }
///     fn reset(&mut self) -> Result<(), Code> { Ok(self.running = 0) }
/// }
///
/// /// Starts a device of one ring, whoever processes it.
/// fn start<B: VhostBackend>(
///     backend: &mut B,
///     memory: (MemoryRegion, &B::Memory),
///     ring: &VringSetup<'_, B::Handle>,
/// ) -> Result<(), B::Error> {
///     backend.set_owner()?;
///     let offered = backend.features()?;
///     backend.acknowledge(offered & VirtioFeatures::VERSION_1)?;
///     backend.set_memory(&[memory])?;
///     backend.start_vring(0, ring)
/// }
///
/// # let address = GuestAddress(0);
/// # let region = MemoryRegion {
/// #     guest_address: address, size: 0x4000, user_address: UserAddress(0x7000_0000), mmap_offset: 0, xen: None,
/// # };
/// # let [descriptor, available, used] = [0x7000_0000, 0x7000_1000, 0x7000_2000].map(RingAddress);
/// # let addresses = VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off };
/// let mut task = Task::default();
/// let base = VringBase::Split { available: 0 };
/// let ring = VringSetup { size: 128, base, addresses, kick: Some(&7), call: Some(&8), error: None };
/// start(&mut task, (region, &3), &ring)?;
/// assert_eq!(task.running, 1);
/// assert_eq!(task.set_owner(), Err(Code(16)));
/// # Ok::<(), Code>(())
/// ```
pub trait VhostBackend {
    /// What stands for the descriptor of a kick, a call or an error.
    type Handle: ?Sized;
    /// What stands for the file that memory or the dirty log lies in.
    type Memory: ?Sized;
    /// Why a call failed.
    type Error;

    /// Claims the device.
    ///
    /// # Errors
    /// Some implementers refuse a second time.
    #[doc(alias = "SET_OWNER")]
    fn set_owner(&mut self) -> Result<(), Self::Error>;

    /// The features of the device and its rings, without those that only concern the way to it.
    ///
    /// # Errors
    /// When it cannot be asked.
    #[doc(alias = "GET_FEATURES")]
    fn features(&mut self) -> Result<VirtioFeatures, Self::Error>;

    /// Tells which of the [`features`](Self::features) the driver accepted.
    ///
    /// # Errors
    /// When they were not offered, or a ring runs; [`LOG_ALL`](VirtioFeatures::LOG_ALL) may change then.
    #[doc(alias = "SET_FEATURES")]
    fn acknowledge(&mut self, features: VirtioFeatures) -> Result<(), Self::Error>;

    /// Makes these regions all the memory there is. Rings that run go on in it.
    ///
    /// # Errors
    /// When regions overlap or are too many, or a file does not hold its region. The memory is as before then, unless
    /// the implementer says otherwise.
    #[doc(alias = "SET_MEM_TABLE")]
    fn set_memory(&mut self, regions: &[(MemoryRegion, &Self::Memory)]) -> Result<(), Self::Error>;

    /// Says where pages that are written to are logged, once [`LOG_ALL`](VirtioFeatures::LOG_ALL) is acknowledged.
    ///
    /// # Errors
    /// When it cannot log, or not there.
    #[doc(alias = "SET_LOG_BASE")]
    fn set_log(&mut self, log: &LogArea<'_, Self::Memory>) -> Result<(), Self::Error>;

    /// Changes one thing about a ring. It runs once it has size, addresses and kick (which may be none) and is enabled.
    ///
    /// # Errors
    /// When there is no such ring, or the value is not possible, or not now.
    #[doc(alias = "SET_VRING_NUM")]
    #[doc(alias = "SET_VRING_BASE")]
    #[doc(alias = "SET_VRING_ADDR")]
    #[doc(alias = "SET_VRING_KICK")]
    #[doc(alias = "SET_VRING_CALL")]
    #[doc(alias = "SET_VRING_ERR")]
    #[doc(alias = "SET_VRING_ENABLE")]
    fn set_vring(&mut self, ring: u16, setting: VringSetting<'_, Self::Handle>) -> Result<(), Self::Error>;

    /// Stops a ring, with nothing of it under way any more, and tells where the next one who processes it goes on.
    ///
    /// # Errors
    /// When there is no such ring.
    #[doc(alias = "GET_VRING_BASE")]
    fn stop_vring(&mut self, ring: u16) -> Result<VringBase, Self::Error>;

    /// Stops all rings and takes the device back to where features are acknowledged. What was set since then is set again
    /// by whoever goes on.
    ///
    /// # Errors
    /// When it cannot be told to.
    #[doc(alias = "RESET_DEVICE")]
    fn reset(&mut self) -> Result<(), Self::Error>;

    /// Sets up a ring and starts it, in an order that every implementer takes.
    ///
    /// # Errors
    /// See [`set_vring`](Self::set_vring). The ring does not run then.
    fn start_vring(&mut self, ring: u16, setup: &VringSetup<'_, Self::Handle>) -> Result<(), Self::Error> {
        for setting in setup.settings() {
            self.set_vring(ring, setting)?;
        }
        Ok(())
    }
}

impl<B: VhostBackend + ?Sized> VhostBackend for &mut B {
    type Handle = B::Handle;
    type Memory = B::Memory;
    type Error = B::Error;

    fn set_owner(&mut self) -> Result<(), B::Error> {
        (**self).set_owner()
    }

    fn features(&mut self) -> Result<VirtioFeatures, B::Error> {
        (**self).features()
    }

    fn acknowledge(&mut self, features: VirtioFeatures) -> Result<(), B::Error> {
        (**self).acknowledge(features)
    }

    fn set_memory(&mut self, regions: &[(MemoryRegion, &B::Memory)]) -> Result<(), B::Error> {
        (**self).set_memory(regions)
    }

    fn set_log(&mut self, log: &LogArea<'_, B::Memory>) -> Result<(), B::Error> {
        (**self).set_log(log)
    }

    fn set_vring(&mut self, ring: u16, setting: VringSetting<'_, B::Handle>) -> Result<(), B::Error> {
        (**self).set_vring(ring, setting)
    }

    fn stop_vring(&mut self, ring: u16) -> Result<VringBase, B::Error> {
        (**self).stop_vring(ring)
    }

    fn reset(&mut self) -> Result<(), B::Error> {
        (**self).reset()
    }

    fn start_vring(&mut self, ring: u16, setup: &VringSetup<'_, B::Handle>) -> Result<(), B::Error> {
        (**self).start_vring(ring, setup)
    }
}
