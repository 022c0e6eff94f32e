//! The three tables: what stands in their columns, how rows are ordered and which are shown.

use std::cmp::Ordering;

use super::event::{Breaker, Endpoint, Event, Upstream};
use super::history::{History, Recent};
use super::words::{grouped, millis, nothing, percent, rate, seconds, spaced};

/// Which table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Routes,
    Upstreams,
    Endpoints,
}

/// How good or bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Of no interest.
    Soft,
    Good,
    Warn,
    Bad,
}

/// A column. Numbers stand to the right and begin with the largest where rows are ordered by them.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) right: bool,
    /// The higher, the sooner it gives way where the terminal is narrow; 0 never does.
    pub(super) rank: u8,
    /// Narrower it gets only to `least`, with an ellipsis.
    pub(super) least: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
    /// What it is ordered by, where that is not the text.
    order: Option<f64>,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// Rates of the last minute, and whether there were errors.
    pub(super) curve: Vec<(f64, bool)>,
}

/// By which column, and in which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) descending: bool,
}

const fn name(title: &'static str, rank: u8, least: usize) -> Column {
    Column { title, right: false, rank, least }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column { title, right: true, rank, least: usize::MAX }
}

const ROUTES: &[Column] = &[
    name("ROUTE", 0, 14),
    name("LISTENER", 5, 8),
    name("UPSTREAM", 2, 12),
    number("RATE/s", 0),
    number("SUCCESS", 0),
    number("P50", 0),
    number("P90", 6),
    number("P99", 0),
    number("ERRORS", 4),
    name("WHY", 1, 16),
    number("EVER", 7),
];

const UPSTREAMS: &[Column] = &[
    name("UPSTREAM", 0, 14),
    number("RATE/s", 0),
    number("SUCCESS", 0),
    number("P50", 3),
    number("P99", 0),
    // `2 of 3` without its end says nothing.
    name("UP", 0, usize::MAX),
    name("BREAKER", 1, 9),
    name("WHY", 2, 16),
    number("IN FLIGHT", 4),
    number("WAITING", 8),
    number("CONNECTIONS", 5),
    number("RETRIES LEFT", 9),
    name("DISCOVERY", 6, 12),
    name("PROTOCOL", 10, 5),
];

const ENDPOINTS: &[Column] = &[
    name("ENDPOINT", 0, 15),
    name("UPSTREAM", 1, 10),
    name("STATE", 0, 13),
    number("RATE/s", 0),
    number("FAILED", 2),
    number("LATENCY", 0),
    number("IN FLIGHT", 4),
    name("HEALTH", 5, 9),
    name("BREAKER", 6, 9),
    number("EJECTIONS", 7),
    number("WEIGHT", 8),
    name("ZONE", 9, 6),
    number("EVER", 10),
    name("WHY", 3, 11),
];

impl Tab {
    pub(super) const ALL: [Tab; 3] = [Tab::Routes, Tab::Upstreams, Tab::Endpoints];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Tab::Routes => "Routes",
            Tab::Upstreams => "Upstreams",
            Tab::Endpoints => "Endpoints",
        }
    }

    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Tab::Routes => ROUTES,
            Tab::Upstreams => UPSTREAMS,
            Tab::Endpoints => ENDPOINTS,
        }
    }

    /// The busiest first; of endpoints, those that are not well.
    pub(super) const fn sort(self) -> Sort {
        let column = match self {
            Tab::Routes => 3,
            Tab::Upstreams => 1,
            Tab::Endpoints => 2,
        };
        Sort { column, descending: true }
    }

    /// Everything that the table could show, in no order.
    pub(super) fn rows(self, history: &History) -> Vec<Row> {
        let Some(event) = &history.last else { return Vec::new() };
        match self {
            Tab::Routes => routes(event, history),
            Tab::Upstreams => event.upstreams.iter().map(|of| upstream(of, history.upstream(&of.name))).collect(),
            Tab::Endpoints => {
                let endpoints = event.upstreams.iter().flat_map(|of| of.endpoints.iter().map(move |one| (of, one)));
                endpoints.map(|(of, one)| endpoint(of, one, history.endpoint(&of.name, &one.address))).collect()
            }
        }
    }

    pub(super) fn count(self, event: &Event) -> usize {
        match self {
            Tab::Routes => event.routes.len(),
            Tab::Upstreams => event.upstreams.len(),
            Tab::Endpoints => event.upstreams.iter().map(|upstream| upstream.endpoints.len()).sum(),
        }
    }
}

