//! What a server on this machine takes meanwhile, from `/proc`: its processors' time, its memory and its open files, with all that it has started.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// What the processes took until a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, in user space and in the kernel.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Open file descriptors.
    pub files: u64,
}

/// Asks about some processes and their descendants.
///
/// # Errors
/// When one of them is not there.
pub fn usage(pids: &[u32]) -> anyhow::Result<Usage> {
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("/proc cannot be read")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
            parents.entry(stat.parent).or_default().push(pid);
        }
    }
    let (mut all, mut next) = (HashSet::new(), pids.to_vec());
    while let Some(pid) = next.pop() {
        if all.insert(pid) {
            next.extend(parents.get(&pid).into_iter().flatten());
        }
    }
    let mut usage = Usage::default();
    for pid in all {
        match stat(pid) {
            Some(stat) => {
                usage.cpu += stat.cpu;
                usage.memory += stat.memory;
                // Another user's cannot be read.
                usage.files += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64);
            }
            None if pids.contains(&pid) => anyhow::bail!("there is no process {pid}"),
            // It ended meanwhile.
            None => {}
        }
    }
    Ok(usage)
}

struct Stat {
    parent: u32,
    cpu: Duration,
    memory: u64,
}

/// Clock ticks in a second: Linux has always told user space of 100.
const TICKS: u64 = 100;

/// Bytes of a page. With larger ones the memory is that much more than is said.
const PAGE: u64 = 4_096;

fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before this may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        cpu: Duration::from_millis((number(11)? + number(12)?) * (1_000 / TICKS)),
        memory: number(21)? * PAGE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something_and_one_that_is_not_there_is_named() {
        let usage = usage(&[std::process::id()]).unwrap();
        assert!(usage.memory > 100_000 && usage.files > 2, "{usage:?}");
        let error = super::usage(&[u32::MAX]).unwrap_err();
        assert!(error.to_string().contains("4294967295"));
    }
}
