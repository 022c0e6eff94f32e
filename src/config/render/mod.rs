//! Diagnostics as text for people, and for the tools that read them.

mod github;
mod json;
mod sarif;
mod terminal;

use std::fmt;

use super::diagnostics::Diagnostics;

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people: each with its line and a caret.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Commands of GitHub's workflows, which show them beside the lines of a pull request.
    Github,
    /// SARIF 2.1.0, for code scanners.
    Sarif,
}

/// Writes all diagnostics of a file. Ends with a new line where it is not empty. Colours are for `Text` alone.
pub fn render(diagnostics: &Diagnostics, format: Format, colours: bool) -> String {
    match format {
        Format::Text => terminal::render(diagnostics, colours),
        Format::Json => json::render(diagnostics),
        Format::Github => github::render(diagnostics),
        Format::Sarif => sarif::render(diagnostics),
    }
}

/// As [`Format::Text`], without colours.
impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&render(self, Format::Text, false))
    }
}

impl std::error::Error for Diagnostics {}
