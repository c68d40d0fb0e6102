//! The access log: a line of JSON for each request, written by a thread of its own. When the disk is slower than requests come, lines are lost and counted, and no request waits.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::SystemTime;

use serde::Serialize;

use crate::metrics::{Counter, Metrics};
use crate::reload::Reload;

/// How many lines may wait to be written, some 400 bytes each. Higher: longer stalls of the disk lose nothing.
const MAX_WAITING: usize = 10_000;

/// A line.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entry {
    /// In milliseconds since 1970, when it was answered.
    pub(crate) at_ms: u64,
    pub(crate) request_id: String,
    /// Of the trace that it belongs to, whether or not that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    pub(crate) method: String,
    /// The route's pattern; none: there is no such route.
    pub(crate) route: Option<String>,
    /// Of HTTP.
    pub(crate) protocol: String,
    pub(crate) status: u16,
    /// The kind of its problem document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<&'static str>,
    /// Until the head of the answer.
    pub(crate) duration_ms: f64,
    /// The network that it came from.
    pub(crate) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
    /// The rule that it was routed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
}

enum Message {
    Line(Box<Entry>),
    Reopen,
}

/// Where lines go.
#[derive(Debug)]
pub(crate) struct AccessLog {
    file: PathBuf,
    waiting: SyncSender<Message>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// Opens it, behind what is in it.
    ///
    /// # Errors
    /// As opening it fails.
    pub(crate) fn open(file: &Path, metrics: Arc<Metrics>) -> io::Result<Self> {
        let output = output(file)?;
        let (waiting, lines) = sync_channel(MAX_WAITING);
        let path = file.to_owned();
        std::thread::Builder::new()
            .name("access log".into())
            .spawn(move || write_all(&path, output, &lines))?;
        Ok(Self {
            file: file.to_owned(),
            waiting,
            metrics,
        })
    }

    /// Writes a line, now or soon.
    pub(crate) fn write(&self, mut entry: Entry) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        entry.at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.waiting.try_send(Message::Line(Box::new(entry)))
        {
            self.metrics.access_log_lost.increment();
        }
    }
}

impl Reload for AccessLog {
    const WHAT: &'static str = "the files of the access log";

    /// It is written, not read: only whoever has moved it away says so.
    fn files(&self) -> impl Iterator<Item = &Path> + Send {
        std::iter::empty()
    }

    fn reload(&self, _: &Metrics) -> Result<(), String> {
        output(&self.file)
            .map_err(|error| format!("the access log {} cannot be opened: {error}", self.file.display()))?;
        self.waiting
            .try_send(Message::Reopen)
            .map_err(|error| error.to_string())
    }

    fn counters(metrics: &Metrics) -> [&Counter; 2] {
        [&metrics.access_log_reopened, &metrics.access_log_reopen_failures]
    }
}

type Output = BufWriter<Box<dyn Write + Send>>;

fn output(file: &Path) -> io::Result<Output> {
    let file: Box<dyn Write + Send> = match file.as_os_str() == "-" {
        true => Box::new(io::stdout()),
        false => Box::new(append(file)?),
    };
    Ok(BufWriter::new(file))
}

fn append(file: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(file)
}

/// Writes what comes, and flushes when nothing waits.
fn write_all(file: &Path, mut output: Output, lines: &Receiver<Message>) {
    let mut next = lines.recv().ok();
    while let Some(message) = next {
        let written = match message {
            Message::Line(entry) => line(&mut output, &entry),
            Message::Reopen => self::output(file).map(|new| output = new),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the access log cannot be written");
        }
        next = lines.try_recv().ok();
        if next.is_none() {
            let _ = output.flush();
            next = lines.recv().ok();
        }
    }
}

fn line(output: &mut Output, entry: &Entry) -> io::Result<()> {
    serde_json::to_writer(&mut *output, entry)?;
    output.write_all(b"\n")
}
