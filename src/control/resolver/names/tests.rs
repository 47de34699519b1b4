//! Stories of names: what is asked, what is answered, what is known then.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A machine with a clock, and everything it has told.
struct Story {
    names: Names,
    now: Instant,
    seed: u64,
    /// Questions on their way, oldest first.
    open: Vec<(QuestionKey, SocketAddr, Transport, Vec<u8>)>,
    news: Vec<String>,
}

fn settings() -> Settings {
    let system = ResolvConf::parse("nameserver 10.0.0.53\nnameserver 10.0.0.54\n");
    Settings {
        min_ttl: SECOND,
        max_ttl: 60 * SECOND,
        ..Settings::new(
            &crate::config::Resolver {
                servers: Vec::new(),
                timeout: None,
                attempts: None,
                min_ttl: SECOND,
                max_ttl: 60 * SECOND,
                start_timeout: SECOND,
            },
            system,
        )
    }
}

const NAME: NameId = NameId(0);

impl Story {
    fn new(settings: Settings, hosts: &str, names: &[&str]) -> Self {
        let now = Instant::now();
        let names =
            Names::new(settings, &Hosts::parse(hosts), names.iter().map(|name| Box::from(*name)).collect(), now);
        let mut story = Self { names, now, seed: 1, open: Vec::new(), news: Vec::new() };
        story.poll();
        story
    }

    fn one() -> Self {
        Self::new(settings(), "", &["app.example"])
    }

    fn with(&mut self, act: impl FnOnce(&mut Names, Instant, Random<'_>)) {
        let seed = &mut self.seed;
        let mut random = || {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *seed ^ *seed >> 33
        };
        act(&mut self.names, self.now, &mut random);
        self.names.poll(self.now, &mut random);
        while let Some(order) = self.names.next_order() {
            match order {
                Order::Ask { key, server, over, bytes } => self.open.push((key, server, over, bytes)),
                Order::Drop(key) => self.open.retain(|(open, ..)| *open != key),
            }
        }
        while let Some(news) = self.names.next_news() {
            self.news.push(match news {
                News::Found { addresses, .. } => {
                    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                }
                News::Failing { cause, .. } => format!("failing: {}", cause.word()),
                News::Recovered { .. } => "recovered".to_owned(),
                News::Plain { server } => format!("plain: {server}"),
            });
        }
    }

    fn poll(&mut self) {
        self.with(|_, _, _| {});
    }

    /// Time passes, step by step, as the deadlines come.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.names.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.poll();
        }
        self.now = until;
    }

    fn pass_to_deadline(&mut self) {
        let due = self.names.deadline().expect("it waits for something");
        self.pass(due - self.now);
    }

    /// What the open questions ask, with whom.
    fn asked(&self) -> Vec<String> {
        let each = self.open.iter().map(|(_, server, over, bytes)| {
            let (name, family) = question(bytes);
            let over = if *over == Transport::Stream { "tcp " } else { "" };
            format!("{over}{} {family:?} {name}", server.ip())
        });
        each.collect()
    }

    /// Answers the oldest open question about this name and family.
    fn say(&mut self, name: &str, family: Family, flags: u16, ips: &[&str], ttl: u32) {
        let found = self.open.iter().find(|(.., bytes)| question(bytes) == (name.to_owned(), family));
        let (key, .., bytes) = found.unwrap_or_else(|| panic!("{family:?} {name} of {:?}", self.asked())).clone();
        let message = answer(&bytes, flags, ips, ttl);
        self.with(|names, now, random| names.receive(key, &message, now, random));
    }

    /// Answers both families, IPv4 with these and IPv6 with none.
    fn say_v4(&mut self, ips: &[&str], ttl: u32) {
        self.say("app.example", Family::V4, 0, ips, ttl);
        self.say("app.example", Family::V6, 0, &[], ttl);
    }

    fn say_both(&mut self, name: &str, flags: u16) {
        for family in Family::BOTH {
            self.say(name, family, flags, &[], 1);
        }
    }

    fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    fn known(&self) -> Vec<String> {
        match self.names.addresses(NAME) {
            Ok(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Err(cause) => vec![cause.word().to_owned()],
        }
    }
}

