//! `cargo demo`: a disk in one process, its user in another, a crash in the middle, and every byte checked.
//!
//! This process starts both and watches. The *back-end* serves a disk image over vhost-user. The *front-end* negotiates,
//! shares memory, drives the rings, writes a pattern to the whole disk through split rings and reads it back through packed
//! ones. Half-way through the writing the back-end is killed with SIGKILL and started anew; the front-end connects again
//! and repeats what had not completed. In the end the image is read directly, too. The exit status is 0 only if every byte
//! was right.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

mod backend;
mod frontend;
mod pattern;
mod report;
mod timeline;

use core::error::Error;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::Instant,
};

use report::{Note, Screen};

/// Bytes of the disk.
const DISK: u64 = 256 << 20;
/// Queues of the disk.
const QUEUES: u16 = 2;

type Result<T> = core::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match *words {
        [] => direct(),
        ["backend", socket, image] => backend::run(Path::new(socket), Path::new(image)),
        ["frontend", socket] => frontend::run(Path::new(socket)),
        _ => Err("cargo demo takes no arguments".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts both processes, kills the back-end once, and checks the image in the end.
fn direct() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (socket, image) = (folder.path().join("disk.sock"), folder.path().join("disk.img"));
    std::fs::File::create(&image)?.set_len(DISK)?;
    let mut screen = Screen::new();
    screen.line(&format!("a disk of {} MiB with {QUEUES} queues, in {}", DISK >> 20, folder.path().display()));

    let started = Instant::now();
    let start_backend = || Process::start(&["backend", text(&socket)?, text(&image)?], Stdio::null());
    let mut backend = start_backend()?;
    let mut frontend = Process::start(&["frontend", text(&socket)?], Stdio::piped())?;
    let output = frontend.0.stdout.take().ok_or("the front-end has no output")?;
    let mut killed = false;
    for line in BufReader::new(output).lines() {
        match Note::parse(&line?) {
            Note::HalfWritten if !killed => {
                killed = true;
                let id = backend.0.id();
                backend.kill()?;
                screen.line(&format!("half is written: back-end process {id} killed with SIGKILL"));
                backend = start_backend()?;
                screen.line(&format!("back-end process {} started in its place", backend.0.id()));
            }
            Note::HalfWritten => {}
            Note::Progress { part, percent } => screen.progress(&part, percent),
            Note::Line(line) => screen.line(&line),
        }
    }
    let status = frontend.0.wait()?;
    if !status.success() {
        return Err(format!("the front-end failed: {status}").into());
    }
    if !killed {
        return Err("the back-end was never killed: the demonstration shows nothing".into());
    }
    let checksum = pattern::check_image(&image, DISK)?;
    screen.line(&format!("the image holds every byte, read directly (checksum {checksum:016x})"));
    screen.line(&format!(
        "VERDICT: every byte was right, with a crash in between; {:.1} s in all",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "the path of temporary files is not UTF-8".into())
}

/// This program again, in another role; killed when it is no longer needed.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str], output: Stdio) -> Result<Self> {
        let child =
            Command::new(std::env::current_exe()?).args(arguments).stdin(Stdio::null()).stdout(output).spawn()?;
        Ok(Self(child))
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}
