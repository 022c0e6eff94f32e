//! The rules as the kernel takes them, over a netlink socket: an image without a shell has no `nft` either.
//!
//! Numbers are those of `linux/netlink.h`, `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`. Numbers in
//! attributes are big-endian; what is compared with a register is as the register has it.

use std::net::IpAddr;

use super::{Capture, Chain, Condition, Hook, Network, Rule, TABLE, Verdict};

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

const ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Of nf_tables among the netfilter subsystems.
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

/// IPv4 and IPv6 in one table.
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const TCP: u8 = 6;
/// Where destination addresses are translated.
const PRIORITY_DSTNAT: i32 = -100;
/// What rules compute with.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const RETURN: i32 = -5;

const META_USER: u32 = 10;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const ADDRESS_LOCAL: u32 = 2;

/// The requests, as one transaction, that put the rules in place of whatever is there; and how many answers come.
pub fn apply(capture: &Capture) -> (Vec<u8>, usize) {
    let mut batch = Batch::begin();
    // A table that is there already stays, so that it can be deleted in any case.
    batch.table(NEW_TABLE, CREATE);
    batch.table(DELETE_TABLE, 0);
    batch.table(NEW_TABLE, CREATE);
    for chain in capture.chains() {
        batch.chain(&chain);
        for rule in &chain.rules {
            batch.rule(chain.name, rule);
        }
    }
    batch.end()
}

/// The requests that take the rules away, and how many answers come.
pub fn remove() -> (Vec<u8>, usize) {
    let mut batch = Batch::begin();
    batch.table(DELETE_TABLE, 0);
    batch.end()
}

/// What the kernel refused: an error number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub i32);

/// Reads a datagram of answers: how many requests were taken.
///
/// # Errors
/// The first that was refused.
pub fn answers(datagram: &[u8]) -> Result<usize, Refusal> {
    let mut rest = datagram;
    let mut taken = 0;
    while let Some((header, _)) = rest.split_at_checked(16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind == ERROR
            && let Some([a, b, c, d]) = rest.get(16..20)
        {
            match i32::from_ne_bytes([*a, *b, *c, *d]) {
                0 => taken += 1,
                code => return Err(Refusal(-code)),
            }
        }
        match rest.get(length.max(16).next_multiple_of(4)..) {
            Some(after) => rest = after,
            None => break,
        }
    }
    Ok(taken)
}

/// Messages one after the other.
struct Batch {
    bytes: Vec<u8>,
    count: usize,
}

impl Batch {
    fn begin() -> Self {
        let mut batch = Batch { bytes: Vec::new(), count: 0 };
        batch.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM.to_be_bytes(), |_| {});
        batch
    }

    fn end(mut self) -> (Vec<u8>, usize) {
        self.message(BATCH_END, REQUEST, 0, SUBSYSTEM.to_be_bytes(), |_| {});
        (self.bytes, self.count)
    }

    fn request(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.count += 1;
        let flags = REQUEST | ACKNOWLEDGE | flags;
        self.message(SUBSYSTEM << 8 | kind, flags, FAMILY_INET, [0, 0], fill);
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: [u8; 2],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        // The kernel gives sequence numbers back; answers come in the order of requests.
        self.bytes.extend((self.count as u32).to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0, resource[0], resource[1]]);
        fill(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn table(&mut self, kind: u16, flags: u16) {
        self.request(kind, flags, |table| table.text(1, TABLE));
    }

    fn chain(&mut self, chain: &Chain) {
        let hook: u32 = match chain.hook {
            Hook::Prerouting => 0,
            Hook::Output => 3,
        };
        self.request(NEW_CHAIN, CREATE, |new| {
            new.text(1, TABLE);
            new.text(3, chain.name);
            new.nested(4, |attributes| {
                attributes.number(1, hook);
                attributes.value(2, &PRIORITY_DSTNAT.to_be_bytes());
            });
            new.text(7, "nat");
        });
    }

    fn rule(&mut self, chain: &str, rule: &Rule) {
        self.request(NEW_RULE, CREATE | APPEND, |new| {
            new.text(1, TABLE);
            new.text(2, chain);
            new.nested(4, |expressions| {
                if let Some(condition) = &rule.condition {
                    expressions.condition(condition);
                }
                match rule.verdict {
                    Verdict::Leave => expressions.leave(),
                    Verdict::Redirect(port) => expressions.redirect(port),
                }
            });
        });
    }
}

/// Attributes of a message, at its end.
struct Attributes<'b>(&'b mut Vec<u8>);

