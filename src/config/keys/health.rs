//! Every key of how backends are watched: how they are probed, and when they are ejected.

use std::time::Duration;

use crate::config::schema::{choice, schema};
use crate::config::values::{HostHeader, OneOrMany, OrOff, ProbeTarget, StatusRange, ValueText};

schema! {
    /// How a backend is probed.
    HealthCheck of "upstream or backend" {
        /// `http`: HTTP/1.1 in clear. `https`: TLS as the upstream's `tls` says, with HTTP/2 or HTTP/1.1 as the backend chooses. `h2`: HTTP/2, over TLS if the backend's address is `https`. `tcp`: that it accepts a connection. Left out: as its address says.
        r#type: optional ProbeType;
        /// Path, maybe with a query, of the GET request.
        path: default ProbeTarget = "/health";
        /// Host of the request. Left out: the backend's own.
        host: optional HostHeader;
        /// Port, where it is another than that of the address.
        port: optional u16, 1..=65_535;
        /// From the beginning of one probe to that of the next; a tenth less or more by chance.
        interval: default Duration = "5s", 100..=3_600_000;
        /// How long a probe may take.
        timeout: default Duration = "1s", 10..=300_000;
        /// Probes in a row that have to fail before it is given no more requests.
        failure_threshold: default u32 = "3", 1..=1_000;
        /// Probes in a row that have to pass before it is given requests again.
        success_threshold: default u32 = "2", 1..=1_000;
        /// Statuses that pass, each one like 204 or a range like "200-299".
        expected_status: default OneOrMany<StatusRange> = "[\"200-399\"]";
        /// Text that the first 16 KiB of the body have to contain.
        expected_body: optional ValueText;
    }
    later []

    /// When a backend is ejected.
    OutlierEjection of "process or upstream" {
        /// Do it.
        enabled: default bool = "true";
        /// Failures in a row, seen by one worker.
        consecutive_failures: default u32 = "5", 1..=1_000_000;
        /// Percentage of failures in an interval that is too much, or "off".
        failure_percent: default OrOff<u32> = "50", 1..=100;
        /// Requests that an interval needs for its percentage to say something.
        min_requests: default u32 = "20", 1..=1_000_000;
        /// The interval.
        interval: default Duration = "10s", 1_000..=3_600_000;
        /// How long the first ejection lasts; each further one twice as long as the one before.
        base_ejection_time: default Duration = "10s", 100..=3_600_000;
        /// No ejection lasts longer; a backend that was healthy for so long begins anew.
        max_ejection_time: default Duration = "5m", 100..=86_400_000;
        /// Percentage of the upstream's backends that may be out for one more to be ejected, that one and those that probes took out included.
        max_ejected_percent: default u32 = "50", 1..=100;
    }
    later []
}

choice! {
    /// What a probe speaks.
    ProbeType {
        /// HTTP/1.1 in clear.
        Http = "http",
        /// TLS, whose ALPN says what is spoken in it.
        Https = "https",
        /// HTTP/2.
        H2 = "h2",
        /// Nothing.
        Tcp = "tcp",
    }
    later []
}
