//! Files in the guest's memory, as virtio-fs has them with DAX: a back-end has parts of files mapped into a window of the VMM,
//! and the guest reads them there, without a copy and without asking again.
//!
//! Both sides run in this process, on a thread each; a third one serves the back-end's own requests. What the guest reads is
//! checked, and so is that it cannot read what is not there.

mod library;
mod reader;

use core::{error::Error, time::Duration};
use std::{
    fs::File,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use vhost_core::{ProtocolFeatures, VirtioFeatures};
use vhost_std::{
    deadline::Deadline,
    eventfd::EventFd,
    frontend::Frontend,
    server::{BackendServer, ServerOptions},
    shared_memory::{MapRules, SharedRegions},
    socket::Socket,
};

use crate::{
    library::{Library, Request, WINDOW},
    reader::Reader,
};

type Result<T> = core::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of a page.
const PAGE: u64 = 0x1000;

fn main() -> Result<()> {
    let (near, far) = Socket::pair()?;
    let device = Arc::new(Library::new(vec![book('a')?, book('n')?]));
    let mut server = BackendServer::new(device.clone(), ServerOptions::default())?;
    device.served_by(server.notifier());
    let stop = EventFd::new()?;
    let hear_stop = stop.try_clone()?;
    let serving = thread::spawn(move || server.connect(far).run(&hear_stop).map(drop));

    let outcome = use_library(near);
    stop.signal()?;
    serving.join().map_err(|_| "the back-end panicked")??;
    outcome
}

/// The VMM, and the guest in it.
fn use_library(socket: Socket) -> Result<()> {
    let mut frontend = Frontend::from_socket(socket);
    frontend.set_timeout(Some(Duration::from_secs(20)));
    let wanted = ProtocolFeatures::REPLY_ACK
        | ProtocolFeatures::BACKEND_REQ
        | ProtocolFeatures::BACKEND_SEND_FD
        | ProtocolFeatures::SHMEM;
    frontend.negotiate(VirtioFeatures::VERSION_1, wanted)?;

    // Address space for the window, which the VMM would also show to its guest.
    let regions = SharedRegions::reserve(&frontend.get_shmem_config()?, 1 << 30, MapRules::Exact)?;
    let regions = Arc::new(Mutex::new(regions));
    let mut channel = frontend.set_backend_req_fd()?;
    let stopper = channel.stopper()?;
    let handler = Arc::clone(&regions);
    let mapping = thread::spawn(move || channel.run(handler, Deadline::NEVER).map(drop));
    let look = |offset: u64, length: usize| -> Result<Vec<u8>> {
        let regions = regions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; length];
        regions.window(0).ok_or("no window")?.read(offset, &mut bytes)?;
        Ok(bytes)
    };

    let mut reader = Reader::start(&mut frontend)?;
    let part = |book, book_offset, window_offset, length| Request { book, book_offset, window_offset, length };
    check("two pages of the first book appear", reader.ask(part(Some(0), PAGE, 0, 2 * PAGE))?)?;
    check("a page of the second one appears behind them", reader.ask(part(Some(1), 0, 2 * PAGE, PAGE))?)?;
    check("they read as they should", look(PAGE - 1, 3)? == *b"bcc" && look(3 * PAGE - 1, 1)? == *b"n")?;
    check("what overlaps them is refused", !reader.ask(part(Some(1), 0, PAGE, PAGE))?)?;
    check("what reaches beyond the window is refused", !reader.ask(part(Some(0), 0, WINDOW - PAGE, 2 * PAGE))?)?;
    check("a book that is not there is refused", !reader.ask(part(Some(2), 0, 4 * PAGE, PAGE))?)?;
    check("the first part disappears", reader.ask(part(None, 0, 0, 2 * PAGE))?)?;
    check("nothing can be read there any more", look(0, 1).is_err() && look(2 * PAGE, 1)? == *b"n")?;

    frontend.tear_down()?;
    regions.lock().unwrap_or_else(PoisonError::into_inner).reset()?;
    check("after a reset the window is empty", look(2 * PAGE, 1).is_err())?;
    stopper.stop()?;
    mapping.join().map_err(|_| "the handler panicked")??;
    Ok(())
}

/// A file of four pages: each is filled with a letter, the first one with `first`.
fn book(first: char) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    for letter in (first..).take(4) {
        file.write_all(&[u8::try_from(letter)?; PAGE as usize])?;
    }
    Ok(file)
}

fn check(what: &str, holds: bool) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{} {what}", if holds { "yes" } else { "NO " })?;
    if holds { Ok(()) } else { Err(what.into()) }
}
