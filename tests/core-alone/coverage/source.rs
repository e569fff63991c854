//! The text of a file: which function a line belongs to, and what stands there.

use crate::export::{File, Span};
use crate::list::{Kind, Place};
use std::collections::BTreeMap;
use std::fs;

pub(crate) struct Source(Vec<String>);

impl Source {
    pub(crate) fn read(file: &File) -> Self {
        Self(fs::read_to_string(&file.path).unwrap().lines().map(str::to_owned).collect())
    }

    /// What was not reached, in the order of the file: functions as wholes, then lines, then conditions.
    pub(crate) fn unreached(&self, file: &File) -> Vec<Place> {
        let mut functions = BTreeMap::<usize, bool>::new();
        for (&line, &count) in &file.lines {
            *functions.entry(self.function(line)).or_default() |= count > 0;
        }
        let is_reached = |line: usize| functions[&self.function(line)];
        let place = |line, kind, text: String| Place {
            file: file.name.clone(),
            function: self.name(self.function(line)),
            kind,
            text,
        };
        let whole = functions.iter().filter(|(_, reached)| !**reached);
        let whole = whole.map(|(&line, _)| place(line, Kind::Function, self.text(line).to_owned()));
        let lines = file.lines.iter().filter(|(line, count)| **count == 0 && is_reached(**line));
        let lines = lines.map(|(&line, _)| place(line, Kind::Line, self.text(line).to_owned()));
        let conditions = file.branches.iter().filter(|(span, _)| is_reached(span.start.0));
        let conditions = conditions.flat_map(|(span, counts)| {
            let sides = [Kind::NeverTrue, Kind::NeverFalse].into_iter().zip(counts);
            sides.filter(|(_, count)| **count == 0).map(|(kind, _)| place(span.start.0, kind, self.within(*span)))
        });
        whole.chain(lines).chain(conditions).collect()
    }

    fn text(&self, line: usize) -> &str {
        self.0[line - 1].trim()
    }

    fn indentation(&self, line: usize) -> usize {
        self.0[line - 1].len() - self.0[line - 1].trim_start().len()
    }

    /// The line on which the function around `line` begins; `line` itself where there is none.
    fn function(&self, line: usize) -> usize {
        let mut above = (1..=line).rev();
        // The last line of a function stands as far to the left as its first.
        let own = self.indentation(line) + usize::from(self.text(line).starts_with('}'));
        let encloses = |&other: &usize| {
            (other == line || self.indentation(other) < own) && function_name(self.text(other)).is_some()
        };
        above.find(encloses).unwrap_or(line)
    }

    /// A function's name with the type it belongs to.
    fn name(&self, function: usize) -> String {
        let name = function_name(self.text(function)).unwrap_or("outside functions");
        let above = (1..function).rev().filter(|&line| self.indentation(line) < self.indentation(function));
        let mut headers =
            above.filter(|&line| ["impl", "trait ", "pub trait "].iter().any(|word| self.text(line).starts_with(word)));
        match headers.next() {
            Some(line) => format!("{}::{name}", self.type_of(line)),
            None => name.to_owned(),
        }
    }

    /// The type that an `impl` or a `trait` is about.
    fn type_of(&self, header: usize) -> String {
        let lines = self.0[header - 1..].iter();
        let length = lines.clone().take_while(|line| !line.contains('{')).count() + 1;
        let mut text = lines.take(length).map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        // Generics, from the inside out.
        while let Some(end) = text.replace("->", "  ").find('>') {
            let Some(start) = text[..end].rfind('<') else { break };
            text.replace_range(start..=end, "");
        }
        let before_bounds = text.split(" where ").next().unwrap_or_default();
        let name = before_bounds.rsplit(" for ").next().unwrap_or_default();
        let name = ["pub ", "impl", "trait"]
            .iter()
            .fold(name, |name, word| name.trim_start().strip_prefix(word).unwrap_or(name));
        name.trim_matches(|c: char| !c.is_alphanumeric() && c != ']').to_owned()
    }

    fn within(&self, Span { start, end }: Span) -> String {
        let lines = (start.0..=end.0).map(|line| {
            let from = if line == start.0 { start.1 - 1 } else { 0 };
            let to = if line == end.0 { end.1 - 1 } else { usize::MAX };
            self.0[line - 1].chars().take(to).skip(from).collect::<String>().trim().to_owned()
        });
        lines.collect::<Vec<_>>().join(" ")
    }
}

fn function_name(text: &str) -> Option<&str> {
    if text.starts_with("//") {
        return None;
    }
    let (before, name) = text.split_once("fn ")?;
    let is_declaration =
        before.split_whitespace().all(|word| word.starts_with("pub") || ["const", "unsafe"].contains(&word));
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (is_declaration && end > 0).then(|| &name[..end])
}
