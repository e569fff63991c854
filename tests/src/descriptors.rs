//! What this process has open: descriptors and mappings of shared memory, compared before and after.
//!
//! Tests share one process, so whatever counts these has to run in a process of its own: see [`leaves_nothing_open`].

use core::fmt;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::process::Command;

/// Set for the process that [`in_own_process`] starts; the name of its test.
const ALONE: &str = "VHOST_TESTS_ALONE";

/// The open descriptors and the shared mappings of this process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Each open descriptor and what it is, as the system names it: `socket:[4711]`, `/memfd:ram (deleted)`.
    pub descriptors: BTreeMap<i32, String>,
    /// Each shared mapping (permissions, offset, length, name) and how often it is there.
    pub mappings: BTreeMap<String, usize>,
}

impl Snapshot {
    /// What is open now.
    pub fn take() -> Self {
        Self { descriptors: open_descriptors(), mappings: shared_mappings() }
    }

    /// How many descriptors are open.
    pub fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// How many shared mappings there are.
    pub fn mapping_count(&self) -> usize {
        self.mappings.values().sum()
    }

    /// Fails, with a list of what came and what went, unless now the same is open as then.
    #[track_caller]
    pub fn assert_same_now(&self) {
        let now = Self::take();
        assert!(*self == now, "not the same is open before and after:\n{}", Difference { before: self, after: &now });
    }
}

/// The open descriptors of this process and what each is.
pub fn open_descriptors() -> BTreeMap<i32, String> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    // The reader's own descriptor is among them, but closed by now: it no longer leads anywhere.
    let numbers = Vec::<i32>::from_iter(numbers);
    let target = |number| fs::read_link(format!("/proc/self/fd/{number}")).ok();
    let targets = numbers.into_iter().filter_map(|number| Some((number, target(number)?)));
    targets.map(|(number, target)| (number, target.to_string_lossy().into_owned())).collect()
}

/// The shared mappings of this process and how often each is there. Private ones are the allocator's and the stacks', which
/// come and go on their own; the address is left out, because the same memory may be mapped anew elsewhere.
pub fn shared_mappings() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split_whitespace();
        let (range, permissions, offset) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        // The kernel's own, which a process has once, from its first asynchronous operation on.
        if permissions.ends_with('s') && !line.contains(" /[aio] ") {
            let (start, end) = range.split_once('-').unwrap();
            let number = |digits| u64::from_str_radix(digits, 16).unwrap();
            let length = number(end) - number(start);
            // After the device and the inode, both of which a reused name would not tell apart anyway.
            let name = Vec::from_iter(words.skip(2)).join(" ");
            *all.entry(format!("{permissions} offset {offset} length {length:#x} {name}")).or_default() += 1;
        }
    }
    all
}

/// Runs a test's body in a process of its own and fails when that leaves a descriptor or a shared mapping open, or closes one
/// that it did not open. `test` is the test's full path in its binary: `tests::name` or `name`.
#[track_caller]
pub fn leaves_nothing_open(test: &str, body: impl FnOnce()) {
    in_own_process(test, || {
        let before = Snapshot::take();
        body();
        before.assert_same_now();
    });
}

/// Runs a test's body in a process of its own: this test binary again, with this test only. `test` is the test's full path in
/// its binary: `tests::name` or `name`.
///
/// A fork would be cheaper, but a child of a process with threads may only do what a signal handler may.
#[track_caller]
pub fn in_own_process(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        body();
        // Past the harness's capture: the parent must see that the body ran, not only that nothing failed.
        io::stdout().write_all(finished(test).as_bytes()).unwrap();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} alone: {}\n{said}\n{complained}", output.status);
    assert!(said.contains(&finished(test)), "no test of this binary is called {test}:\n{said}");
}

fn finished(test: &str) -> String {
    format!("\n{test} ran alone to its end\n")
}

/// What one snapshot has and the other has not, one a line.
struct Difference<'a> {
    before: &'a Snapshot,
    after: &'a Snapshot,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.before.descriptors, &self.after.descriptors);
        for (number, target) in before.iter().filter(|&(number, target)| after.get(number) != Some(target)) {
            writeln!(formatter, "- descriptor {number}: {target}")?;
        }
        for (number, target) in after.iter().filter(|&(number, target)| before.get(number) != Some(target)) {
            writeln!(formatter, "+ descriptor {number}: {target}")?;
        }
        let (before, after) = (&self.before.mappings, &self.after.mappings);
        for (mapping, count) in before.iter().filter(|&(mapping, count)| after.get(mapping) != Some(count)) {
            writeln!(formatter, "- {count} × mapping {mapping}")?;
        }
        for (mapping, count) in after.iter().filter(|&(mapping, count)| before.get(mapping) != Some(count)) {
            writeln!(formatter, "+ {count} × mapping {mapping}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags};
    use std::panic::catch_unwind;

    #[test]
    fn a_body_that_closes_all_it_opened_leaves_nothing_open() {
        leaves_nothing_open("descriptors::tests::a_body_that_closes_all_it_opened_leaves_nothing_open", || {
            drop(memfd_create("closed", MemfdFlags::CLOEXEC).unwrap());
        });
    }

    #[test]
    fn an_open_descriptor_is_named() {
        in_own_process("descriptors::tests::an_open_descriptor_is_named", || {
            let before = Snapshot::take();
            let kept = memfd_create("kept", MemfdFlags::CLOEXEC).unwrap();
            assert_eq!(Snapshot::take().descriptor_count(), before.descriptor_count() + 1);
            let complaint = catch_unwind(|| before.assert_same_now()).unwrap_err();
            let complaint = complaint.downcast_ref::<String>().unwrap();
            assert!(complaint.contains("/memfd:kept"), "{complaint}");
            drop(kept);
            before.assert_same_now();
        });
    }

    #[test]
    fn a_mapping_is_found_after_its_descriptor_is_closed() {
        in_own_process("descriptors::tests::a_mapping_is_found_after_its_descriptor_is_closed", || {
            let before = Snapshot::take();
            let memory = memfd_create("mapped", MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&memory, 4096).unwrap();
            // SAFETY: the system chooses an address that is free.
            let address =
                unsafe { rustix::mm::mmap(core::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, &memory, 0) };
            let address = address.unwrap();
            drop(memory);
            assert_eq!(Snapshot::take().mapping_count(), before.mapping_count() + 1);
            let complaint = catch_unwind(|| before.assert_same_now()).unwrap_err();
            let complaint = complaint.downcast_ref::<String>().unwrap();
            assert!(complaint.contains("/memfd:mapped"), "{complaint}");
            // SAFETY: nobody else knows the address of this mapping.
            unsafe { rustix::mm::munmap(address, 4096) }.unwrap();
            before.assert_same_now();
        });
    }

    #[test]
    #[should_panic(expected = "no test of this binary is called descriptors::tests::misspelt")]
    fn a_misspelt_name_is_noticed() {
        in_own_process("descriptors::tests::misspelt", || {});
    }

    #[test]
    #[should_panic(expected = "the body's own failure")]
    fn a_failing_body_fails_the_test() {
        in_own_process("descriptors::tests::a_failing_body_fails_the_test", || {
            // The harness of the child expects a panic too; only an exit status is a failure to it.
            if std::env::var_os(ALONE).is_some() {
                io::stderr().write_all(b"the body's own failure").unwrap();
                std::process::exit(1);
            }
        });
    }
}
