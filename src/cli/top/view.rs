//! What somebody looks at, and what their keys do to it.

use std::rc::Rc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::History;
use super::table::{Sort, Tab};

/// Letters of a filter.
const FILTER: usize = 60;

/// What is shown, and how.
#[derive(Debug)]
pub(super) struct View {
    pub(super) tab: Tab,
    /// Of each tab.
    sorts: [Sort; 3],
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    /// What is shown while the rest goes on.
    pub(super) frozen: Option<Rc<History>>,
    pub(super) help: bool,
    /// Rows that are above the first one shown.
    pub(super) scroll: usize,
    /// Rows that fit, and columns that do, as they were drawn last.
    pub(super) page: usize,
    pub(super) visible: Vec<usize>,
}

/// What a key means beyond the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Stay,
    Quit,
}

impl View {
    pub(super) fn new(filter: &str) -> Self {
        View {
            tab: Tab::Routes,
            sorts: Tab::ALL.map(Tab::sort),
            filter: filter.to_owned(),
            typing: false,
            frozen: None,
            help: false,
            scroll: 0,
            page: 1,
            visible: Vec::new(),
        }
    }

    pub(super) fn sort(&self) -> Sort {
        self.sorts[self.tab as usize]
    }

    /// A key was pressed while `latest` was known.
    pub(super) fn key(&mut self, key: KeyEvent, latest: &History) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Then::Quit } else { Then::Stay };
        }
        if self.typing {
            self.type_filter(key.code);
            return Then::Stay;
        }
        if std::mem::take(&mut self.help) && key.code != KeyCode::Char('q') {
            return Then::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('p' | ' ') => {
                self.frozen = if self.frozen.is_some() { None } else { Some(Rc::new(latest.clone())) };
            }
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char('1') => self.show(Tab::Routes),
            KeyCode::Char('2') => self.show(Tab::Upstreams),
            KeyCode::Char('3') => self.show(Tab::Endpoints),
            KeyCode::Char('s') | KeyCode::Right => self.sort_by(1),
            KeyCode::Char('S') | KeyCode::Left => self.sort_by(-1),
            KeyCode::Char('r') => {
                let sort = &mut self.sorts[self.tab as usize];
                sort.descending = !sort.descending;
            }
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(self.page),
            KeyCode::PageDown => self.scroll += self.page,
            KeyCode::Home | KeyCode::Char('g') => self.scroll = 0,
            // Drawing brings it back to what there is.
            KeyCode::End | KeyCode::Char('G') => self.scroll = usize::MAX / 2,
            _ => {}
        }
        Then::Stay
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(char) if self.filter.chars().count() < FILTER => self.filter.push(char),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            _ => {}
        }
        self.scroll = 0;
    }

    fn turn(&mut self, by: usize) {
        self.show(Tab::ALL[(self.tab as usize + by) % Tab::ALL.len()]);
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.scroll = 0;
    }

    /// The next or the previous of the columns that are there to see.
    fn sort_by(&mut self, step: isize) {
        let Some(count) = isize::try_from(self.visible.len()).ok().filter(|count| *count > 0) else { return };
        let at = self.visible.iter().position(|column| *column == self.sort().column).unwrap_or(0);
        let next = (isize::try_from(at).unwrap_or(0) + step).rem_euclid(count);
        let column = self.visible[usize::try_from(next).unwrap_or(0)];
        let numbers = self.tab.columns().get(column).is_some_and(|column| column.right);
        self.sorts[self.tab as usize] = Sort { column, descending: numbers };
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::sample;
    use super::*;

    fn press(view: &mut View, keys: &str) -> Then {
        let history = History::default();
        let codes = keys.chars().map(|key| match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '<' => KeyCode::Left,
            '!' => KeyCode::Esc,
            key => KeyCode::Char(key),
        });
        codes.map(|code| view.key(code.into(), &history)).last().unwrap()
    }

    #[test]
    fn keys_choose_what_is_shown() {
        let mut view = View::new("");
        press(&mut view, "\t");
        assert_eq!(view.tab, Tab::Upstreams);
        press(&mut view, "3");
        assert_eq!(view.tab, Tab::Endpoints);
        press(&mut view, "\t/payq");
        assert_eq!((view.tab, view.filter.as_str(), view.typing), (Tab::Routes, "payq", true));
        press(&mut view, "\n");
        assert_eq!(press(&mut view, "?"), Then::Stay);
        assert!(view.help);
        press(&mut view, "x");
        assert!(!view.help, "any key closes it");
        press(&mut view, "!");
        assert_eq!(view.filter, "");
        assert_eq!(press(&mut view, "q"), Then::Quit);
    }

    #[test]
    fn the_sort_goes_through_the_columns_that_are_there() {
        let mut view = View::new("");
        view.visible = vec![0, 3, 4];
        let column = |view: &View| (view.sort().column, view.sort().descending);
        press(&mut view, "s");
        assert_eq!(column(&view), (4, true));
        press(&mut view, "s");
        assert_eq!(column(&view), (0, false), "names from A on");
        press(&mut view, "<");
        press(&mut view, "r");
        assert_eq!(column(&view), (4, false));
        press(&mut view, "2");
        assert_eq!(view.sort(), Tab::Upstreams.sort(), "each tab has its own");
    }

    #[test]
    fn a_pause_keeps_what_was_there() {
        let (mut view, mut latest) = (View::new(""), History::default());
        latest.add(sample(1));
        view.key(KeyCode::Char('p').into(), &latest);
        latest.add(sample(2));
        assert_eq!(view.frozen.as_ref().unwrap().last.as_ref().unwrap().time, 1_001.0);
        view.key(KeyCode::Char(' ').into(), &latest);
        assert!(view.frozen.is_none());
    }
}
