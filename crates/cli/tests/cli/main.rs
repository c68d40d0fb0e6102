//! The command as a developer and an operator run it.

mod operators;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take. Only a failure reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

struct Signalbox(Child);

impl Drop for Signalbox {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("SIGNALBOX_")) {
        command.env_remove(variable);
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts it on free ports and reads what it prints until it is ready.
fn start() -> (Signalbox, Vec<String>) {
    let mut child = command(&["--listen", "127.0.0.1:0", "--media-bind", "127.0.0.1:0"])
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let lines = (0..3).map(|_| lines.recv_timeout(PATIENCE).expect("a line")).collect();
    (Signalbox(child), lines)
}

fn end(mut running: Signalbox, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(running.0.id()).unwrap()), signal).unwrap();
    let mut stderr = running.0.stderr.take().unwrap();
    let status = running.0.wait().unwrap();
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(said, "", "a quiet run says nothing");
}

#[test]
fn dev_prints_a_page_a_token_and_a_line_that_joins() {
    let (running, lines) = start();
    let page = lines[0].strip_prefix("Page:").unwrap().trim();
    assert!(page.starts_with("http://127.0.0.1:"), "{page}");
    let token = lines[1].strip_prefix("Token:").unwrap().trim();
    assert_eq!(token.split('.').count(), 3);
    assert!(lines[2].starts_with("curl -X POST http://127.0.0.1:"), "{}", lines[2]);
    assert!(lines[2].contains(token));

    // Pasted into a shell, as its reader will.
    let output = Command::new("sh")
        .args(["-c", &format!("{} -sS -i", lines[2])])
        .output()
        .unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "{answer} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        answer.contains("\"media\"") && answer.contains("\"ticket\""),
        "{answer}"
    );
    let output = Command::new("curl").args(["-sS", page]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .to_lowercase()
            .contains("<!doctype html>")
    );
    end(running, Signal::SIGINT);
}

#[test]
fn dev_ends_when_it_is_asked_to() {
    let (running, _) = start();
    end(running, Signal::SIGTERM);
}

#[test]
fn a_busy_port_is_one_sentence() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let output = command(&["dev", "--listen", &address, "--media-bind", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

#[test]
fn wrong_arguments_end_with_code_2() {
    for args in [
        &["--listen", "nowhere"][..],
        &["token"],
        &["nodes", "--cluster-secret", "short"],
        &["rooms", "--limit", "0"],
        &["rooms", "why"],
        &[
            "nodes",
            "--orchestrator",
            "nonsense",
            "--cluster-secret",
            "0123456789abcdef",
        ],
        &["sing"],
    ] {
        let output = command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_is_there_for_everything() {
    for args in [
        &["--help"][..],
        &["dev", "--help"],
        &["token", "--help"],
        &["nodes", "--help"],
        &["rooms", "--help"],
        &["rooms", "why", "--help"],
    ] {
        let output = command(args).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Usage: signalbox") && text.contains("Example"), "{text}");
    }
}
