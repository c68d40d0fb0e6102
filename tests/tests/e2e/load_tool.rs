//! `signalbox load` against a cluster: what it says of the participants that it plays.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use e2e::cluster::{CLUSTER_SECRET, Cluster, KEY, KEY_SECRET};
use e2e::processes::command;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Runs the tool: exit code, figures and errors.
async fn load(gateway: &str, secret: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    load_trusting(None, gateway, secret, arguments).await
}

/// The same, if these are all certificates that it trusts.
async fn load_trusting(
    certificates: Option<&Path>,
    gateway: &str,
    secret: &str,
    arguments: &[&str],
) -> (Option<i32>, Value, String) {
    let server = [
        "load",
        "--url",
        gateway,
        "--api-key",
        KEY,
        "--api-secret",
        secret,
        "--json",
    ];
    let arguments: Vec<String> = server.iter().chain(arguments).map(|word| (*word).to_owned()).collect();
    let certificates = certificates.map(Path::to_owned);
    let run = move || {
        let mut command = command("signalbox", &arguments, CLUSTER_SECRET).unwrap();
        if let Some(file) = certificates {
            command.env("SSL_CERT_FILE", file).env("SSL_CERT_DIR", "/nowhere");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let figures = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), figures, String::from_utf8(output.stderr).unwrap())
}

