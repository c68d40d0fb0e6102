//! Certificates that are renewed again and again, while clients come and others stay.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clients::{Connection, ask, source};
use super::findings::Findings;
use super::system::System;

/// How many times.
const RENEWALS: usize = 100;

/// How many clients come, one connection after the other, and how many stay.
const COMING: usize = 4;
const STAYING: usize = 10;

/// How long a new certificate may take until it is shown.
const PATIENCE: Duration = Duration::from_secs(10);

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What clients have met.
#[derive(Debug, Default)]
struct Met {
    handshakes: usize,
    certificates: HashSet<Vec<u8>>,
    failed: Vec<String>,
}

type Shared = Arc<Mutex<Met>>;

pub async fn measure() -> anyhow::Result<Findings> {
    let system = System::start(&[]).await?;
    let met = Shared::default();
    let stop = CancellationToken::new();
    let mut coming = JoinSet::new();
    for number in 0..COMING {
        let (clients, met, stop) = (system.clients.clone(), Arc::clone(&met), stop.clone());
        coming.spawn(async move {
            while !stop.is_cancelled() {
                let asked = async {
                    let mut connection = clients.connect(source(number)).await?;
                    let answer = ask(&mut connection, REQUEST).await?;
                    Ok::<_, std::io::Error>((shown(&connection), answer.status))
                };
                let asked = asked.await;
                let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
                match asked {
                    Ok((certificate, 200)) => {
                        met.handshakes += 1;
                        met.certificates.insert(certificate);
                    }
                    Ok((_, status)) => met.failed.push(format!("{status}")),
                    Err(error) => met.failed.push(error.to_string()),
                }
            }
        });
    }
    let mut staying = Vec::new();
    for number in 0..STAYING {
        staying.push(system.clients.connect(source(number)).await?);
    }
    let (mut made, mut cut) = (Vec::new(), 0);
    let begun = Instant::now();
    for _ in 0..RENEWALS {
        let new = system.renew_certificate()?;
        let asked = Instant::now();
        while !met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .certificates
            .contains(&new)
        {
            ensure!(
                asked.elapsed() < PATIENCE,
                "a new certificate is not shown in {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        made.push(new);
        for connection in &mut staying {
            let answered = ask(connection, REQUEST).await;
            cut += usize::from(!answered.is_ok_and(|answer| answer.status == 200));
        }
    }
    let took = begun.elapsed();
    stop.cancel();
    while coming.join_next().await.is_some() {}
    let refused = system.metric("handshakes_failed_total").await?;
    let met = met.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = made.iter().filter(|made| met.certificates.contains(*made)).count();

    let mut found = Findings::default();
    found.tell("renewals", format!("{RENEWALS} in {:.1} s", took.as_secs_f64()));
    found.tell("handshakes meanwhile", met.handshakes);
    found.check(
        "handshakes or requests that failed",
        met.failed.len(),
        "0",
        met.failed.is_empty(),
    );
    for failure in met.failed.iter().take(3) {
        found.tell("one of them", failure);
    }
    found.check(
        "handshakes that failed, as the gateway counts",
        refused,
        "0",
        refused == 0,
    );
    found.check("new certificates that were shown", seen, RENEWALS, seen == RENEWALS);
    let asked = RENEWALS * STAYING;
    let bar = format!("{asked} of {asked}");
    found.check(
        format!("requests answered on {STAYING} connections that stay"),
        asked - cut,
        bar,
        cut == 0,
    );
    Ok(found)
}

/// The certificate that was shown.
fn shown(connection: &Connection) -> Vec<u8> {
    let (_, session) = connection.get_ref();
    let first = session.peer_certificates().and_then(|chain| chain.first());
    first.map(|der| der.to_vec()).unwrap_or_default()
}
