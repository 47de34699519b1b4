//! Who may come and how often: lists of networks, and rate limits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::{Compiler, files};
use crate::admit::{CountBy, LimitId, Networks, Pace, RateLimit};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{Protocols, Proxies, Route};
use crate::config::keys;
use crate::config::notes::NetworkLists;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::suggest;
use crate::config::values::{FilePath, show_millis};
use crate::limits::{self, AddressRules};

/// Requests in a second that can be told apart without rounding the rate by more than a third of a percent.
const RATE_MAX: u64 = 100_000;
/// What a burst may take until it is whole again.
const RECOVERY_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Compiles `clients` of a listener or a route; `None`: nobody is left out.
pub(super) fn address_rules(
    compiler: &mut Compiler<'_>,
    lists: &Located<keys::AddressLists>,
) -> Option<Arc<AddressRules>> {
    let keys::AddressLists { allow, allow_file, deny, deny_file } = &lists.value;
    let mut list = |written: &Option<Located<Vec<Located<IpNet>>>>, file: &Option<Located<FilePath>>| {
        let written = written.iter().flat_map(|list| list.value.iter().map(|network| network.value));
        let mut networks: Vec<IpNet> = written.collect();
        if let Some(file) = file {
            networks.extend(files::networks(compiler, file)?);
        }
        Some(networks)
    };
    let (Some(allowed), Some(denied)) = (list(allow, allow_file), list(deny, deny_file)) else {
        return None;
    };
    let places = |list: &Option<Located<Vec<Located<IpNet>>>>, file: &Option<Located<FilePath>>| {
        list.as_ref().map(|list| list.place).or(file.as_ref().map(|file| file.place))
    };
    let (of_allow, of_deny) = (places(allow, allow_file), places(deny, deny_file));
    for (networks, place, help) in
        [(&allowed, of_allow, "remove it: nobody could come"), (&denied, of_deny, "remove it: nobody is in it")]
    {
        let Some(place) = place else { continue };
        if networks.is_empty() {
            compiler.report_missing(Diagnostic::error("an empty list of networks").at(place, "").help(help));
        } else if networks.len() > limits::LIST_NETWORKS {
            let most = limits::LIST_NETWORKS;
            compiler.report(Diagnostic::error(format!("more than {most} networks in one list")).at(place, ""));
        }
    }
    if of_allow.is_none() && of_deny.is_none() {
        return None;
    }
    match AddressRules::new(&allowed, &denied, of_allow.is_none()) {
        Ok(rules) => {
            let rules = Arc::new(rules);
            let (allow, deny, place) = (allowed, denied, lists.place);
            compiler.notes.lists.push(NetworkLists { rules: Arc::clone(&rules), allow, deny, place });
            Some(rules)
        }
        Err(both) => {
            let place = |list: &Option<Located<Vec<Located<IpNet>>>>, otherwise: Option<Place>| {
                let here = list.iter().flat_map(|list| &list.value).find(|network| network.value == both.0);
                here.map(|network| network.place).or(otherwise).unwrap_or(lists.place)
            };
            compiler.report(
                Diagnostic::error(format!("{} is both allowed and denied", both.0))
                    .at(place(deny, of_deny), "denied")
                    .at(place(allow, of_allow), "allowed")
                    .help("remove it from one of the lists: between two networks the longer prefix decides"),
            );
            None
        }
    }
}

