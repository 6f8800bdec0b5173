//! `etnactl listener`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use etna_store::Key;
use http::Method;
use serde_json::{Value, json};

use super::tls::TlsFlags;
use super::{Done, One, Write, add, given, list, pem, remove, show, text, upsert};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;

/// What can be done with listeners.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List them; those of etna's command line are in `etnactl status`.
    #[command(after_help = "Example:\n  etnactl listener ls")]
    Ls,
    /// Show one.
    #[command(after_help = "Example:\n  etnactl listener show extra")]
    Show(One),
    /// Create one, or replace all of one: what is not given is removed.
    Upsert(Box<Upsert>),
    /// Delete one: it drains.
    #[command(after_help = "Example:\n  etnactl listener rm extra")]
    Rm(One),
}

/// Flags of `listener upsert`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etnactl listener upsert --id extra --proto http --addr 0.0.0.0:8080")]
pub(crate) struct Upsert {
    /// Its id.
    #[arg(long)]
    id: String,
    /// What is spoken there.
    #[arg(long, value_name = "PROTOCOL", default_value = "http")]
    proto: String,
    /// What kind of address it has.
    #[arg(long, value_name = "NETWORK", default_value = "tcp")]
    net: String,
    /// Where to listen.
    #[arg(long, value_name = "IP:PORT")]
    addr: String,
    /// Rule that requests must match to be served here.
    #[arg(long, value_name = "RULE")]
    scope: Option<String>,
    #[command(flatten)]
    tls: TlsFlags,
    /// What a client gets over TLS that asks for a name of no host: the default host's certificate, or nothing.
    #[arg(long, value_parser = ["default", "refuse"])]
    unknown_host: Option<String>,
    /// PEM file of the authorities whose client certificates are believed.
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Whether clients must show a certificate.
    #[arg(long, value_parser = ["require", "optional"], requires = "client_ca")]
    client_auth: Option<String>,
    /// Tell servers who the client is, by its certificate.
    #[arg(long, requires = "client_ca")]
    client_headers: bool,
    /// Do not offer HTTP/2 over TLS.
    #[arg(long)]
    no_http2: bool,
    /// Understand HTTP/2 in the clear, with prior knowledge.
    #[arg(long)]
    h2c: bool,
    /// Header in front of connections: PROXY_V1, PROXY_V2, PROXY (either) or none.
    #[arg(long, visible_alias = "proxy-header", value_name = "VERSION")]
    proxy_protocol: Option<String>,
    /// Refuse connections without that header.
    #[arg(long, requires = "proxy_protocol")]
    proxy_protocol_required: bool,
    /// Who may send it [default: the trusted proxies of etna].
    #[arg(long, value_name = "CIDR", value_delimiter = ',', requires = "proxy_protocol")]
    proxy_protocol_from: Vec<String>,
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls => {
            let columns = [
                ("ID", "Id"),
                ("PROTOCOL", "Protocol"),
                ("NETWORK", "Address.Network"),
                ("ADDRESS", "Address.Address"),
                ("SCOPE", "Scope"),
            ];
            list(client, output, "/v2/listeners", "Listeners", &columns).await
        }
        Verb::Show(one) => {
            show(client, output, &format!("/v2/listeners/{}", one.segment()), &Key::Listener(one.id().into())).await
        }
        Verb::Rm(one) => {
            remove(client, output, &format!("/v2/listeners/{}", one.segment()), &Key::Listener(one.id().into())).await
        }
        Verb::Upsert(flags) => {
            let body = json!({ "Listener": flags.object()? });
            let key = Key::Listener(flags.id.as_str().into());
            let write =
                Write { method: Method::POST, path: "/v2/listeners", body: &body, key, field: Some("Listener") };
            upsert(client, output, write).await
        }
    }
}

impl Upsert {
    fn object(&self) -> Result<Value, Failure> {
        let set = |flag: bool| flag.then_some(Value::Bool(true));
        let client_auth = given([
            ("Mode", text(&self.client_auth)),
            ("CA", pem(self.client_ca.as_deref())?),
            ("Headers", set(self.client_headers)),
        ]);
        let mut settings = given([
            ("UnknownHost", text(&self.unknown_host)),
            ("HTTP2", self.no_http2.then_some(Value::Bool(false))),
            ("H2C", set(self.h2c)),
        ]);
        add(&mut settings, "TLS", self.tls.fields());
        add(&mut settings, "ClientAuth", client_auth);
        let mut listener = given([
            ("Id", Some(json!(self.id))),
            ("Protocol", Some(json!(self.proto))),
            ("Address", Some(json!({ "Network": self.net, "Address": self.addr }))),
            ("Scope", text(&self.scope)),
            ("ProxyProtocol", text(&self.proxy_protocol)),
            ("ProxyProtocolRequired", set(self.proxy_protocol_required)),
            ("ProxyProtocolFrom", (!self.proxy_protocol_from.is_empty()).then(|| json!(self.proxy_protocol_from))),
        ]);
        add(&mut listener, "Settings", settings);
        Ok(listener.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        upsert: Upsert,
    }

    fn object(line: &str) -> Value {
        Line::try_parse_from(std::iter::once("upsert").chain(line.split(' '))).unwrap().upsert.object().unwrap()
    }

    #[test]
    fn flags_are_fields() {
        let plain = json!({ "Id": "l", "Protocol": "http", "Address": { "Network": "tcp", "Address": ":1" } });
        assert_eq!(object("--id l --addr :1"), plain);
        let listener = object(
            "--id l --proto https --addr :1 --tlsMinV VersionTLS12 --tlsCS A --tlsCS B --tlsSessionTicketsOff \
             --tlsPreferServerCS --tlsSessionCache LRU --tls-policy modern --unknown-host refuse --no-http2 \
             --proxy-header PROXY_V1 --proxy-protocol-required --proxy-protocol-from 10.0.0.0/8,::1",
        );
        let tls = json!({
            "Policy": "modern", "MinVersion": "VersionTLS12", "CipherSuites": ["A", "B"],
            "PreferServerCipherSuites": true, "SessionTicketsDisabled": true,
            "SessionCache": { "Type": "LRU", "Settings": { "Capacity": 0 } },
        });
        assert_eq!(listener["Settings"], json!({ "TLS": tls, "UnknownHost": "refuse", "HTTP2": false }));
        assert_eq!(listener["ProxyProtocol"], "PROXY_V1");
        assert_eq!(listener["ProxyProtocolFrom"], json!(["10.0.0.0/8", "::1"]));
        assert_eq!(object("--id l --addr :1 --h2c")["Settings"], json!({ "H2C": true }));
    }
}