/// Name and family of a message.
fn question(bytes: &[u8]) -> (String, Family) {
    let mut labels = Vec::new();
    let mut at = 12;
    while bytes[at] != 0 {
        let end = at + 1 + usize::from(bytes[at]);
        labels.push(String::from_utf8(bytes[at + 1..end].to_ascii_lowercase()).unwrap());
        at = end;
    }
    (labels.join("."), if bytes[at + 2] == 28 { Family::V6 } else { Family::V4 })
}

/// The question's answer: these flags, these addresses.
fn answer(question: &[u8], flags: u16, ips: &[&str], ttl: u32) -> Vec<u8> {
    let mut out = question.to_vec();
    out[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
    out[7] = ips.len() as u8;
    for ip in ips {
        let octets = match ip.parse().unwrap() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let kind = if octets.len() == 4 { 1 } else { 28 };
        out.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, octets.len() as u8]);
        out.extend_from_slice(&octets);
    }
    out
}

const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const TRUNCATED: u16 = 0x0200;

#[test]
fn both_families_are_asked_at_once_and_again_when_the_shorter_ttl_is_over() {
    let mut story = Story::one();
    assert_eq!(story.asked(), ["10.0.0.53 V4 app.example", "10.0.0.53 V6 app.example"]);
    assert!(!story.names.is_begun());
    story.say("app.example", Family::V4, 0, &["10.0.0.1"], 30);
    assert_eq!(story.known(), ["timeout"], "one family may not be all of it");
    story.say("app.example", Family::V6, 0, &["2001:db8::1"], 20);
    assert_eq!(story.known(), ["2001:db8::1", "10.0.0.1"]);
    assert_eq!(story.news(), ["2001:db8::1 10.0.0.1"]);
    assert!(story.names.is_begun() && story.open.is_empty());
    story.pass(20 * SECOND - Duration::from_millis(1));
    assert!(story.open.is_empty());
    story.pass(Duration::from_millis(1));
    assert_eq!(story.open.len(), 2);
    story.say("app.example", Family::V6, 0, &["2001:db8::1"], 20);
    story.say("app.example", Family::V4, 0, &["10.0.0.2"], 30);
    assert_eq!(story.news(), ["2001:db8::1 10.0.0.2"]);
    assert_eq!(story.names.counts().changed, 1);
}

#[test]
fn the_ttl_is_kept_within_its_bounds() {
    for (ttl, wait) in [(0, SECOND), (1, SECOND), (7, 7 * SECOND), (86_400, 60 * SECOND)] {
        let mut story = Story::one();
        story.say_v4(&["10.0.0.1"], ttl);
        assert_eq!(story.names.deadline(), Some(story.now + wait), "{ttl}");
    }
}

#[test]
fn another_order_of_the_same_addresses_is_no_news() {
    let mut story = Story::one();
    story.say_v4(&["10.0.0.1", "10.0.0.2"], 1);
    assert_eq!(story.news(), ["10.0.0.1 10.0.0.2"]);
    story.pass(SECOND);
    story.say_v4(&["10.0.0.2", "10.0.0.1"], 1);
    assert_eq!((story.news().len(), story.names.counts().resolved), (0, 2));
}

#[test]
fn a_name_that_stops_resolving_keeps_its_last_answer_and_says_so_once() {
    let mut story = Story::one();
    story.say_v4(&["10.0.0.1"], 1);
    story.news();
    for flags in [NXDOMAIN, NXDOMAIN, 0] {
        story.pass_to_deadline();
        story.say_both("app.example", flags);
        assert_eq!(story.known(), ["10.0.0.1"]);
    }
    assert_eq!(story.news(), ["failing: no_such_name"], "once, whatever the cause is later");
    assert_eq!(story.names.standing(), [0, 1, 0]);
    let failed = story.names.counts().failed;
    assert_eq!(failed[ResolverFailure::NoSuchName as usize], 2);
    assert_eq!(failed[ResolverFailure::NoAddress as usize], 1);
    story.pass_to_deadline();
    story.say_v4(&["10.0.0.1"], 9);
    assert_eq!(story.news(), ["recovered"]);
    assert_eq!(story.names.standing(), [1, 0, 0]);
}