/// Rows with `filter` in some cell, whatever its case, in this order; rows that are equal in it by name.
pub(super) fn choose(mut rows: Vec<Row>, filter: &str, sort: Sort) -> Vec<Row> {
    let filter = filter.to_lowercase();
    rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter)));
    rows.sort_by(|one, other| {
        let order = compare(one.cells.get(sort.column), other.cells.get(sort.column));
        let order = if sort.descending { order.reverse() } else { order };
        order.then_with(|| compare(one.cells.first(), other.cells.first()))
    });
    rows
}

fn compare(one: Option<&Cell>, other: Option<&Cell>) -> Ordering {
    let (Some(one), Some(other)) = (one, other) else { return Ordering::Equal };
    match (one.order, other.order) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => one.text.cmp(&other.text),
    }
}

impl Cell {
    fn name(text: impl Into<String>) -> Self {
        Cell { text: text.into(), tone: Tone::Plain, order: None }
    }

    /// What is not known comes after everything that is, the largest being first.
    fn number(text: String, order: Option<f64>) -> Self {
        let tone = if order.is_none_or(|order| order == 0.0) { Tone::Soft } else { Tone::Plain };
        Cell { text, tone, order: Some(order.unwrap_or(-1.0)) }
    }

    fn count(count: u64) -> Self {
        Cell::number(grouped(count), Some(count as f64))
    }

    fn word(text: impl Into<String>, tone: Tone, order: f64) -> Self {
        Cell { text: text.into(), tone, order: Some(order) }
    }

    fn toned(self, tone: Tone) -> Self {
        Cell { tone, ..self }
    }
}

fn routes(event: &Event, history: &History) -> Vec<Row> {
    let rows = event.routes.iter().map(|of| {
        let recent = history.route(&of.listener, &of.route, &of.upstream);
        let times = recent.and_then(|recent| recent.times);
        // What was refused before any route was looked for has none, and what no route took neither: the reason tells.
        let named = |text: &str| match text {
            "" => Cell::name("–").toned(Tone::Soft),
            text => Cell::name(text),
        };
        let cells = vec![
            named(&of.route),
            Cell::name(&of.listener),
            named(&of.upstream),
            rate_cell(recent),
            success_cell(recent),
            time_cell(times.map(|times| times.p50)),
            time_cell(times.map(|times| times.p90)),
            time_cell(times.map(|times| times.p99)),
            errors_cell(recent),
            why_cell(recent.and_then(Recent::reason)),
            Cell::count(of.flow.ever),
        ];
        Row { cells, curve: curve(recent) }
    });
    rows.collect()
}

