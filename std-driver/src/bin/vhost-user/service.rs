//! How a device reaches its front-ends: a path or a descriptor, until a signal ends it.

use core::{error::Error, time::Duration};
use std::{
    os::{fd::RawFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use vhost_std::{
    device::Device,
    server::{BackendServer, End, RingThreads, ServeError, ServerOptions},
    socket::{Listener, Socket},
};

use crate::inherited;

/// The arguments that all devices share.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Listen on a Unix socket at this path, for one front-end after another.
    #[arg(long, value_name = "PATH", required_unless_present = "fd")]
    socket_path: Option<PathBuf>,
    /// Use this inherited socket; end with its connection unless it listens.
    #[arg(long, value_name = "N", conflicts_with = "socket_path", value_parser = clap::value_parser!(RawFd).range(3..))]
    fd: Option<RawFd>,
    /// Threads that process queues; one a queue if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Microseconds that a thread goes on looking at its queues before it waits for the guest. Needs a processor for each.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    busy_poll: u32,
}

/// Where front-ends come from.
pub(crate) struct Service {
    source: Source,
    threads: u16,
    busy_poll: Duration,
}

enum Source {
    Listener(Listener),
    Connected(Socket),
}

impl Arguments {
    /// Opens the socket. Call it before anything else is opened, see [`inherited::socket`].
    pub(crate) fn open(self) -> Result<Service, Box<dyn Error>> {
        let source = match (self.fd, self.socket_path) {
            (Some(number), _) => {
                let socket = inherited::socket(number).map_err(|error| format!("--fd={number}: {error}"))?;
                if rustix::net::sockopt::socket_acceptconn(&socket)? {
                    Source::Listener(Listener::from_descriptor(socket)?)
                } else {
                    Source::Connected(Socket::from(socket))
                }
            }
            (None, Some(path)) => Source::Listener(Listener::bind(path)?),
            (None, None) => return Err("--socket-path or --fd is missing".into()),
        };
        let busy_poll = Duration::from_micros(self.busy_poll.into());
        Ok(Service { source, threads: self.threads.unwrap_or(u16::MAX), busy_poll })
    }
}

impl Service {
    /// Serves `device` until SIGTERM or SIGINT, or until the inherited connection ends.
    pub(crate) fn run(self, device: Arc<dyn Device>) -> Result<(), Box<dyn Error>> {
        let (stop, signalled) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        allow_many_descriptors();
        let mut options = ServerOptions::default();
        options.threads = RingThreads::Shared(self.threads);
        options.busy_poll = self.busy_poll;
        let mut server = BackendServer::new(device, options)?;
        match self.source {
            Source::Listener(listener) => server.listen(&listener, &stop, report)?,
            Source::Connected(socket) => {
                server.connect(socket).run(&stop)?;
            }
        }
        Ok(())
    }
}

/// A device of 256 queues has more than a thousand descriptors; the usual limit is 1024, and may be raised.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // If it is refused, there are as many as there were.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// A front-end's fault is worth a line; the next one is served all the same.
fn report(end: Result<End, ServeError>) {
    if let Err(error) = end {
        eprintln!("vhost-user: the connection ended: {error}");
    }
}
