//! What is asked of Consul, and what it is told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::UpstreamTls;

/// The `consul:` section: how agents are reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Consul {
    /// Tried in turn. Empty where nothing is written: `CONSUL_HTTP_ADDR`, else `http://127.0.0.1:8500`.
    pub addresses: Vec<AgentAddress>,
    /// A file with the token. Default: `CONSUL_HTTP_TOKEN`, or the file that `CONSUL_HTTP_TOKEN_FILE` names.
    pub token_file: Option<PathBuf>,
    /// Where queries go that name no datacenter. Default: the agent's.
    pub datacenter: Option<String>,
    /// Default: `CONSUL_NAMESPACE`, else the token's.
    pub namespace: Option<String>,
    /// Default: `CONSUL_PARTITION`, else the agent's.
    pub partition: Option<String>,
    /// For agents at `https://…`. Default: `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` and
    /// `CONSUL_TLS_SERVER_NAME`.
    pub tls: Option<UpstreamTls>,
}

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AgentAddress {
    /// `http://127.0.0.1:8500`
    Http {
        /// A name, an IPv4 address, or an IPv6 address in brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// `https://consul.internal:8501`
    Https {
        /// As above; its certificate has to name it.
        host: String,
        /// Its port.
        port: u16,
    },
    /// `unix:///run/consul/http.sock`
    Unix(PathBuf),
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentAddress::Http { host, port } => write!(f, "http://{host}:{port}"),
            AgentAddress::Https { host, port } => write!(f, "https://{host}:{port}"),
            AgentAddress::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `upstreams.*.consul`: a service in Consul.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsulSource {
    /// Whom to ask: the `consul:` section.
    pub agents: Consul,
    /// What is looked up.
    pub target: ConsulTarget,
    /// Instances that have all of these.
    pub tags: Vec<String>,
    /// In written order: the first that has a usable instance is used. Empty: that of the section, else the agent's.
    pub datacenters: Vec<String>,
    /// A node, or `_agent`: Consul sorts by the distance from it.
    pub near: Option<String>,
    /// An expression of Consul's.
    pub filter: Option<String>,
    /// Default: that of the section.
    pub namespace: Option<String>,
    /// Default: that of the section.
    pub partition: Option<String>,
    /// Which checks make an instance usable. Default `only`.
    pub passing: Passing,
    /// How fresh answers have to be. Default `default`.
    pub consistency: ConsulConsistency,
}

impl ConsulSource {
    /// All of a service's instances that are well, wherever these agents look by themselves.
    pub(crate) fn service(agents: Consul, name: String) -> Self {
        ConsulSource {
            agents,
            target: ConsulTarget::Service(name),
            tags: Vec::new(),
            datacenters: Vec::new(),
            near: None,
            filter: None,
            namespace: None,
            partition: None,
            passing: Passing::Only,
            consistency: ConsulConsistency::Default,
        }
    }
}

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConsulTarget {
    /// A service by its name, watched.
    Service(String),
    /// A prepared query by its name or id, asked again and again.
    PreparedQuery(String),
}

/// Which checks make an instance usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Passing {
    /// All of its checks and its node's pass.
    Only,
    /// None of them is critical. One that warns gets its weight for warnings.
    Warning,
}

/// How fresh Consul's answers have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConsulConsistency {
    /// The leader's word.
    Default,
    /// Any server's.
    Stale,
    /// The leader's, after it has asked the others whether it still is.
    Consistent,
    /// That of the agent's cache, which follows the servers by itself.
    Cached,
}

/// What becomes of the endpoints when their source says that there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// They stay for this long. Default 30 s; longer where the source may not know yet.
    Keep(Duration),
    /// They go at once.
    Drop,
}

/// The `register:` section: this proxy as a service in Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The service's name. Default: `service`.
    pub name: String,
    /// Unique at the agent. Default: name, address and port.
    pub id: Option<String>,
    /// Where others reach it; `None`: at the agent's own address.
    pub address: Option<String>,
    /// Default: that of the first inbound listener.
    pub port: Option<u16>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its metadata.
    pub meta: Vec<(String, String)>,
    /// How Consul knows that it is well. Default `{ ttl: 10s }`.
    pub check: RegisterCheck,
    /// Consul forgets it after its check has failed for this long; `None`: never. Default 1 m.
    pub deregister_after: Option<Duration>,
}

/// How Consul knows that a service is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterCheck {
    /// The proxy says so at least this often.
    Ttl(Duration),
    /// The agent asks this URL.
    Http {
        /// 2xx is well, 429 a warning.
        url: String,
        /// Between two checks.
        every: Duration,
        /// Of one check.
        timeout: Duration,
    },
    /// The agent connects to this address.
    Tcp {
        /// Host and port.
        address: String,
        /// Between two checks.
        every: Duration,
        /// Of one check.
        timeout: Duration,
    },
}