fn upstream(of: &Upstream, recent: Option<&Recent>) -> Row {
    let times = recent.and_then(|recent| recent.times);
    let (all, up) = (of.endpoints.len(), of.endpoints.iter().filter(|endpoint| is_used(endpoint)).count());
    let up_tone = match up {
        0 => Tone::Bad,
        up if up < all => Tone::Warn,
        _ => Tone::Good,
    };
    let why = of.discovery_error.as_ref().map(|error| format!("discovery: {error}"));
    let discovery = match (&of.discovery_error, of.discovery_age) {
        (Some(_), age) => {
            let age = age.map_or_else(|| "never answered".to_owned(), |age| format!("failing, {} old", seconds(age)));
            Cell::word(age, Tone::Bad, f64::MAX)
        }
        (None, Some(age)) => Cell::word(format!("{} old", seconds(age)), Tone::Plain, age),
        (None, None) => Cell::word("–", Tone::Soft, -1.0),
    };
    let cells = vec![
        Cell::name(&of.name),
        rate_cell(recent),
        success_cell(recent),
        time_cell(times.map(|times| times.p50)),
        time_cell(times.map(|times| times.p99)),
        Cell::word(format!("{up} of {all}"), up_tone, all.saturating_sub(up) as f64),
        breaker_cell(of.breaker.as_ref()),
        why_cell(why.or_else(|| recent.and_then(Recent::reason))),
        limit_cell(of.requests.used, of.requests.max),
        Cell::count(of.waiting).toned(if of.waiting > 0 { Tone::Warn } else { Tone::Soft }),
        Cell::number(format!("{} ({} idle)", of.connections, of.idle), Some(of.connections as f64)),
        Cell::number(rate(Some(of.retry_budget)), Some(of.retry_budget)),
        discovery,
        Cell::name(&of.protocol).toned(Tone::Soft),
    ];
    Row { cells, curve: curve(recent) }
}

fn endpoint(of: &Upstream, one: &Endpoint, recent: Option<&Recent>) -> Row {
    let state = match (one.state.as_str(), one.ejected_for) {
        ("down", _) => Cell::word("down", Tone::Bad, 3.0),
        ("ejected", Some(left)) => Cell::word(format!("ejected {}", seconds(left)), Tone::Bad, 2.0),
        ("ejected", None) => Cell::word("ejected", Tone::Bad, 2.0),
        ("ready", _) => Cell::word("ready", Tone::Good, 0.0),
        (word, _) => Cell::word(word, Tone::Warn, 1.0),
    };
    let health = match one.health.as_str() {
        "up" => Cell::word("up", Tone::Good, 0.0),
        "down" => Cell::word("down", Tone::Bad, 1.0),
        word => Cell::word(word, Tone::Soft, -1.0),
    };
    let cells = vec![
        Cell::name(&one.address),
        Cell::name(&of.name),
        state,
        rate_cell(recent),
        errors_cell(recent),
        time_cell(one.latency),
        Cell::count(one.in_flight),
        health,
        breaker_cell(of.breaker.as_ref()),
        Cell::count(one.ejections),
        Cell::count(one.weight),
        Cell::name(&one.zone),
        Cell::count(one.requests),
        why_cell(one.health_error.clone().or_else(|| one.ejected_why.clone())),
    ];
    Row { cells, curve: curve(recent) }
}

/// It gets requests.
fn is_used(endpoint: &Endpoint) -> bool {
    !matches!(endpoint.state.as_str(), "down" | "ejected")
}

fn curve(recent: Option<&Recent>) -> Vec<(f64, bool)> {
    recent.into_iter().flat_map(|recent| recent.rates(super::history::MINUTE)).collect()
}

fn rate_cell(recent: Option<&Recent>) -> Cell {
    let value = recent.and_then(Recent::rate);
    Cell::number(rate(value), value)
}

pub(super) fn success_tone(share: Option<f64>) -> Tone {
    match share {
        None => Tone::Soft,
        Some(1.0) => Tone::Good,
        Some(share) if share >= 0.99 => Tone::Warn,
        Some(_) => Tone::Bad,
    }
}

fn success_cell(recent: Option<&Recent>) -> Cell {
    let share = recent.and_then(Recent::success);
    Cell::word(percent(share), success_tone(share), share.map_or(-1.0, |share| 1.0 - share))
}

fn errors_cell(recent: Option<&Recent>) -> Cell {
    let errors = recent.map_or(0, Recent::errors);
    Cell::count(errors).toned(if errors > 0 { Tone::Bad } else { Tone::Soft })
}

fn time_cell(value: Option<f64>) -> Cell {
    Cell::number(millis(value), value)
}

