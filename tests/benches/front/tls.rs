//! What of TLS is agreed on and what is not: as testssl.sh sees it, and what it does not try.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::clients::source;
use super::findings::Findings;
use super::system::System;

/// What testssl.sh looks at: protocols, ciphers, forward secrecy, server's preferences and known attacks. Not the certificate, which is one of a test.
const SCAN: [&str; 5] = ["--protocols", "--std", "--pfs", "--server-preference", "--vulnerable"];

/// How long it may take, in seconds.
const SCAN_SECONDS: &str = "150";

/// How grave its findings may be.
const HARMLESS: [&str; 3] = ["OK", "INFO", "LOW"];

/// What openssl's client tries besides, and what it then says.
const TRIES: [(&str, &[&str], &str); 6] = [
    ("TLS 1.0", &["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "protocol version"),
    (
        "TLS 1.1",
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        "protocol version",
    ),
    (
        "no protocol that is spoken here",
        &["-alpn", "spdy/3"],
        "no application protocol",
    ),
    (
        "ciphers without authentication",
        &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
        "handshake failure",
    ),
    (
        "ciphers without forward secrecy",
        &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
        "handshake failure",
    ),
    (
        "data before the handshake's end",
        &["-tls1_3", "-alpn", "http/1.1"],
        "Max Early Data: 0",
    ),
];

/// Names that no host has.
const NAMES: [&str; 4] = ["../../etc/passwd", "a b", "%00", "-.-"];

pub async fn measure() -> anyhow::Result<Findings> {
    let system = System::start(&[]).await?;
    let to = system.clients.to.to_string();
    let file = std::env::temp_dir().join(format!("signalbox-testssl-{}.json", std::process::id()));
    let (found, to, file) = tokio::task::spawn_blocking(move || {
        let mut found = Findings::default();
        scan(&to, &file, &mut found)?;
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
                format!("openssl: the name `{name}`"),
                if said.contains("alert") {
                    "refused"
                } else {
                    "the first certificate"
                },
                "either",
                is_either,
            );
        }
        anyhow::Ok((found, to, file))
    })
    .await??;
    let _ = (to, std::fs::remove_file(file));
    let mut found = found;
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
    let grave: Vec<&Value> = all
        .iter()
        .filter(|finding| !HARMLESS.contains(&field(finding, "severity").as_str()))
        .collect();
    for finding in &grave {
        found.tell(
            format!("testssl: {}", field(finding, "id")),
            format!("{}: {}", field(finding, "severity"), field(finding, "finding")),
        );
    }
    found.check(
        format!("testssl: of {} findings, graver than LOW", all.len()),
        grave.len(),
        0,
        grave.is_empty() && all.len() > 20,
    );
    Ok(())
}

/// What openssl's client says of a handshake.
fn openssl(to: &str, flags: &[&str]) -> anyhow::Result<String> {
    let mut client = Command::new("timeout");
    client.args(["10", "openssl", "s_client", "-connect", to]).args(flags);
    let output = client.stdin(Stdio::null()).output().context("openssl")?;
    Ok([output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat())
}
