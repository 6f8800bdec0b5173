use super::*;
use serde_json::{Value, json};

/// What `docker inspect` says of a container of the tutorial (`docker run --name wordpress-1 -p 80 …`), engine 20.10.
fn tutorial() -> Value {
    json!({
        "Id": "3f4e8a2c9b7d1e6f3f4e8a2c9b7d1e6f3f4e8a2c9b7d1e6f3f4e8a2c9b7d1e6f",
        "Created": "2026-11-21T06:02:59.9Z", "Path": "/entry", "Args": [], "Name": "/wordpress-1",
        "State": {"Status": "running", "Running": true, "Paused": false, "Restarting": false, "OOMKilled": false,
                  "Dead": false, "Pid": 4711, "ExitCode": 0, "Error": "",
                  "StartedAt": "2026-11-21T06:03:00.123456789Z", "FinishedAt": "0001-01-01T00:00:00Z"},
        "HostConfig": {"NetworkMode": "default", "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]},
                       "PublishAllPorts": false, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}},
        "Config": {"Hostname": "3f4e8a2c9b7d", "ExposedPorts": {"80/tcp": {}}, "Image": "sdomsta/clusterable-wordpress",
                   "Env": ["WORDPRESS_DB_HOST=db:3306", "WORDPRESS_CACHE_HOME=http://wordpress.local:8888", "PATH=/bin"],
                   "Labels": {}, "StopSignal": "SIGWINCH"},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}, {"HostIp": "::", "HostPort": "49154"}]},
            "IPAddress": "172.17.0.2", "Gateway": "172.17.0.1",
            "Networks": {"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": "", "Gateway": "172.17.0.1", "IPv6Gateway": ""}}}
    })
}

/// The same with parts replaced, each named by a JSON pointer.
fn with(changes: &[(&str, Value)]) -> Container {
    let mut value = tutorial();
    for (pointer, change) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/");
        value.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name, change.clone());
    }
    serde_json::from_value(value).unwrap()
}

fn policy(host_ip: &str) -> Policy {
    let addressing = Addressing { host_ip: host_ip.parse().ok(), ..Addressing::default() };
    Policy { default_host: "wordpress.local".into(), allow_hosts: Vec::new(), allow_sites: Vec::new(), addressing }
}

fn ours(container: &Container, policy: &Policy) -> Claim {
    match classify(container, policy) {
        Decision::Ours(claim) => *claim,
        Decision::NotOurs { why, .. } => panic!("not ours: {why:#?}"),
    }
}

fn last_word(container: &Container) -> (bool, String) {
    match classify(container, &policy("10.0.0.5")) {
        Decision::Ours(claim) => panic!("ours: {claim:#?}"),
        Decision::NotOurs { mistake, why } => (mistake, why.last().unwrap().then.clone()),
    }
}

fn address(changes: &[(&str, Value)], host_ip: &str) -> Option<String> {
    ours(&with(changes), &policy(host_ip)).address.map(|address| address.to_string())
}

const LABELS: &str = "/Config/Labels";
const ENV: &str = "/Config/Env";
const PORT_80: &str = "/NetworkSettings/Ports/80~1tcp";

#[test]
fn the_tutorials_public_container() {
    let claim = ours(&with(&[]), &policy("10.0.0.5"));
    assert_eq!((claim.site.as_str(), claim.hosts.as_slice()), ("wordpress.local", &["wordpress.local".to_owned()][..]));
    assert_eq!((claim.role, claim.port, claim.weight), (Role::Public, 80, 1));
    assert_eq!(claim.address, Some("10.0.0.5:49153".parse().unwrap()), "one server, IPv4, not one for each binding");
    assert!(claim.warnings.is_empty() && !claim.waiting && claim.held.is_none());
}

