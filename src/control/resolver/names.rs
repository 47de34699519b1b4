//! All names and what is known of them: when to ask whom, and what follows from an answer.
//!
//! A machine without I/O: answers, failures and the time go in, [`Order`]s and [`News`] come out. Chance is handed down
//! too, for identifiers, capitals and jitter. What one name goes through:
//!
//! ```text
//! Idle(due) ──due──▶ Asking A and AAAA of a candidate ──addresses──▶ Idle(TTL within its bounds)
//!    ▲                     │        ▲   │
//!    │                     │        └───┘ no such name, or no address: the next candidate of the search list
//!    └──── back-off ───────┘ all servers failed in every round, or no candidate is left: the last good answer stays
//! ```

use super::message::{Answer, Family, Question, Reading, Transport};
use super::system::{Hosts, ResolvConf};
use crate::config;
use crate::limits;
use crate::telemetry::kinds::ResolverFailure;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Where chance comes from.
pub type Random<'r> = &'r mut dyn FnMut() -> u64;

/// How names are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// At least one.
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind a name.
    pub search: Vec<Box<str>>,
    /// A name with so many dots is first tried as it is.
    pub ndots: u32,
    /// For one answer.
    pub timeout: Duration,
    /// Rounds over all servers.
    pub attempts: u32,
    /// Begin each question with another server; else with the one that answered last.
    pub rotate: bool,
    /// Ask over TCP only.
    pub stream_only: bool,
    /// An answer is asked for again no sooner.
    pub min_ttl: Duration,
    /// And no later.
    pub max_ttl: Duration,
}

impl Settings {
    /// What the operator wrote, then what the system says, then the usual.
    pub fn new(written: &config::Resolver, system: ResolvConf) -> Self {
        const TIMEOUT: Duration = Duration::from_secs(2);
        const ATTEMPTS: u32 = 2;
        Self {
            servers: if written.servers.is_empty() { system.servers } else { written.servers.clone() },
            search: system.search,
            ndots: system.ndots,
            timeout: written.timeout.or(system.timeout).unwrap_or(TIMEOUT),
            attempts: written.attempts.or(system.attempts).unwrap_or(ATTEMPTS),
            rotate: system.rotate,
            stream_only: system.stream_only,
            min_ttl: written.min_ttl,
            max_ttl: written.max_ttl,
        }
    }
}

/// Position of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameId(pub u32);

/// One question of one name; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuestionKey(pub u64);

/// What is to be done with the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Send this, from a port of its own.
    Ask {
        /// Whose the answer is.
        key: QuestionKey,
        /// Whom to ask.
        server: SocketAddr,
        /// How.
        over: Transport,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Nobody waits for this answer any more.
    Drop(QuestionKey),
}

/// What somebody may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The name is now at these addresses; before, it was at others, or at none.
    Found {
        /// Which.
        name: NameId,
        /// At least one.
        addresses: Vec<IpAddr>,
    },
    /// The name cannot be resolved from now on; what is known is kept.
    Failing {
        /// Which.
        name: NameId,
        /// Why.
        cause: ResolverFailure,
    },
    /// It can be again.
    Recovered {
        /// Which.
        name: NameId,
    },
    /// A server repeats questions without their capitals and cannot be asked over TCP; it is asked without from now on.
    Plain {
        /// Which.
        server: SocketAddr,
    },
}

/// What was counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Questions sent over UDP.
    pub datagrams: u64,
    /// Questions sent over TCP.
    pub streams: u64,
    /// Messages that answered none of them.
    pub strangers: u64,
    /// Names resolved, refreshed ones included.
    pub resolved: u64,
    /// Names not resolved, by cause.
    pub failed: [u64; ResolverFailure::COUNT],
    /// Answers that moved a name.
    pub changed: u64,
}

/// How far one family of a candidate is.
#[derive(Debug)]
enum Half {
    /// Servers that were tried.
    Asking {
        tries: u32,
        /// Position of the first server.
        first: usize,
    },
    Done(Answer),
}

#[derive(Debug)]
enum State {
    /// In /etc/hosts: it stays as it is.
    Settled,
    Idle {
        due: Instant,
    },
    Asking {
        candidate: usize,
        halves: [Half; 2],
    },
}

#[derive(Debug)]
struct Known {
    host: Box<str>,
    /// The names to ask for, in this order; at least one.
    candidates: Vec<Box<str>>,
    state: State,
    /// The last good answer for each family.
    addresses: [Vec<IpAddr>; 2],
    /// Why there is none, if there is none.
    cause: Option<ResolverFailure>,
    /// Resolutions in a row of which a part, or all, failed.
    failures: u32,
    /// All of the last one failed.
    failing: bool,
    /// It had its first outcome.
    begun: bool,
}

