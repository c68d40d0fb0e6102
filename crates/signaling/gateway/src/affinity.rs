//! Affinity: which gateway serves whom, where that matters.
//!
//! Any gateway can serve anybody: who comes back after a gateway's end is taken up wherever it comes. But the one that it was at knows more: the messages that an event
//! stream has missed are there, and its session need not be taken over. So a client gets a signed cookie that names its gateway, and another one that it comes to brings it
//! there, over the peers' own listener; if that gateway is gone, it is served where it is.
//!
//! With [`Sticky::Users`] each user has one gateway for all its signaling: the one of its cookie, or else one by its identity, never by its address.
//! A balancer that knows only addresses, behind which many users may be, then still leaves all gateways with as much to do.
//!
//! | module | |
//! |---|---|
//! | `peers` | the other gateways, and whether they are there |
//! | `rendezvous` | a user's gateway, by its identity |
//! | `pass` | what one gateway says to another |
//! | `bring` | a request that another one answers |

pub mod config;

mod bring;
mod pass;
mod peers;
mod rendezvous;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use self::bring::Refused;
use self::config::{AffinityConfig, Sticky};
use self::pass::Passes;
use self::peers::Peers;
use crate::access;
use crate::front::client::Peer;
use crate::join::events;
use crate::metrics::Metrics;
use crate::problem::ApiError;
use crate::state::State;
use crate::{livekit, whip};

/// The cookie that names a gateway.
const COOKIE: &str = "signalbox_gateway";

/// How long a client's gateway is its own. Higher: who comes back the next day is at the same one. Lower: users are spread anew sooner after gateways were added.
const COOKIE_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// What is known of the other gateways.
#[derive(Debug)]
pub(crate) struct Affinity {
    own: String,
    sticky: Sticky,
    peers: Peers,
    passes: Passes,
}

/// Where a request is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Home {
    Here,
    /// Here, as the gateway that it should be at is gone.
    Instead,
    /// At the gateway of this name.
    At(String),
}

/// It was brought by another gateway.
#[derive(Debug, Clone, Copy)]
struct Brought;

impl Affinity {
    /// None without peers.
    ///
    /// # Errors
    /// [`ApiError::Start`] for settings that contradict each other.
    pub(crate) fn new(
        config: &AffinityConfig,
        secrets: &signalbox_protocol::Secrets,
    ) -> Result<Option<Self>, ApiError> {
        config.check().map_err(ApiError::Start)?;
        let Some(own) = config.gateway_name.clone().filter(|_| !config.peers.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            peers: Peers::new(&own, &config.peers)?,
            passes: Passes::new(&own, secrets),
            own,
            sticky: config.sticky,
        }))
    }

    /// Keeps track of the other gateways until `ended`.
    pub(crate) async fn watch(&self, metrics: Arc<Metrics>, ended: CancellationToken) {
        self.peers.watch(&self.passes, &metrics, ended).await;
    }

    /// Where a user is to be served: `named` is its cookie's gateway; `goes_on`: it has a session there.
    fn home(&self, named: Option<&str>, goes_on: bool, user: &str) -> Home {
        let is_sticky = goes_on || self.sticky == Sticky::Users;
        let Some(named) = named.filter(|_| is_sticky) else {
            return self.by_identity(user, Home::Here);
        };
        if named == self.own {
            Home::Here
        } else if self.peers.up().any(|peer| peer == named) {
            Home::At(named.to_owned())
        } else {
            self.by_identity(user, Home::Instead)
        }
    }

    fn by_identity(&self, user: &str, here: Home) -> Home {
        if self.sticky != Sticky::Users {
            return here;
        }
        let all = self.peers.up().chain([self.own.as_str()]);
        match rendezvous::home(user, all) {
            Some(home) if home != self.own => Home::At(home.to_owned()),
            _ => here,
        }
    }
}

/// Takes in what another gateway brings, and nothing else.
pub(crate) async fn arrive(Shared(state): Shared<State>, mut request: Request, next: Next) -> Response {
    let passes = state.affinity().map(|affinity| &affinity.passes);
    let Some(client) = passes.and_then(|passes| passes.take(request.headers_mut())) else {
        let why = "Only the other gateways of this cluster may ask here; use the gateway's other port.\n";
        return (StatusCode::MISDIRECTED_REQUEST, why).into_response();
    };
    let extensions = request.extensions_mut();
    extensions.insert(Peer(SocketAddr::new(client, 0)));
    extensions.insert(Brought);
    next.run(request).await
}