/// Compiles `proxy_protocol` of a listener.
pub(super) fn proxies(compiler: &mut Compiler<'_>, listener: &keys::Listener, protocols: Protocols) -> Option<Proxies> {
    let written = listener.proxy_protocol.as_ref()?;
    let keys::ProxyProtocol { from, others } = &written.value;
    if !protocols.over_tcp() {
        compiler.report_missing(
            Diagnostic::error("`proxy_protocol` does nothing where nothing is spoken over TCP")
                .at(written.place, "")
                .help("remove it, or add \"h2\" and \"http/1.1\" to `protocols`"),
        );
    } else if protocols.h3 && !listener.protocols.is_written() {
        compiler.report(
            Diagnostic::warning("HTTP/3 has no header of the PROXY protocol: who sends its packets is the client")
                .at(written.place, "this is for TCP only")
                .help("list `protocols`: without \"h3\" if its clients come through the proxies, too"),
        );
    }
    let from = from.as_ref()?;
    if from.value.is_empty() {
        compiler.report_missing(
            Diagnostic::error("an empty list of networks")
                .at(from.place, "")
                .help("remove `proxy_protocol`, or name the proxies"),
        );
    }
    let networks: Vec<IpNet> = from.value.iter().map(|network| network.value).collect();
    // One list contradicts nothing.
    let from = Arc::new(AddressRules::new(&networks, &[], false).ok()?);
    Some(Proxies { from, only: others.value == keys::OtherPeers::Refuse })
}

/// Compiles `clients` of `[[routes]]` into the routes of these names.
pub(super) fn of_routes(compiler: &mut Compiler<'_>, routes: &mut [Route]) {
    for full in &compiler.root.routes.value {
        let rules = address_rules(compiler, &full.value.clients);
        let name = full.value.name.as_ref().map(|name| name.value.0.as_str());
        if let Some(route) = routes.iter_mut().find(|route| Some(&*route.name) == name) {
            route.clients = rules;
        }
    }
}

/// Compiles `[[rate_limits]]`, and tells the routes which apply to them.
pub(super) fn rate_limits(compiler: &mut Compiler<'_>, routes: &mut [Route]) -> Vec<RateLimit> {
    let mut names: FxHashMap<&str, Place> = FxHashMap::default();
    let mut compiled = Vec::new();
    let mut of_route = vec![Vec::new(); routes.len()];
    for limit in &compiler.root.rate_limits.value {
        if let Some(name) = &limit.value.name
            && let Some(first) = names.insert(&name.value.0, name.place)
        {
            compiler.report(
                Diagnostic::error(format!("two rate limits are named `{}`", name.value.0))
                    .at(name.place, "here again")
                    .at(first, "first here"),
            );
        }
        let applies = routes_of(compiler, &limit.value, routes);
        let Some(one) = rate_limit(compiler, &limit.value) else {
            continue;
        };
        if compiled.len() == limits::RATE_LIMITS {
            compiler.report(
                Diagnostic::error(format!("more than {} rate limits", limits::RATE_LIMITS))
                    .at(limit.place, "one too many")
                    .help("let one limit apply to several routes: routes = [ … ]"),
            );
            break;
        }
        // Below the bound, which fits.
        let id = LimitId(compiled.len() as u8);
        applies.into_iter().for_each(|route| of_route[route].push(id));
        compiled.push(one);
        compiler.notes.rate_limits.push(limit.place);
    }
    for (route, limits) in routes.iter_mut().zip(of_route) {
        route.rate_limits = limits.into();
    }
    compiled
}

/// Positions of the routes that a limit applies to.
fn routes_of(compiler: &mut Compiler<'_>, limit: &keys::RateLimit, routes: &[Route]) -> Vec<usize> {
    let Some(names) = &limit.routes else {
        return (0..routes.len()).collect();
    };
    let mut applies = Vec::new();
    for name in &names.value.0 {
        let known = |route: &Route| *route.name == *name.value.0;
        match routes.iter().position(known) {
            Some(at) if applies.contains(&at) => {}
            Some(at) => applies.push(at),
            // It has been told what is wrong with the route.
            None if is_written(compiler.root, &name.value.0) => {}
            None => {
                let unknown = Diagnostic::error(format!("there is no route `{}`", name.value.0)).at(name.place, "");
                match suggest::nearest(&name.value.0, routes.iter().map(|route| &*route.name)) {
                    Some(near) => compiler.report(unknown.help(format!("did you mean `{near}`?"))),
                    None => {
                        compiler.report_missing(unknown.help("a `route` inside an upstream has the upstream's name"))
                    }
                }
            }
        }
    }
    applies
}