fn why_cell(why: Option<String>) -> Cell {
    Cell::name(why.map(|why| spaced(&why)).unwrap_or_default()).toned(Tone::Bad)
}

fn limit_cell(used: u64, max: u64) -> Cell {
    let tone = match used {
        0 => Tone::Soft,
        used if used >= max => Tone::Bad,
        _ => Tone::Plain,
    };
    Cell::number(format!("{used} of {}", grouped(max)), Some(used as f64)).toned(tone)
}

fn breaker_cell(breaker: Option<&Breaker>) -> Cell {
    let Some(Breaker { state, seconds_left }) = breaker else { return Cell::word(nothing(), Tone::Soft, -1.0) };
    let left = seconds_left.map(|left| format!(" {}", seconds(left))).unwrap_or_default();
    match state.as_str() {
        "closed" => Cell::word("closed", Tone::Good, 0.0),
        "open" => Cell::word(format!("open{left}"), Tone::Bad, 2.0),
        word => Cell::word(spaced(word), Tone::Warn, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::sample;
    use super::*;

    fn history() -> History {
        let mut history = History::default();
        for second in 0..3 {
            history.add(sample(second));
        }
        history
    }

    fn texts(rows: &[Row], columns: &[usize]) -> Vec<String> {
        rows.iter()
            .map(|row| columns.iter().map(|at| row.cells[*at].text.as_str()).collect::<Vec<_>>().join(" | "))
            .collect()
    }

    #[test]
    fn every_cell_has_its_column() {
        for tab in Tab::ALL {
            for row in tab.rows(&history()) {
                assert_eq!(row.cells.len(), tab.columns().len(), "{tab:?}");
            }
            assert!(tab.sort().column < tab.columns().len());
            assert_eq!(tab.count(&sample(0)), tab.rows(&history()).len());
        }
    }

    #[test]
    fn who_was_refused_before_routes_is_not_said_to_have_met_none() {
        let mut history = history();
        let mut event = sample(9);
        event.routes.truncate(1);
        event.routes[0].route.clear();
        event.routes[0].upstream.clear();
        history.add(event);
        let row = &Tab::Routes.rows(&history)[0];
        assert_eq!([row.cells[0].text.as_str(), row.cells[2].text.as_str()], ["–", "–"]);
    }

    #[test]
    fn the_busiest_come_first_and_the_sort_can_be_turned() {
        let rows = || Tab::Routes.rows(&history());
        let chosen = choose(rows(), "", Tab::Routes.sort());
        assert_eq!(
            texts(&chosen, &[0, 3, 4, 9]),
            ["payments | 100 | 100 % | ", "orders | 20.0 | 0.0 % | connect failure"]
        );
        let turned = choose(rows(), "", Sort { column: 3, descending: false });
        assert_eq!(texts(&turned, &[0]), ["orders", "payments"]);
        assert_eq!(texts(&choose(rows(), "CONNECT", Tab::Routes.sort()), &[0]), ["orders"]);
    }

    #[test]
    fn what_is_not_well_comes_first_among_endpoints() {
        let rows = choose(Tab::Endpoints.rows(&history()), "", Tab::Endpoints.sort());
        assert_eq!(
            texts(&rows, &[0, 2, 4, 7, 8, 13]),
            [
                "10.0.0.8:8080 | down | 0 | down | – | it answered 503",
                "10.0.0.9:8080 | ejected 12 s | 200 | unchecked | open 5 s | failure ratio",
                "10.0.0.7:8080 | ready | 0 | unchecked | – | ",
            ]
        );
        let upstreams = choose(Tab::Upstreams.rows(&history()), "", Tab::Upstreams.sort());
        assert_eq!(
            texts(&upstreams, &[0, 5, 6, 8]),
            ["payments | 1 of 2 | – | 2 of 1,024", "orders | 0 of 1 | open 5 s | 2 of 1,024"]
        );
    }
}