#[test]
fn names_and_the_marker_decide_the_role() {
    let admin = json!(["WORDPRESS_ADMIN_ENABLED=true"]);
    let off = json!(["WORDPRESS_ADMIN_ENABLED=false"]);
    for (name, env, role) in [
        ("/wordpress-1", json!([]), Role::Public),
        ("/wordpress-", admin.clone(), Role::Admin),
        ("/wordpress-2", off.clone(), Role::Public),
        ("/wordpressadmin1", json!([]), Role::Admin),
        ("/wordpress-admin", json!([]), Role::Admin),
        ("/wordpressadmin1", admin.clone(), Role::Admin),
        ("/wordpress-admin", off, Role::Public),
        ("wordpress-podman", admin, Role::Admin),
    ] {
        assert_eq!(
            ours(&with(&[("/Name", json!(name)), (ENV, env.clone())]), &policy("10.0.0.5")).role,
            role,
            "{name} {env}"
        );
    }
    for name in ["/wordpress", "/mysql", "/my-wordpress-1", "/Wordpress-1", ""] {
        assert!(!last_word(&with(&[("/Name", json!(name))])).0, "{name}");
    }
    let (mistake, why) = last_word(&with(&[
        ("/Name", json!("/wordpress-db-1")),
        (LABELS, json!({"com.docker.compose.project": "wordpress"})),
    ]));
    assert!(!mistake && why.contains("Compose"), "{why}");
}

#[test]
fn labels_decide_before_names() {
    let claim = ours(
        &with(&[
            ("/Name", json!("/anything")),
            (
                LABELS,
                json!({"etna.host": "Example.com, www.example.com.,example.com", "etna.site": "blog", "etna.role": "Both",
                            "etna.port": "8080", "etna.weight": "5"}),
            ),
            ("/NetworkSettings/Ports", json!({"8080/tcp": [{"HostIp": "10.1.1.1", "HostPort": "81"}], "80/tcp": null})),
        ]),
        &policy("10.0.0.5"),
    );
    assert_eq!(claim.hosts, ["example.com", "www.example.com"]);
    assert_eq!((claim.site.as_str(), claim.role, claim.port, claim.weight), ("blog", Role::Both, 8080, 5));
    assert_eq!(claim.address, Some("10.1.1.1:81".parse().unwrap()), "bound to one address: that one");

    let any = ours(
        &with(&[("/Name", json!("/x")), (ENV, json!([])), (LABELS, json!({"etna.enable": "true"}))]),
        &policy("10.0.0.5"),
    );
    assert_eq!((any.site.as_str(), any.role), ("wordpress.local", Role::Public));
    assert_eq!(
        last_word(&with(&[(LABELS, json!({"etna.enable": "False", "etna.host": "a.b"}))])),
        (false, "not ours".into())
    );
}

#[test]
fn mistakes_in_labels_are_told() {
    for (labels, says) in [
        (json!({"etna.enable": "maybe"}), "true or false"),
        (json!({"etna.host": "a/b c/d"}), "no host name is left"),
        (json!({"etna.host": "*.a.b"}), "no host name is left"),
        (json!({"etna.host": "a.b:80"}), "no host name is left"),
        (json!({"etna.host": "a.b", "etna.site": "../x"}), "a site's name"),
        (json!({"etna.host": "a.b", "etna.role": "root"}), "public, admin or both"),
        (json!({"etna.host": "a.b", "etna.port": "0"}), "1 to 65535"),
        (json!({"etna.host": "a.b", "etna.addr": "db"}), "ADDRESS"),
        (json!({"etna.host": "a.b", "etna.addr": "127.0.0.1:2375"}), "loopback"),
        (json!({"etna.host": "a.b", "etna.addr": "::ffff:127.0.0.1"}), "loopback"),
        (json!({"etna.host": "a.b", "etna.addr": "[::1]:80"}), "loopback"),
        (json!({"etna.host": "a.b", "etna.addr": "169.254.169.254"}), "link-local"),
        (json!({"etna.host": "a.b", "etna.addr": "0.0.0.0"}), "unspecified"),
        (json!({"etna.host": "a.b", "etna.addr": "224.0.0.1"}), "multicast"),
        (json!({"etna.host": "a.b", "etna.addr": "172.17.0.1"}), "bridge"),
        (json!({"etna.host": "a.b", "etna.addr": "10.0.0.9:2379"}), "--allow-addr"),
        (json!({"etna.host": "a.b", "etna.addr": "10.0.0.5:2379"}), "--allow-addr"),
        (json!({"etna.host": (0..40).map(|i| format!("h{i}.b,")).collect::<String>()}), "more than"),
    ] {
        let (mistake, why) = last_word(&with(&[(LABELS, labels.clone())]));
        assert!(mistake && why.contains(says), "{labels}: {why}");
    }
    let claim = ours(&with(&[(LABELS, json!({"etna.host": "a.b,c/d", "etna.weight": "999"}))]), &policy("10.0.0.5"));
    assert_eq!((claim.hosts.as_slice(), claim.weight), (&["a.b".to_owned()][..], 1));
}

