//! From what is known to the endpoints, or to what has to be asked first. Pure: the whole of how names, families and
//! SRV targets are judged stands here.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use super::book::{Book, Known};
use crate::dns::question::{Answer, FullName, Kind, Question, Records, Service};

/// What an upstream is looked up by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Every address of one of these names, with this port.
    Addresses { candidates: Vec<FullName>, port: u16 },
    /// The SRV records of one of these names.
    Services { candidates: Vec<FullName> },
}

/// Where a walk has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// These have to be asked.
    Ask(Vec<Question>),
    /// Something that was asked may decide; it pays to wait until then.
    Wait(Instant),
    Done(Verdict),
}

/// What DNS says of an upstream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) finding: Finding,
    /// What could not be had. All else is as good as ever.
    pub(super) failure: Option<String>,
    /// Some of what was found could not be had again.
    pub(super) stale: bool,
    /// All that it rests on.
    pub(super) questions: HashSet<Question>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// At least one; in order, each once.
    Endpoints(Vec<Endpoint>),
    /// DNS has answered, and there is none; why, in words.
    Empty(String),
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
    /// As SRV records have it: the lowest comes first.
    pub(super) priority: u16,
}

/// Goes as far as what is known leads.
pub(super) fn walk(wanted: &Wanted, book: &Book, now: Instant) -> Step {
    let mut walk = Walk {
        book,
        now,
        due: Vec::new(),
        until: None,
        questions: HashSet::new(),
        failure: None,
        stale: false,
        unreachable: false,
    };
    let finding = match wanted {
        Wanted::Addresses { candidates, port } => walk.addresses(candidates, *port),
        Wanted::Services { candidates } => walk.services(candidates),
    };
    match (finding, walk.until) {
        _ if !walk.due.is_empty() => Step::Ask(walk.due),
        (None, Some(until)) => Step::Wait(until),
        (finding, _) => {
            let finding = finding.unwrap_or(Finding::Unknown);
            let Walk { failure, stale, questions, .. } = walk;
            Step::Done(Verdict { finding, failure, stale, questions })
        }
    }
}

struct Walk<'a> {
    book: &'a Book,
    now: Instant,
    due: Vec<Question>,
    until: Option<Instant>,
    questions: HashSet<Question>,
    /// The first.
    failure: Option<String>,
    stale: bool,
    /// Something was named that nobody can be reached at.
    unreachable: bool,
}

/// What is known of one question.
enum Told<'a> {
    Answer(&'a Answer),
    Failed,
}

/// What is known of one name's addresses.
enum Addresses {
    Some(Vec<IpAddr>),
    /// Neither family has any.
    None {
        exists: bool,
    },
    /// None is known, and at least one family failed.
    Unknown,
}

impl<'a> Walk<'a> {
    /// `None` where something has to be asked or awaited first, as everywhere below.
    fn addresses(&mut self, candidates: &[FullName], port: u16) -> Option<Finding> {
        let mut exists = false;
        for name in candidates {
            match self.addresses_of(name)? {
                Addresses::Some(addresses) => {
                    let mut addresses: Vec<_> =
                        addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
                    addresses.sort_unstable();
                    addresses.dedup();
                    let endpoint = |address| Endpoint { address, weight: 1, priority: 0 };
                    return Some(Finding::Endpoints(addresses.into_iter().map(endpoint).collect()));
                }
                // The next name may be somebody else: only an answer leads there.
                Addresses::Unknown => return Some(Finding::Unknown),
                Addresses::None { exists: here } => exists |= here,
            }
        }
        let what = if self.unreachable { "address other than 0.0.0.0 and ::" } else { "address" };
        Some(Finding::Empty(absent(candidates, exists, what)))
    }

    fn services(&mut self, candidates: &[FullName]) -> Option<Finding> {
        let mut exists = false;
        for name in candidates {
            let Told::Answer(answer) = self.told(name, Kind::Srv)? else { return Some(Finding::Unknown) };
            match &answer.records {
                Records::NoName => {}
                Records::Services(services) => return self.instances(name, services),
                Records::NoData | Records::Addresses(_) => exists = true,
            }
        }
        Some(Finding::Empty(absent(candidates, exists, "SRV record")))
    }

