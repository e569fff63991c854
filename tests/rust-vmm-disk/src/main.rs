//! A disk on rust-vmm's `vhost-user-backend`, to be measured next to ours: `rust-vmm-disk SOCKET FILE QUEUES`.
//!
//! It is written as users of that crate write theirs, with `preadv` and `pwritev` straight between guest memory and the
//! file. It is no member of the workspace, as its features would be those of every test.

use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::{Arc, Mutex};

use rustix::io::{preadv, pwritev};
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringT};
use virtio_queue::QueueOwnedT;
use vm_memory::{Address, Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// VERSION_1, EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES, and of the disk FLUSH and MQ.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30 | 1 << 9 | 1 << 12;

struct TheirDisk {
    file: File,
    sectors: u64,
    queues: u16,
    event_idx: AtomicBool,
    memory: Mutex<Option<Memory>>,
}

impl TheirDisk {
    /// Carries out what is in the ring; whether anything was.
    fn process(&self, vring: &VringMutex<Memory>) -> bool {
        let guard = self.memory.lock().unwrap();
        let memory = guard.as_ref().unwrap().memory();
        let mut state = vring.get_mut();
        let mut found = false;
        let chains: Vec<_> = state.get_queue_mut().iter(&*memory).unwrap().collect();
        for mut chain in chains {
            found = true;
            let head = chain.head_index();
            let header = chain.next().unwrap();
            let kind: u32 = memory.read_obj(header.addr()).unwrap();
            let sector: u64 = memory.read_obj(header.addr().unchecked_add(8)).unwrap();
            let mut last = chain.next().unwrap();
            let mut written = 1;
            let mut offset = sector * 512;
            for next in chain {
                let slice = memory.get_slice(last.addr(), last.len() as usize).unwrap();
                let guard = slice.ptr_guard_mut();
                // SAFETY: guest memory, mapped as long as `memory` lives. Nobody but the guest looks at it meanwhile; this
                // is how disks on this crate do it.
                let bytes = unsafe { core::slice::from_raw_parts_mut(guard.as_ptr(), guard.len()) };
                let count = match kind {
                    0 => preadv(&self.file, &mut [IoSliceMut::new(bytes)], offset),
                    _ => pwritev(&self.file, &[IoSlice::new(bytes)], offset),
                };
                assert_eq!(count, Ok(last.len() as usize));
                if kind == 0 {
                    written += last.len();
                }
                offset += u64::from(last.len());
                last = next;
            }
            memory.write_obj(0_u8, last.addr()).unwrap();
            state.add_used(head, written).unwrap();
        }
        if found && (!self.event_idx.load(Ordering::Relaxed) || state.needs_notification().unwrap()) {
            state.signal_used_queue().unwrap();
        }
        found
    }
}

impl VhostUserBackend for TheirDisk {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        self.queues.into()
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx.store(enabled, Ordering::Relaxed);
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = [0; 60];
        config[..8].copy_from_slice(&self.sectors.to_le_bytes());
        config[34..36].copy_from_slice(&self.queues.to_le_bytes());
        config[offset as usize..][..size as usize].to_vec()
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *self.memory.lock().unwrap() = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(&self, event: u16, _: EventSet, vrings: &[VringMutex<Memory>], _: usize) -> io::Result<()> {
        let vring = &vrings[usize::from(event)];
        if !self.event_idx.load(Ordering::Relaxed) {
            self.process(vring);
            return Ok(());
        }
        loop {
            vring.disable_notification().unwrap();
            self.process(vring);
            if !vring.enable_notification().unwrap() {
                return Ok(());
            }
        }
    }
}

/// Serves front-ends, one after another.
fn main() {
    let arguments = Vec::from_iter(std::env::args().skip(1));
    let [socket, file, queues] = &arguments[..] else { panic!("expected SOCKET FILE QUEUES") };
    let queues = queues.parse().unwrap();
    let mut listener = Listener::new(socket, true).unwrap();
    loop {
        let file = File::options().read(true).write(true).open(file).unwrap();
        let sectors = file.metadata().unwrap().len() / 512;
        let disk = TheirDisk { file, sectors, queues, event_idx: AtomicBool::new(false), memory: Mutex::new(None) };
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let mut daemon = VhostUserDaemon::new("disk".to_owned(), Arc::new(disk), memory).unwrap();
        daemon.start(&mut listener).unwrap();
        // It ends with an error when the front-end has gone.
        drop(daemon.wait());
        for handler in daemon.get_epoll_handlers() {
            handler.send_exit_event();
        }
    }
}
