//! Lines from requests to places: whole files, ones that are moved away, full ones, and pipes that nobody reads.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use rustix::fs::{CWD, Mode};
use serde_json::Value;

use super::record::{Asking, Broken, Recorder};
use super::*;

/// A worker of its own, and what it writes to.
struct Bed {
    lines: Option<Rc<Lines>>,
    status: std::sync::Arc<Status>,
    writer: Writer,
}

impl Bed {
    fn at(path: &Path) -> Bed {
        let settings = Settings { target: Target::File(path.into()), query: Query::Names };
        let (access, writer) = start(&settings).unwrap();
        Bed { status: access.status(), lines: Some(Lines::new(access)), writer }
    }

    fn recorder(&self) -> Rc<Recorder> {
        self.lines.as_ref().unwrap().recorder(false)
    }

    /// One line, handed over by itself.
    fn say(&self, path: &str) {
        let recorder = self.recorder();
        recorder.begin(ASKING, Some(&Request::get(path).body(()).unwrap().into_parts().0.into()));
        recorder.finish(false);
        self.lines.as_ref().unwrap().flush();
    }

    /// Everything is written; whether that was soon.
    async fn end(mut self) -> bool {
        self.lines = None;
        let began = Instant::now();
        self.writer.end(Duration::from_secs(20)).await;
        began.elapsed() < Duration::from_secs(20)
    }
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_line_says_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let bed = Bed::at(&path);
    let request = Request::post("/a\u{e9}?key=s3cret".replace('\u{e9}', "%C3%A9"))
        .header("host", "a.test")
        .header("user-agent", "\"curl\"\t1")
        .header("referer", "http://b.test/?token=s3cret")
        .header("x-request-id", "r-1");
    let head = request.body(()).unwrap().into_parts().0.into();
    let recorder = bed.recorder();
    recorder.begin(Asking { is_tls13: Some(true), ..ASKING }, Some(&head));
    recorder.routed("front");
    recorder.tries("back", "gone");
    recorder.tries("back", "there");
    recorder.received(7);
    recorder.received(3);
    recorder.answered(Duration::from_micros(1500));
    recorder.status(StatusCode::CREATED);
    recorder.sent(12);
    recorder.ended(None);
    recorder.finish(true);
    // Nothing is left of it for the next one of the connection.
    recorder.begin(ASKING, None);
    recorder.failed(&"x".repeat(1000));
    recorder.finish(true);
    recorder.begin(ASKING, Some(&head));
    recorder.ended(Some(Broken::Server));
    recorder.finish(false);
    recorder.finish(false);
    drop(recorder);
    assert!(bed.end().await);
    let lines = read(&path);
    assert_eq!(lines.len(), 3);
    let line = &lines[0];
    for (field, wanted) in [
        ("client", "192.0.2.1"),
        ("protocol", "HTTP/1.1"),
        ("tls", "TLSv1.3"),
        ("method", "POST"),
        ("host", "a.test"),
        ("path", "/a%C3%A9"),
        ("query", "key=*"),
        ("user_agent", "\"curl\"\t1"),
        ("referer", "http://b.test/?token=*"),
        ("request_id", "r-1"),
        ("frontend", "front"),
        ("backend", "back"),
        ("server", "there"),
    ] {
        assert_eq!(line[field], wanted, "{field}");
    }
    let time = line["time"].as_str().unwrap();
    assert!(time.len() == "2026-11-21T18:26:56.123Z".len() && time.ends_with('Z'), "{time}");
    assert_eq!((&line["tries"], &line["status"], &line["upstream_ms"]), (&2.into(), &201.into(), &1.5.into()));
    assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&10.into(), &12.into()));
    assert!(line["duration_ms"].as_f64().unwrap() >= 0.0 && line.get("broken_by").is_none());
    let cut = &lines[1];
    assert_eq!((&cut["status"], &cut["bytes_sent"], &cut["broken_by"]), (&0.into(), &0.into(), &"proxy".into()));
    assert!(cut.get("method").is_none() && cut.get("server").is_none() && cut["error"].as_str().unwrap().len() == 128);
    assert_eq!(lines[2]["broken_by"], "server");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_opened_anew_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let bed = Bed::at(&path);
    bed.say("/before");
    until("it is written", || bed.status.lines.get() == 1).await;
    std::fs::rename(&path, &moved).unwrap();
    bed.say("/moved");
    until("it is written", || bed.status.lines.get() == 2).await;
    assert!(!path.exists());
    bed.status.reopen();
    until("it is opened anew", || path.exists()).await;
    bed.say("/after");
    until("it is written", || bed.status.lines.get() == 3).await;

    // Where there can be none, the one that is open goes on, and nothing is said to be lost.
    let again = dir.path().join("access.log.2");
    std::fs::rename(&path, &again).unwrap();
    std::fs::create_dir(&path).unwrap();
    bed.status.reopen();
    until("it is told", || bed.status.problem().is_some()).await;
    bed.say("/elsewhere");
    until("it is written", || bed.status.lines.get() == 4).await;
    let problem = bed.status.problem().unwrap();
    assert!(problem.reason.contains("opened anew") && !problem.effect.contains("lost"), "{problem:?}");
    std::fs::remove_dir(&path).unwrap();
    until("it is opened", || bed.status.problem().is_none()).await;
    bed.say("/last");
    let status = bed.status.clone();
    assert!(bed.end().await);
    assert_eq!((read(&moved).len(), read(&again).len(), read(&path).len()), (2, 2, 1));
    assert_eq!((status.lines.get(), status.unwritten.get()), (5, 0));
}

