//! `vhost-user console`: a console.

use core::error::Error;
use std::{
    io::{stdin, stdout},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
};

use vhost_std::console::ConsoleDevice;

use crate::service;

/// The arguments of `vhost-user console`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    service: service::Arguments,
    /// Make a pseudoterminal and print its name, instead of using this terminal.
    #[arg(long, conflicts_with = "connect")]
    pty: bool,
    /// Connect to a Unix stream socket, instead of using this terminal.
    #[arg(long, value_name = "PATH")]
    connect: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let service = self.service.open()?;
        let device = match self.connect {
            Some(path) => {
                let socket =
                    UnixStream::connect(&path).map_err(|error| format!("--connect={}: {error}", path.display()))?;
                ConsoleDevice::new(socket.try_clone()?.into(), socket.into())?
            }
            None if self.pty => {
                let (device, name) = ConsoleDevice::pseudoterminal()?;
                println!("{}", name.display());
                device
            }
            None => {
                let (input, output) = (stdin().as_fd().try_clone_to_owned()?, stdout().as_fd().try_clone_to_owned()?);
                ConsoleDevice::new(input, output)?
            }
        };
        service.run(Arc::new(device))
    }
}
