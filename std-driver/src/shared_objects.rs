//! Objects that devices share with each other, by their UUIDs (`SHARED_OBJECT_ADD`, `_REMOVE` and `_LOOKUP`): the VMM knows
//! whose each is, and has its owner hand it out.

use core::fmt;
use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vhost_core::wire::shared::Uuid;

use crate::frontend::{BackendRequestHandlerMut, Refusal};

/// The most objects that one device can share.
const MAX_OBJECTS: usize = 1024;

/// What gets a descriptor of an object from its owner.
type Source = Arc<dyn Fn(Uuid) -> Result<OwnedFd, Refusal> + Send + Sync>;

/// All objects that the devices of a virtual machine share. Cheap to clone; from any thread.
///
/// ```
/// use std::os::fd::OwnedFd;
/// use vhost_core::wire::shared::Uuid;
/// use vhost_std::frontend::BackendRequestHandlerMut;
/// use vhost_std::memory::MemoryFile;
/// use vhost_std::shared_objects::SharedObjects;
///
/// let objects = SharedObjects::default();
/// // What gets an object of this device. Of another process, by a front-end: `Frontend::get_shared_object`.
/// let mut display = objects.device(|_| Ok(OwnedFd::from(std::io::pipe().unwrap().0)));
/// let mut video = objects.device(|_| Err(vhost_std::frontend::Refusal::UNSUPPORTED));
///
/// // These are what their back-ends ask.
/// let picture = Uuid::new([7; 16]);
/// display.shared_object_add(picture).unwrap();
/// assert!(video.shared_object_lookup(picture).is_ok());
/// assert!(video.shared_object_remove(picture).is_err(), "it is the other one's");
/// drop(display);
/// assert!(video.shared_object_lookup(picture).is_err());
/// ```
#[derive(Clone, Debug, Default)]
pub struct SharedObjects {
    registry: Arc<Mutex<Registry>>,
}

#[derive(Default)]
struct Registry {
    devices: u64,
    objects: BTreeMap<[u8; 16], Object>,
}

struct Object {
    owner: u64,
    source: Source,
}

impl SharedObjects {
    /// Takes part in sharing, as one device more: the handler of what its back-end asks about objects.
    ///
    /// `source` gets an object of this device when another one looks it up, on the thread that serves the other one; usually by
    /// [`get_shared_object`](crate::frontend::Frontend::get_shared_object) of this device's front-end, if nobody else is in a
    /// call of it. It must not wait for a call of the device that looks up.
    pub fn device(&self, source: impl Fn(Uuid) -> Result<OwnedFd, Refusal> + Send + Sync + 'static) -> DeviceObjects {
        let mut registry = self.lock();
        registry.devices += 1;
        DeviceObjects { all: self.clone(), device: registry.devices, source: Arc::new(source) }
    }

    /// How many objects are shared.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().objects.len()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing under the lock can panic half way.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one device shares; when it is dropped, none of it is shared any more.
#[must_use]
pub struct DeviceObjects {
    all: SharedObjects,
    device: u64,
    source: Source,
}

impl DeviceObjects {
    /// Takes all objects of the device back: for when it is reset or its back-end goes.
    pub fn remove_all(&mut self) {
        self.all.lock().objects.retain(|_, object| object.owner != self.device);
    }
}

impl BackendRequestHandlerMut for DeviceObjects {
    /// Refused if another device shares an object of this name; sharing one again is none.
    fn shared_object_add(&mut self, object: Uuid) -> Result<(), Refusal> {
        let mut registry = self.all.lock();
        match registry.objects.get(&object.bytes()) {
            Some(known) if known.owner == self.device => return Ok(()),
            Some(_) => return Err(Refusal::UNSUPPORTED),
            None => {}
        }
        if registry.objects.values().filter(|known| known.owner == self.device).count() >= MAX_OBJECTS {
            return Err(Refusal::UNSUPPORTED);
        }
        let source = Arc::clone(&self.source);
        registry.objects.insert(object.bytes(), Object { owner: self.device, source });
        Ok(())
    }

    fn shared_object_remove(&mut self, object: Uuid) -> Result<(), Refusal> {
        let mut registry = self.all.lock();
        match registry.objects.get(&object.bytes()) {
            Some(known) if known.owner == self.device => {
                registry.objects.remove(&object.bytes());
                Ok(())
            }
            _ => Err(Refusal::UNSUPPORTED),
        }
    }

    fn shared_object_lookup(&mut self, object: Uuid) -> Result<OwnedFd, Refusal> {
        let found = self.all.lock().objects.get(&object.bytes()).map(|known| Arc::clone(&known.source));
        // The lock is not held here, however long the owner takes.
        found.ok_or(Refusal::UNSUPPORTED)?(object)
    }
}

impl Drop for DeviceObjects {
    fn drop(&mut self) {
        self.remove_all();
    }
}

impl fmt::Debug for DeviceObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceObjects").field("device", &self.device).finish_non_exhaustive()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::fstat;

    use super::*;
    use crate::memory::MemoryFile;

    fn name(number: u16) -> Uuid {
        let [low, high] = number.to_le_bytes();
        Uuid::new([low, high, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    }

    /// A device whose objects are files of this size.
    fn device(objects: &SharedObjects, size: u64) -> DeviceObjects {
        objects.device(move |_| {
            Ok(std::os::fd::AsFd::as_fd(&MemoryFile::create("object", 0, size).unwrap()).try_clone_to_owned().unwrap())
        })
    }

    fn size(descriptor: OwnedFd) -> i64 {
        fstat(descriptor).unwrap().st_size
    }

    #[test]
    fn an_object_comes_from_its_owner() {
        let objects = SharedObjects::default();
        let (mut one, mut other) = (device(&objects, 0x1000), device(&objects, 0x2000));
        one.shared_object_add(name(1)).unwrap();
        other.shared_object_add(name(2)).unwrap();
        for looking in [&mut one, &mut other] {
            assert_eq!(size(looking.shared_object_lookup(name(1)).unwrap()), 0x1000);
            assert_eq!(size(looking.shared_object_lookup(name(2)).unwrap()), 0x2000);
            looking.shared_object_lookup(name(3)).unwrap_err();
        }
    }

    #[test]
    fn nobody_takes_or_removes_what_is_another_ones() {
        let objects = SharedObjects::default();
        let (mut one, mut other) = (device(&objects, 0x1000), device(&objects, 0x2000));
        one.shared_object_add(name(1)).unwrap();
        one.shared_object_add(name(1)).unwrap();
        other.shared_object_add(name(1)).unwrap_err();
        other.shared_object_remove(name(1)).unwrap_err();
        assert_eq!(size(other.shared_object_lookup(name(1)).unwrap()), 0x1000);
        one.shared_object_remove(name(1)).unwrap();
        one.shared_object_remove(name(1)).unwrap_err();
        other.shared_object_lookup(name(1)).unwrap_err();
        other.shared_object_add(name(1)).unwrap();
        drop(one);
        assert_eq!(objects.count(), 1);
        drop(other);
        assert_eq!(objects.count(), 0);
    }

    #[test]
    fn a_device_shares_so_many_objects_and_no_more() {
        let objects = SharedObjects::default();
        let (mut greedy, mut modest) = (device(&objects, 0x1000), device(&objects, 0x1000));
        let granted = (0..2000).filter(|number| greedy.shared_object_add(name(*number)).is_ok()).count();
        assert_eq!(granted, MAX_OBJECTS);
        modest.shared_object_add(name(5000)).unwrap();
        greedy.remove_all();
        assert_eq!(objects.count(), 1);
    }
}
