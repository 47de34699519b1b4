//! The keys of routes: what requests they take, who may come and how often, and what becomes of them.

use std::time::Duration;

use ipnet::IpNet;

use super::{Hedging, RetryOf, Timeouts};
use crate::admit::CountBy;
use crate::config::schema::{Located, schema};
use crate::config::values::{
    Body, Bytes, ExactPath, FieldValue, FilePath, Location, MethodName, Name, OneOrMany, OrOff, RoutePath, StickyKey,
    ValueText,
};
use crate::http::edits::EditedName;
use crate::route::{HostPattern, Pattern};

schema! {
    /// A route in full form.
    Route of "route" {
        /// Name, unique over all routes.
        name: required Name;
        /// Which requests it takes.
        r#match: default Match = "{}";
        /// What happens to them.
        action: required Action;
        /// Times for this route.
        timeouts: default Timeouts = "{}";
        /// Limits for this route.
        limits: default RouteLimits = "{}";
        /// Further attempts for this route's requests.
        retry: default RetryOf = "{}";
        /// Another attempt beside one that has no answer yet.
        hedging: optional Hedging;
        /// Changes to the fields of requests, after ours are in place.
        request_headers: default HeaderEdits = "{}";
        /// Changes to the fields of final responses: the backend's, the redirect or the fixed response. Not of refusals.
        response_headers: default HeaderEdits = "{}";
        /// Which clients may come; others are answered 403. The client is the rightmost address that is no trusted proxy's.
        clients: default AddressLists = "{}";
    }
    later []

    /// Which addresses may come.
    AddressLists of "listener or route" {
        /// Networks or addresses that may come.
        allow: optional Vec<Located<IpNet>>;
        /// File with more of them, one a line; `#` begins a comment. Read at the start.
        allow_file: optional FilePath;
        /// Networks or addresses that may not come.
        deny: optional Vec<Located<IpNet>>;
        /// File with more of them, one a line; `#` begins a comment. Read at the start.
        deny_file: optional FilePath;
    }
    later []

    /// How often requests may come.
    RateLimit of "process" {
        /// Name for clients, logs and metrics, unique over all rate limits.
        name: required Name;
        /// What is counted by: requests without such a field, cookie or token count by their client's address.
        key: default CountBy = "client_ip";
        /// Requests in every `period`, at most 100000 in a second.
        requests: required u32, 1..=1_000_000;
        /// Time for them. Requests come back evenly over it, not all at its end.
        period: default Duration = "1s", 1_000..=86_400_000;
        /// Requests that may come at once, after a pause. Left out: as many as in a period.
        burst: optional u32, 1..=1_000_000;
        /// Name of a route, or an array of them; they share the count, but where it is by route. Left out: all.
        routes: optional OneOrMany<Name>;
        /// Bits of an IPv4 address that are one client.
        ipv4_prefix: default u16 = "32", 1..=32;
        /// Bits of an IPv6 address that are one client.
        ipv6_prefix: default u16 = "64", 1..=128;
        /// Keys that are remembered at once, in 8 bytes each, rounded up to a power of two. When more come, those that have used least are forgotten.
        keys: default u32 = "65536", 8..=16_777_216;
        /// Tell clients in every response to a request that counts what is left (RateLimit-Policy and RateLimit), and not only in a 429. Of several such limits the one is told of which the least is left.
        headers: default bool = "false";
        /// Count and log what would be refused, and refuse nothing.
        dry_run: default bool = "false";
    }
    later []

    /// Which requests a route takes; all that is written must hold.
    Match of "route" {
        /// Host name, or an array of them; `*.example.com` takes every name below. Left out: any.
        host: optional OneOrMany<HostPattern>;
        /// Path prefix, on a segment boundary. Left out: any path.
        path_prefix: optional RoutePath;
        /// Exact path, in place of `path_prefix`; "*" is the target of OPTIONS *.
        path: optional ExactPath;
        /// Method, or an array of them. Left out: any.
        method: optional OneOrMany<MethodName>;
        /// Fields that have to be there; of several lines of one name the first counts. What only trusted proxies may say is looked at only in their requests.
        headers: default Vec<Located<ValueMatch>> = "[]";
        /// Parameters of the query that have to be there, decoded; of several of one name the first counts.
        query: default Vec<Located<ValueMatch>> = "[]";
        /// Cookies that have to be there; of several of one name the first counts.
        cookies: default Vec<Located<ValueMatch>> = "[]";
    }
    later []

    /// A value that a request has to have: one of `exact`, `regex` and `present` says which.
    ValueMatch of "route" {
        /// Its name. Case counts, but not for fields.
        name: required ValueText;
        /// The value, or an array of which one will do. Case counts.
        exact: optional OneOrMany<ValueText>;
        /// A regular expression that the whole value matches. It works on bytes; `(?i)` at its start ignores the case of ASCII.
        regex: optional Pattern;
        /// Any value will do; only `true` can be written.
        present: optional bool;
    }
    later []

    /// What happens to the requests of a route: one of `upstream`, `upstreams`, `redirect` and `respond`.
    Action of "route" {
        /// Name of the upstream that answers.
        upstream: optional Name;
        /// Several upstreams that share the requests by weight.
        upstreams: default Vec<Located<Share>> = "[]";
        /// What keeps a client with the same one of `upstreams`. Left out, or where a request does not have it: each request goes by its id.
        sticky: optional StickyKey;
        /// Path that the upstream sees in place of the route's `path_prefix` (or `path`); what follows stays, and the whole is normalised and judged again.
        rewrite: optional RoutePath;
        /// Send clients elsewhere.
        redirect: optional Redirect;
        /// Answer with a fixed response.
        respond: optional Respond;
    }
    later ["mirror"]

    /// One of several upstreams.
    Share of "route" {
        /// Name of the upstream.
        upstream: required Name;
        /// Share of the requests, relative to the others.
        weight: default u32 = "100", 1..=1_000;
    }
    later []

    /// A redirect.
    Redirect of "route" {
        /// 301, 302, 303, 307 or 308.
        status: default u16 = "308", 301..=308;
        /// Where to: a URL, or a path for the same host.
        location: required Location;
        /// Append what the request's path has behind the route's `path_prefix`.
        keep_path: default bool = "false";
        /// Append the request's query.
        keep_query: default bool = "false";
    }
    later []

    /// A fixed response.
    Respond of "route" {
        /// Status of the response.
        status: required u16, 200..=599;
        /// Its body. Left out: none.
        body: optional Body;
        /// Its Content-Type. Left out: text/plain; charset=utf-8.
        content_type: optional FieldValue;
    }
    later []

    /// Changes to the fields of one direction: first fields are removed, then set, then added.
    HeaderEdits of "route" {
        /// Names whose fields are taken out.
        remove: default Vec<Located<EditedName>> = "[]";
        /// Fields that take the place of all of their name.
        set: default Vec<Located<HeaderLine>> = "[]";
        /// Fields that come beside others of their name.
        add: default Vec<Located<HeaderLine>> = "[]";
    }
    later []

    /// A field.
    HeaderLine of "route" {
        /// Its name.
        name: required EditedName;
        /// Its value.
        value: required FieldValue;
    }
    later []

    /// Limits of a route that differ from those of its upstream.
    RouteLimits of "route" {
        /// Largest request body, or "off".
        max_request_body_bytes: optional OrOff<Bytes>, 0..=1_125_899_906_842_624;
        /// Largest response body, or "off".
        max_response_body_bytes: optional OrOff<Bytes>, 0..=1_125_899_906_842_624;
        /// Largest response head.
        max_response_header_bytes: optional Bytes, 1_024..=1_048_576;
        /// Requests that may wait for room at the upstream, or "off", in place of `max_length` of [resilience.route_queue].
        max_queue_length: optional OrOff<u32>, 1..=1_000_000;
    }
    later []
}
