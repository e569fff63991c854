//! A mistake: which text of which file becomes what, and which tests are to notice.

use std::fs;
use std::path::{Path, PathBuf};

const LIST: &str = include_str!("list.txt");

/// One mistake.
#[derive(Debug, Default)]
pub(crate) struct Mistake {
    pub(crate) what: String,
    /// Relative to the repository.
    pub(crate) file: String,
    /// The test program, and which of its tests.
    pub(crate) program: String,
    pub(crate) filter: String,
    right: Vec<&'static str>,
    wrong: Vec<&'static str>,
}

/// All of them, in the order of the list.
pub(crate) fn all() -> Vec<Mistake> {
    let blocks = LIST.split("\n\n").map(|block| block.lines().filter(|line| !line.starts_with('#')));
    blocks.map(parse).filter(|mistake| !mistake.what.is_empty()).collect()
}

fn parse(lines: impl Iterator<Item = &'static str>) -> Mistake {
    let mut mistake = Mistake::default();
    for line in lines {
        let (key, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        match key {
            "= " => rest.clone_into(&mut mistake.what),
            "@ " => {
                let words = Vec::from_iter(rest.split(' '));
                let [file, program, filter] = words[..] else { panic!("not FILE PROGRAM FILTER: {line}") };
                [&mut mistake.file, &mut mistake.program, &mut mistake.filter]
                    .into_iter()
                    .zip([file, program, filter])
                    .for_each(|(field, word)| word.clone_into(field));
            }
            "- " => mistake.right.push(rest),
            "+ " => mistake.wrong.push(rest),
            _ => panic!("a line of the list begins with '= ', '@ ', '- ' or '+ ', not: {line}"),
        }
    }
    mistake
}

impl Mistake {
    /// The file with the mistake in it, if there is exactly one place for it.
    pub(crate) fn applied(&self) -> Result<String, String> {
        let path = repository().join(&self.file);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (right, wrong) = (self.right.join("\n"), self.wrong.join("\n"));
        match text.matches(&right).count() {
            1 if !right.is_empty() && right != wrong => Ok(text.replace(&right, &wrong)),
            count => Err(format!("{}: {count} places in {} for\n{right}", self.what, self.file)),
        }
    }
}

/// The folder that holds everything.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
