//! The command line, read into a plan.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;

use crate::peer::Kind;
use crate::scenario::{SCENARIOS, Scenario};

/// Measures Etna beside its peers: the same routing, one worker each, in turn, on one core.
#[derive(Debug, Parser)]
#[command(name = "side-by-side", after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// How often each peer is measured in each scenario
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each measurement is, in seconds, after a second of warm-up
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// One round of two seconds of what takes less than three minutes in all, not recorded
    #[arg(long)]
    quick: bool,
    /// Which scenarios, or what their ids begin with up to a dash: s6 for all of s6-… [default: all, or the quick ones]
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Which peers: etna, haproxy, nginx, caddy, floor [default: all that are installed]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    peers: Vec<String>,
    /// The etna to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    etna: Option<PathBuf>,
    /// The core that the measured proxy runs on
    #[arg(long, value_name = "N", default_value_t = 0)]
    proxy_core: usize,
    /// The core that the load and the servers run on
    #[arg(long, value_name = "N", default_value_t = 1)]
    load_core: usize,
    /// Where the table goes, newest first; every sample beside it as .json, charts as .svg; "none" for nowhere
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Be the byte relay: print the address, then pass bytes on
    #[arg(long, value_name = "IP:PORT", hide = true)]
    pub(crate) relay: Option<SocketAddr>,
    /// Be the load of handshakes: do what is ordered in JSON, print what was counted
    #[arg(long, value_name = "ORDER", hide = true)]
    pub(crate) shake: Option<String>,
    /// Be another load: do what is ordered in JSON, print what was counted
    #[arg(long, value_name = "ORDER", hide = true)]
    pub(crate) drive: Option<String>,
    /// Be so many servers: print their addresses, then serve
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) serve: Option<usize>,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p etna-benches --bin side-by-side
  cargo run --release -p etna-benches --bin side-by-side -- --quick --scenarios s1 --peers etna,haproxy

Needs two idle cores, taskset, wrk, h2load, etcd, nginx (a peer, and the servers behind all peers) and the peers themselves,
and 12,000 open files for s8. Everything
listens on loopback and is ended with the program.";

/// What is to be measured.
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) scenarios: Vec<&'static dyn Scenario>,
    pub(crate) peers: Vec<Kind>,
    /// Peers that were asked for by name have to be there.
    pub(crate) by_name: bool,
    pub(crate) etna: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) results: Option<PathBuf>,
}

/// Who runs where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
}

impl Cli {
    /// The plan, or what is wrong with it.
    pub(crate) fn plan(self) -> anyhow::Result<Plan> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        anyhow::ensure!(
            self.proxy_core != self.load_core && self.proxy_core.max(self.load_core) < cores,
            "the proxy and the load need a core each, and there are {cores}: say --proxy-core and --load-core"
        );
        let etna = match self.etna {
            Some(path) => path,
            None => std::env::current_exe().context("where is this program?")?.with_file_name("etna"),
        };
        let results = match self.results {
            Some(path) if path == Path::new("none") => None,
            Some(path) => Some(path),
            None if self.quick => None,
            None => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md")),
        };
        let mut scenarios = chosen(&with_all(&self.scenarios), SCENARIOS, |scenario| scenario.about().id)?;
        if self.quick && self.scenarios.is_empty() {
            scenarios.retain(|scenario| scenario.about().quick);
        }
        let (rounds, seconds) = if self.quick { (1, 2) } else { (5, 6) };
        Ok(Plan {
            rounds: self.rounds.unwrap_or(rounds),
            seconds: self.seconds.unwrap_or(seconds),
            scenarios,
            by_name: !self.peers.is_empty(),
            peers: chosen(&self.peers, Kind::ALL, |peer| peer.name())?,
            etna,
            cores: Cores { proxy: self.proxy_core, load: self.load_core },
            results,
        })
    }
}

/// The names, and instead of what several scenarios begin with, those.
fn with_all(names: &[String]) -> Vec<String> {
    let begin = |name: &str| -> Vec<String> {
        let ids = SCENARIOS.iter().map(|scenario| scenario.about().id);
        ids.filter(|id| id.split_once('-').is_some_and(|(first, _)| first.eq_ignore_ascii_case(name.trim())))
            .map(str::to_owned)
            .collect()
    };
    let all = |name: &String| Some(begin(name)).filter(|some| !some.is_empty()).unwrap_or_else(|| vec![name.clone()]);
    names.iter().flat_map(all).collect()
}

/// Those of `all` that are named; all of them if none is.
fn chosen<T: Copy>(names: &[String], all: &[T], name_of: impl Fn(&T) -> &'static str) -> anyhow::Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let find = |name: &String| all.iter().copied().find(|item| name_of(item).eq_ignore_ascii_case(name.trim()));
    names
        .iter()
        .map(|name| {
            find(name).with_context(|| {
                format!("there is no {name:?}: choose from {}", all.iter().map(&name_of).collect::<Vec<_>>().join(", "))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_scenario_may_stand_for_several() {
        let named = with_all(&["S6".to_owned(), "s1".to_owned()]);
        assert!(named.len() > 3 && named.contains(&"s6-rsa-12".to_owned()), "{named:?}");
        assert_eq!(named.last().unwrap(), "s1");
    }

    #[test]
    fn names_choose() {
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&names, Kind::ALL, |peer| peer.name())
        };
        assert_eq!(named(&[]).unwrap(), Kind::ALL);
        assert_eq!(named(&["NGINX", "etna"]).unwrap(), [Kind::Nginx, Kind::Etna]);
        assert!(named(&["apache"]).unwrap_err().to_string().contains("haproxy"));
    }
}