    /// The endpoints of all priorities, the lowest first.
    fn instances(&mut self, name: &FullName, services: &[Service]) -> Option<Finding> {
        let mut priorities: BTreeMap<u16, Vec<&Service>> = BTreeMap::new();
        let mut portless = false;
        for service in services.iter().filter(|service| !service.target.is_root()) {
            if service.port == 0 {
                portless = true;
                continue;
            }
            priorities.entry(service.priority).or_default().push(service);
        }
        if priorities.is_empty() {
            return Some(Finding::Empty(if portless {
                format!("the SRV records of {name} have the port 0, where nobody can be reached")
            } else {
                format!("{name} says that there is no such service (SRV with the target `.`)")
            }));
        }
        // All targets are asked at once: a lower priority may be needed at any time.
        let asked: Vec<_> = priorities
            .into_iter()
            .map(|(priority, services)| {
                let known = services.into_iter().map(|service| (service, self.addresses_of(&service.target)));
                (priority, known.collect::<Vec<_>>())
            })
            .collect();
        let (mut endpoints, mut unknown) = (Vec::new(), false);
        for (priority, known) in asked {
            let mut found = Vec::with_capacity(known.len());
            for (service, addresses) in known {
                // Of the backups, those that are still looked for are not waited for: they come when they are found.
                let Some(addresses) = addresses else {
                    if endpoints.is_empty() {
                        return None;
                    }
                    continue;
                };
                match addresses {
                    Addresses::Some(addresses) => found.push((service, addresses)),
                    Addresses::None { .. } => {}
                    Addresses::Unknown => unknown = true,
                }
            }
            endpoints.extend(weigh(&found, priority));
        }
        Some(match (endpoints.is_empty(), unknown) {
            (false, _) => Finding::Endpoints(endpoints),
            (true, true) => Finding::Unknown,
            (true, false) => Finding::Empty(format!("no target of the SRV records of {name} has an address")),
        })
    }

    fn addresses_of(&mut self, name: &FullName) -> Option<Addresses> {
        let [v4, v6] = [self.told(name, Kind::A), self.told(name, Kind::Aaaa)];
        let mut addresses = Vec::new();
        let (mut exists, mut unknown) = (false, false);
        for family in [v4?, v6?] {
            match family {
                Told::Answer(answer) => {
                    exists |= answer.records != Records::NoName;
                    for address in answer.addresses() {
                        // The kernel would connect to this machine; blocking nameservers say it for "nowhere".
                        self.unreachable |= address.is_unspecified();
                        // An SRV answer brings the address of a host along once for each of its instances.
                        if !address.is_unspecified() && !addresses.contains(address) {
                            addresses.push(*address);
                        }
                    }
                }
                Told::Failed => unknown = true,
            }
        }
        Some(match (addresses.is_empty(), unknown) {
            (false, _) => Addresses::Some(addresses),
            (true, true) => Addresses::Unknown,
            (true, false) => Addresses::None { exists },
        })
    }

    fn told(&mut self, name: &FullName, kind: Kind) -> Option<Told<'a>> {
        let question = Question { name: name.clone(), kind };
        let known = self.book.look(&question, self.now);
        let told = match known {
            Known::Due => {
                self.due.push(question);
                return None;
            }
            Known::Awaited(until) => {
                self.until = Some(self.until.map_or(until, |other| other.min(until)));
                self.questions.insert(question);
                return None;
            }
            Known::Answer(answer) => Told::Answer(answer),
            Known::Stale(answer, failure) => {
                self.stale |= !matches!(answer.records, Records::NoName | Records::NoData);
                self.failure.get_or_insert_with(|| format!("{question}: {failure}"));
                Told::Answer(answer)
            }
            Known::Failed(failure) => {
                self.failure.get_or_insert_with(|| match failure {
                    Some(failure) => format!("{question}: {failure}"),
                    None => format!("{question}: no answer yet"),
                });
                Told::Failed
            }
        };
        self.questions.insert(question);
        Some(told)
    }
}

fn absent(candidates: &[FullName], exists: bool, what: &str) -> String {
    let names = candidates.iter().map(FullName::as_str).collect::<Vec<_>>().join(", ");
    match (exists, candidates.len()) {
        (true, 1) => format!("{names} has no {what}"),
        (true, _) => format!("none of {names} has an {what}"),
        (false, 1) => format!("there is no name {names}"),
        (false, _) => format!("none of the names {names} exists"),
    }
}

