//! One look as plain text, for scripts and pipes: everything, in full width.

use std::fmt::Write as _;

use super::event::Event;
use super::history::History;
use super::table::{Tab, choose};
use super::words::{grouped, millis, percent, rate};

/// The whole of it, and the three tables.
pub(super) fn text(history: &History, filter: &str) -> String {
    let Some(event) = &history.last else { return String::new() };
    let mut text = head(event, history);
    for tab in Tab::ALL {
        let rows = choose(tab.rows(history), filter, tab.sort());
        let columns = tab.columns();
        let lines: Vec<Vec<&str>> = std::iter::once(columns.iter().map(|column| column.title).collect())
            .chain(rows.iter().map(|row| row.cells.iter().map(|cell| cell.text.as_str()).collect()))
            .collect();
        let width = |index: usize| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        text.push('\n');
        for line in &lines {
            let cells = line.iter().zip(columns).zip(&widths).map(|((cell, column), width)| {
                if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

fn head(event: &Event, history: &History) -> String {
    let (total, ready) = (&history.total, if event.ready { "ready" } else { &event.phase });
    let service = if event.service.is_empty() { String::new() } else { format!(" {}", event.service) };
    let mut text = format!(
        "outrigger{service} {}: {ready}, generation {}, workers {}\n",
        event.version, event.generation, event.workers
    );
    let times = total.times;
    // A text never fails to be written.
    let _ = writeln!(
        text,
        "{} req/s, {} ok, p50 {}, p90 {}, p99 {}, {} in flight, {} connections",
        rate(total.rate()),
        percent(total.success()),
        millis(times.map(|times| times.p50)),
        millis(times.map(|times| times.p90)),
        millis(times.map(|times| times.p99)),
        grouped(event.in_flight),
        grouped(event.connections),
    );
    if history.since_start {
        text.push_str(
            "nothing ended within the second that was watched: success, times and errors are since the start\n",
        );
    }
    for warning in &event.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::event::Flow;
    use super::super::event::tests::sample;
    use super::*;

    #[test]
    fn everything_is_there_and_in_columns() {
        let mut history = History::default();
        history.add(sample(0));
        history.add(sample(1));
        let text = text(&history, "");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "outrigger orders 0.1.0: ready, generation 7, workers 2");
        assert_eq!(lines[1], "120 req/s, 83.3 % ok, p50 1.25 ms, p90 4.00 ms, p99 12.5 ms, 4 in flight, 9 connections");
        assert_eq!(
            lines[3],
            "ROUTE     LISTENER  UPSTREAM  RATE/s  SUCCESS      P50      P90      P99  ERRORS  WHY              EVER"
        );
        assert_eq!(
            lines[5],
            "orders    outbound  orders      20.0    0.0 %  1.25 ms  4.00 ms  12.5 ms      20  connect failure    40"
        );
        assert_eq!(lines.len(), 3 + 3 + 1 + 3 + 1 + 4);
    }

    #[test]
    fn where_nothing_ended_meanwhile_it_is_about_everything_since_the_start() {
        let (mut history, first, mut quiet) = (History::default(), sample(0), sample(1));
        quiet.total = Flow { ever: quiet.total.ever, ..Flow::default() };
        for route in &mut quiet.routes {
            route.flow = Flow { ever: route.flow.ever, ..Flow::default() };
        }
        history.add(first.clone());
        history.add(quiet);
        history.show_sums(&first);
        let text = text(&history, "");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("0.0 req/s, 83.3 % ok, p50 1.25 ms"), "{text}");
        assert!(lines[2].ends_with("success, times and errors are since the start"), "{text}");
        let orders = lines.iter().find(|line| line.starts_with("orders ")).unwrap();
        assert!(orders.contains("connect failure") && orders.contains("      20  "), "{text}");
    }
}
