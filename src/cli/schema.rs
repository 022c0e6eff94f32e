//! `outrigger schema`: the JSON Schema of the configuration.

use std::io::{self, Write};

use clap::Args;

/// What [`json_schema`](crate::config::schema::json_schema) makes of the types, made beforehand: what makes it would be 0.4
/// MB of the program.
const SCHEMA: &str = include_str!("../config/schema.json");

/// Print the JSON Schema of the configuration, for completion in editors.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  outrigger schema > outrigger.schema.json
  and as the first line of outrigger.yaml, for editors with the YAML language server:
  # yaml-language-server: $schema=outrigger.schema.json")]
pub struct SchemaArgs {}

/// Writes the schema.
///
/// # Errors
///
/// Where it cannot be written.
pub fn schema(_: &SchemaArgs, output: &mut dyn Write) -> io::Result<u8> {
    output.write_all(SCHEMA.as_bytes())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_and_has_an_example() {
        let mut output = Vec::new();
        assert_eq!(schema(&SchemaArgs {}, &mut output).unwrap(), 0);
        let schema: serde_json::Value = serde_json::from_slice(&output).unwrap();
        assert_eq!(schema["properties"]["listeners"]["type"], "object");
        let mut command = SchemaArgs::augment_args(clap::Command::new("schema"));
        assert!(command.render_long_help().to_string().contains("outrigger schema >"));
    }
}
