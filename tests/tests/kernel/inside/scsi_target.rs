//! A SCSI target of the kernel with one disk, made and taken apart in the kernel's configuration file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A target for vhost-scsi.
pub(super) struct Target {
    name: &'static str,
    /// Where the disk's bytes are.
    store: PathBuf,
}

impl Target {
    /// With a disk of 4 MiB in the kernel's memory.
    pub(super) fn of_memory() -> Self {
        Self::new("naa.600140554cf3a18e", "rd_mcp_0", "rd_pages=1024")
    }

    /// With a disk of so many bytes in a file.
    pub(super) fn of_file(path: &Path, size: u64) -> Self {
        let options = format!("fd_dev_name={},fd_dev_size={size}", path.display());
        Self::new("naa.600140554cf3a18f", "fileio_0", &options)
    }

    fn new(name: &'static str, kind: &str, options: &str) -> Self {
        let store = Path::new("/config/target/core").join(kind).join("disk");
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("control"), options).unwrap();
        fs::write(store.join("enable"), "1").unwrap();
        let target = Self { name, store };
        fs::create_dir_all(target.folder()).unwrap();
        for folder in [target.group(), target.disk()] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(target.group().join("nexus"), name).unwrap();
        target.plug();
        target
    }

    /// Its world wide name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    fn folder(&self) -> PathBuf {
        Path::new("/config/target/vhost").join(self.name)
    }

    fn group(&self) -> PathBuf {
        self.folder().join("tpgt_1")
    }

    fn disk(&self) -> PathBuf {
        self.group().join("lun/lun_0")
    }

    fn link(&self) -> PathBuf {
        self.disk().join("link")
    }

    /// Puts the disk in.
    pub(super) fn plug(&self) {
        symlink(&self.store, self.link()).unwrap();
    }

    /// Takes the disk out.
    pub(super) fn unplug(&self) {
        fs::remove_file(self.link()).unwrap();
    }
}

impl Drop for Target {
    /// No device may have it any more.
    fn drop(&mut self) {
        let steps = [
            fs::remove_file(self.link()),
            fs::remove_dir(self.disk()),
            fs::write(self.group().join("nexus"), "NULL"),
            fs::remove_dir(self.group()),
            fs::remove_dir(self.folder()),
            fs::remove_dir(&self.store),
            fs::remove_dir(self.store.parent().unwrap()),
        ];
        if !std::thread::panicking() {
            steps.into_iter().collect::<Result<(), _>>().unwrap();
        }
    }
}
