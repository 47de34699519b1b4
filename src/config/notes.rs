//! What a configuration says beside what workers run on: routes as they were written, where things stand, and which layer each
//! time and limit comes from.
//!
//! Made with the generation and for people only: `spooky explain` reads it, a start drops it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::generation::WayId;
use super::source::{Place, Sources};
use crate::admit::LimitId;
use crate::limits::{AddressRules, deciding_network};
use crate::route::{RouteId, RouteSpec};

/// The notes of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// By [`RouteId`]: what each route takes.
    pub specs: Vec<RouteSpec>,
    /// By [`RouteId`]: what says so.
    pub(super) routes: Vec<Place>,
    /// By [`WayId`].
    pub(super) ways: Vec<Vec<Setting>>,
    pub(super) lists: Vec<NetworkLists>,
    /// By [`LimitId`].
    pub(super) rate_limits: Vec<Place>,
    pub(super) sources: Sources,
}

/// One time or limit of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its value, as it is written.
    pub value: String,
    /// Who says so.
    pub from: Layer,
    pub(super) place: Place,
}

/// Which table a value comes from, the first of these that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The route's own.
    Route,
    /// The upstream's.
    Upstream,
    /// Of the whole process.
    Performance,
    /// Nobody wrote it.
    Default,
}

impl Layer {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Performance => "performance",
            Self::Default => "default",
        }
    }
}

/// The lists that one set of rules was compiled from, those of files included.
#[derive(Clone, Debug)]
pub struct NetworkLists {
    pub(super) rules: Arc<AddressRules>,
    pub(super) allow: Vec<IpNet>,
    pub(super) deny: Vec<IpNet>,
    pub(super) place: Place,
}

impl NetworkLists {
    /// The network whose word counts for an address, and whether it is allowed; `None`: the address is in none.
    #[must_use]
    pub fn deciding(&self, address: IpAddr) -> Option<(IpNet, bool)> {
        deciding_network(&self.allow, &self.deny, address)
    }
}

impl Notes {
    /// Where a route is written.
    #[must_use]
    pub fn route(&self, id: RouteId) -> Option<String> {
        self.at(*self.routes.get(id.0 as usize)?)
    }

    /// Where a rate limit is written.
    #[must_use]
    pub fn rate_limit(&self, id: LimitId) -> Option<String> {
        self.at(*self.rate_limits.get(usize::from(id.0))?)
    }

    /// Times and limits of a way.
    #[must_use]
    pub fn settings(&self, id: WayId) -> &[Setting] {
        self.ways.get(id.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Where a setting is written; `None`: nowhere.
    #[must_use]
    pub fn setting(&self, setting: &Setting) -> Option<String> {
        self.at(setting.place)
    }

    /// What these rules were compiled from, and where that is written.
    #[must_use]
    pub fn lists(&self, rules: &Arc<AddressRules>) -> Option<(&NetworkLists, Option<String>)> {
        let lists = self.lists.iter().find(|lists| Arc::ptr_eq(&lists.rules, rules))?;
        Some((lists, self.at(lists.place)))
    }

    /// `file:line:column`; `None` for what nobody wrote.
    fn at(&self, place: Place) -> Option<String> {
        if place == Place::NOWHERE {
            return None;
        }
        let source = self.sources.get(place.source);
        let position = source.position(place.start);
        Some(format!("{}:{}:{}", source.name, position.line, position.column))
    }
}
