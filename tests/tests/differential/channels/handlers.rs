//! Front-ends that do everything that a back-end asks, and write it down.

use std::io::Result as IoResult;
use std::os::fd::{AsRawFd, OwnedFd};

use vhost::vhost_user::VhostUserFrontendReqHandlerMut;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserSharedMsg};
use vhost_core::wire::shared::Uuid;
use vhost_core::{CacheAccess, MapChange};
use vhost_std::frontend::{BackendRequestHandlerMut, Refusal};
use vhost_tests::dialog::memory;
use vm_memory::ByteValued;
use zerocopy::IntoBytes as _;

/// What was asked.
#[derive(Default)]
pub(super) struct Diary(pub(super) Vec<String>);

impl Diary {
    fn note<E>(&mut self, entry: String) -> Result<(), E> {
        self.0.push(entry);
        Ok(())
    }
}

/// A mapping: region, offset in the file, offset in the region, bytes, and whether the guest may write.
fn mapping([region, file, place, length]: [u64; 4], may_write: bool) -> String {
    let access = if may_write { "read and write" } else { "read" };
    format!("map {length:#x} bytes of the file from {file:#x} to {place:#x} of {region}, to {access}")
}

fn unmapping([region, place, length]: [u64; 3]) -> String {
    format!("unmap {length:#x} bytes from {place:#x} of {region}")
}

fn change(change: &MapChange) -> String {
    match *change {
        MapChange::Map { region, offset, length, file_offset, access } => {
            mapping([region.into(), file_offset, offset, length], access.contains(CacheAccess::WRITE))
        }
        MapChange::Unmap { region, offset, length } => unmapping([region.into(), offset, length]),
        other => format!("{other:?}"),
    }
}

impl BackendRequestHandlerMut for Diary {
    fn config_changed(&mut self) -> Result<(), Refusal> {
        self.note("configuration changed".to_owned())
    }

    fn shared_object_add(&mut self, object: Uuid) -> Result<(), Refusal> {
        self.note(format!("object {:x?} added", object.as_bytes()))
    }

    fn shared_object_remove(&mut self, object: Uuid) -> Result<(), Refusal> {
        self.note(format!("object {:x?} removed", object.as_bytes()))
    }

    fn shared_object_lookup(&mut self, object: Uuid) -> Result<OwnedFd, Refusal> {
        self.note::<Refusal>(format!("object {:x?} looked up", object.as_bytes()))?;
        Ok(memory(1))
    }

    fn shmem_map(&mut self, maps: &[MapChange], _: OwnedFd) -> Result<(), Refusal> {
        self.note(Vec::from_iter(maps.iter().map(change)).join("; "))
    }

    fn shmem_unmap(&mut self, maps: &[MapChange]) -> Result<(), Refusal> {
        self.note(Vec::from_iter(maps.iter().map(change)).join("; "))
    }
}

impl VhostUserFrontendReqHandlerMut for Diary {
    fn handle_config_change(&mut self) -> IoResult<u64> {
        self.note("configuration changed".to_owned()).map(|()| 0)
    }

    fn shared_object_add(&mut self, object: &VhostUserSharedMsg) -> IoResult<u64> {
        self.note(format!("object {:x?} added", ByteValued::as_slice(object))).map(|()| 0)
    }

    fn shared_object_remove(&mut self, object: &VhostUserSharedMsg) -> IoResult<u64> {
        self.note(format!("object {:x?} removed", ByteValued::as_slice(object))).map(|()| 0)
    }

    fn shared_object_lookup(&mut self, object: &VhostUserSharedMsg, _: &dyn AsRawFd) -> IoResult<u64> {
        self.note(format!("object {:x?} looked up", ByteValued::as_slice(object))).map(|()| 0)
    }

    fn shmem_map(&mut self, map: &VhostUserMMap, _: &dyn AsRawFd) -> IoResult<u64> {
        let VhostUserMMap { shmid, fd_offset, shm_offset, len, flags, .. } = *map;
        self.note(mapping([shmid.into(), fd_offset, shm_offset, len], flags & 1 != 0)).map(|()| 0)
    }

    fn shmem_unmap(&mut self, map: &VhostUserMMap) -> IoResult<u64> {
        let VhostUserMMap { shmid, shm_offset, len, .. } = *map;
        self.note(unmapping([shmid.into(), shm_offset, len])).map(|()| 0)
    }
}
