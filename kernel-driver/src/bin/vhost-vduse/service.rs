//! How a device gets onto the bus, is served until a signal comes, and leaves.

use core::error::Error;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use vhost_core::uapi::vduse_message::VduseVersion;
use vhost_kernel::vduse::{self, Control, RingChoice, VduseRefusal, VduseServer};
use vhost_std::device::Device;
use vhost_std::eventfd::EventFd;
use vhost_std::system_error::SystemError;

/// The arguments that all devices share.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The device's name on the bus, and below /dev/vduse.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// At the end leave the device on the bus, where it waits for the next one who takes it over.
    #[arg(long)]
    leave: bool,
    /// Take a device over that another process has left on the bus.
    #[arg(long)]
    take_over: bool,
    /// Offer packed rings too. Such a device cannot be taken over.
    #[arg(long, conflicts_with_all = ["leave", "take_over"])]
    packed: bool,
    /// Version of the kernel's interface: 1 needs Linux 7.0 or later.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    interface: u8,
}

impl Arguments {
    /// Serves `device` until SIGTERM or SIGINT.
    pub(crate) fn run(self, device: Arc<dyn Device>) -> Result<(), Box<dyn Error>> {
        let (stop, signalled) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        let name = self.name.as_str();
        let version = if self.interface == 0 { VduseVersion::V0 } else { VduseVersion::V1 };
        let control = Control::open(version)?;
        if self.take_over {
            let mut server = VduseServer::take_over(name, control.version(), device)?;
            println!("{name} is taken over");
            server.run(&stop)?;
            return self.end(server, &control);
        }
        let rings = if self.packed { RingChoice::SplitOrPacked } else { RingChoice::Split };
        let mut server = VduseServer::create(&control, name, device, rings)?;
        match beside(&mut server, || vduse::add_to_bus(name)) {
            Ok(()) => {}
            Err(error) => {
                drop(server);
                control.destroy(name)?;
                return Err(error);
            }
        }
        println!("{name} is on the vdpa bus");
        server.run(&stop)?;
        self.end(server, &control)
    }

    fn end(&self, mut server: VduseServer, control: &Control) -> Result<(), Box<dyn Error>> {
        if let (refusals, Some(VduseRefusal { request, error })) = server.refusals() {
            eprintln!("vhost-vduse: {refusals} requests of the kernel failed, the last one {request:?}: {error}");
        }
        if self.leave {
            return Ok(());
        }
        match beside(&mut server, || vduse::remove_from_bus(&self.name)) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        drop(server);
        Ok(control.destroy(&self.name)?)
    }
}

/// Makes a call that the kernel answers only while the device is served.
fn beside(
    server: &mut VduseServer,
    call: impl FnOnce() -> Result<(), SystemError> + Send,
) -> Result<(), Box<dyn Error>> {
    let done = EventFd::new()?;
    let outcome = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let calling = scope.spawn(|| {
            let outcome = call();
            // What cannot be signalled would keep the server from ever ending; there is nothing to be wrong with it.
            let _ = done.signal();
            outcome
        });
        server.run(&done)?;
        Ok(calling.join())
    })?;
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err("a thread has panicked".into()),
    }
}
