//! Owns the one table of reasons: why an exchange was refused, shed or failed.
//!
//! Each row has the token of the metrics and the access log, the status a client gets, the error type of `Proxy-Status`
//! (RFC 9209 §2.3), whose doing it was, and whether HTTP/2 and HTTP/3 treat it as a malformed message.
//! [`Reason::status`] is the only function that turns an error into a status. It refuses to know how an answer looks:
//! read [`super::respond`] for that.

/// Whose doing a reason is. Only [`Side::Upstream`] may feed breakers and outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client sent something wrong, was too slow or went away.
    Client,
    /// The configuration says no.
    Policy,
    /// We refuse by our own decision to stay within a bound.
    Shed,
    /// The backend failed.
    Upstream,
    /// A defect or a limit of the process itself.
    Proxy,
}

impl Side {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Policy => "policy",
            Self::Shed => "shed",
            Self::Upstream => "upstream",
            Self::Proxy => "proxy",
        }
    }
}

macro_rules! reasons {
    ($( $variant:ident $token:literal $status:literal $error:literal $side:ident $malformed:ident $text:literal ; )+) => {
        /// Why an exchange did not end as the client and the backend meant it to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(
                #[doc = $text]
                $variant,
            )+
        }

        impl Reason {
            /// Every reason, in the order of the variants.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )+ ];

            /// How many reasons there are: the length of a table of counters indexed by `reason as usize`.
            pub const COUNT: usize = Self::ALL.len();

            const TABLE: &'static [Row] = &[
                $( Row {
                    token: $token,
                    status: $status,
                    error: $error,
                    side: Side::$side,
                    malformed: reasons!(@ $malformed),
                    text: $text,
                }, )+
            ];
        }
    };
    (@ malformed) => { true };
    (@ answered) => { false };
}

struct Row {
    token: &'static str,
    status: u16,
    error: &'static str,
    side: Side,
    malformed: bool,
    text: &'static str,
}

