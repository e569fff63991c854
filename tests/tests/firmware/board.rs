//! A machine that runs the image, and the serial line to it.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread::JoinHandle;

use tempfile::TempDir;
use vhost_std::frontend::Frontend;
use vhost_std::socket::Socket;
use vhost_tests::dialog::PATIENCE;
use vhost_tests::program::Running;

use crate::adaptor;
use crate::image::Machine;

/// Bytes of RAM; the image has the first half for itself.
pub(crate) const RAM_SIZE: u64 = 32 << 20;

/// A machine that runs.
pub(crate) struct Board {
    machine: Machine,
    emulator: Running,
    /// The file that QEMU takes the machine's RAM from.
    pub(crate) ram: File,
    pub(crate) line: UnixStream,
    _folder: TempDir,
}

/// A machine that serves a front-end.
pub(crate) struct Connected {
    machine: Machine,
    emulator: Running,
    pub(crate) ram: File,
    adaptor: JoinHandle<()>,
    _folder: TempDir,
}

impl Board {
    /// `None`, after saying so, if there is no QEMU for it or nothing to build the image with.
    pub(crate) fn start(machine: Machine) -> Option<Self> {
        let emulator = machine.emulator()?;
        let image = machine.image()?;
        let folder = tempfile::tempdir().unwrap();
        let [ram_path, line_path] = ["ram", "line"].map(|name| folder.path().join(name));
        let ram = File::options().read(true).write(true).create_new(true).open(&ram_path).unwrap();
        ram.set_len(RAM_SIZE).unwrap();
        let listener = UnixListener::bind(&line_path).unwrap();
        listener.set_nonblocking(true).unwrap();

        let backend = format!("memory-backend-file,id=ram,size={RAM_SIZE},share=on,mem-path={}", ram_path.display());
        let mut command = Command::new(emulator);
        command.args(["-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot"]);
        command.args(["-accel", "tcg,thread=single", "-m", "32", "-object", &backend]).args(machine.arguments());
        command.args(["-chardev", &format!("socket,id=line,path={}", line_path.display()), "-serial", "chardev:line"]);
        command.arg("-kernel").arg(image);
        let mut emulator = Running::start(&mut command);
        let line = emulator.wait_until("connected the serial line", PATIENCE, || listener.accept().ok()).0;
        line.set_nonblocking(false).unwrap();
        line.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { machine, emulator, ram, line, _folder: folder })
    }

    /// A front-end on the other end of an adaptor.
    pub(crate) fn connect(self) -> (Frontend, Connected) {
        let (near, far) = Socket::pair().unwrap();
        let Self { machine, emulator, ram, line, _folder } = self;
        let file = ram.try_clone().unwrap();
        let adaptor = std::thread::spawn(move || adaptor::carry(&far, line, &file));
        let mut frontend = Frontend::from_socket(near);
        frontend.set_timeout(Some(PATIENCE));
        (frontend, Connected { machine, emulator, ram, adaptor, _folder })
    }

    /// Waits for the machine to end.
    pub(crate) fn status(mut self) -> u8 {
        self.machine.status(self.emulator.wait(PATIENCE).code().unwrap())
    }
}

impl Connected {
    /// Waits for the machine to end, which it does when the front-end has gone.
    pub(crate) fn status(mut self) -> u8 {
        let status = self.machine.status(self.emulator.wait(PATIENCE).code().unwrap());
        self.adaptor.join().unwrap();
        status
    }
}
