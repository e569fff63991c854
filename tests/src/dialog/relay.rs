//! A listener between two real programs, which hands every message on and writes down what was said.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};

use super::{Received, Socket, borrowed};
use crate::wire::{Message, frontend_request};

/// Who said something, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The front-end, in a request of its own.
    Frontend,
    /// The back-end, in a reply to one.
    BackendReplying,
    /// The back-end, in a request of its own, on the channel of `SET_BACKEND_REQ_FD`.
    Backend,
    /// The front-end, in a reply to one of those.
    FrontendReplying,
}

/// Stands between a front-end and a back-end. One of them must have hung up when it is dropped.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    said: Arc<Said>,
    thread: Option<JoinHandle<()>>,
}

type Said = Mutex<Vec<(Speaker, Message)>>;

impl Relay {
    /// Listens at `path` for one front-end, for which it connects to the back-end at `backend`.
    pub fn listen(path: &Path, backend: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (path, backend) = (path.to_owned(), backend.to_owned());
        let said = Arc::new(Said::default());
        let note = Arc::clone(&said);
        let thread = thread::spawn(move || {
            let Ok((frontend, _)) = listener.accept() else { return };
            drop(listener);
            let Ok(backend) = UnixStream::connect(&backend) else { return };
            carry([frontend, backend], [Speaker::Frontend, Speaker::BackendReplying], note);
        });
        Self { path, said, thread: Some(thread) }
    }

    /// How many messages of this request, by its id, were said so far that `filter` lets pass.
    pub fn count(&self, speaker: Speaker, id: u32, filter: impl Fn(&Message) -> bool) -> usize {
        let said = self.said.lock().unwrap();
        said.iter().filter(|(who, message)| *who == speaker && message.header.request == id && filter(message)).count()
    }

    /// The messages of this request, in the order in which they were said.
    pub fn messages(&self, speaker: Speaker, id: u32) -> Vec<Message> {
        let said = self.said.lock().unwrap();
        let said = said.iter().filter(|(who, message)| *who == speaker && message.header.request == id);
        said.map(|(_, message)| message.clone()).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        // Should no front-end have come, this is one that says nothing.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Carries messages both ways until either side hangs up, then hangs up on the other.
fn carry(ends: [UnixStream; 2], speakers: [Speaker; 2], said: Arc<Said>) {
    let [one, other] = ends;
    let back = (other.try_clone().unwrap(), one.try_clone().unwrap());
    let [there, answering] = speakers;
    let noted = Arc::clone(&said);
    let answers = thread::spawn(move || one_way(Socket::new(back.0), Socket::new(back.1), answering, &noted));
    one_way(Socket::new(one), Socket::new(other), there, &said);
    answers.join().unwrap();
}

/// Carries messages one way until either side hangs up.
fn one_way(from: Socket, to: Socket, speaker: Speaker, said: &Arc<Said>) {
    let opens_channel = frontend_request("SET_BACKEND_REQ_FD").id;
    let mut channel = None;
    while let Ok(Some(Received { message, mut descriptors })) = next(&from) {
        if speaker == Speaker::Frontend && message.header.request == opens_channel {
            let (frontend, backend) = interpose(&mut descriptors);
            let said = Arc::clone(said);
            let ends = [backend, frontend];
            channel = Some(thread::spawn(move || carry(ends, [Speaker::Backend, Speaker::FrontendReplying], said)));
        }
        let bytes = message.bytes();
        said.lock().unwrap().push((speaker, message));
        if to.try_send(&bytes, &borrowed(&descriptors)).is_err() {
            break;
        }
    }
    for socket in [from, to] {
        let _ = socket.stream().shutdown(std::net::Shutdown::Both);
    }
    if let Some(channel) = channel {
        channel.join().unwrap();
    }
}

/// The next message, however long it takes.
fn next(from: &Socket) -> io::Result<Option<Received>> {
    rustix::io::retry_on_intr(|| poll(&mut [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)], None))?;
    from.try_receive()
}

/// Puts an end of ours in the place of the front-end's: that one, and the other end of ours.
fn interpose(descriptors: &mut [OwnedFd]) -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let [end] = descriptors else { panic!("a channel has one descriptor, not {}", descriptors.len()) };
    let frontend = core::mem::replace(end, theirs.into());
    (frontend.into(), ours)
}