#[test]
fn labels_that_we_do_not_know_are_told() {
    let labels =
        json!({"etna.host": "a.b", "etna.hosts": "c.d", "Etna.Role": "admin", "etna.health.path": "/x", "etnax": ""});
    let claim = ours(&with(&[(LABELS, labels)]), &policy("10.0.0.5"));
    assert_eq!((claim.role, claim.warnings.len()), (Role::Public, 3), "{:?}", claim.warnings);
    assert!(claim.warnings.iter().any(|warning| warning.contains("etna.hosts is ignored")));
    let told = |name: &str| claim.why.iter().any(|why| why.saw == name && why.then.starts_with("ignored"));
    assert!(told("etna.hosts") && told("Etna.Role") && told("etna.health.path") && !told("etnax"));

    let of_mysql = |labels: Value| last_word(&with(&[("/Name", json!("/mysql")), (LABELS, labels)]));
    let (mistake, why) = of_mysql(json!({"etna.hots": "a.b"}));
    assert!(mistake && why.contains("etna.host label"), "{why}");
    assert!(!of_mysql(json!({"other.host": "a.b"})).0);
    assert!(!of_mysql(json!({"etna.hots": "a.b", "etna.enable": "false"})).0);
    let many: serde_json::Map<_, _> = (0..99).map(|n| (format!("etna.{n}{}", "x".repeat(300)), json!(""))).collect();
    let claim = ours(&with(&[(LABELS, Value::Object(many))]), &policy("10.0.0.5"));
    assert!(claim.warnings.len() == 8 && claim.warnings.iter().all(|warning| warning.len() < 200));
}

#[test]
fn which_hosts_may_be_claimed() {
    let mut policy = policy("10.0.0.5");
    policy.allow_hosts = vec!["*.example.com".parse().unwrap()];
    let claimed = |labels: Value, policy: &Policy| ours(&with(&[(LABELS, labels)]), policy).hosts;
    assert_eq!(claimed(json!({"etna.host": "bank.com,a.example.com"}), &policy), ["a.example.com"]);
    let refused =
        |container: &Container| matches!(classify(container, &policy), Decision::NotOurs { mistake: true, .. });
    assert!(refused(&with(&[(LABELS, json!({"etna.host": "bank.com"}))])));
    assert!(refused(&with(&[])), "the environment is a stranger's as well");
    assert_eq!(ours(&with(&[(ENV, json!([]))]), &policy).hosts, ["wordpress.local"], "the operator's own");
}

