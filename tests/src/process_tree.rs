//! Processes with the children that they have started.

use std::collections::BTreeSet;
use std::fs;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The id to send signals to.
///
/// # Errors
/// When it is none that the kernel gives.
pub fn pid(child: &Child) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// Kills a process and its children (SIGKILL); answers the children, which init buries. For those that no process group holds together:
/// PostgreSQL gives each backend a session of its own.
///
/// # Errors
/// When it has ended before.
pub fn kill_tree(parent: &mut Child) -> anyhow::Result<BTreeSet<Pid>> {
    // Stopped, it starts no further child meanwhile.
    let stopped = kill(pid(parent)?, Signal::SIGSTOP);
    let children = if stopped.is_ok() {
        children(pid(parent)?)?
    } else {
        BTreeSet::new()
    };
    for child in &children {
        // It may have ended by itself.
        let _ = kill(*child, Signal::SIGKILL);
    }
    parent.kill()?;
    parent.wait()?;
    Ok(children)
}

/// The fields of `/proc/<pid>/stat` behind the name: state and parent.
fn state(pid: Pid) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Those that it has started, and that have not been waited for.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn children(parent: Pid) -> anyhow::Result<BTreeSet<Pid>> {
    let entries = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(entries
        .map(Pid::from_raw)
        .filter(|pid| state(*pid).is_some_and(|(_, of)| of == parent.as_raw()))
        .collect())
}

/// Whether it is neither gone nor waiting to be buried.
pub fn is_running(pid: Pid) -> bool {
    state(pid).is_some_and(|(state, _)| state != 'Z')
}
