//! The process' own numbers, under the names that all of Prometheus' clients use, behind our prefix.
//!
//! Read from `/proc/self` here: the `prometheus` crate's collector would bring a second `rustix`.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::family::{self, Family};

/// Those of the table that come from here.
pub(super) const FAMILIES: [&Family; 7] = [
    &family::PROCESS_CPU_SECONDS,
    &family::PROCESS_RESIDENT_MEMORY,
    &family::PROCESS_VIRTUAL_MEMORY,
    &family::PROCESS_OPEN_FDS,
    &family::PROCESS_MAX_FDS,
    &family::PROCESS_THREADS,
    &family::PROCESS_START_TIME,
];

/// Reads `/proc/self` at each scrape. What cannot be read (no `/proc` in the sandbox) is left out.
#[derive(Debug)]
pub(super) struct Process {
    descs: Vec<Desc>,
    /// Seconds since the epoch; does not change, and `/proc/stat` is long.
    boot: Option<f64>,
}

impl Process {
    pub(super) fn new() -> prometheus::Result<Self> {
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
        Ok(Process { descs: FAMILIES.iter().map(|family| family.desc()).collect::<Result<_, _>>()?, boot })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
        // Reading the directory opens one descriptor more.
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as f64;
        let values = [
            stat.as_ref().map(|stat| stat.cpu_ticks / ticks),
            stat.as_ref().map(|stat| stat.resident_pages * page),
            stat.as_ref().map(|stat| stat.virtual_bytes),
            descriptors,
            limit.map(|limit| limit as f64),
            stat.as_ref().map(|stat| stat.threads),
            stat.as_ref().zip(self.boot).map(|(stat, boot)| boot + stat.start_ticks / ticks),
        ];
        let with_value = FAMILIES.iter().zip(values).filter_map(|(family, value)| Some((family, value?)));
        with_value.map(|(family, value)| family.of(vec![family.sample(&[], value)])).collect()
    }
}

/// Some fields of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the command in brackets, and may itself hold brackets and spaces.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 3 0 5000 8192000 250 0";
        let stat = Stat {
            cpu_ticks: 42.0,
            threads: 3.0,
            start_ticks: 5000.0,
            virtual_bytes: 8_192_000.0,
            resident_pages: 250.0,
        };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_is_believable() {
        let families = Process::new().unwrap().collect();
        assert_eq!(families.len(), FAMILIES.len());
        let gauge = |wanted: &Family| {
            let family = families.iter().find(|family| family.name() == wanted.name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(gauge(&family::PROCESS_RESIDENT_MEMORY) > 1e6);
        assert!(gauge(&family::PROCESS_VIRTUAL_MEMORY) >= gauge(&family::PROCESS_RESIDENT_MEMORY));
        assert!(gauge(&family::PROCESS_OPEN_FDS) >= 3.0);
        assert!(gauge(&family::PROCESS_THREADS) >= 1.0);
        let start = gauge(&family::PROCESS_START_TIME);
        #[expect(clippy::disallowed_methods, reason = "the test compares with the day on which it runs")]
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!(start < now + 2.0 && start > now - 86_400.0, "{start} is today, before {now}");
    }
}
