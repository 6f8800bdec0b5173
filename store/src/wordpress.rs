//! A WordPress site becomes frontends: pure.
//!
//! One frontend a row, the first row that matches wins: rows have falling priorities from 190 to 110, and the last,
//! what anybody may see, has 0. So an operator's own frontend for the same host takes its part of the public pages
//! simply by being more specific, never takes the protected paths by accident, and takes anything with `Priority` 200.
//!
//! Not here: caches, limits, and what is not about the choice of a backend. Paths are matched by `Segment`, which sees
//! them as WordPress will: decoded once, `//` and `..` resolved, in whatever directory WordPress lives.

use std::sync::Arc;

use crate::object::{Ajax, CheckKind, Elsewhere, Frontend, HealthCheck, HttpsMode, Id, OnClientAbort, Site, Sticky};

/// The cookie that keeps a browser on one admin server, unless the site names another.
pub const COOKIE: &str = "__etna_wp";

/// The frontends of a site, in the order they are tried. None without a host.
pub fn expand(site: &Site) -> Vec<Frontend> {
    if site.hosts.is_empty() {
        return Vec::new();
    }
    let rows = Rows { site, hosts: any_host(&site.hosts) };
    let mut frontends = vec![rows.deny(), rows.cron()];
    if let Some(admin) = &site.admin {
        frontends.extend([rows.xmlrpc(admin), rows.postpass(admin)]);
        frontends.extend(rows.ajax(admin));
    }
    frontends.extend([rows.admin(), rows.rest(), rows.preview()]);
    frontends.extend(site.admin.as_ref().and_then(|admin| rows.uploads(admin)));
    frontends.push(rows.public());
    frontends
}

/// How the servers of one of the site's backends are checked, unless the backend says otherwise: the admin containers by
/// the login page, which needs PHP and the database and costs little; the public ones, where that page may be closed, by
/// the front page. None if the site does not use the backend.
pub fn check(site: &Site, backend: &str) -> Option<HealthCheck> {
    let path = match &site.admin {
        Some(admin) if **admin == *backend => "/wp-login.php",
        _ if *site.public == *backend => "/",
        _ => return None,
    };
    let host = site.hosts.first()?.clone();
    Some(HealthCheck { path: path.into(), host: Some(host), ..HealthCheck::of(CheckKind::WordPress) })
}

struct Rows<'a> {
    site: &'a Site,
    hosts: String,
}

