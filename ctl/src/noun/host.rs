//! `etnactl host`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use etna_store::seal::Keyring;
use etna_store::{Key, Model};
use http::Method;
use serde_json::{Map, Value, json};

use super::{Done, Write, add, given, remove, table, text, upsert, with_remedy};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{Output, complain_softly, leaves};
use crate::pair::{self, SealKeyFile, Told};
use crate::store;

/// What can be done with hosts.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// List them; with a seal key also what their certificates say.
    #[command(after_help = "Example:\n  etnactl host ls --seal-key /etc/etna/seal-key")]
    Ls(SealKeyFile),
    /// Show one; with a seal key also what its certificate says. Never its private key.
    #[command(after_help = "Example:\n  etnactl host show blog.example.com")]
    Show(Show),
    /// Create one, or replace all of one: what is not given is removed, its certificate too.
    Upsert(Box<Upsert>),
    /// Delete one.
    #[command(after_help = "Example:\n  etnactl host rm blog.example.com")]
    Rm(Named),
}

/// Names one host: `a.example.com` or `--name a.example.com`.
#[derive(Args)]
pub(crate) struct Named {
    /// Its name.
    #[arg(value_name = "NAME", required_unless_present = "name", conflicts_with = "name")]
    host: Option<String>,
    /// Its name, as vctl wants it.
    #[arg(long, alias = "id", value_name = "NAME")]
    name: Option<String>,
}

/// Flags of `host show`.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    seal_key: SealKeyFile,
}

/// Flags of `host upsert`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    etnactl host upsert --name blog.example.com --seal-key /etc/etna/seal-key \\\n      \
        --cert blog.pem --private-key blog-key.pem\n  \
    etnactl host upsert --name shop.example.com --acme-email you@example.com")]
pub(crate) struct Upsert {
    /// Its name: a.example.com, or *.example.com for all names one label longer.
    #[arg(long, alias = "id")]
    name: String,
    /// PEM file of its certificate and the chain.
    #[arg(long, value_name = "FILE", requires = "private_key")]
    cert: Option<PathBuf>,
    /// PEM file of the certificate's private key; it is sealed before it is sent.
    #[arg(long, alias = "privateKey", value_name = "FILE", requires = "cert")]
    private_key: Option<PathBuf>,
    #[command(flatten)]
    seal_key: SealKeyFile,
    /// Its certificate serves names that no other host has.
    #[arg(long)]
    default: bool,
    /// Get its certificate by ACME; so do the flags that begin with acme.
    #[arg(long)]
    acme: bool,
    /// Whom the authority may write to.
    #[arg(long, value_name = "ADDRESS")]
    acme_email: Option<String>,
    /// URL of the authority's directory [default: the proxy's].
    #[arg(long, value_name = "URL")]
    acme_directory: Option<String>,
    /// How it is shown that the name is ours.
    #[arg(long, value_parser = ["any", "http-01", "tls-alpn-01"])]
    acme_challenge: Option<String>,
    /// How long before its end a certificate is renewed at the latest, such as 720h.
    #[arg(long, value_name = "DURATION")]
    acme_renew_before: Option<String>,
    /// Staple proof that the certificate is not revoked.
    #[arg(long)]
    ocsp: bool,
    /// How often that proof is fetched.
    #[arg(long, alias = "ocspPeriod", value_name = "DURATION", requires = "ocsp")]
    ocsp_period: Option<String>,
    /// Whom to ask for it, instead of whom the certificate names; may be given more than once.
    #[arg(long, alias = "ocspResponder", value_name = "URL", requires = "ocsp")]
    ocsp_responder: Vec<String>,
    /// Believe that proof unseen.
    #[arg(long, alias = "ocspSkipCheck", requires = "ocsp")]
    ocsp_skip_check: bool,
}

impl Named {
    /// As keys have it.
    fn name(&self) -> String {
        self.host.as_deref().or(self.name.as_deref()).unwrap_or_default().to_lowercase()
    }
}

