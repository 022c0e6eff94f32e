//! The view as cells of a terminal.

mod grid;
mod help;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use tokio::time::Instant;

use super::event::{Event, Times};
use super::history::{History, Recent};
use super::link::{Link, Said};
use super::table::{Tab, Tone, choose, success_tone};
use super::view::View;
use super::words::{grouped, millis, percent, rate};

/// Eighths of a cell, from the bottom.
const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// Everything that is drawn.
pub(super) struct Scene<'s> {
    pub(super) latest: &'s History,
    pub(super) link: &'s Link,
    pub(super) now: Instant,
    /// The admin's address.
    pub(super) address: &'s str,
    pub(super) colours: bool,
}

/// Draws `view` over the whole of `buffer`, and tells it what was to see.
pub(super) fn draw(scene: &Scene<'_>, view: &mut View, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut page = Page { buffer, area, colours: scene.colours, row: area.y };
    if area.width < 24 || area.height < 8 {
        page.text(0, area.y, "too small", Style::new());
        return;
    }
    let frozen = view.frozen.clone();
    let history = frozen.as_deref().unwrap_or(scene.latest);
    page.title(scene, view, history.last.as_ref());
    let Some(event) = &history.last else {
        page.text(1, area.y + 2, &waiting(scene), Style::new());
        page.footer(view);
        return;
    };
    page.totals(event, &history.total);
    page.curve(&history.total);
    page.notice(scene, event);
    page.tabs(view, event);
    let rows = choose(view.tab.rows(history), &view.filter, view.sort());
    page.table(view, &rows);
    page.footer(view);
    if view.help {
        help::draw(&mut page);
    }
}

fn waiting(scene: &Scene<'_>) -> String {
    match scene.link.says(scene.now) {
        Said::Nothing => format!("waiting for the first numbers of {}…", scene.address),
        Said::Good(text) | Said::Bad(text) => text,
    }
}

/// What is drawn on, from top to bottom.
struct Page<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
    colours: bool,
    /// The next one.
    row: u16,
}