reasons! {
    // The message itself is wrong.
    PseudoField "pseudo_field" 400 "http_request_error" Client malformed "A pseudo-header is missing, doubled, unknown, misplaced or not valid";
    FieldName "field_name" 400 "http_request_error" Client malformed "A field name is not a lower-case token (any case on HTTP/1)";
    FieldValue "field_value" 400 "http_request_error" Client malformed "A field value has control characters or, on HTTP/2 and HTTP/3, spaces at its ends";
    ConnectionField "connection_field" 400 "http_request_error" Client malformed "A connection-specific field on HTTP/2 or HTTP/3, or a list of connection options that is too long";
    Authority "authority" 400 "http_request_error" Client malformed "The authority or Host is missing, doubled or not a host with an optional port";
    AuthorityMismatch "authority_mismatch" 400 "http_request_error" Client malformed "Host and the authority of the target do not agree";
    ContentLength "content_length" 400 "http_request_error" Client malformed "Content-Length is doubled, a list, or not a number";
    TransferEncoding "transfer_encoding" 400 "http_request_error" Client malformed "Transfer-Encoding on HTTP/1.0, or with chunked not last or twice";
    LengthConflict "length_conflict" 400 "http_request_error" Client malformed "Both Content-Length and Transfer-Encoding";
    Method "method" 400 "http_request_error" Client malformed "The method is not a token of at most 64 bytes";
    Syntax "syntax" 400 "http_request_error" Client malformed "The request head does not parse";
    BodyFraming "body_framing" 400 "http_request_error" Client malformed "The chunked framing of the request body is broken";
    LengthMismatch "length_mismatch" 400 "http_request_error" Client malformed "The request body is shorter or longer than its Content-Length";
    WebSocket "websocket" 400 "http_request_error" Client answered "A request for WebSocket has no valid key (HTTP/1.1), a version other than 13, or a body";
    Target "target" 400 "http_request_error" Client answered "The request target has control bytes, a backslash, a fragment, a broken escape or a dot segment with parameters";
    TargetForm "target_form" 400 "http_request_error" Client answered "The form of the request target does not fit the method";
    Scheme "scheme" 400 "http_request_error" Client answered "The scheme is not that of the connection";
    EncodedSlash "encoded_slash" 400 "http_request_denied" Policy answered "The path has an encoded slash or backslash and routing.encoded_slash refuses them";

    // Policy.
    PathDenied "path_denied" 403 "http_request_denied" Policy answered "The path lies under a denied prefix";
    AddressDenied "address_denied" 403 "http_request_denied" Policy answered "The route's clients do not have the client's address";
    NoRoute "no_route" 404 "destination_not_found" Policy answered "No route matches the host and the path";
    MethodNotAllowed "method_not_allowed" 405 "http_request_denied" Policy answered "Routes match the path, but none takes the method";
    MethodRefused "method_refused" 405 "http_request_denied" Policy answered "The method is refused everywhere: TRACE, CONNECT, or not in resilience.protocol.allowed_methods";
    Misdirected "misdirected" 421 "http_request_denied" Policy answered "The authority belongs to another identity or client-certificate policy than this connection's";
    Expectation "expectation" 417 "http_request_denied" Client answered "Expect holds something other than 100-continue";
    TransferCoding "transfer_coding" 501 "http_request_error" Client answered "Transfer-Encoding holds a coding other than chunked";
    Protocol "protocol" 501 "http_request_error" Client answered "Extended CONNECT asks for a protocol other than websocket";

    // Limits on one request.
    ClientHeadTimeout "client_head_timeout" 408 "http_request_error" Client answered "The request head did not arrive in time";
    ClientBodyIdle "client_body_idle" 408 "http_request_error" Client answered "The client sent no body bytes for too long";
    ClientSendTimeout "client_send_timeout" 408 "http_request_error" Client answered "The client took no response bytes for too long";
    TunnelIdle "tunnel_idle" 504 "connection_timeout" Policy answered "Nothing passed through a tunnel for too long";
    RequestTimeout "request_timeout" 504 "http_response_timeout" Policy answered "The exchange reached its total time limit";
    BodyTooLarge "body_too_large" 413 "http_request_denied" Policy answered "The request body is over max_request_body_bytes";
    TargetTooLong "target_too_long" 414 "http_request_denied" Policy answered "The request target is too long";
    HeadTooLarge "head_too_large" 431 "http_request_denied" Policy answered "The request head is over max_headers_bytes";
    TooManyFields "too_many_fields" 431 "http_request_denied" Policy answered "The request has more fields than max_headers_count";
    RateLimited "rate_limited" 429 "http_request_denied" Shed answered "The client sent more requests than its rate allows";
    LimitAddress "limit_address" 429 "http_request_denied" Shed answered "The client has max_inflight_per_address requests in flight";

    // Shed.
    LimitGlobal "limit_global" 503 "connection_limit_reached" Shed answered "global_inflight_limit is reached";
    LimitUpstream "limit_upstream" 503 "connection_limit_reached" Shed answered "per_upstream_inflight_limit is reached";
    LimitBackend "limit_backend" 503 "connection_limit_reached" Shed answered "per_backend_inflight_limit of every backend that could be taken is reached";
    LimitAdaptive "limit_adaptive" 503 "connection_limit_reached" Shed answered "The limit that resilience.adaptive_admission has found for the upstream is reached";
    QueueFull "queue_full" 503 "connection_limit_reached" Shed answered "The upstream is full, and so is the route's queue for it";
    QueueShare "queue_share" 503 "connection_limit_reached" Shed answered "The upstream is full, and as many of the client's requests wait for it as may";
    QueueTimeout "queue_timeout" 503 "connection_limit_reached" Shed answered "The request waited in the route's queue for max_wait, and the upstream was full all that time";
    PoolFull "pool_full" 503 "connection_limit_reached" Shed answered "The connection pool of the backend is full";
    Brownout "brownout" 503 "http_request_denied" Shed answered "There is too much to do, and the route is none of resilience.brownout.core_routes";
    MemoryPressure "memory_pressure" 503 "http_request_denied" Shed answered "The process holds more memory than performance.memory_soft_limit";
    BreakerOpen "breaker_open" 503 "destination_unavailable" Shed answered "The circuit breaker of every backend that could be taken is open";
    NoHealthyBackend "no_healthy_backend" 503 "destination_unavailable" Shed answered "Every backend that could be taken is unhealthy or ejected";
    NoBackend "no_backend" 503 "destination_unavailable" Shed answered "The upstream has no backend that may be taken";
    DrainTimeout "drain_timeout" 503 "connection_terminated" Shed answered "The drain reached its bound before the exchange ended";

    // The backend failed.
    DnsTimeout "dns_timeout" 504 "dns_timeout" Upstream answered "The backend's name was never resolved: no server answered in time";
    DnsError "dns_error" 502 "dns_error" Upstream answered "The backend's name was never resolved: the servers know no address for it, or fail";
    ConnectRefused "connect_refused" 502 "connection_refused" Upstream answered "The backend refused the connection";
    ConnectUnreachable "connect_unreachable" 502 "destination_ip_unroutable" Upstream answered "No route leads to the backend";
    ConnectFailed "connect_failed" 502 "destination_unavailable" Upstream answered "Connecting to the backend failed for another cause";
    ConnectTimeout "connect_timeout" 504 "connection_timeout" Upstream answered "The backend did not accept the connection in time";
    UpstreamTls "upstream_tls" 502 "tls_protocol_error" Upstream answered "The TLS handshake with the backend failed";
    ResponseTimeout "response_timeout" 504 "http_response_timeout" Upstream answered "The backend sent no response head in time";
    UpstreamSendTimeout "upstream_send_timeout" 504 "connection_write_timeout" Upstream answered "The backend took no request bytes for too long";
    UpstreamClosed "upstream_closed" 502 "connection_terminated" Upstream answered "The backend closed the connection before the response head";
    UpstreamReset "upstream_reset" 502 "connection_terminated" Upstream answered "The backend reset the connection or the stream";
    UpstreamMalformed "upstream_malformed" 502 "http_protocol_error" Upstream answered "The response head is not valid HTTP";
    UpstreamLength "upstream_length" 502 "http_protocol_error" Upstream answered "The response has two lengths: Content-Length doubled, or with Transfer-Encoding";
    UpstreamCoding "upstream_coding" 502 "http_response_transfer_coding" Upstream answered "The response has a Transfer-Encoding other than chunked";
    UpstreamUpgrade "upstream_upgrade" 502 "http_upgrade_failed" Upstream answered "The backend switched protocols without being asked, or answered a request for WebSocket with a success that opens no tunnel";
    UpstreamNoTunnel "upstream_no_tunnel" 502 "http_upgrade_failed" Upstream answered "The backend speaks HTTP/2 and does not offer extended CONNECT";
    UpstreamHeadTooLarge "upstream_head_too_large" 502 "http_response_header_section_size" Upstream answered "The response head is over max_response_header_bytes";
    UpstreamBodyTooLarge "upstream_body_too_large" 502 "http_response_body_size" Upstream answered "The response body is over max_response_body_bytes";
    UpstreamFraming "upstream_framing" 502 "http_protocol_error" Upstream answered "The chunked framing of the response body is broken";
    UpstreamIncomplete "upstream_incomplete" 502 "http_response_incomplete" Upstream answered "The response body ended before its length or its last chunk";
    UpstreamTrailers "upstream_trailers" 502 "http_response_trailer_section_size" Upstream answered "The trailers of the response are too large or not valid";
    UpstreamStatus "upstream_status" 502 "destination_unavailable" Upstream answered "The backend answered with a status that retry.on drops for another attempt, and then no other backend could be taken";
    UpstreamBodyIdle "upstream_body_idle" 504 "connection_read_timeout" Upstream answered "The backend sent no body bytes for too long";

    // The client went away; the status is for the log only, nobody is left to read it.
    ClientAbort "client_abort" 499 "connection_terminated" Client answered "The client reset the stream before the exchange ended";
    ClientGone "client_gone" 499 "connection_terminated" Client answered "The client's connection ended before the exchange did";

    Internal "internal" 500 "proxy_internal_error" Proxy answered "A defect of the proxy";
}

