//! Changes of a text at places known from its nodes; all else stays byte for byte.
//!
//! What is new goes before the first entry of its mapping or list (the second, where the first shares its line with a
//! dash), on whole lines. So what follows it is known, and it can be taken out again without a trace.

use super::value::{Value, block_entry};
use super::yaml::{Kind, Node};

/// Edits of one text, each at bytes of the text as it was.
#[derive(Debug)]
pub(super) struct Edits<'t> {
    text: &'t str,
    newline: &'static str,
    edits: Vec<(usize, usize, String)>,
}

impl<'t> Edits<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let newline = if text.split('\n').next().is_some_and(|line| line.ends_with('\r')) { "\r\n" } else { "\n" };
        Edits { text, newline, edits: Vec::new() }
    }

    /// The end of a line, as this text has it.
    pub(super) fn newline(&self) -> &'static str {
        self.newline
    }

    /// The text with every edit made. Those at the same place keep their order.
    pub(super) fn apply(mut self) -> String {
        self.edits.sort_by_key(|(start, end, _)| (*start, *end));
        let mut result =
            String::with_capacity(self.text.len() + self.edits.iter().map(|edit| edit.2.len()).sum::<usize>());
        let mut from = 0;
        for (start, end, new) in &self.edits {
            // What lies in a piece that has gone already goes with it.
            if *start < from {
                continue;
            }
            result.push_str(&self.text[from..*start]);
            // The last of a flow collection takes the comma before it along, whoever else has gone between.
            if new.is_empty() && self.text[*end..].trim_start().starts_with(['}', ']']) {
                let kept = result.trim_end().strip_suffix(',').map_or(result.len(), str::len);
                result.truncate(kept);
            }
            result.push_str(new);
            from = *end;
        }
        result.push_str(&self.text[from..]);
        result
    }

    pub(super) fn replace(&mut self, start: usize, end: usize, new: impl Into<String>) {
        self.edits.push((start, end, new.into()));
    }

    /// An entry for a mapping that has entries.
    pub(super) fn add_entry(&mut self, mapping: &Node, key: &str, value: &Value) {
        let Kind::Mapping { entries, flow } = &mapping.kind else { return };
        let Some((first, first_value)) = entries.first() else { return };
        if *flow {
            let after = self.after_bracket(mapping, first, '{');
            let key = serde_json::Value::from(key);
            return self.replace(after, after, format!("{key}: {}, ", value.to_flow()));
        }
        let own_line = self.indentation(first.start).is_some();
        let (before, floor) = match entries.get(1) {
            Some((second, _)) if !own_line => (second, first_value.end),
            _ => (first, 0),
        };
        let at = self.above_comments(before.start, floor);
        self.lines_at(at, before.column, &block_entry(key, value));
    }

    /// A first item for a list that has items. False where its dash is nowhere to be seen.
    pub(super) fn add_item(&mut self, list: &Node, value: &Value) -> bool {
        let Kind::Sequence { items, flow } = &list.kind else { return false };
        let Some(first) = items.first() else { return false };
        if *flow {
            let after = self.after_bracket(list, first, '[');
            self.replace(after, after, format!("{}, ", value.to_flow()));
            return true;
        }
        let Some(dash) = self.dash_of(first) else { return false };
        let Some(column) = self.indentation(dash) else { return false };
        let at = self.above_comments(dash, 0);
        self.lines_at(at, column, &Value::List(vec![value.clone()]).to_block());
        true
    }

    /// Something else for a scalar or an empty collection, as flow style writes it.
    pub(super) fn put_in_place(&mut self, node: &Node, new: &str) {
        if node.start < node.end {
            return self.replace(node.start, node.end, new);
        }
        // Nothing is written: it would come after the colon.
        let colon = self.text[node.start..].find(':').map_or(node.start, |offset| node.start + offset + 1);
        self.replace(colon, colon, format!(" {new}"));
    }

    /// Takes out what stands at a key, or back to its colon where nothing stood there.
    pub(super) fn put_back(&mut self, key: &Node, node: &Node, old: &str) {
        if !old.is_empty() {
            return self.replace(node.start, node.end, old);
        }
        let colon = self.text[key.end..].find(':').map_or(key.end, |offset| key.end + offset + 1);
        self.replace(colon, node.end, "");
    }

    /// Takes an entry of a mapping out, with what `add_entry` put around it.
    pub(super) fn remove_entry(&mut self, mapping: &Node, key: &Node, value: &Node) {
        let flow = matches!(mapping.kind, Kind::Mapping { flow: true, .. });
        self.remove(flow, key.start, key.column, value.end.max(key.end + 1));
    }

    /// Takes an item of a list out, with what `add_item` put around it.
    pub(super) fn remove_item(&mut self, list: &Node, item: &Node) {
        if let Kind::Sequence { flow: false, .. } = list.kind
            && let Some(dash) = self.dash_of(item)
        {
            let column = self.text[..dash].chars().rev().take_while(|before| *before != '\n').count();
            return self.remove(false, dash, column, item.end);
        }
        self.remove(true, item.start, item.column, item.end);
    }

    fn remove(&mut self, flow: bool, start: usize, column: usize, end: usize) {
        let rest = &self.text[end..];
        if flow {
            let end = match rest.strip_prefix(", ") {
                Some(_) => end + 2,
                // Somebody has written it anew: the comma may be before it, or after it in another way.
                None => rest.trim_start().strip_prefix(',').map_or(end, |after| self.text.len() - after.len()),
            };
            return self.replace(start, end, "");
        }
        if self.indentation(start).is_some() {
            let line_end = rest.find('\n').map_or(self.text.len(), |offset| end + offset + 1);
            return self.replace(self.line_start(start), line_end, "");
        }
        // After a dash: what comes next moves up to it.
        let follows = format!("{}{}", self.newline, " ".repeat(column));
        self.replace(start, if rest.starts_with(&follows) { end + follows.len() } else { end }, "");
    }

    fn lines_at(&mut self, at: usize, column: usize, lines: &[String]) {
        let between = format!("{}{}", self.newline, " ".repeat(column));
        self.replace(at, at, format!("{}{between}", lines.join(&between)));
    }

    /// The place above the comments that stand right above a line and belong to it.
    fn above_comments(&self, start: usize, floor: usize) -> usize {
        let Some(column) = self.indentation(start).filter(|column| *column > 0) else { return start };
        let mut at = start;
        loop {
            let line = self.line_start(at);
            let Some(before) = self.text[..line].strip_suffix('\n') else { return at };
            let above = before.rfind('\n').map_or(0, |offset| offset + 1);
            let text = &self.text[above..line];
            let comment = text.len() - text.trim_start_matches(' ').len() == column && text[column..].starts_with('#');
            if !comment || above < floor {
                return at;
            }
            at = above + column;
        }
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |offset| offset + 1)
    }

    /// Spaces before this place, where nothing else stands before it on its line.
    fn indentation(&self, at: usize) -> Option<usize> {
        let before = &self.text[self.line_start(at)..at];
        before.bytes().all(|byte| byte == b' ').then_some(before.len())
    }

    fn dash_of(&self, item: &Node) -> Option<usize> {
        if self.text[item.start..].starts_with("- ") && self.indentation(item.start).is_some() {
            return Some(item.start);
        }
        let before = self.text[..item.start].trim_end_matches(' ');
        before.ends_with('-').then(|| before.len() - 1)
    }

    fn after_bracket(&self, node: &Node, first: &Node, bracket: char) -> usize {
        self.text[node.start..first.start].find(bracket).map_or(first.start, |offset| node.start + offset + 1)
    }
}
