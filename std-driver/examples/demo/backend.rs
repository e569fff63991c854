//! The back-end process: a disk, until it is killed.

use std::{os::unix::net::UnixStream, path::Path, sync::Arc};

use vhost_std::{
    block::{BlockDevice, BlockOptions},
    server::{BackendServer, RingThreads, ServerOptions},
    socket::Listener,
};

use crate::{QUEUES, Result};

pub(crate) fn run(socket: &Path, image: &Path) -> Result<()> {
    let options = BlockOptions { queues: QUEUES, ..BlockOptions::default() };
    let device = Arc::new(BlockDevice::open(image, &options)?);
    let mut server_options = ServerOptions::default();
    server_options.threads = RingThreads::Shared(QUEUES);
    let mut server = BackendServer::new(device, server_options)?;
    let listener = Listener::bind(socket)?;
    // Nobody stops it but the signal that kills it.
    let (stop, _never) = UnixStream::pair()?;
    server.listen(&listener, &stop, |end| {
        if let Err(error) = end {
            eprintln!("back-end: {error}");
        }
    })?;
    Ok(())
}