impl Reason {
    #[inline]
    const fn row(self) -> &'static Row {
        &Self::TABLE[self as usize]
    }

    /// The token of the metrics label, the access log and `explain`.
    pub const fn token(self) -> &'static str {
        self.row().token
    }

    /// The status of the answer. 499 is never sent: nobody is left to read it.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The error type for `Proxy-Status` (RFC 9209 §2.3).
    pub const fn proxy_error(self) -> &'static str {
        self.row().error
    }

    /// Whose doing it is.
    pub const fn side(self) -> Side {
        self.row().side
    }

    /// Whether HTTP/2 and HTTP/3 end the stream with PROTOCOL_ERROR or H3_MESSAGE_ERROR instead of an answer,
    /// and HTTP/1 closes the connection behind the answer.
    pub const fn malformed(self) -> bool {
        self.row().malformed
    }

    /// One line for people; the reference is made from it.
    pub const fn description(self) -> &'static str {
        self.row().text
    }

    /// Whether the answer says when to come back (429 and 503).
    pub const fn retry_after(self) -> bool {
        matches!(self.status(), 429 | 503)
    }
}

/// The page `docs/REASONS.md`, made from the table.
pub fn reasons_page() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# Reasons\n\n\
         Made from the table in `src/http/reason.rs`; a test compares them. Why an exchange was refused, shed, cut or given up: one word,\n\
         the same in the access log (`reason`), in `spooky_refusals_total{reason=…}`, and whatever the client speaks. The status is that of the\n\
         answer, if there was one; behind a head that has left, a response is cut by a reset instead. `Proxy-Status` (RFC 9209) has the\n\
         error type; the word, too, if `proxy_status` is \"full\". `spooky explain` has the same words.\n\n\
         Whose doing it is: of the *client*; of the configuration (*policy*); our own to stay within a bound (*shed*); of the backend (*upstream*),\n\
         which alone counts against it; or of the *proxy*. † A malformed message: HTTP/2 and HTTP/3 reset its stream, HTTP/1.1 is\n\
         answered and closed. 499 is sent to nobody: who would read it has gone.\n\n\
         | reason | status | error | whose | meaning |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let (token, status, error) = (reason.token(), reason.status(), reason.proxy_error());
        let mark = if reason.malformed() { " †" } else { "" };
        let (side, text) = (reason.side().word(), reason.description());
        let _ = writeln!(page, "| `{token}` | {status} | `{error}` | {side} | {text}{mark} |");
    }
    page
}

