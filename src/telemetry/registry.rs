//! Renders every metric of [`METRICS`] as Prometheus text, on control, from cells that workers keep writing.
//!
//! The table is the only place that names a metric: the scrape, `docs/METRICS.md` and the tests walk it. How to add
//! one: a cell in [`super::cells`], a row in [`super::table`], and `SPOOKY_BLESS=1 cargo test metrics_page` for the page.

use super::cells::{Counter, Gauge, HealthCells, WorkerCells};
use super::kinds::ResolverFailure;
use super::process::ProcessFacts;
use super::table::METRICS;
use super::text::{Kind, Samples};
use super::udp::{self, UdpFacts, UdpSource};
use std::sync::Arc;
use std::time::Duration;

/// One row of the table.
#[derive(Debug)]
pub struct Metric {
    /// Name, with its unit (`_seconds`, `_bytes`) and `_total` for counters.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence for the operator.
    pub help: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Writes the samples.
    pub sample: fn(&Sources, &mut Samples<'_>),
}

/// One worker as the registry sees it.
#[derive(Debug, Clone)]
pub struct WorkerSource {
    /// The label value: the worker's number.
    pub label: Box<str>,
    /// What it counts.
    pub cells: Arc<WorkerCells>,
}

impl WorkerSource {
    /// The source for worker `number`.
    pub fn new(number: usize, cells: Arc<WorkerCells>) -> Self {
        Self { label: number.to_string().into_boxed_str(), cells }
    }
}

/// What control itself counts.
#[derive(Debug, Default)]
pub struct ControlCells {
    /// Access-log lines written.
    pub access_written: Counter,
    /// Access-log lines given up: the file could not take them.
    pub access_failed: Counter,
    /// Log lines given up because the queue to control was full.
    pub log_dropped: Counter,
    /// Files of connections' traces made.
    pub qlog_files: Counter,
    /// Bytes of connections' traces given up: the disk could not take them.
    pub qlog_lost_bytes: Counter,
    /// Connections accepted on the metrics and control addresses.
    pub host_connections: Counter,
    /// Connections refused there because the table was full.
    pub host_refused: Counter,
    /// Requests answered there.
    pub host_requests: Counter,
    /// Names of backends.
    pub resolver: ResolverCells,
    /// Health of backends.
    pub health: WatchCells,
    /// Overload.
    pub overload: OverloadCells,
}

/// What was decided and counted about overload.
#[derive(Debug, Default)]
pub struct OverloadCells {
    /// By upstream; `None` where adaptive admission is off.
    pub adaptive: Box<[Option<AdaptiveCells>]>,
    /// 1 while there is a brownout.
    pub brownout_active: Gauge,
    /// Brownouts that began.
    pub brownouts_entered: Counter,
    /// Brownouts that ended.
    pub brownouts_left: Counter,
    /// 1 while the process holds more memory than it should.
    pub memory_pressure_active: Gauge,
}

/// What adaptive admission has found of one upstream.
#[derive(Debug, Default)]
pub struct AdaptiveCells {
    /// What it is given at once, over all workers.
    pub limit: Gauge,
    /// What its answers take when nothing waits, in microseconds; 0: unknown.
    pub baseline_us: Gauge,
}

/// What was counted about the health of backends.
#[derive(Debug, Default)]
pub struct WatchCells {
    /// By the backend's index; `None`: nobody watches it.
    pub backends: Box<[Option<HealthCells>]>,
    /// By upstream with backends that are watched: its name, and 1 while health is disregarded there.
    pub panics: Box<[(Box<str>, Gauge)]>,
}

/// What was counted about names of backends.
#[derive(Debug, Default)]
pub struct ResolverCells {
    /// Questions sent over UDP.
    pub questions_udp: Counter,
    /// Questions sent over TCP.
    pub questions_tcp: Counter,
    /// Messages that answered none of them.
    pub ignored: Counter,
    /// Names resolved, refreshed ones included.
    pub resolved: Counter,
    /// Names not resolved, by [`ResolverFailure`].
    pub failed: [Counter; ResolverFailure::COUNT],
    /// Answers that moved a name.
    pub changed: Counter,
    /// Names that are fresh, kept from an earlier answer, and unresolved.
    pub names: [Counter; 3],
}

/// What is known about the running configuration.
#[derive(Debug, Default, Clone)]
pub struct ConfigFacts {
    /// The generation's number.
    pub generation: u64,
    /// When it was activated, microseconds since the Unix epoch.
    pub activated_unix_us: u64,
    /// Whether the last attempt to load a configuration worked.
    pub last_load_ok: bool,
}

/// Versions of what is inside.
#[derive(Debug, Default, Clone)]
pub struct BuildInfo {
    /// Ours.
    pub version: &'static str,
    /// quiche's.
    pub quiche: String,
    /// BoringSSL's.
    pub boringssl: String,
    /// The running kernel's.
    pub kernel: String,
}

/// Where all samples come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// All workers.
    pub workers: Vec<WorkerSource>,
    /// Control's own cells.
    pub control: ControlCells,
    /// The configuration.
    pub config: ConfigFacts,
    /// Versions.
    pub build: BuildInfo,
    /// Public listeners, and whether the kernel steers their datagrams by connection ID.
    pub steering: Vec<(Box<str>, bool)>,
    /// Whether `/ready` says yes.
    pub ready: bool,
    /// Time since the process started.
    pub uptime: Duration,
    /// What the kernel says, read just before rendering.
    pub process: ProcessFacts,
    /// The workers' public sockets.
    pub sockets: Vec<UdpSource>,
    /// What the kernel says of each, read just before rendering.
    pub socket_facts: Vec<Option<UdpFacts>>,
}

