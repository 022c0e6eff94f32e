//! What `%{…}` stands for in one request.

use super::header_rules::Variables;
use super::record::Record;
use crate::config::template::Variable;
use crate::proxy::forwarded::Client;

/// The values of one request.
pub(crate) struct RequestVariables<'a> {
    pub(crate) record: &'a Record,
    pub(crate) client: Client,
    pub(crate) client_port: Option<u16>,
    pub(crate) scheme: &'a str,
}

impl Variables for RequestVariables<'_> {
    fn write(&self, variable: &Variable, value: &mut Vec<u8>) {
        use std::io::Write as _;
        let record = self.record;
        let listener = record.listener();
        match variable {
            Variable::ClientAddress => {
                if let Some(address) = self.client.address {
                    let _ = write!(value, "{address}");
                }
            }
            Variable::ClientPort => {
                if let Some(port) = self.client_port {
                    value.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
                }
            }
            Variable::ClientIdentity => {
                value.extend_from_slice(record.client_identity().unwrap_or_default().as_bytes());
            }
            Variable::ClientTls => value.extend_from_slice(record.client_tls().unwrap_or_default().as_bytes()),
            Variable::RequestId => value.extend_from_slice(record.request_id.as_str().as_bytes()),
            Variable::RequestMethod => value.extend_from_slice(record.method().as_str().as_bytes()),
            Variable::RequestHost => {
                if let Some(host) = record.host() {
                    value.extend_from_slice(host.as_bytes());
                }
            }
            Variable::RequestPath => value.extend_from_slice(record.uri().path().as_bytes()),
            Variable::RequestScheme => value.extend_from_slice(self.scheme.as_bytes()),
            Variable::RequestHeader(_) => {} // The rules look these up themselves.
            Variable::TraceId => value.extend_from_slice(record.trace.trace_id().as_bytes()),
            Variable::Listener => value.extend_from_slice(listener.name.as_bytes()),
            Variable::Route => {
                if let Some(route) = record.route {
                    value.extend_from_slice(listener.routes[route].name.as_bytes());
                }
            }
            Variable::Upstream => {
                value.extend_from_slice(record.upstream_name.as_deref().unwrap_or_default().as_bytes());
            }
            Variable::Endpoint => {
                if let Some(endpoint) = &record.endpoint {
                    value.extend_from_slice(endpoint.label.as_bytes());
                }
            }
            Variable::Service => {
                value.extend_from_slice(record.generation().snapshot.service.as_deref().unwrap_or_default().as_bytes());
            }
        }
    }
}
