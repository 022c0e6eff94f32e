//! The table: which columns fit, how wide they are, and the rows.

use ratatui::style::{Modifier, Style};

use super::super::history::MINUTE;
use super::super::table::{Column, Row, Tone};
use super::super::view::View;
use super::{Page, bar, fitted};

/// Between columns.
const GAP: usize = 2;
/// The curve of a row takes what is left over, from this width on.
const CURVE: usize = 12;
/// Texts wider than this are cut.
const WIDEST: usize = 60;

impl Page<'_> {
    pub(super) fn table(&mut self, view: &mut View, rows: &[Row]) {
        let columns = view.tab.columns();
        let room = usize::from(self.area.width.saturating_sub(2));
        let widths = fit(columns, rows, room, view.sort().column);
        view.visible = widths.iter().map(|(column, _)| *column).collect();
        let used: usize = widths.iter().map(|(_, width)| width + GAP).sum();
        let curve = room.saturating_sub(used).min(MINUTE);
        let curve = if curve >= CURVE { curve } else { 0 };
        self.heads(view, &widths, curve);
        let first = self.row;
        view.page = usize::from(self.area.bottom().saturating_sub(first + 1)).max(1);
        view.scroll = view.scroll.min(rows.len().saturating_sub(view.page));
        for (row, at) in rows.iter().skip(view.scroll).take(view.page).zip(first..) {
            self.cells(row, at, columns, &widths, curve);
        }
        if rows.is_empty() {
            let (soft, text) =
                (self.style(Tone::Soft), if view.filter.is_empty() { "none yet" } else { "nothing like this" });
            self.text(1, first, text, soft);
        }
        let below = rows.len().saturating_sub(view.scroll + view.page);
        if below > 0 || view.scroll > 0 {
            let soft = self.style(Tone::Soft);
            let text = format!("{}–{} of {}", view.scroll + 1, rows.len() - below, rows.len());
            self.text_before(self.area.width - 1, first - 2, &text, soft);
        }
    }

    fn heads(&mut self, view: &View, widths: &[(usize, usize)], curve: usize) {
        let (row, soft, sort) = (self.row, self.style(Tone::Soft), view.sort());
        let mut column = 1;
        for (index, width) in widths {
            let head = &view.tab.columns()[*index];
            let (title, style) = if *index == sort.column {
                let mark = if sort.descending { "▼" } else { "▲" };
                (format!("{}{mark}", head.title), Style::new().add_modifier(Modifier::BOLD))
            } else {
                (head.title.to_owned(), soft)
            };
            self.cell(column, row, *width, head.right, &title, style);
            column += width + GAP;
        }
        if curve > 0 {
            self.cell(column, row, curve, true, "LAST MINUTE", soft);
        }
        self.row += 1;
    }

    fn cells(&mut self, row: &Row, at: u16, columns: &[Column], widths: &[(usize, usize)], curve: usize) {
        let mut column = 1;
        for (index, width) in widths {
            let cell = &row.cells[*index];
            self.cell(column, at, *width, columns[*index].right, &cell.text, self.style(cell.tone));
            column += width + GAP;
        }
        let most = row.curve.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
        let from = row.curve.len().saturating_sub(curve);
        let shown = &row.curve[from..];
        let start = column + curve.saturating_sub(shown.len());
        for ((rate, errors), column) in shown.iter().zip(start..) {
            self.text(u16::try_from(column).unwrap_or(u16::MAX), at, bar(*rate, most, 1, 0), self.bar(*errors));
        }
    }

    fn cell(&mut self, column: usize, row: u16, width: usize, right: bool, text: &str, style: Style) {
        let text = fitted(text, width);
        let text = if right { format!("{text:>width$}") } else { text };
        self.text(u16::try_from(column).unwrap_or(u16::MAX), row, &text, style);
    }
}

/// The columns that there is room for, with their widths. That by which rows are ordered always stays.
fn fit(columns: &[Column], rows: &[Row], room: usize, sorted: usize) -> Vec<(usize, usize)> {
    let natural = |index: usize, column: &Column| {
        let cells = rows.iter().map(|row| row.cells.get(index).map_or(0, |cell| cell.text.chars().count()));
        // With the mark of the sort, so that nothing moves when it comes.
        cells.max().unwrap_or(0).max(column.title.chars().count() + 1).min(WIDEST)
    };
    let mut chosen: Vec<(usize, usize)> =
        columns.iter().enumerate().map(|(index, column)| (index, natural(index, column))).collect();
    let least =
        |(index, width): &(usize, usize)| columns[*index].least.max(columns[*index].title.len() + 1).min(*width);
    let needed =
        |chosen: &[(usize, usize)]| chosen.iter().map(|one| least(one) + GAP).sum::<usize>().saturating_sub(GAP);
    while needed(&chosen) > room {
        let rank = |(index, _): &(usize, usize)| if *index == sorted { 0 } else { columns[*index].rank };
        let Some(at) = (0..chosen.len()).filter(|at| rank(&chosen[*at]) > 0).max_by_key(|at| rank(&chosen[*at])) else {
            break;
        };
        chosen.remove(at);
    }
    let mut over =
        (chosen.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)).saturating_sub(room);
    // The widest gives way first, until what is needed fits.
    while over > 0 {
        let Some(widest) = chosen.iter_mut().filter(|one| one.1 > least(one)).max_by_key(|one| one.1) else { break };
        widest.1 -= 1;
        over -= 1;
    }
    chosen
}