/// A request that the gate did not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// Why.
    pub reason: Reason,
    /// On HTTP/2 and HTTP/3: a stream error instead of an answer. On HTTP/1: answer, then close.
    pub malformed: bool,
}

impl Refusal {
    /// The refusal for a reason.
    pub const fn new(reason: Reason) -> Self {
        Self { status: reason.status(), reason, malformed: reason.malformed() }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// RFC 9209 §2.3: the registered error types.
    const ERROR_TYPES: &[&str] = &[
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "connection_limit_reached",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_incomplete",
        "http_response_header_section_size",
        "http_response_header_size",
        "http_response_body_size",
        "http_response_trailer_section_size",
        "http_response_trailer_size",
        "http_response_transfer_coding",
        "http_response_content_coding",
        "http_response_timeout",
        "http_upgrade_failed",
        "http_protocol_error",
        "proxy_internal_response",
        "proxy_internal_error",
        "proxy_configuration_error",
        "proxy_loop_detected",
    ];

    #[test]
    fn tokens_are_unique_snake_case() {
        let tokens: HashSet<_> = Reason::ALL.iter().map(|reason| reason.token()).collect();
        assert_eq!(tokens.len(), Reason::COUNT);
        for token in tokens {
            assert!(token.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{token}");
        }
    }

    #[test]
    fn the_page_matches_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/REASONS.md");
        if std::env::var_os("SPOOKY_BLESS").is_some() {
            std::fs::write(path, reasons_page()).expect("docs can be written");
        }
        let page = std::fs::read_to_string(path).expect("docs/REASONS.md");
        assert!(page == reasons_page(), "docs/REASONS.md is out of date: SPOOKY_BLESS=1 cargo test reason::");
    }

    #[test]
    fn every_row_is_consistent() {
        for &reason in Reason::ALL {
            let token = reason.token();
            assert!(ERROR_TYPES.contains(&reason.proxy_error()), "{token}");
            assert!((400..=599).contains(&reason.status()), "{token}");
            assert!(!reason.description().ends_with('.'), "{token}");
            if reason.malformed() {
                assert_eq!(reason.status(), 400, "{token}");
                assert_eq!(reason.side(), Side::Client, "{token}");
            }
            match reason.side() {
                Side::Upstream => assert!(matches!(reason.status(), 502 | 504), "{token}"),
                Side::Shed => assert!(matches!(reason.status(), 429 | 503), "{token}"),
                Side::Client | Side::Policy | Side::Proxy => {}
            }
            assert_eq!(Reason::ALL[reason as usize], reason);
        }
    }
}
