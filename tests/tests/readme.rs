//! What the README says in tables is what the code says.
//!
//! `VHOST_UPDATE_README=1 cargo test -p vhost-tests --test readme -- --test-threads=1` writes the tables anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use core::fmt::Write;
use std::{fs, path::PathBuf};

use vhost_core::{
    BackendCode, FrontendCode, GpuCode, ProtocolFeatures,
    wire::row::{HandleRule, MessageName, Refusal, ReplyRule, Row},
};

fn readme() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// Compares the text between two markers with `expected`, or replaces it.
fn section(name: &str, expected: &str) {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let text = fs::read_to_string(readme()).unwrap();
    let Some((before, rest)) = text.split_once(&begin) else { panic!("the README has no {begin}") };
    let Some((found, after)) = rest.split_once(&end) else { panic!("the README has no {end}") };
    if std::env::var_os("VHOST_UPDATE_README").is_some() {
        fs::write(readme(), format!("{before}{begin}{expected}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, expected, "the README's {name} differ; see the first lines of this test");
    }
}

fn descriptors(rule: HandleRule) -> &'static str {
    match rule {
        HandleRule::None => "0",
        HandleRule::One => "1",
        HandleRule::Optional => "0 or 1",
        HandleRule::Tolerated => "0 (1 is closed)",
        HandleRule::PerRegion => "1 a region",
        HandleRule::UnlessBit8 => "1 unless bit 8",
        HandleRule::IfShown => "1 if shown",
        HandleRule::WithLogFile => "1 with LOG_SHMFD",
        other => panic!("no words for {other:?}"),
    }
}

fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Close => "closed",
        Refusal::Empty => "empty",
        Refusal::Zeros => "zeros",
        Refusal::ErrorNumber | Refusal::ErrorWithoutDescriptor => "a number",
        Refusal::NegativeNumber => "a negative number",
        Refusal::NoSession => "no session",
        Refusal::GpuError => "an error header",
        other => panic!("no words for {other:?}"),
    }
}

fn reply(row: &Row) -> String {
    match row.reply {
        ReplyRule::Acknowledged => "acknowledged".to_owned(),
        ReplyRule::AcknowledgedWhenFlagged => "acknowledged, always when flagged".to_owned(),
        ReplyRule::Status => "status".to_owned(),
        ReplyRule::Own(refusal) => format!("{:?}; refused: {}", row.reply_payload, refused(refusal)),
        ReplyRule::OwnWhenFlagged(refusal) => {
            format!("when flagged: {:?}; refused: {}", row.reply_payload, refused(refusal))
        }
        ReplyRule::Never => "-".to_owned(),
        ReplyRule::Empty => "empty".to_owned(),
        ReplyRule::LogFile => "with LOG_SHMFD: LogBase".to_owned(),
        ReplyRule::Postcopy => format!("acknowledged; in postcopy {:?}", row.reply_payload),
        other => panic!("no words for {other:?}"),
    }
}

fn table(messages: impl Iterator<Item = MessageName>) -> String {
    let mut text =
        String::from("| id | request | payload (bytes) | descriptors | needs | reply |\n|---|---|---|---|---|---|\n");
    for message in messages {
        let row = message.row().unwrap();
        let gate = row.gate.to_string();
        writeln!(
            text,
            "| {} | {} | {:?} ({}) | {} | {} | {} |",
            message.id,
            message.name().unwrap(),
            row.payload,
            row.payload.size(),
            descriptors(row.handles),
            if gate.is_empty() { "-" } else { &gate },
            reply(row),
        )
        .unwrap();
    }
    text
}

#[test]
fn the_table_of_front_end_requests_is_the_one_in_the_code() {
    section("front-end requests", &table(FrontendCode::ALL.iter().map(|code| code.message())));
}

#[test]
fn the_table_of_back_end_requests_is_the_one_in_the_code() {
    section("back-end requests", &table(BackendCode::ALL.iter().map(|code| code.message())));
}

#[test]
fn the_table_of_gpu_requests_is_the_one_in_the_code() {
    section("gpu requests", &table(GpuCode::ALL.iter().map(|code| code.message())));
}

#[test]
fn the_table_of_protocol_features_is_the_one_in_the_code() {
    let mut text = String::from("| bit | feature | needs |\n|---|---|---|\n");
    for (name, feature) in ProtocolFeatures::KNOWN.iter_names() {
        let needs = ProtocolFeatures::DEPENDENCIES.iter().find(|(one, _)| *one == feature).map(|(_, needs)| *needs);
        let needs: Vec<_> = needs.iter().flat_map(ProtocolFeatures::iter_names).map(|(name, _)| name).collect();
        let needs = if needs.is_empty() { "-".to_owned() } else { needs.join(", ") };
        writeln!(text, "| {} | {name} | {needs} |", feature.bits().trailing_zeros()).unwrap();
    }
    section("protocol features", &text);
}

/// The number stands in one place only; the README must not say another.
#[test]
fn the_readme_names_the_oldest_supported_compiler() {
    let manifest = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    section("compiler", &format!("Rust {version} or later.\n"));
}

/// What stands between backquotes and looks like a path of this repository, or of its folder of tests.
#[test]
fn files_that_the_readme_names_are_there() {
    const FOLDERS: [&str; 9] =
        ["core/", "std-driver/", "kernel-driver/", "tests/", "fuzz/", ".ci/", "server/", "frontend/", "rings/"];
    let text = fs::read_to_string(readme()).unwrap();
    let root = readme().parent().unwrap().to_owned();
    let is_path = |name: &&str| {
        FOLDERS.iter().any(|folder| name.starts_with(folder))
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    };
    let is_there = |name: &&str| root.join(name).exists() || root.join("tests/tests").join(name).exists();
    let named = Vec::from_iter(text.split('`').skip(1).step_by(2).filter(is_path));
    let missing = Vec::from_iter(named.iter().filter(|name| !is_there(name)));
    assert!(named.len() > 20 && missing.is_empty(), "named and not there: {missing:?}");
}

/// Each row of the threat model names files, and behind each of them the tests that show the defence.
#[test]
fn tests_that_the_threat_model_names_are_there() {
    let text = fs::read_to_string(readme()).unwrap();
    let (_, model) = text.split_once("## Threat model").unwrap();
    let rows = model.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let root = readme().parent().unwrap().to_owned();
    let mut shown = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        let (_, proof) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let (tests, fuzz_targets) = proof.split_once("; fuzz target").unwrap_or((proof, ""));
        let mut file = String::new();
        let before = shown;
        for name in tests.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                file = fs::read_to_string(root.join("tests/tests").join(name)).unwrap();
            } else {
                let function = format!("\nfn {name}()");
                let test = file.split_once(&function).and_then(|(above, _)| above.rsplit("\n\n").next());
                assert!(
                    test.is_some_and(|above| above.contains("#[test]")),
                    "no test {name} in the file before it: {row}"
                );
                shown += 1;
            }
        }
        assert!(shown > before, "no test is named: {row}");
        for target in fuzz_targets.split('`').skip(1).step_by(2) {
            assert!(root.join(format!("fuzz/targets/{target}.rs")).is_file(), "no fuzz target {target}: {row}");
        }
    }
    assert!(shown >= 20, "only {shown} tests named");
}
