//! Configurations as an operator writes them, and what comes of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod admission;
mod balancing;
mod health;
mod overload;
mod resilience;
mod routes;
mod tls;
mod upstream_tls;

use super::*;
use crate::http::{Fields, Method};
use crate::route::{Lookup, Request, RouteId};

const SMALLEST: &str = r#"
version = 1
[listen]
port = 9889
tls = { cert = "/c.pem", key = "/k.pem" }
[upstream.default]
route = { path_prefix = "/" }
backends = [ { id = "backend1", address = "http://127.0.0.1:8080" } ]
"#;

fn accept(text: &str) -> (Generation, Warnings) {
    from_str("test.toml", text).unwrap_or_else(|diagnostics| panic!("refused:\n{diagnostics}"))
}

/// What is found for a GET that has nothing but host and path.
fn lookup(generation: &Generation, host: &str, path: &str) -> Lookup {
    let (method, fields) = (Method::Get, Fields::new());
    let request = Request { host, path: Some(path), method: &method, query: None, fields: &fields, trusted: false };
    generation.table.lookup(&request, &mut generation.table.lens())
}

/// The messages of a refused text, each with its line and column.
fn refuse(text: &str) -> Vec<(u32, u32, String)> {
    let diagnostics = from_str("test.toml", text).map(|_| ()).expect_err("the text is wrong");
    told(diagnostics.iter())
}

fn told<'a>(findings: impl Iterator<Item = Finding<'a>>) -> Vec<(u32, u32, String)> {
    findings
        .map(|finding| {
            let position = finding.places().next().map_or(Position { line: 0, column: 0 }, |(_, position, _)| position);
            (position.line, position.column, finding.message().to_owned())
        })
        .collect()
}

#[test]
fn the_smallest_file_has_every_default() {
    let (generation, warnings) = accept(SMALLEST);
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(generation.listeners[0].address.to_string(), "0.0.0.0:9889");
    assert_eq!(
        generation.listeners[0].tls().unwrap().source,
        TlsSource::Files { cert: Path::new("/c.pem").into(), key: Path::new("/k.pem").into() }
    );
    assert_eq!(generation.listeners[0].quic.max_data, 8 << 20);
    assert_eq!(generation.listeners[0].quic.idle_timeout, Duration::from_secs(30));
    let Lookup::Found(route) = lookup(&generation, "any", "/x") else { panic!("the route takes everything") };
    let route = generation.route(route);
    assert_eq!((&*route.name, route.ways.clone()), ("default", 0..1));
    let way = generation.way(WayId(0));
    assert_eq!(way.timeouts.backend, Duration::from_secs(15));
    assert_eq!(way.timeouts.total, None);
    assert_eq!(
        way.limits,
        BodyLimits { max_request_body_bytes: None, max_response_body_bytes: None, max_response_header_bytes: 65_536 }
    );
    let backends = generation.backends_of(way.upstream.expect("it forwards"));
    assert_eq!(backends.len(), 1);
    assert_eq!((backends[0].weight, &*backends[0].authority), (100, "127.0.0.1:8080"));
    assert_eq!(
        generation.observability.metrics.as_ref().map(|metrics| metrics.address.to_string()),
        Some("127.0.0.1:9901".to_owned())
    );
    assert_eq!(
        generation.observability.control_api.map(|address| address.to_string()),
        Some("127.0.0.1:9902".to_owned())
    );
    assert_eq!(generation.observability.access_log, Some(LogTarget::Stdout));
    assert_eq!(generation.protocol.refuses(&Method::Get), None);
    assert!(generation.budget().bytes() > 0);
}

