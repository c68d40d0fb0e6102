//! What HTTP/2 forbids (RFC 9113), and what it allows and hurts: each is sent on a connection of its own, and the gateway has to say the right word.

mod cases;
mod frames;

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use self::cases::{CASES, Case, Expected};
use self::frames::{Frame, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame};
use super::clients::{Connection, source};
use super::findings::Findings;
use super::system::System;

/// How long the gateway may take to say its word.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most by which memory may grow over all of them, in KiB.
const MOST_GROWTH: u64 = 16 * 1024;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// The connection is refused, for this reason (section 7); none: it is closed without one.
    Connection(Option<u32>),
    /// The stream is.
    Stream(u32),
    /// There is an answer.
    Answer,
    /// Nothing.
    Nothing,
}

pub async fn measure() -> anyhow::Result<Findings> {
    let system = System::start(&[]).await?;
    let clients = system.clients.speaking("h2");
    let mut found = Findings::default();
    let (mut right, mut grown) = (0, 0);
    let mut otherwise = Vec::new();
    for case in CASES {
        let before = system.memory_kib()?;
        let connection = clients.connect(source(0)).await?;
        let word = meet(connection, case).await;
        grown += system.memory_kib()?.saturating_sub(before);
        if case.expected.is(&word) {
            right += 1;
        } else if case.expected != Expected::Answer && matches!(word, Word::Connection(_) | Word::Stream(_)) {
            otherwise.push(format!("{} ({})", case.what, case.section));
        } else {
            let wanted = format!("{:?}", case.expected);
            found.check(
                format!("{}: {}", case.section, case.what),
                format!("{word:?}"),
                wanted,
                false,
            );
        }
    }
    let all = CASES.len();
    found.tell(format!("of {all} cases, answered as RFC 9113 has it"), right);
    // HTTP/2's library says PROTOCOL_ERROR of almost everything. What counts is that nothing goes on.
    found.tell("refused with another reason than it has", otherwise.join(", "));
    let refused = right + otherwise.len();
    found.check(
        "answered if they are right and refused if not",
        refused,
        all,
        refused == all,
    );
    found.check(
        "memory after all of them",
        format!("{grown} KiB more"),
        format!("≤ {MOST_GROWTH} KiB"),
        grown <= MOST_GROWTH,
    );
    let livez = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (answer, _) = system.clients.ask_once(source(0), livez).await?;
    found.check("the next client's answer", answer.status, 200, answer.status == 200);
    Ok(found)
}

/// Sends what a case has, and waits for what counts.
async fn meet(connection: Connection, case: &Case) -> Word {
    let (mut read, mut write) = tokio::io::split(connection);
    let bytes = (case.bytes)();
    let sending = async {
        if case.begins_well {
            let _ = write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        }
        // It may be cut off in the middle.
        let _ = write.write_all(&bytes).await;
        let _ = write.flush().await;
        std::future::pending::<()>().await;
    };
    let waiting = async {
        loop {
            let word = match Frame::read(&mut read).await {
                Err(_) => Word::Connection(None),
                Ok(frame) => match frame.kind {
                    GOAWAY => Word::Connection(Some(frame.number(4))),
                    RST_STREAM => Word::Stream(frame.number(0)),
                    HEADERS => Word::Answer,
                    _ => continue,
                },
            };
            // An answer to what was right may come first.
            if word == Word::Answer && case.expected != Expected::Answer {
                continue;
            }
            return word;
        }
    };
    tokio::select! {
        () = sending => Word::Nothing,
        word = tokio::time::timeout(PATIENCE, waiting) => word.unwrap_or(Word::Nothing),
    }
}

impl Expected {
    /// Whether that is it. More than is necessary may be refused: of a stream's error a connection's (section 5.4).
    fn is(&self, word: &Word) -> bool {
        match (self, word) {
            (Self::Answer, word) => *word == Word::Answer,
            (Self::Connection(codes), Word::Connection(Some(code))) => codes.contains(code),
            // Whoever does not speak HTTP/2 need not be told in its words (section 3.4).
            (Self::Connection(_) | Self::Stream(_), Word::Connection(None)) => true,
            (Self::Stream(codes), Word::Stream(code) | Word::Connection(Some(code))) => codes.contains(code),
            _ => false,
        }
    }
}