impl Page<'_> {
    /// Writes at a column of the page, and returns the column behind it.
    fn text(&mut self, column: u16, row: u16, text: &str, style: Style) -> u16 {
        if column >= self.area.width || row >= self.area.bottom() {
            return column;
        }
        let most = usize::from(self.area.width - column);
        let (end, _) = self.buffer.set_stringn(self.area.x + column, row, text, most, style);
        end - self.area.x
    }

    /// Writes so that it ends before `end`.
    fn text_before(&mut self, end: u16, row: u16, text: &str, style: Style) {
        let width = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
        self.text(end.saturating_sub(width), row, text, style);
    }

    fn style(&self, tone: Tone) -> Style {
        let coloured = |color: Color| if self.colours { Style::new().fg(color) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Soft => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => coloured(Color::Green),
            Tone::Warn => coloured(Color::Yellow),
            Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    fn title(&mut self, scene: &Scene<'_>, view: &View, event: Option<&Event>) {
        let (row, bold, soft) = (self.row, Style::new().add_modifier(Modifier::BOLD), self.style(Tone::Soft));
        let service = event.map(|event| event.service.as_str()).filter(|service| !service.is_empty());
        let mut column = self.text(1, row, "outrigger", bold);
        if let Some(service) = service {
            column = self.text(column + 1, row, service, bold);
        }
        column = self.text(column + 1, row, scene.address, soft);
        let (mark, word, tone) = match event {
            _ if view.frozen.is_some() => ("‖", "paused".to_owned(), Tone::Warn),
            None => ("○", "connecting".to_owned(), Tone::Warn),
            Some(_) if !scene.link.is_live(scene.now) => ("●", "no connection".to_owned(), Tone::Bad),
            Some(event) if !event.ready => ("●", event.phase.clone(), Tone::Bad),
            Some(event) if !event.warnings.is_empty() => ("●", "ready, with warnings".to_owned(), Tone::Warn),
            Some(_) => ("●", "ready".to_owned(), Tone::Good),
        };
        let style = self.style(tone);
        column = self.text(column + 3, row, &format!("{mark} {word}"), style);
        if let Some(event) = event {
            let workers = if event.workers == 1 { "worker" } else { "workers" };
            let long =
                format!("generation {}   {} {workers}   version {}", event.generation, event.workers, event.version);
            let short = format!("generation {}", event.generation);
            let room = usize::from(self.area.width.saturating_sub(column + 3));
            if let Some(facts) = [long, short].iter().find(|facts| facts.chars().count() < room) {
                self.text_before(self.area.width - 1, row, facts, soft);
            }
        }
        self.row += 1;
    }

    fn totals(&mut self, event: &Event, total: &Recent) {
        let success = total.success();
        let times = total.times;
        let at = |of: fn(&Times) -> f64| millis(times.as_ref().map(of));
        let figures = [
            (rate(total.rate()), "req/s", Tone::Plain),
            (percent(success), "ok", success_tone(success)),
            (at(|times| times.p50), "p50", Tone::Plain),
            (at(|times| times.p90), "p90", Tone::Plain),
            (at(|times| times.p99), "p99", Tone::Plain),
            (grouped(event.in_flight), "in flight", Tone::Plain),
            (grouped(event.connections), "connections", Tone::Plain),
        ];
        let (row, soft, mut column) = (self.row, self.style(Tone::Soft), 1);
        for (value, what, tone) in figures {
            // Whole or not at all.
            let width = value.chars().count() + 1 + what.len();
            if usize::from(column) + width > usize::from(self.area.width) {
                break;
            }
            let style = self.style(tone).add_modifier(Modifier::BOLD);
            column = self.text(column, row, &value, style);
            column = self.text(column + 1, row, what, soft) + 3;
        }
        self.row += 1;
    }

    /// The rate over time, the latest at the right; red where there were errors.
    fn curve(&mut self, total: &Recent) {
        let height: u16 = match self.area.height {
            ..16 => return,
            16..32 => 2,
            _ => 5,
        };
        let width = self.area.width.saturating_sub(2);
        let rates: Vec<(f64, bool)> = total.rates(usize::from(width)).collect();
        let most = rates.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
        let (top, right) = (self.row, self.area.width - 1);
        for ((rate, errors), back) in rates.iter().rev().zip(1_u16..) {
            let style = self.bar(*errors);
            for level in 0..height {
                self.text(right - back, top + height - 1 - level, bar(*rate, most, height, level), style);
            }
        }
        if most > 0.0 && usize::from(width) > rates.len() + 12 {
            let soft = self.style(Tone::Soft);
            self.text(1, top, &format!("most {}/s", super::words::rate(Some(most))), soft);
        }
        self.row += height;
    }

    fn bar(&self, errors: bool) -> Style {
        match (self.colours, errors) {
            (true, true) => Style::new().fg(Color::Red),
            (true, false) => Style::new().fg(Color::Cyan),
            (false, true) => Style::new().add_modifier(Modifier::BOLD),
            (false, false) => Style::new(),
        }
    }

    /// What is to be known before everything else; an empty row where there is nothing.
    fn notice(&mut self, scene: &Scene<'_>, event: &Event) {
        let (text, tone) = match (scene.link.says(scene.now), &event.warnings[..]) {
            (Said::Bad(text), _) => (text, Tone::Bad),
            (Said::Good(text), _) => (text, Tone::Good),
            (Said::Nothing, []) => (String::new(), Tone::Plain),
            (Said::Nothing, [warning]) => (warning.clone(), Tone::Warn),
            (Said::Nothing, [warning, rest @ ..]) => (format!("{warning} (and {} more)", rest.len()), Tone::Warn),
        };
        let (row, style) = (self.row, self.style(tone));
        self.text(1, row, &fitted(&text, usize::from(self.area.width.saturating_sub(2))), style);
        self.row += 1;
    }

    fn tabs(&mut self, view: &View, event: &Event) {
        let (row, mut column) = (self.row, 1);
        for tab in Tab::ALL {
            let style = if tab == view.tab { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            column = self.text(column, row, &format!(" {} {} ", tab.title(), tab.count(event)), style) + 1;
        }
        if view.typing || !view.filter.is_empty() {
            let (mark, style) = if view.typing {
                ("▏", Style::new().add_modifier(Modifier::BOLD))
            } else {
                ("", self.style(Tone::Warn))
            };
            self.text(column + 1, row, &format!("/{}{mark}", view.filter), style);
        }
        self.row += 1;
    }

    fn footer(&mut self, view: &View) {
        let keys: &[(&str, &str)] = if view.typing {
            &[("enter", "keep"), ("esc", "show all")]
        } else {
            &[
                ("q", "quit"),
                ("tab", "view"),
                ("/", "filter"),
                ("s", "sort"),
                ("r", "reverse"),
                ("p", if view.frozen.is_some() { "go on" } else { "pause" }),
                ("↑↓", "scroll"),
                ("?", "help"),
            ]
        };
        let (row, soft, mut column) = (self.area.bottom() - 1, self.style(Tone::Soft), 1);
        for (key, what) in keys {
            column = self.text(column, row, key, Style::new().add_modifier(Modifier::BOLD));
            column = self.text(column + 1, row, what, soft) + 2;
        }
    }
}

/// One cell of a bar: `level` counts from the bottom.
fn bar(rate: f64, most: f64, height: u16, level: u16) -> &'static str {
    let share = if most > 0.0 { rate / most } else { 0.0 };
    // Whatever is more than nothing is to be seen.
    let least = if rate > 0.0 { 1.0 } else { 0.0 };
    let eighths = (share * f64::from(height) * 8.0).round().max(least) as usize;
    let full = usize::from(level) * 8;
    BARS.get(eighths.saturating_sub(full).min(8)).copied().unwrap_or(" ")
}

/// At most so wide, with an ellipsis where something is missing.
fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    use super::super::event::tests::sample;
    use super::*;

    fn on(tab: Tab) -> View {
        let mut view = View::new("");
        view.tab = tab;
        view
    }

    /// What a terminal of this size shows.
    fn lines(width: u16, height: u16, seconds: u64, view: &mut View) -> Vec<String> {
        let (mut history, mut link, now) = (History::default(), Link::default(), Instant::now());
        for second in 0..seconds {
            history.add(sample(second));
            link.hears(now, false);
        }
        let scene = Scene { latest: &history, link: &link, now, address: "127.0.0.1:9901", colours: true };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(&scene, view, frame.buffer_mut())).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol().to_owned()).collect::<String>();
        (0..height).map(|at| row(at).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_small_terminal_shows_what_matters() {
        let lines = lines(80, 24, 4, &mut View::new(""));
        assert_eq!(lines[0], " outrigger orders 127.0.0.1:9901   ● ready                         generation 7");
        assert_eq!(lines[1], " 120 req/s   83.3 % ok   1.25 ms p50   4.00 ms p90   12.5 ms p99   4 in flight");
        assert!(lines[3].ends_with("███") && lines[2].contains("most 120/s"), "{lines:#?}");
        assert_eq!(lines[5], "  Routes 2   Upstreams 2   Endpoints 3");
        assert_eq!(lines[6], " ROUTE     UPSTREAM   RATE/s▼   SUCCESS      P50      P99  WHY");
        assert_eq!(lines[7], " payments  payments       100     100 %  1.25 ms  12.5 ms");
        assert_eq!(lines[8], " orders    orders        20.0     0.0 %  1.25 ms  12.5 ms  connect failure");
        assert_eq!(lines[23], " q quit  tab view  / filter  s sort  r reverse  p pause  ↑↓ scroll  ? help");
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        for (tab, titles) in Tab::ALL.into_iter().zip(["LAST MINUTE", "PROTOCOL", "ZONE"]) {
            let mut view = on(tab);
            let lines = lines(200, 60, 4, &mut view);
            assert!(lines.iter().any(|line| line.contains(titles)), "{lines:#?}");
            assert_eq!(view.visible.len(), tab.columns().len(), "{tab:?}");
        }
    }

    #[test]
    fn how_long_an_endpoint_is_out_is_never_cut_off() {
        for width in 60..200 {
            let lines = lines(width, 20, 4, &mut on(Tab::Endpoints));
            assert!(lines.iter().any(|line| line.contains("ejected 12 s")), "{width}: {lines:#?}");
        }
    }

    #[test]
    fn how_many_endpoints_are_up_is_never_cut_off() {
        for width in 60..200 {
            let lines = lines(width, 20, 4, &mut on(Tab::Upstreams));
            assert!(lines.iter().any(|line| line.contains("1 of 2")), "{width}: {lines:#?}");
        }
    }

    #[test]
    fn columns_give_way_and_never_that_of_the_sort() {
        let mut view = View::new("");
        for width in 24..200 {
            lines(width, 10, 2, &mut view);
            assert!(view.visible.contains(&view.sort().column) && view.visible.contains(&0), "{width}");
        }
        view.visible = vec![3, 10];
        view.key(KeyCode::Char('s').into(), &History::default());
        lines(60, 10, 2, &mut view);
        assert!(view.visible.contains(&10), "the column of the sort stays: {:?}", view.visible);
    }

    #[test]
    fn whatever_the_size_nothing_breaks() {
        for width in 1..90 {
            for height in 1..30 {
                let mut view = View::new("o");
                (view.help, view.typing) = (true, true);
                lines(width, height, 3, &mut view);
            }
        }
    }

    #[test]
    fn scrolling_ends_where_the_rows_do() {
        let mut view = on(Tab::Endpoints);
        view.scroll = 100;
        let lines = lines(80, 9, 3, &mut view);
        assert_eq!((view.page, view.scroll), (3, 0), "{lines:#?}");
        let mut view = on(Tab::Endpoints);
        view.scroll = 100;
        let lines = self::lines(80, 8, 3, &mut view);
        assert_eq!((view.page, view.scroll), (2, 1), "{lines:#?}");
        assert!(lines.iter().any(|line| line.ends_with("2–3 of 3")), "{lines:#?}");
    }

    #[test]
    fn a_proxy_that_is_gone_is_told_of() {
        let (mut history, mut link, now) = (History::default(), Link::default(), Instant::now());
        history.add(sample(1));
        link.hears(now, false);
        link.loses(now, "nobody answers at 127.0.0.1:9901".to_owned());
        let scene = Scene {
            latest: &history,
            link: &link,
            now: now + Duration::from_secs(3),
            address: "127.0.0.1:9901",
            colours: false,
        };
        let mut buffer = Buffer::empty(Rect::new(0, 0, 100, 20));
        draw(&scene, &mut View::new(""), &mut buffer);
        let text: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
        assert!(text.contains("● no connection"), "{text}");
        assert!(text.contains("connection lost 3 s ago, trying again: nobody answers at 127.0.0.1:9901"), "{text}");
        assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset), "no colours were asked for");
    }
}
