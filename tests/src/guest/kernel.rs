//! The guest's kernel: where it is, and which modules must be loaded in which order.
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{REQUIRE_PEERS, fetched, not_run};

/// Names the folder of the guest's kernel; without it, `vhost-guest` in the user's cache folder is
/// taken.
///
/// `.ci/guest-kernel` fills that folder: `vmlinuz`, and the unpacked modules below `modules`.
pub const KERNEL_FOLDER: &str = "VHOST_GUEST_KERNEL_DIR";

/// Set to `1`, this environment variable has tests boot guests, which takes a few minutes in all. So does
/// [`REQUIRE_PEERS`](crate::program::REQUIRE_PEERS).
pub const GUESTS: &str = "VHOST_GUESTS";

/// A kernel image with its modules.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// Modules by name, and `None` for what the image has built in.
    modules: HashMap<String, Option<PathBuf>>,
}

impl Kernel {
    /// `None` if there is none or no guest is to be booted, after saying that the calling test was not run.
    pub(super) fn find() -> Option<Self> {
        if ![GUESTS, REQUIRE_PEERS].iter().any(|name| env::var_os(name).is_some_and(|value| value == "1")) {
            not_run(&format!("guests are booted by .ci/peers, and where {GUESTS} is 1"));
            return None;
        }
        let folder = fetched(KERNEL_FOLDER, "vhost-guest").filter(|folder| folder.join("vmlinuz").is_file());
        let Some(folder) = folder else {
            not_run("the guest's kernel is missing (.ci/guest-kernel fetches one)");
            return None;
        };
        let mut modules = HashMap::new();
        let built_in = fs::read_to_string(folder.join("modules/modules.builtin")).unwrap_or_default();
        modules.extend(built_in.lines().map(|path| (module_name(Path::new(path)), None)));
        collect(&folder.join("modules"), &mut modules);
        Some(Self { image: folder.join("vmlinuz"), modules })
    }

    /// Whether there is such a module, or it is built in.
    pub(super) fn has(&self, module: &str) -> bool {
        self.modules.contains_key(module)
    }

    /// The files of `wanted` and of all they need, each after what it needs itself.
    pub(super) fn load_order(&self, wanted: &[String]) -> Vec<&Path> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(name, &mut order);
        }
        order
    }

    fn visit<'a>(&'a self, name: &str, order: &mut Vec<&'a Path>) {
        let Some(entry) = self.modules.get(name) else { panic!("the guest's kernel has no module {name}") };
        let Some(path) = entry.as_deref() else { return };
        if order.contains(&path) {
            return;
        }
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for need in needs(&bytes) {
            self.visit(&need, order);
        }
        order.push(path);
    }
}

fn collect(folder: &Path, modules: &mut HashMap<String, Option<PathBuf>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, modules);
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            modules.insert(module_name(&path), Some(path));
        }
    }
}

/// File names may have a dash where the module's own name has an underscore.
fn module_name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

/// The names a module's information section lists as `depends=a,b`, among its strings that each end
/// with a zero.
fn needs(module: &[u8]) -> Vec<String> {
    let list = module.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(list.unwrap_or_default()).replace('-', "_");
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(folder: &Path, file: &str, needs: &str) {
        fs::write(folder.join(file), format!("ELF\0license=GPL\0depends={needs}\0name=x\0")).unwrap();
    }

    #[test]
    fn modules_load_after_what_they_need_and_once() {
        let folder = tempfile::tempdir().unwrap();
        module(folder.path(), "vhost_net.ko", "vhost,tun,tap");
        module(folder.path(), "vhost.ko", "vhost_iotlb,built-in");
        module(folder.path(), "vhost-iotlb.ko", "");
        module(folder.path(), "tun.ko", "");
        module(folder.path(), "tap.ko", "tun");
        let mut modules = HashMap::from([("built_in".to_owned(), None)]);
        collect(folder.path(), &mut modules);
        let kernel = Kernel { image: PathBuf::new(), modules };
        let order = kernel.load_order(&["vhost_net".to_owned(), "tun".to_owned()]);
        let order: Vec<_> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(order, ["vhost_iotlb", "vhost", "tun", "tap", "vhost_net"]);
    }
}
