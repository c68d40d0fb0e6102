//! What of TLS is agreed on and what is not: as testssl.sh sees it, and what it does not try.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::clients::source;
use super::findings::Findings;
use super::system::System;

/// What testssl.sh looks at: protocols, ciphers, forward secrecy, server's preferences and known attacks. Not the certificate, which is one of a test.
const SCAN: [&str; 5] = ["--protocols", "--std", "--pfs", "--server-preference", "--vulnerable"];

/// What it finds that is as it should be, and why.
const ACCEPTED: [(&str, &str); 2] = [
    ("engine_problem", "it is about the openssl of this machine"),
    (
        "cipher_order",
        "all that are offered are strong, and a client without AES in hardware knows best what it likes",
    ),
];

/// How long it may take, in seconds.
const SCAN_SECONDS: &str = "150";

/// How grave its findings may be.
const HARMLESS: [&str; 3] = ["OK", "INFO", "LOW"];

/// What openssl's client tries besides, and what it then says.
const TRIES: [(&str, &[&str], &str); 6] = [
    ("TLS 1.0", &["-tls1", "-cipher", "ALL:@SECLEVEL=0"], REFUSED),
    ("TLS 1.1", &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], REFUSED),
    (
        "ciphers without authentication",
        &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
        REFUSED,
    ),
    (
        "ciphers without forward secrecy",
        &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
        REFUSED,
    ),
    (
        "a protocol that is not spoken here",
        &["-alpn", "spdy/3"],
        "no application protocol",
    ),
    ("data before the end of a handshake", &["-tls1_3"], "Max Early Data: 0"),
];

/// The server has answered with an alert.
const REFUSED: &str = "SSL alert number";

/// How long a client of openssl stays after its handshake: tickets come behind it.
const STAY: Duration = Duration::from_millis(500);

/// Names that no host has.
const NAMES: [&str; 4] = ["../../etc/passwd", "a b", "%00", "-.-"];

pub async fn measure() -> anyhow::Result<Findings> {
    let system = System::start(&[]).await?;
    let to = system.clients.to.to_string();
    let file = std::env::temp_dir().join(format!("signalbox-testssl-{}.json", std::process::id()));
    let mut found = tokio::task::spawn_blocking(move || {
        let mut found = Findings::default();
        let scanned = scan(&to, &file, &mut found);
        let _ = std::fs::remove_file(file);
        scanned?;
        for (what, flags, says) in TRIES {
            let said = openssl(&to, flags)?;
            found.check(
                format!("openssl: {what}"),
                if said.contains(says) { "yes" } else { "no" },
                format!("\"{says}\""),
                said.contains(says),
            );
        }
        for name in NAMES {
            // Either is right: to refuse it, or to show the first certificate.
            let said = openssl(&to, &["-servername", name])?;
            let is_either = said.contains("alert") || said.contains("BEGIN CERTIFICATE");
            found.check(
                format!("openssl with the name `{name}`"),
                if said.contains("alert") {
                    "refused"
                } else {
                    "the first certificate"
                },
                "either",
                is_either,
            );
        }
        anyhow::Ok(found)
    })
    .await??;
    let livez = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (answer, _) = system.clients.ask_once(source(0), livez).await?;
    found.check("the next client's answer", answer.status, 200, answer.status == 200);
    Ok(found)
}

/// Has testssl.sh look, and says what it found that is not harmless.
fn scan(to: &str, file: &Path, found: &mut Findings) -> anyhow::Result<()> {
    let mut testssl = Command::new("timeout");
    testssl.args([
        SCAN_SECONDS,
        "testssl",
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "off",
        "--nodns",
        "none",
    ]);
    testssl.args(SCAN).arg("--jsonfile").arg(file).arg(to);
    let ended = testssl
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("testssl")?;
    // Its exit code counts findings, among them that openssl lacks what is long forbidden.
    ensure!(ended.code() != Some(124), "testssl takes longer than {SCAN_SECONDS} s");
    let text = std::fs::read_to_string(file).context("testssl wrote nothing")?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    let field = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let mut grave = 0;
    for finding in &all {
        let (id, severity) = (field(finding, "id"), field(finding, "severity"));
        if HARMLESS.contains(&severity.as_str()) {
            continue;
        }
        let accepted = ACCEPTED.iter().find(|(accepted, _)| *accepted == id);
        grave += usize::from(accepted.is_none());
        let why = accepted.map_or(String::new(), |(_, why)| format!("; {why}"));
        found.tell(
            format!("testssl: {id}"),
            format!("{severity}, {}{why}", field(finding, "finding")),
        );
    }
    found.check(
        format!("testssl: of {} findings, graver than LOW and not accepted", all.len()),
        grave,
        0,
        grave == 0 && all.len() > 20,
    );
    Ok(())
}

/// What openssl's client says of a handshake, and of what comes in the first moment after it.
fn openssl(to: &str, flags: &[&str]) -> anyhow::Result<String> {
    let mut client = Command::new("timeout");
    client.args(["10", "openssl", "s_client", "-connect", to]).args(flags);
    client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut client = client.spawn().context("openssl")?;
    // It stays for as long as it may yet be told something.
    let stdin = client.stdin.take();
    std::thread::sleep(STAY);
    drop(stdin);
    let output = client.wait_with_output()?;
    let both = [output.stdout, output.stderr];
    Ok(both.map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}
