//! Questions to nameservers, over hickory-resolver.
//!
//! Of hickory only what goes over the wire is used: its pool of one server each, which sends over UDP, repeats, and turns
//! to TCP where an answer is truncated. Its resolver is not: that one goes on along the search list after a failure, calls
//! one family's answer success when the other failed, takes the first of two servers at its word even where that word is
//! SERVFAIL, and keeps a cache of its own.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::sync::Semaphore;

use super::question::{Along, Answer, Failure, FullName, Kind, Question, Records, Service};

/// Questions in flight, of all upstreams together. Below hickory's own 32 for one connection, beyond which it would
/// refuse them.
const AT_ONCE: usize = 24;
/// For one server to answer, its repeats included.
const SERVER_PATIENCE: Duration = Duration::from_secs(2);
/// For one question, however many servers and aliases: a nameserver that hangs costs no more than this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Aliases that are followed, as in BIND.
const MOST_ALIASES: u8 = 16;

/// Answers questions.
pub(crate) trait Ask {
    async fn ask(&self, question: &Question) -> Result<Answer, Failure>;
}

/// A set of nameservers that know the same.
pub(crate) struct Client {
    servers: Vec<Server>,
    /// The one that answered last is asked first; or, where time ran out, the one whose turn would have been next.
    first: Cell<usize>,
    permits: Rc<Semaphore>,
}

struct Server {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
}

/// How many questions may be in flight at once.
pub(crate) fn permits() -> Rc<Semaphore> {
    Rc::new(Semaphore::new(AT_ONCE))
}

impl Client {
    pub(crate) fn new(servers: &[SocketAddr], permits: Rc<Semaphore>) -> Result<Self, Failure> {
        let servers = servers.iter().map(|address| Server::new(*address)).collect::<Result<_, _>>()?;
        Ok(Client { servers, first: Cell::new(0), permits })
    }

    /// The first server's answer. One that fails is no reason to believe that another would. `at` is the one that is
    /// being asked.
    async fn answer(&self, question: &Question, at: &Cell<usize>) -> Result<Answer, Failure> {
        let first = at.get();
        let mut failures = Vec::new();
        for index in (0..self.servers.len()).map(|offset| (first + offset) % self.servers.len()) {
            at.set(index);
            let server = &self.servers[index];
            let asked = tokio::time::timeout(SERVER_PATIENCE, server.answer(question)).await;
            match asked.unwrap_or_else(|_| Err(Failure("no answer".to_owned()))) {
                Ok(answer) => {
                    self.first.set(index);
                    return Ok(answer);
                }
                Err(failure) => failures.push(format!("{}: {failure}", server.address)),
            }
        }
        Err(Failure(failures.join("; ")))
    }
}

impl Ask for Client {
    async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        // The wait for one's turn does not count: it says nothing about the servers.
        let _permit = self.permits.acquire().await;
        let first = self.first.get();
        let at = Cell::new(first);
        tokio::time::timeout(PATIENCE, self.answer(question, &at)).await.unwrap_or_else(|_| {
            // Those that come after it had no turn: they are first the next time.
            if self.first.get() == first {
                self.first.set((at.get() + 1) % self.servers.len());
            }
            Err(Failure(format!("no answer within {} s", PATIENCE.as_secs())))
        })
    }
}

impl Server {
    fn new(address: SocketAddr) -> Result<Self, Failure> {
        let mut config = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut config.connections {
            connection.port = address.port();
        }
        let mut options = ResolverOpts::default();
        options.timeout = SERVER_PATIENCE;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let tls = TlsConfig::new().map_err(|error| Failure(error.to_string()))?;
        let context = Arc::new(PoolContext::new(options, tls));
        Ok(Server { address, pool: NameServerPool::from_config([config], context, TokioRuntimeProvider::default()) })
    }

    /// Asks until the end of the chain of aliases.
    async fn answer(&self, question: &Question) -> Result<Answer, Failure> {
        let mut chain = Chain::new(question);
        loop {
            let name =
                Name::from_ascii(chain.name.as_str()).map_err(|error| Failure(format!("not a name: {error}")))?;
            let mut options = DnsRequestOptions::default();
            options.use_edns = true;
            let request = DnsRequest::from_query(Query::query(name, record_type(question.kind)), options);
            match self.pool.send(request).first_answer().await {
                Ok(response) => {
                    if let Some(answer) = chain.follow(&response)? {
                        return Ok(answer);
                    }
                }
                Err(error) => return chain.denied(error),
            }
        }
    }
}

/// The way from a question to its answer over aliases (CNAME records).
struct Chain {
    kind: Kind,
    name: FullName,
    /// The least so far.
    ttl: Option<u32>,
    aliases: u8,
}

impl Chain {
    fn new(question: &Question) -> Self {
        Chain { kind: question.kind, name: question.name.clone(), ttl: None, aliases: 0 }
    }

