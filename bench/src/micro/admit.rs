//! Who may come and how often: rate limits and lists of networks.

use crate::harness::Harness;
use spooky::admit::{Asked, CountBy, LimitId, Networks, Pace, RateLimit, Rates};
use spooky::http::Fields;
use spooky::limits::AddressRules;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Runs all of them.
pub fn run(harness: &mut Harness) {
    rates(harness);
    lists(harness);
}

fn limit(by: CountBy, requests: u32) -> RateLimit {
    let period = Duration::from_secs(1);
    RateLimit {
        name: "bench".into(),
        by,
        networks: Networks { v4: 32, v6: 64 },
        pace: Pace::new(requests, period, requests),
        keys: 65_536,
        dry_run: false,
        requests,
        tells: false,
        policy: RateLimit::policy("bench", requests, period),
    }
}

fn rates(harness: &mut Harness) {
    let start = Instant::now();
    let mut fields = Fields::new();
    fields.push(b"user-agent", b"bench");
    fields.push(b"x-tenant", b"tenant-4711");
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let ids: Vec<LimitId> = (0..2).map(LimitId).collect();
    let always = 100_000;
    for (name, limits) in [
        ("client address, within", vec![limit(CountBy::Client, always)]),
        ("client address, over", vec![limit(CountBy::Client, 1)]),
        ("field, within", vec![limit(CountBy::Header("x-tenant".into()), always)]),
        ("route, within", vec![limit(CountBy::Route, always)]),
        ("client address and route, within", vec![limit(CountBy::Client, always), limit(CountBy::Route, always)]),
    ] {
        let rates = Rates::new(&limits, 1, start);
        let mut now = start;
        harness.bench(&format!("rate limit: {name}"), || {
            // Slower than the rate, so that what is within stays so.
            now += Duration::from_micros(20);
            let asked = Asked { fields: &fields, client: black_box(client), route: 0 };
            rates.admit(&limits, &ids[..limits.len()], asked, now, |_, _| {}).is_some()
        });
    }
    let limits = [RateLimit { tells: true, ..limit(CountBy::Client, always) }];
    let rates = Rates::new(&limits, 1, start);
    harness.bench("rate limit: what is left to a client address", || {
        let asked = Asked { fields: &fields, client: black_box(client), route: 0 };
        rates.left(&limits, &ids[..1], asked, start).is_some()
    });
    // Every request of another client: the table is full, and each takes the place of one that has used as little.
    let limits = [limit(CountBy::Client, 1)];
    let rates = Rates::new(&limits, 1, start);
    let mut at = 0u32;
    harness.bench("rate limit: a flood of addresses", || {
        at = at.wrapping_add(1);
        let asked = Asked { fields: &fields, client: IpAddr::V4(at.into()), route: 0 };
        rates.admit(&limits, &ids[..1], asked, start, |_, _| {}).is_some()
    });
    harness.held("rate limit: a table of 65,536 keys", || Rates::new(&limits, 1, start));
}

fn lists(harness: &mut Harness) {
    // Addresses and networks from all over, by a multiplicative sequence.
    let spread = |at: u32| at.wrapping_mul(0x9e37_79b9);
    for count in [10u32, 1_000, 10_000, 100_000] {
        let networks: Vec<_> = (0..count)
            .flat_map(|at| {
                let v4 = format!("{}/24", Ipv4Addr::from(spread(at)));
                let v6 = format!("{}/48", Ipv6Addr::from(u128::from(spread(at)) << 96));
                [v4, v6].map(|text| text.parse::<ipnet::IpNet>().expect("a network").trunc())
            })
            .collect();
        let rules = AddressRules::new(&[], &networks, true).unwrap_or_else(|both| panic!("{both:?}"));
        let mut at = 0u32;
        harness.bench(&format!("address list: IPv4 in {count}"), || {
            at = at.wrapping_add(7);
            rules.admits(IpAddr::V4(spread(at).into()))
        });
        harness.bench(&format!("address list: IPv6 in {count}"), || {
            at = at.wrapping_add(7);
            rules.admits(IpAddr::V6((u128::from(spread(at)) << 96).into()))
        });
    }
}
