//! A comparison as people read it.

use std::fmt;

use super::{Change, Diff, Effect, Field, Kind, Part};

/// Fields of one thing in the summary's long form; the rest is counted.
const LONGEST_VALUE: usize = 60;

impl fmt::Display for Diff {
    /// A line for each thing and each field, then what stays. Ends with a new line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing changes");
        }
        for change in &self.changes {
            change.fmt(f)?;
        }
        let things = if self.unchanged == 1 {
            "thing stays as it is"
        } else {
            "listeners, routes and upstreams stay as they are"
        };
        if self.unchanged > 0 {
            writeln!(f, "\n{} {things}", self.unchanged)?;
        }
        let restart = self.needs_restart();
        if !restart.is_empty() {
            writeln!(
                f,
                "a running proxy takes over everything but {}, which it reads when it starts",
                restart.join(", ")
            )?;
        }
        Ok(())
    }
}

impl Diff {
    /// The same without what stays: at most `most` lines, of which the last may say how much more there is.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, change) in self.changes.iter().enumerate() {
            lines.extend(change.to_string().lines().map(|line| line.trim_end().to_owned()));
            if lines.len() >= most && (lines.len() > most || at + 1 < self.changes.len()) {
                lines.truncate(most.saturating_sub(1));
                lines.push("… and more".to_owned());
                break;
            }
        }
        lines
    }

    /// In a few words: `1 route added, 2 upstreams changed`.
    pub fn summary(&self) -> String {
        let mut words = Vec::new();
        for part in [Part::Process, Part::Listener, Part::Route, Part::Upstream] {
            for (kind, what) in [(Kind::Added, "added"), (Kind::Removed, "removed"), (Kind::Changed, "changed")] {
                let count = self.changes.iter().filter(|change| change.part == part && change.kind == kind).count();
                match (count, part) {
                    (0, _) => {}
                    (_, Part::Process) => words.push("settings of the process changed".to_owned()),
                    (1, _) => words.push(format!("1 {} {what}", part.as_str())),
                    (_, _) => words.push(format!("{count} {}s {what}", part.as_str())),
                }
            }
        }
        if words.is_empty() { "nothing changed".to_owned() } else { words.join(", ") }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed => '~',
        };
        let head = match self.part {
            Part::Process => format!("{sign} process"),
            part => format!("{sign} {} {}", part.as_str(), self.name),
        };
        let connections = |f: &mut fmt::Formatter<'_>| match self.connections {
            Some(1) => write!(f, " (1 connection)"),
            Some(count) => write!(f, " ({count} connections)"),
            None => Ok(()),
        };
        match self.kind {
            Kind::Removed => {
                write!(f, "{head:<44} {}", self.effect.as_str())?;
                connections(f)?;
                writeln!(f)
            }
            Kind::Added => writeln!(f, "{head}"),
            Kind::Changed => {
                write!(f, "{head}")?;
                connections(f)?;
                writeln!(f)?;
                self.fields.iter().try_for_each(|field| field.fmt(f))
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("{}: {} → {}", self.key, short(old), short(new)),
            (None, Some(new)) => format!("+ {}: {}", self.key, short(new)),
            (Some(old), None) => format!("- {}: {}", self.key, short(old)),
            (None, None) => self.key.clone(),
        };
        match self.effect {
            Effect::InPlace => writeln!(f, "    {line}"),
            effect => writeln!(f, "    {line:<40} {}", effect.as_str()),
        }
    }
}

fn short(value: &str) -> String {
    if value.chars().count() <= LONGEST_VALUE {
        return value.to_owned();
    }
    value.chars().take(LONGEST_VALUE - 1).chain(['…']).collect()
}
