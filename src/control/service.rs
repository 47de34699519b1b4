//! What the metrics and control addresses answer: who may ask, which endpoint is meant, and the endpoint's answer.
//!
//! A browser can be made to send requests to loopback by any page it shows (DNS rebinding, cross-site requests). So the
//! Host must be one that no foreign name can stand for — an IP address, `localhost`, or this machine's own name — and no
//! CORS header is ever sent.

use super::endpoints::{ENDPOINTS, Facts, Place, problem};
use crate::http::{Known, Method};
use crate::worker::host::{Answer, NoSource, Request, Service};
use std::net::IpAddr;

/// Serves [`ENDPOINTS`].
#[derive(Debug)]
pub struct ControlService {
    /// What answers are made from.
    pub facts: Facts,
    /// The place of each listener, by its number.
    places: Vec<Place>,
    /// Names this machine goes by, lower case.
    names: Vec<Box<str>>,
}

impl ControlService {
    /// A service for listeners at `places`, asked under `names` besides addresses and `localhost`.
    pub fn new(facts: Facts, places: Vec<Place>, names: Vec<Box<str>>) -> Self {
        Self { facts, places, names }
    }

    fn knows(&self, host: &str) -> bool {
        // Only HTTP/1.0 may say nothing, which no browser speaks.
        let silent = host.is_empty();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        silent || bare.parse::<IpAddr>().is_ok() || host == "localhost" || self.names.iter().any(|name| **name == *host)
    }
}

impl Service for ControlService {
    type Source = NoSource;

    fn answer(&mut self, request: &Request<'_>) -> Answer<NoSource> {
        let head = request.head;
        if !self.knows(head.host()) {
            return problem(421, "ask by address, localhost or this machine's own name (Host is something else)");
        }
        let Some(place) = self.places.get(request.listener).copied() else {
            return problem(404, "nothing is served here");
        };
        let path = head.target.matched().unwrap_or("*");
        let mut allow = String::new();
        for endpoint in ENDPOINTS.iter().filter(|e| e.place == place) {
            if endpoint.path(&self.facts) != path {
                continue;
            }
            let head_of_get = head.method == Method::Head && endpoint.method == Method::Get;
            if endpoint.method == head.method || head_of_get {
                return (endpoint.answer)(&mut self.facts);
            }
            if !allow.is_empty() {
                allow.push_str(", ");
            }
            allow.push_str(endpoint.method.as_str());
            if endpoint.method == Method::Get {
                allow.push_str(", HEAD");
            }
        }
        if allow.is_empty() {
            return problem(404, "no such endpoint; GET / lists them");
        }
        problem(405, "the endpoint does not take this method").with(Known::Allow, allow.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::lifecycle::Phase;
    use crate::http::normalize::{self, HeadLimits, RequestLine, WireRequest};
    use crate::http::{RequestHead, Scheme, WireVersion};
    use crate::telemetry::registry::Sources;
    use crate::worker::host::Body;
    use std::time::Instant;

    fn service() -> ControlService {
        let facts = Facts::new(Sources::default(), "/stats".into(), Instant::now());
        ControlService::new(facts, vec![Place::Control, Place::Metrics], vec!["edge1".into()])
    }

    fn head(method: &str, target: &str, host: &str) -> RequestHead {
        let wire = WireRequest {
            scheme: Scheme::Http,
            line: Some(RequestLine { method: method.as_bytes(), target: target.as_bytes() }),
            fields: [(b"host".as_slice(), host.as_bytes())].into_iter(),
        };
        let mut head = RequestHead::default();
        normalize::request_into(WireVersion::H1_1, wire, &HeadLimits::REQUEST, &mut head).expect("a good head");
        head
    }

    fn ask(service: &mut ControlService, listener: usize, head: &RequestHead) -> (u16, String) {
        let answer = service.answer(&Request { head, listener, client: None, now: Instant::now() });
        assert!(answer.head.fields.find(b"access-control-allow-origin").is_none());
        let Body::Whole(body) = answer.body else {
            panic!("a whole body");
        };
        (answer.head.status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn readiness_follows_the_phase() {
        let mut service = service();
        let head = head("GET", "/ready", "127.0.0.1:9902");
        let (status, body) = ask(&mut service, 0, &head);
        assert_eq!(status, 503);
        assert!(body.contains("\"starting\""), "{body}");
        service.facts.phase = Phase::Ready;
        assert_eq!(ask(&mut service, 0, &head).0, 200);
        service.facts.phase = Phase::Draining { until: Instant::now() };
        let (status, body) = ask(&mut service, 0, &head);
        assert_eq!((status, body.contains("draining")), (503, true));
    }

    #[test]
    fn every_endpoint_answers_at_its_place_and_only_there() {
        let mut service = service();
        for (listener, place) in [(0, Place::Control), (1, Place::Metrics)] {
            for endpoint in ENDPOINTS {
                let path = endpoint.path(&service.facts).to_owned();
                let head = head(endpoint.method.as_str(), &path, "localhost");
                let (status, body) = ask(&mut service, listener, &head);
                let served = ENDPOINTS.iter().any(|e| e.place == place && e.path(&service.facts) == path);
                assert_eq!(status != 404, served, "{path} at {place:?}: {status} {body}");
            }
        }
    }

    #[test]
    fn metrics_stand_at_their_configured_path() {
        let mut service = service();
        let (status, body) = ask(&mut service, 1, &head("GET", "/stats", "[::1]:9901"));
        assert_eq!(status, 200);
        assert!(body.contains("\nspooky_ready 0\n"), "{body}");
        assert_eq!(ask(&mut service, 1, &head("GET", "/metrics", "[::1]")).0, 404);
    }

    #[test]
    fn foreign_names_are_refused_and_our_own_is_not() {
        let mut service = service();
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "1.2.3.4.5"] {
            assert_eq!(ask(&mut service, 0, &head("GET", "/health", host)).0, 421, "{host}");
        }
        for host in ["edge1", "EDGE1:9902", "localhost", "192.0.2.1", "[::1]:9902"] {
            assert_eq!(ask(&mut service, 0, &head("GET", "/health", host)).0, 200, "{host}");
        }
    }

    #[test]
    fn a_wrong_method_hears_the_right_ones() {
        let mut service = service();
        let answer = service.answer(&Request {
            head: &head("POST", "/health", "localhost"),
            listener: 0,
            client: None,
            now: Instant::now(),
        });
        assert_eq!(answer.head.status, 405);
        assert_eq!(answer.head.fields.get(Known::Allow), Some(b"GET, HEAD".as_slice()));
    }
}
