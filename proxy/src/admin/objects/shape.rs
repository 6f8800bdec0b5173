//! Objects as vulcand's JSON: its names, its zero values, and our additions where they are not the default.

use std::time::Duration;

use etna_store::object::{
    Ajax, Backend, CheckKind, Checking, Frontend, HashOn, HealthCheck, Host, HttpVersion, HttpsMode, Listener,
    Middleware, Network, OnClientAbort, Policy, Protocol, Scheme, Server, ServerState, Site, Sticky,
};
use serde_json::{Map, Value, json};

mod tls;

/// A backend, its time limits with the defaults in force, but for `Read`: a site may say that.
pub(super) fn backend(backend: &Backend) -> Value {
    let mut fields = object(json!({
        "Id": &*backend.id,
        "Type": "http",
        "Settings": {
            "Timeouts": {
                "Read": backend.timeouts.read.map(duration).unwrap_or_default(),
                "Dial": duration(backend.timeouts.dial),
                "TLSHandshake": duration(backend.timeouts.tls_handshake),
            },
            "KeepAlive": {
                "Period": duration(backend.keep_alive.period),
                "MaxIdleConnsPerHost": backend.keep_alive.max_idle,
            },
            "TLS": backend.tls.as_deref().map(tls::backend),
        },
    }));
    if backend.protocol != HttpVersion::default() {
        fields["Settings"]["Protocol"] = backend.protocol.name().into();
    }
    if let Some(version) = backend.proxy_protocol {
        fields["Settings"]["ProxyProtocol"] = version.name().into();
    }
    if backend.policy != Policy::default() {
        add(&mut fields, "Policy", backend.policy.name());
    }
    if backend.hash_on != HashOn::default() {
        add(&mut fields, "HashOn", backend.hash_on.text());
    }
    let usual = Backend::implicit(backend.id.clone());
    let idle = Some(backend.timeouts.idle).filter(|idle| *idle != usual.timeouts.idle);
    for (name, limit) in [("Idle", idle), ("Total", backend.timeouts.total)] {
        if let Some(limit) = limit {
            fields["Settings"]["Timeouts"][name] = duration(limit).into();
        }
    }
    for (name, value, usual) in
        [("SlowStart", backend.slow_start, usual.slow_start), ("DrainTimeout", backend.drain, usual.drain)]
    {
        if value != usual {
            add(&mut fields, name, duration(value));
        }
    }
    if let Some(limit) = &backend.limit {
        let limit = json!({ "Requests": limit.requests, "Queue": limit.queue, "Wait": duration(limit.wait) });
        add(&mut fields, "Limit", limit);
    }
    if let Some(sticky) = &backend.sticky {
        add(&mut fields, "Sticky", self::sticky(sticky));
    }
    match &backend.health_check {
        Checking::Preset => {}
        Checking::Off => add(&mut fields, "HealthCheck", false),
        Checking::Own(check) => add(&mut fields, "HealthCheck", health_check(check)),
    }
    fields.into()
}

/// A server.
pub(super) fn server(server: &Server) -> Value {
    let mut fields = object(json!({ "Id": &*server.id, "URL": url(server) }));
    if server.weight != 1 {
        add(&mut fields, "Weight", server.weight);
    }
    if server.priority != 1 {
        add(&mut fields, "Priority", server.priority);
    }
    if let Some(zone) = &server.zone {
        add(&mut fields, "Zone", zone.as_str());
    }
    if server.state == ServerState::Draining {
        add(&mut fields, "State", "draining");
    }
    if !server.meta.is_empty() {
        add(&mut fields, "Meta", json!(server.meta));
    }
    fields.into()
}

/// A frontend; one that was derived from a site says so.
pub(super) fn frontend(frontend: &Frontend) -> Value {
    let settings = &frontend.settings;
    let mut fields = object(json!({
        "Id": &*frontend.id,
        "Route": frontend.route,
        "Type": "http",
        "BackendId": &*frontend.backend,
        "Settings": {
            "Limits": { "MaxMemBodyBytes": 0, "MaxBodyBytes": settings.limits.max_body_bytes.unwrap_or(0) },
            "FailoverPredicate": settings.failover_predicate.as_deref().unwrap_or_default(),
            "Hostname": settings.hostname.as_deref().unwrap_or_default(),
            "TrustForwardHeader": settings.trust_forward_header,
            "PassHostHeader": settings.pass_host_header,
        },
    }));
    if frontend.priority != 0 {
        add(&mut fields, "Priority", frontend.priority);
    }
    if let Some(sticky) = &frontend.sticky {
        add(&mut fields, "Sticky", self::sticky(sticky));
    }
    if frontend.on_client_abort == OnClientAbort::Continue {
        add(&mut fields, "OnClientAbort", "continue");
    }
    if frontend.https != HttpsMode::Off {
        add(&mut fields, "Https", frontend.https.name());
    }
    if frontend.hsts > 0 {
        add(&mut fields, "Hsts", frontend.hsts);
    }
    if let Some(status) = frontend.deny {
        add(&mut fields, "Deny", status);
    }
    if let Some(site) = &frontend.site {
        add(&mut fields, "Site", &**site);
    }
    fields.into()
}

/// A middleware with its settings as stored.
pub(super) fn middleware(middleware: &Middleware) -> Value {
    let settings: Value = serde_json::from_str(middleware.settings.get()).unwrap_or_default();
    json!({
        "Id": &*middleware.id,
        "Priority": middleware.priority,
        "Type": middleware.kind,
        "Middleware": settings,
    })
}

