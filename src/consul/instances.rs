//! A list of instances, read as it comes and only as far as it is new.
//!
//! Whatever has changed, Consul sends the whole list, 1 to 2 KiB an instance. So of each instance its length and a hash
//! are kept with what was understood of it: where the next bytes are those of the instance that came next in the last
//! list, nothing need be parsed. Ten changes among ten thousand instances cost ten parsed ones and a hash of the others;
//! and the answer need never be in memory as a whole.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::RandomState;

use super::connection::Intake;
use super::health::{Entry, Instance};

/// The instances that the last whole answer named.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    list: Vec<Instance>,
    /// How each was written; of an answer that was read as a whole, nothing.
    marks: Vec<Mark>,
    /// Of whole bytes, with a seed of this process: two that differ are taken for one once in 2⁶⁴ changes.
    hasher: RandomState,
    words: Words,
}

/// The bytes of an instance, without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    length: usize,
    hash: u64,
}

/// Texts that many instances share.
#[derive(Debug, Default)]
pub(super) struct Words(HashSet<Arc<str>>);

impl Words {
    pub(super) fn share(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.0.get(word) {
            return known.clone();
        }
        let word: Arc<str> = word.into();
        self.0.insert(word.clone());
        word
    }

    /// Lets go of what no instance says any more.
    fn forget(&mut self) {
        self.0.retain(|word| Arc::strong_count(word) > 1);
    }
}

impl Instances {
    /// In the order in which Consul named them.
    pub(crate) fn list(&self) -> &[Instance] {
        &self.list
    }

    /// Of an answer that was read as a whole.
    pub(super) fn replace(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        let read = entries.into_iter().map(|entry| entry.instance(&mut self.words));
        self.list = read.collect::<Result<_, _>>()?;
        self.marks.clear();
        Ok(())
    }

    /// Takes an answer in.
    pub(super) fn reading(&mut self) -> Reading<'_> {
        Reading { known: self, next: 0, passed: None, places: None, read: Read::default() }
    }
}

/// An answer on its way in.
pub(super) struct Reading<'k> {
    known: &'k mut Instances,
    /// Whose turn it is, of the last list.
    next: usize,
    /// Who came before, where what came in its stead was new: that may have been put in.
    passed: Option<usize>,
    /// Where each stood in the last list; made when first asked.
    places: Option<HashMap<u64, usize, RandomState>>,
    read: Read,
}

/// What has come of an answer.
#[derive(Default)]
struct Read {
    list: Vec<Instance>,
    marks: Vec<Mark>,
    /// Not understood yet.
    pending: Vec<u8>,
    /// Fewer bytes of an instance are not worth another look.
    enough: usize,
    stage: Stage,
    wrong: Option<String>,
}

/// What may come next, besides white space.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Begin,
    /// An instance, or the end of an empty list.
    First,
    Instance,
    Separator,
    End,
}

impl Intake for Reading<'_> {
    fn begin(&mut self) {
        (self.next, self.passed, self.read) = (0, None, Read::default());
        self.known.words.forget();
    }

    fn take(&mut self, bytes: Bytes) {
        if self.read.wrong.is_none() {
            self.read.pending.extend_from_slice(&bytes);
            self.go_on(false);
        }
    }
}

