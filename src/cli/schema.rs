//! `outrigger schema`: the JSON Schema of the configuration.

use std::io::{self, Write};

use clap::Args;

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
    writeln!(output, "{:#}", crate::config::schema::json_schema())?;
    Ok(0)
}
