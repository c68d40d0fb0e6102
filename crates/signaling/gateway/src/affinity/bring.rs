//! A request that another gateway answers: an event stream, or a WebSocket, of whose frames nothing is read here.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::time::timeout;

use super::{Affinity, pass};
use crate::dialect::Dialect;
use crate::front::client::ClientAddress;
use crate::observe::sockets::Transport;
use crate::state::State;

/// How long a client may take to close its connection after its gateway has. Higher: who never does costs more. Lower: the last message may be lost.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a request has to be answered here.
#[derive(Debug)]
pub(super) enum Refused {
    /// The other gateway is not there, or not what it is taken for.
    Gone(String),
    /// It takes nobody at the moment, as it goes or has too much to do.
    NotNow,
}

/// Has the gateway of this name answer.
///
/// # Errors
/// The request, and why it has to be answered here.
pub(super) async fn bring(
    state: &State,
    affinity: &Affinity,
    gateway: &str,
    mut request: Request,
) -> Result<Response, (Request, Refused)> {
    let (parts, body) = request.into_parts();
    let client = ClientAddress::of(state, &parts);
    let pass = affinity.passes.write(gateway, client.0);
    let mut headers = parts.headers.clone();
    let is_upgrade = headers.contains_key(UPGRADE);
    // They are about this connection.
    for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    request = Request::from_parts(parts, body);
    let Some(pass) = pass else {
        return Err((request, Refused::Gone("there is no pass for it".to_owned())));
    };
    headers.insert(pass::HEADER, pass);
    let answer = match affinity.peers.get(gateway, &path, headers).await {
        Ok(answer) => answer,
        Err(why) => return Err((request, Refused::Gone(why))),
    };
    let status = answer.status();
    // All its other answers are for the client.
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err((request, Refused::NotNow));
    }
    if status == StatusCode::MISDIRECTED_REQUEST {
        let why = "it does not know us: names, secrets or clocks differ";
        return Err((request, Refused::Gone(why.to_owned())));
    }
    let (dialect, transport) = (
        dialect(&request),
        if is_upgrade {
            Transport::WebSocket
        } else {
            Transport::ServerSent
        },
    );
    let guard = state.socket_guard(dialect, transport);
    let farewell = state.farewell();
    let headers = answer.headers().clone();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let (_, body) = axum::http::Response::from(answer).into_parts();
        let until = Box::pin(farewell);
        let data = Body::new(body).into_data_stream().take_until(until).map(move |data| {
            let _running = &guard;
            data
        });
        return Ok(assemble(status, headers, Body::from_stream(data)));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _running = guard;
        let Ok((client, there)) = tokio::try_join!(async { upgrade.await.map_err(drop) }, async {
            answer.upgrade().await.map_err(drop)
        }) else {
            return;
        };
        tokio::select! {
            // Nothing can be said any more, as a message may be half sent.
            () = farewell => {}
            () = pass_on(TokioIo::new(client), there) => {}
        }
    });
    Ok(assemble(status, headers, Body::empty()))
}

fn dialect(request: &Request) -> Dialect {
    let route = request.extensions().get::<MatchedPath>();
    route
        .and_then(|route| Dialect::of_route(route.as_str()))
        .unwrap_or(Dialect::Http)
}

/// Passes on what both sides say, until the gateway, or the client, and then the other, is at its end.
async fn pass_on(client: impl AsyncRead + AsyncWrite, gateway: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_gateway, mut to_gateway) = split(gateway);
    let up = async {
        let copied = copy(&mut from_client, &mut to_gateway).await;
        copied.and(to_gateway.shutdown().await)
    };
    let down = async {
        let copied = copy(&mut from_gateway, &mut to_client).await;
        copied.and(to_client.shutdown().await)
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    let ended = tokio::select! {
        ended = up.as_mut() => ended.and(down.await),
        ended = down.as_mut() => ended.and(timeout(CLOSE_TIMEOUT, up).await.unwrap_or(Ok(()))),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a WebSocket to another gateway ended early");
    }
}

fn assemble(status: StatusCode, mut headers: HeaderMap, body: Body) -> Response {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        headers.remove(CONNECTION);
    }
    headers.remove(TRANSFER_ENCODING);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
