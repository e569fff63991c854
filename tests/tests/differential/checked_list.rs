//! The list of differences is itself checked: what is missing in it and what is too much fails.

use crate::difference::{Accepted, Compared, check, matches};

#[test]
fn a_star_stands_for_anything_and_nothing_else_does() {
    for (pattern, text, expected) in [
        ("a/b", "a/b", true),
        ("a/b", "a/bc", false),
        ("*", "", true),
        ("a*", "abc", true),
        ("a*", "ba", false),
        ("*c", "abc", true),
        ("*b", "abc", false),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abde", false),
        ("ab*ba", "aba", false),
        ("*a*", "bab", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} and {text}");
    }
}

#[test]
#[should_panic = "1 cases"]
fn a_difference_without_an_entry_fails() {
    check("nobody", &[compared("case", "goes on", "closes")], &[]);
}

#[test]
#[should_panic = "an entry for 2 cases explains 1"]
fn an_entry_whose_case_no_longer_differs_fails() {
    let all = [compared("case 1", "goes on", "closes"), compared("case 2", "goes on", "goes on")];
    check("nobody", &all, &[entry(&["case *"], 2)]);
}

#[test]
#[should_panic = "no case is another"]
fn an_entry_whose_case_does_not_exist_fails() {
    check("nobody", &[compared("case", "goes on", "goes on")], &[entry(&["another"], 1)]);
}

#[test]
#[should_panic = "an entry for 1 cases explains 0"]
fn an_entry_fails_whose_cases_another_one_explains() {
    check("nobody", &[compared("case", "goes on", "closes")], &[entry(&["case"], 1), entry(&["*"], 1)]);
}

#[test]
#[should_panic = "ours:   is silent"]
fn another_outcome_than_that_of_the_entry_fails() {
    check("nobody", &[compared("case", "is silent", "closes")], &[entry(&["case"], 0)]);
}

#[test]
fn a_list_that_says_every_difference_passes() {
    let all = [compared("case 1", "goes on", "closes"), compared("case 2", "goes on", "goes on")];
    let table = check("nobody", &all, &[entry(&["case 1"], 1)]);
    assert_eq!(table, "nobody: 2 cases, 1 the same, 1 accepted differences\n     1  none");
}

#[test]
#[should_panic = "case 2 explains none of its 1 cases"]
fn a_pattern_whose_cases_no_longer_differ_fails() {
    let all = [compared("case 1", "goes on", "closes"), compared("case 2", "goes on", "goes on")];
    check("nobody", &all, &[entry(&["case 1", "case 2"], 1)]);
}

fn compared(case: &str, ours: &str, theirs: &str) -> Compared {
    Compared { case: case.to_owned(), ours: ours.to_owned(), theirs: theirs.to_owned() }
}

fn entry(cases: &'static [&'static str], count: usize) -> Accepted {
    Accepted { cases, ours: &["goes on"], theirs: &["closes"], count, reason: "none" }
}
