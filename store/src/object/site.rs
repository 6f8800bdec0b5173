//! A site: one WordPress installation. Its expansion into frontends is `wordpress.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::backend::{USUAL_READ, limit};
use super::https::{HttpsMode, hsts, https};
use super::{Acme, Id, Sticky, at, host_name, not_in_force, word};
use crate::json::{self, Fields, Node, clip};
use crate::problem::Flaw;

/// `sites/<id>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// From the key.
    pub id: Id,
    /// Host names, in lower case; the first is the canonical one.
    pub hosts: Vec<String>,
    /// The backend of the public containers.
    pub public: Id,
    /// The backend of the admin containers; `None`: the public ones serve all.
    pub admin: Option<Id>,
    /// Where anonymous `admin-ajax.php` goes.
    pub ajax: Ajax,
    /// An upload that the public backend answers with 404 is asked of the admin backend once (default true).
    pub uploads_fallback: bool,
    /// Stickiness on the admin backend.
    pub sticky: Sticky,
    /// What happens to requests in the clear.
    pub https: HttpsMode,
    /// For how many seconds browsers are told to come by https only (`Strict-Transport-Security`, RFC 6797), said on
    /// answers over TLS; 0 (default): nothing is said.
    pub hsts: u32,
    /// How its hosts get certificates that have none of their own.
    pub acme: Option<Acme>,
    /// How long its servers have to begin an answer.
    pub timeouts: SiteTimeouts,
}

/// `Timeouts` of a site: until a server begins its answer, by what is asked. A backend's own `Timeouts.Read` wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteTimeouts {
    /// `Public`: what anybody may see, default 60 s.
    pub public: Duration,
    /// `Admin`: what those who log in do, default 5 m, as long as WordPress lets an update take.
    pub admin: Duration,
    /// `Cron`: default 5 m.
    pub cron: Duration,
}

impl Default for SiteTimeouts {
    fn default() -> SiteTimeouts {
        let long = Duration::from_secs(300);
        SiteTimeouts { public: USUAL_READ, admin: long, cron: long }
    }
}

/// Where anonymous requests to `admin-ajax.php` and `admin-post.php` go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ajax {
    /// The admin backend: correct everywhere.
    #[default]
    Admin,
    /// The public backend, where its containers run it.
    Public,
    /// The public backend, and where that answers 403 the admin backend.
    Auto,
}

