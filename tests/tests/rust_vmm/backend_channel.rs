//! Their back-end asks our front-end, on the channel that it was given.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::fstat;
use vhost::vhost_user::VhostUserFrontendReqHandler;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserSharedMsg};
use vhost_core::MapChange;
use vhost_core::wire::shared::Uuid;
use vhost_std::deadline::Deadline;
use vhost_std::frontend::{BackendRequestHandlerMut, ChannelState, Refusal};
use vhost_tests::dialog::{PATIENCE, memory};
use vm_memory::ByteValued;

use crate::their_backend::{self, agree};

/// Writes down what it is asked, and grants all but objects that begin with 9.
#[derive(Default)]
struct Diary(Vec<String>);

impl BackendRequestHandlerMut for Diary {
    fn shared_object_add(&mut self, object: Uuid) -> Result<(), Refusal> {
        self.0.push(format!("add {object}"));
        if object.bytes()[0] == 9 { Err(Refusal::UNSUPPORTED) } else { Ok(()) }
    }

    fn shared_object_remove(&mut self, object: Uuid) -> Result<(), Refusal> {
        self.0.push(format!("remove {object}"));
        Ok(())
    }

    fn shared_object_lookup(&mut self, object: Uuid) -> Result<OwnedFd, Refusal> {
        self.0.push(format!("look up {object}"));
        Ok(memory(1))
    }

    fn shmem_map(&mut self, maps: &[MapChange], file: OwnedFd) -> Result<(), Refusal> {
        self.0.push(format!("{maps:?} of {:#x}", fstat(&file).unwrap().st_size));
        Ok(())
    }

    fn shmem_unmap(&mut self, maps: &[MapChange]) -> Result<(), Refusal> {
        self.0.push(format!("{maps:?}"));
        Ok(())
    }
}

fn object(first: u8) -> VhostUserSharedMsg {
    let mut object = VhostUserSharedMsg::default();
    object.as_mut_slice().copy_from_slice(&[first, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    object
}

/// They send a descriptor along with SHARED_OBJECT_LOOKUP, where the specification has the front-end answer with one: a
/// request that carries one too many is refused here, as by QEMU.
#[test]
fn their_back_end_asks_our_front_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut frontend, backend, thread) = their_backend::start(&folder.path().join("socket"));
    agree(&mut frontend);
    let mut channel = frontend.set_backend_req_fd().unwrap();
    let diary = Arc::new(Mutex::new(Diary::default()));
    let theirs = backend.lock().unwrap().channel.take().unwrap();
    let asking = std::thread::spawn(move || {
        theirs.shared_object_add(&object(1)).unwrap();
        theirs.shared_object_add(&object(9)).unwrap_err();
        theirs.shared_object_remove(&object(1)).unwrap();
        let file = memory(0x5000);
        let map =
            VhostUserMMap { shmid: 3, fd_offset: 0x1000, shm_offset: 0x2000, len: 0x3000, flags: 1, ..<_>::default() };
        theirs.shmem_map(&map, &file.as_raw_fd()).unwrap();
        theirs.shmem_unmap(&map).unwrap();
        theirs.shared_object_lookup(&object(1), &file.as_raw_fd()).unwrap_err();
    });
    assert_eq!(channel.run(diary.clone(), Deadline::after(PATIENCE)), Ok(ChannelState::Closed));
    asking.join().unwrap();
    drop(frontend);
    thread.join().unwrap();
    let name = "01010203-0405-0607-0809-0a0b0c0d0e0f";
    let change = "{ region: 3, offset: 8192, length: 12288";
    assert_eq!(
        diary.lock().unwrap().0,
        [
            format!("add {name}"),
            format!("add 09{}", &name[2..]),
            format!("remove {name}"),
            format!("[Map {change}, file_offset: 4096, access: CacheAccess(READ | WRITE) }}] of 0x5000"),
            format!("[Unmap {change} }}]"),
        ]
    );
}