/// Does it.
pub(crate) async fn run(client: &Client, output: &Output, verb: &Verb) -> Done {
    match verb {
        Verb::Ls(seal_key) => {
            let mut answer = client.get("/v2/hosts").await?;
            let mut hosts = answer["Hosts"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let certificates = certificates(client, seal_key.ring()?).await?;
            for host in &mut hosts {
                with_certificate(host, certificates.as_ref());
            }
            if output.is_json() {
                output.json(&hosts.into());
                return Ok(ExitCode::SUCCESS);
            }
            let columns = [
                ("NAME", "Name"),
                ("DEFAULT", "Settings.Default"),
                ("CERTIFICATE", "From"),
                ("UNTIL", "Certificate.Until"),
                ("NAMES", "Certificate.Names"),
                ("ISSUER", "Certificate.Issuer"),
            ];
            hosts.iter_mut().for_each(|host| host["From"] = from(host).into());
            table(output, &hosts, &columns);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Show(flags) => {
            let name = flags.named.name();
            let key = Key::Host(name.as_str().into());
            let path = format!("/v2/hosts/{}", segment(&name));
            let mut host = client.get(&path).await.map_err(|failure| with_remedy(failure, &key))?;
            with_certificate(&mut host, certificates(client, flags.seal_key.ring()?).await?.as_ref());
            if output.is_json() {
                output.json(&host);
            } else {
                output.facts(&leaves(&host).into_iter().map(|(name, text)| (name, text, None)).collect::<Vec<_>>());
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Rm(named) => {
            let name = named.name();
            remove(client, output, &format!("/v2/hosts/{}", segment(&name)), &Key::Host(name.as_str().into())).await
        }
        Verb::Upsert(flags) => {
            let body = json!({ "Host": flags.object()? });
            let key = Key::Host(flags.name.to_lowercase().into());
            let write = Write { method: Method::POST, path: "/v2/hosts", body: &body, key, field: Some("Host") };
            upsert(client, output, write).await
        }
    }
}

impl Upsert {
    fn object(&self) -> Result<Value, Failure> {
        let mut settings =
            given([("Default", self.default.then_some(Value::Bool(true))), ("KeyPair", self.key_pair()?)]);
        let acme = given([
            ("Email", text(&self.acme_email)),
            ("Directory", text(&self.acme_directory)),
            ("Challenge", text(&self.acme_challenge)),
            ("RenewBefore", text(&self.acme_renew_before)),
        ]);
        if self.acme || !acme.is_empty() {
            settings.insert("Acme".into(), Value::Object(acme));
        }
        let ocsp = given([
            ("Enabled", self.ocsp.then_some(Value::Bool(true))),
            ("Period", text(&self.ocsp_period)),
            ("Responders", (!self.ocsp_responder.is_empty()).then(|| json!(self.ocsp_responder))),
            ("SkipSignatureCheck", self.ocsp_skip_check.then_some(Value::Bool(true))),
        ]);
        add(&mut settings, "OCSP", ocsp);
        let mut host: Map<String, Value> = given([("Name", Some(json!(self.name)))]);
        add(&mut host, "Settings", settings);
        Ok(host.into())
    }

    /// The key pair of the files, sealed, as a host's setting has it.
    fn key_pair(&self) -> Result<Option<Value>, Failure> {
        let (Some(cert), Some(key)) = (&self.cert, &self.private_key) else { return Ok(None) };
        let ring = self.seal_key.needed()?;
        let pair = pair::read(cert, key)?;
        let told = Told::of(&pair).map_err(|reason| Failure::refused(format!("{}: {reason}", cert.display())))?;
        if told.expired {
            complain_softly(&format!("the certificate has expired on {}", told.until));
        }
        if !told.covers(&self.name) {
            let names = told.names.join(", ");
            complain_softly(&format!("the certificate is not for {}: it is for {names}", self.name));
        }
        pair::sealed(&ring, &pair).map(Some)
    }
}

/// What the certificates of all hosts say, by name; `None` without a seal key.
async fn certificates(client: &Client, ring: Option<Keyring>) -> Result<Option<BTreeMap<String, Value>>, Failure> {
    let Some(ring) = ring else { return Ok(None) };
    let engine = client.engine().await?;
    // The API never shows what is sealed.
    let snapshot = engine.snapshot().await.map_err(|error| store::failed(&*engine, "cannot read", &error))?;
    let mut model = Model::default();
    model.apply(&snapshot);
    let told = model.hosts().filter_map(|host| {
        let opened = ring.open(host.key_pair.as_deref()?).map_err(|error| error.to_string());
        let told = opened.and_then(|pair| Told::of(&pair));
        Some((host.name.to_string(), told.map_or_else(|error| json!({ "Until": error }), |told| told.json())))
    });
    Ok(Some(told.collect()))
}

fn with_certificate(host: &mut Value, certificates: Option<&BTreeMap<String, Value>>) {
    let told = host["Name"].as_str().and_then(|name| certificates?.get(name)).cloned();
    match (told, host["Certificate"]["NotAfter"].as_str().map(str::to_owned)) {
        (Some(Value::Object(told)), Some(_)) if host["Certificate"].is_object() => {
            told.into_iter().for_each(|(name, value)| host["Certificate"][name] = value);
        }
        (Some(told), _) => host["Certificate"] = told,
        // What the proxy has in force: the key pair that is stored, unless that is bad, or what ACME gave it.
        (None, Some(until)) => host["Certificate"]["Until"] = until.into(),
        (None, None) => {}
    }
}

/// Where its certificate comes from. A key pair goes before ACME.
fn from(host: &Value) -> &'static str {
    let settings = &host["Settings"];
    if host["Certificate"]["Source"] == "acme" {
        return "acme";
    }
    match (settings["HasKeyPair"].as_bool().unwrap_or(false), settings["Acme"].is_object()) {
        (true, _) => "stored",
        (false, true) => "acme",
        (false, false) => "none",
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
    fn flags_are_settings() {
        assert_eq!(object("--name a.test"), json!({ "Name": "a.test" }));
        assert_eq!(
            object("--name a.test --default --acme-email a@b.test --acme-challenge http-01"),
            json!({ "Name": "a.test", "Settings": {
                "Default": true, "Acme": { "Email": "a@b.test", "Challenge": "http-01" }
            } })
        );
        assert_eq!(object("--name a --acme")["Settings"], json!({ "Acme": {} }));
        let vctls = "--name a --ocsp --ocspPeriod 2h --ocspResponder http://r --ocspSkipCheck";
        assert_eq!(
            object(vctls)["Settings"]["OCSP"],
            json!({ "Enabled": true, "Period": "2h", "Responders": ["http://r"], "SkipSignatureCheck": true })
        );
        assert!(Line::try_parse_from(["upsert", "--name", "a", "--cert", "c"]).is_err());
    }

    #[test]
    fn where_a_certificate_comes_from() {
        for (settings, expected) in [
            (json!({ "HasKeyPair": true, "Acme": {} }), "stored"),
            (json!({ "HasKeyPair": false, "Acme": {} }), "acme"),
            (json!({ "HasKeyPair": false }), "none"),
        ] {
            assert_eq!(from(&json!({ "Settings": settings })), expected);
        }
        let mut host = json!({ "Name": "a", "Settings": { "HasKeyPair": true }, "Certificate": { "Source": "acme", "NotAfter": "then" } });
        assert_eq!(from(&host), "acme");
        with_certificate(&mut host, None);
        assert_eq!(host["Certificate"]["Until"], "then");
        let mut host = json!({ "Name": "a" });
        with_certificate(&mut host, None);
        assert_eq!(host, json!({ "Name": "a" }));
        with_certificate(&mut host, Some(&BTreeMap::from([("a".into(), json!({ "Until": "2027-01-01" }))])));
        assert_eq!(host["Certificate"]["Until"], "2027-01-01");
        let mut host = json!({ "Name": "a", "Certificate": { "Source": "key pair", "NotAfter": "then" } });
        with_certificate(&mut host, Some(&BTreeMap::from([("a".into(), json!({ "Until": "2027-01-01" }))])));
        let expected = json!({ "Source": "key pair", "NotAfter": "then", "Until": "2027-01-01" });
        assert_eq!(host["Certificate"], expected, "what is in force, and what is stored");
    }
}