#[test]
fn which_sites_may_be_named() {
    let mut policy = policy("10.0.0.5");
    let site = |labels: Value, policy: &Policy| match classify(&with(&[(LABELS, labels)]), policy) {
        Decision::Ours(claim) => Ok(claim.site),
        Decision::NotOurs { mistake, why } => {
            assert!(mistake);
            Err(why.last().map(|reason| (reason.rule, reason.then.clone())).unwrap())
        }
    };
    let stolen = json!({"etna.host": "a.example.com", "etna.site": "wordpress.local", "etna.role": "admin"});
    assert!(site(stolen.clone(), &policy).is_ok(), "nothing is restricted");
    policy.allow_hosts = vec!["*.example.com".parse().unwrap()];
    let (rule, then) = site(stolen.clone(), &policy).unwrap_err();
    assert!(rule == "--allow-site" && then.contains("--allow-host"), "{rule}: {then}");
    for (host, name, good) in [
        ("a.example.com", "a.example.com", true),
        ("a.example.com", "b.example.com", true),
        ("a.example.com", "blog", false),
        ("a.example.com", "A.example.com.evil", false),
    ] {
        assert_eq!(site(json!({"etna.host": host, "etna.site": name}), &policy).is_ok(), good, "{name}");
    }
    policy.allow_sites = vec!["blog-*".parse().unwrap()];
    assert_eq!(site(json!({"etna.host": "a.example.com", "etna.site": "blog-1"}), &policy), Ok("blog-1".into()));
    assert!(site(stolen, &policy).is_err());
    // What is ours by its name and says no host has the operator's, and may name the site of that.
    let by_default = with(&[(ENV, json!([])), (LABELS, json!({"etna.site": "wordpress.local"}))]);
    assert_eq!(ours(&by_default, &policy).site, "wordpress.local");
}

#[test]
fn labels_name_addresses_of_their_own_container() {
    let at = |label: &str, changes: &[(&str, Value)], policy: &Policy| {
        let labels = (LABELS, json!({"etna.host": "a.b", "etna.addr": label}));
        let changes: Vec<_> = changes.iter().cloned().chain([labels]).collect();
        match classify(&with(&changes), policy) {
            Decision::Ours(claim) => claim.address.map(|address| address.to_string()),
            Decision::NotOurs { .. } => None,
        }
    };
    let bound = |ip: &str, port: &str| (PORT_80, json!([{"HostIp": ip, "HostPort": port}]));
    let v6 = json!({"macvlan": {"IPAddress": "10.9.0.2", "GlobalIPv6Address": "fd00::9"}});
    let mut policy = policy("10.0.0.5");
    for (label, changes, expected) in [
        ("172.17.0.2", vec![], Some("172.17.0.2:80")),
        ("172.17.0.2:8080", vec![], Some("172.17.0.2:8080")),
        ("10.0.0.5:49153", vec![], Some("10.0.0.5:49153")),
        ("10.0.0.5:49155", vec![], None),
        ("10.0.0.5:80", vec![], None),
        ("10.1.1.1:81", vec![bound("10.1.1.1", "81")], Some("10.1.1.1:81")),
        ("10.0.0.5:81", vec![bound("10.1.1.1", "81")], None),
        ("[fd00::9]:80", vec![("/NetworkSettings/Networks", v6.clone())], Some("[fd00::9]:80")),
        ("10.0.0.5:80", vec![("/HostConfig/NetworkMode", json!("host"))], Some("10.0.0.5:80")),
        ("10.0.0.5:2379", vec![("/HostConfig/NetworkMode", json!("host"))], None),
        ("10.7.7.7", vec![], None),
    ] {
        assert_eq!(at(label, &changes, &policy).as_deref(), expected, "{label}");
    }
    policy.addressing.allow = vec!["10.7.0.0/16".parse().unwrap()];
    assert_eq!(at("10.7.7.7", &[], &policy).as_deref(), Some("10.7.7.7:80"));
    assert_eq!(at("10.8.7.7", &[], &policy), None);
    policy.addressing.allow = vec!["0.0.0.0/0".parse().unwrap()];
    assert_eq!(at("127.0.0.1:2375", &[], &policy), None, "never");
}

