//! `vhost-user`: devices for virtual machines, each in a process of its own.
//!
//! Follows the conventions for back-end programs of the vhost-user specification: it stays in the
//! foreground, ends cleanly at SIGTERM, and tells its capabilities as JSON.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

mod blk;
mod capabilities;
mod console;
mod inherited;
mod net;
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
    /// Print the capabilities of the device, or of all devices, as JSON, and exit.
    #[arg(long, global = true)]
    print_capabilities: bool,
    #[command(subcommand)]
    device: Option<Device>,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// A disk over a file or a block device.
    Blk(blk::Arguments),
    /// A console on this terminal, a new one, or a socket.
    Console(console::Arguments),
    /// A network interface on a tap or a datagram socket.
    Net(net::Arguments),
    /// An entropy source.
    Rng(rng::Arguments),
}

impl Device {
    fn run(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Blk(blk) => blk.run(),
            Self::Console(console) => console.run(),
            Self::Net(net) => net.run(),
            Self::Rng(rng) => rng.run(),
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    // With this option all others are ignored, good or bad (specification, section "Backend program conventions").
    if words.iter().any(|word| word == "--print-capabilities") {
        let device = Capabilities::ALL.into_iter().find(|device| words.iter().any(|word| word == device.command));
        match device {
            Some(device) => println!("{}", device.to_json()),
            None => println!("[{}]", Capabilities::ALL.map(Capabilities::to_json).join(", ")),
        }
        return ExitCode::SUCCESS;
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-user: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    match arguments.device {
        Some(device) => device.run(),
        None => Err("which device? See --help".into()),
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

    #[test]
    fn each_device_has_its_capabilities_under_the_name_of_its_command() {
        let command = Arguments::command();
        let commands: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(commands, Capabilities::ALL.map(|device| device.command));
    }
}