/// Brings a client to its gateway, if that is another one, and else tells it that this one is its own.
pub(crate) async fn lead(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let Some(affinity) = state.affinity() else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let Some(goes_on) = goes_on(&parts) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let named = state.cookies().get(&parts.headers, COOKIE);
    let home = if parts.extensions.get::<Brought>().is_some() {
        Home::Here
    } else {
        user(&state, &parts).map_or(Home::Here, |user| affinity.home(named.as_deref(), goes_on, &user))
    };
    let mut request = Request::from_parts(parts, body);
    match &home {
        Home::Here => {}
        Home::Instead => state.metrics().sessions_taken_over.increment(),
        Home::At(gateway) => match bring::bring(&state, affinity, gateway, request).await {
            Ok(response) => {
                state.metrics().clients_brought.increment();
                return response;
            }
            Err((returned, refused)) => {
                if let Refused::Gone(why) = refused {
                    tracing::warn!(gateway, why, "a client could not be brought to its gateway");
                    affinity.peers.mark(gateway, false);
                }
                state.metrics().sessions_taken_over.increment();
                request = returned;
            }
        },
    }
    let mut response = next.run(request).await;
    let is_served = matches!(response.status(), StatusCode::SWITCHING_PROTOCOLS | StatusCode::OK);
    if is_served
        && named.as_deref() != Some(&affinity.own)
        && let Some(cookie) = state.cookies().set(COOKIE, &affinity.own, COOKIE_LIFETIME)
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Whether the request goes on with a session that a gateway has; none: it is no request for signaling.
fn goes_on(parts: &Parts) -> Option<bool> {
    let path = parts.extensions.get::<MatchedPath>()?.as_str();
    match path {
        livekit::PATH => Some(livekit::is_resume(parts)),
        events::PATH | whip::WHIP_EVENTS | whip::WHEP_EVENTS => Some(events::is_resume(parts)),
        _ => None,
    }
}

/// Who asks, if its token holds.
fn user(state: &State, parts: &Parts) -> Option<String> {
    let token = access::token(parts).ok()?;
    Some(state.claims(&token).ok()?.sub)
}

#[cfg(test)]
mod tests {
    use super::config::PeerUrl;
    use super::*;

    fn affinity(sticky: Sticky) -> Affinity {
        let peer = |name: &str| PeerUrl {
            name: name.to_owned(),
            url: "http://127.0.0.1:1".parse().unwrap(),
        };
        let config = AffinityConfig {
            gateway_name: Some("a".to_owned()),
            peers: ["a", "b", "c"].map(peer).into(),
            peer_listen: Some(([127, 0, 0, 1], 0).into()),
            sticky,
        };
        let affinity = Affinity::new(&config, &"0123456789abcdef".parse().unwrap());
        let affinity = affinity.unwrap().unwrap();
        affinity.peers.mark("b", true);
        affinity
    }

    fn at(name: &str) -> Home {
        Home::At(name.to_owned())
    }

    #[test]
    fn who_goes_on_is_led_to_its_gateway_and_who_is_new_stays() {
        let affinity = affinity(Sticky::Resumes);
        for (named, goes_on, expected) in [
            (None, false, Home::Here),
            (None, true, Home::Here),
            (Some("b"), false, Home::Here),
            (Some("a"), true, Home::Here),
            (Some("b"), true, at("b")),
            (Some("c"), true, Home::Instead),
            (Some("z"), true, Home::Instead),
        ] {
            assert_eq!(affinity.home(named, goes_on, "ann"), expected, "{named:?}, {goes_on}");
        }
    }

    #[test]
    fn each_user_has_a_gateway_while_it_is_there() {
        let affinity = affinity(Sticky::Users);
        let users: Vec<String> = (0..100).map(|n| format!("user-{n}")).collect();
        let homes: Vec<Home> = users.iter().map(|user| affinity.home(None, false, user)).collect();
        let here = homes.iter().filter(|home| **home == Home::Here).count();
        let there = homes.iter().filter(|home| **home == at("b")).count();
        assert!(here + there == 100 && here > 20 && there > 20, "{here}, {there}");
        for user in &users {
            assert_eq!(affinity.home(Some("a"), false, user), Home::Here);
            assert_eq!(affinity.home(Some("b"), true, user), at("b"));
        }
        affinity.peers.mark("b", false);
        for user in &users {
            assert_eq!(affinity.home(None, false, user), Home::Here);
            assert_eq!(affinity.home(Some("b"), true, user), Home::Instead);
        }
    }
}
