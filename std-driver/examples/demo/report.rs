//! What the front-end process tells the one that watches, and how that shows it.

use std::io::{IsTerminal, Write};

/// A line from the front-end process.
pub(crate) enum Note {
    /// Half of the disk was written.
    HalfWritten,
    /// So much of a part is done.
    Progress {
        /// What is being done.
        part: String,
        /// How much of it.
        percent: u8,
    },
    /// Something to show.
    Line(String),
}

impl Note {
    pub(crate) fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.splitn(3, '\t').collect();
        match *words {
            ["half"] => Self::HalfWritten,
            ["progress", percent, part] => {
                Self::Progress { part: part.to_owned(), percent: percent.parse().unwrap_or_default() }
            }
            _ => Self::Line(line.to_owned()),
        }
    }

    /// Tells it. A closed pipe means that nobody listens any more, which is not this side's trouble.
    pub(crate) fn tell(&self) {
        let mut out = std::io::stdout().lock();
        let _ = match self {
            Self::HalfWritten => writeln!(out, "half"),
            Self::Progress { part, percent } => writeln!(out, "progress\t{percent}\t{part}"),
            Self::Line(line) => writeln!(out, "{line}"),
        };
    }
}

/// Lines, and on a terminal a line of progress below them.
pub(crate) struct Screen {
    is_terminal: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal() }
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.print(&format!("{line}\n"));
    }

    pub(crate) fn progress(&mut self, part: &str, percent: u8) {
        if self.is_terminal {
            let done = usize::from(percent.min(100)) * 40 / 100;
            self.print(&format!("{part:<12} [{}{}] {percent:>3} %", "#".repeat(done), ".".repeat(40 - done)));
        }
    }

    /// In place of the line of progress. If nobody reads it any more, the checks go on all the same.
    fn print(&self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "{clear}{text}").and_then(|()| out.flush());
    }
}
