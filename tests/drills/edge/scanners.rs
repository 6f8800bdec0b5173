//! testssl.sh and sslyze look at listeners of both policies with certificates of both kinds. What they said is kept
//! beside this, without what differs from run to run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etna_tests::proxy::Proxy;
use etna_tests::scene::Scene;
use etna_tests::tls::{Authority, KeyKind, https_listener};
use serde_json::Value;

use super::ground::{Ground, policy};

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// For the figure.
    pub(super) said: String,
    /// What is worse than it may be, or could not be looked at.
    pub(super) findings: Vec<String>,
}

/// Who looks, at what.
struct Scan<'a> {
    name: String,
    policy: &'a str,
    host: &'a str,
    port: u16,
    authority: PathBuf,
    folder: &'a Path,
}

/// All scans.
pub(super) async fn run(ground: &Ground, proxy: &Proxy) -> Scanned {
    let mut scanned = Scanned::default();
    let (scene, authority) = (&ground.scene, &ground.authority);
    let roots = scene.folder().join("authority.pem");
    std::fs::write(&roots, authority.pem()).expect("the authority can be written");
    let sslyze = match tools().await {
        Ok(program) => Some(program),
        Err(why) => {
            scanned.findings.push(format!("sslyze cannot be had: {why}"));
            None
        }
    };
    let mut scans = 0;
    for (kind, host) in [(KeyKind::Ecdsa, "ecdsa.test"), (KeyKind::Rsa, "rsa.test")] {
        certify(scene, authority, proxy, host, kind).await;
        for policy_name in ["intermediate", "modern"] {
            let id = format!("scan-{policy_name}");
            scene.put(&format!("listeners/{id}"), https_listener(policy(policy_name))).await;
            let port = proxy.listener(&id).await.port();
            let name = format!("{}-{policy_name}", host.trim_end_matches(".test"));
            let scan = Scan { name, policy: policy_name, host, port, authority: roots.clone(), folder: scene.folder() };
            scans += 1;
            scanned.findings.extend(scan.testssl().await);
            if let Some(program) = &sslyze {
                scanned.findings.extend(scan.sslyze(program).await);
            }
        }
    }
    scanned.said = format!(
        "{scans} listeners looked at by testssl.sh{}, {} findings; ",
        if sslyze.is_some() { " and sslyze" } else { "" },
        scanned.findings.len()
    );
    scanned
}

/// The default host's certificate, as an operator would have it: for 80 days.
async fn certify(scene: &Scene, authority: &Authority, proxy: &Proxy, host: &str, kind: KeyKind) {
    let pair = authority.issue_for(&[host], Duration::from_secs(80 * 86_400), kind);
    let revision = scene.put(&format!("hosts/{host}/host"), authority.host(&pair, false)).await;
    proxy.until_revision(revision).await;
}

/// sslyze's program, installed if need be.
async fn tools() -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/tls-tools.sh");
    let output = tokio::process::Command::new(script).output().await.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    match output.status.success() {
        true => Ok(PathBuf::from(said.trim())),
        false => Err(said.trim().to_owned()),
    }
}

