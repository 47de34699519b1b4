//! `spooky probe URL`: one HTTP/3 request, or some, and everything that can be told of them.
//!
//! `options` and `target` say what is asked, `resolve` where, [`super::fetch`] asks, `fault` says why it failed and what
//! to do, `report` holds what is told, `text` writes it for people.

mod fault;
mod options;
mod report;
mod resolve;
mod sink;
mod target;
mod text;

pub(super) use options::{Options, read_fields};

use super::fetch::{FetchError, Fetched, Fetcher, Limits};
use super::{Stop, print, tell};
use crate::control::Exit;
use crate::control::boot::probe as features;
use crate::h3::client::{CertificateFault, ClientRequest, Stage, Trust};
use fault::Fault;
use options::{Ask, Format};
use report::Report;
use resolve::{Family, resolve};
use sink::Sink;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Asks as often as told; the exit code is that of the first failure.
pub(super) fn probe(options: &Options) -> Result<(), Stop> {
    let ask = options.ask()?;
    let mut sink = Sink::open(options.output.as_deref())?;
    let mut prober =
        Prober { options, ask: &ask, fetcher: Fetcher::new(&features()?)?, session: None, objection: None };
    let mut exit = None;
    for number in 1..=options.repeat {
        let (report, fault) = prober.request(number, &mut sink);
        let told = match options.format {
            Format::Json => report.json(),
            Format::Text => text::write(&report, number > 1),
        };
        // The body has standard output to itself.
        if sink.takes_stdout() {
            tell(told.trim_end())
        } else {
            print(told.trim_end())
        }
        if let Some(fault) = fault {
            tell(format_args!("spooky: {}", fault.failure(&ask.target.url())));
            exit.get_or_insert(fault.exit);
        } else if options.fail && report.status.is_some_and(|status| status >= 400) {
            exit.get_or_insert(Exit::Status);
        }
    }
    match exit {
        None => Ok(()),
        Some(exit) => Err(Stop { text: None, exit }),
    }
}

/// What lasts over several requests.
struct Prober<'a> {
    options: &'a Options,
    ask: &'a Ask,
    fetcher: Fetcher,
    /// What the next connection resumes from.
    session: Option<Vec<u8>>,
    /// What was said against the certificate: a resumed handshake does not show it again.
    objection: Option<CertificateFault>,
}

impl Prober<'_> {
    /// One request on a connection of its own.
    fn request(&mut self, number: u32, sink: &mut Sink) -> (Report, Option<Fault>) {
        let began = Instant::now();
        let (options, ask) = (self.options, self.ask);
        let mut report = Report::new(ask, number);
        sink.begin();
        let family = match (options.ipv4, options.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        };
        let literal = ask.target.address();
        let known = literal.as_ref().map_or(ask.addresses.as_slice(), std::slice::from_ref);
        let resolved = match resolve(ask.target.host(), ask.target.port, known, family, options.timeout) {
            Ok(resolved) => resolved,
            Err(error) => {
                let fault = Fault::of_resolve(&error, ask.target.host(), options.timeout);
                report.failed(&fault, began.elapsed());
                return (report, Some(fault));
            }
        };
        report.timings.dns(resolved.took);
        let mut attempts = resolved.addresses.as_slice();
        loop {
            let (address, rest) = attempts.split_first().expect("a resolved host has an address");
            let left = options.timeout.saturating_sub(began.elapsed());
            // A silent address leaves the others their share of the time.
            let handshake = left / u32::try_from(attempts.len()).unwrap_or(u32::MAX);
            let mut fetched = self.fetch(*address, Limits { handshake, whole: left }, sink);
            if let Some(error) = &fetched.error
                && !rest.is_empty()
                && tries_next(error)
            {
                tell(format_args!("spooky: {address}: {error}; the next address is tried"));
                attempts = rest;
                continue;
            }
            if fetched.session.is_some() {
                self.session.clone_from(&fetched.session);
            }
            if let Some(facts) = &mut fetched.facts {
                if facts.resumed {
                    facts.fault.clone_from(&self.objection);
                } else {
                    self.objection.clone_from(&facts.fault);
                }
            }
            let fault = fetched.error.as_ref().map(|error| Fault::of_fetch(error, *address, options));
            report.take(fetched, *address, sink.preview(), began.elapsed());
            if let Some(fault) = &fault {
                report.failed(fault, began.elapsed());
            }
            return (report, fault);
        }
    }

    fn fetch(&mut self, to: SocketAddr, limits: Limits, sink: &mut Sink) -> Fetched {
        let (options, ask) = (self.options, self.ask);
        let trust =
            if options.insecure { Trust::Anyone(&ask.authorities) } else { Trust::Authorities(&ask.authorities) };
        let request = ClientRequest {
            to,
            host: ask.target.host(),
            method: &ask.method,
            authority: &ask.authority,
            path: &ask.target.path,
            fields: &ask.fields,
            body: &ask.body,
            trust,
            session: self.session.as_deref(),
            body_max: options.max_body,
            migrate: options.migrate,
        };
        self.fetcher.fetch(request, limits, &mut |bytes| sink.write(bytes))
    }
}

/// Whether another address may do better.
fn tries_next(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Refused | FetchError::Unreachable(_) | FetchError::Socket(_) | FetchError::Late(Stage::Connecting)
    )
}

/// Milliseconds with three digits behind the point.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
