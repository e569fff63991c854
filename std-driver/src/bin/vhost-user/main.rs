//! `vhost-user`: devices for virtual machines, each in a process of its own.
//!
//! Follows the conventions for back-end programs of the vhost-user specification: it stays in the
//! foreground, ends cleanly at SIGTERM, and tells its capabilities as JSON.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

mod blk;
mod capabilities;
mod inherited;
mod rng;
mod service;

use core::error::Error;
use std::process::ExitCode;

use capabilities::Capabilities;
use clap::{Parser, Subcommand};

/// Virtual devices over vhost-user, each in a process of its own.
#[derive(Debug, Parser)]
#[command(name = "vhost-user", version, about, arg_required_else_help = true)]
struct Arguments {
    /// Print the capabilities of every device as JSON, and exit.
    #[arg(long)]
    print_capabilities: bool,
    #[command(subcommand)]
    device: Option<Device>,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// A disk over a file or a block device.
    Blk(blk::Arguments),
    /// An entropy source.
    Rng(rng::Arguments),
}

impl Device {
    /// Its capabilities, and whether to print them instead of serving it.
    fn capabilities(&self) -> (Capabilities, bool) {
        match self {
            Self::Blk(blk) => (Capabilities::BLOCK, blk.print_capabilities),
            Self::Rng(rng) => (Capabilities::ENTROPY, rng.print_capabilities),
        }
    }

    fn run(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Blk(blk) => blk.run(),
            Self::Rng(rng) => rng.run(),
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-user: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Some(device) = arguments.device else {
        println!("[{}]", Capabilities::ALL.map(Capabilities::to_json).join(", "));
        return Ok(());
    };
    let (capabilities, asked) = device.capabilities();
    if asked || arguments.print_capabilities {
        println!("{}", capabilities.to_json());
        return Ok(());
    }
    device.run()
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
