//! Clients, their sockets and their links. One thread does all of it; one more for each socket only waits for datagrams.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::spawn;
use std::time::{Duration, Instant};

use impairment::{Counts, Impairment, Link};

use crate::commands::{ClientStatistics, Command, Set, Statistics};

/// Clients at most; datagrams of more are dropped. Each has a socket and a thread. A browser is another one with each ICE restart.
const MAX_CLIENTS: usize = 1_024;

/// The largest datagram.
const MAX_DATAGRAM_BYTES: usize = 65_536;

/// How long it waits when nothing is under way.
const IDLE: Duration = Duration::from_secs(3_600);

/// A network that does nothing.
const CLEAN: Impairment = Impairment {
    delay: Duration::ZERO,
    ..Impairment::NONE
};

/// What the proxy's thread is told.
pub enum Input {
    /// A client has sent.
    FromClient(SocketAddr, Vec<u8>),
    /// The upstream has answered the client of this index.
    FromUpstream(usize, Vec<u8>),
    /// A line of input.
    Line(String),
    /// There is no more input.
    End,
}

/// Both directions of a client's network.
#[derive(Clone, Copy)]
struct Ways {
    up: Impairment,
    down: Impairment,
}

struct Client {
    address: SocketAddr,
    /// As the upstream sees it.
    outside: SocketAddr,
    socket: UdpSocket,
    up: Link,
    down: Link,
}

/// The proxy.
pub struct Proxy {
    socket: UdpSocket,
    upstream: SocketAddr,
    seed: u64,
    inputs: Sender<Input>,
    begun: Instant,
    usual: Ways,
    by_port: BTreeMap<u16, Ways>,
    clients: Vec<Client>,
}

