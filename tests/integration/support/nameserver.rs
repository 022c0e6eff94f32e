//! A nameserver that says what it is told to say, over UDP and TCP; and lies, stalls and cuts short where it is told to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a question gets.
#[derive(Clone, Default)]
pub struct Reply {
    code: u8,
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
    silent: bool,
    cut_over_udp: bool,
}

impl Reply {
    /// Records as in a zone file: `web.test. 5 A 127.0.0.1`. Types are A, AAAA, CNAME, SRV, NS, and SOA (with nothing
    /// but its minimum).
    pub fn records(records: &[&str]) -> Self {
        Reply { answers: owned(records), ..Reply::default() }
    }

    /// The name exists and has no such record; nobody asks again for so many seconds.
    pub fn no_data(minimum: u32) -> Self {
        Reply { authorities: vec![format!("test. {minimum} SOA {minimum}")], ..Reply::default() }
    }

    /// There is no such name.
    pub fn no_name(minimum: u32) -> Self {
        Reply { code: 3, ..Reply::no_data(minimum) }
    }

    /// Any other code: 2 is SERVFAIL, 5 is REFUSED.
    pub fn code(code: u8) -> Self {
        Reply { code, ..Reply::default() }
    }

    pub fn silence() -> Self {
        Reply { silent: true, ..Reply::default() }
    }

    /// Truncated over UDP, whole over TCP.
    #[must_use]
    pub fn cut_over_udp(self) -> Self {
        Reply { cut_over_udp: true, ..self }
    }

    #[must_use]
    pub fn authority(self, records: &[&str]) -> Self {
        Reply { authorities: owned(records), ..self }
    }

    #[must_use]
    pub fn additional(self, records: &[&str]) -> Self {
        Reply { additionals: owned(records), ..self }
    }
}

fn owned(records: &[&str]) -> Vec<String> {
    records.iter().map(|record| (*record).to_owned()).collect()
}

type Said = Arc<Mutex<HashMap<String, Reply>>>;

/// A running nameserver. What it was told nothing about does not exist.
pub struct Nameserver {
    address: SocketAddr,
    said: Said,
    questions: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Nameserver {
    pub fn start() -> Self {
        // The kernel picks the port for TCP; that of UDP may be taken by somebody else.
        let (tcp, udp) = std::iter::repeat_with(|| {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let udp = UdpSocket::bind(tcp.local_addr().unwrap());
            udp.ok().map(|udp| (tcp, udp))
        })
        .take(20)
        .flatten()
        .next()
        .expect("no port is free for both UDP and TCP");
        Nameserver::on(tcp, udp)
    }

    /// Where resolv.conf may say that it is: at the port of all nameservers. In a namespace of the test's own.
    pub fn at(ip: [u8; 4]) -> Self {
        let address = SocketAddr::from((ip, 53));
        Nameserver::on(TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
    }

    fn on(tcp: TcpListener, udp: UdpSocket) -> Self {
        let address = tcp.local_addr().unwrap();
        let (said, questions, stop) = (Said::default(), Arc::<Mutex<Vec<String>>>::default(), Arc::default());
        let mut server = Nameserver { address, said, questions, stop, threads: Vec::new() };
        let (said, questions, stop) = (server.said.clone(), server.questions.clone(), server.stop.clone());
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        server.threads.push(std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, client)) = udp.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answer(&buffer[..length], false, &said, &questions) {
                    let _ = udp.send_to(&answer, client);
                }
            }
        }));
        let (said, questions, stop) = (server.said.clone(), server.questions.clone(), server.stop.clone());
        tcp.set_nonblocking(true).unwrap();
        server.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_ok() {
                    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
                    if stream.read_exact(&mut message).is_ok()
                        && let Some(answer) = answer(&message, true, &said, &questions)
                    {
                        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                        let _ = stream.write_all(&[&length[..], &answer].concat());
                    }
                }
            }
        }));
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, `web.test. A` gets this.
    pub fn say(&self, question: &str, reply: Reply) {
        self.said.lock().unwrap().insert(question.to_owned(), reply);
    }

    /// How often it was asked that.
    pub fn asked(&self, question: &str) -> usize {
        self.questions.lock().unwrap().iter().filter(|asked| *asked == question).count()
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// `None` where there is nothing to say.
fn answer(message: &[u8], tcp: bool, said: &Said, questions: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let (name, end) = read_name(message.get(12..)?)?;
    let question = message.get(12..12 + end + 4)?;
    let kind = match u16::from_be_bytes([question[end], question[end + 1]]) {
        1 => "A",
        28 => "AAAA",
        33 => "SRV",
        _ => "other",
    };
    let asked = format!("{name} {kind}");
    questions.lock().unwrap().push(asked.clone());
    let reply = said.lock().unwrap().get(&asked).cloned().unwrap_or_else(|| Reply::no_name(1));
    if reply.silent {
        return None;
    }
    let cut = reply.cut_over_udp && !tcp;
    let mut answer = message[..2].to_vec();
    // A response, recursion desired and available, perhaps truncated.
    answer.extend([0x81 | if cut { 0x02 } else { 0 }, 0x80 | reply.code]);
    let sections = if cut { [&[][..]; 3] } else { [&reply.answers[..], &reply.authorities, &reply.additionals] };
    answer.extend(1_u16.to_be_bytes());
    for section in sections {
        answer.extend(u16::try_from(section.len()).unwrap().to_be_bytes());
    }
    answer.extend(question);
    for record in sections.into_iter().flatten() {
        write_record(&mut answer, record);
    }
    Some(answer)
}

fn read_name(bytes: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((if name.is_empty() { ".".to_owned() } else { name }, at));
        }
        name.push_str(&String::from_utf8_lossy(bytes.get(at..at + length)?).to_lowercase());
        name.push('.');
        at += length;
    }
}

fn write_record(out: &mut Vec<u8>, record: &str) {
    let fields: Vec<&str> = record.split(' ').collect();
    let [name, ttl, kind, data @ ..] = &fields[..] else { panic!("{record}") };
    let number = |text: &str| text.parse::<u16>().unwrap_or_else(|_| panic!("{record}")).to_be_bytes();
    let (kind, data): (u16, Vec<u8>) = match (*kind, data) {
        ("A", [address]) => (1, octets(address)),
        ("AAAA", [address]) => (28, octets(address)),
        ("NS", [target]) => (2, written_name(target)),
        ("CNAME", [target]) => (5, written_name(target)),
        ("SRV", [priority, weight, port, target]) => {
            (33, [&number(priority)[..], &number(weight), &number(port), &written_name(target)].concat())
        }
        ("SOA", [minimum]) => {
            let minimum = minimum.parse::<u32>().unwrap().to_be_bytes();
            let numbers = [[0; 4], [0; 4], [0; 4], [0; 4], minimum].concat();
            (6, [written_name("ns.test."), written_name("admin.test."), numbers].concat())
        }
        _ => panic!("{record}"),
    };
    out.extend(written_name(name));
    out.extend(kind.to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend(ttl.parse::<u32>().unwrap().to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
}

fn octets(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn written_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut written: Vec<u8> =
        labels.flat_map(|label| [u8::try_from(label.len()).unwrap()].into_iter().chain(label.bytes())).collect();
    written.push(0);
    written
}
