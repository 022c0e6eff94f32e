//! The text of a file by lines, as YAML counts them.

/// A stretch of one line. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// Column after the last character; never before `column`, and on the same line.
    pub(crate) end: usize,
}

/// A text and where its lines begin.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    text: &'a str,
    /// Byte offsets of the lines' first characters.
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for (index, byte) in bytes.iter().enumerate() {
            // A CR alone ends a line too (YAML 1.2.2, section 5.4).
            if *byte == b'\n' || (*byte == b'\r' && bytes.get(index + 1) != Some(&b'\n')) {
                starts.push(index + 1);
            }
        }
        Source { text, starts }
    }

    /// The text of a line without its end; empty where there is no such line.
    pub(crate) fn line(&self, line: usize) -> &'a str {
        let Some(start) = line.checked_sub(1).and_then(|index| self.starts.get(index)) else { return "" };
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        self.text[*start..end].trim_end_matches(['\n', '\r'])
    }

    /// The place of a byte offset, one character wide.
    pub(crate) fn place_of(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        Place { line, column, end: column + 1 }
    }

    pub(crate) fn line_count(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_lf_crlf_or_cr() {
        let source = Source::new("a\nb\r\nc\rd");
        assert_eq!([1, 2, 3, 4, 5].map(|line| source.line(line)), ["a", "b", "c", "d", ""]);
    }

    #[test]
    fn places_count_characters() {
        let source = Source::new("a\nüb");
        assert_eq!(source.place_of(4), Place { line: 2, column: 2, end: 3 });
        assert_eq!(source.place_of(0), Place { line: 1, column: 1, end: 2 });
    }
}
