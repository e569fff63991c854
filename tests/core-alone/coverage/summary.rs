//! The numbers: a row for each file, and the sentence in the README.

use crate::export::File;
use core::fmt::Write;
use std::fs;
use std::path::Path;

/// Reached, of all.
#[derive(Clone, Copy, Default)]
struct Share {
    reached: usize,
    all: usize,
}

impl Share {
    fn of(counts: impl Iterator<Item = u64>) -> Self {
        counts.fold(Self::default(), |share, count| Self {
            reached: share.reached + usize::from(count > 0),
            all: share.all + 1,
        })
    }

    /// In tenths of a percent, rounded down: all of it is the only 1000.
    fn permille(self) -> usize {
        (self.reached * 1000).checked_div(self.all).unwrap_or(1000)
    }

    fn percent(self) -> String {
        format!("{}.{} %", self.permille() / 10, self.permille() % 10)
    }
}

fn lines(file: &File) -> impl Iterator<Item = u64> {
    file.lines.values().copied()
}

fn branches(file: &File) -> impl Iterator<Item = u64> {
    file.branches.values().flatten().copied()
}

pub(crate) fn table(files: &[File]) -> String {
    let mut text = String::from("      lines               branches\n");
    let mut row = |lines: Share, branches: Share, name: &str| {
        let share = |share: Share| format!("{:>5} of {:>5} {:>7}", share.reached, share.all, share.percent());
        writeln!(text, "{}  {}  {name}", share(lines), share(branches)).unwrap();
    };
    for file in files {
        row(Share::of(lines(file)), Share::of(branches(file)), &file.name);
    }
    row(Share::of(files.iter().flat_map(lines)), Share::of(files.iter().flat_map(branches)), "in all");
    text
}

/// What is wrong with the README's numbers: whole percents, so that they change seldom.
pub(crate) fn compare_readme(files: &[File], readme: &Path, write: bool) -> Option<String> {
    const BEGIN: &str = "<!-- begin coverage -->\n";
    const END: &str = "<!-- end coverage -->";
    let whole = |share: Share| share.permille() / 10;
    let expected = format!(
        "They reach {} % of the lines of `vhost-core` and {} % of its branches.\n",
        whole(Share::of(files.iter().flat_map(lines))),
        whole(Share::of(files.iter().flat_map(branches))),
    );
    let text = fs::read_to_string(readme).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("the README has no {BEGIN}"));
    let (found, after) = rest.split_once(END).unwrap_or_else(|| panic!("the README has no {END}"));
    if found == expected {
        return None;
    }
    if write {
        fs::write(readme, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return None;
    }
    Some(format!("the README should say: {expected}"))
}
