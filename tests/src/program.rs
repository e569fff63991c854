//! Other programs: whether this machine has them, and running them so that none outlives its test.
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

mod daemon;
mod running;

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use daemon::Daemon;
pub use running::Running;

/// Set to `1`, this environment variable makes a missing program a failure.
pub const REQUIRE_PEERS: &str = "VHOST_REQUIRE_PEERS";

/// Names the folder of the programs that `.ci/peer-programs` fetches; without it, `vhost-peers` in
/// the user's cache folder is taken.
pub const PEERS_FOLDER: &str = "VHOST_PEERS_DIR";

/// Folders that hold programs and that an unprivileged `PATH` leaves out.
const MORE_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/libexec"];

/// Where `program` is; `None` if it is missing, after saying that the calling test was not run (see
/// [`not_run`]).
#[must_use]
pub fn require(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        not_run(&format!("{program} is missing"));
    }
    found
}

/// Says on the terminal, past the test runner's capture, that the calling test proved nothing
/// because of `reason`.
///
/// # Panics
/// If [`REQUIRE_PEERS`] is `1`: in CI a check that cannot run is a failure.
pub fn not_run(reason: &str) {
    // The test runner names a test's thread after the test.
    let thread = std::thread::current();
    let line = format!("NOT RUN: {}: {reason}", thread.name().unwrap_or("a test"));
    let required = env::var_os(REQUIRE_PEERS).is_some_and(|value| value == "1");
    assert!(!required, "{line}, though {REQUIRE_PEERS} is 1");
    // Nobody is left to be told if the terminal is gone.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Where something was put that the tests need and that is not installed: the folder that `variable`
/// names, or `name` in the user's cache folder.
#[must_use]
pub fn fetched(variable: &str, name: &str) -> Option<PathBuf> {
    let cache = || env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    env::var_os(variable).map(PathBuf::from).or_else(|| Some(cache().or_else(home)?.join(name)))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(MORE_FOLDERS.map(PathBuf::from))
        .chain(fetched(PEERS_FOLDER, "vhost-peers").map(|folder| folder.join("bin")))
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

/// Builds `binary` of the workspace's package `package` as this test was built, and tells where it
/// is.
///
/// A test asks for it each time: Cargo builds a package's programs for that package's own tests
/// only, and a program left from an earlier build would be the wrong one to test.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn built(package: &str, binary: &str) -> PathBuf {
    build(package, "--bin", binary).join(binary)
}

/// As [`built`], for an example.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn built_example(package: &str, example: &str) -> PathBuf {
    build(package, "--example", example).join("examples").join(example)
}

/// Builds one target of a package; the folder of the build.
fn build(package: &str, kind: &str, name: &str) -> PathBuf {
    let test = env::current_exe().unwrap_or_else(|error| panic!("the path of this test: {error}"));
    // Cargo puts a test at TARGET/PROFILE/deps/NAME, and a program at TARGET/PROFILE/NAME.
    let Some(folder) = test.parent().and_then(Path::parent) else {
        panic!("{} is not in a build folder", test.display())
    };
    let (Some(target), Some(profile)) = (folder.parent(), folder.file_name()) else { panic!("{}", folder.display()) };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--package", package, kind, name, "--target-dir"]).arg(target);
    if profile != "debug" {
        command.arg("--profile").arg(profile);
    }
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    folder.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name_and_a_missing_one_is_not() {
        assert!(find("sh").is_some_and(|path| path.ends_with("sh") && path.is_file()));
        assert_eq!(find("no program has this name"), None);
    }
}
