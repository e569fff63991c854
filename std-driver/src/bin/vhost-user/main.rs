//! `vhost-user`: devices for virtual machines, each in a process of its own.
//!
//! Follows the conventions for back-end programs of the vhost-user specification: it stays in the
//! foreground, ends cleanly at SIGTERM, and tells its capabilities as JSON.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

mod blk;
mod capabilities;
mod inherited;
mod service;

use std::process::ExitCode;

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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.device {
        None => {
            println!("[{}]", capabilities::Capabilities::BLOCK.to_json());
            Ok(())
        }
        Some(Device::Blk(blk)) if arguments.print_capabilities || blk.print_capabilities => {
            println!("{}", capabilities::Capabilities::BLOCK.to_json());
            Ok(())
        }
        Some(Device::Blk(blk)) => blk.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-user: {error}");
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
