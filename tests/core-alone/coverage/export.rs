//! What llvm-cov says of each file: the JSON of `llvm-cov export`.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One file and what was reached of it.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    /// The path below `core/src`.
    pub(crate) name: String,
    /// Each line with code and how often it ran.
    pub(crate) lines: BTreeMap<usize, u64>,
    /// Each condition and how often it was true and false.
    pub(crate) branches: BTreeMap<Span, [u64; 2]>,
}

/// Where a condition begins and ends: lines and columns from 1, the end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: (usize, usize),
    pub(crate) end: (usize, usize),
}

/// From its place on, code runs this often, up to the next segment's place.
struct Segment {
    line: usize,
    count: u64,
    has_count: bool,
    begins_region: bool,
    is_gap: bool,
}

/// The files below `folder` in the order of their names.
pub(crate) fn read(export: &Path, folder: &Path) -> Vec<File> {
    let export: Value = serde_json::from_str(&fs::read_to_string(export).unwrap()).unwrap();
    let mut files: Vec<_> =
        array(&export["data"][0]["files"]).iter().filter_map(|file| read_file(file, folder)).collect();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!files.is_empty(), "the export has no file of {}", folder.display());
    files
}

fn read_file(file: &Value, folder: &Path) -> Option<File> {
    let path = PathBuf::from(file["filename"].as_str().unwrap());
    let name = path.strip_prefix(folder).ok()?.to_str().unwrap().to_owned();
    let segments = array(&file["segments"]).iter().map(|segment| Segment {
        line: number(&segment[0]) as usize,
        count: number(&segment[2]),
        has_count: flag(&segment[3]),
        begins_region: flag(&segment[4]),
        is_gap: flag(&segment[5]),
    });
    let mut branches = BTreeMap::<Span, [u64; 2]>::new();
    // A generic function's conditions come once for each of its instances.
    for branch in array(&file["branches"]) {
        let at = |field: usize| number(&branch[field]) as usize;
        let span = Span { start: (at(0), at(1)), end: (at(2), at(3)) };
        let counts = branches.entry(span).or_default();
        counts[0] += number(&branch[4]);
        counts[1] += number(&branch[5]);
    }
    Some(File { lines: lines(&segments.collect::<Vec<_>>()), path, name, branches })
}

/// How often each line ran, as llvm-cov itself counts: as often as the most frequent code on it.
fn lines(segments: &[Segment]) -> BTreeMap<usize, u64> {
    let mut lines = BTreeMap::new();
    // What the line before ended with.
    let mut wrapped: Option<&Segment> = None;
    let mut rest = segments;
    let last = segments.last().map_or(0, |segment| segment.line);
    for line in segments.first().map_or(0, |segment| segment.line)..=last {
        let (here, behind) = rest.split_at(rest.iter().take_while(|segment| segment.line == line).count());
        rest = behind;
        let begins = here.iter().filter(|segment| segment.begins_region && segment.has_count && !segment.is_gap);
        let skipped = here.first().is_some_and(|segment| segment.begins_region && !segment.has_count);
        let wrapped_count = wrapped.filter(|segment| segment.has_count).map(|segment| segment.count);
        let most = begins.map(|segment| segment.count).max();
        if let (false, Some(count)) = (skipped, most.max(wrapped_count)) {
            lines.insert(line, count);
        }
        wrapped = here.last().or(wrapped);
    }
    lines
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("expected an array, found {value}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("expected a number, found {value}"))
}

fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| panic!("expected true or false, found {value}"))
}
