//! The device: a library, which has pages of its books mapped into the guest's window as virtio-fs does with files (DAX).

use core::time::Duration;
use std::{fs::File, os::fd::OwnedFd, sync::OnceLock};

use vhost_core::wire::shared::SharedMemoryMap;
use vhost_std::{
    chain::Chain,
    deadline::Deadline,
    device::{Device, Queue},
    server::DeviceNotifier,
};

/// Bytes of the window.
pub(crate) const WINDOW: u64 = 1 << 20;

/// How long the VMM may take to map a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a driver asks: a part of a book to appear in the window, or to disappear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) book: Option<u64>,
    pub(crate) book_offset: u64,
    pub(crate) window_offset: u64,
    pub(crate) length: u64,
}

/// The book that means that a part of the window should be empty.
const NONE: u64 = u64::MAX;

impl Request {
    /// Bytes of a request.
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let numbers = [self.book.unwrap_or(NONE), self.book_offset, self.window_offset, self.length];
        let mut bytes = [0; Self::SIZE];
        for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let mut numbers = [0; 4];
        for (to, from) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *to = from.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        let [book, book_offset, window_offset, length] = numbers;
        Self { book: (book != NONE).then_some(book), book_offset, window_offset, length }
    }
}

/// A device of one queue whose requests are answered with one byte, zero for success.
pub(crate) struct Library {
    books: Vec<File>,
    /// Known once there is a server.
    front_end: OnceLock<DeviceNotifier>,
}

impl Library {
    pub(crate) fn new(books: Vec<File>) -> Self {
        Self { books, front_end: OnceLock::new() }
    }

    /// Says who maps.
    pub(crate) fn served_by(&self, notifier: DeviceNotifier) {
        let _ = self.front_end.set(notifier);
    }

    /// Has a request carried out by the VMM, and waits for it: the driver must not look before it is done.
    fn serve(&self, request: Request) -> Option<()> {
        let Request { book, book_offset, window_offset, length } = request;
        let front_end = self.front_end.get()?;
        let map = SharedMemoryMap::new(0, book_offset, window_offset, length, 0);
        let answer = match book {
            Some(book) => {
                let book = self.books.get(usize::try_from(book).ok()?)?;
                front_end.map(map, OwnedFd::from(book.try_clone().ok()?))
            }
            None => front_end.unmap(map),
        };
        answer.ok()?.wait(Deadline::after(PATIENCE)).ok()
    }

    fn answer(&self, chain: &Chain<'_>) -> u32 {
        let mut request = [0; Request::SIZE];
        let served = chain.readable().read(&mut request).ok().and_then(|()| self.serve(Request::from_bytes(request)));
        let status = [u8::from(served.is_none())];
        u32::from(chain.writable().write(&status).is_ok())
    }
}

impl Device for Library {
    fn device_id(&self) -> u32 {
        26
    }

    fn queues(&self) -> u16 {
        1
    }

    fn shared_memory(&self) -> &[u64] {
        &[WINDOW]
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            let written = self.answer(&chain);
            queue.complete(chain, written);
        }
    }
}
