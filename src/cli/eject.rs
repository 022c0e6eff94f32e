//! `outrigger eject`: the sidecar out of Kubernetes manifests.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::manifests;
use crate::kubernetes;

/// Take the sidecar out of Kubernetes manifests: what `inject` was given comes back, byte for byte.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  outrigger eject injected.yaml > app.yaml
  kubectl get deployment orders -o yaml | outrigger eject | kubectl apply -f -

Exit codes: 0 done, 1 a file cannot be read, 2 usage")]
pub struct EjectArgs {
    /// Manifests, or - for standard input, which is read where none is named
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Takes it out.
///
/// # Errors
///
/// Where the manifests cannot be written.
pub fn eject(args: &EjectArgs, output: &mut dyn Write) -> io::Result<u8> {
    manifests::change(&args.files, output, kubernetes::eject)
}
