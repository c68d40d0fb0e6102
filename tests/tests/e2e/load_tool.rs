//! `signalbox load` against a cluster: what it says of the participants that it plays.

use std::process::Stdio;

use e2e::cluster::{CLUSTER_SECRET, Cluster, KEY, KEY_SECRET};
use e2e::processes::command;
use serde_json::Value;

/// Runs the tool: exit code, figures and errors.
async fn load(gateway: &str, secret: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
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
    let run = move || {
        let mut command = command("signalbox", &arguments, CLUSTER_SECRET).unwrap();
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let figures = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), figures, String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_arrives_at_everyone_and_is_measured() {
    let cluster = Cluster::start(2).await;
    let pid = std::process::id().to_string();
    let plan = "--rooms 2 --publishers 2 --video-publishers 1 --subscribers 3 --size 360p --ramp 50 --duration 3s --max-loss 1";
    let arguments: Vec<&str> = plan.split(' ').chain(["--server-pid", &pid]).collect();
    let (code, figures, errors) = load(cluster.gateway(), KEY_SECRET, &arguments).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{figures:#}");
    let number = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    assert_eq!((number("participants"), number("stayed")), (10.0, 10.0), "{figures:#}");
    // Two of sound and one of picture, for each of three in two rooms.
    assert_eq!(number("streams"), 18.0, "{figures:#}");
    let copies = number("packets_received") / number("packets_sent");
    assert!((2.7..=3.2).contains(&copies), "{copies}: {figures:#}");
    for times in [
        "join",
        "connected",
        "first_packet",
        "first_key_frame",
        "delay",
        "jitter",
    ] {
        let [median, last] = ["p50", "p99"].map(|part| figures[times][part].as_f64().unwrap_or(f64::NAN));
        assert!(median <= last, "{times}: {figures:#}");
    }
    assert!(figures["server"]["cpu_seconds"].as_f64().unwrap() > 0.0, "{figures:#}");
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
        (&["--subscribers", "100000"], "more than the 20000"),
        (&["--subscribers", "1", "--ramp", "0"], "--ramp must be between"),
    ];
    for (arguments, expected) in cases {
        let (code, _, errors) = load("http://127.0.0.1:1", KEY_SECRET, arguments).await;
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
}
