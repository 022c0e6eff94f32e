//! What the keys do and what the figures mean, over everything else.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::Page;

const LINES: &[(&str, &str)] = &[
    ("q, Ctrl-C", "quit"),
    ("Tab, 1 2 3", "routes, upstreams, endpoints"),
    ("/", "show only rows with this text; Esc shows all"),
    ("s S, ← →", "order by the next or previous column"),
    ("r", "turn the order round"),
    ("p, space", "hold everything still; again: go on"),
    ("↑ ↓ PgUp PgDn", "scroll"),
    ("", ""),
    ("RATE", "a second, over the last 5 s"),
    ("SUCCESS, WHY", "over the last minute, as ERRORS and FAILED"),
    ("P50, P99", "of the last second that had requests"),
    ("LATENCY", "as balancers take it: peaks at once, a failure as 1 s"),
];

pub(super) fn draw(page: &mut Page<'_>) {
    let (head, text) = (15, LINES.iter().map(|(_, what)| what.chars().count()).max().unwrap_or(0));
    let width = u16::try_from(head + text + 4).unwrap_or(u16::MAX).min(page.area.width);
    let height = u16::try_from(LINES.len() + 2).unwrap_or(u16::MAX).min(page.area.height);
    let (left, top) = ((page.area.width - width) / 2, page.area.y + (page.area.height - height) / 2);
    let frame = |left: &str, right: &str| format!("{left}{}{right}", "─".repeat(usize::from(width.saturating_sub(2))));
    page.buffer.set_style(Rect::new(page.area.x + left, top, width, height), Style::reset());
    page.text(left, top, &frame("╭", "╮"), Style::reset());
    for ((key, what), row) in LINES.iter().zip(top + 1..top + height - 1) {
        let line = format!("│ {key:<head$}{what:<text$} │");
        page.text(left, row, &line, Style::reset());
        page.text(left + 2, row, key, Style::reset().add_modifier(Modifier::BOLD));
    }
    page.text(left, top + height - 1, &frame("╰", "╯"), Style::reset());
}