#[test]
fn route_comes_before_upstream_before_performance() {
    let (generation, _) = accept(&format!(
        "{SMALLEST}
timeouts = {{ backend_timeout = \"20s\", client_send_timeout = 700, total_request_timeout = \"1h\" }}
limits = {{ max_request_body_bytes = \"1MiB\", per_backend_inflight_limit = 5 }}
[performance]
backend_timeout = \"10s\"
backend_connect_timeout = \"2s\"
max_request_body_bytes = \"2MiB\"
max_response_body_bytes = 3
total_request_timeout = \"2h\"
[[routes]]
name = \"slow\"
match = {{ path_prefix = \"/slow\" }}
action = {{ upstream = \"default\" }}
timeouts = {{ backend_timeout = \"30s\", total_request_timeout = \"off\" }}
limits = {{ max_request_body_bytes = \"off\" }}
"
    ));
    let (short, slow) = (generation.way(WayId(0)), generation.way(WayId(1)));
    assert_eq!(short.timeouts.backend, Duration::from_secs(20));
    assert_eq!(short.timeouts.backend_connect, Duration::from_secs(2));
    assert_eq!(short.timeouts.client_send, Duration::from_millis(700));
    assert_eq!(short.timeouts.total, Some(Duration::from_secs(3600)));
    assert_eq!(short.limits.max_request_body_bytes, Some(1 << 20));
    assert_eq!(short.limits.max_response_body_bytes, Some(3));
    assert_eq!(slow.timeouts.backend, Duration::from_secs(30));
    assert_eq!(slow.timeouts.client_send, Duration::from_millis(700));
    assert_eq!(slow.timeouts.total, None);
    assert_eq!(slow.limits.max_request_body_bytes, None);
    assert_eq!(generation.backends[0].inflight_limit, 5);
}

#[test]
fn five_mistakes_are_five_findings_with_places() {
    let text = r#"version = 1
[listen]
prot = 9889
tls = { cert = "/c.pem", key = "/k.pem" }
[upstream.api]
route = { host = "a.example", path_prefix = "/api" }
backends = [
  { id = "one", address = "http://10.0.0.1:8080", weight = 0 },
  { id = "one", address = "http://backend.internal:8080/api" },
]
[performance]
backend_timeout = "15 sec"
"#;
    assert_eq!(
        refuse(text),
        [
            (3, 1, "unknown key `prot` in `listen`".to_owned()),
            (8, 60, "`weight` is out of range: from 1 to 1000".to_owned()),
            (9, 10, "two backends of upstream `api` have the id `one`".to_owned()),
            (9, 27, "`address`: a backend address has no path".to_owned()),
            (12, 19, "`backend_timeout` is not a time".to_owned()),
        ]
    );
}

#[test]
fn findings_look_like_this() {
    let diagnostics = from_str("/etc/spooky/config.toml", "version = 1\n[listen]\n\tprotocols = [\"h3\", \"spdy\"]\n[upstream.a]\nroute = {}\nbackends = [{ id = \"x\", address = \"http://10.0.0.1\" }]\n[[routes]]\nname = \"b\"\nmatch = { path_prefix = \"/\" }\naction = { upstream = \"a\" }\n[performence]\n").map(|_| ()).expect_err("wrong");
    let expected = r#"error: `protocols` does not know this word
 --> /etc/spooky/config.toml:3:21
  |
3 |     protocols = ["h3", "spdy"]
  |                        ^^^^^^
  = help: it can be "h3", "h2", "http/1.1"

error: no rule can order the routes `a` and `b`: both take any host, path prefix /, any method
 --> /etc/spooky/config.toml:9:9
  |
9 | match = { path_prefix = "/" }
  |         ^^^^^^^^^^^^^^^^^^^^^ this one
 --> /etc/spooky/config.toml:5:9
  |
5 | route = {}
  |         ^^ and this one
  = help: change host, path, method or matchers of one of them, or remove it

error: unknown key `performence` at the top level
  --> /etc/spooky/config.toml:11:2
   |
11 | [performence]
   |  ^^^^^^^^^^^
   = help: did you mean `performance`?

3 errors in /etc/spooky/config.toml
"#;
    assert_eq!(diagnostics.to_string(), expected);
}

#[test]
fn syntax_errors_do_not_hide_the_rest() {
    let text = "version = 1\n[listen]\nport = \naddress = 0.0.0.0\n[upstream.a]\nroute = { path_prefix = \"/\" }\nbackends = [{ id = \"x\", address = \"gopher://10.0.0.1\" }]\nbackends = []\n";
    let found = refuse(text);
    assert!(found.iter().filter(|(_, _, message)| message.starts_with("not valid TOML")).count() >= 2, "{found:#?}");
    assert!(found.iter().any(|(line, _, message)| *line == 8 && message == "this key is set twice"), "{found:#?}");
    assert!(found.iter().any(|(line, _, message)| *line == 7 && message.contains("scheme is unknown")), "{found:#?}");
    assert!(!found.iter().any(|(_, _, message)| message.contains("missing")), "{found:#?}");
}

#[test]
fn a_key_set_twice_shows_both_places() {
    let text = "version = 1\n[log]\nlevel = \"haunt\"\nformat = \"json\"\nlevel = \"scream\"\n[performance]\n[log]\n";
    let diagnostics = from_str("t", text).map(|_| ()).expect_err("set twice");
    let places: Vec<Vec<u32>> = diagnostics
        .iter()
        .filter(|finding| finding.message().contains("twice"))
        .map(|finding| finding.places().map(|(_, position, _)| position.line).collect())
        .collect();
    assert_eq!(places, [vec![5, 3], vec![7, 2]]);
}

#[test]
fn address_validation_is_off_the_way_unless_it_is_asked_for() {
    let (generation, _) = accept(SMALLEST);
    assert_eq!(generation.listeners[0].quic.retry, RetryMode::Auto);
    let performance = &generation.performance;
    assert_eq!((performance.max_connections_per_address, performance.new_connections), (None, None));
    assert_eq!(generation.secret, SecretSource::Usual(Path::new("/var/lib/spooky/secret").into()));

    let (generation, warnings) = accept(&format!(
        "{SMALLEST}[security]\nsecret = {{ file = \"/run/s\" }}\n[performance]\nmax_connections_per_address = 9\nnew_connections_per_sec = 5\n"
    ));
    assert!(warnings.is_empty(), "{warnings}");
    let performance = &generation.performance;
    assert_eq!((performance.max_connections_per_address, performance.new_connections), (Some(9), Some((5, 5))));
    assert_eq!(generation.secret, SecretSource::File(Path::new("/run/s").into()));
    // Written out, the usual place must be there.
    let (generation, _) = accept(&format!("{SMALLEST}[security]\nsecret.file = \"/var/lib/spooky/secret\"\n"));
    assert!(matches!(generation.secret, SecretSource::File(_)));

    let (_, warnings) = accept(&format!("{SMALLEST}[performance]\nnew_connections_burst = 7\n"));
    assert!(warnings.to_string().contains("`new_connections_burst` does nothing"), "{warnings}");
    let (generation, _) =
        accept(&format!("{SMALLEST}[performance]\nnew_connections_per_sec = 5\nnew_connections_burst = 7\n"));
    assert_eq!(generation.performance.new_connections, Some((5, 7)));
    let (generation, _) = accept(&SMALLEST.replace("[listen]", "[listen]\nquic.retry = \"always\""));
    assert_eq!(generation.listeners[0].quic.retry, RetryMode::Always);
}

#[test]
fn planned_keys_and_words_say_so() {
    let text = format!("{SMALLEST}[resilience.watchdog]\nx = 1\n[performance]\nworker_threads = 5000\n");
    let messages: Vec<String> = refuse(&text).into_iter().map(|(_, _, message)| message).collect();
    assert_eq!(
        messages,
        [
            "`watchdog` in `resilience` is not available in this version",
            "`worker_threads` is out of range: from 1 to 4096",
        ]
    );
}

#[test]
fn workers_are_as_many_as_cpus_unless_written() {
    let workers = |more: &str| {
        let (generation, _) = from_str("t", &format!("{SMALLEST}{more}")).expect("right");
        generation.performance.worker_threads
    };
    let cpus = spooky_uring::host::allowed_cpus().unwrap().len();
    assert_eq!(usize::from(workers("")), cpus.min(4096));
    assert_eq!(workers("[performance]\nworker_threads = 3\n"), 3);
}

#[test]
fn secrets_are_never_shown() {
    for text in [
        "version = 1\n[observability.control_api]\nauth_token = \"hunter2\"\n",
        "version = 1\n[security]\nsecret = { file = 'hunter2' }\n",
        "version = 1\n[upstream.a]\nbackends = [{ id = \"a\", address = \"http://me:hunter2@10.0.0.1\" }]\n",
        "version = 1\n[upstream.a]\nbackends = [{ id = \"a\", address = \"me:hunter2@10.0.0.1:443\" }]\n",
        "version = 1\n[listen]\ntls = { cert = \"/c\", key = \"-----BEGIN PRIVATE KEY-----hunter2\" }\n",
        "version = 1\n[listen.tls]\ncert = \"/c\"\nkey = \"\"\"\n-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\"\"\"\n",
        "version = 1\npassword = hunter2\n",
    ] {
        let shown = from_str("t", text).map(|_| ()).expect_err("wrong").to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("me:"), "{shown}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    for (text, expected) in [
        ("", "`version` is missing at the top level"),
        ("version = 2", "`version` is out of range: only 1 is possible"),
        ("version = 1", "there is no [listen]"),
        ("version = 1\n[upstream.a]\nbackends = []", "upstream `a` has no backends"),
        ("version = 1\n[upstream.a]", "`backends` is missing in `upstream.a`"),
        (
            "version = 1\n[upstream.a]\nbackends = [{ id = \"x\", address = \"http://10.0.0.1\" }]",
            "there is no route: every request would be answered 404",
        ),
        ("version = 1\n[upstream.\"a b\"]\nbackends = []", "this is not a name"),
        ("version = 1\n[listen]\n[[listeners]]", "both [listen] and [[listeners]] are written"),
        ("version = 1\n[[listeners]]\nport = 1\n[[listeners]]\nport = 1", "two listeners have the address 0.0.0.0:1"),
        (
            "version = 1\n[performance]\ntotal_request_timeout = \"1s\"\nbackend_timeout = \"2s\"",
            "`backend_timeout` can never run out: the whole request has less time",
        ),
        (
            "version = 1\n[observability]\nmetrics.port = 1\ncontrol_api.port = 1",
            "metrics and control_api both listen on 127.0.0.1:1",
        ),
        ("version = 1\n[[routes]]\nname = \"a\"\naction = { upstream = \"b\" }", "there is no upstream `b`"),
        (
            "version = 1\n[[routes]]\nname = \"a\"\nmatch = { path = \"/a\", path_prefix = \"/\" }\naction = {}",
            "a route has `path` or `path_prefix`, not both",
        ),
        (
            "version = 1\n[upstream.a]\nhost_policy = { mode = \"rewrite\" }\nbackends = []",
            "mode \"rewrite\" needs `host`",
        ),
        (
            "version = 1\n[upstream.a]\nhost_policy = { host = \"x\" }\nbackends = []",
            "`host` acts only with mode \"rewrite\"",
        ),
        (
            "version = 1\n[upstream.a]\nroute = { path_prefix = \"/a/../b\" }\nbackends = []",
            "`path_prefix`: no request path looks like this",
        ),
        (
            "version = 1\n[upstream.a]\nroute = { method = \"get\" }\nbackends = []",
            "`method`: methods are written in capitals",
        ),
        ("version = 1\nperformance = 3", "`performance` takes a table, not an integer"),
        ("version = 1\nlisteners = {}", "`listeners` takes an array, not a table"),
        ("version = \"1\"", "`version` takes an integer, not a string"),
        ("version = 1\n[listen]\nport = 65536", "`port` is at most 65535"),
        ("version = 1\n[listen]\nport = -1", "`port` cannot be negative"),
        ("version = 99999999999999999999999", "this integer is too large"),
    ] {
        let found = refuse(text);
        assert!(found.iter().any(|(_, _, message)| message == expected), "{text}\n{found:#?}");
    }
}

#[test]
fn backend_addresses_say_where_a_backend_is() {
    let message = |address: &str| {
        let text = format!(
            "version = 1\n[upstream.a]\nroute = {{}}\nbackends = [{{ id = \"x\", address = \"{address}\" }}]\n[listen]\n"
        );
        from_str("t", &text)
            .map(|(generation, _)| {
                (generation.backends[0].location.clone(), generation.backends[0].authority.to_string())
            })
            .map_err(|diagnostics| diagnostics.to_string())
    };
    use spooky_uring::StreamAddress::{Tcp, Unix};
    let fixed = |address: &str| Location::Fixed(Tcp(address.parse().expect("an address")));
    let named = |host: &str, port| Location::Named { host: host.into(), port };
    assert_eq!(message("http://10.0.0.1:8080"), Ok((fixed("10.0.0.1:8080"), "10.0.0.1:8080".to_owned())));
    assert_eq!(message("http://10.0.0.1/"), Ok((fixed("10.0.0.1:80"), "10.0.0.1".to_owned())));
    assert_eq!(message("http://[::1]:81"), Ok((fixed("[::1]:81"), "[::1]:81".to_owned())));
    let socket = Location::Fixed(Unix(Path::new("/run/app.sock").into()));
    assert_eq!(message("unix:/run/app.sock"), Ok((socket, "localhost".to_owned())));
    assert_eq!(message("http://App.internal"), Ok((named("app.internal", 80), "app.internal".to_owned())));
    assert_eq!(message("http://app:8080"), Ok((named("app", 8080), "app:8080".to_owned())));
    assert_eq!(message("http://app.internal.:81/"), Ok((named("app.internal.", 81), "app.internal:81".to_owned())));
    assert_eq!(
        message("http://xn--bcher-kva.example"),
        Ok((named("xn--bcher-kva.example", 80), "xn--bcher-kva.example".to_owned()))
    );
    for (address, part) in [
        ("http://my_app:80", "letters, digits and hyphens"),
        ("http://-app.internal", "this is not a host name"),
        ("http://bücher.example", "this is not host:port"),
        ("http://10.0.0", "neither an IP address nor a host name"),
        ("http://10.0.0.256:80", "neither an IP address nor a host name"),
        ("http://10.0.0.1/x", "a backend address has no path"),
        ("http://10.0.0.1:0", "this is not host:port"),
        ("https://10.0.0.1:0", "this is not host:port"),
        ("10.0.0.1", "an address without scheme is \"host:port\""),
        ("app.internal/", "an address without scheme is \"host:port\""),
        ("me:hunter2@app.internal:443", "an address carries no credentials"),
        ("unix:app.sock", "absolute"),
        ("ftp://10.0.0.1", "this scheme is unknown"),
    ] {
        let shown = message(address).expect_err(address);
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn warnings_do_not_refuse() {
    let text = r#"version = 1
[listen]
quic = { max_stream_data = "16MiB", keep_alive = "11s" }
[upstream.a]
route = { host = "a.example", path_prefix = "/api" }
forwarded_headers = { mode = "append" }
backends = [{ id = "x", address = "http://10.0.0.1" }, { id = "y", address = "http://10.0.0.1" }]
[upstream.b]
route = { path_prefix = "/admin" }
backends = [{ id = "x", address = "http://10.0.0.1" }]
[upstream.c]
backends = [{ id = "x", address = "http://10.0.0.1" }]
[resilience.protocol]
denied_path_prefixes = ["/admin"]
"#;
    let (_, warnings) = accept(text);
    let messages: Vec<String> = told(warnings.iter()).into_iter().map(|(_, _, message)| message).collect();
    assert_eq!(
        messages,
        [
            "one stream may never send as much as `max_stream_data` says: the connection may not",
            "no client is silent for as long as `keep_alive` says: it is asked sooner",
            "route `b` also answers on host a.example, for paths that the host's own routes do not take",
            "\"append\" acts only for peers in `trusted_proxies`, which is empty",
            "two backends of upstream `a` have the same address",
            "no request reaches route `b`: its paths are denied",
            "no route leads to upstream `c`",
        ]
    );
}

#[test]
fn trusted_peers_are_found_also_behind_dual_stack() {
    let (generation, _) =
        accept(&format!("{SMALLEST}[routing]\ntrusted_proxies = [\"10.1.2.3/8\", \"fd00::/8\", \"192.0.2.1\"]\n"));
    for (peer, trusted) in [
        ("10.9.9.9", true),
        ("::ffff:10.9.9.9", true),
        ("11.0.0.1", false),
        ("fd12::1", true),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
    ] {
        assert_eq!(generation.trusts(peer.parse().expect("an address")), trusted, "{peer}");
    }
}

/// A folder under the target folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spooky-config-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("conf.d")).expect("a new folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.0.join(name), text).expect("a new file");
        self
    }

    fn load(&self) -> Result<(Generation, Warnings), Diagnostics> {
        let options = Options { check_files: false, supplied_tls: true };
        load_with(&self.0.join("main.toml"), &options).map(|(generation, warnings, _)| (generation, warnings))
    }

    /// Findings without the folder's own path.
    fn shown(&self) -> String {
        self.load().map(|_| ()).expect_err("wrong").to_string().replace(self.0.to_str().expect("UTF-8"), "F")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn included_files_are_merged_in_the_order_of_their_names() {
    let folder = Folder::new("merge");
    folder
        .write("main.toml", "version = 1\ninclude = [\"conf.d/*.toml\"]\n[listen]\n[performance]\nbackend_timeout = \"1s\"\n")
        .write("conf.d/20-b.toml", "[upstream.b]\nroute = { path_prefix = \"/b\" }\nbackends = [{ id = \"x\", address = \"http://10.0.0.2\" }]\n[[routes]]\nname = \"r2\"\nmatch = { path = \"/2\" }\naction = { upstream = \"a\" }\n")
        .write("conf.d/10-a.toml", "version = 1\n[upstream.a]\nroute = { path_prefix = \"/a\" }\nbackends = [{ id = \"x\", address = \"http://10.0.0.1\" }]\n[[routes]]\nname = \"r1\"\nmatch = { path = \"/1\" }\naction = { upstream = \"b\" }\n[performance]\nbackend_connect_timeout = \"2s\"\n")
        .write("conf.d/ignored.txt", "nonsense");
    let (generation, _) = folder.load().unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let names: Vec<&str> = generation.upstreams.iter().map(|upstream| &*upstream.name).collect();
    assert_eq!(names, ["a", "b"]);
    let names: Vec<&str> = generation.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["a", "b", "r1", "r2"]);
    assert_eq!(generation.ways[0].timeouts.backend_connect, Duration::from_secs(2));
}

#[test]
fn a_name_defined_twice_shows_both_files() {
    let folder = Folder::new("twice");
    folder
        .write("main.toml", "version = 1\ninclude = [\"conf.d/*.toml\"]\n[listen]\n[upstream.a]\nroute = {}\nbackends = [{ id = \"x\", address = \"http://10.0.0.1\" }]\n")
        .write("conf.d/a.toml", "[upstream.a]\nbackends = []\n[listen]\nport = 1\n[log]\nlevel = \"haunt\"\n")
        .write("conf.d/b.toml", "include = []\n[log]\nlevel = \"haunt\"\n");
    let expected = "error: upstream `a` is defined twice
 --> F/conf.d/a.toml:1:11
  |
1 | [upstream.a]
  |           ^ here again
 --> F/main.toml:4:11
  |
4 | [upstream.a]
  |           ^ first here
  = help: give one of them another name, or remove it

error: an included file cannot include others
 --> F/conf.d/b.toml:1:1
  |
1 | include = []
  | ^^^^^^^
  = help: move it to the main file

error: `log.level` is set twice
 --> F/conf.d/b.toml:3:1
  |
3 | level = \"haunt\"
  | ^^^^^ here again
 --> F/conf.d/a.toml:6:1
  |
6 | level = \"haunt\"
  | ^^^^^ first here
  = help: keep it in one file only

3 errors in F/main.toml
";
    assert_eq!(folder.shown(), expected);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = Folder::new("missing");
    assert!(folder.shown().starts_with("error: cannot read F/main.toml: No such file or directory\n"));
    folder.write("main.toml", "version = 1\ninclude = [\"gone.toml\", \"gone.d/*.toml\"]\n[listen]\n");
    let shown = folder.shown();
    assert!(shown.contains("cannot read F/gone.toml: No such file or directory\n --> F/main.toml:2:12"), "{shown}");
    assert!(shown.contains("cannot read the folder F/gone.d/: No such file or directory"), "{shown}");
    fs::write(folder.0.join("main.toml"), b"version = 1\nx = \"\xff\"\n").expect("a new file");
    assert!(folder.shown().contains("F/main.toml:2: the file is not UTF-8 text"), "{}", folder.shown());
}

#[test]
fn referenced_files_are_checked_but_never_shown() {
    let folder = Folder::new("files");
    let load = |cert: &str, key: &str| {
        folder.write("main.toml", &format!("version = 1\n[listen]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}\n[upstream.a]\nroute = {{}}\nbackends = [{{ id = \"x\", address = \"http://10.0.0.1\" }}]\n"));
        load(&folder.0.join("main.toml"))
            .map(|(_, warnings)| warnings.to_string())
            .map_err(|diagnostics| diagnostics.to_string())
    };
    folder
        .write("cert.pem", "-----BEGIN CERTIFICATE-----\nhunter2\n")
        .write("key.pem", "-----BEGIN PRIVATE KEY-----\nhunter2\n");
    let identity = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
    folder.write("good.pem", &identity.cert.pem()).write("good.key", &identity.signing_key.serialize_pem());
    let fine = load("good.pem", "good.key").expect("relative to the file");
    assert!(fine.contains("every user of this machine can read this private key"), "{fine}");
    let broken = load("cert.pem", "key.pem").expect_err("broken");
    assert!(broken.contains("the certificate PEM is broken") && !broken.contains("hunter2"), "{broken}");
    let swapped = load("key.pem", "cert.pem").expect_err("swapped");
    assert!(swapped.contains("certificate and key are swapped") && !swapped.contains("hunter2"), "{swapped}");
    let missing = load("gone.pem", "key.pem").expect_err("missing");
    assert!(missing.contains("gone.pem: No such file or directory"), "{missing}");
}

#[test]
fn no_text_makes_the_reader_panic() {
    // Every prefix of a file with one of everything, and every one-byte change of it to something syntactic.
    let text = concat!(
        "version = 1\ninclude = []\n[listen]\ntls = { cert = '/c', key = \"/k\" }\nquic.max_data = '1MiB'\n",
        "[upstream.\"ä\"]\nroute = { host = ['a', '*.b'], method = [\"GET\"] }\nbackends = [{ id = \"x\", address = \"http://[::1]:1/\" }]\n",
        "[[routes]]\nname = \"r\"\nmatch.path = \"*\"\naction.upstream = \"x\"\n[routes.timeouts]\nbackend_timeout = 1_000\n",
    );
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
        let _ = from_str("t", &text[..end]).map_err(|diagnostics| diagnostics.to_string());
        for change in ["\"", "[", "]", "{", "}", "=", ".", "\n", "#", "\0", "9"] {
            let rest = text[end..].chars().next().map_or(end, |skipped| end + skipped.len_utf8());
            let _ = from_str("t", &format!("{}{change}{}", &text[..end], &text[rest..]))
                .map_err(|diagnostics| diagnostics.to_string());
        }
    }
}

#[test]
fn ten_thousand_upstreams_compile_in_linear_steps() {
    use std::fmt::Write as _;
    let mut text = String::from("version = 1\n[listen]\n");
    for at in 0..10_000 {
        let _ = writeln!(
            text,
            "[upstream.u{at}]\nroute = {{ host = \"h{at}.example.com\", path_prefix = \"/p{at}\" }}\nbackends = [{{ id = \"x\", address = \"http://10.0.0.1\" }}]"
        );
    }
    let (generation, warnings) = accept(&text);
    assert!(warnings.is_empty());
    assert_eq!(lookup(&generation, "h77.example.com", "/p77/x"), Lookup::Found(RouteId(77)));
}

#[test]
fn traces_are_off_unless_a_folder_is_named() {
    let (generation, _) = accept(SMALLEST);
    assert_eq!(generation.observability.qlog, None);
    let (generation, _) = accept(&format!(
        "{SMALLEST}\n[observability.qlog]\ndir = \"/var/tmp/traces\"\nclient = \"::ffff:192.0.2.7\"\n"
    ));
    let without = accept(SMALLEST).0.budget().bytes();
    assert!(generation.budget().bytes() > without + (100 << 10), "traces are in the sum");
    let qlog = generation.observability.qlog.expect("traces");
    assert_eq!(&*qlog.dir, std::path::Path::new("/var/tmp/traces"));
    assert_eq!(qlog.client, Some("192.0.2.7".parse().unwrap()), "an IPv4 address in IPv6 is the IPv4 address");
    assert_eq!((qlog.max_files, qlog.max_file_bytes), (100, 16 << 20));
}

#[test]
fn the_resolver_has_servers_and_bounds() {
    let with = |keys: &str| {
        let text = format!(
            "version = 1\n[listen]\n[upstream.a]\nroute = {{}}\nbackends = [{{ id = \"x\", address = \"http://app\" }}]\n\
             [resolver]\n{keys}"
        );
        from_str("t", &text).map(|(generation, _)| generation.resolver).map_err(|diagnostics| diagnostics.to_string())
    };
    let usual = with("").expect("nothing is needed");
    assert_eq!((usual.servers.len(), usual.timeout, usual.attempts), (0, None, None));
    assert_eq!((usual.min_ttl, usual.max_ttl), (Duration::from_secs(1), Duration::from_secs(3600)));
    let written = with(
        "servers = [\"127.0.0.53\", \"10.0.0.2:5353\", \"[fd00::1]:53\", \"[fd00::2]\", \"fd00::3\"]\ntimeout = \"1s\"\nattempts = 3\n\
         min_ttl = \"5s\"\nmax_ttl = \"5s\"\nstart_timeout = 0",
    )
    .expect("all of it is good");
    let servers: Vec<String> = written.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["127.0.0.53:53", "10.0.0.2:5353", "[fd00::1]:53", "[fd00::2]:53", "[fd00::3]:53"]);
    assert_eq!((written.timeout, written.attempts), (Some(Duration::from_secs(1)), Some(3)));
    assert_eq!(written.start_timeout, Duration::ZERO);
    for (keys, part) in [
        ("servers = [\"dns.example\"]", "this is not the address of a server"),
        ("servers = [\"10.0.0.1:0\"]", "nobody can be asked on port 0"),
        ("servers = [\"224.0.0.251\"]", "this is not one server's address"),
        (
            "servers = [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\", \"1.1.1.4\", \"1.1.1.5\", \"1.1.1.6\", \"1.1.1.7\", \"1.1.1.8\", \"1.1.1.9\"]",
            "more than 8 servers",
        ),
        ("min_ttl = \"10s\"\nmax_ttl = \"5s\"", "`min_ttl` is longer than `max_ttl`"),
        ("attempts = 0", "`attempts`"),
        ("timeout = \"1ms\"", "`timeout`"),
    ] {
        let shown = with(keys).expect_err(keys);
        assert!(shown.contains(part), "{shown}");
    }
}