impl Site {
    /// Reads `sites/<id>`, strictly: it is ours. `UploadsFallback`, `uploads_fallback` and `uploadsfallback` are one
    /// name.
    pub fn decode(id: Id, value: &[u8], notes: &mut Vec<Flaw>) -> Result<Site, Flaw> {
        let text = json::text(value)?;
        let fields = Node::parse(&text)?.fields()?.ours();
        let known: Vec<&str> =
            FIELDS.iter().chain(LATER).chain(LATER_UNLESS.iter().map(|(name, _)| name)).copied().collect();
        fields.only(&known)?;
        preset(&fields)?;
        for name in LATER {
            not_in_force(&fields, name, notes);
        }
        for (name, as_it_is) in LATER_UNLESS {
            if fields.get(name).is_some_and(|node| node.text() != *as_it_is) {
                not_in_force(&fields, name, notes);
            }
        }
        let public = backend(&fields, "Public")?.ok_or_else(|| {
            fields
                .flaw("Public is missing", r#"name the backend of the public containers, like "Public":"blog-public""#)
        })?;
        let uploads_fallback = fields.get("UploadsFallback").map_or(Ok(true), |node| node.boolean())?;
        Ok(Site {
            id,
            hosts: hosts(&fields)?,
            // A site with one backend twice has one backend.
            admin: backend(&fields, "Admin")?.filter(|admin| *admin != public),
            public,
            ajax: ajax(&fields)?,
            uploads_fallback,
            sticky: sticky(&fields, notes)?,
            https: https(&fields, &HttpsMode::ALL)?.unwrap_or_default(),
            hsts: hsts(&fields)?,
            acme: fields.get("Acme").map(|node| Acme::ours(&node)).transpose()?.flatten(),
            timeouts: timeouts(&fields, notes)?,
        })
    }
}

fn preset(fields: &Fields<'_>) -> Result<(), Flaw> {
    let preset = fields.required("Preset", r#""Preset":"wordpress""#)?;
    if matches!(preset.as_str(), "wordpress" | "wordpress/1") {
        return Ok(());
    }
    let reason = format!("unknown preset {:?}", clip(&preset));
    Err(at(fields, "Preset", reason, r#"write "wordpress""#))
}

fn hosts(fields: &Fields<'_>) -> Result<Vec<String>, Flaw> {
    const HINT: &str = r#"name the site's hosts, like "Hosts":["example.com","www.example.com"]"#;
    let Some(list) = fields.get("Hosts") else { return Err(fields.flaw("Hosts is missing", HINT)) };
    let items = list.items()?;
    if items.is_empty() || items.len() > MOST_HOSTS {
        return Err(list.flaw(format!("Hosts has {} elements, not 1 to {MOST_HOSTS}", items.len()), HINT));
    }
    let mut hosts = Vec::with_capacity(items.len());
    for item in items {
        let written = item.string()?;
        let Some(host) = host_name(&written) else {
            let hint = if written.contains([':', '/']) {
                "write the name alone, without scheme, port and path"
            } else if written.contains('*') {
                "write every name in full; there are no wildcards"
            } else {
                "write a name like example.com, international ones as xn--…"
            };
            return Err(item.flaw(format!("{:?} is not a host name", clip(&written)), hint));
        };
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

fn backend(fields: &Fields<'_>, name: &str) -> Result<Option<Id>, Flaw> {
    let Some(node) = fields.get(name) else { return Ok(None) };
    let id = node.string()?;
    if id.contains('/') {
        return Err(node.flaw(format!("{:?} is not the id of a backend", clip(&id)), "write the id alone"));
    }
    Ok((!id.is_empty()).then(|| Arc::from(id)))
}

fn ajax(fields: &Fields<'_>) -> Result<Ajax, Flaw> {
    let known = [("admin", Ajax::Admin), ("public", Ajax::Public), ("auto", Ajax::Auto)];
    fields.get("Ajax").map_or(Ok(Ajax::default()), |node| word(&node, &known))
}

fn sticky(fields: &Fields<'_>, notes: &mut Vec<Flaw>) -> Result<Sticky, Flaw> {
    let Some(node) = fields.get("Sticky") else { return Ok(Sticky::default()) };
    match node.text() {
        "true" => return Ok(Sticky::default()),
        "false" => {
            notes.push(node.flaw("the admin backend is always sticky", "remove Sticky"));
            return Ok(Sticky::default());
        }
        text if text.starts_with('{') => {}
        _ => return Err(node.wrong(r#"true or an object like {"Cookie":"name"}"#)),
    }
    let fields = node.fields()?.ours();
    fields.only(&["Cookie", "Scope", "Secure", "SameSite"])?;
    for (name, as_it_is) in [("Scope", "admin"), ("Secure", "auto"), ("SameSite", "Lax")] {
        if let Some(node) = fields.get(name)
            && !node.string()?.eq_ignore_ascii_case(as_it_is)
        {
            not_in_force(&fields, name, notes);
        }
    }
    Sticky::of_fields(&fields)
}

fn timeouts(fields: &Fields<'_>, notes: &mut Vec<Flaw>) -> Result<SiteTimeouts, Flaw> {
    let fields = fields.object("Timeouts")?.ours();
    let later = ["Connect", "IdlePool"];
    fields.only(&["Public", "Admin", "Cron", later[0], later[1]])?;
    for name in later {
        not_in_force(&fields, name, notes);
    }
    let default = SiteTimeouts::default();
    Ok(SiteTimeouts {
        public: limit(&fields, "Public")?.unwrap_or(default.public),
        admin: limit(&fields, "Admin")?.unwrap_or(default.admin),
        cron: limit(&fields, "Cron")?.unwrap_or(default.cron),
    })
}

const FIELDS: &[&str] =
    &["Preset", "Hosts", "Public", "Admin", "Ajax", "Sticky", "UploadsFallback", "Https", "Hsts", "Acme", "Timeouts"];

/// Understood, and not in force yet.
const LATER: &[&str] = &["Xmlrpc", "Cache", "CacheTtl", "Limits", "Body"];

/// The same, unless the value says what happens anyway.
const LATER_UNLESS: &[(&str, &str)] = &[("Cron", "\"public\""), ("AdminFallback", "false")];

const MOST_HOSTS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Site, Flaw> {
        Site::decode("blog".into(), json.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn the_shortest_site() {
        let site = decode(r#"{"Preset":"wordpress","Hosts":["WordPress.local."],"Public":"blog-public"}"#).unwrap();
        assert_eq!(
            site,
            Site {
                id: "blog".into(),
                hosts: vec!["wordpress.local".into()],
                public: "blog-public".into(),
                admin: None,
                ajax: Ajax::Admin,
                uploads_fallback: true,
                sticky: Sticky::default(),
                https: HttpsMode::Auto,
                hsts: 0,
                acme: None,
                timeouts: SiteTimeouts::default(),
            }
        );
    }

    #[test]
    fn the_full_form_serves_and_says_what_is_not_in_force() {
        let json = r#"{"preset":"wordpress/1","hosts":["example.com","www.example.com"],"public":"blog-public","admin":"blog-admin",
 "https":"auto","hsts":0,"xmlrpc":"limit","cron":"public","cache":"static","cache_ttl":"10m",
 "limits":{"login_ip":"5/1m+5"},"body":{"public":"16MiB"},"timeouts":{"connect":"2s","public":"30s","admin":"","cron":"0"},
 "sticky":{"cookie":"__etna_wp","scope":"admin","secure":"auto","samesite":"Lax"},
 "uploads_fallback":false,"admin_fallback":false,"ajax":"auto"}"#;
        let mut notes = Vec::new();
        let site = Site::decode("blog".into(), json.as_bytes(), &mut notes).unwrap();
        assert_eq!(site.admin.as_deref(), Some("blog-admin"));
        assert_eq!((site.ajax, site.uploads_fallback), (Ajax::Auto, false));
        assert_eq!(site.sticky.cookie.as_deref(), Some("__etna_wp"));
        let reasons: Vec<&str> = notes.iter().map(|note| note.reason.as_str()).collect();
        let later = ["Xmlrpc", "Cache", "CacheTtl", "Limits", "Body", "Timeouts.Connect"];
        assert_eq!(reasons, later.map(|name| format!("setting {name} is not in force yet")));
        assert_eq!((notes[0].line, notes[0].column), (Some(2), Some(35)));
        let SiteTimeouts { public, admin, cron } = site.timeouts;
        assert_eq!([public, admin, cron].map(|limit| limit.as_secs()), [30, 300, 24 * 60 * 60]);
        let json = json.replace(r#""auto","hsts":0"#, r#""Admin","hsts":31536000"#);
        let site = decode(&json).unwrap();
        assert_eq!((site.https, site.hsts), (HttpsMode::Admin, 31_536_000));
    }

    #[test]
    fn flaws_name_place_and_remedy() {
        for (rest, reason, hint) in [
            (r#""Ajx":"auto""#, "unknown field \"Ajx\"", "did you mean \"Ajax\"?"),
            (r#""Ajax":"adm""#, "Ajax is \"adm\"", "did you mean \"admin\"?"),
            (r#""Admin":"a/b""#, "\"a/b\" is not the id of a backend", "write the id alone"),
            (r#""Hosts":[]"#, "Hosts has 0 elements", "name the site's hosts"),
            (r#""Hosts":["http://a"]"#, "\"http://a\" is not a host name", "write the name alone"),
            (r#""Hosts":["*.a"]"#, "\"*.a\" is not a host name", "write every name in full"),
            (r#""Hosts":["a",1]"#, "Hosts[1] must be a string", ""),
            (r#""Preset":"drupal""#, "unknown preset \"drupal\"", "write \"wordpress\""),
            (r#""Sticky":{"Domain":"x"}"#, "unknown field \"Sticky.Domain\"", "known are"),
            (r#""Https":"allways""#, "Https is \"allways\"", "did you mean \"always\"?"),
            (r#""Https":true"#, "Https must be a string", ""),
            (r#""Hsts":-1"#, "Hsts is -1", "choose a number"),
            (r#""Hsts":"1y""#, "Hsts must be a whole number", ""),
            (r#""Timeouts":{"Admn":"1s"}"#, "unknown field \"Timeouts.Admn\"", "did you mean \"Admin\"?"),
            (r#""Timeouts":{"Admin":300}"#, "Timeouts.Admin must be a string", ""),
            (r#""UploadsFallback":1"#, "UploadsFallback must be true or false", ""),
        ] {
            let flaw = decode(&format!(r#"{{"Preset":"wordpress","Hosts":["a"],"Public":"p",{rest}}}"#)).unwrap_err();
            assert!(flaw.reason.starts_with(reason), "{rest}: {}", flaw.reason);
            assert!(flaw.hint.starts_with(hint), "{rest}: {}", flaw.hint);
            assert_eq!(flaw.line, Some(1));
        }
        assert_eq!(decode(r#"{"Preset":"wordpress","Hosts":["a"]}"#).unwrap_err().reason, "Public is missing");
        assert_eq!(decode("{}").unwrap_err().reason, "Preset is missing");
    }
}
