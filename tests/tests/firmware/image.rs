//! Building the image, and the machines that it runs on.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use vhost_tests::program::{not_run, require};

/// Where the image's sources are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware");

/// A machine without an operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    Pc,
    RiscV,
}

impl Machine {
    /// QEMU for it.
    pub(crate) fn emulator(self) -> Option<PathBuf> {
        require(match self {
            Self::Pc => "qemu-system-x86_64",
            Self::RiscV => "qemu-system-riscv64",
        })
    }

    /// What QEMU must be told.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Pc => &["-machine", "pc,memory-backend=ram", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
            Self::RiscV => &["-machine", "virt,memory-backend=ram", "-bios", "none"],
        }
    }

    /// The image's status, from QEMU's.
    pub(crate) fn status(self, emulator: i32) -> u8 {
        let status = match self {
            Self::Pc => {
                assert_eq!(emulator % 2, 1, "QEMU failed, not the image");
                emulator / 2
            }
            Self::RiscV => emulator,
        };
        u8::try_from(status).unwrap()
    }

    /// The image; `None`, after saying so, if it cannot be built here.
    pub(crate) fn image(self) -> Option<PathBuf> {
        match self {
            // The target of this machine, without anything of its operating system: every Rust can do that.
            Self::Pc => {
                let target = this_build().join("firmware");
                build(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), &target, |command| command);
                Some(target.join("release/firmware"))
            }
            Self::RiscV => {
                let target = "riscv64gc-unknown-none-elf";
                // Debian's second Rust, which comes with the sources of `core`.
                let (cargo, compiler) = ("/usr/bin/cargo", "/usr/bin/rustc");
                if !Path::new(cargo).exists() || !Path::new("/usr/lib/rustlib/src/rust/library").exists() {
                    not_run("there is no Rust that brings the sources of core (rustc-web, cargo-web, rust-web-src)");
                    return None;
                }
                // `core` is compiled once, and found again by the next fresh clone.
                let home = env::var_os("HOME").unwrap_or_default();
                let cache =
                    env::var_os("XDG_CACHE_HOME").map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from);
                let folder = cache.join("vhost-firmware");
                build(cargo, &folder, |command| {
                    command.args(["-Z", "build-std=core", "--target", target]);
                    command.env("RUSTC", compiler).env("RUSTC_BOOTSTRAP", "1");
                    command.env("CARGO_TARGET_RISCV64GC_UNKNOWN_NONE_ELF_LINKER", linker())
                });
                Some(folder.join(target).join("release/firmware"))
            }
        }
    }
}

/// The linker that every Rust of rustup brings; Debian's has none.
fn linker() -> PathBuf {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = String::from_utf8(output.stdout).unwrap();
    Path::new(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld")
}

/// The target folder that this test is in.
fn this_build() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_path_buf()
}

fn build(cargo: impl AsRef<OsStr>, target: &Path, add: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--locked", "--target-dir"]).arg(target).current_dir(FOLDER);
    // What was set for the workspace of this test is not meant for the image.
    for name in ["RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        command.env_remove(name);
    }
    let output = add(&mut command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
