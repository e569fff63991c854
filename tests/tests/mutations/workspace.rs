//! A copy of the core and of its tests, where mistakes are made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mistake::{Mistake, repository};

/// The test programs that need nothing but the core.
const PROGRAMS: [&str; 3] = ["core", "gpu", "rings"];
/// What the other test programs need besides.
const FOREIGN: [&str; 6] = ["vhost-kernel", "vhost-std", "virtio-queue", "vhost =", "vm-memory", "vmm-sys-util"];
/// Seconds after which a test that goes on for ever is ended.
const LIMIT: &str = "240";

/// What the tests made of a mistake.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// These tests have failed.
    Found(Vec<String>),
    /// None has failed.
    Overlooked,
    /// The compiler has found it, so that it says nothing about tests; or something else went wrong.
    Unusable(String),
}

/// One copy; the next mistake takes the place of the last.
pub(crate) struct Workspace {
    folder: PathBuf,
}

impl Workspace {
    /// The copy of this number. What an earlier run has built is used again.
    pub(crate) fn new(number: usize) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutations-{number}"));
        let (from, to) = (repository(), folder.join("workspace"));
        let _ = fs::remove_dir_all(&to);
        for part in ["core/src", "tests/src"] {
            copy(&from.join(part), &to.join(part));
        }
        for program in PROGRAMS {
            let part = Path::new("tests/tests").join(program);
            copy(&from.join(&part), &to.join(&part));
        }
        for file in ["core/Cargo.toml", "Cargo.lock", "README.md"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
        let manifest = fs::read_to_string(from.join("Cargo.toml")).unwrap();
        let members =
            |line: &str| if line.starts_with("members") { "members = [\"core\", \"tests\"]" } else { line }.to_owned();
        fs::write(to.join("Cargo.toml"), Vec::from_iter(manifest.lines().map(members)).join("\n")).unwrap();
        let manifest = fs::read_to_string(from.join("tests/Cargo.toml")).unwrap();
        let (manifest, _) = manifest.split_once("[[bench]]").unwrap();
        let is_ours = |line: &&str| !FOREIGN.iter().any(|name| line.starts_with(name));
        let manifest = Vec::from_iter(manifest.lines().filter(is_ours)).join("\n");
        fs::write(to.join("tests/Cargo.toml"), manifest).unwrap();
        Self { folder }
    }

    /// Makes the mistake, runs the tests that are to notice it, and takes it back.
    pub(crate) fn test(&self, mistake: &Mistake) -> Outcome {
        let wrong = match mistake.applied() {
            Ok(wrong) => wrong,
            Err(displaced) => return Outcome::Unusable(displaced),
        };
        let file = self.folder.join("workspace").join(&mistake.file);
        fs::write(&file, wrong).unwrap();
        let output = Command::new("timeout")
            .args([LIMIT, env!("CARGO"), "test", "--offline", "-p", "vhost-tests", "--test", &mistake.program])
            .args(["--", &mistake.filter])
            .current_dir(self.folder.join("workspace"))
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .env("CARGO_PROFILE_DEV_DEBUG", "none")
            .env("CARGO_INCREMENTAL", "1")
            .output()
            .unwrap();
        fs::write(&file, fs::read(repository().join(&mistake.file)).unwrap()).unwrap();
        let [said, complained] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let failed = said.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        let failed = Vec::from_iter(failed.map(str::to_owned));
        if !failed.is_empty() {
            Outcome::Found(failed)
        } else if output.status.success() && !said.contains("running 0 tests") {
            Outcome::Overlooked
        } else {
            Outcome::Unusable(format!("{said}{complained}"))
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
