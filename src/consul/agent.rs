//! What the local agent is told: a service of its own, and how it is.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::client::{Client, Place};
use super::error::Error;
use super::question::Question;
use crate::config::model::RegisterCheck;

/// A service as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// Unique at its agent.
    pub(crate) id: String,
    pub(crate) name: String,
    /// `None`: the node's.
    pub(crate) address: Option<String>,
    pub(crate) port: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) meta: Vec<(String, String)>,
    pub(crate) check: RegisterCheck,
    /// Consul forgets the service after its check has failed for this long.
    pub(crate) deregister_after: Option<Duration>,
}

impl Registration {
    /// The check's name at the agent.
    fn check_id(&self) -> String {
        format!("service:{}", self.id)
    }

    fn body(&self) -> Value {
        let mut check = Map::new();
        check.insert("CheckID".to_owned(), json!(self.check_id()));
        check.insert("Name".to_owned(), json!(format!("outrigger: {}", self.name)));
        // Whoever registers is ready; where the agent is to look for itself, only what it finds counts.
        if let RegisterCheck::Ttl(_) = self.check {
            check.insert("Status".to_owned(), json!("passing"));
        }
        let (kind, every, timeout) = match &self.check {
            RegisterCheck::Ttl(ttl) => (("TTL", json!(seconds(*ttl))), None, None),
            RegisterCheck::Http { url, every, timeout } => (("HTTP", json!(url)), Some(every), Some(timeout)),
            RegisterCheck::Tcp { address, every, timeout } => (("TCP", json!(address)), Some(every), Some(timeout)),
        };
        check.insert(kind.0.to_owned(), kind.1);
        for (key, value) in [("Interval", every), ("Timeout", timeout)] {
            if let Some(value) = value {
                check.insert(key.to_owned(), json!(seconds(*value)));
            }
        }
        if let Some(after) = self.deregister_after {
            check.insert("DeregisterCriticalServiceAfter".to_owned(), json!(seconds(after)));
        }
        let meta: Map<String, Value> = self.meta.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let address = self.address.as_deref().unwrap_or_default();
        json!({
            "ID": self.id,
            "Name": self.name,
            "Address": address,
            "Port": self.port,
            "Tags": self.tags,
            "Meta": meta,
            "Check": check,
        })
    }
}

impl Client {
    /// Puts the service and its check into the agent, in the place of what was there under its id.
    pub(crate) async fn register(&self, registration: &Registration) -> Result<(), Error> {
        let body = Bytes::from(registration.body().to_string());
        let question = Question::put("/v1/agent/service/register", body).flag("replace-existing-checks");
        self.tell(question).await
    }

    /// Takes it out. That it was not there is fine.
    pub(crate) async fn deregister(&self, id: &str) -> Result<(), Error> {
        let question = Question::put("/v1/agent/service/deregister", Bytes::new()).segment(id);
        match self.tell(question).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// Says that the service is well. A failure also where the agent has forgotten it.
    pub(crate) async fn pass(&self, registration: &Registration) -> Result<(), Error> {
        let body = Bytes::from(json!({ "Status": "passing", "Output": "ready" }).to_string());
        self.tell(Question::put("/v1/agent/check/update", body).segment(&registration.check_id())).await
    }

    /// Whether the agent knows the service.
    pub(crate) async fn knows(&self, id: &str) -> Result<bool, Error> {
        let question = Question::get("/v1/agent/service", 256 << 10).segment(id);
        match self.ask(self.placed_at_agent(question)).await?.found() {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn tell(&self, question: Question) -> Result<(), Error> {
        self.ask(self.placed_at_agent(question)).await?.found().map(|_| ())
    }

    /// An agent belongs to one datacenter, whatever queries are about.
    fn placed_at_agent(&self, question: Question) -> Question {
        self.placed_within(question, Place::default())
    }
}

/// As Go writes durations.
fn seconds(period: Duration) -> String {
    format!("{}ms", period.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_what_the_agent_reads() {
        let registration = Registration {
            id: "orders-10.0.0.7-15006".to_owned(),
            name: "orders".to_owned(),
            address: Some("10.0.0.7".to_owned()),
            port: 15_006,
            tags: vec!["v1".to_owned()],
            meta: vec![("protocol".to_owned(), "http2".to_owned())],
            check: RegisterCheck::Http {
                url: "http://10.0.0.7:9902/readyz".to_owned(),
                every: Duration::from_secs(5),
                timeout: Duration::from_millis(1_500),
            },
            deregister_after: Some(Duration::from_secs(60)),
        };
        let body = registration.body();
        assert_eq!(body["Meta"], json!({ "protocol": "http2" }));
        assert_eq!(
            body["Check"],
            json!({
                "CheckID": "service:orders-10.0.0.7-15006",
                "Name": "outrigger: orders",
                "HTTP": "http://10.0.0.7:9902/readyz",
                "Interval": "5000ms",
                "Timeout": "1500ms",
                "DeregisterCriticalServiceAfter": "60000ms",
            })
        );
        let ttl = Registration { check: RegisterCheck::Ttl(Duration::from_secs(10)), address: None, ..registration };
        assert_eq!((&ttl.body()["Address"], &ttl.body()["Check"]["TTL"]), (&json!(""), &json!("10000ms")));
        assert_eq!(ttl.body()["Check"]["Status"], "passing");
    }
}