impl Proxy {
    /// A proxy that listens on this socket. What the threads read goes to `inputs`.
    pub fn new(socket: UdpSocket, upstream: SocketAddr, seed: u64, inputs: Sender<Input>) -> std::io::Result<Self> {
        let (reading, told) = (socket.try_clone()?, inputs.clone());
        spawn(move || {
            let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
            loop {
                // An error is of a datagram that was sent before, which nobody took.
                let Ok((length, source)) = reading.recv_from(&mut buffer) else {
                    continue;
                };
                if told.send(Input::FromClient(source, buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            socket,
            upstream,
            seed,
            inputs,
            begun: Instant::now(),
            usual: Ways { up: CLEAN, down: CLEAN },
            by_port: BTreeMap::new(),
            clients: Vec::new(),
        })
    }

    /// Runs until [`Input::End`]; `say` gets the answers.
    pub fn run(mut self, to_do: &Receiver<Input>, say: impl Fn(&str)) {
        loop {
            let now = Instant::now();
            let due = self.deliver(now);
            match to_do.recv_timeout(due.map_or(IDLE, |due| due.saturating_duration_since(now))) {
                Ok(Input::FromClient(source, datagram)) => self.handle_client(source, datagram),
                Ok(Input::FromUpstream(index, datagram)) => self.clients[index].down.send(Instant::now(), datagram),
                Ok(Input::Line(line)) => say(&self.answer(&line)),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sends on what has arrived; when the next may.
    fn deliver(&mut self, now: Instant) -> Option<Instant> {
        for client in &mut self.clients {
            // As on any network, what cannot be sent is lost.
            while let Some(datagram) = client.up.receive(now) {
                let _ = client.socket.send(&datagram);
            }
            while let Some(datagram) = client.down.receive(now) {
                let _ = self.socket.send_to(&datagram, client.address);
            }
        }
        let links = self.clients.iter().flat_map(|client| [&client.up, &client.down]);
        links.filter_map(Link::next_arrival).min()
    }

    fn handle_client(&mut self, source: SocketAddr, datagram: Vec<u8>) {
        let known = self.clients.iter().position(|client| client.address == source);
        let Some(index) = known.or_else(|| self.admit(source)) else {
            return;
        };
        self.clients[index].up.send(Instant::now(), datagram);
    }

    fn admit(&mut self, address: SocketAddr) -> Option<usize> {
        let index = self.clients.len();
        if index >= MAX_CLIENTS {
            return None;
        }
        let any: IpAddr = match self.upstream {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0; 16].into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(self.upstream).ok()?;
        let outside = socket.local_addr().ok()?;
        let (reading, told) = (socket.try_clone().ok()?, self.inputs.clone());
        spawn(move || {
            let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
            loop {
                // Refused: nobody is there upstream, at present.
                let Ok(length) = reading.recv(&mut buffer) else {
                    continue;
                };
                if told
                    .send(Input::FromUpstream(index, buffer[..length].to_vec()))
                    .is_err()
                {
                    return;
                }
            }
        });
        let ways = self.by_port.get(&address.port()).unwrap_or(&self.usual);
        let seed = self.seed.wrapping_mul(1_000).wrapping_add(2 * index as u64);
        self.clients.push(Client {
            address,
            outside,
            socket,
            up: Link::new(ways.up, seed),
            down: Link::new(ways.down, seed + 1),
        });
        Some(index)
    }

    fn answer(&mut self, line: &str) -> String {
        let answer = match serde_json::from_str(line) {
            Ok(Command::Set(set)) => self.set(*set).map(|count| format!("{{\"set\":{count}}}")),
            Ok(Command::Stats) => serde_json::to_string(&self.statistics()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        answer.unwrap_or_else(|why| serde_json::json!({ "error": why }).to_string())
    }

    /// Returns how many clients it changes.
    fn set(&mut self, set: Set) -> Result<usize, String> {
        let [up, down] = [set.up, set.down].map(|way| way.map(|settings| settings.impairment()).transpose());
        let (up, down) = (up?, down?);
        let change = |ways: &mut Ways| {
            ways.up = up.unwrap_or(ways.up);
            ways.down = down.unwrap_or(ways.down);
        };
        let ports: Option<Vec<u16>> = set
            .ports
            .map(|ports| ports.into_iter().map(|port| self.inside(port)).collect());
        match &ports {
            Some(ports) => {
                for port in ports {
                    change(self.by_port.entry(*port).or_insert(self.usual));
                }
            }
            None => change(&mut self.usual),
        }
        let (now, mut changed) = (Instant::now(), 0);
        for client in &mut self.clients {
            let port = client.address.port();
            let is_meant = match &ports {
                Some(ports) => ports.contains(&port),
                None => !self.by_port.contains_key(&port),
            };
            if is_meant {
                let ways = self.by_port.get(&port).unwrap_or(&self.usual);
                client.up.change(now, ways.up);
                client.down.change(now, ways.down);
                changed += 1;
            }
        }
        Ok(changed)
    }

    /// The client's own port, given it or the one that the upstream sees.
    fn inside(&self, port: u16) -> u16 {
        let seen = self.clients.iter().find(|client| client.outside.port() == port);
        seen.map_or(port, |client| client.address.port())
    }

    fn statistics(&self) -> Statistics {
        let clients = self.clients.iter().map(|client| ClientStatistics {
            client: client.address.to_string(),
            outside: client.outside.to_string(),
            up: Counts::into(client.up.counts()),
            down: Counts::into(client.down.counts()),
        });
        Statistics {
            at_ms: self.begun.elapsed().as_millis() as u64,
            clients: clients.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::JoinHandle;

    use super::*;

    /// A proxy in a thread, and what a test needs of it.
    struct Running {
        address: SocketAddr,
        upstream: UdpSocket,
        inputs: Sender<Input>,
        answers: Receiver<String>,
        thread: JoinHandle<()>,
    }

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    fn start() -> Running {
        let (listening, upstream) = (socket(), socket());
        listening.set_read_timeout(None).unwrap();
        let address = listening.local_addr().unwrap();
        let ((inputs, to_do), (say, answers)) = (channel(), channel());
        let proxy = Proxy::new(listening, upstream.local_addr().unwrap(), 1, inputs.clone()).unwrap();
        let thread = spawn(move || proxy.run(&to_do, |line| say.send(line.to_owned()).unwrap()));
        Running {
            address,
            upstream,
            inputs,
            answers,
            thread,
        }
    }

    impl Running {
        fn ask(&self, line: &str) -> serde_json::Value {
            self.inputs.send(Input::Line(line.to_owned())).unwrap();
            serde_json::from_str(&self.answers.recv().unwrap()).unwrap()
        }

        fn end(self) {
            self.inputs.send(Input::End).unwrap();
            self.thread.join().unwrap();
        }
    }

    fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2_000];
        let (length, source) = socket.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), source)
    }

    #[test]
    fn each_client_has_an_address_of_its_own_upstream_and_gets_its_own_answers() {
        let (proxy, one, two) = (start(), socket(), socket());
        one.send_to(b"one", proxy.address).unwrap();
        let (datagram, first) = receive(&proxy.upstream);
        assert_eq!(datagram, b"one");
        two.send_to(b"two", proxy.address).unwrap();
        let (datagram, second) = receive(&proxy.upstream);
        assert_eq!(datagram, b"two");
        assert_ne!(first, second);
        proxy.upstream.send_to(b"to two", second).unwrap();
        proxy.upstream.send_to(b"to one", first).unwrap();
        assert_eq!(receive(&one), (b"to one".to_vec(), proxy.address));
        assert_eq!(receive(&two), (b"to two".to_vec(), proxy.address));
        proxy.end();
    }

    #[test]
    fn one_client_alone_is_impaired_and_the_figures_say_so() {
        let (proxy, one, two) = (start(), socket(), socket());
        let port = one.local_addr().unwrap().port();
        let set = format!(r#"{{"set":{{"ports":[{port}],"up":{{"loss":1}}}}}}"#);
        assert_eq!(proxy.ask(&set)["set"], 0, "it has not come yet");
        for _ in 0..10 {
            one.send_to(b"lost", proxy.address).unwrap();
        }
        two.send_to(b"arrives", proxy.address).unwrap();
        assert_eq!(receive(&proxy.upstream).0, b"arrives");
        let stats = proxy.ask(r#""stats""#);
        let [first, second] = [0, 1].map(|index| &stats["clients"][index]["up"]);
        assert_eq!([&first["offered"], &first["lost"], &first["delivered"]], [10, 10, 0]);
        assert_eq!([&second["offered"], &second["lost"], &second["delivered"]], [1, 0, 1]);

        // It can be named by the port that the upstream sees it at as well, as it learns it from STUN.
        let outside = stats["clients"][0]["outside"].as_str().unwrap();
        let outside = outside.rsplit_once(':').unwrap().1;
        let unset = format!(r#"{{"set":{{"ports":[{outside}],"up":{{}}}}}}"#);
        assert_eq!(proxy.ask(&unset)["set"], 1);
        one.send_to(b"arrives too", proxy.address).unwrap();
        assert_eq!(receive(&proxy.upstream).0, b"arrives too");
        assert!(proxy.ask(r#"{"sett":{}}"#)["error"].is_string());
        proxy.end();
    }

    #[test]
    fn what_is_delayed_arrives_that_much_later() {
        let (proxy, one) = (start(), socket());
        assert_eq!(
            proxy.ask(r#"{"set":{"up":{"delay_ms":80},"down":{"delay_ms":50}}}"#)["set"],
            0
        );
        let begun = Instant::now();
        one.send_to(b"there", proxy.address).unwrap();
        let (_, source) = receive(&proxy.upstream);
        proxy.upstream.send_to(b"back", source).unwrap();
        receive(&one);
        assert!(begun.elapsed() >= Duration::from_millis(130), "{:?}", begun.elapsed());
        proxy.end();
    }
}