impl Reading<'_> {
    /// All has come.
    ///
    /// # Errors
    /// What is wrong, for a person; then the last list stays as it is.
    pub(super) fn finish(mut self) -> Result<(), String> {
        self.go_on(true);
        let Read { list, marks, stage, wrong, .. } = self.read;
        match wrong {
            Some(wrong) => return Err(wrong),
            None if stage != Stage::End => return Err("a list that ends early".to_owned()),
            None => {}
        }
        (self.known.list, self.known.marks) = (list, marks);
        Ok(())
    }

    fn go_on(&mut self, is_all: bool) {
        let pending = std::mem::take(&mut self.read.pending);
        let mut at = 0;
        while self.read.wrong.is_none()
            && let Some(space) = pending[at..].iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
        {
            at += space;
            let stage = match (self.read.stage, pending[at]) {
                (Stage::Begin, b'[') => Stage::First,
                (Stage::First | Stage::Separator, b']') => Stage::End,
                (Stage::Separator, b',') => Stage::Instance,
                (Stage::First | Stage::Instance, _) => {
                    let Some(length) = self.instance(&pending[at..], is_all) else { break };
                    at += length;
                    self.read.stage = Stage::Separator;
                    continue;
                }
                (Stage::Begin | Stage::Separator | Stage::End, _) => {
                    self.read.wrong = Some("no list of instances".to_owned());
                    break;
                }
            };
            self.read.stage = stage;
            at += 1;
        }
        self.read.pending = pending;
        self.read.pending.drain(..at);
    }

    /// The length of the instance that the bytes begin with. `None` where they hold no whole one.
    fn instance(&mut self, bytes: &[u8], is_all: bool) -> Option<usize> {
        if bytes.len() < self.read.enough && !is_all {
            return None;
        }
        for position in std::iter::once(self.next).chain(self.passed) {
            let Some(mark) = self.known.marks.get(position).copied() else { continue };
            match bytes.get(..mark.length) {
                None if !is_all => return None,
                Some(same) if self.known.hasher.hash_one(same) == mark.hash => {
                    (self.next, self.passed) = (position + 1, None);
                    self.push(self.known.list[position].clone(), mark);
                    return Some(mark.length);
                }
                _ => {}
            }
        }
        let mut parsed = serde_json::Deserializer::from_slice(bytes).into_iter::<Entry>();
        let instance = match parsed.next()? {
            Ok(entry) => entry.instance(&mut self.known.words),
            // What ends within a number is no whole number to the parser, and not only something that ends.
            Err(error) if !error.is_data() && !is_all => {
                self.read.enough = 2 * bytes.len();
                return None;
            }
            Err(error) => Err(format!("instance {}: {error}", self.read.list.len() + 1)),
        };
        let length = parsed.byte_offset();
        let instance = instance.map_err(|wrong| self.read.wrong = Some(wrong)).ok()?;
        let mark = Mark { length, hash: self.known.hasher.hash_one(&bytes[..length]) };
        (self.next, self.passed) = match self.place(mark) {
            Some(position) => (position + 1, None),
            None => (self.next + 1, Some(self.next)),
        };
        self.push(instance, mark);
        Some(length)
    }

    fn push(&mut self, instance: Instance, mark: Mark) {
        self.read.list.push(instance);
        self.read.marks.push(mark);
        self.read.enough = 0;
    }

    /// Where it stood in the last list.
    fn place(&mut self, mark: Mark) -> Option<usize> {
        let marks = &self.known.marks;
        let places = self.places.get_or_insert_with(|| marks.iter().map(|mark| mark.hash).zip(0..).collect());
        places.get(&mark.hash).copied().filter(|position| marks[*position] == mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one((port, weight): (u16, u8)) -> String {
        format!(
            r#"{{"Node":{{"Address":"10.0.0.1","Datacenter":"dc1","Meta":null}},
            "Service":{{"ID":"web-{port}","Address":"","Port":{},"Proxy":{{"Config":{{"Ratio":-1.5e-3}}}},"Weights":{{"Passing":{weight},"Warning":1}}}},
            "Checks":[{{"Status":"passing"}}]}}"#,
            u32::from(port) + 1
        )
    }

    fn written(instances: &[(u16, u8)]) -> String {
        format!("[{}]", instances.iter().map(|instance| one(*instance)).collect::<Vec<_>>().join(" ,\n"))
    }

    /// In pieces of this many bytes.
    fn read(instances: &mut Instances, text: &str, piece: usize) -> Result<usize, String> {
        let mut reading = instances.reading();
        reading.begin();
        text.as_bytes().chunks(piece).for_each(|bytes| reading.take(Bytes::copy_from_slice(bytes)));
        reading.finish()?;
        Ok(instances.list().len())
    }

    proptest! {
        #[test]
        fn what_is_read_does_not_depend_on_what_was_known(
            lists in prop::collection::vec(prop::collection::vec((0u16..30, 0u8..3), 0..30), 1..6),
            piece in 1usize..3_000,
        ) {
            let mut instances = Instances::default();
            for list in &lists {
                let text = written(list);
                prop_assert_eq!(read(&mut instances, &text, piece), Ok(list.len()));
                let mut fresh = Instances::default();
                read(&mut fresh, &text, text.len()).unwrap();
                prop_assert_eq!(instances.list(), fresh.list());
            }
        }
    }

    #[test]
    fn what_is_not_whole_leaves_the_last_list() {
        let mut instances = Instances::default();
        let text = written(&[(1, 1), (2, 1)]);
        assert_eq!(read(&mut instances, &text, 7), Ok(2));
        for end in 0..text.len() {
            assert!(read(&mut instances, &text[..end], 1_000).is_err(), "{}", &text[..end]);
        }
        for wrong in ["", " ", "null", "{}", "[,]", "[{}]", "[null]", "\"ok\"", "<html>"] {
            assert!(read(&mut instances, wrong, 2).is_err(), "{wrong}");
        }
        assert!(read(&mut instances, &(text.clone() + "]"), 2).is_err());
        assert!(read(&mut instances, &text.replacen(" ,\n", " ", 1), 2).is_err());
        assert_eq!(instances.list().len(), 2);
        assert_eq!(read(&mut instances, "[ ]", 1), Ok(0));
    }

    #[test]
    fn only_what_is_new_is_parsed() {
        let mut instances = Instances::default();
        let before: Vec<(u16, u8)> = (0..100).map(|port| (port, 1)).collect();
        read(&mut instances, &written(&before), 10_000).unwrap();
        // From now on the bytes that are known are those of something that cannot be parsed, but for one.
        let garbled =
            |instance: &(u16, u8)| one(*instance).replace("Node", if instance.0 == 30 { "Node" } else { "Nope" });
        for (mark, instance) in instances.marks.iter_mut().zip(&before) {
            mark.hash = instances.hasher.hash_one(garbled(instance).as_bytes());
        }
        let mut after: Vec<String> = before.iter().map(garbled).collect();
        assert_eq!(read(&mut instances, &format!("[{}]", after.join(",")), 999), Ok(100));
        after[50] = one((50, 2));
        after.insert(70, one((200, 1)));
        // What comes after those that are gone has to be parsed to be known again.
        after.drain(20..30);
        assert_eq!(read(&mut instances, &format!("[{}]", after.join(",")), 999), Ok(91));
        after[5] = garbled(&(201, 1));
        assert!(read(&mut instances, &format!("[{}]", after.join(",")), 999).is_err());
    }
}
