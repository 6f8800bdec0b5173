//! What objects say about TLS, ACME and the PROXY protocol, as they can be sent again. Never a private key, sealed or
//! not: only whether there is one.

use std::sync::Arc;

use etna_store::object::{
    Acme, BackendTls, Challenge, Listener, Ocsp, Protocol, ProxyProtocol, TlsPolicy, TlsSettings, UnknownHost,
};
use serde_json::{Map, Value, json};

use super::{add, duration, object};
use crate::acme::due::Task;
use crate::acme::{Settings, Subject, due, names};
use crate::tls::certificate::Certificate;

/// `Settings.TLS` of a backend.
pub(super) fn backend(tls: &BackendTls) -> Value {
    let mut fields = settings(&tls.settings);
    if let Some(ca) = &tls.ca {
        add(&mut fields, "CA", ca.as_str());
    }
    if let Some(name) = &tls.server_name {
        add(&mut fields, "ServerName", name.as_str());
    }
    if tls.key_pair.is_some() {
        add(&mut fields, "KeyPair", Value::Null);
        add(&mut fields, "HasKeyPair", true);
    }
    fields.into()
}

/// `Settings` of a listener; null where all is as by default.
pub(super) fn listener(listener: &Listener) -> Value {
    let mut fields = Map::new();
    if let Some(tls) = &listener.tls {
        add(&mut fields, "TLS", settings(tls));
    }
    if listener.unknown_host != UnknownHost::default() {
        add(&mut fields, "UnknownHost", listener.unknown_host.name());
    }
    if let Some(auth) = &listener.client_auth {
        let mode = if auth.required { "require" } else { "optional" };
        add(&mut fields, "ClientAuth", json!({ "Mode": mode, "CA": auth.ca, "Headers": auth.headers }));
    }
    if listener.protocol == Protocol::Https && !listener.http2 {
        add(&mut fields, "HTTP2", false);
    }
    if listener.h2c {
        add(&mut fields, "H2C", true);
    }
    if fields.is_empty() { Value::Null } else { fields.into() }
}

/// A listener's fields about the PROXY protocol: vulcand's always, ours where they say something.
pub(super) fn proxy_protocol(fields: &mut Map<String, Value>, proxy: Option<&ProxyProtocol>) {
    add(fields, "ProxyProtocol", proxy.map_or("", |proxy| proxy.versions.name()));
    let Some(proxy) = proxy else { return };
    if proxy.required {
        add(fields, "ProxyProtocolRequired", true);
    }
    if !proxy.from.is_empty() {
        let from: Vec<String> = proxy.from.iter().map(ToString::to_string).collect();
        add(fields, "ProxyProtocolFrom", from);
    }
}

/// A host's `Settings.Acme`, also of what vulcand calls `AutoCert`.
pub(super) fn acme(acme: &Acme) -> Value {
    let mut fields = Map::new();
    for (name, text) in [("Email", &acme.email), ("Directory", &acme.directory)] {
        if let Some(text) = text {
            add(&mut fields, name, text.as_str());
        }
    }
    if acme.challenge != Challenge::default() {
        add(&mut fields, "Challenge", acme.challenge.name());
    }
    if let Some(before) = acme.renew_before {
        add(&mut fields, "RenewBefore", duration(before));
    }
    fields.into()
}

/// A host's certificate in force, and what is done about the next one. Nothing for a host that has neither.
pub(in crate::admin::objects) fn certificate(
    certificate: Option<&Arc<Certificate>>,
    subject: Option<&Subject>,
    settings: &Settings,
) -> Option<Value> {
    let mut fields = Map::new();
    if let Some(certificate) = certificate {
        add(&mut fields, "Source", certificate.source.name());
        add(&mut fields, "Issuer", certificate.issuer.as_str());
        add(&mut fields, "NotBefore", httpdate::fmt_http_date(certificate.not_before));
        add(&mut fields, "NotAfter", httpdate::fmt_http_date(certificate.not_after));
        let names: Vec<&str> = certificate.names.iter().map(|name| &**name).collect();
        add(&mut fields, "Names", names);
        add(&mut fields, "Fingerprint", certificate.fingerprint.as_str());
    }
    if let Some(subject) = subject {
        let directory = settings.directory(&subject.acme);
        let (at, task) = due::next(subject, directory);
        let mut acme = object(json!({ "Directory": directory, "Working": subject.is_claimed }));
        if subject.record.issued > 0 {
            add(&mut acme, "Issued", httpdate::fmt_http_date(names::time(subject.record.issued)));
        }
        let next = if at <= std::time::SystemTime::now() { "now".to_owned() } else { httpdate::fmt_http_date(at) };
        add(&mut acme, if task == Task::Ask { "NextQuestion" } else { "NextOrder" }, next);
        let failures = subject.record.failures_with(&subject.acme, directory);
        if failures > 0 {
            add(&mut acme, "Failures", failures);
            add(&mut acme, "Reason", subject.record.reason.as_str());
        }
        add(&mut fields, "Acme", acme);
    }
    (!fields.is_empty()).then(|| fields.into())
}

