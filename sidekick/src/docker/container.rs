//! What the sidekick reads of an inspected container: a few fields, leniently.
//!
//! Docker changed these shapes between API 1.24 and 1.52 (fields came, went and turned null), and podman's differ
//! again. So a field that is absent, null or of another type is its default, and never an error.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// `GET /containers/{id}/json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    /// 64 hexadecimal digits.
    #[serde(deserialize_with = "lenient")]
    pub id: String,
    /// With a leading slash in Docker, without one in podman.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// Whether and since when it runs.
    #[serde(deserialize_with = "lenient")]
    pub state: State,
    /// What it was created from.
    #[serde(deserialize_with = "lenient")]
    pub config: Config,
    /// What was asked of the host.
    #[serde(deserialize_with = "lenient")]
    pub host_config: HostConfig,
    /// What the host gave.
    #[serde(deserialize_with = "lenient")]
    pub network_settings: NetworkSettings,
}

/// `State`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// Also true while paused.
    #[serde(deserialize_with = "lenient")]
    pub running: bool,
    /// Frozen by `docker pause`.
    #[serde(deserialize_with = "lenient")]
    pub paused: bool,
    /// Between two runs, by its restart policy.
    #[serde(deserialize_with = "lenient")]
    pub restarting: bool,
    /// RFC 3339 with nanoseconds; what tells one run of a container from the next.
    #[serde(deserialize_with = "lenient")]
    pub started_at: String,
    /// Absent without a HEALTHCHECK; podman calls it `Healthcheck`.
    #[serde(deserialize_with = "lenient", alias = "Healthcheck")]
    pub health: Health,
}

/// `State.Health`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`; empty or `none` without a HEALTHCHECK.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
}

/// `Config`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// As given to `docker run`.
    #[serde(deserialize_with = "lenient")]
    pub image: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "lenient")]
    pub env: Vec<String>,
    /// Labels of the image and of the container.
    #[serde(deserialize_with = "lenient")]
    pub labels: BTreeMap<String, String>,
    /// `80/tcp` and the like.
    #[serde(deserialize_with = "lenient")]
    pub exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    /// Name or number; empty means SIGTERM.
    #[serde(deserialize_with = "lenient")]
    pub stop_signal: String,
}

/// `HostConfig`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `default`, `bridge`, `host`, `none`, `container:<id>` or a network's name.
    #[serde(deserialize_with = "lenient")]
    pub network_mode: String,
    /// The bindings that were asked for.
    #[serde(deserialize_with = "lenient")]
    pub port_bindings: BTreeMap<String, Option<Vec<Binding>>>,
    /// `docker run -P`.
    #[serde(deserialize_with = "lenient")]
    pub publish_all_ports: bool,
}

/// One published port.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Binding {
    /// Empty, `0.0.0.0` and `::` mean every address of the host.
    #[serde(deserialize_with = "lenient")]
    pub host_ip: String,
    /// Empty or `0` while none is bound.
    #[serde(deserialize_with = "lenient")]
    pub host_port: String,
}

/// `NetworkSettings`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// The bindings in force; null for an exposed port that is not published.
    #[serde(deserialize_with = "lenient")]
    pub ports: BTreeMap<String, Option<Vec<Binding>>>,
    /// By name of the network.
    #[serde(deserialize_with = "lenient")]
    pub networks: BTreeMap<String, Endpoint>,
    /// The address on the default bridge, in older APIs.
    #[serde(deserialize_with = "lenient", rename = "IPAddress")]
    pub ip_address: String,
}

/// A container's place in one network.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Endpoint {
    /// IPv4; empty on a network without it and on `host`.
    #[serde(deserialize_with = "lenient", rename = "IPAddress")]
    pub ip_address: String,
    /// IPv6.
    #[serde(deserialize_with = "lenient", rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// The host's own address in that network.
    #[serde(deserialize_with = "lenient", rename = "Gateway")]
    pub gateway: String,
    /// The same for IPv6.
    #[serde(deserialize_with = "lenient", rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
}

impl Container {
    /// Its name without podman's and Docker's difference; its short id where it has none.
    pub fn short_name(&self) -> &str {
        match self.name.trim_start_matches('/') {
            "" => self.short_id(),
            name => name,
        }
    }

    /// The first twelve digits of its id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// A label, trimmed; one that is empty counts as absent.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// An environment variable; the last wins, as in a shell.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.config.env.iter().rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::trim)
    }

    /// Whether a process of it runs now (paused counts, between two runs does not).
    pub fn runs(&self) -> bool {
        self.state.running && !self.state.restarting
    }
}

/// The value, or its type's default for null and for anything of another shape.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(from)?).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_that_is_an_object_is_a_container() {
        for text in [
            "{}",
            r#"{"Id":null,"Config":null,"State":"running","NetworkSettings":{"Ports":null,"Networks":{"a":null}}}"#,
            r#"{"Id":7,"Config":{"Env":null,"Labels":[],"ExposedPorts":null},"HostConfig":{"PortBindings":{"80/tcp":null}}}"#,
        ] {
            let container: Container = serde_json::from_str(text).unwrap();
            assert!(!container.runs());
        }
    }

    #[test]
    fn env_and_labels() {
        let container: Container = serde_json::from_str(
            r#"{"Id":"0123456789abcdef","Name":"/wordpress-1",
                "Config":{"Env":["A=1","AB=2","A=3","B"],"Labels":{"etna.host":" a ","etna.role":" "}}}"#,
        )
        .unwrap();
        assert_eq!(container.env("A"), Some("3"));
        assert_eq!(container.env("B"), None);
        assert_eq!(container.label("etna.host"), Some("a"));
        assert_eq!(container.label("etna.role"), None);
        assert_eq!(container.short_name(), "wordpress-1");
        assert_eq!(container.short_id(), "0123456789ab");
    }
}