/// Whether a route of that name is written, right or wrong.
fn is_written(root: &keys::Root, name: &str) -> bool {
    let full = |route: &Located<keys::Route>| route.value.name.as_ref().is_some_and(|written| written.value.0 == name);
    let short = |(of, upstream): &(Located<String>, keys::Upstream)| of.value == name && upstream.route.is_some();
    root.routes.value.iter().any(full) || root.upstream.value.0.iter().any(short)
}

fn rate_limit(compiler: &mut Compiler<'_>, keys: &keys::RateLimit) -> Option<RateLimit> {
    let keys::RateLimit {
        name,
        key,
        requests,
        period,
        burst,
        ipv4_prefix,
        ipv6_prefix,
        keys: most,
        headers,
        dry_run,
        ..
    } = keys;
    if key.value == CountBy::Route {
        let idle = [
            ("ipv4_prefix", ipv4_prefix.is_written().then_some(ipv4_prefix.place)),
            ("ipv6_prefix", ipv6_prefix.is_written().then_some(ipv6_prefix.place)),
            ("keys", most.is_written().then_some(most.place)),
        ];
        for (name, place) in idle.into_iter().filter_map(|(name, place)| Some((name, place?))) {
            compiler.report(
                Diagnostic::error(format!("`{name}` does nothing where `key` is \"route\""))
                    .at(place, "")
                    .at(key.place, "everybody is counted together")
                    .help("remove it"),
            );
        }
    }
    if headers.value && dry_run.value {
        compiler.report(
            Diagnostic::error("`headers` tells clients of a limit that does not hold for them")
                .at(headers.place, "")
                .at(dry_run.place, "nothing is refused")
                .help("remove one of them"),
        );
    }
    let (name, requests) = (name.as_ref()?, requests.as_ref()?);
    let millis = u64::try_from(period.value.as_millis()).unwrap_or(u64::MAX).max(1);
    let count = u64::from(requests.value);
    if count * 1_000 > RATE_MAX * millis {
        compiler.report(
            Diagnostic::error(format!("a rate of more than {RATE_MAX} requests in a second cannot be held"))
                .at(requests.place, "")
                .help("lower `requests`, or lengthen `period`"),
        );
        return None;
    }
    let at_once = burst.as_ref().map_or(requests.value, |burst| burst.value);
    let recovery = Duration::from_millis((u128::from(at_once) * u128::from(millis) / u128::from(count)) as u64);
    if recovery > RECOVERY_MAX {
        let most = show_millis(RECOVERY_MAX.as_millis() as u64);
        compiler.report(
            Diagnostic::error("a burst this large takes too long to come back at this rate")
                .at(burst.as_ref().map_or(requests.place, |burst| burst.place), "")
                .help(format!("it may take {} at most: lower `burst`, or raise the rate", most.trim_matches('"'))),
        );
        return None;
    }
    Some(RateLimit {
        name: name.value.0.as_str().into(),
        by: key.value.clone(),
        // Within a byte, by the keys' ranges.
        networks: Networks { v4: ipv4_prefix.value as u8, v6: ipv6_prefix.value as u8 },
        pace: Pace::new(requests.value, period.value, at_once),
        keys: most.value,
        dry_run: dry_run.value,
        requests: requests.value,
        tells: headers.value,
        policy: RateLimit::policy(&name.value.0, requests.value, period.value),
    })
}

/// One network for each line that says something.
///
/// # Errors
/// The number of the first line that is none, from 1.
pub(super) fn parse_networks(text: &str) -> Result<Vec<IpNet>, usize> {
    let mut networks = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let said = line.split('#').next().unwrap_or_default().trim();
        if !said.is_empty() {
            let network =
                said.parse::<IpNet>().or_else(|_| said.parse().map(|address: std::net::IpAddr| address.into()));
            networks.push(network.map_err(|_| at + 1)?.trunc());
        }
    }
    Ok(networks)
}

/// What is wrong with a file of networks.
pub(super) fn not_a_network(path: &Path, line: usize) -> String {
    format!("line {line} of {} is not a network", path.display())
}
