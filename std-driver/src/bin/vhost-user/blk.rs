//! `vhost-user blk`: a disk.

use core::error::Error;
use std::{path::PathBuf, sync::Arc};

use vhost_std::block::{Access, BlockDevice, BlockOptions};

use crate::service;

/// The arguments of `vhost-user blk`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    service: service::Arguments,
    /// The file or block device that holds the disk.
    #[arg(long, value_name = "FILE", required = true)]
    blk_file: Option<PathBuf>,
    /// The guest cannot write.
    #[arg(long)]
    read_only: bool,
    /// Number of queues.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    num_queues: u16,
    /// The name that the guest sees, at most 20 bytes.
    #[arg(long, value_name = "ID", default_value = "")]
    serial: String,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let service = self.service.open()?;
        let path = self.blk_file.ok_or("--blk-file is missing")?;
        let access = if self.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let options = BlockOptions { access, queues: self.num_queues, serial: self.serial };
        let device = BlockDevice::open(&path, &options).map_err(|error| format!("{}: {error}", path.display()))?;
        service.run(Arc::new(device))
    }
}