impl Scan<'_> {
    async fn testssl(&self) -> Vec<String> {
        let (json, text) = (self.folder.join(format!("{}.json", self.name)), self.folder.join(&self.name));
        let mut command = tokio::process::Command::new("testssl");
        // Protocols, ciphers, forward secrecy, preferences, the certificate, what is known to break: not HTTP's headers,
        // which are the site's.
        command.args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "-p", "-s", "-f", "-P", "-S"]);
        command.args(["-U", "--ip", "127.0.0.1", "--jsonfile"]).arg(&json).arg("--logfile").arg(&text);
        command.arg("--add-ca").arg(&self.authority).arg(format!("{}:{}", self.host, self.port));
        // It needs to know a terminal's width, and puts what it makes into its own folder.
        command.env("COLUMNS", "120").env("TERM", "dumb").current_dir(self.folder).kill_on_drop(true);
        let output = tokio::time::timeout(LONG, command.output()).await;
        let Ok(Ok(_)) = output else { return vec![format!("testssl.sh, {}: {output:?}", self.name)] };
        let said: Vec<Value> =
            std::fs::read(&json).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        self.keep("testssl", &std::fs::read_to_string(&text).unwrap_or_default());
        if said.len() < 40 {
            return vec![format!("testssl.sh, {}: it says but {} things", self.name, said.len())];
        }
        let is_bad =
            |one: &&Value| !["OK", "INFO", "LOW", "DEBUG"].contains(&one["severity"].as_str().unwrap_or_default());
        let ours = |one: &&Value| !ACCEPTED.contains(&one["id"].as_str().unwrap_or_default());
        let bad = said.iter().filter(is_bad).filter(ours);
        bad.map(|one| format!("testssl.sh, {}: {} {} {}", self.name, one["severity"], one["id"], one["finding"]))
            .collect()
    }

    /// Against Mozilla's configuration of the same name.
    async fn sslyze(&self, program: &Path) -> Vec<String> {
        let mut command = tokio::process::Command::new(program);
        command.arg("--certinfo_ca_file").arg(&self.authority);
        command.args(["--sni", self.host, "--mozilla_config", self.policy]).arg(format!("127.0.0.1:{}", self.port));
        command.kill_on_drop(true);
        let output = tokio::time::timeout(LONG, command.output()).await;
        let Ok(Ok(output)) = output else { return vec![format!("sslyze, {}: {output:?}", self.name)] };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        self.keep("sslyze", &said);
        let verdict = said.split("COMPLIANCE AGAINST").nth(1);
        let Some(verdict) = verdict else { return vec![format!("sslyze, {}: no verdict", self.name)] };
        let bad = verdict.lines().map(str::trim).filter(|line| line.starts_with("* ") && !line.contains(RSA_ALONE));
        let broken = said.lines().map(str::trim).filter(|line| line.contains("VULNERABLE"));
        bad.chain(broken).map(|line| format!("sslyze, {}: {line}", self.name)).collect()
    }

    /// Into the repository, without dates, ports and folders.
    fn keep(&self, by: &str, said: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("drills/reports");
        std::fs::create_dir_all(&folder).expect("reports can be kept");
        let here = self.folder.display().to_string();
        let kept: String = said
            .lines()
            .filter(|line| {
                !DIFFERING
                    .iter()
                    .any(|word| line.trim_start().starts_with(word) || line.contains(word) && word.ends_with("Store"))
            })
            .map(|line| {
                line.replace(&format!(":{}", self.port), ":PORT").replace(&here, "FOLDER").trim_end().to_owned() + "\n"
            })
            .collect();
        std::fs::write(folder.join(format!("{by}-{}.txt", self.name)), kept).expect("a report can be kept");
    }
}

/// What testssl.sh says that is not about us: the authority is known to nobody and has no lists of what it revoked; an
/// old openssl of its own would try more; it leaves too soon to be given a ticket, which comes with the first answer.
/// And one thing that is: clients choose among suites that are all good, as Mozilla's configurations have it.
const ACCEPTED: [&str; 7] = [
    "cert_chain_of_trust",
    "cert_trust",
    "cert_revocation",
    "cert_ocspURL",
    "engine_problem",
    "sessionresumption_ticket",
    "cipher_order",
];
/// Mozilla's modern configuration wants ECDSA beside whatever certificate there is.
const RSA_ALONE: &str = "certificate types are {'rsa'}";
/// How lines begin, or what they hold, that are others in each run or from year to year.
const DIFFERING: [&str; 14] = [
    "## ",
    "Start ",
    "Done ",
    "rDNS ",
    "Serial",
    "SHA1 ",
    "SHA256 ",
    "Fingerprint",
    "Not Before",
    "Not After",
    "Certificate Validity",
    "SCANS COMPLETED",
    "Scan started",
    "CA Store",
];
const LONG: Duration = Duration::from_secs(600);