    /// The answer; or `None` where the response ends with an alias, and its target has to be asked.
    fn follow(&mut self, response: &DnsResponse) -> Result<Option<Answer>, Failure> {
        let nonexistent = match response.metadata.response_code {
            ResponseCode::NoError => false,
            ResponseCode::NXDomain => true,
            code => return Err(Failure(code.to_string())),
        };
        if response.metadata.truncation {
            return Err(Failure("the answer is truncated, over TCP too".to_owned()));
        }
        let before = self.aliases;
        while let Some((target, ttl)) = alias(&response.answers, &self.name) {
            self.aliases += 1;
            if self.aliases > MOST_ALIASES {
                return Err(Failure(format!("more than {MOST_ALIASES} aliases, or they go round")));
            }
            self.name = target;
            self.lower(ttl);
        }
        let name = self.name.clone();
        let mut addresses = Vec::new();
        let mut services = Vec::new();
        let mut other_family = false;
        for record in response.answers.iter().filter(|record| full(&record.name) == name) {
            match (&record.data, self.kind) {
                (RData::A(address), Kind::A) => addresses.push(IpAddr::V4(address.0)),
                (RData::AAAA(address), Kind::Aaaa) => addresses.push(IpAddr::V6(address.0)),
                (RData::SRV(service), Kind::Srv) => services.push(Service {
                    priority: service.priority,
                    weight: service.weight,
                    port: service.port,
                    target: full(&service.target),
                }),
                // What Consul answers where it has addresses of the other family only.
                (RData::A(_), Kind::Aaaa) | (RData::AAAA(_), Kind::A) => other_family = true,
                _ => continue,
            }
            self.lower(record.ttl);
        }
        if !addresses.is_empty() {
            return Ok(Some(self.answer(Records::Addresses(addresses), Vec::new())));
        }
        if !services.is_empty() {
            let along = along(response, &services);
            return Ok(Some(self.answer(Records::Services(services), along)));
        }
        let denial = response.negative_ttl();
        if nonexistent || denial.is_some() {
            if let Some(ttl) = denial {
                self.lower(ttl);
            }
            return Ok(Some(self.answer(if nonexistent { Records::NoName } else { Records::NoData }, Vec::new())));
        }
        if other_family {
            return Ok(Some(self.answer(Records::NoData, Vec::new())));
        }
        if self.aliases > before {
            return Ok(None);
        }
        Err(Failure("the answer answers something else".to_owned()))
    }

    /// What hickory hands over as an error: an empty answer, which is none, or a real one.
    fn denied(mut self, error: NetError) -> Result<Answer, Failure> {
        let records = match error {
            NetError::Dns(DnsError::NoRecordsFound(denial)) => {
                if denial.soa.is_none() && denial.ns.is_some() {
                    return Err(Failure("the server only names other servers: it resolves nothing for us".to_owned()));
                }
                if let Some(ttl) = denial.negative_ttl {
                    self.lower(ttl);
                }
                match denial.response_code {
                    ResponseCode::NXDomain => Records::NoName,
                    ResponseCode::NoError => Records::NoData,
                    code => return Err(Failure(code.to_string())),
                }
            }
            NetError::Dns(DnsError::ResponseCode(code)) => return Err(Failure(code.to_string())),
            NetError::Timeout => return Err(Failure("no answer".to_owned())),
            other => return Err(Failure(other.to_string())),
        };
        Ok(self.answer(records, Vec::new()))
    }

    fn lower(&mut self, ttl: u32) {
        self.ttl = Some(self.ttl.map_or(ttl, |least| least.min(ttl)));
    }

    fn answer(&self, records: Records, along: Vec<Along>) -> Answer {
        Answer { records, ttl: self.ttl.map(|ttl| Duration::from_secs(ttl.into())), along }
    }
}

/// Where `name` leads.
fn alias(records: &[Record], name: &FullName) -> Option<(FullName, u32)> {
    records.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if full(&record.name) == *name => Some((full(&target.0), record.ttl)),
        _ => None,
    })
}

/// The addresses of the services' targets among the additional records.
fn along(response: &DnsResponse, services: &[Service]) -> Vec<Along> {
    let additional = response.additionals.iter().filter_map(|record| {
        let address = match &record.data {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => return None,
        };
        Some(Along { name: full(&record.name), address, ttl: Duration::from_secs(record.ttl.into()) })
    });
    let targets: std::collections::HashSet<&FullName> = services.iter().map(|service| &service.target).collect();
    additional.filter(|along| targets.contains(&along.name)).collect()
}

fn full(name: &Name) -> FullName {
    FullName::new(&name.to_ascii())
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Srv => RecordType::SRV,
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers = self.servers.iter().map(|server| server.address);
        f.debug_list().entries(servers).finish()
    }
}
