//! JSON patches (RFC 6902), as far as an admission webhook uses them.

use serde_json::Value;

/// The document with a patch, in base64, applied.
pub fn apply(document: &Value, patch: &str) -> Value {
    let operations: Value = serde_json::from_slice(&decode(patch)).unwrap();
    let mut document = document.clone();
    for operation in operations.as_array().unwrap() {
        let path = operation["path"].as_str().unwrap();
        match operation["op"].as_str().unwrap() {
            "add" => add(&mut document, path, operation["value"].clone()),
            "replace" => {
                *document.pointer_mut(path).unwrap_or_else(|| panic!("nothing at {path}")) = operation["value"].clone()
            }
            "move" => {
                let (parent, key) = split(operation["from"].as_str().unwrap());
                let moved = document.pointer_mut(&parent).unwrap().as_object_mut().unwrap().remove(&key).unwrap();
                add(&mut document, path, moved);
            }
            other => panic!("{other}"),
        }
    }
    document
}

fn add(document: &mut Value, path: &str, value: Value) {
    let (parent, key) = split(path);
    match document.pointer_mut(&parent).unwrap_or_else(|| panic!("nothing at {parent}")) {
        Value::Object(map) => drop(map.insert(key, value)),
        Value::Array(items) => items.insert(key.parse().unwrap(), value),
        other => panic!("{path}: {other}"),
    }
}

fn split(path: &str) -> (String, String) {
    let (parent, key) = path.rsplit_once('/').unwrap();
    (parent.to_owned(), key.replace("~1", "/").replace("~0", "~"))
}

fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let letters: Vec<usize> = chunk.iter().filter_map(|letter| ALPHABET.find(char::from(*letter))).collect();
        let bits = letters.iter().fold(0, |bits, letter| bits << 6 | letter) << (6 * (4 - letters.len()));
        bytes.extend_from_slice(&(bits as u32).to_be_bytes()[1..letters.len()]);
    }
    bytes
}