/// A host. Never its private key, sealed or not: only whether it has one.
pub(super) fn host(host: &Host) -> Value {
    let mut settings = object(json!({
        "Default": host.default,
        "KeyPair": null,
        "HasKeyPair": host.key_pair.is_some(),
        "OCSP": tls::ocsp(&host.ocsp),
    }));
    if let Some(acme) = &host.acme {
        add(&mut settings, "Acme", tls::acme(acme));
    }
    json!({ "Name": &*host.name, "Settings": settings })
}

pub(super) use tls::certificate;

/// A listener.
pub(super) fn listener(listener: &Listener) -> Value {
    let protocol = match listener.protocol {
        Protocol::Http => "http",
        Protocol::Https => "https",
    };
    let network = match listener.network {
        Network::Tcp => "tcp",
        Network::Unix => "unix",
    };
    let mut fields = object(json!({
        "Id": &*listener.id,
        "Protocol": protocol,
        "Address": { "Network": network, "Address": listener.address },
        "Scope": listener.scope.as_deref().unwrap_or_default(),
        "Settings": tls::listener(listener),
    }));
    tls::proxy_protocol(&mut fields, listener.proxy_protocol.as_deref());
    fields.into()
}

/// A site.
pub(super) fn site(site: &Site) -> Value {
    let ajax = match site.ajax {
        Ajax::Admin => "admin",
        Ajax::Public => "public",
        Ajax::Auto => "auto",
    };
    let mut fields = object(json!({
        "Id": &*site.id,
        "Preset": "wordpress",
        "Hosts": site.hosts,
        "Public": &*site.public,
        "Admin": site.admin.as_deref(),
        "Ajax": ajax,
        "UploadsFallback": site.uploads_fallback,
        "Sticky": sticky(&site.sticky),
        "Https": site.https.name(),
        "Hsts": site.hsts,
        "Timeouts": {
            "Public": duration(site.timeouts.public),
            "Admin": duration(site.timeouts.admin),
            "Cron": duration(site.timeouts.cron),
        },
    }));
    if let Some(acme) = &site.acme {
        add(&mut fields, "Acme", tls::acme(acme));
    }
    fields.into()
}

/// A server's URL as it is stored.
pub(in super::super) fn url(server: &Server) -> String {
    let scheme = match server.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    match server.host.contains(':') {
        true => format!("{scheme}://[{}]:{}", server.host, server.port),
        false => format!("{scheme}://{}:{}", server.host, server.port),
    }
}

/// A check with the settings in force, so that it can be stored as it is shown.
fn health_check(check: &HealthCheck) -> Value {
    let mut fields = object(json!({
        "Type": match check.kind {
            CheckKind::Http => "http",
            CheckKind::Tcp => "tcp",
            CheckKind::WordPress => "wordpress",
        },
        "Interval": duration(check.interval),
        "Timeout": duration(check.timeout),
        "Rise": check.rise,
        "Fall": check.fall,
    }));
    if check.kind != CheckKind::Tcp {
        add(&mut fields, "Path", check.path.as_str());
    }
    if check.kind == CheckKind::Http {
        let ranges: Vec<String> =
            check.expect.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
        add(&mut fields, "Method", check.method.as_str());
        add(&mut fields, "Expect", ranges.join(","));
    }
    for (name, text) in [("Host", &check.host), ("Body", &check.body), ("NotBody", &check.not_body)] {
        if let Some(text) = text {
            add(&mut fields, name, text.as_str());
        }
    }
    if let Some(port) = check.port {
        add(&mut fields, "Port", port);
    }
    fields.into()
}

fn sticky(sticky: &Sticky) -> Value {
    match &sticky.cookie {
        Some(cookie) => json!({ "Cookie": cookie }),
        None => true.into(),
    }
}

fn duration(duration: Duration) -> String {
    etna_store::duration::format(duration)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn add(fields: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    fields.insert(name.to_owned(), value.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_shown_as_it_is_in_force_and_can_be_stored_again() {
        let read = |text: &str| Backend::decode("b".into(), text.as_bytes(), &mut Vec::new()).unwrap();
        let plain = backend(&read(r#"{"Type":"http"}"#));
        assert_eq!(plain["Settings"]["Timeouts"], json!({ "Read": "", "Dial": "5s", "TLSHandshake": "10s" }));
        assert!(plain.get("Sticky").is_none());
        let written = read(r#"{"Type":"http","Settings":{"Timeouts":{"Idle":"7s","Total":"2m"}},"Sticky":true}"#);
        let shown = backend(&written);
        assert_eq!(shown["Settings"]["Timeouts"]["Idle"], "7s");
        assert_eq!(shown["Settings"]["Timeouts"]["Total"], "2m0s");
        assert_eq!(shown["Sticky"], true);
        assert_eq!(read(&shown.to_string()), written);
        let written = read(r#"{"Type":"http","Settings":{"ProxyProtocol":"PROXY_V2"}}"#);
        assert_eq!(read(&backend(&written).to_string()), written);
    }

    #[test]
    fn what_a_listener_expects_is_shown_and_can_be_stored_again() {
        let read = |more: &str| {
            let text = format!(r#"{{"Protocol":"http","Address":{{"Network":"tcp","Address":":80"}}{more}}}"#);
            Listener::decode("l".into(), text.as_bytes(), &mut Vec::new()).unwrap()
        };
        assert_eq!(listener(&read(""))["ProxyProtocol"], "");
        let written = read(
            r#","ProxyProtocol":"PROXY","ProxyProtocolRequired":true,"ProxyProtocolFrom":["10.0.0.0/8","::1/128"]"#,
        );
        let shown = listener(&written).to_string();
        assert_eq!(Listener::decode("l".into(), shown.as_bytes(), &mut Vec::new()).unwrap(), written);
    }
}
