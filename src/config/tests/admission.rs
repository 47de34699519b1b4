//! Lists of networks and rate limits, as they are written and what is wrong with them.

use super::{SMALLEST, accept, refuse};
use crate::admit::{CountBy, LimitId, Networks, Pace};
use crate::config::generation::Generation;
use crate::proxy_protocol::Version;
use std::fs;
use std::time::Duration;

const ROUTES: &str = r#"
[[routes]]
name = "api"
match = { path_prefix = "/api" }
action = { upstream = "default" }
"#;

fn with(more: &str) -> String {
    format!("{SMALLEST}{ROUTES}{more}")
}

fn told(text: &str) -> Vec<String> {
    refuse(text).into_iter().map(|(_, _, message)| message).collect()
}

fn limit(more: &str) -> String {
    with(&format!("[[rate_limits]]\nname = \"it\"\nrequests = 10\n{more}\n"))
}

fn of_route(generation: &Generation, name: &str) -> Vec<LimitId> {
    let route = generation.routes.iter().find(|route| &*route.name == name).expect("a route");
    route.rate_limits.to_vec()
}

#[test]
fn a_rate_limit_has_its_defaults_and_applies_everywhere() {
    let (generation, warnings) = accept(&limit(""));
    assert!(warnings.is_empty(), "{warnings}");
    let limit = &generation.rate_limits[0];
    assert_eq!((&*limit.name, &limit.by, limit.dry_run, limit.keys), ("it", &CountBy::Client, false, 65_536));
    assert_eq!(limit.networks, Networks { v4: 32, v6: 64 });
    assert_eq!(limit.pace, Pace::new(10, Duration::from_secs(1), 10));
    assert_eq!(&*limit.policy, "\"it\";q=10;w=1");
    assert_eq!((limit.requests, limit.tells), (10, false));
    assert_eq!((of_route(&generation, "default"), of_route(&generation, "api")), (vec![LimitId(0)], vec![LimitId(0)]));
    assert!(generation.budget().to_string().contains("keys of rate limits"));
}

#[test]
fn rate_limits_apply_to_the_routes_they_name() {
    let (generation, _) = accept(&with(
        "[[rate_limits]]\nname = \"all\"\nrequests = 100\nperiod = \"1m\"\nburst = 7\nkey = \"header:X-Tenant\"\n\
         dry_run = true\nipv4_prefix = 24\nipv6_prefix = 48\nkeys = 1000\n\
         [[rate_limits]]\nname = \"api\"\nrequests = 1\nkey = \"route\"\nroutes = [\"api\", \"api\"]\n",
    ));
    let all = &generation.rate_limits[0];
    assert_eq!(all.by, CountBy::Header("x-tenant".into()));
    assert_eq!(all.pace, Pace::new(100, Duration::from_secs(60), 7));
    assert_eq!((all.networks, all.dry_run, all.entries(2)), (Networks { v4: 24, v6: 48 }, true, 1_024));
    assert_eq!(of_route(&generation, "default"), [LimitId(0)]);
    assert_eq!(of_route(&generation, "api"), [LimitId(0), LimitId(1)]);
}

#[test]
fn what_is_wrong_with_a_rate_limit_is_told() {
    for (more, message) in [
        ("key = \"client\"", "`key`: nothing is counted by this"),
        ("key = \"header:host\"", "`key`: the host is no field here"),
        ("routes = \"apo\"", "there is no route `apo`"),
        ("routes = []", "`routes` is an empty array"),
        ("period = \"999ms\"", "`period` is out of range: from \"1s\" to \"24h\""),
        ("period = \"24h\"\nburst = 301", "a burst this large takes too long to come back at this rate"),
        ("key = \"route\"\nkeys = 10", "`keys` does nothing where `key` is \"route\""),
        ("key = \"route\"\nipv4_prefix = 24", "`ipv4_prefix` does nothing where `key` is \"route\""),
        ("ipv4_prefix = 33", "`ipv4_prefix` is out of range: from 1 to 32"),
        ("burst = 0", "`burst` is out of range: from 1 to 1000000"),
    ] {
        assert_eq!(told(&limit(more)), [message], "{more}");
    }
    let fast = with("[[rate_limits]]\nname = \"fast\"\nrequests = 1000000\nperiod = \"9s\"\n");
    assert_eq!(told(&fast), ["a rate of more than 100000 requests in a second cannot be held"]);
    // A route that is wrong itself is told once.
    let broken = limit("routes = \"api\"").replace("upstream = \"default\" }", "upstream = \"defoult\" }");
    assert_eq!(told(&broken), ["there is no upstream `defoult`"]);
    let twice = format!("{}[[rate_limits]]\nname = \"it\"\nrequests = 1\n", limit(""));
    assert_eq!(told(&twice), ["two rate limits are named `it`"]);
    let many: String = (0..17).map(|at| format!("[[rate_limits]]\nname = \"n{at}\"\nrequests = 1\n")).collect();
    assert_eq!(told(&with(&many)), ["more than 16 rate limits"]);
}

/// The smallest file with `clients` of the listener.
fn listening(clients: &str) -> String {
    SMALLEST.replace("port = 9889\n", &format!("port = 9889\nclients = {clients}\n"))
}