impl Attributes<'_> {
    fn value(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.value(kind, &number.to_be_bytes());
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.value(kind, &[text.as_bytes(), &[0]].concat());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// An expression of a rule.
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.nested(1, |element| {
            element.text(1, name);
            element.nested(2, fill);
        });
    }

    fn meta(&mut self, key: u32) {
        self.expression("meta", |meta| {
            meta.number(1, REGISTER);
            meta.number(2, key);
        });
    }

    fn compare(&mut self, operator: u32, with: &[u8]) {
        self.expression("cmp", |compare| {
            compare.number(1, REGISTER);
            compare.number(2, operator);
            compare.nested(3, |data| data.value(1, with));
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.expression("payload", |payload| {
            payload.number(1, REGISTER);
            payload.number(2, base);
            payload.number(3, offset);
            payload.number(4, length);
        });
    }

    fn condition(&mut self, condition: &Condition) {
        match condition {
            Condition::User(user) => {
                self.meta(META_USER);
                self.compare(EQUAL, &user.to_ne_bytes());
            }
            Condition::NotTcp => {
                self.meta(META_PROTOCOL);
                self.compare(NOT_EQUAL, &[TCP]);
            }
            Condition::ToThisMachine => {
                self.expression("fib", |fib| {
                    fib.number(1, REGISTER);
                    fib.number(2, FIB_ADDRESS_TYPE);
                    fib.number(3, FIB_DESTINATION);
                });
                self.compare(EQUAL, &ADDRESS_LOCAL.to_ne_bytes());
            }
            Condition::To(network) => self.network(network),
            // The destination's port is the second number of a TCP header.
            Condition::Port(port) => {
                self.payload(BASE_TRANSPORT, 2, 2);
                self.compare(EQUAL, &port.to_be_bytes());
            }
        }
    }

    fn network(&mut self, network: &Network) {
        // Where the destination stands in an IP header.
        let (family, offset, address) = match network.address {
            IpAddr::V4(address) => (FAMILY_IPV4, 16, address.octets().to_vec()),
            IpAddr::V6(address) => (FAMILY_IPV6, 24, address.octets().to_vec()),
        };
        self.meta(META_FAMILY);
        self.compare(EQUAL, &[family]);
        let length = address.len() as u32;
        self.payload(BASE_NETWORK, offset, length);
        let mask: Vec<u8> = (0..length as usize)
            .map(|index| {
                let bits = usize::from(network.prefix).saturating_sub(index * 8).min(8);
                (0xff00u16 >> bits) as u8
            })
            .collect();
        self.expression("bitwise", |bitwise| {
            bitwise.number(1, REGISTER);
            bitwise.number(2, REGISTER);
            bitwise.number(3, length);
            bitwise.nested(4, |data| data.value(1, &mask));
            bitwise.nested(5, |data| data.value(1, &vec![0; mask.len()]));
        });
        self.compare(EQUAL, &address);
    }

    fn leave(&mut self) {
        self.expression("immediate", |immediate| {
            immediate.number(1, VERDICT_REGISTER);
            immediate.nested(2, |data| {
                data.nested(2, |verdict| verdict.value(1, &RETURN.to_be_bytes()));
            });
        });
    }

    fn redirect(&mut self, port: u16) {
        self.expression("immediate", |immediate| {
            immediate.number(1, REGISTER);
            immediate.nested(2, |data| data.value(1, &port.to_be_bytes()));
        });
        self.expression("redir", |redir| redir.number(1, REGISTER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fill_the_batch() {
        let capture = Capture {
            outbound: Some(1),
            exclude_networks: vec![Network { address: "10.0.0.0".parse().unwrap(), prefix: 12 }],
            ..Capture::default()
        };
        let (bytes, count) = apply(&capture);
        let (mut rest, mut messages) = (bytes.as_slice(), 0);
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            assert_eq!(length % 4, 0);
            rest = &rest[length..];
            messages += 1;
        }
        // The batch begins and ends without an answer.
        assert_eq!(messages, count + 2);
        assert!(bytes.windows(4).any(|bytes| bytes == [0xff, 0xf0, 0, 0]), "the mask of /12");
    }

    #[test]
    fn answers_are_counted_and_a_refusal_is_told() {
        let answer = |code: i32| {
            let mut bytes = 36u32.to_ne_bytes().to_vec();
            bytes.extend(ERROR.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        assert_eq!(answers(&[answer(0), answer(0)].concat()), Ok(2));
        assert_eq!(answers(&[answer(0), answer(-1)].concat()), Err(Refusal(1)));
        assert_eq!(answers(&answer(0)[..17]), Ok(0));
        assert_eq!(answers(&[0; 16]), Ok(0));
    }
}
