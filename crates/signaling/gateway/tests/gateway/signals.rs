//! The gateway's process: what signals do to it, and what it has from a service manager and tells it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::Method;
use tokio::net::{TcpListener, UnixDatagram};
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

/// What the service manager is told next.
async fn told(manager: &UnixDatagram) -> String {
    let mut told = [0; 256];
    let length = eventually("a word to the service manager", manager.recv(&mut told))
        .await
        .unwrap();
    String::from_utf8_lossy(&told[..length]).into_owned()
}

#[tokio::test]
async fn a_service_manager_gives_it_its_socket_and_is_told_when_it_is_ready_and_when_it_ends() {
    let cluster = Cluster::start().await;
    let folder = std::env::temp_dir().join(format!("signalbox-manager-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let manager = UnixDatagram::bind(folder.join("notify")).unwrap();
    let clients = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = clients.local_addr().unwrap();
    // Who comes before the gateway runs waits.
    let early = tokio::spawn(async move {
        let answer = reqwest::get(format!("http://{address}/livez")).await;
        answer.unwrap().status().as_u16()
    });
    // As sd_listen_fds(3) has it: the first is number 3, and is for the process of this id.
    let script = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=clients exec "$@""#;
    let child = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_signalbox-gateway")])
        // It is not to listen there.
        .args([
            "--listen",
            "192.0.2.1:1",
            "--plain-http",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .args(["--orchestrator", cluster.orchestrator.url()])
        .env("SIGNALBOX_CLUSTER_SECRET", SECRET)
        .env("SIGNALBOX_KEYS", format!("{KEY}:{KEY_SECRET}"))
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .stdin(OwnedFd::from(clients))
        .stderr(Stdio::null())
        .spawn();
    let mut process = Process(child.unwrap());
    assert_eq!(told(&manager).await.trim(), "READY=1");
    assert_eq!(eventually("an answer", early).await.unwrap(), 200);
    process.terminate();
    assert_eq!(told(&manager).await.trim(), "STOPPING=1");
    assert_eq!(eventually("its end", process.ended()).await.code(), Some(0));
    std::fs::remove_dir_all(folder).unwrap();
}