#[test]
fn lists_of_listeners_and_routes_are_compiled() {
    let (generation, _) = accept(SMALLEST);
    assert!(generation.listeners[0].clients.is_none() && generation.routes[0].clients.is_none());

    let (generation, _) = accept(&listening("{ allow = [\"10.0.0.0/8\"], deny = [\"10.6.0.0/16\"] }"));
    let rules = generation.listeners[0].clients.clone().expect("lists");
    let admits = |text: &str| rules.admits(text.parse().expect("an address"));
    assert!(admits("10.1.2.3") && !admits("10.6.1.1") && !admits("192.0.2.1") && !admits("2001:db8::1"));
    assert!(generation.budget().to_string().contains("lists of clients' networks"));

    let api = ROUTES.replace("name = \"api\"", "name = \"api\"\nclients = { deny = [\"2001:db8::/32\"] }");
    let (generation, _) = accept(&format!("{SMALLEST}{api}"));
    let route = generation.routes.iter().find(|route| &*route.name == "api").expect("a route");
    let rules = route.clients.clone().expect("lists");
    assert!(!rules.admits("2001:db8::1".parse().unwrap()) && rules.admits([192, 0, 2, 1].into()));
}

#[test]
fn what_is_wrong_with_lists_is_told() {
    for (clients, message) in [
        ("{ allow = [] }", "an empty list of networks"),
        ("{ deny = [] }", "an empty list of networks"),
        ("{ allow = [\"10.0.0.0/33\"] }", "`allow`: this is not a network"),
        ("{ allow = [\"10.0.0.0/8\"], deny = [\"10.0.0.1/8\"] }", "10.0.0.0/8 is both allowed and denied"),
        ("{ from = [\"10.0.0.0/8\"] }", "unknown key `from` in `listen.clients`"),
    ] {
        assert_eq!(told(&listening(clients)), [message], "{clients}");
    }
}

#[test]
fn lists_come_from_files_too() {
    let folder = std::env::temp_dir().join(format!("spooky-lists-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("networks");
    let clients = format!("{{ allow = [\"192.0.2.1\"], allow_file = {:?}, deny = [\"10.6.0.0/16\"] }}", path);

    fs::write(&path, "# the office\n10.0.0.0/8\n\n  2001:db8::1  # one machine\r\n").expect("a file");
    let (generation, _) = accept(&listening(&clients));
    let rules = generation.listeners[0].clients.clone().expect("lists");
    let admits = |text: &str| rules.admits(text.parse().expect("an address"));
    assert!(admits("10.1.1.1") && admits("192.0.2.1") && admits("2001:db8::1"));
    assert!(!admits("10.6.1.1") && !admits("2001:db8::2"));

    // Line and file are named, what stands there is not: it may be some other file altogether.
    fs::write(&path, "10.0.0.0/8\nhunter2\n").expect("a file");
    let wrong = told(&listening(&clients));
    assert_eq!(wrong, [format!("line 2 of {} is not a network", path.display())]);

    fs::write(&path, "# nobody\n").expect("a file");
    let only_file = format!("{{ deny_file = {:?} }}", path);
    assert_eq!(told(&listening(&only_file)), ["an empty list of networks"]);

    fs::remove_dir_all(&folder).expect("the folder is ours");
    let missing = told(&listening(&only_file));
    assert!(missing.len() == 1 && missing[0].starts_with("cannot read "), "{missing:?}");
}

#[test]
fn a_rate_limit_tells_what_is_left_where_it_is_written_and_holds() {
    assert!(accept(&limit("headers = true")).0.rate_limits[0].tells);
    let both = told(&limit("headers = true\ndry_run = true"));
    assert_eq!(both, ["`headers` tells clients of a limit that does not hold for them"]);
}

fn behind(proxies: &str) -> String {
    SMALLEST.replace("port = 9889\n", &format!("port = 9889\nproxy_protocol = {proxies}\n"))
}

#[test]
fn proxies_in_front_and_backends_that_are_told_are_compiled() {
    let (generation, _) = accept(SMALLEST);
    assert!(generation.listeners[0].proxies.is_none() && generation.upstreams[0].proxy_protocol.is_none());

    let (generation, warnings) = accept(&behind("{ from = [\"10.0.0.0/8\", \"fd00::1\"] }"));
    let proxies = generation.listeners[0].proxies.clone().expect("a list");
    let admits = |text: &str| proxies.from.admits(text.parse().expect("an address"));
    assert!(admits("10.1.2.3") && admits("fd00::1") && !admits("192.0.2.1") && !admits("fd00::2"));
    assert!(!proxies.only);
    // HTTP/3 is spoken there, but nobody has said so.
    assert!(warnings.to_string().contains("HTTP/3 has no header of the PROXY protocol"), "{warnings}");

    let said = behind("{ from = [\"10.0.0.0/8\"], others = \"refuse\" }")
        .replace("port = 9889\n", "port = 9889\nprotocols = [\"h3\", \"h2\"]\n");
    let (generation, warnings) = accept(&said);
    assert!(warnings.is_empty(), "{warnings}");
    assert!(generation.listeners[0].proxies.as_ref().is_some_and(|proxies| proxies.only));

    for (word, version) in [("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))] {
        let told = SMALLEST.replace("backends =", &format!("proxy_protocol = \"{word}\"\nbackends ="));
        assert_eq!(accept(&told).0.upstreams[0].proxy_protocol, version);
    }
}

#[test]
fn what_is_wrong_with_proxies_is_told() {
    for (proxies, message) in [
        ("{ from = [] }", "an empty list of networks"),
        ("{ from = [\"10.0.0.0/33\"] }", "`from`: this is not a network"),
        ("{}", "`from` is missing in `listen.proxy_protocol`"),
        ("{ from = [\"10.0.0.0/8\"], others = \"drop\" }", "`others` does not know this word"),
    ] {
        let said = behind(proxies).replace("port = 9889\n", "port = 9889\nprotocols = [\"h2\"]\n");
        assert_eq!(told(&said), [message], "{proxies}");
    }
    let only_quic =
        behind("{ from = [\"10.0.0.0/8\"] }").replace("port = 9889\n", "port = 9889\nprotocols = [\"h3\"]\n");
    assert_eq!(told(&only_quic), ["`proxy_protocol` does nothing where nothing is spoken over TCP"]);
}