/// A host's `Settings.OCSP`.
pub(super) fn ocsp(ocsp: &Ocsp) -> Value {
    json!({
        "Enabled": ocsp.enabled,
        "Period": duration(ocsp.period),
        "Responders": ocsp.responders,
        "SkipSignatureCheck": ocsp.skip_signature_check,
    })
}

fn settings(tls: &TlsSettings) -> Map<String, Value> {
    let cache = tls.session_cache.map(|capacity| json!({ "Type": "LRU", "Settings": { "Capacity": capacity } }));
    let suites = tls.suites.as_ref().map(|suites| suites.iter().map(|suite| suite.name()).collect::<Vec<_>>());
    let mut fields = object(json!({
        "PreferServerCipherSuites": tls.prefer_server_suites,
        "InsecureSkipVerify": tls.insecure_skip_verify,
        "SessionTicketsDisabled": !tls.tickets,
        "SessionCache": cache,
        "CipherSuites": suites,
        "MinVersion": tls.min.name(),
        "MaxVersion": tls.max.name(),
    }));
    if tls.policy != TlsPolicy::default() {
        add(&mut fields, "Policy", tls.policy.name());
    }
    fields
}

#[cfg(test)]
mod tests {
    use etna_store::object::{Backend, Host};

    use super::*;

    const CA: &str = r"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    #[test]
    fn what_a_listener_says_can_be_stored_again() {
        let tls = r#""TLS":{"Policy":"modern","SessionTicketsDisabled":true,"PreferServerCipherSuites":true,
            "SessionCache":{"Settings":{"Capacity":7}},"CipherSuites":["TLS_AES_128_GCM_SHA256"]}"#;
        let auth = format!(r#""ClientAuth":{{"Mode":"optional","CA":"{CA}","Headers":true}}"#);
        let proxy = r#""ProxyProtocol":"PROXY","ProxyProtocolRequired":true,"ProxyProtocolFrom":["10.0.0.0/8"]"#;
        for (protocol, more) in [
            ("https", format!(r#""Settings":{{{tls},{auth},"UnknownHost":"refuse","HTTP2":false}},{proxy}"#)),
            ("https", r#""Settings":{"TLS":{"MaxVersion":"VersionTLS12"}},"ProxyProtocol":"PROXY_V2""#.into()),
            ("http", r#""Settings":{"H2C":true},"ProxyProtocol":"PROXY_V1""#.into()),
            ("http", r#""Settings":null"#.into()),
        ] {
            let text = format!(r#"{{"Protocol":"{protocol}","Address":{{"Network":"tcp","Address":":1"}},{more}}}"#);
            let read = |text: &str| Listener::decode("l".into(), text.as_bytes(), &mut Vec::new()).unwrap();
            let shown = super::super::listener(&read(&text));
            assert_eq!(read(&shown.to_string()), read(&text), "{shown}");
        }
    }

    #[test]
    fn what_a_backend_says_can_be_stored_again_but_its_key() {
        let text = format!(
            r#"{{"Type":"http","Settings":{{"Protocol":"h2","ProxyProtocol":"PROXY_V2","TLS":{{"CA":"{CA}","ServerName":"a.test",
            "InsecureSkipVerify":true,"CipherSuites":["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],"KeyPair":"c2VhbGVk"}}}}}}"#
        );
        let read = |text: &str| Backend::decode("b".into(), text.as_bytes(), &mut Vec::new()).unwrap();
        let shown = super::super::backend(&read(&text));
        assert_eq!(shown["Settings"]["TLS"]["HasKeyPair"], true);
        assert!(!shown.to_string().contains("c2VhbGVk"), "{shown}");
        assert_eq!(read(&shown.to_string()), read(&text.replace("c2VhbGVk", "")));
    }

    #[test]
    fn what_a_host_says_can_be_stored_again_but_its_key() {
        let text = r#"{"Settings":{"Default":true,"KeyPair":"c2VhbGVk","OCSP":{"Period":"2h","Responders":["http://r"]},
            "AutoCert":{"Email":"a@b.test","DirectoryURL":"https://ca.test/d","RenewBefore":3600000000000}}}"#;
        let read = |text: &str| Host::decode("*.a.test".into(), text.as_bytes(), &mut Vec::new()).unwrap();
        let one = |text: &str| Host::decode("a.test".into(), text.as_bytes(), &mut Vec::new()).unwrap();
        for read in [&read as &dyn Fn(&str) -> Host, &one] {
            let shown = super::super::host(&read(text));
            assert_eq!(shown["Settings"]["HasKeyPair"], true);
            assert!(!shown.to_string().contains("c2VhbGVk"), "{shown}");
            assert_eq!(read(&shown.to_string()), read(&text.replace("c2VhbGVk", "")));
        }
    }
}
