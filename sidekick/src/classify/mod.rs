//! Decides, of an inspected container, whether it is a site's and what is to be registered. Pure.
//!
//! Rules in order: `etna.enable=false` → not ours; `etna.*` labels → ours as they say; the original's names
//! (`wordpress-*`, `wordpressadmin*`) → ours; anything else → not ours. Every rule that was looked at is a [`Reason`],
//! which is all that `etna-sidekick explain` prints.
//! Not here: time, events and drains (`follow`), keys (`register`).

mod address;
mod hosts;

use std::net::SocketAddr;

pub use address::{Addressing, HostIp, Mode};
pub use hosts::{HostPattern, SitePattern, valid_host, valid_site};

use crate::docker::Container;
use crate::wanted::Role;

/// What the operator decided for all containers of this host.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The host of containers that are ours and name none.
    pub default_host: String,
    /// Which host names labels and environment may claim; empty: any.
    pub allow_hosts: Vec<HostPattern>,
    /// Where hosts are not any: which sites labels may name besides those that are called like an allowed host.
    pub allow_sites: Vec<SitePattern>,
    /// How to reach containers.
    pub addressing: Addressing,
}

/// One rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The rule: a label, a variable, a step of the address policy.
    pub rule: &'static str,
    /// The value it saw.
    pub saw: String,
    /// What followed from it.
    pub then: String,
}

/// What is to be done about a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing.
    NotOurs {
        /// It asks to be ours and cannot be: somebody made a mistake.
        mistake: bool,
        /// Why.
        why: Vec<Reason>,
    },
    /// Register it.
    Ours(Box<Claim>),
}

impl Decision {
    /// What an operator should know of a container that is ours.
    pub fn warnings(&self) -> &[String] {
        match self {
            Decision::Ours(claim) => &claim.warnings,
            Decision::NotOurs { .. } => &[],
        }
    }
}

/// What a container of ours claims.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The site.
    pub site: String,
    /// Its host names; never empty.
    pub hosts: Vec<String>,
    /// Which backends it serves.
    pub role: Role,
    /// The port inside the container.
    pub port: u16,
    /// Where it is reached; `None` if nowhere.
    pub address: Option<SocketAddr>,
    /// The published port it asked for is not bound yet; until it is, `address` is second best.
    pub waiting: bool,
    /// Share of the traffic, 0 while something holds it back.
    pub weight: u32,
    /// Why the weight is 0 for now: paused, or what Docker's HEALTHCHECK says.
    pub held: Option<String>,
    /// What an operator should know: each a sentence.
    pub warnings: Vec<String>,
    /// Every rule that was looked at.
    pub why: Vec<Reason>,
}

/// Decides. Total, and the same answer for the same arguments.
pub fn classify(container: &Container, policy: &Policy) -> Decision {
    let mut trail = Trail::default();
    match claim(container, policy, &mut trail) {
        Ok(claim) => Decision::Ours(Box::new(Claim { why: trail.why, ..claim })),
        Err(mistake) => Decision::NotOurs { mistake, why: trail.why },
    }
}

/// What was looked at so far.
#[derive(Default)]
struct Trail {
    why: Vec<Reason>,
}

impl Trail {
    fn note(&mut self, rule: &'static str, saw: impl Into<String>, then: impl Into<String>) {
        self.why.push(Reason { rule, saw: saw.into(), then: then.into() });
    }
}

/// The error says whether it is a mistake.
fn claim(container: &Container, policy: &Policy, trail: &mut Trail) -> Result<Claim, bool> {
    let unknown = unknown_labels(container, trail);
    // Who misspelt a label meant the container to be ours, unless he said that it is not.
    let is_misspelt = !unknown.is_empty() && container.label("etna.enable").is_none();
    let named = opted_in(container, trail).map_err(|mistake| mistake || is_misspelt)?;
    let hosts = site_hosts(container, policy, trail)?;
    let site = site_id(container, &hosts, policy, trail)?;
    let role = role(container, named, trail)?;
    let found = address::find(container, &policy.addressing, trail)?;
    let weight = weight(container, trail);
    let held = held_back(container, trail);
    Ok(Claim {
        site,
        hosts,
        role,
        port: found.port,
        address: found.address,
        waiting: found.waiting,
        weight: if held.is_some() { 0 } else { weight },
        held,
        warnings: unknown.into_iter().chain(found.warnings).collect(),
        why: Vec::new(),
    })
}

