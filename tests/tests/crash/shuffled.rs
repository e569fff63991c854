//! A disk that takes many requests at once, completes them in any order and several together, and finds requests that were
//! not to come again.

use std::collections::HashSet;
use std::env;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use vhost_core::{GuestAddress, UserAddress};
use vhost_std::chain::Chain;
use vhost_std::device::{Device, Queue};
use vhost_std::eventfd::EventFd;
use vhost_std::memory::{MappedRegion, MemoryRegion};
use vhost_std::server::{BackendServer, ServerOptions};
use vhost_std::socket::Socket;
use vm_memory::{Bytes, MemoryRegionAddress};

use crate::disk::{IO_ERROR, OK, SECTOR, WRITE, stamp_of};
use vhost_tests::numbers::Numbers;

/// Names the file behind the disk for the process that serves it.
pub(crate) const DISK: &str = "VHOST_CRASH_DISK";

/// The test that is not one.
pub(crate) const SERVE: &str = "shuffled::serve";

/// Serves the disk to the front-end on the standard input, in a process of its own.
#[test]
#[ignore = "what the other tests start as a back-end"]
fn serve() {
    let Ok(path) = env::var(DISK) else { return };
    let file = File::options().read(true).write(true).open(path).unwrap();
    let numbers = Numbers::new(u64::from(std::process::id()));
    let size = file.metadata().unwrap().len();
    let region = MemoryRegion::new(GuestAddress(0), size, UserAddress(0), 0);
    let disk = MappedRegion::new(region, file.into()).unwrap();
    let device = Shuffled { disk, this_life: Mutex::new((numbers, HashSet::new())) };
    let mut server = BackendServer::new(Arc::new(device), ServerOptions::default()).unwrap();
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    server.connect(Socket::from(socket)).run(EventFd::new().unwrap()).unwrap();
}

struct Shuffled {
    /// Mapped, so that the time goes to the ring and not to the system: that is where kills are to hit.
    disk: MappedRegion,
    /// Chance, and the writes that this process has carried out: a sector and its stamp's number.
    this_life: Mutex<(Numbers, HashSet<(u64, u64)>)>,
}

impl Device for Shuffled {
    fn device_id(&self) -> u32 {
        2
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, queue: &mut Queue<'_>) {
        let (numbers, written) = &mut *self.this_life.lock().unwrap();
        loop {
            let most = 1 + numbers.below(32) as usize;
            let mut taken = Vec::new();
            while taken.len() < most
                && let Some(chain) = queue.next()
            {
                let length = self.carry_out(&chain, written);
                taken.push((chain, length));
            }
            if taken.is_empty() {
                return;
            }
            while !taken.is_empty() {
                let together = 1 + numbers.below(taken.len() as u64);
                let batch = (0..together).map(|_| taken.swap_remove(numbers.below(taken.len() as u64) as usize));
                queue.complete_together(batch.collect::<Vec<_>>());
            }
        }
    }
}

impl Shuffled {
    /// Reads or writes a sector. A write is refused that is not the next one of its sector, or the last one again because
    /// the process before was killed.
    fn carry_out(&self, chain: &Chain<'_>, written: &mut HashSet<(u64, u64)>) -> u32 {
        let mut readable = chain.readable();
        let (mut data, mut status) = chain.writable().split_back(1).unwrap();
        let mut header = [0; 16];
        readable.read(&mut header).unwrap();
        let sector = u64::from_le_bytes(header[8..].try_into().unwrap());
        let place = MemoryRegionAddress(sector * SECTOR as u64);
        let mut before = [0; SECTOR];
        self.disk.read_slice(&mut before, place).unwrap();
        if header[0] != WRITE {
            data.write(&before).unwrap();
            status.write(&[OK]).unwrap();
            return SECTOR as u32 + 1;
        }
        let mut bytes = [0; SECTOR];
        readable.read(&mut bytes).unwrap();
        let ((of_sector, number), (_, last)) = (stamp_of(&bytes), stamp_of(&before));
        let is_next = number == last + 1 || number == last;
        if of_sector == sector && is_next && written.insert((sector, number)) {
            self.disk.write_slice(&bytes, place).unwrap();
            status.write(&[OK]).unwrap();
        } else {
            status.write(&[IO_ERROR]).unwrap();
        }
        1
    }
}