#[test]
fn failures_are_retried_later_and_later_and_never_all_at_once() {
    let mut waits = Vec::new();
    let mut story = Story::one();
    for _ in 0..9 {
        story.say_both("app.example", NXDOMAIN);
        waits.push(story.names.deadline().unwrap() - story.now);
        story.pass_to_deadline();
    }
    for (n, wait) in waits.iter().enumerate() {
        let whole = (SECOND * 2_u32.pow(n as u32)).min(limits::RESOLVER_RETRY_MOST);
        assert!(*wait <= whole && *wait > whole * 3 / 4 - Duration::from_millis(1), "{n}: {wait:?}");
    }
    assert!(waits.iter().any(|wait| wait.subsec_nanos() != 0), "chance has a part in it");
    // The first success forgets them.
    story.say_v4(&["10.0.0.1"], 1);
    story.pass(SECOND);
    story.say_both("app.example", NXDOMAIN);
    assert!(story.names.deadline().unwrap() <= story.now + SECOND);
}

#[test]
fn one_familys_failure_takes_nothing_from_the_other_nor_what_it_was() {
    let mut story = Story::one();
    story.say("app.example", Family::V4, 0, &["10.0.0.1"], 60);
    story.say("app.example", Family::V6, 0, &["2001:db8::1"], 60);
    story.pass(60 * SECOND);
    story.news();
    story.say("app.example", Family::V4, 0, &["10.0.0.2"], 60);
    for _ in 0..4 {
        story.say("app.example", Family::V6, SERVFAIL, &[], 60);
    }
    assert_eq!(story.known(), ["2001:db8::1", "10.0.0.2"]);
    assert_eq!(story.news(), ["2001:db8::1 10.0.0.2"], "it resolves, so nothing fails");
    assert!(story.names.deadline().unwrap() <= story.now + SECOND, "but it is not waited for the TTL");
    // A family of which the server says that there is none is gone.
    story.pass(SECOND);
    story.say_v4(&["10.0.0.2"], 60);
    assert_eq!(story.known(), ["10.0.0.2"]);
}

#[test]
fn a_server_that_fails_or_is_silent_is_followed_by_the_next_and_the_one_that_answered_is_asked_first() {
    let mut story = Story::one();
    story.say("app.example", Family::V4, SERVFAIL, &[], 1);
    assert_eq!(story.asked(), ["10.0.0.53 V6 app.example", "10.0.0.54 V4 app.example"]);
    story.pass(2 * SECOND);
    assert_eq!(story.asked().len(), 2);
    assert!(story.asked().contains(&"10.0.0.54 V6 app.example".to_owned()), "{:?}", story.asked());
    let mut other = Story::one();
    other.pass(2 * SECOND);
    assert_eq!(
        other.asked(),
        ["10.0.0.54 V4 app.example", "10.0.0.54 V6 app.example"]
            .map(str::to_owned)
            .to_vec()
            .into_iter()
            .collect::<Vec<_>>()
    );
    other.say_v4(&["10.0.0.1"], 1);
    other.pass(SECOND);
    assert_eq!(other.asked(), ["10.0.0.54 V4 app.example", "10.0.0.54 V6 app.example"]);
}

#[test]
fn silence_ends_after_every_round_and_is_a_timeout() {
    let mut story = Story::one();
    // Two servers, two rounds, two seconds each.
    story.pass(8 * SECOND - Duration::from_millis(1));
    assert!(!story.names.is_begun() && story.news.is_empty());
    story.pass(Duration::from_millis(1));
    assert_eq!(story.news(), ["failing: timeout"]);
    assert!(story.names.is_begun() && story.open.is_empty());
    assert_eq!(story.names.counts().datagrams, 8);
    story.pass(2 * SECOND);
    assert_eq!(story.open.len(), 2, "and it is asked for again");
    // Nothing is kept, so another reason is told: requests are refused with another status.
    story.say_both("app.example", NXDOMAIN);
    assert_eq!(story.news(), ["failing: no_such_name"]);
    assert_eq!(story.known(), ["no_such_name"]);
}

#[test]
fn rotate_begins_each_question_with_another_server() {
    let mut story = Story::new(Settings { rotate: true, ..settings() }, "", &["app.example"]);
    assert_eq!(story.asked(), ["10.0.0.53 V4 app.example", "10.0.0.54 V6 app.example"]);
    story.say_v4(&["10.0.0.1"], 1);
    let three = Settings { rotate: true, servers: vec!["10.0.0.1:53".parse().unwrap(); 3], ..settings() };
    assert_eq!(Story::new(three, "", &["a.example", "b.example"]).names.first, 1);
}

