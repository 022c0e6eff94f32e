//! The answer of an admission webhook: an AdmissionReview in, one with a JSON patch out.

use serde_json::{Value as Json, json};

use super::inject::write_record;
use super::options::{INJECTED, Options};
use super::plan::{self, Change, Plan, Step};
use super::record::Record;
use super::yaml;

/// What is known of it: `admission.k8s.io/v1`.
const VERSION: &str = "admission.k8s.io/v1";

/// What becomes of a pod that cannot carry a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It starts without one, and a warning says so.
    Allow,
    /// It does not start.
    Deny,
}

/// Answers a review.
///
/// # Errors
/// A sentence, where it is no review that can be answered.
pub fn review(body: &[u8], options: &Options, policy: Policy) -> Result<String, String> {
    let review: Json = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != VERSION {
        return Err(format!("the body is no AdmissionReview of {VERSION}"));
    }
    let request = &review["request"];
    let Some(uid) = request["uid"].as_str().filter(|uid| !uid.is_empty()) else {
        return Err("the AdmissionReview has no request.uid".to_owned());
    };
    let mut response = json!({ "uid": uid, "allowed": true });
    let name = || {
        let metadata = &request["object"]["metadata"];
        let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or("without a name");
        format!("the pod {name} in {}", request["namespace"].as_str().unwrap_or("no namespace"))
    };
    match patch(request, options) {
        Ok(Some(patch)) => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(base64(patch.to_string().as_bytes()));
        }
        Ok(None) => {}
        Err(why) if policy == Policy::Allow => {
            response["warnings"] = json!([format!("outrigger: {} starts without a sidecar: {why}", name())]);
        }
        Err(why) => {
            response["allowed"] = json!(false);
            response["status"] =
                json!({ "code": 422, "message": format!("outrigger: {} has no sidecar: {why}", name()) });
        }
    }
    Ok(json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response }).to_string())
}

/// The patch for the object of a request; nothing where it is to stay as it is.
fn patch(request: &Json, options: &Options) -> Result<Option<Json>, String> {
    let object = &request["object"];
    if request["kind"]["kind"] != "Pod" || !object.is_object() || request["operation"] != "CREATE" {
        return Ok(None);
    }
    if object["metadata"]["annotations"][INJECTED].is_string() {
        return Ok(None);
    }
    // JSON is YAML, once nothing in it is escaped that need not be.
    let text = object.to_string();
    let documents = yaml::parse(&text).map_err(|error| error.to_string())?;
    let pod = &documents.first().ok_or("it is empty")?.root;
    let mut changes = match plan::plan("Pod", pod, pod, options)? {
        Plan::Leave(_) => return Ok(None),
        Plan::Change(changes) => changes,
    };
    let record = Record::of(&changes, pod, |node| text[node.start..node.end].to_owned());
    write_record(&mut changes, &record.to_json());
    Ok(Some(operations(&changes)))
}

/// The changes as a JSON patch (RFC 6902). New first items come last, for they move all others, and
/// each goes before those that are there.
fn operations(changes: &[Change]) -> Json {
    let is_item =
        |change: &&Change| matches!(change, Change::Add { path, .. } if matches!(path.last(), Some(Step::Item(_))));
    let (items, others): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(is_item);
    let operations = others.into_iter().chain(items.into_iter().rev()).map(|change| match change {
        Change::Add { path, value } => json!({ "op": "add", "path": pointer(path), "value": value.to_json() }),
        Change::Replace { path, value } => {
            json!({ "op": "replace", "path": pointer(path), "value": value.to_json() })
        }
        Change::Rename { path, key } => {
            let parent = path.split_last().map_or(&[][..], |(_, parent)| parent);
            json!({ "op": "move", "from": pointer(path), "path": format!("{}/{key}", pointer(parent)) })
        }
    });
    Json::Array(operations.collect())
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &[Step]) -> String {
    let steps = path.iter().map(|step| match step {
        Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Step::Item(index) => format!("/{index}"),
    });
    steps.collect()
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = bytes.chunks(3).flat_map(|chunk| {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        (0..4).map(move |index| {
            if index > chunk.len() { '=' } else { char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]) }
        })
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn what_is_no_review_is_refused() {
        for (body, said) in [
            ("{", "no JSON"),
            ("{}", "no AdmissionReview"),
            (r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#, "no AdmissionReview"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":""}}"#, "request.uid"),
        ] {
            let error = review(body.as_bytes(), &Options::default(), Policy::Allow).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    fn answer(object: &Json, policy: Policy) -> Json {
        let body = json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "request": {
            "uid": "u-1", "kind": { "kind": "Pod" }, "namespace": "shop", "operation": "CREATE", "object": object } });
        serde_json::from_str(&review(body.to_string().as_bytes(), &Options::default(), policy).unwrap()).unwrap()
    }

    #[test]
    fn a_pod_that_cannot_carry_it_is_told_or_refused() {
        let pod = json!({ "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "outrigger" }] } });
        let open = answer(&pod, Policy::Allow);
        assert_eq!(open["response"]["allowed"], true);
        assert!(
            open["response"]["warnings"][0].as_str().unwrap().contains("the pod a in shop starts without a sidecar")
        );
        let closed = answer(&pod, Policy::Deny);
        assert_eq!(
            (&closed["response"]["allowed"], &closed["response"]["status"]["code"]),
            (&json!(false), &json!(422))
        );
        assert_eq!(closed["response"]["uid"], "u-1");
    }

    #[test]
    fn what_has_a_sidecar_or_wants_none_stays() {
        for annotations in [json!({ "outrigger/injected": "{}" }), json!({ "outrigger/inject": "disabled" })] {
            let pod =
                json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [{ "name": "a" }] } });
            let response = &answer(&pod, Policy::Deny)["response"];
            assert!(response["allowed"] == true && response.get("patch").is_none(), "{response}");
        }
    }
}
