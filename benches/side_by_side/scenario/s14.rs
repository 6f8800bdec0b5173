//! S14: from the start of the program to the first answer, with a hundred thousand frontends. Etna alone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;

use super::{ABOUT, About, Entrant, Figure, Of, Place, RSS, Scenario, Target, mebibytes};
use crate::bed::{Bed, eventually};
use crate::etcd::Etcd;
use crate::http;
use crate::peer::{Etna, Kind, Setup, Store, etna};
use crate::stored;

pub(super) struct ColdStart;

#[async_trait(?Send)]
impl Scenario for ColdStart {
    fn about(&self) -> About {
        About {
            id: "s14",
            title: "cold start with 100,000 frontends, until the last of them is served",
            figures: const { &[Figure { name: "seconds", digits: 2, compared: false }, RSS] },
            targets: const { &[at_most(EMBEDDED, 1.0), at_most(LAST, 1.0), at_most(ETCD, 3.0)] },
            most_rounds: 3,
            ..ABOUT
        }
    }

    fn entrants(&self) -> Vec<Entrant> {
        let entrant = |name: &'static str, store: Store| {
            let etna = Etna { frontends: FRONTENDS, store, ..Etna::default() };
            Entrant { name, peer: Kind::Etna, setup: Setup { etna, ..Setup::default() } }
        };
        vec![entrant(EMBEDDED, Store::Embedded), entrant(LAST, Store::Etcd), entrant(ETCD, Store::Etcd)]
    }

    async fn run(&self, bed: &Bed, entrant: &Entrant, _: u32) -> anyhow::Result<Vec<f64>> {
        let (home, setup) = (bed.directory("etna")?, &entrant.setup);
        if entrant.name != LAST {
            let store = bed.store(setup, &home).await?;
            return start(bed, &home, setup, &store).await;
        }
        // An etcd of its own, for it has to go away.
        let etcd = Etcd::start(bed.cores.load, &bed.directory("its-etcd")?).await?;
        let store = etcd.store("last");
        stored::fill(&store, FRONTENDS, bed.public(setup)).await?;
        start(bed, &home, setup, &store).await?;
        anyhow::ensure!(has_last_table(&home), "the table was not put on disk");
        etcd.end().await;
        start(bed, &home, setup, &store).await
    }

    async fn measure(&self, _: &Place<'_>) -> anyhow::Result<Vec<f64>> {
        anyhow::bail!("is measured from the start")
    }
}

/// Starts it, asks until the last frontend is served, and ends it once its table is on disk.
async fn start(bed: &Bed, home: &Path, setup: &Setup, store: &str) -> anyhow::Result<Vec<f64>> {
    let began = Instant::now();
    let process = etna::spawn(bed, home, setup, store)?;
    let (mut running, _) = etna::ready(process, home).await?;
    let (address, last) = (running.address, stored::host(FRONTENDS - 1));
    let served = async || Ok(http::get(address, &last, "/").await?.status == 200);
    eventually(&mut running.process, served).await.context("the last frontend")?;
    let took = began.elapsed();
    let resident = mebibytes(&running.process);
    // An embedded store writes none.
    let until = Instant::now() + LONGEST_WRITE;
    while setup.etna.store == Store::Etcd && !has_last_table(home) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.process.end().await;
    // What it left by being ended otherwise would be taken for ready.
    let _ = std::fs::remove_file(home.join("addresses.json"));
    Ok(vec![took.as_secs_f64(), resident])
}

fn has_last_table(home: &Path) -> bool {
    let names = std::fs::read_dir(home).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).any(|name| name.starts_with("last-") && !name.contains('.'))
}

const fn at_most(entrant: &'static str, most: f64) -> Target {
    Target { entrant, figure: 0, of: Of::Value, most }
}

const FRONTENDS: usize = 100_000;
const EMBEDDED: &str = "embedded store";
const LAST: &str = "last table, etcd away";
const ETCD: &str = "etcd";
const LONGEST_WRITE: Duration = Duration::from_secs(10);