#[test]
fn the_search_list_is_tried_in_the_order_of_ndots() {
    let search = |ndots| Settings { search: vec!["one.test".into(), "two.test".into()], ndots, ..settings() };
    let mut story = Story::new(search(1), "", &["app"]);
    for candidate in ["app.one.test", "app.two.test"] {
        story.say_both(candidate, NXDOMAIN);
    }
    story.say("app", Family::V4, 0, &["10.0.0.1"], 9);
    story.say("app", Family::V6, 0, &[], 9);
    assert_eq!(story.known(), ["10.0.0.1"]);
    let mut story = Story::new(search(1), "", &["app.example"]);
    story.say_both("app.example", 0);
    story.say_both("app.example.one.test", NXDOMAIN);
    story.say_both("app.example.two.test", NXDOMAIN);
    assert_eq!(story.news(), ["failing: no_such_name"]);
    assert_eq!(Story::new(search(2), "", &["app.example"]).asked()[0], "10.0.0.53 V4 app.example.one.test");
    // A dot at its end keeps a name from the list.
    let mut story = Story::new(search(5), "", &["app."]);
    assert_eq!(story.asked()[0], "10.0.0.53 V4 app");
    story.say_both("app", NXDOMAIN);
    assert_eq!(story.news(), ["failing: no_such_name"]);
}

#[test]
fn a_candidate_that_fails_is_not_passed_over_for_another_names_answer() {
    let settings = Settings { search: vec!["one.test".into()], ..settings() };
    let mut story = Story::new(settings, "", &["app"]);
    for _ in 0..4 {
        story.say_both("app.one.test", SERVFAIL);
    }
    assert_eq!(story.news(), ["failing: server_failure"]);
    assert!(story.open.is_empty(), "`app` alone may be somebody else");
}

#[test]
fn a_truncated_answer_is_asked_for_over_tcp_of_the_same_server() {
    let mut story = Story::one();
    story.say("app.example", Family::V4, TRUNCATED, &[], 1);
    assert_eq!(story.asked(), ["10.0.0.53 V6 app.example", "tcp 10.0.0.53 V4 app.example"]);
    story.say_v4(&["10.0.0.1"], 1);
    assert_eq!(story.known(), ["10.0.0.1"]);
    let counts = story.names.counts();
    assert_eq!((counts.datagrams, counts.streams), (2, 1));
}

#[test]
fn tcp_that_fails_is_followed_by_the_next_server() {
    let mut story = Story::one();
    story.say("app.example", Family::V4, TRUNCATED, &[], 1);
    let key = story.open.iter().find(|(_, _, over, _)| *over == Transport::Stream).unwrap().0;
    story.with(|names, now, random| names.fail(key, ResolverFailure::Unreachable, now, random));
    assert_eq!(story.asked(), ["10.0.0.53 V6 app.example", "10.0.0.54 V4 app.example"]);
    let only = Story::new(Settings { stream_only: true, ..settings() }, "", &["app.example"]);
    assert_eq!(only.asked(), ["tcp 10.0.0.53 V4 app.example", "tcp 10.0.0.53 V6 app.example"]);
}

#[test]
fn a_server_without_capitals_is_asked_over_tcp_and_without_them_where_it_has_none() {
    let mut story =
        Story::new(Settings { servers: vec!["10.0.0.53:53".parse().unwrap()], ..settings() }, "", &["app.example"]);
    let small = |bytes: &[u8]| {
        let mut message = answer(bytes, 0, &["10.0.0.1"], 9);
        message[12..25].make_ascii_lowercase();
        message
    };
    let (key, .., bytes) = story.open[0].clone();
    assert_ne!(small(&bytes), answer(&bytes, 0, &["10.0.0.1"], 9), "this seed draws a capital");
    story.with(|names, now, random| names.receive(key, &small(&bytes), now, random));
    assert_eq!(story.asked(), ["10.0.0.53 V6 app.example", "tcp 10.0.0.53 V4 app.example"]);
    let key = story.open[1].0;
    story.with(|names, now, random| names.fail(key, ResolverFailure::Unreachable, now, random));
    assert_eq!(story.asked(), ["10.0.0.53 V6 app.example", "10.0.0.53 V4 app.example"]);
    let (key, .., bytes) = story.open[1].clone();
    assert_eq!(small(&bytes), answer(&bytes, 0, &["10.0.0.1"], 9), "small letters now");
    story.with(|names, now, random| names.receive(key, &small(&bytes), now, random));
    story.say("app.example", Family::V6, 0, &[], 9);
    assert_eq!(story.news(), ["plain: 10.0.0.53:53", "10.0.0.1"]);
    // A server that takes TCP keeps its capitals.
    let mut story = Story::one();
    let (key, .., bytes) = story.open[0].clone();
    story.with(|names, now, random| names.receive(key, &small(&bytes), now, random));
    story.say_v4(&["10.0.0.1"], 9);
    assert_eq!(story.news(), ["10.0.0.1"]);
}

