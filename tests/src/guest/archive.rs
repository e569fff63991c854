//! The archive a guest's first file system is unpacked from: cpio's "newc" form.
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Builds the archive in memory; folders come into being with what is in them.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
}

impl Archive {
    /// With the console, which the kernel opens before any program runs.
    pub(super) fn new() -> Self {
        let mut archive = Self { bytes: Vec::new(), names: BTreeSet::new() };
        archive.add(Path::new("dev/console"), CHARACTER_DEVICE, (5, 1), &[]);
        archive
    }

    /// A file that is not a program.
    pub(super) fn file(&mut self, name: &str, contents: &[u8]) {
        self.add(Path::new(name), FILE, (0, 0), contents);
    }

    /// A program or script from `contents`.
    pub(super) fn script(&mut self, name: &str, contents: &str) {
        self.add(Path::new(name), PROGRAM, (0, 0), contents.as_bytes());
    }

    /// A program of this machine as `name`, with the libraries it loads at their own places.
    pub(super) fn program(&mut self, name: &str, host: &Path) {
        self.host_file(Path::new(name), host);
        for library in libraries(host) {
            // Libraries are shared among programs.
            let place = library.strip_prefix("/").unwrap_or(&library);
            if !self.names.contains(place) {
                self.host_file(place, &library);
            }
        }
    }

    fn host_file(&mut self, name: &Path, host: &Path) {
        let contents = fs::read(host).unwrap_or_else(|error| panic!("{}: {error}", host.display()));
        self.add(name, PROGRAM, (0, 0), &contents);
    }

    fn add(&mut self, name: &Path, mode: u32, device: (u32, u32), contents: &[u8]) {
        if let Some(folder) = name.parent()
            && !folder.as_os_str().is_empty()
            && !self.names.contains(folder)
        {
            self.add(folder, FOLDER, (0, 0), &[]);
        }
        assert!(self.names.insert(name.to_owned()), "{} is in the guest's archive already", name.display());
        self.entry(name, mode, device, contents);
    }

    fn entry(&mut self, name: &Path, mode: u32, device: (u32, u32), contents: &[u8]) {
        let name = name.as_os_str().as_encoded_bytes();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_else(|_| panic!("the form ends at 4 GiB"));
        // Inode numbers need only differ; owner, group, time and the archive's own device stay 0.
        let inode = length(&self.bytes);
        let fields = [inode, mode, 0, 0, 1, 0, length(contents), 0, 0, device.0, device.1, length(name) + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The archive's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[]);
        self.bytes
    }
}

/// What the program loads at its start; nothing for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap_or_else(|error| panic!("ldd: {error}"));
    // "libc.so.6 => /lib/.../libc.so.6 (0x...)", and the loader as "/lib64/ld-linux-x86-64.so.2
    // (0x...)".
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_its_header_name_and_contents_each_padded_to_four_bytes() {
        let mut archive = Archive { bytes: Vec::new(), names: BTreeSet::new() };
        archive.file("ab", b"hello");
        let header = "070701 00000000 000081a4 00000000 00000000 00000001 00000000 00000005 \
                      00000000 00000000 00000000 00000000 00000003 00000000";
        // The header is 110 bytes long: with "ab" and its end, three are missing to a multiple of
        // four.
        let expected = [header.replace(' ', "").as_bytes(), b"ab\0\0\0\0", b"hello\0\0\0"].concat();
        assert_eq!(archive.bytes, expected);
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new();
        archive.file("a/b/one", b"");
        archive.file("a/b/two", b"");
        let text = String::from_utf8(archive.finish()).unwrap();
        let names: Vec<_> = text.split("070701").skip(1).map(|entry| entry[104..].trim_end_matches('\0')).collect();
        assert_eq!(names, ["dev", "dev/console", "a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }
}