#[test]
fn addresses_in_host_mode() {
    let bound = |bindings: Value| [(PORT_80, bindings)];
    let b = |ip: &str, port: &str| json!({"HostIp": ip, "HostPort": port});
    for (bindings, host_ip, expected) in [
        (json!([b("", "49153")]), "10.0.0.5", "10.0.0.5:49153"),
        (json!([b("::", "7"), b("0.0.0.0", "8")]), "10.0.0.5", "10.0.0.5:8"),
        (json!([b("::", "7"), b("0.0.0.0", "8")]), "fd00::5", "[fd00::5]:7"),
        (json!([b("10.2.2.2", "1"), b("10.0.0.5", "2")]), "10.0.0.5", "10.0.0.5:2"),
        (json!([b("10.2.2.2", "1"), b("0.0.0.0", "2")]), "10.0.0.5", "10.2.2.2:1"),
        (json!([b("127.0.0.1", "9")]), "127.0.0.1", "127.0.0.1:9"),
        (json!([b("127.0.0.3", "9")]), "127.0.0.1", "127.0.0.3:9"),
        (json!([b("0.0.0.0", "9")]), "127.0.0.1", "127.0.0.1:9"),
        (json!([b("::1", "9")]), "127.0.0.1", "172.17.0.2:80"),
        (json!([b("127.0.0.1", "9")]), "10.0.0.5", "172.17.0.2:80"),
        (json!([b("172.17.0.1", "9")]), "10.0.0.5", "172.17.0.2:80"),
        (json!([b("169.254.1.1", "9")]), "10.0.0.5", "172.17.0.2:80"),
        (json!([b("0.0.0.0", "9")]), "unknown", "172.17.0.2:80"),
        (json!([b("rubbish", "9"), b("0.0.0.0", "rubbish")]), "10.0.0.5", "172.17.0.2:80"),
    ] {
        assert_eq!(address(&bound(bindings.clone()), host_ip).as_deref(), Some(expected), "{bindings} on {host_ip}");
    }
    let claim = ours(&with(&bound(json!([b("127.0.0.1", "9")]))), &policy("10.0.0.5"));
    assert!(claim.warnings.iter().any(|warning| warning.contains("only this machine")), "{:?}", claim.warnings);
}

#[test]
fn a_port_that_is_asked_for_is_waited_for() {
    for ports in
        [json!({"80/tcp": null}), json!({}), Value::Null, json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]})]
    {
        let claim = ours(&with(&[("/NetworkSettings/Ports", ports.clone())]), &policy("10.0.0.5"));
        assert!(claim.waiting, "{ports}");
    }
    let unpublished = [("/NetworkSettings/Ports", json!({"80/tcp": null})), ("/HostConfig/PortBindings", json!({}))];
    let claim = ours(&with(&unpublished), &policy("10.0.0.5"));
    assert!(!claim.waiting && !claim.warnings.is_empty());
    assert_eq!(claim.address, Some("172.17.0.2:80".parse().unwrap()));
}

#[test]
fn other_ways_to_be_reached() {
    let host = [
        ("/HostConfig/NetworkMode", json!("host")),
        ("/NetworkSettings/Ports", json!({})),
        ("/HostConfig/PortBindings", json!({})),
    ];
    assert_eq!(address(&host, "10.0.0.5").as_deref(), Some("10.0.0.5:80"));
    assert_eq!(address(&host, "unknown"), None);

    let networks =
        json!({"front": {"IPAddress": "10.9.0.2"}, "back": {"IPAddress": "10.8.0.2"}, "none": {"IPAddress": ""}});
    let several = with(&[("/NetworkSettings/Networks", networks)]);
    let mut policy = policy("10.0.0.5");
    policy.addressing.mode = Mode::Container;
    let claim = ours(&several, &policy);
    assert_eq!(claim.address, Some("10.8.0.2:80".parse().unwrap()), "by name, not by chance");
    assert_eq!(claim.warnings.len(), 1);
    policy.addressing.mode = Mode::Network("front".into());
    assert_eq!(ours(&several, &policy).address, Some("10.9.0.2:80".parse().unwrap()));
    policy.addressing.mode = Mode::Network("missing".into());
    let claim = ours(&several, &policy);
    assert_eq!((claim.address, claim.warnings.len()), (None, 1));
}