impl Sources {
    /// Asks the kernel what it knows now.
    pub fn ask_kernel(&mut self) {
        self.process = ProcessFacts::read();
        self.socket_facts = udp::read(&self.sockets);
    }

    /// Appends the whole page.
    pub fn render(&self, out: &mut Vec<u8>) {
        for metric in METRICS {
            let mut samples = Samples::open(out, metric.name, metric.kind, metric.help, metric.labels);
            (metric.sample)(self, &mut samples);
        }
    }
}

/// The page `docs/METRICS.md`, made from the table.
pub fn metrics_page() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# Metrics\n\n\
         Made from the table in `src/telemetry/table.rs`; a test compares them. Prometheus text 0.0.4 at\n\
         `http://127.0.0.1:9901/metrics` (`[observability] metrics`). All of them start at zero with the process.\n\n\
         Names and labels are kept stable within a major version. Histogram buckets are powers of two of a microsecond\n\
         (16 µs to 134 s) or fixed steps of a count or of bytes, and exact.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let _ =
            writeln!(page, "| `{}` | {} | {} | {} |", metric.name, metric.kind.word(), labels.join(" "), metric.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Reason;
    use crate::telemetry::kinds::{DatagramDrop, Protocol, TlsAlert};
    use crate::telemetry::scope::{BackendName, RouteName, Scope};
    use std::collections::{HashMap, HashSet};

    fn sources() -> Sources {
        let scope = Arc::new(Scope {
            generation: 1,
            routes: vec![RouteName { route: "api\"x".into(), upstream: "api".into() }],
            backends: vec![BackendName {
                upstream: "api".into(),
                backend: "one".into(),
                address: "http://127.0.0.1:8080".into(),
            }],
            upstreams: vec!["api".into()],
            rate_limits: vec!["per-client".into()],
        });
        let worker = |number| {
            let cells = Arc::new(WorkerCells::new(Arc::clone(&scope)));
            cells.exchanges_started.count(Protocol::H3);
            cells.finished.count(200);
            cells.finished.count(0);
            cells.informational.count(103);
            cells.refusals.count(Reason::NoRoute);
            cells.quic.drops.count(DatagramDrop::Truncated);
            cells.quic.send_batches.count(10);
            cells.exchange_duration.record(Duration::from_micros(500));
            cells.quic.packet_size.count(1452);
            cells.scope.rate_limits[0].refused.add(3);
            cells.upstream(0).active.set(4);
            cells.quic.alerts_received.count(TlsAlert::UnknownCa);
            WorkerSource::new(number, cells)
        };
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sources = Sources {
            workers: vec![worker(0), worker(1)],
            sockets: vec![UdpSource::new("public", 1, &socket).unwrap()],
            uptime: Duration::from_millis(1500),
            ..Sources::default()
        };
        let found = AdaptiveCells::default();
        found.limit.set(21);
        found.baseline_us.set(3_000);
        sources.control.overload.adaptive = [Some(found)].into();
        sources.ask_kernel();
        sources
    }

    /// A strict reader of the text form; a sample without its family, a repeated series or a bucket that shrinks fails.
    fn parse(page: &str) -> HashMap<String, f64> {
        let mut series = HashMap::new();
        let mut families = HashSet::new();
        let mut family = String::new();
        let mut last_bucket: Option<(String, f64)> = None;
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{family} twice");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(rest.starts_with(&format!("{family} ")));
                continue;
            }
            let (key, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let name = key.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix).filter(|b| *b == family))
                .unwrap_or(name);
            assert_eq!(base, family, "{line}");
            if name.ends_with("_bucket") {
                let without_bound = key.split("le=").next().unwrap().to_owned();
                if let Some((labels, below)) = &last_bucket
                    && *labels == without_bound
                {
                    assert!(value >= *below, "{line}");
                }
                last_bucket = Some((without_bound, value));
            }
            assert!(series.insert(key.to_owned(), value).is_none(), "{key}");
        }
        series
    }

    #[test]
    fn the_page_is_well_formed_and_sums_what_was_counted() {
        let mut page = Vec::new();
        sources().render(&mut page);
        let page = String::from_utf8(page).unwrap();
        let series = parse(&page);
        let get = |key: &str| series.get(key).copied().unwrap_or_else(|| panic!("{key}\n{page}"));
        assert_eq!(get("spooky_requests_total{worker=\"1\",status=\"200\"}"), 1.0);
        assert_eq!(get("spooky_requests_total{worker=\"0\",status=\"none\"}"), 1.0);
        assert_eq!(get("spooky_datagrams_dropped_total{worker=\"0\",reason=\"truncated\"}"), 1.0);
        assert_eq!(get("spooky_request_duration_seconds_count"), 2.0);
        assert_eq!(get("spooky_request_duration_seconds_bucket{le=\"0.000256\"}"), 0.0);
        assert_eq!(get("spooky_request_duration_seconds_bucket{le=\"0.000512\"}"), 2.0);
        assert_eq!(get("spooky_request_duration_seconds_sum"), 0.001);
        assert_eq!(get("spooky_uptime_seconds"), 1.5);
        assert_eq!(get("spooky_gso_batch_datagrams_bucket{worker=\"1\",le=\"8\"}"), 0.0);
        assert_eq!(get("spooky_gso_batch_datagrams_bucket{worker=\"1\",le=\"16\"}"), 1.0);
        assert_eq!(get("spooky_gso_batch_datagrams_sum{worker=\"1\"}"), 10.0);
        assert_eq!(get("spooky_quic_packet_size_bytes_bucket{le=\"1400\"}"), 0.0);
        assert_eq!(get("spooky_quic_packet_size_bytes_bucket{le=\"1452\"}"), 2.0);
        assert_eq!(get("spooky_quic_packet_size_bytes_sum"), 2904.0);
        assert_eq!(get("spooky_tls_alerts_total{worker=\"0\",side=\"remote\",alert=\"unknown_ca\"}"), 1.0);
        assert_eq!(get("spooky_rate_limit_refusals_total{limit=\"per-client\"}"), 6.0);
        assert_eq!(get("spooky_upstream_requests_active{upstream=\"api\"}"), 8.0);
        assert_eq!(get("spooky_upstream_adaptive_limit{upstream=\"api\"}"), 21.0);
        assert_eq!(get("spooky_upstream_adaptive_baseline_seconds{upstream=\"api\"}"), 0.003);
        assert_eq!(get("spooky_brownout_active"), 0.0);
        assert_eq!(get("spooky_rate_limit_dry_run_refusals_total{limit=\"per-client\"}"), 0.0);
        assert!(!page.contains("side=\"local\",alert="), "alerts that did not occur are left out");
        assert_eq!(get("spooky_udp_kernel_drops_total{listener=\"public\",worker=\"1\"}"), 0.0);
        assert_eq!(get("spooky_udp_receive_queue_bytes{listener=\"public\",worker=\"1\"}"), 0.0);
        assert!(page.contains("route=\"api\\\"x\""), "label values are escaped");
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("spooky_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{name}");
            assert!(!metric.labels.contains(&"le"), "{name}");
        }
    }

    #[test]
    fn metrics_page_matches_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
        if std::env::var_os("SPOOKY_BLESS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
            std::fs::write(path, metrics_page()).unwrap();
        }
        let page = std::fs::read_to_string(path).expect("docs/METRICS.md");
        assert!(page == metrics_page(), "docs/METRICS.md is out of date: SPOOKY_BLESS=1 cargo test metrics_page");
    }
}
