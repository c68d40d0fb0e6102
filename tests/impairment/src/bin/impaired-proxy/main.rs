//! A UDP proxy with a bad network in it: `impaired-proxy LISTEN UPSTREAM SEED`, such as `impaired-proxy 127.0.0.1:0 127.0.0.1:50000 1`.
//!
//! Each client address gets a socket of its own towards the upstream, which so sees as many addresses as there are clients, and two
//! seeded links: `up` to the upstream, `down` to the client. The first line of its output is `{"listening":"IP:PORT"}`; then each line
//! of JSON that it reads is answered by one (see `commands.rs`). It ends when its input does.

mod commands;
mod proxy;

use std::io::{BufRead, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread::spawn;

use proxy::{Input, Proxy};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, seed] = arguments.as_slice() else {
        eprintln!("usage: impaired-proxy LISTEN UPSTREAM SEED");
        return ExitCode::from(2);
    };
    match run(listen, upstream, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("impaired-proxy: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(listen: &str, upstream: &str, seed: &str) -> Result<(), String> {
    let upstream: SocketAddr = upstream.parse().map_err(|_| format!("no address: {upstream}"))?;
    let seed: u64 = seed.parse().map_err(|_| format!("no number: {seed}"))?;
    let socket = UdpSocket::bind(listen).map_err(|error| format!("{listen}: {error}"))?;
    let local = socket.local_addr().map_err(|error| error.to_string())?;
    say(&format!("{{\"listening\":\"{local}\"}}"));

    let (inputs, to_do) = channel();
    let lines = inputs.clone();
    spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(Input::Line(line)).is_err() {
                return;
            }
        }
        // The proxy may be gone already.
        let _ = lines.send(Input::End);
    });
    let proxy = Proxy::new(socket, upstream, seed, inputs).map_err(|error| error.to_string())?;
    proxy.run(&to_do, say);
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever does not read the answers does not get them.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
