//! A real WordPress: a database, public containers and an admin container, installed, and gone when dropped.

use std::sync::{Arc, Weak};

use tokio::sync::{Mutex, MutexGuard};

use crate::docker::Docker;
use crate::report;
use crate::turn::Turn;

/// An installed site.
pub struct Site {
    /// The engine its containers run in.
    pub docker: Arc<Docker>,
    /// Its host name, without the port.
    pub host: String,
    /// The admin container.
    pub admin: String,
    /// The public containers, those that were added included.
    pub public: std::sync::Mutex<Vec<String>>,
    id: String,
    use_of_it: Mutex<()>,
}

/// User name and password of the site's administrator.
pub const LOGIN: (&str, &str) = ("admin", "only-for-tests-9x");
/// The port in the site's own URL; no one listens there.
const PORT: u16 = 8888;

impl Site {
    /// The site that all tests share, with `PUBLIC` public containers. `None` where no engine runs.
    pub async fn shared() -> Option<Arc<Site>> {
        let docker = Docker::shared().await?;
        let mut shared = SHARED.lock().await;
        let site = match shared.upgrade() {
            Some(site) => site,
            None => {
                // Not while a test measures; the test's own turn comes after this.
                let _turn = Turn::shared().await;
                Arc::new(tokio::task::spawn_blocking(|| Site::up(docker)).await.expect("the site comes up"))
            }
        };
        *shared = Arc::downgrade(&site);
        report::ran("wordpress");
        Some(site)
    }

    /// One of the test's own, which knows itself by https. `None` where no engine runs.
    pub async fn secure() -> Option<Site> {
        let docker = Docker::shared().await?;
        report::ran("wordpress");
        let _turn = Turn::shared().await;
        let up = || {
            let id = format!("etnas{}", std::process::id());
            let host = format!("wordpress-{id}.test");
            Site::up_as(docker, id, format!("https://{host}"), host, 1)
        };
        Some(tokio::task::spawn_blocking(up).await.expect("the site comes up"))
    }

    /// Waits until no other test uses it: who kills containers must be alone with them.
    pub async fn take(&self) -> MutexGuard<'_, ()> {
        self.use_of_it.lock().await
    }

    /// `Host` as the site knows itself.
    pub fn authority(&self) -> String {
        format!("{}:{PORT}", self.host)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority())
    }

    /// The public containers' names.
    pub fn public_names(&self) -> Vec<String> {
        self.public.lock().expect("no test broke it").clone()
    }

    /// Starts one more public container, in place of one that a test ended.
    pub async fn add_public(self: &Arc<Self>) -> String {
        let site = self.clone();
        let more = move || {
            let mut public = site.public.lock().expect("no test broke it");
            let next =
                1 + public.iter().filter_map(|name| name.rsplit('-').next()?.parse::<u32>().ok()).max().unwrap_or(0);
            let said = site.docker.script("site.sh", &["more", &site.id, &site.url(), &next.to_string()]);
            let name = column(&said, 1);
            public.push(name.clone());
            name
        };
        tokio::task::spawn_blocking(more).await.expect("the container comes up")
    }

    /// Forgets a container that a test ended.
    pub fn forget(&self, name: &str) {
        self.public.lock().expect("no test broke it").retain(|other| other != name);
    }

    fn up(docker: Arc<Docker>) -> Site {
        // Another run on the same engine is another site: containers, host name and keys.
        let id = format!("etna{}", std::process::id());
        let host = format!("wordpress-{id}.test");
        let url = format!("http://{host}:{PORT}");
        Site::up_as(docker, id, url, host, PUBLIC)
    }

    fn up_as(docker: Arc<Docker>, id: String, url: String, host: String, public: usize) -> Site {
        // Held while it comes up, so that what a failed start leaves is removed, too.
        let mut site = Site {
            docker: docker.clone(),
            host,
            admin: String::new(),
            public: std::sync::Mutex::default(),
            id,
            use_of_it: Mutex::default(),
        };
        let said = docker.script("site.sh", &["up", &site.id, &url, &public.to_string()]);
        for line in said.lines() {
            let name = column(line, 1);
            match column(line, 0).as_str() {
                "admin" => site.admin = name,
                "public" => site.public.get_mut().expect("nobody else has it").push(name),
                other => panic!("site.sh said {other}"),
            }
        }
        site
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.docker.script("site.sh", &["down", &self.id]);
    }
}

fn column(line: &str, number: usize) -> String {
    line.split_whitespace().nth(number).unwrap_or_else(|| panic!("site.sh said {line:?}")).to_owned()
}

/// How many public containers it has.
pub const PUBLIC: usize = 3;
static SHARED: Mutex<Weak<Site>> = Mutex::const_new(Weak::new());
