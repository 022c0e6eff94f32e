//! Who sends the exports: what the file says, before what the environment says.

use std::sync::OnceLock;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use percent_encoding::percent_decode_str;

use crate::telemetry::ids::Ids;

/// Variables that manifests fill from Kubernetes' downward API, and the attributes that they mean.
const DOWNWARD: [(&str, &str); 4] = [
    ("POD_NAME", "k8s.pod.name"),
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("POD_UID", "k8s.pod.uid"),
    ("NODE_NAME", "k8s.node.name"),
];

/// `service` is the file's; `attributes` are those of the signal's `resource`.
pub(in crate::telemetry) fn resource(
    service: Option<&str>,
    attributes: &[(String, String)],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Resource {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let mut pairs: Vec<(String, String)> = vec![
        ("service.name".to_owned(), concat!("unknown_service:", env!("CARGO_PKG_NAME")).to_owned()),
        ("service.instance.id".to_owned(), instance().to_owned()),
    ];
    for (name, attribute) in DOWNWARD {
        pairs.extend(variable(name).map(|value| (attribute.to_owned(), value)));
    }
    pairs.extend(list(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()));
    pairs.extend(variable("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name)));
    pairs.extend(service.map(|name| ("service.name".to_owned(), name.to_owned())));
    pairs.extend(attributes.iter().cloned());
    // Of a key that is there twice, the later one.
    let pairs = pairs.into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(pairs).build()
}

/// Tells this process from others of the service, whose counters would else be taken for one. The same for all signals.
fn instance() -> &'static str {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    INSTANCE.get_or_init(|| String::from_utf8_lossy(&Ids::new().uuid()).into_owned())
}

/// `key=value,key=value`, percent-encoded; of what is not in this form nothing.
pub(super) fn list(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    pairs.map(|(key, value)| (decoded(key), decoded(value))).filter(|(key, _)| !key.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the instance, which is another in each process.
    fn of(service: Option<&str>, attributes: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut pairs = all_of(service, attributes, variables);
        pairs.retain(|(key, value)| key != "service.instance.id" || value != instance());
        pairs
    }

    fn all_of(service: Option<&str>, attributes: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let attributes: Vec<(String, String)> =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let resource = resource(service, &attributes, &environment);
        let mut pairs: Vec<_> = resource.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        pairs.sort();
        pairs
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_process_is_an_instance() {
        let id = |variables: &[(&str, &str)]| {
            let mut pairs = all_of(None, &[], variables).into_iter();
            pairs.find_map(|(key, value)| (key == "service.instance.id").then_some(value)).unwrap()
        };
        assert_eq!((id(&[]).len(), id(&[])), (36, id(&[])));
        assert_eq!(id(&[("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=7")]), "7");
    }

    #[test]
    fn the_file_comes_before_the_environment() {
        assert_eq!(of(None, &[], &[]), pairs(&[("service.name", "unknown_service:outrigger")]));
        let environment = [
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=prod%20eu,nonsense,=x"),
            ("POD_NAME", "orders-7"),
            ("POD_NAMESPACE", ""),
        ];
        let there = [("deployment.environment.name", "prod eu"), ("k8s.pod.name", "orders-7"), ("service.name", "a")];
        assert_eq!(of(None, &[], &environment), pairs(&there));
        let named = [&environment[..], &[("OTEL_SERVICE_NAME", "b")]].concat();
        assert!(of(None, &[], &named).contains(&("service.name".to_owned(), "b".to_owned())));
        assert!(of(Some("c"), &[], &named).contains(&("service.name".to_owned(), "c".to_owned())));
        let file = [("k8s.pod.name", "mine")];
        assert!(of(Some("c"), &file, &named).contains(&("k8s.pod.name".to_owned(), "mine".to_owned())));
    }
}