#[test]
fn the_port_inside() {
    let port = |changes: &[(&str, Value)]| ours(&with(changes), &policy("10.0.0.5")).port;
    let exposed = |ports: Value| {
        [
            ("/Config/ExposedPorts", ports),
            ("/NetworkSettings/Ports", json!({})),
            ("/HostConfig/PortBindings", json!({})),
        ]
    };
    assert_eq!(port(&exposed(json!({"8080/tcp": {}, "9/udp": {}}))), 8080);
    assert_eq!(port(&exposed(json!({"443/tcp": {}, "80/tcp": {}}))), 80);
    assert_eq!(port(&exposed(Value::Null)), 80);
    let (mistake, why) = last_word(&with(&exposed(json!({"8080/tcp": {}, "9000/tcp": {}}))));
    assert!(mistake && why.contains("etna.port"));
    let published = json!({"80/tcp": null, "8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "5"}]});
    assert_eq!(port(&[("/NetworkSettings/Ports", published), ("/HostConfig/PortBindings", json!({}))]), 8080);
}

#[test]
fn what_holds_a_container_back() {
    let held = |changes: &[(&str, Value)]| {
        let claim = ours(&with(changes), &policy("10.0.0.5"));
        (claim.weight, claim.held)
    };
    let health = |status: &str| ("/State/Health", json!({"Status": status, "FailingStreak": 0, "Log": []}));
    assert_eq!(held(&[health("healthy")]), (1, None));
    assert_eq!(held(&[health("none")]), (1, None));
    assert_eq!(held(&[health("starting")]), (0, Some("health: starting".into())));
    assert_eq!(held(&[health("unhealthy")]), (0, Some("health: unhealthy".into())));
    assert_eq!(held(&[("/State/Paused", json!(true))]), (0, Some("paused".into())));
    let ignore = (LABELS, json!({"etna.host": "a.b", "etna.health.docker": "ignore"}));
    assert_eq!(held(&[health("unhealthy"), ignore]), (1, None));
}

#[test]
fn what_engines_of_other_versions_say() {
    // API 1.24 (Docker 1.12): no StopSignal, no Networks' gateway, Labels null.
    let old: Container = serde_json::from_value(json!({
        "Id": "aaaaaaaaaaaaaaaa", "Name": "/wordpress-1", "State": {"Running": true, "StartedAt": "2026-11-21T06:03:00Z"},
        "Config": {"Env": null, "Labels": null, "ExposedPorts": {"80/tcp": {}}, "Image": "wp"},
        "HostConfig": {"NetworkMode": "default", "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}]}, "IPAddress": "172.17.0.2"}
    }))
    .unwrap();
    assert_eq!(ours(&old, &policy("10.0.0.5")).address, Some("10.0.0.5:32768".parse().unwrap()));
    let mut inside = policy("10.0.0.5");
    inside.addressing.mode = Mode::Container;
    assert_eq!(ours(&old, &inside).address, Some("172.17.0.2:80".parse().unwrap()));
    // API 1.52 (Docker 29): the addresses of the default bridge are only below Networks, health is always there.
    let new = [
        ("/NetworkSettings/IPAddress", Value::Null),
        ("/State/Health", json!({"Status": "none", "FailingStreak": 0, "Log": null})),
        ("/Config/ExposedPorts", Value::Null),
        ("/HostConfig/NetworkMode", json!("bridge")),
    ];
    assert_eq!(address(&new, "10.0.0.5").as_deref(), Some("10.0.0.5:49153"));
}
