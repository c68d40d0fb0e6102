//! What a placement asks of the map, each as a part of the request's trace.

use std::time::Duration;

use signalbox_protocol::RoomName;
use signalbox_telemetry::{Kind, Span};

use crate::Error;
use crate::store::{Assignment, Placed, Proposal, Store};

/// [`Store::find`].
pub(super) async fn find<S: Store>(store: &S, room: &RoomName) -> Result<Option<Assignment>, Error> {
    let span = Span::part("map/find", Kind::Client);
    span.note("signalbox.room", room);
    let found = span.run(store.find(room)).await;
    match &found {
        Ok(Some(assignment)) => placed(&span, "found", assignment),
        Ok(None) => span.note("signalbox.result", "nowhere"),
        Err(error) => failed(&span, error),
    }
    found
}

/// [`Store::place`].
pub(super) async fn place<S: Store>(store: &S, proposal: Proposal, margin: Duration) -> Result<Placed, Error> {
    let span = Span::part("map/place", Kind::Client);
    span.note("signalbox.room", &proposal.room);
    let put = span.run(store.place(proposal, margin)).await;
    match &put {
        Ok(Placed::New(assignment)) => placed(&span, "placed", assignment),
        Ok(Placed::Existing(assignment)) => placed(&span, "found", assignment),
        Ok(Placed::Refused) => span.note("signalbox.result", "refused"),
        Err(error) => failed(&span, error),
    }
    put
}

fn placed(span: &Span, result: &str, assignment: &Assignment) {
    span.note("signalbox.result", result);
    span.note("signalbox.node", assignment.node);
}

fn failed(span: &Span, error: &Error) {
    span.note("signalbox.result", "failed");
    // The database's own words may hold what it stores.
    span.fail(if error.is_outage() {
        "the map is away"
    } else {
        "a fault of the map"
    });
}
