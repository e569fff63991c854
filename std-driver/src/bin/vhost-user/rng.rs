//! `vhost-user rng`: an entropy source.

use core::error::Error;
use std::{path::PathBuf, sync::Arc};

use vhost_std::entropy::EntropyDevice;

use crate::service;

/// The arguments of `vhost-user rng`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    service: service::Arguments,
    /// The character device that the bytes come from.
    #[arg(long, value_name = "DEVICE", default_value = "/dev/urandom")]
    source: PathBuf,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let service = self.service.open()?;
        let device = EntropyDevice::open(&self.source)?;
        service.run(Arc::new(device))
    }
}
