//! Routing by content: what of a request decides where its room goes, if that has to be placed, or that it goes nowhere.
//!
//! The rules are a file's, so that they are changed and tried without a restart. A rule never moves a room that has a node: whoever joins goes where it is.

pub mod pattern;
pub mod rules;

mod dry_run;
mod language;
mod matching;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State as Shared};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use signalbox_protocol::placement::{PlaceRoom, Policy, Track};

pub use self::dry_run::DryRun;
pub use self::matching::{Explanation, Facts};
use self::rules::{Rule, Rules};
use crate::access;
use crate::front::client::Peer;
use crate::group::Group;
use crate::metrics::{Counter, Metrics};
use crate::problem::ApiError;
use crate::reload::Reload;
use crate::state::State;

/// What a rule, or who asks, wants of a room's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The rule.
    pub rule: Option<String>,
    /// See [`PlaceRoom::region`].
    pub region: Option<String>,
    /// See [`PlaceRoom::labels`].
    pub labels: BTreeMap<String, String>,
    /// See [`PlaceRoom::prefer`].
    pub prefer: Option<Track>,
    /// See [`PlaceRoom::policy`].
    pub policy: Option<Policy>,
    /// See [`PlaceRoom::canary_user`]. It is the user's, not the rule's.
    pub group: Group,
}

impl Wish {
    /// What a rule says.
    fn of(rule: &Rule) -> Self {
        let then = rule.then.clone();
        Self {
            rule: Some(rule.name.clone()),
            region: then.region,
            labels: then.labels,
            prefer: then.track,
            policy: then.policy,
            group: Group::default(),
        }
    }

    /// Of a request.
    pub(crate) fn noted(parts: &Parts) -> Self {
        let wish: Self = parts.extensions.get().cloned().unwrap_or_default();
        Self {
            group: Group::noted(parts),
            ..wish
        }
    }

    /// Asks for it.
    pub(crate) fn put_into(&self, request: PlaceRoom) -> PlaceRoom {
        let wish = self.clone();
        PlaceRoom {
            rule: wish.rule,
            region: wish.region,
            labels: wish.labels,
            prefer: wish.prefer,
            policy: wish.policy,
            canary_user: wish.group.is_member(),
            ..request
        }
    }
}

/// The rules of a gateway.
#[derive(Debug, Default)]
pub struct Routing {
    file: Option<PathBuf>,
    loaded: RwLock<Arc<Loaded>>,
}

/// Rules, and the text that they are from.
#[derive(Debug, Default)]
struct Loaded {
    rules: Rules,
    text: String,
}

impl Routing {
    /// Those of a file; none: there are none.
    ///
    /// # Errors
    /// Everything that is wrong with them, a line each.
    pub fn read(file: Option<&Path>) -> Result<Self, String> {
        let loaded = file.map_or_else(|| Ok(Loaded::default()), Loaded::read)?;
        Ok(Self {
            file: file.map(Path::to_owned),
            loaded: RwLock::new(Arc::new(loaded)),
        })
    }

    /// Those that count at present, as they were written.
    pub fn text(&self) -> String {
        self.loaded().text.clone()
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reload for Routing {
    const WHAT: &'static str = "the rules";

    fn files(&self) -> impl Iterator<Item = &Path> + Send {
        self.file.as_deref().into_iter()
    }

    fn reload(&self, _: &Metrics) -> Result<(), String> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let rules = Arc::new(Loaded::read(file)?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    fn counters(metrics: &Metrics) -> [&Counter; 2] {
        [&metrics.rule_reloads, &metrics.rule_reload_failures]
    }
}

/// Reads a file of rules.
///
/// # Errors
/// Everything that is wrong with it, a line each, as a sentence without its full stop.
pub fn load(file: &Path) -> Result<Rules, String> {
    Loaded::read(file).map(|loaded| loaded.rules)
}

impl Loaded {
    fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let text =
            std::fs::read_to_string(file).map_err(|error| format!("the rules in {shown} cannot be read: {error}"))?;
        let rules = Rules::parse(&text);
        let rules = rules.map_err(|wrong| format!("the rules in {shown} cannot be used:\n{}", wrong.join("\n")))?;
        Ok(Self { rules, text })
    }
}

/// Finds a request's rule: answers it if that says so, and else notes the [`Wish`] with it.
pub(crate) async fn route(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let loaded = state.routing().loaded();
    let rules = &loaded.rules;
    if rules.rules.is_empty() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let claims = rules.look_at_claims().then(|| claims(&state, &parts)).flatten();
    let peer = parts.extensions.get::<Peer>();
    let is_from_proxy = peer.is_some_and(|Peer(address)| state.trust().covers(address.ip()));
    let facts = Facts::of(&parts.uri, &parts.headers, claims.as_ref(), is_from_proxy);
    let rule = rules.find(&facts);
    let (wish, answer) = (rule.map(Wish::of), rule.and_then(|rule| rule.then.respond.clone()));
    if let Some(answer) = answer {
        return ApiError::Ruled(answer.status, answer.detail).into_response();
    }
    let mut request = Request::from_parts(parts, body);
    let Some(wish) = wish else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(wish.clone());
    let mut response = next.run(request).await;
    // For whoever writes down what became of it.
    response.extensions_mut().insert(wish);
    response
}

/// What the request's token says, if it holds.
fn claims(state: &State, parts: &Parts) -> Option<Value> {
    let token = access::token(parts).ok()?;
    serde_json::to_value(state.claims(&token).ok()?).ok()
}