#[test]
fn guesses_are_counted_and_too_many_of_them_end_in_tcp() {
    let mut story = Story::one();
    let (key, .., bytes) = story.open[0].clone();
    let mut forged = answer(&bytes, 0, &["10.6.6.6"], 99);
    forged[0] ^= 1;
    for guesses in 1..limits::RESOLVER_STRANGERS {
        story.with(|names, now, random| names.receive(key, &forged, now, random));
        assert_eq!(story.names.counts().strangers, u64::from(guesses));
        assert_eq!(story.open.len(), 2);
    }
    story.with(|names, now, random| names.receive(key, &forged, now, random));
    assert_eq!(story.asked(), ["10.0.0.53 V6 app.example", "tcp 10.0.0.53 V4 app.example"]);
    // What comes for the closed one is nothing.
    let right = answer(&bytes, 0, &["10.6.6.6"], 99);
    story.with(|names, now, random| names.receive(key, &right, now, random));
    assert_eq!(story.open.len(), 2);
}

#[test]
fn questions_at_once_are_bounded_and_the_others_have_their_turn() {
    let list: Vec<String> = (0..limits::RESOLVER_QUESTIONS).map(|n| format!("n{n}.example")).collect();
    let mut story = Story::new(settings(), "", &list.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(story.open.len(), limits::RESOLVER_QUESTIONS);
    let mut answered = 0;
    while let Some((.., bytes)) = story.open.first() {
        let (name, family) = question(bytes);
        let ips: &[&str] = if family == Family::V4 { &["10.0.0.1"] } else { &[] };
        story.say(&name, family, 0, ips, 60);
        answered += 1;
        assert!(story.open.len() <= limits::RESOLVER_QUESTIONS);
    }
    assert_eq!(answered, 2 * limits::RESOLVER_QUESTIONS);
    assert!(story.names.is_begun());
    assert_eq!(story.names.standing(), [limits::RESOLVER_QUESTIONS as u64, 0, 0]);
}

#[test]
fn the_hosts_file_comes_first_and_asks_nobody() {
    let mut story =
        Story::new(settings(), "10.0.0.9 app.example\nfd00::9 app.example\n", &["app.example", "localhost"]);
    assert!(story.open.is_empty() && story.names.deadline().is_none() && story.names.is_begun());
    assert_eq!(story.news(), ["fd00::9 10.0.0.9", "::1 127.0.0.1"]);
    assert_eq!(story.names.standing(), [2, 0, 0]);
}

#[test]
fn settings_are_the_operators_then_the_systems_then_the_usual() {
    let written = config::Resolver {
        servers: vec!["10.1.1.1:5353".parse().unwrap()],
        timeout: Some(Duration::from_millis(300)),
        attempts: None,
        min_ttl: SECOND,
        max_ttl: SECOND,
        start_timeout: SECOND,
    };
    let system = || ResolvConf::parse("nameserver 10.0.0.53\nsearch a.test\noptions timeout:9 attempts:3 rotate\n");
    let both = Settings::new(&written, system());
    assert_eq!(both.servers, written.servers);
    assert_eq!((both.timeout, both.attempts, both.rotate), (Duration::from_millis(300), 3, true));
    assert_eq!(both.search, ["a.test".into()]);
    let none = config::Resolver { servers: Vec::new(), timeout: None, ..written };
    assert_eq!(Settings::new(&none, system()).timeout, 9 * SECOND);
    let usual = Settings::new(&none, ResolvConf::default());
    assert_eq!((usual.timeout, usual.attempts, usual.servers[0].to_string()), (2 * SECOND, 2, "127.0.0.1:53".into()));
}