#[tokio::test]
async fn what_cannot_be_written_is_counted_and_told() {
    let bed = Bed::at(Path::new("/dev/full"));
    bed.say("/");
    until("it is lost", || bed.status.unwritten.get() == 1).await;
    let problem = bed.status.problem().unwrap();
    assert!(problem.reason.contains("No space left") && problem.key == "--access-log /dev/full", "{problem:?}");
    assert!(bed.status.take_changed() && !bed.status.take_changed());
    assert_eq!(bed.status.lines.get(), 0);
    assert!(bed.end().await);

    // A place that comes later is found later.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later/access.log");
    let bed = Bed::at(&path);
    bed.say("/lost");
    until("it is lost", || bed.status.unwritten.get() == 1).await;
    assert!(bed.status.problem().is_some());
    std::fs::create_dir(dir.path().join("later")).unwrap();
    until("it is opened", || bed.status.problem().is_none()).await;
    bed.say("/there");
    assert!(bed.end().await);
    assert_eq!(read(&path).len(), 1);
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    rustix::fs::mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
    let bed = Bed::at(&path);
    let long = format!("/{}", "x".repeat(1500));
    let began = Instant::now();
    for _ in 0..2000 {
        bed.say(&long);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(bed.status.slow.get() > 1000, "{:?}", bed.status);
    let slow = bed.status.slow.get();
    until("it is told", || bed.status.problem().is_some_and(|problem| problem.reason.contains("slowly"))).await;

    // Whoever reads it now finds whole lines, and what waits is written.
    let reader = path.clone();
    let status = bed.status.clone();
    let read = std::thread::spawn(move || {
        use std::io::BufRead as _;
        let mut count = 0;
        for line in std::io::BufReader::new(std::fs::File::open(reader).unwrap()).lines() {
            let _: Value = serde_json::from_str(&line.unwrap()).unwrap();
            count += 1;
        }
        count
    });
    assert!(bed.end().await);
    let read = tokio::task::spawn_blocking(|| read.join().unwrap()).await.unwrap();
    assert_eq!((read, status.lines.get(), status.slow.get()), (2000 - slow, read, slow));
}

const ASKING: Asking = Asking { client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), is_tls13: None };