impl Rows<'_> {
    /// What no visitor may read, and no upload may be: a script.
    fn deny(&self) -> Frontend {
        let hidden = format!("{SLASH}{}(?:{}|{}|{})", letters("."), letters("git"), letters("env"), letters("ht"));
        let script = format!(
            "{}(?:{}(?:{})?|{}|{})(?:{SLASH}|$)",
            letters("."),
            letters("php"),
            "[0-9]|%3[0-9]",
            letters("phtml"),
            letters("phar")
        );
        let route = format!(
            "Segment(\"wp-config.php\") || PathRegexp(`{hidden}`) || (Segment(\"wp-content\") && \
             (LastSegment(\"debug.log\") || (Segment(\"uploads\") && PathRegexp(`{script}`))))"
        );
        Frontend { deny: Some(404), ..self.row("deny", 190, &route, &self.site.public) }
    }

    /// Its callers hang up at once and mean it to run all the same.
    fn cron(&self) -> Frontend {
        let row = self.row("cron", 180, r#"Segment("wp-cron.php")"#, self.inside());
        // They do not follow a redirect, either.
        let answer_within = Some(self.site.timeouts.cron);
        Frontend { on_client_abort: OnClientAbort::Continue, https: HttpsMode::Off, answer_within, ..row }
    }

    fn xmlrpc(&self, admin: &Id) -> Frontend {
        let answer_within = Some(self.site.timeouts.admin);
        Frontend { answer_within, ..self.row("xmlrpc", 170, r#"Segment("xmlrpc.php")"#, admin) }
    }

    /// A visitor unlocks a post that has a password: the one anonymous use of the login page.
    fn postpass(&self, admin: &Id) -> Frontend {
        let route = r#"Segment("wp-login.php") && Method("POST") && QueryOnly("action", "postpass")"#;
        let row = self.row("postpass", 160, route, &self.site.public);
        self.outside(Frontend { elsewhere: elsewhere(403, admin), ..row })
    }

    /// What public pages ask of `admin-ajax.php` without being logged in. With [`Ajax::Admin`] the next row has it.
    fn ajax(&self, admin: &Id) -> Option<Frontend> {
        let elsewhere = match self.site.ajax {
            Ajax::Admin => return None,
            Ajax::Public => None,
            Ajax::Auto => elsewhere(403, admin),
        };
        let route = format!(
            "Segment(\"wp-admin\") && (LastSegment(\"admin-ajax.php\") || LastSegment(\"admin-post.php\")) && \
             !{LOGGED_IN}"
        );
        let row = self.row("ajax", 150, &route, &self.site.public);
        Some(self.outside(Frontend { elsewhere, ..row }))
    }

    /// Logging in and everything behind it.
    fn admin(&self) -> Frontend {
        let route = r#"Segment("wp-admin") || Segment("wp-login.php") || Segment("wp-signup.php") || Segment("wp-activate.php")"#;
        self.sticky(self.row("admin", 140, route, self.inside()))
    }

    /// The editor and other programs that show who they are. Anonymous calls are public.
    fn rest(&self) -> Frontend {
        let route = format!(
            "(Segment(\"wp-json\") || Query(\"rest_route\")) && ({LOGGED_IN} || \
             HeaderRegexp(\"Authorization\", \".\") || HeaderRegexp(\"X-WP-Nonce\", \".\"))"
        );
        self.sticky(self.row("rest", 130, &route, self.inside()))
    }

    /// An editor looks at what is not published, or builds on a public page.
    fn preview(&self) -> Frontend {
        let asked: Vec<String> = PREVIEWS.iter().map(|name| format!("Query(\"{name}\")")).collect();
        // Most requests have no query at all: that is known sooner than whose cookies they carry.
        let route = format!("({}) && {LOGGED_IN}", asked.join(" || "));
        self.sticky(self.row("preview", 120, &route, self.inside()))
    }

    /// Files that were uploaded through the admin containers and may lie only there.
    fn uploads(&self, admin: &Id) -> Option<Frontend> {
        let route = r#"Segment("wp-content") && Segment("uploads") && (Method("GET") || Method("HEAD"))"#;
        let row = || self.row("uploads", 110, route, &self.site.public);
        self.site.uploads_fallback.then(|| self.outside(Frontend { elsewhere: elsewhere(404, admin), ..row() }))
    }

    fn public(&self) -> Frontend {
        let row = self.row("public", 0, "", &self.site.public);
        self.outside(row)
    }

    /// Where what is not public goes: never to a public backend while there is one for it.
    fn inside(&self) -> &Id {
        self.site.admin.as_ref().unwrap_or(&self.site.public)
    }

    /// Public pages come from the admin containers as long as no other runs. Never the other way round. A plugin that keeps
    /// a session of PHP's keeps it in one container.
    fn outside(&self, row: Frontend) -> Frontend {
        Frontend { fallback: self.site.admin.clone(), session: Some(SESSION), ..row }
    }

    /// What belongs to those who log in, to one server each.
    fn sticky(&self, row: Frontend) -> Frontend {
        let cookie = self.site.sticky.cookie.clone().unwrap_or_else(|| COOKIE.into());
        let https = if self.site.https == HttpsMode::Admin { HttpsMode::Auto } else { row.https };
        let answer_within = Some(self.site.timeouts.admin);
        Frontend { sticky: Some(Sticky { cookie: Some(cookie) }), https, answer_within, ..row }
    }

    fn row(&self, name: &str, priority: i64, condition: &str, backend: &Id) -> Frontend {
        let route = match condition {
            "" => self.hosts.clone(),
            condition if condition.contains("||") => format!("{} && ({condition})", self.hosts),
            condition => format!("{} && {condition}", self.hosts),
        };
        let id = format!("site:{}:{name}", self.site.id).into();
        let mut row = Frontend::new(id, route, backend.clone());
        row.priority = priority;
        // WordPress compares the Host it sees with its own address.
        row.settings.pass_host_header = true;
        row.site = Some(Arc::clone(&self.site.id));
        row.https = if self.site.https == HttpsMode::Admin { HttpsMode::Off } else { self.site.https };
        row.hsts = self.site.hsts;
        row.answer_within = Some(self.site.timeouts.public);
        row
    }
}

fn elsewhere(status: u16, backend: &Id) -> Option<Box<Elsewhere>> {
    Some(Box::new(Elsewhere { statuses: vec![status], backend: backend.clone() }))
}

fn any_host(hosts: &[String]) -> String {
    match hosts {
        [host] => format!("Host(\"{host}\")"),
        hosts => {
            let each: Vec<String> = hosts.iter().map(|host| format!("Host(\"{host}\")")).collect();
            format!("({})", each.join(" || "))
        }
    }
}

/// A regular expression for a word however its characters are percent-encoded: `PathRegexp` sees a path with any `%` in
/// it as it was sent.
fn letters(word: &str) -> String {
    word.bytes()
        .map(|byte| {
            let plain = if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("[{}]", char::from(byte))
            };
            let encoded = format!("{byte:02x}");
            let encoded: String = encoded.chars().map(any_case).collect();
            format!("(?:{plain}|%{encoded})")
        })
        .collect()
}

fn any_case(digit: char) -> String {
    if digit.is_ascii_digit() { digit.to_string() } else { format!("[{digit}{}]", digit.to_ascii_uppercase()) }
}

/// A cookie that only somebody who logged in has. Whether it is genuine, only WordPress can tell.
const LOGGED_IN: &str = r#"CookieRegexp("^wordpress_logged_in_|^wordpress_sec_|^wordpress_[0-9a-f]{32}$")"#;

/// Of PHP's sessions, as it is called unless the installation says otherwise.
const SESSION: &str = "PHPSESSID";

const SLASH: &str = "(?:/|%2[fF])";

const PREVIEWS: &[&str] =
    &["preview", "preview_id", "customize_changeset_uuid", "wp_customize", "elementor-preview", "et_fb", "fl_builder"];

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::object::SiteTimeouts;

    fn site(admin: Option<&str>, ajax: Ajax) -> Site {
        Site {
            id: "blog".into(),
            hosts: vec!["a.test".into(), "b.test".into()],
            public: "pub".into(),
            admin: admin.map(Id::from),
            ajax,
            uploads_fallback: true,
            sticky: Sticky::default(),
            https: HttpsMode::default(),
            hsts: 0,
            acme: None,
            timeouts: SiteTimeouts::default(),
        }
    }

    fn names(site: &Site) -> Vec<String> {
        expand(site).iter().map(|row| row.id.trim_start_matches("site:blog:").to_owned()).collect()
    }

    fn row(site: &Site, name: &str) -> Frontend {
        expand(site).into_iter().find(|row| row.id.ends_with(&format!(":{name}"))).unwrap()
    }

    #[test]
    fn https_is_for_all_or_for_those_who_log_in() {
        let modes = |https| {
            let site = Site { https, hsts: 60, ..site(Some("adm"), Ajax::Auto) };
            let mode = |name: &str| row(&site, name).https;
            assert_eq!(row(&site, "public").hsts, 60);
            ["public", "uploads", "admin", "rest", "preview", "cron"].map(mode)
        };
        use HttpsMode::{Admin, Always, Auto, Off};
        assert_eq!(modes(Auto), [Auto, Auto, Auto, Auto, Auto, Off]);
        assert_eq!(modes(Always), [Always, Always, Always, Always, Always, Off]);
        assert_eq!(modes(Admin), [Off, Off, Auto, Auto, Auto, Off]);
        assert_eq!(modes(Off), [Off; 6]);
    }

    #[test]
    fn who_logs_in_may_ask_for_what_takes_long() {
        for mut site in [site(Some("adm"), Ajax::Auto), site(None, Ajax::Auto)] {
            let seconds = |site: &Site| {
                let rows = expand(site).into_iter();
                rows.map(|row| (row.id.rsplit(':').next().unwrap().to_owned(), row.answer_within.unwrap().as_secs()))
                    .collect::<std::collections::BTreeMap<_, _>>()
            };
            for (name, is) in seconds(&site) {
                let is_long = ["cron", "xmlrpc", "admin", "rest", "preview"].contains(&&*name);
                assert_eq!(is, if is_long { 300 } else { 60 }, "{name}");
            }
            let of = |seconds| std::time::Duration::from_secs(seconds);
            site.timeouts = SiteTimeouts { public: of(1), admin: of(2), cron: of(3) };
            assert_eq!(["public", "admin", "cron"].map(|name| seconds(&site)[name]), [1, 2, 3]);
        }
    }

    #[test]
    fn each_backend_is_checked_by_what_it_serves() {
        let site = site(Some("adm"), Ajax::Admin);
        let path = |backend| check(&site, backend).map(|check| check.path);
        assert_eq!(path("adm").as_deref(), Some("/wp-login.php"));
        assert_eq!(path("pub").as_deref(), Some("/"));
        assert_eq!(path("other"), None);
        assert_eq!(check(&site, "pub").unwrap().host.as_deref(), Some("a.test"));
    }

    #[test]
    fn rows_are_as_few_as_the_site_needs() {
        let both = ["deny", "cron", "xmlrpc", "postpass", "admin", "rest", "preview", "uploads", "public"];
        assert_eq!(names(&site(Some("adm"), Ajax::Admin)), both);
        let mut with_ajax = both.to_vec();
        with_ajax.insert(4, "ajax");
        assert_eq!(names(&site(Some("adm"), Ajax::Auto)), with_ajax);
        assert_eq!(names(&site(None, Ajax::Auto)), ["deny", "cron", "admin", "rest", "preview", "public"]);
        let shared = Site { uploads_fallback: false, ..site(Some("adm"), Ajax::Admin) };
        assert!(!names(&shared).contains(&"uploads".to_owned()));
        assert!(expand(&Site { hosts: Vec::new(), ..shared }).is_empty());
    }

    #[test]
    fn the_first_row_wins_and_every_row_is_the_sites() {
        let site = site(Some("adm"), Ajax::Public);
        let rows = expand(&site);
        assert!(rows.windows(2).all(|pair| pair[0].priority > pair[1].priority));
        assert_eq!(rows.last().unwrap().priority, 0);
        for row in rows {
            assert_eq!(row.site.as_deref(), Some("blog"));
            assert!(row.settings.pass_host_header);
            assert!(row.route.starts_with(r#"(Host("a.test") || Host("b.test"))"#));
        }
    }

    #[test]
    fn the_public_backend_never_gets_what_is_not_public() {
        for ajax in [Ajax::Admin, Ajax::Public, Ajax::Auto] {
            for row in expand(&site(Some("adm"), ajax)) {
                let name = row.id.rsplit(':').next().unwrap().to_owned();
                match name.as_str() {
                    "deny" => assert_eq!(row.deny, Some(404)),
                    "cron" | "xmlrpc" | "admin" | "rest" | "preview" => {
                        assert_eq!((&*row.backend, &row.fallback, &row.elsewhere), ("adm", &None, &None), "{name}");
                    }
                    "postpass" | "ajax" | "uploads" | "public" => {
                        assert_eq!((&*row.backend, row.fallback.as_deref()), ("pub", Some("adm")), "{name}");
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[test]
    fn what_is_asked_of_the_other_backend() {
        let auto = site(Some("adm"), Ajax::Auto);
        assert_eq!(row(&auto, "ajax").elsewhere, elsewhere(403, &"adm".into()));
        assert_eq!(row(&auto, "postpass").elsewhere, elsewhere(403, &"adm".into()));
        assert_eq!(row(&auto, "uploads").elsewhere, elsewhere(404, &"adm".into()));
        assert_eq!(row(&site(Some("adm"), Ajax::Public), "ajax").elsewhere, None);
    }

    #[test]
    fn sessions_stick_and_cron_is_finished() {
        let mut site = site(Some("adm"), Ajax::Auto);
        for name in ["admin", "rest", "preview"] {
            assert_eq!(row(&site, name).sticky, Some(Sticky { cookie: Some(COOKIE.into()) }));
        }
        for name in ["cron", "xmlrpc", "postpass", "ajax", "uploads", "public"] {
            let row = row(&site, name);
            let is_inside = ["cron", "xmlrpc"].contains(&name);
            assert_eq!((row.sticky, row.session), (None, (!is_inside).then_some("PHPSESSID")));
        }
        site.sticky.cookie = Some("mine".into());
        assert_eq!(row(&site, "admin").sticky, Some(site.sticky.clone()));
        assert_eq!(row(&site, "cron").on_client_abort, OnClientAbort::Continue);
        assert_eq!(row(&site, "admin").on_client_abort, OnClientAbort::Cancel);
    }

    #[test]
    fn with_one_backend_it_serves_everything() {
        for row in expand(&site(None, Ajax::Auto)) {
            assert_eq!((&*row.backend, row.fallback, row.elsewhere), ("pub", None, None));
        }
        assert!(row(&site(None, Ajax::Auto), "admin").sticky.is_some());
    }

    #[test]
    fn an_alone_standing_host_and_quoting() {
        let site = Site { hosts: vec!["a.test".into()], ..site(Some("adm"), Ajax::Admin) };
        assert_eq!(row(&site, "public").route, r#"Host("a.test")"#);
        assert_eq!(row(&site, "cron").route, r#"Host("a.test") && Segment("wp-cron.php")"#);
        assert!(row(&site, "admin").route.starts_with(r#"Host("a.test") && (Segment("wp-admin") || "#));
    }

    #[test]
    fn the_expressions_of_the_deny_row() {
        let route = row(&site(None, Ajax::Admin), "deny").route;
        let mut quoted = route.split('`').skip(1).step_by(2);
        let (hidden, script) =
            (Regex::new(quoted.next().unwrap()).unwrap(), Regex::new(quoted.next().unwrap()).unwrap());
        for path in
            ["/.git/config", "/.env.local", "/x/.htaccess", "/%2egit", "/.%67it", "/%2E%68%74x", "//.env", "%2F.env"]
        {
            assert!(hidden.is_match(path), "{path}");
        }
        for path in ["/.well-known/acme-challenge/x", "/a.git", "/git", "/my.env"] {
            assert!(!hidden.is_match(path), "{path}");
        }
        for path in
            ["/u/x.php", "/u/x.php7", "/u/x.phtml", "/u/x.phar/y", "/u/x.ph%70", "/u/x%2e%70%68%70", "/u/x.php%2Fa"]
        {
            assert!(script.is_match(path), "{path}");
        }
        for path in ["/u/x.php.jpg", "/u/php", "/u/x.phpx", "/u/x.jpg"] {
            assert!(!script.is_match(path), "{path}");
        }
    }

    #[test]
    fn who_is_logged_in() {
        let pattern = LOGGED_IN.split('"').nth(1).unwrap();
        let pattern = Regex::new(pattern).unwrap();
        for name in ["wordpress_logged_in_0", "wordpress_sec_0", "wordpress_0123456789abcdef0123456789abcdef"] {
            assert!(pattern.is_match(name), "{name}");
        }
        for name in ["wordpress_test_cookie", "wp-settings-1", "wordpress_no_cache", "x_wordpress_sec_0"] {
            assert!(!pattern.is_match(name), "{name}");
        }
    }
}
