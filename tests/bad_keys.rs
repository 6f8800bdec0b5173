//! One bad key never stops another: the rest serves, the problem is named with its remedy, and fixing clears it.

use std::process::{Command, Output};
use std::time::Duration;

use etna_tests::binaries::binary;
use etna_tests::scene::{Scene, frontend, frontend_key, server_at, server_key};
use etna_tests::stand_in::StandIn;
use etna_tests::wait::{ensure, eventually};
use serde_json::Value;

/// A kind of mistake: the key, its bad value, how the key is shown, and whether a place in the value can be named.
struct Mistake {
    key: Vec<u8>,
    value: Vec<u8>,
    shown: &'static str,
    has_column: bool,
}

fn mistake(key: &[u8], value: impl Into<Vec<u8>>, shown: &'static str, has_column: bool) -> Mistake {
    Mistake { key: key.to_vec(), value: value.into(), shown, has_column }
}

fn mistakes() -> Vec<Mistake> {
    let text = |key: &'static str, value: &str, has_column| mistake(key.as_bytes(), value, key, has_column);
    let huge =
        format!(r#"{{"Type":"http","BackendId":"b","Route":"Host(`huge.test`)","Note":"{}"}}"#, "x".repeat(2 << 20));
    vec![
        text("frontends/json/frontend", r#"{"Type":"http","#, true),
        text("frontends/rule/frontend", r#"{"Type":"http","BackendId":"b","Route":"Host(`rule.test`"}"#, true),
        text(
            "frontends/unknown/frontend",
            r#"{"Type":"http","BackendId":"nobody","Route":"Host(`unknown.test`)"}"#,
            false,
        ),
        text("frontends/never/frontend", r#"{"Type":"http","BackendId":"b","Route":"Host(`never.test:80`)"}"#, true),
        text("backends/b/servers/url", r#"{"URL":"not a url"}"#, true),
        text("frontends/type/frontend", r#"{"Type":"http","BackendId":7,"Route":"Host(`type.test`)"}"#, true),
        text("frontends/huge/frontend", &huge, false),
        mistake(b"frontends/\xff\xfe/frontend", "{}", r"frontends/\xff\xfe/frontend", false),
    ]
}

fn check(store: &str) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(binary("etna")).args(["check", "--store", store]).output().expect("etna runs");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// The problem of a key, if there is one.
fn of<'a>(problems: &'a [Value], key: &str) -> Option<&'a Value> {
    problems.iter().find(|problem| problem["key"] == key)
}

#[tokio::test]
async fn one_bad_key_of_each_kind_stops_nothing_else() {
    let scene = Scene::open("badkeys").await;
    let a = StandIn::start("a").await;
    scene.route("b", "good.test", &[("a", a.address)]).await;
    // This one was good once: its last good version goes on serving.
    scene.put(&frontend_key("rule"), frontend("Host(`rule.test`)", "b")).await;
    let proxy = scene.proxy("etna").await;
    let (code, printed) = check(&scene.store());
    assert_eq!(code, Some(0), "a clean store is not clean: {printed}");

    let mistakes = mistakes();
    for mistake in &mistakes {
        scene.put_raw(&mistake.key, &mistake.value).await;
        eventually(&format!("{} is a problem", mistake.shown), SOON, async || {
            let problems = proxy.problems().await;
            let problem = of(&problems, mistake.shown).ok_or(format!("{problems:?}"))?;
            let text = |name: &str| problem[name].as_str().is_some_and(|text| !text.is_empty());
            ensure(text("reason") && text("hint") && text("effect"), problem.to_string())?;
            ensure(!mistake.has_column || problem["column"].as_u64().is_some_and(|c| c > 0), problem.to_string())
        })
        .await;
        for host in ["good.test", "rule.test"] {
            assert_eq!(proxy.get(host, "/").await.unwrap().server(), "a", "{host} beside {}", mistake.shown);
        }
    }
    assert_eq!(proxy.get("unknown.test", "/").await.unwrap().status, 503);
    let problems = proxy.problems().await;
    let unmatched = proxy.json("/v3/explain?url=http://never.test/").await;
    assert_eq!(unmatched["unreadable"], serde_json::json!(["never"]), "{unmatched}");
    let never = of(&problems, "frontends/never/frontend").expect("it is a problem");
    assert!(never["effect"].as_str().is_some_and(|effect| effect.contains("matches nothing")), "{never}");
    assert_eq!(proxy.get("never.test", "/").await.unwrap().status, 404);
    assert_eq!(problems.len(), mistakes.len(), "{problems:#?}");
    assert_eq!(proxy.metrics().await.sum("etna_problems", &[]), Some(mistakes.len() as f64));

    // A proxy that starts on such a store serves what is good, and sees the same.
    let second = scene.proxy("second").await;
    assert_eq!(second.get("good.test", "/").await.unwrap().server(), "a");
    let keys = |problems: &[Value]| -> Vec<Value> { problems.iter().map(|problem| problem["key"].clone()).collect() };
    assert_eq!(keys(&second.problems().await), keys(&problems));

    let (code, printed) = check(&scene.store());
    assert_eq!(code, Some(1), "{printed}");
    for mistake in &mistakes {
        let problem = of(&problems, mistake.shown).expect("it was there a moment ago");
        assert!(printed.contains(mistake.shown), "{} is not named:\n{printed}", mistake.shown);
        if let Some(column) = problem["column"].as_u64().filter(|_| mistake.has_column) {
            assert!(printed.contains(&column.to_string()), "column {column} is not named:\n{printed}");
        }
    }
    // Whole lines may be wrapped; a remedy's first words are not.
    let words = |text: &str| text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    for problem in &problems {
        let hint = words(problem["hint"].as_str().expect("a hint"));
        assert!(printed.contains(&hint), "the remedy {hint:?} is not said:\n{printed}");
    }

    scene.put(&frontend_key("json"), frontend("Host(`json.test`)", "b")).await;
    scene.put(&frontend_key("rule"), frontend("Host(`rule.test`)", "b")).await;
    scene.put(&frontend_key("unknown"), frontend("Host(`unknown.test`)", "b")).await;
    scene.put(&frontend_key("never"), frontend("Host(`never.test`)", "b")).await;
    scene.put(&server_key("b", "url"), server_at(a.address)).await;
    scene.put(&frontend_key("type"), frontend("Host(`type.test`)", "b")).await;
    scene.put(&frontend_key("huge"), frontend("Host(`huge.test`)", "b")).await;
    scene.delete_raw(b"frontends/\xff\xfe/frontend").await;
    for proxy in [&proxy, &second] {
        eventually("everything is mended", SOON, async || {
            let problems = proxy.problems().await;
            ensure(problems.is_empty(), format!("{problems:?}"))
        })
        .await;
        for host in ["json.test", "rule.test", "unknown.test", "never.test", "type.test", "huge.test"] {
            assert_eq!(proxy.get(host, "/").await.unwrap().server(), "a", "{host}");
        }
    }
    let (code, printed) = check(&scene.store());
    assert_eq!(code, Some(0), "{printed}");
}

#[tokio::test]
async fn what_cannot_be_read_is_another_exit_code() {
    let scene = Scene::open("unreadable").await;
    let missing = scene.folder().join("missing.json");
    let output = Command::new(binary("etna")).arg("check").arg(&missing).output().expect("etna runs");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    // Nobody listens at a port that was just given back.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, printed) = check(&format!("etcd://{closed}/nothing"));
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains(&closed.to_string()), "{printed}");
}

const SOON: Duration = Duration::from_secs(20);