/// Each record's weight, shared by its target's addresses; twice the same address has both weights. A weight of 0 is the
/// smallest there is, as in RFC 2782: rarely, but not never.
fn weigh(found: &[(&Service, Vec<IpAddr>)], priority: u16) -> Vec<Endpoint> {
    // So that weights can be shared without a rest.
    let most = found.iter().map(|(_, addresses)| addresses.len()).max().unwrap_or(1);
    let scale = (1..=most.min(4)).product::<usize>().max(1);
    let mut weights: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for (service, addresses) in found {
        let whole = u64::from(service.weight.max(1)) * scale as u64;
        let share = u32::try_from((whole / addresses.len() as u64).max(1)).unwrap_or(u32::MAX);
        for address in addresses {
            let weight = weights.entry(SocketAddr::new(*address, service.port)).or_default();
            *weight = weight.saturating_add(share);
        }
    }
    weights.into_iter().map(|(address, weight)| Endpoint { address, weight, priority }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::discovery::dns::book::Terms;
    use crate::dns::question::Failure;

    const TERMS: Terms =
        Terms { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(300), stale: Duration::from_secs(3600) };

    /// `web. A = 10.0.0.1 10.0.0.2`, `web. AAAA = -` (no data), `web. A = x` (no name), `web. A = !` (failed),
    /// `web. A = ?` (asked), `web. SRV = 10 5 8080 a.` (priority, weight, port, target).
    fn book(lines: &[&str], now: Instant) -> Book {
        let mut book = Book::new(TERMS, 1);
        for line in lines {
            let (question, said) = line.split_once(" = ").unwrap();
            let (name, kind) = question.split_once(' ').unwrap();
            let kind = match kind {
                "A" => Kind::A,
                "AAAA" => Kind::Aaaa,
                _ => Kind::Srv,
            };
            let records = match (said, kind) {
                ("?", _) => {
                    book.ask(Question { name: FullName::new(name), kind }, now);
                    continue;
                }
                ("!", _) => Err(Failure("Server Failure".to_owned())),
                ("x", _) => Ok(Records::NoName),
                ("-", _) => Ok(Records::NoData),
                (records, Kind::Srv) => Ok(Records::Services(records.split(", ").map(service).collect())),
                (addresses, _) => {
                    Ok(Records::Addresses(addresses.split(' ').map(|text| text.parse().unwrap()).collect()))
                }
            };
            let outcome =
                records.map(|records| Answer { records, ttl: Some(Duration::from_secs(60)), along: Vec::new() });
            book.learn(Question { name: FullName::new(name), kind }, outcome, now);
        }
        book
    }

    fn service(text: &str) -> Service {
        let fields: Vec<&str> = text.split(' ').collect();
        Service {
            priority: fields[0].parse().unwrap(),
            weight: fields[1].parse().unwrap(),
            port: fields[2].parse().unwrap(),
            target: FullName::new(fields[3]),
        }
    }

    fn names(names: &[&str]) -> Vec<FullName> {
        names.iter().map(|name| FullName::new(name)).collect()
    }

    fn come_to(wanted: &Wanted, lines: &[&str]) -> String {
        let now = Instant::now();
        match walk(wanted, &book(lines, now), now) {
            Step::Ask(questions) => {
                format!("ask {}", questions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Step::Wait(_) => "wait".to_owned(),
            Step::Done(verdict) => {
                let found = match verdict.finding {
                    Finding::Endpoints(endpoints) => {
                        let shown = endpoints.iter().map(|Endpoint { address, weight, priority }| {
                            let weight = if *weight == 1 { String::new() } else { format!("*{weight}") };
                            let priority = if *priority == 0 { String::new() } else { format!("@{priority}") };
                            format!("{address}{weight}{priority}")
                        });
                        shown.collect::<Vec<_>>().join(" ")
                    }
                    Finding::Empty(why) => format!("empty: {why}"),
                    Finding::Unknown => "unknown".to_owned(),
                };
                match verdict.failure {
                    Some(failure) => format!("{found}; {failure}"),
                    None => found,
                }
            }
        }
    }

    #[test]
    fn addresses_are_judged_family_by_family_and_name_by_name() {
        let wanted = Wanted::Addresses { candidates: names(&["web.ns.", "web."]), port: 80 };
        let table: &[(&[&str], &str)] = &[
            (&[], "ask web.ns. A, web.ns. AAAA"),
            (&["web.ns. A = 10.0.0.1"], "ask web.ns. AAAA"),
            (
                &["web.ns. A = 10.0.0.2 10.0.0.1 10.0.0.2", "web.ns. AAAA = fd00::1"],
                "10.0.0.1:80 10.0.0.2:80 [fd00::1]:80",
            ),
            (&["web.ns. A = 10.0.0.1", "web.ns. AAAA = -"], "10.0.0.1:80"),
            // What the kernel takes for this machine is nobody's address.
            (&["web.ns. A = 0.0.0.0 10.0.0.1", "web.ns. AAAA = ::"], "10.0.0.1:80"),
            (
                &["web.ns. A = 0.0.0.0", "web.ns. AAAA = ::", "web. A = x", "web. AAAA = x"],
                "empty: none of web.ns., web. has an address other than 0.0.0.0 and ::",
            ),
            // Half an answer is no empty one, and no reason to wait either.
            (&["web.ns. A = 10.0.0.1", "web.ns. AAAA = !"], "10.0.0.1:80; web.ns. AAAA: Server Failure"),
            (&["web.ns. A = -", "web.ns. AAAA = !"], "unknown; web.ns. AAAA: Server Failure"),
            (&["web.ns. A = x", "web.ns. AAAA = !"], "unknown; web.ns. AAAA: Server Failure"),
            (&["web.ns. A = !", "web.ns. AAAA = !"], "unknown; web.ns. A: Server Failure"),
            // Some servers deny the whole name where only one type is missing.
            (&["web.ns. A = 10.0.0.1", "web.ns. AAAA = x"], "10.0.0.1:80"),
            // Only answers lead along the search list; a failure does not.
            (&["web.ns. A = x", "web.ns. AAAA = x"], "ask web. A, web. AAAA"),
            (&["web.ns. A = x", "web.ns. AAAA = x", "web. A = 10.0.0.9", "web. AAAA = -"], "10.0.0.9:80"),
            (
                &["web.ns. A = !", "web.ns. AAAA = x", "web. A = 10.0.0.9", "web. AAAA = -"],
                "unknown; web.ns. A: Server Failure",
            ),
            (
                &["web.ns. A = x", "web.ns. AAAA = x", "web. A = x", "web. AAAA = x"],
                "empty: none of the names web.ns., web. exists",
            ),
            (
                &["web.ns. A = x", "web.ns. AAAA = x", "web. A = -", "web. AAAA = -"],
                "empty: none of web.ns., web. has an address",
            ),
        ];
        for (lines, expected) in table {
            assert_eq!(come_to(&wanted, lines), *expected, "{lines:?}");
        }
        let wanted = Wanted::Addresses { candidates: names(&["web."]), port: 80 };
        assert_eq!(come_to(&wanted, &["web. A = x", "web. AAAA = x"]), "empty: there is no name web.");
        assert_eq!(come_to(&wanted, &["web. A = -", "web. AAAA = -"]), "empty: web. has no address");
    }

    #[test]
    fn instances_are_those_of_all_priorities_the_lowest_first() {
        let wanted = Wanted::Services { candidates: names(&["_http._tcp.web."]) };
        let srv = "_http._tcp.web. SRV = 10 3 8080 a., 10 1 8081 b., 20 9 8082 c.";
        let table: &[(&[&str], &str)] = &[
            (&[], "ask _http._tcp.web. SRV"),
            (&[srv], "ask a. A, a. AAAA, b. A, b. AAAA, c. A, c. AAAA"),
            (&[srv, "a. A = 10.0.0.1", "a. AAAA = -", "c. A = x", "c. AAAA = x"], "ask b. A, b. AAAA"),
            (
                &[
                    srv,
                    "a. A = 10.0.0.1",
                    "a. AAAA = -",
                    "b. A = 10.0.0.2",
                    "b. AAAA = -",
                    "c. A = 10.0.0.3",
                    "c. AAAA = -",
                ],
                "10.0.0.1:8080*3@10 10.0.0.2:8081@10 10.0.0.3:8082*9@20",
            ),
            // A backup is not waited for; those that come first are.
            (
                &[
                    srv,
                    "a. A = 10.0.0.1",
                    "a. AAAA = -",
                    "b. A = 10.0.0.2",
                    "b. AAAA = -",
                    "c. A = 10.0.0.3",
                    "c. AAAA = ?",
                ],
                "10.0.0.1:8080*3@10 10.0.0.2:8081@10",
            ),
            (
                &[srv, "a. A = 10.0.0.1", "a. AAAA = -", "b. A = ?", "b. AAAA = -", "c. A = 10.0.0.3", "c. AAAA = -"],
                "wait",
            ),
            (&[srv, "a. A = x", "a. AAAA = x", "b. A = x", "b. AAAA = x", "c. A = ?", "c. AAAA = -"], "wait"),
            // One of the targets fails: the others work.
            (
                &[srv, "a. A = 10.0.0.1", "a. AAAA = -", "b. A = !", "b. AAAA = -", "c. A = x", "c. AAAA = x"],
                "10.0.0.1:8080*3@10; b. A: Server Failure",
            ),
            // The lowest priority has nobody: there is only the next one.
            (
                &[srv, "a. A = !", "a. AAAA = x", "b. A = x", "b. AAAA = x", "c. A = 10.0.0.3", "c. AAAA = -"],
                "10.0.0.3:8082*9@20; a. A: Server Failure",
            ),
            (
                &[srv, "a. A = x", "a. AAAA = x", "b. A = x", "b. AAAA = x", "c. A = !", "c. AAAA = -"],
                "unknown; c. A: Server Failure",
            ),
            (
                &["_http._tcp.web. SRV = 0 0 0 ."],
                "empty: _http._tcp.web. says that there is no such service (SRV with the target `.`)",
            ),
            (
                &["_http._tcp.web. SRV = 1 1 0 a."],
                "empty: the SRV records of _http._tcp.web. have the port 0, where nobody can be reached",
            ),
            (&["_http._tcp.web. SRV = 1 1 0 a., 1 1 80 b.", "b. A = 10.0.0.2", "b. AAAA = -"], "10.0.0.2:80@1"),
            (&["_http._tcp.web. SRV = x"], "empty: there is no name _http._tcp.web."),
            (&["_http._tcp.web. SRV = -"], "empty: _http._tcp.web. has no SRV record"),
            (&["_http._tcp.web. SRV = !"], "unknown; _http._tcp.web. SRV: Server Failure"),
            (
                &["_http._tcp.web. SRV = 1 1 80 a.", "a. A = x", "a. AAAA = x"],
                "empty: no target of the SRV records of _http._tcp.web. has an address",
            ),
        ];
        for (lines, expected) in table {
            assert_eq!(come_to(&wanted, lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_weight_is_the_instances_however_many_addresses_it_has() {
        let wanted = Wanted::Services { candidates: names(&["web."]) };
        let none = |name: &str| format!("{name} AAAA = -");
        let (a, b) = (none("a."), none("b."));
        for (srv, expected) in [
            // Two addresses share what one has alone.
            ("web. SRV = 0 10 80 a., 0 10 80 b.", "10.0.0.1:80*10 10.0.0.2:80*10 10.0.0.3:80*20"),
            // A weight of 0 is the least, among others and alone.
            ("web. SRV = 0 0 80 a., 0 10 80 b.", "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80*20"),
            ("web. SRV = 0 0 80 a., 0 0 80 b.", "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80*2"),
            // Twice the same instance is one, of both weights.
            ("web. SRV = 0 3 80 b., 0 4 80 b.", "10.0.0.3:80*7"),
            ("web. SRV = 0 1 80 b., 0 1 81 b.", "10.0.0.3:80 10.0.0.3:81"),
            // An address that is said twice is one.
            ("web. SRV = 0 1 80 b., 0 1 80 c.", "10.0.0.3:80 10.0.0.4:80"),
        ] {
            let c = none("c.");
            let lines = [srv, "a. A = 10.0.0.1 10.0.0.2", &a, "b. A = 10.0.0.3", &b, "c. A = 10.0.0.4 10.0.0.4", &c];
            assert_eq!(come_to(&wanted, &lines), expected, "{srv}");
        }
    }
}