/// Labels that look like ours and are not, each in a sentence.
fn unknown_labels(container: &Container, trail: &mut Trail) -> Vec<String> {
    let ours = |name: &str| name.get(..LABEL.len()).is_some_and(|start| start.eq_ignore_ascii_case(LABEL));
    let names = container.config.labels.keys().filter(|name| ours(name) && !LABELS.contains(&name.as_str()));
    let mut warnings = Vec::new();
    for name in names.take(MOST_UNKNOWN) {
        let shown: String = name.chars().take(LONGEST_SHOWN).collect();
        trail.note("label", shown.clone(), format!("ignored: no such label; known are {}", LABELS.join(", ")));
        warnings.push(format!("the label {shown} is ignored: there is no such label"));
    }
    warnings
}

/// Whether it is ours at all, and what its name alone says of its role.
fn opted_in(container: &Container, trail: &mut Trail) -> Result<Option<Role>, bool> {
    let name = container.short_name();
    let named = ["wordpress-admin", "wordpressadmin"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        .then_some(Role::Admin)
        .or(name.starts_with("wordpress-").then_some(Role::Public));
    let enable = container.label("etna.enable");
    match enable.map(flag) {
        Some(Some(false)) => {
            trail.note("etna.enable", shown(enable), "not ours");
            return Err(false);
        }
        Some(None) => {
            trail.note("etna.enable", shown(enable), "not ours: say true or false");
            return Err(true);
        }
        Some(Some(true)) => {
            trail.note("etna.enable", shown(enable), "ours");
            return Ok(named);
        }
        None => trail.note("etna.enable", "absent", "next rule"),
    }
    for label in ["etna.host", "etna.site"] {
        let value = container.label(label);
        if value.is_some() {
            trail.note(label, shown(value), "ours");
            return Ok(named);
        }
        trail.note(label, "absent", "next rule");
    }
    if named.is_none() {
        trail.note("name", name, "not ours: neither an etna.host label nor a name like wordpress-* or wordpressadmin*");
        return Err(false);
    }
    // Compose calls the database of a project `wordpress` `wordpress-db-1`; the original's units know no Compose.
    if let Some(project) = container.label("com.docker.compose.project") {
        trail.note(
            "name",
            name,
            format!("not ours by its name alone: it belongs to the Compose project {project}; label it etna.host=NAME"),
        );
        return Err(false);
    }
    trail.note("name", name, "ours: one of the original's names");
    Ok(named)
}

fn site_hosts(container: &Container, policy: &Policy, trail: &mut Trail) -> Result<Vec<String>, bool> {
    const HOME: &str = "WORDPRESS_CACHE_HOME";
    let (rule, saw, claimed) = if let Some(label) = container.label("etna.host") {
        let split = label.split([',', ' ']).map(str::trim).filter(|host| !host.is_empty());
        ("etna.host", label.to_owned(), split.take(hosts::MAX + 1).map(str::to_owned).collect())
    } else if let Some(host) = container.env(HOME).and_then(hosts::of_url) {
        (HOME, container.env(HOME).unwrap_or_default().to_owned(), vec![host])
    } else {
        trail.note("--default-host", policy.default_host.clone(), format!("host {}", policy.default_host));
        return Ok(vec![policy.default_host.clone()]);
    };
    if claimed.len() > hosts::MAX {
        trail.note(rule, saw, format!("not ours: more than {} host names", hosts::MAX));
        return Err(true);
    }
    let mut good: Vec<String> = Vec::new();
    for host in claimed {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if !valid_host(&host) {
            trail.note(rule, host, "left out: no host name (letters, digits, dots and hyphens; no port, no wildcard)");
        } else if !policy.allow_hosts.is_empty() && !policy.allow_hosts.iter().any(|pattern| pattern.matches(&host)) {
            trail.note("--allow-host", host, "left out: no --allow-host pattern allows it");
        } else if !good.contains(&host) {
            trail.note(rule, host.clone(), format!("host {host}"));
            good.push(host);
        }
    }
    if good.is_empty() {
        trail.note(rule, saw, "not ours: no host name is left");
        return Err(true);
    }
    Ok(good)
}

/// Whoever is in a site gets its requests, so a container names no site whose hosts it may not claim.
fn site_id(container: &Container, hosts: &[String], policy: &Policy, trail: &mut Trail) -> Result<String, bool> {
    let allowed = |site: &str| {
        policy.allow_hosts.is_empty()
            || hosts.iter().any(|host| host == site)
            || policy.allow_hosts.iter().any(|pattern| pattern.matches(site))
            || policy.allow_sites.iter().any(|pattern| pattern.matches(site))
    };
    match container.label("etna.site") {
        Some(site) if valid_site(site) && !allowed(site) => {
            trail.note("--allow-site", site, "not ours: neither --allow-host nor --allow-site allows this site");
            Err(true)
        }
        Some(site) if valid_site(site) => {
            trail.note("etna.site", site, format!("site {site}"));
            Ok(site.to_owned())
        }
        Some(site) => {
            trail.note(
                "etna.site",
                site,
                "not ours: a site's name is 1 to 100 letters, digits, dots, hyphens, underscores",
            );
            Err(true)
        }
        None => {
            let site = hosts.first().cloned().unwrap_or_default();
            trail.note("etna.site", "absent", format!("site {site}, as its first host"));
            Ok(site)
        }
    }
}

fn role(container: &Container, named: Option<Role>, trail: &mut Trail) -> Result<Role, bool> {
    const ADMIN: &str = "WORDPRESS_ADMIN_ENABLED";
    if let Some(label) = container.label("etna.role") {
        let role = Role::parse(label);
        trail.note("etna.role", label, role.map_or("not ours: say public, admin or both", Role::name));
        return role.ok_or(true);
    }
    if let Some(value) = container.env(ADMIN) {
        let role = if flag(value) == Some(true) { Role::Admin } else { Role::Public };
        trail.note(ADMIN, value, role.name());
        return Ok(role);
    }
    if let Some(role) = named {
        trail.note("name", container.short_name(), role.name());
        return Ok(role);
    }
    trail.note("etna.role", "absent", "public; say etna.role=both if it serves the admin too");
    Ok(Role::Public)
}

fn weight(container: &Container, trail: &mut Trail) -> u32 {
    let Some(label) = container.label("etna.weight") else {
        trail.note("etna.weight", "absent", "weight 1");
        return 1;
    };
    match label.parse::<u32>() {
        Ok(weight) if weight <= 256 => {
            trail.note("etna.weight", label, format!("weight {weight}"));
            weight
        }
        Ok(_) | Err(_) => {
            trail.note("etna.weight", label, "weight 1: say a number from 0 to 256");
            1
        }
    }
}

fn held_back(container: &Container, trail: &mut Trail) -> Option<String> {
    if container.state.paused {
        trail.note("state", "paused", "weight 0 for now");
        return Some("paused".into());
    }
    let health = container.state.health.status.as_str();
    let ignored = container.label("etna.health.docker").is_some_and(|label| label.eq_ignore_ascii_case("ignore"));
    match health {
        "" | "none" => {
            trail.note("HEALTHCHECK", "none", "no gate");
            None
        }
        "starting" | "unhealthy" if !ignored => {
            trail.note("HEALTHCHECK", health, "weight 0 for now");
            Some(format!("health: {health}"))
        }
        _ => {
            trail.note("HEALTHCHECK", health, if ignored { "ignored by etna.health.docker" } else { "no gate" });
            None
        }
    }
}

/// `1 true yes on` and `0 false no off`, in any case.
fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// What labels of ours begin with.
const LABEL: &str = "etna.";
/// All of them.
const LABELS: [&str; 8] = [
    "etna.enable",
    "etna.host",
    "etna.site",
    "etna.role",
    "etna.port",
    "etna.weight",
    "etna.addr",
    "etna.health.docker",
];
/// How many unknown labels of a container are told, and how much of each.
const MOST_UNKNOWN: usize = 8;
const LONGEST_SHOWN: usize = 100;

fn shown(value: Option<&str>) -> String {
    value.unwrap_or("absent").to_owned()
}

#[cfg(test)]
mod tests;