impl Known {
    fn all(&self) -> Vec<IpAddr> {
        // IPv6 first, as workers will try it.
        self.addresses[1].iter().chain(&self.addresses[0]).copied().take(limits::ENDPOINTS).collect()
    }
}

/// A question on its way.
struct Asked {
    name: NameId,
    family: Family,
    question: Question,
    server: usize,
    over: Transport,
    /// Over TCP because the capitals were not repeated.
    unproved: bool,
    deadline: Instant,
    strangers: u32,
}

/// A half that waits for a place among the questions.
struct Waiting {
    name: NameId,
    family: Family,
    over: Transport,
    unproved: bool,
}

/// All names.
pub struct Names {
    settings: Settings,
    names: Vec<Known>,
    /// At most [`limits::RESOLVER_QUESTIONS`].
    asked: FxHashMap<QuestionKey, Asked>,
    /// Halves that wait for a place among them: at most two of each name.
    waiting: VecDeque<Waiting>,
    next_key: u64,
    /// The server that the next question begins with.
    first: usize,
    /// By server: it is asked without capitals.
    plain: Vec<bool>,
    orders: VecDeque<Order>,
    news: VecDeque<News>,
    counts: Counts,
    /// Cached: nothing is due before.
    due: Option<Instant>,
}

impl Names {
    /// Names in lower case, none of them twice, to be asked for from `now` on.
    pub fn new(settings: Settings, hosts: &Hosts, names: Vec<Box<str>>, now: Instant) -> Self {
        assert!(!settings.servers.is_empty(), "somebody can be asked");
        let mut all = Self {
            asked: FxHashMap::default(),
            waiting: VecDeque::new(),
            next_key: 0,
            first: 0,
            plain: vec![false; settings.servers.len()],
            orders: VecDeque::new(),
            news: VecDeque::new(),
            counts: Counts::default(),
            due: Some(now),
            names: Vec::with_capacity(names.len()),
            settings,
        };
        for host in names {
            let name = NameId(all.names.len() as u32);
            let mut known = Known {
                candidates: candidates(&host, &all.settings),
                host,
                state: State::Idle { due: now },
                addresses: [Vec::new(), Vec::new()],
                cause: Some(ResolverFailure::Timeout),
                failures: 0,
                failing: false,
                begun: false,
            };
            if let Some(addresses) = hosts.find(&known.host) {
                let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
                known.addresses = [v4, v6];
                (known.state, known.cause, known.begun) = (State::Settled, None, true);
                all.news.push_back(News::Found { name, addresses: known.all() });
            }
            all.names.push(known);
        }
        all
    }

    /// A name as it was given.
    pub fn host(&self, name: NameId) -> &str {
        &self.names[name.0 as usize].host
    }

    /// The addresses of a name; if there are none, why.
    ///
    /// # Errors
    /// What the last resolution failed with; a timeout before the first.
    pub fn addresses(&self, name: NameId) -> Result<Vec<IpAddr>, ResolverFailure> {
        let known = &self.names[name.0 as usize];
        known.cause.map_or_else(|| Ok(known.all()), Err)
    }

    /// Whether every name has had its first outcome.
    pub fn is_begun(&self) -> bool {
        self.names.iter().all(|known| known.begun)
    }

