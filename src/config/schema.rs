//! The JSON Schema of the configuration, for completion in editors.

use schemars::generate::SchemaSettings;
use schemars::{Schema, transform::transform_subschemas};
use serde_json::{Value, json};

use super::later;
use super::raw::Configuration;

/// The schema (draft 2020-12), made from the types that read the file.
///
/// It accepts whatever `check` accepts. What takes more than one key to know, `check` alone finds.
pub fn json_schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = Some("https://json-schema.org/draft/2020-12/schema".into());
    let mut schema = settings.into_generator().into_root_schema_for::<Configuration>();
    schema.insert("title".to_owned(), "Outrigger".into());
    let mut schema = schema.to_value();
    complete(&mut schema, "Configuration");
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        for (name, definition) in definitions {
            let name = if name == "UpstreamLong" { "Upstream".to_owned() } else { name.clone() };
            complete(definition, &name);
        }
    }
    let Ok(mut schema) = Schema::try_from(schema) else { return Value::Bool(true) };
    open_extensions(&mut schema);
    schema.to_value()
}

/// Adds the keys that are known and not there yet: shown by editors, and refused.
fn complete(schema: &mut Value, name: &str) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for key in later::keys(name) {
        properties
            .insert((*key).to_owned(), json!({ "not": {}, "description": "Known, but not in this version yet." }));
    }
}

/// Lets `x-…` keys stand wherever keys are ours.
fn open_extensions(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut()
        && object.get("additionalProperties") == Some(&Value::Bool(false))
    {
        object.insert("patternProperties".to_owned(), json!({ "^x-": true }));
    }
    transform_subschemas(&mut open_extensions, schema);
}
