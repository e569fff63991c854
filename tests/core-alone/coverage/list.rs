//! The list of what is not reached: groups, each with its reason, of places that do not move when lines do.

use core::fmt;

/// Something that was not reached, found again by its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) function: String,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// No line of it.
    Function,
    Line,
    NeverTrue,
    NeverFalse,
}

/// Places that are not reached for one reason.
struct Group {
    reason: String,
    places: Vec<Place>,
}

pub(crate) struct List {
    /// The lines in front of the first group.
    introduction: Vec<String>,
    groups: Vec<Group>,
}

/// What places have until somebody knows better.
const NO_REASON: &str = "No reason is known.";

impl Kind {
    const ALL: [(Self, &str); 4] = [
        (Self::Function, "function"),
        (Self::Line, "line"),
        (Self::NeverTrue, "never true"),
        (Self::NeverFalse, "never false"),
    ];
}

impl List {
    pub(crate) fn parse(text: &str) -> Self {
        let mut list = Self { introduction: Vec::new(), groups: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                list.introduction.push(line.to_owned());
            } else if let Some(place) = line.strip_prefix("    ") {
                let group = list.groups.last_mut().unwrap_or_else(|| panic!("a place before any reason: {line}"));
                group.places.push(Place::parse(place).unwrap_or_else(|| panic!("not a place: {line}")));
            } else {
                list.groups.push(Group { reason: line.to_owned(), places: Vec::new() });
            }
        }
        list
    }

    /// What is wrong: places that are in one of the two only.
    pub(crate) fn compare(&self, found: &[Place]) -> Vec<String> {
        let mut new = found.to_vec();
        let mut complaints = Vec::new();
        for place in self.groups.iter().flat_map(|group| &group.places) {
            match new.iter().position(|other| other == place) {
                Some(at) => drop(new.remove(at)),
                None => complaints.push(format!("reached, or not there, but in the list: {place}")),
            }
        }
        complaints.extend(new.iter().map(|place| format!("not reached, and not in the list: {place}")));
        complaints.extend(self.without_reason());
        complaints
    }

    pub(crate) fn without_reason(&self) -> Vec<String> {
        let groups = self.groups.iter().filter(|group| group.reason == NO_REASON);
        groups.flat_map(|group| &group.places).map(|place| format!("in the list without a reason: {place}")).collect()
    }

    /// Keeps the reasons of what is still not reached.
    pub(crate) fn update(&mut self, mut found: Vec<Place>) {
        for group in &mut self.groups {
            group.places.retain(|place| match found.iter().position(|other| other == place) {
                Some(at) => {
                    found.remove(at);
                    true
                }
                None => false,
            });
        }
        if !found.is_empty() {
            match self.groups.iter_mut().find(|group| group.reason == NO_REASON) {
                Some(group) => group.places.extend(found),
                None => self.groups.push(Group { reason: NO_REASON.to_owned(), places: found }),
            }
        }
        self.groups.retain(|group| !group.places.is_empty());
        for group in &mut self.groups {
            group.places.sort();
        }
    }
}

impl Place {
    fn parse(line: &str) -> Option<Self> {
        let (file, line) = line.split_once(" | ")?;
        let (function, line) = line.split_once(" | ")?;
        let (word, text) = line.split_once(" | ")?;
        let (kind, _) = Kind::ALL.into_iter().find(|(_, known)| *known == word)?;
        Some(Self { file: file.to_owned(), function: function.to_owned(), kind, text: text.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = Kind::ALL.into_iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, word)| word);
        write!(f, "{} | {} | {kind} | {}", self.file, self.function, self.text)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.introduction {
            writeln!(f, "{line}")?;
        }
        for group in &self.groups {
            writeln!(f, "\n{}", group.reason)?;
            for place in &group.places {
                writeln!(f, "    {place}")?;
            }
        }
        Ok(())
    }
}