/// What a figure is; one of several with a path such as `join.p50`.
fn number(figures: &Value, path: &str) -> f64 {
    let found = path.split('.').fold(figures, |within, name| &within[name]);
    found.as_f64().unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_arrives_at_everyone_and_is_measured_however_it_is_received() {
    let cluster = Cluster::start(2).await;
    let pid = std::process::id().to_string();
    let plan = "--rooms 2 --publishers 2 --video-publishers 1 --subscribers 3 --size 360p --ramp 50 --duration 3s --max-loss 1";
    for receive in ["light", "full"] {
        let more = ["--server-pid", &pid, "--receive", receive];
        let arguments: Vec<&str> = plan.split(' ').chain(more).collect();
        let (code, figures, errors) = load(cluster.gateway(), KEY_SECRET, &arguments).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{receive}: {figures:#}");
        let number = |path: &str| number(&figures, path);
        assert_eq!(
            (number("participants"), number("stayed")),
            (10.0, 10.0),
            "{receive}: {figures:#}"
        );
        // Two of sound and one of picture, for each of three in two rooms.
        assert_eq!(number("streams"), 18.0, "{receive}: {figures:#}");
        let copies = number("packets_received") / number("packets_sent");
        assert!((2.7..=3.2).contains(&copies), "{receive}: {copies}: {figures:#}");
        for times in [
            "join",
            "connected",
            "first_packet",
            "first_key_frame",
            "delay",
            "jitter",
        ] {
            let [median, last] = ["p50", "p99"].map(|part| number(&format!("{times}.{part}")));
            assert!(median <= last, "{receive}, {times}: {figures:#}");
        }
        assert!(number("server.cpu_seconds") > 0.0, "{receive}: {figures:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_replaced_and_what_both_got_counts() {
    let cluster = Cluster::start(1).await;
    let pid = std::process::id().to_string();
    let plan = "--publishers 1 --subscribers 4 --ramp 50 --churn 5 --duration 3s --max-loss 1";
    let arguments: Vec<&str> = plan.split(' ').chain(["--server-pid", &pid]).collect();
    let (code, figures, errors) = load(cluster.gateway(), KEY_SECRET, &arguments).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{figures:#}");
    let number = |path: &str| number(&figures, path);
    // 15 or 16 newcomers, as the first is due at once.
    assert!((5.0 + 14.0..=5.0 + 16.0).contains(&number("stayed")), "{figures:#}");
    assert_eq!(number("participants"), number("stayed"), "{figures:#}");
    // There are four who receive at a time, but for the moments in between.
    let copies = number("packets_received") / number("packets_sent");
    assert!((2.5..=4.1).contains(&copies), "{copies}: {figures:#}");
    let samples = figures["server"]["samples"].as_array().unwrap();
    assert!(
        samples.len() > 10 && samples.iter().all(|sample| sample["files"].as_u64() > Some(2)),
        "{samples:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn encoders_and_players_without_signaling_are_measured_the_same() {
    let cluster = Cluster::start(1).await;
    let plan = "--protocol whip --publishers 1 --video-publishers 2 --subscribers 3 --size 360p --ramp 50 --duration 2s --max-loss 1";
    for receive in ["light", "full"] {
        let arguments: Vec<&str> = plan.split(' ').chain(["--receive", receive]).collect();
        let (code, figures, errors) = load(cluster.gateway(), KEY_SECRET, &arguments).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{receive}: {figures:#}");
        let number = |path: &str| number(&figures, path);
        assert_eq!(
            (number("stayed"), number("streams")),
            (5.0, 9.0),
            "{receive}: {figures:#}"
        );
        assert!(number("first_key_frame.p99") > 0.0, "{receive}: {figures:#}");
    }
}

/// A certificate for `localhost` that it has signed itself, in a file, and its key.
fn certificate(name: &str) -> (PathBuf, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = std::env::temp_dir().join(format!("signalbox-{name}-{:08x}.pem", rand::random::<u32>()));
    std::fs::write(&file, signed.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    (file, signed.cert.der().clone(), key.into())
}

/// TLS in front of a gateway; the port.
async fn encrypted(gateway: &str, certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> u16 {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let gateway = gateway.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, gateway) = (acceptor.clone(), gateway.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate goes away.
                if let Ok(mut client) = acceptor.accept(client).await {
                    let mut server = TcpStream::connect(gateway).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tls_is_loaded_if_its_certificate_is_trusted() {
    let cluster = Cluster::start(1).await;
    let (file, der, key) = certificate("own");
    let (other, ..) = certificate("other");
    let port = encrypted(cluster.gateway(), der, key).await;
    let plan = "--publishers 1 --subscribers 2 --ramp 50 --duration 1s --max-loss 1";
    let arguments: Vec<&str> = plan.split(' ').collect();
    for scheme in ["https", "wss"] {
        let url = format!("{scheme}://localhost:{port}");
        let (code, figures, errors) = load_trusting(Some(&file), &url, KEY_SECRET, &arguments).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{figures:#}");
        assert_eq!(number(&figures, "streams"), 2.0, "{figures:#}");
    }
    let url = format!("https://localhost:{port}");
    let (code, figures, _) = load_trusting(Some(&other), &url, KEY_SECRET, &arguments).await;
    let why = figures["failures"][0][0].as_str().unwrap_or_default();
    assert!(code == Some(1) && why.contains("certificate"), "{figures:#}");
    let (code, _, errors) = load_trusting(Some("/nowhere".as_ref()), &url, KEY_SECRET, &arguments).await;
    assert!(code == Some(1) && errors.contains("SSL_CERT_FILE"), "{errors}");
    for file in [file, other] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_network_loses_is_asked_for_and_comes_again() {
    // The node's port is the proxy's upstream, and the proxy's the node's port for clients: one has to be known before.
    let media = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_network, port) = losing_5_percent(media);
    let (bind, port) = (media.to_string(), port.to_string());
    let flags = ["--media-bind", &bind, "--shards", "1", "--media-port", &port];
    let cluster = Cluster::try_start(1, &flags).await.unwrap();
    let plan = "--video-publishers 1 --subscribers 3 --size 360p --ramp 50 --duration 4s --max-loss 100";
    for receive in ["light", "full"] {
        let arguments: Vec<&str> = plan.split(' ').chain(["--receive", receive]).collect();
        let (code, figures, errors) = load(cluster.gateway(), KEY_SECRET, &arguments).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{receive}: {figures:#}");
        assert_eq!(number(&figures, "streams"), 3.0, "{receive}: {figures:#}");
        // One in ten is lost on its way to the node or from it; without repair it would stay so.
        let loss = number(&figures, "loss");
        assert!(loss < 0.02, "{receive}: {figures:#}");
    }
}

/// A network in front of this address that loses 5% each way, until it is dropped, and the port that it has there.
fn losing_5_percent(upstream: SocketAddr) -> (Proxy, u16) {
    let flags = ["127.0.0.1:0".to_owned(), upstream.to_string(), "7".to_owned()];
    let mut command = command("impaired-proxy", &flags, CLUSTER_SECRET).unwrap();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answer = || -> Value { serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap() };
    let listening: SocketAddr = answer()["listening"].as_str().unwrap().parse().unwrap();
    let losing = json!({"set": {"up": {"loss": 0.05}, "down": {"loss": 0.05}}});
    writeln!(child.stdin.as_mut().unwrap(), "{losing}").unwrap();
    assert!(answer()["set"].is_number());
    (Proxy(child), listening.port())
}

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_join_is_counted_with_the_reason() {
    let cluster = Cluster::start(1).await;
    let plan = ["--subscribers", "3", "--ramp", "100", "--duration", "1s"];
    let (code, figures, errors) = load(cluster.gateway(), "not-the-secret-of-it", &plan).await;
    assert_eq!((code, figures["stayed"].as_u64()), (Some(1), Some(0)), "{figures:#}");
    assert!(errors.contains("3 of 3 participants could not join"), "{errors}");
    let failure = &figures["failures"][0];
    assert!(failure[0].as_str().unwrap().contains("401"), "{failure}");
    assert_eq!(failure[1].as_u64(), Some(3), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_before_anybody_joins() {
    let cases = [
        (&["--subscribers", "0"][..], "nobody would join"),
        (
            &["--publishers", "1", "--churn", "3"][..],
            "--churn must be between 0 and 1000 a second, and needs --subscribers",
        ),
        (&["--subscribers", "100000"], "more than the 20000"),
        (&["--subscribers", "1", "--ramp", "0"], "--ramp must be between"),
        (
            &["--subscribers", "1", "--protocol", "whip", "--layout", "3x3"],
            "--layout is said with",
        ),
    ];
    for (arguments, expected) in cases {
        let (code, _, errors) = load("http://127.0.0.1:1", KEY_SECRET, arguments).await;
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
}
