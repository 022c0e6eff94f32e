//! Which nameservers are asked, and by which search list: those of the configuration, or the machine's, whose file is
//! read again when it changes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use hickory_resolver::config::ResolverOpts;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::{Semaphore, watch};

use super::client::{Client, permits};
use super::question::{Failure, FullName};
use super::search::Search;

/// How often the file is looked at. It changes when a machine changes its network.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The nameservers of all upstreams: one set, and one bound on the questions in flight.
#[derive(Debug)]
pub(crate) struct Nameservers {
    current: watch::Sender<Current>,
    permits: Rc<Semaphore>,
}

/// Nameservers and search list as they are just now, or why there are none.
pub(crate) type Current<A = Client> = Result<Rc<Resolver<A>>, Failure>;

#[derive(Debug)]
pub(crate) struct Resolver<A = Client> {
    pub(crate) client: A,
    pub(crate) search: Search,
}

impl Nameservers {
    /// These servers. Names are taken as they stand: the machine's search list was made for other servers.
    pub(crate) fn written(servers: &[SocketAddr]) -> Rc<Self> {
        let permits = permits();
        let current = resolver(servers, Search::default(), &permits);
        Rc::new(Nameservers { current: watch::Sender::new(current), permits })
    }

    /// The machine's, for as long as somebody holds them. Has to be called on the runtime that is to ask.
    pub(crate) fn of_machine(resolv_conf: PathBuf) -> Rc<Self> {
        let permits = permits();
        let text = read(&resolv_conf);
        let current = watch::Sender::new(parse(&text, &permits));
        let nameservers = Rc::new(Nameservers { current, permits });
        tokio::task::spawn_local(follow(Rc::downgrade(&nameservers), resolv_conf, text));
        nameservers
    }

    /// What holds now, and what will.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Current> {
        self.current.subscribe()
    }
}

/// The nameservers of this file as it is now, for a question or two.
pub(super) fn read_resolv_conf(resolv_conf: &Path) -> Result<Rc<Resolver>, Failure> {
    parse(&read(resolv_conf), &permits())
}

async fn follow(nameservers: Weak<Nameservers>, resolv_conf: PathBuf, mut text: Result<Vec<u8>, Failure>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(nameservers) = nameservers.upgrade() else { return };
        let new = read(&resolv_conf);
        if new == text {
            continue;
        }
        text = new;
        match parse(&text, &nameservers.permits) {
            Ok(resolver) => {
                tracing::info!(file = %resolv_conf.display(), nameservers = ?resolver.client, "nameservers changed");
                let _before = nameservers.current.send_replace(Ok(resolver));
            }
            // What was there is still better than nothing.
            Err(failure) => {
                tracing::warn!(file = %resolv_conf.display(), error = %failure, "nameservers stay as they were");
            }
        }
    }
}

fn read(resolv_conf: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(resolv_conf).map_err(|error| Failure(format!("{}: {error}", resolv_conf.display())))
}

fn parse(text: &Result<Vec<u8>, Failure>, permits: &Rc<Semaphore>) -> Current {
    let text = text.as_ref().map_err(Clone::clone)?;
    let (config, ResolverOpts { ndots, .. }) =
        parse_resolv_conf(without_strangers(text)).map_err(|error| Failure(format!("resolv.conf: {error}")))?;
    let servers = config.name_servers().iter();
    let servers: Vec<_> =
        servers.filter_map(|server| Some(SocketAddr::new(server.ip, server.connections.first()?.port))).collect();
    let domains = config.search().iter().map(|domain| FullName::new(&domain.to_ascii())).collect();
    resolver(&servers, Search { domains, ndots }, permits)
}

/// The same without words in the search list that no name can be made of: the nameservers are right all the same.
fn without_strangers(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let Some(key) = words.next().filter(|key| matches!(*key, "search" | "domain")) else { return line.to_owned() };
        let usable = words.take_while(|word| !word.starts_with(['#', ';'])).filter(|word| {
            let usable = Name::from_str_relaxed(word).is_ok();
            if !usable {
                tracing::warn!(word, "resolv.conf: no name can end in this word of the search list; it is left out");
            }
            usable
        });
        [key].into_iter().chain(usable).collect::<Vec<_>>().join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn resolver(servers: &[SocketAddr], search: Search, permits: &Rc<Semaphore>) -> Current {
    Ok(Rc::new(Resolver { client: Client::new(servers, permits.clone())?, search }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_name_costs_only_itself() {
        let search = |text: &str| {
            let resolver = parse(&Ok(text.as_bytes().to_vec()), &permits()).unwrap();
            resolver.search.domains.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            search("nameserver 10.0.0.1\nsearch -x.test ns.svc a..b svc # all\noptions ndots:5"),
            "ns.svc. svc."
        );
        assert_eq!(search("domain -x.test\nnameserver 10.0.0.1\n"), "");
        assert_eq!(search("nameserver 10.0.0.1\ndomain ns.svc\n"), "ns.svc.");
    }

    #[tokio::test(start_paused = true)]
    async fn resolv_conf_is_read_again_when_it_changes() {
        let file = std::env::temp_dir().join(format!("outrigger-resolv-{}.conf", std::process::id()));
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("nameserver 10.0.0.1\nnameserver fd00::1\nsearch ns.svc svc\noptions ndots:5\n");
        tokio::task::LocalSet::new()
            .run_until(async {
                let nameservers = Nameservers::of_machine(file.clone());
                let mut current = nameservers.subscribe();
                let shown = |current: &Current| {
                    let resolver = current.as_ref().unwrap();
                    (format!("{:?}", resolver.client), resolver.search.candidates("web").len())
                };
                assert_eq!(shown(&current.borrow_and_update()), ("[10.0.0.1:53, [fd00::1]:53]".to_owned(), 3));
                write("nameserver 10.0.0.2\n");
                current.changed().await.unwrap();
                assert_eq!(shown(&current.borrow_and_update()), ("[10.0.0.2:53]".to_owned(), 1));
                // Somebody is just writing it: what was there holds.
                write("");
                tokio::time::sleep(LOOK_EVERY * 3).await;
                assert!(!current.has_changed().unwrap());
                write("nameserver 10.0.0.3\n");
                current.changed().await.unwrap();
                assert_eq!(shown(&current.borrow_and_update()).0, "[10.0.0.3:53]");
                drop(nameservers);
                assert!(current.changed().await.is_err(), "nobody follows what nobody needs");
            })
            .await;
        std::fs::remove_file(&file).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_nameservers_says_so() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let nameservers = Nameservers::of_machine("/nowhere/resolv.conf".into());
                let failure = nameservers.subscribe().borrow().as_ref().unwrap_err().to_string();
                assert!(failure.starts_with("/nowhere/resolv.conf: "), "{failure}");
            })
            .await;
    }
}
