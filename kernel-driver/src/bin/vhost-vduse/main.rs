//! `vhost-vduse`: devices of the vdpa bus, each in a process of its own.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

mod blk;
mod service;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Virtual devices for the kernel's vdpa bus, each in a process of its own.
///
/// The driver that was loaded first takes a device: virtio_vdpa for this machine, vhost_vdpa for a virtual one.
#[derive(Debug, Parser)]
#[command(name = "vhost-vduse", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    device: Device,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// A disk over a file or a block device.
    Blk(blk::Arguments),
}

fn main() -> ExitCode {
    let Arguments { device: Device::Blk(blk) } = Arguments::parse();
    match blk.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-vduse: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Arguments::command().debug_assert();
    }
}
