//! The gateway's process: what signals do to it.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::Method;
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;

use crate::cluster::{Cluster, KEY, KEY_SECRET, SECRET, eventually, next_json, token};

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A child that does not outlive its test.
struct Process(Child);

impl Process {
    fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_second_sigterm_ends_a_gateway_whose_clients_have_not_gone() {
    let cluster = Cluster::start().await;
    let (address, admin) = (free_address().await, free_address().await);
    let child = Command::new(env!("CARGO_BIN_EXE_signalbox-gateway"))
        .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
        .args(["--orchestrator", cluster.orchestrator.url(), "--drain-seconds", "600"])
        .env("SIGNALBOX_CLUSTER_SECRET", SECRET)
        .env("SIGNALBOX_KEYS", format!("{KEY}:{KEY_SECRET}"))
        .stderr(Stdio::null())
        .spawn();
    let mut process = Process(child.unwrap());
    let client = reqwest::Client::new();
    let is_ready = async || {
        let answer = client
            .request(Method::GET, format!("http://{admin}/readyz"))
            .send()
            .await;
        answer.ok().map(|response| response.status().as_u16())
    };
    let until_ready = async |status| {
        while is_ready().await != Some(status) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    eventually("the gateway is up", until_ready(200)).await;
    let token = token("daily", "ann");
    let url = format!("ws://{address}/v1/rooms/daily/participants/PA_1/events?access_token={token}");
    let (mut socket, _) = connect_async(url).await.unwrap();
    assert_eq!(next_json(&mut socket).await["type"], "snapshot");
    process.terminate();
    eventually("the gateway is not ready", until_ready(503)).await;
    assert!(process.0.try_wait().unwrap().is_none(), "a client is still there");
    process.terminate();
    let ended = tokio::time::timeout(Duration::from_secs(2), process.ended()).await;
    assert_eq!(ended.expect("it ends at once").code(), Some(0));
}
