//! The demo's containers on a real Docker engine, registered by the sidekick.
//!
//! Their image is made on the spot from this binary and the libraries it is linked with, so nothing is downloaded.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use super::containers::{CONTAINERS, HOSTS, SITE};
use super::{beside, step};

/// The demo's containers, image and sidekick.
pub(super) struct Docker {
    image: String,
    containers: Vec<String>,
    sidekick: Option<Child>,
}

/// Whether a Docker engine answers.
pub(super) async fn answers() -> bool {
    docker(&["version", "--format", "{{.Server.Version}}"]).await.is_ok()
}

/// Makes the image, starts the sidekick and the containers.
pub(super) async fn start(home: &Path, admin: &Path) -> anyhow::Result<Docker> {
    let mut all = Docker { image: format!("etna-demo:{}", std::process::id()), containers: Vec::new(), sidekick: None };
    match all.bring_up(home, admin).await {
        Ok(()) => Ok(all),
        Err(error) => {
            all.stop().await;
            Err(error)
        }
    }
}

impl Docker {
    async fn bring_up(&mut self, home: &Path, admin: &Path) -> anyhow::Result<()> {
        import(home, &self.image).await?;
        step("image", "made from this program");
        let sidekick = Command::new(beside("etna-sidekick"))
            .args(["watch", "--host-ip", "127.0.0.1", "--machine-id", &format!("demo{:08x}", std::process::id())])
            .args(["--store", &format!("unix:{}", admin.display())])
            .arg("--state-dir")
            .arg(home)
            .env("ETNA_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start etna-sidekick: build it, or put it beside etna")?;
        self.sidekick = Some(sidekick);
        step("sidekick", "watching Docker");
        for (name, role) in CONTAINERS {
            let name = format!("etna-demo-{}-{name}", std::process::id());
            let host = format!("etna.host={}", HOSTS.join(","));
            let site = format!("etna.site={SITE}");
            let role_label = format!("etna.role={role}");
            self.containers.push(name.clone());
            docker(&[
                "run",
                "-d",
                "--rm",
                "--name",
                &name,
                "--label",
                &host,
                "--label",
                &site,
                "--label",
                &role_label,
                "--label",
                "etna.port=80",
                "-p",
                "127.0.0.1::80",
                &self.image,
                "/etna",
                "stand-in",
                "--listen",
                "0.0.0.0:80",
                "--role",
                role,
            ])
            .await?;
            step(&format!("{role} container"), &name);
        }
        Ok(())
    }

    /// Removes all of it.
    pub(super) async fn stop(&mut self) {
        if let Some(mut sidekick) = self.sidekick.take() {
            let _ = sidekick.kill().await;
        }
        for name in self.containers.drain(..) {
            let _ = docker(&["rm", "-f", &name]).await;
        }
        let _ = docker(&["rmi", "-f", &self.image]).await;
    }
}

/// Makes an image of this program and the libraries it needs.
async fn import(home: &Path, image: &str) -> anyhow::Result<()> {
    let root = home.join("image");
    std::fs::create_dir_all(&root).context("cannot create the image's files")?;
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    std::fs::copy(&exe, root.join("etna")).context("cannot copy this program")?;
    for library in libraries(&exe).await? {
        let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(parent) = inside.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(&library, inside).with_context(|| format!("cannot copy {}", library.display()))?;
    }
    let archive = home.join("image.tar");
    let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status().await?;
    if !tar.success() {
        bail!("tar failed: {tar}");
    }
    let result = docker(&["import", &archive.display().to_string(), image]).await;
    let _ = std::fs::remove_file(&archive);
    let _ = std::fs::remove_dir_all(&root);
    result
}

async fn libraries(exe: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(exe).output().await.context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

async fn docker(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run docker")?;
    if !output.status.success() {
        bail!("docker {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