    /// How many names are fresh, kept from an earlier answer, and unresolved.
    pub fn standing(&self) -> [u64; 3] {
        let mut standing = [0; 3];
        for known in &self.names {
            standing[if known.cause.is_some() { 2 } else { usize::from(known.failing) }] += 1;
        }
        standing
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next thing to do; asked until there is none.
    pub fn next_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The next thing to tell; asked until there is none.
    pub fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// When [`Self::poll`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Time passed, or something was received: begins what is due, and gives up what is late.
    pub fn poll(&mut self, now: Instant, random: Random<'_>) {
        let late: Vec<QuestionKey> =
            self.asked.iter().filter(|(_, asked)| asked.deadline <= now).map(|(key, _)| *key).collect();
        for key in late {
            self.fail(key, ResolverFailure::Timeout, now, random);
        }
        for at in 0..self.names.len() {
            if matches!(self.names[at].state, State::Idle { due } if due <= now) {
                self.begin(NameId(at as u32), 0);
            }
        }
        while self.asked.len() < limits::RESOLVER_QUESTIONS
            && let Some(next) = self.waiting.pop_front()
        {
            self.ask(next, now, random);
        }
        let idle = self.names.iter().filter_map(|known| match known.state {
            State::Idle { due } => Some(due),
            _ => None,
        });
        self.due = idle.chain(self.asked.values().map(|asked| asked.deadline)).min();
    }

    /// A message came from the server that a question went to. [`Self::poll`] afterwards.
    pub fn receive(&mut self, key: QuestionKey, message: &[u8], now: Instant, random: Random<'_>) {
        let Some(asked) = self.asked.get_mut(&key) else {
            return;
        };
        let answer = match asked.question.read(message, asked.over) {
            Reading::Answer(answer) => answer,
            Reading::Stranger => {
                self.counts.strangers += 1;
                asked.strangers += 1;
                if asked.over == Transport::Stream {
                    // The server itself sent it.
                    return self.fail(key, ResolverFailure::Malformed, now, random);
                }
                if asked.strangers < limits::RESOLVER_STRANGERS {
                    return;
                }
                return self.ask_over_stream(key, false);
            }
            Reading::Cut => return self.ask_over_stream(key, false),
            Reading::Unproved => return self.ask_over_stream(key, true),
        };
        if let Answer::Failed(cause) = answer {
            return self.fail(key, cause, now, random);
        }
        let asked = self.close(key);
        if !self.settings.rotate
            && let Some(asked) = &asked
        {
            self.first = asked.server;
        }
        if let Some(asked) = asked {
            self.finish_half(asked.name, asked.family, answer, now, random);
        }
    }

    /// The network failed a question. [`Self::poll`] afterwards.
    pub fn fail(&mut self, key: QuestionKey, cause: ResolverFailure, now: Instant, random: Random<'_>) {
        let Some(asked) = self.close(key) else {
            return;
        };
        if asked.unproved && !std::mem::replace(&mut self.plain[asked.server], true) {
            // It speaks UDP only, and always in small letters: port and identifier have to do.
            self.news.push_back(News::Plain { server: self.settings.servers[asked.server] });
            let (name, family, over) = (asked.name, asked.family, self.usual_transport());
            return self.waiting.push_front(Waiting { name, family, over, unproved: false });
        }
        let most = self.settings.attempts * self.settings.servers.len() as u32;
        let State::Asking { halves, .. } = &mut self.names[asked.name.0 as usize].state else {
            return;
        };
        let Half::Asking { tries, .. } = &mut halves[asked.family as usize] else {
            return;
        };
        *tries += 1;
        if *tries < most {
            let over = self.usual_transport();
            self.waiting.push_back(Waiting { name: asked.name, family: asked.family, over, unproved: false });
        } else {
            self.finish_half(asked.name, asked.family, Answer::Failed(cause), now, random);
        }
    }

    fn usual_transport(&self) -> Transport {
        if self.settings.stream_only { Transport::Stream } else { Transport::Datagram }
    }

    fn close(&mut self, key: QuestionKey) -> Option<Asked> {
        let asked = self.asked.remove(&key)?;
        self.orders.push_back(Order::Drop(key));
        Some(asked)
    }

    fn ask_over_stream(&mut self, key: QuestionKey, unproved: bool) {
        if let Some(Asked { name, family, .. }) = self.close(key) {
            // Before the others: its name has waited already.
            self.waiting.push_front(Waiting { name, family, over: Transport::Stream, unproved });
        }
    }

    fn begin(&mut self, name: NameId, candidate: usize) {
        let over = self.usual_transport();
        let mut half = || {
            let first = self.first;
            if self.settings.rotate {
                self.first = (self.first + 1) % self.settings.servers.len();
            }
            Half::Asking { tries: 0, first }
        };
        let halves = [half(), half()];
        self.names[name.0 as usize].state = State::Asking { candidate, halves };
        for family in Family::BOTH {
            self.waiting.push_back(Waiting { name, family, over, unproved: false });
        }
    }

    fn ask(&mut self, next: Waiting, now: Instant, random: Random<'_>) {
        let Waiting { name, family, over, unproved } = next;
        let known = &self.names[name.0 as usize];
        let State::Asking { candidate, halves } = &known.state else {
            return;
        };
        let Half::Asking { tries, first } = &halves[family as usize] else {
            return;
        };
        let server = (first + *tries as usize) % self.settings.servers.len();
        let host = &known.candidates[*candidate];
        let Some(question) = Question::new(host, family, self.plain[server], random) else {
            // Names are judged when they are read, so this is one that a search domain made impossible.
            return self.finish_half(name, family, Answer::NoSuchName, now, random);
        };
        let key = QuestionKey(self.next_key);
        self.next_key += 1;
        match over {
            Transport::Datagram => self.counts.datagrams += 1,
            Transport::Stream => self.counts.streams += 1,
        }
        let bytes = question.bytes().to_vec();
        self.orders.push_back(Order::Ask { key, server: self.settings.servers[server], over, bytes });
        let deadline = now + self.settings.timeout;
        self.asked.insert(key, Asked { name, family, question, server, over, unproved, deadline, strangers: 0 });
    }

    fn finish_half(&mut self, name: NameId, family: Family, answer: Answer, now: Instant, random: Random<'_>) {
        let known = &mut self.names[name.0 as usize];
        let State::Asking { candidate, halves } = &mut known.state else {
            return;
        };
        halves[family as usize] = Half::Done(answer);
        let [Half::Done(v4), Half::Done(v6)] = &*halves else {
            return;
        };
        let answers = [v4.clone(), v6.clone()];
        let next = *candidate + 1;
        let failed = answers.iter().find_map(|answer| match answer {
            Answer::Failed(cause) => Some(*cause),
            _ => None,
        });
        let found = answers.iter().filter_map(|answer| match answer {
            Answer::Addresses { ttl, .. } => Some(*ttl),
            _ => None,
        });
        match (found.min(), failed) {
            (Some(ttl), _) => self.found(name, answers, ttl, now, random),
            // Another name's answer is none while it is not known whether this one exists.
            (None, Some(cause)) => self.failed(name, cause, now, random),
            (None, None) if next < known.candidates.len() => self.begin(name, next),
            (None, None) => {
                let exists = answers.contains(&Answer::NoAddress);
                let cause = if exists { ResolverFailure::NoAddress } else { ResolverFailure::NoSuchName };
                self.failed(name, cause, now, random);
            }
        }
    }

    fn found(&mut self, name: NameId, answers: [Answer; 2], ttl: Duration, now: Instant, random: Random<'_>) {
        let known = &mut self.names[name.0 as usize];
        let (mut before, mut partly) = (known.all(), false);
        for (kept, answer) in known.addresses.iter_mut().zip(answers) {
            match answer {
                Answer::Addresses { addresses, .. } => *kept = addresses,
                Answer::NoAddress | Answer::NoSuchName => kept.clear(),
                // One family's failure takes nothing from the other, nor what it was before.
                Answer::Failed(_) => partly = true,
            }
        }
        let mut wait = ttl.clamp(self.settings.min_ttl, self.settings.max_ttl);
        known.failures = if partly { known.failures.saturating_add(1) } else { 0 };
        if partly {
            wait = wait.min(back_off(known.failures, random).max(self.settings.min_ttl));
        }
        known.state = State::Idle { due: now + wait };
        (known.cause, known.begun) = (None, true);
        self.counts.resolved += 1;
        if std::mem::take(&mut known.failing) {
            self.news.push_back(News::Recovered { name });
        }
        // Servers turn the order of their answers; that moves nobody.
        let addresses = known.all();
        let mut after = addresses.clone();
        before.sort_unstable();
        after.sort_unstable();
        if before != after {
            self.counts.changed += u64::from(!before.is_empty());
            self.news.push_back(News::Found { name, addresses });
        }
    }

    fn failed(&mut self, name: NameId, cause: ResolverFailure, now: Instant, random: Random<'_>) {
        let known = &mut self.names[name.0 as usize];
        known.failures = known.failures.saturating_add(1);
        known.state = State::Idle { due: now + back_off(known.failures, random) };
        known.begun = true;
        self.counts.failed[cause as usize] += 1;
        let another = known.cause.is_some_and(|before| before != cause);
        if known.cause.is_some() {
            known.cause = Some(cause);
        }
        // Once for each time it begins, and when nothing is kept and the reason is another.
        if !std::mem::replace(&mut known.failing, true) || another {
            self.news.push_back(News::Failing { name, cause });
        }
    }
}

/// The wait after so many failures in a row: doubled each time, less up to a quarter, so that many names and many
/// processes do not come back together.
fn back_off(failures: u32, random: Random<'_>) -> Duration {
    let doubled = limits::RESOLVER_RETRY_FIRST * 2_u32.pow(failures.saturating_sub(1).min(16));
    let wait = doubled.min(limits::RESOLVER_RETRY_MOST);
    wait - wait / 4 * (random() % 1024) as u32 / 1024
}

/// The names to ask for, as resolv.conf(5) has it: with enough dots as it is and then with the search list, else the other
/// way round; with a dot at its end as it is only.
fn candidates(host: &str, settings: &Settings) -> Vec<Box<str>> {
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![absolute.into()];
    }
    let fits = |name: &String| name.len() <= limits::HOST_NAME_BYTES;
    let searched = settings.search.iter().map(|domain| format!("{host}.{domain}")).filter(fits).map(Box::from);
    let dots = host.bytes().filter(|byte| *byte == b'.').count() as u32;
    if dots >= settings.ndots {
        std::iter::once(host.into()).chain(searched).collect()
    } else {
        searched.chain(std::iter::once(host.into())).collect()
    }
}

#[cfg(test)]
mod tests;
