//! What a VMM does when the back-end asks something.

use core::num::NonZeroU64;
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::io::Errno;
use vhost_core::{
    BackendReply, BackendRequest, MapChange,
    wire::{fs_cache::CacheEntries, iotlb::Iotlb, shared::Uuid, vring::VringArea},
};

/// The most mappings of one request, in any dialect.
const MAX_CHANGES: usize = 32;

/// A request of the back-end that is refused, with the number that it is told; never zero.
///
/// ```
/// use vhost_std::frontend::Refusal;
///
/// let refusal = Refusal::from(rustix::io::Errno::NOENT);
/// assert_eq!(refusal.number().get().cast_signed(), -2);
/// assert_eq!(Refusal::UNSUPPORTED.number().get(), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal(NonZeroU64);

impl Refusal {
    /// The number that says nothing but "no".
    pub const UNSUPPORTED: Self = Self(NonZeroU64::MIN);

    /// A refusal with a number of one's own. Back-ends look at most at whether it is zero.
    #[must_use]
    pub const fn new(number: NonZeroU64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> NonZeroU64 {
        self.0
    }
}

impl Refusal {
    /// The number as one below zero.
    fn below_zero(self) -> i64 {
        match self.0.get().cast_signed() {
            negative @ ..0 => negative,
            positive => positive.wrapping_neg(),
        }
    }
}

impl From<Errno> for Refusal {
    /// The negative errno in 64 bits, as crosvm tells it.
    fn from(errno: Errno) -> Self {
        let negative = i64::from(errno.raw_os_error()).wrapping_neg();
        NonZeroU64::new(negative.cast_unsigned()).map_or(Self::UNSUPPORTED, Self)
    }
}

/// Defines both forms of the handler from one list of methods.
macro_rules! handlers {
    ($($(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        /// Carries out the requests of a back-end, for values that several threads may use.
        ///
        /// A method that is not written refuses its request. Whoever needs `&mut self` writes
        /// [`BackendRequestHandlerMut`] and, to share it, puts it into a [`Mutex`].
        ///
        /// No lock of the front-end is held while a method runs, so it may take as long as it likes, as far as the
        /// back-end waits for it.
        pub trait BackendRequestHandler {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// The request is refused.
                fn $name(&self, $($argument: $type),*) -> Result<$output, Refusal> {
                    $(let _ = $argument;)*
                    Err(Refusal::UNSUPPORTED)
                }
            )*
        }

        /// Carries out the requests of a back-end, for values that one thread uses at a time.
        ///
        /// A method that is not written refuses its request. References to a [`BackendRequestHandler`] are handlers of this
        /// form too, so this is what the front-end takes.
        pub trait BackendRequestHandlerMut {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// The request is refused.
                fn $name(&mut self, $($argument: $type),*) -> Result<$output, Refusal> {
                    $(let _ = $argument;)*
                    Err(Refusal::UNSUPPORTED)
                }
            )*
        }

        impl<T: BackendRequestHandlerMut + ?Sized> BackendRequestHandler for Mutex<T> {
            $(fn $name(&self, $($argument: $type),*) -> Result<$output, Refusal> {
                self.lock().unwrap_or_else(PoisonError::into_inner).$name($($argument),*)
            })*
        }

        impl<T: BackendRequestHandler + ?Sized> BackendRequestHandlerMut for &T {
            $(fn $name(&mut self, $($argument: $type),*) -> Result<$output, Refusal> {
                T::$name(self, $($argument),*)
            })*
        }

        impl<T: BackendRequestHandler + ?Sized> BackendRequestHandlerMut for Arc<T> {
            $(fn $name(&mut self, $($argument: $type),*) -> Result<$output, Refusal> {
                T::$name(self, $($argument),*)
            })*
        }

        impl<T: BackendRequestHandlerMut + ?Sized> BackendRequestHandlerMut for &mut T {
            $(fn $name(&mut self, $($argument: $type),*) -> Result<$output, Refusal> {
                T::$name(self, $($argument),*)
            })*
        }

        impl<T: BackendRequestHandlerMut + ?Sized> BackendRequestHandlerMut for Box<T> {
            $(fn $name(&mut self, $($argument: $type),*) -> Result<$output, Refusal> {
                T::$name(self, $($argument),*)
            })*
        }
    };
}

handlers! {
    /// The back-end lacks a translation: the front-end sends it an update ([`Frontend::iotlb_msg`]), now or later.
    ///
    /// [`Frontend::iotlb_msg`]: super::Frontend::iotlb_msg
    fn iotlb_miss(miss: Iotlb) -> ();
    /// The back-end was refused an access through the IOTLB.
    fn iotlb_access_failed(access: Iotlb) -> ();
    /// The configuration space changed: time to read it again and to tell the guest.
    fn config_changed() -> ();
    /// A ring's doorbell can be mapped into the guest, or without a descriptor must be taken out of it.
    fn host_notifier(ring: u8, area: VringArea, descriptor: Option<OwnedFd>) -> ();
    /// Buffers of a ring were used: the guest wants an interrupt.
    fn vring_call(ring: u8) -> ();
    /// A ring is in error.
    fn vring_error(ring: u8) -> ();
    /// The device offers an object to other devices.
    fn shared_object_add(object: Uuid) -> ();
    /// The device takes an object back.
    fn shared_object_remove(object: Uuid) -> ();
    /// The device wants an object of another device.
    fn shared_object_lookup(object: Uuid) -> OwnedFd;
    /// Parts of a file should appear in a shared memory region: one, or in the older dialects of virtio-fs several. All
    /// or none: there is one answer.
    fn shmem_map(maps: &[MapChange], file: OwnedFd) -> ();
    /// Parts of a shared memory region should be empty again: one, or in the older dialects several or all.
    fn shmem_unmap(maps: &[MapChange]) -> ();
    /// Mapped parts of the cache window should be written back to their files. Older dialects of virtio-fs only.
    fn cache_sync(entries: CacheEntries<'_>) -> ();
    /// A file should be read into guest memory or written from it; how many bytes were. Older dialects of virtio-fs only.
    fn cache_io(entries: CacheEntries<'_>, file: Option<OwnedFd>) -> u64;
}

/// Has `handler` carry out a request; what to answer.
pub(super) fn dispatch(
    request: BackendRequest<OwnedFd>,
    handler: &mut dyn BackendRequestHandlerMut,
) -> BackendReply<OwnedFd> {
    match carry_out(request, handler) {
        Ok(reply) => reply,
        Err(refusal) => BackendReply::Refused(refusal.number()),
    }
}

fn carry_out(
    request: BackendRequest<OwnedFd>,
    handler: &mut dyn BackendRequestHandlerMut,
) -> Result<BackendReply<OwnedFd>, Refusal> {
    use BackendRequest as Request;
    match request {
        Request::IotlbMsg(message) => match message.message_type() {
            Iotlb::MISS => handler.iotlb_miss(message),
            Iotlb::ACCESS_FAIL => handler.iotlb_access_failed(message),
            // Updates and invalidations go the other way.
            _ => Err(Refusal::UNSUPPORTED),
        },
        Request::ConfigChangeMsg => handler.config_changed(),
        Request::VringHostNotifierMsg(area, descriptor) => {
            handler.host_notifier(ring(area.target().index())?, area, descriptor)
        }
        Request::VringCall(state) => handler.vring_call(ring(state.index().into())?),
        Request::VringErr(state) => handler.vring_error(ring(state.index().into())?),
        Request::SharedObjectAdd(object) => handler.shared_object_add(object),
        Request::SharedObjectRemove(object) => handler.shared_object_remove(object),
        Request::SharedObjectLookup(object) => {
            let found = handler.shared_object_lookup(object)?;
            return Ok(BackendReply::SharedObjectLookup(0, Some(found)));
        }
        Request::ShmemMap(..) | Request::CacheMap(..) => {
            let maps = changes(&request);
            handler.shmem_map(&maps, request.into_handle().ok_or(Refusal::UNSUPPORTED)?)
        }
        Request::ShmemUnmap(_) | Request::CacheUnmap(_) => handler.shmem_unmap(&changes(&request)),
        Request::CacheSync(entries) => handler.cache_sync(entries),
        Request::CacheIo(entries, file) => {
            // This one tells errors by numbers below zero, and others count bytes.
            let count = match handler.cache_io(entries, file) {
                Ok(count) => i64::try_from(count).unwrap_or(i64::MAX),
                Err(refusal) => refusal.below_zero(),
            };
            return Ok(BackendReply::CacheIo(count));
        }
        _ => Err(Refusal::UNSUPPORTED),
    }
    .map(|()| BackendReply::Done)
}

/// What a request changes in the mappings.
fn changes(request: &BackendRequest<'_, OwnedFd>) -> heapless::Vec<MapChange, MAX_CHANGES> {
    request.maps().collect()
}

/// The machine has refused rings that do not exist.
fn ring(index: u64) -> Result<u8, Refusal> {
    u8::try_from(index).map_err(|_| Refusal::UNSUPPORTED)
}
