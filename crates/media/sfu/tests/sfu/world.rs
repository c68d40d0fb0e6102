//! A shard, its clients, and the links between them, on virtual time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use signalbox_protocol::control::{Command, Event, Join, Joined, OneOffer, Refusal, Reply, Transports};
use signalbox_protocol::room::{Grants, Kind, PublishTrack, Slot, Source};
use signalbox_protocol::srtp::SrtpRequest;
use signalbox_protocol::{Generation, NodeId, ParticipantId, RoomName};
use signalbox_sfu::{Limits, Output, Shard, ShardConfig, stun};
use str0m::media::Mid;

use crate::sfu::client::{Client, Received};
use crate::sfu::link::{Counts, Impairment, Link};
use crate::sfu::srtp_client::SrtpClient;

pub struct World {
    pub shard: Shard,
    pub now: Instant,
    pub members: Vec<Member>,
    /// Those without a peer connection.
    pub srtp: Vec<SrtpMember>,
    pub events: Vec<(Vec<ParticipantId>, Event)>,
    pub empty_rooms: Vec<RoomName>,
    /// The node's offers that were answered.
    pub offers_answered: Vec<(ParticipantId, u32)>,
    /// Datagrams that the shard sent to an address that no client has.
    pub astray: usize,
    /// Another node, with its address; [`World::shard`] is at [`World::here`].
    pub other: Option<(SocketAddr, Box<Shard>)>,
    pub here: SocketAddr,
    /// The nodes have a network of their own, and do not reach each other over the clients'.
    have_network: bool,
    /// The nodes do not reach each other.
    pub is_parted: bool,
    /// So many of the next datagrams to this node from the other one are lost, of those that are at least so long.
    pub lost_between: (SocketAddr, usize, usize),
    /// Where those went that were not, and what they were.
    pub between: Vec<(SocketAddr, Vec<u8>)>,
    /// What it takes to forward the media that arrives; none: it is not counted.
    pub forwarding: Option<Forwarding>,
    /// To whom how many datagrams went in a row; none: it is not counted.
    pub runs: Option<Vec<(SocketAddr, usize)>>,
    impairment: Impairment,
    seed: u64,
}

/// What it takes to forward media.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forwarding {
    /// Packets that arrived.
    pub arrived: u64,
    /// Datagrams that were sent for them.
    pub sent: u64,
    /// Allocations of memory from the one to the other.
    pub allocations: u64,
}

pub struct Member {
    pub client: Client,
    pub joined: Joined,
    pub identity: String,
    up: Link,
    down: Link,
    /// A client that is gone says nothing and hears nothing.
    pub is_gone: bool,
    /// Of what it sends, only its checks arrive.
    pub only_checks: bool,
    /// Of its checks, only those arrive that nominate no path.
    pub loses_nominations: bool,
}

pub struct SrtpMember {
    pub client: SrtpClient,
    pub joined: Joined,
    pub identity: String,
    up: Link,
    down: Link,
    pub is_gone: bool,
}

impl SrtpMember {
    pub fn id(&self) -> ParticipantId {
        self.joined.snapshot.participant.id.clone()
    }

    /// The proofs of its addresses, once more.
    pub fn prove(&mut self, now: Instant) {
        for proof in self.client.proofs() {
            self.up.send(now, proof);
        }
    }
}

pub fn public() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 50_000))
}

/// Where a node is for other nodes, if they have a network of their own.
fn inside(node: SocketAddr) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, u8::from(node == second())], node.port()))
}

/// Where the other node is.
pub fn second() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 50_000))
}

pub fn room() -> RoomName {
    "daily".parse().unwrap()
}

/// What a client says of a track in this codec.
pub fn publication(index: usize, codec: &str) -> PublishTrack {
    let (kind, source) = match codec.split('/').next() {
        Some("audio") => (Kind::Audio, Source::Microphone),
        _ => (Kind::Video, Source::Camera),
    };
    PublishTrack {
        codec: Some(codec.to_owned()),
        ..PublishTrack::new(format!("track-{index}"), kind, source)
    }
}

impl World {
    pub fn new(seed: u64, impairment: Impairment) -> Self {
        Self::with_limits(seed, impairment, Limits::default())
    }

    pub fn with_limits(seed: u64, impairment: Impairment, limits: Limits) -> Self {
        fastrand::seed(seed);
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let config = ShardConfig {
            node: NodeId::random(),
            public: public(),
            tunnel: None,
            unix_ms: 1_000_000,
            seed: [seed as u8; 32],
            limits,
        };
        Self {
            shard: Shard::new(config, now),
            now,
            members: Vec::new(),
            srtp: Vec::new(),
            events: Vec::new(),
            empty_rooms: Vec::new(),
            offers_answered: Vec::new(),
            astray: 0,
            other: None,
            here: public(),
            have_network: false,
            is_parted: false,
            lost_between: (public(), 0, 0),
            between: Vec::new(),
            forwarding: None,
            runs: None,
            impairment,
            seed,
        }
    }

    /// Another node in place of the first, which knows nothing.
    pub fn replace_shard(&mut self, limits: Limits) {
        let config = ShardConfig {
            node: NodeId::random(),
            public: public(),
            tunnel: self.have_network.then(|| inside(public())),
            unix_ms: 2_000_000,
            seed: [self.seed as u8 ^ 0xff; 32],
            limits,
        };
        self.shard = Shard::new(config, self.now);
    }

    /// Like [`World::new`], but the nodes have a network of their own.
    pub fn with_network_between_nodes(seed: u64) -> Self {
        let mut world = Self::new(seed, Impairment::NONE);
        world.have_network = true;
        world.replace_shard(Limits::default());
        world
    }

    /// A second node, beside the first one: commands go to the second from now on.
    pub fn add_node(&mut self) {
        let config = ShardConfig {
            node: NodeId::random(),
            public: second(),
            tunnel: self.have_network.then(|| inside(second())),
            unix_ms: 2_000_000,
            seed: [self.seed as u8 ^ 0xff; 32],
            limits: Limits::default(),
        };
        self.other = Some((second(), Box::new(Shard::new(config, self.now))));
        self.switch();
    }

    /// Commands go to the other node from now on.
    pub fn switch(&mut self) {
        let (at, shard) = self.other.as_mut().unwrap();
        std::mem::swap(&mut self.shard, shard);
        std::mem::swap(&mut self.here, at);
    }

    /// The node of two that the other one reaches at this address.
    fn node_at(&self, address: SocketAddr) -> Option<SocketAddr> {
        let known = |node: &SocketAddr| match self.have_network {
            true => inside(*node),
            false => *node,
        };
        let mut nodes = self.other.iter().flat_map(|_| [public(), second()]);
        nodes.find(|node| known(node) == address)
    }

    /// A datagram arrives at a node.
    fn arrive(&mut self, at: SocketAddr, source: SocketAddr, datagram: &[u8]) {
        match &mut self.other {
            Some((other, shard)) if *other == at => shard.handle_datagram(self.now, source, datagram),
            _ => {
                assert_eq!(at, self.here);
                // RTCP has its packet types where RTP has payload types (RFC 5761 section 4).
                let is_rtp = stun::classify(datagram) == stun::Protocol::Rtp && !(192..=223).contains(&datagram[1]);
                match self.forwarding.filter(|_| is_rtp) {
                    Some(forwarding) => self.forward(forwarding, source, datagram),
                    None => self.shard.handle_datagram(self.now, source, datagram),
                }
            }
        }
    }

    /// The shard takes media and sends it on, counted.
    fn forward(&mut self, before: Forwarding, source: SocketAddr, datagram: &[u8]) {
        self.drain();
        let (shard, now) = (&mut self.shard, self.now);
        let mut outputs = Vec::with_capacity(10_000);
        let counted = allocation_counter::measure(|| {
            shard.handle_datagram(now, source, datagram);
            outputs.extend(std::iter::from_fn(|| shard.poll_output(now)));
        });
        self.forwarding = Some(Forwarding {
            arrived: before.arrived + 1,
            sent: before.sent + outputs.len() as u64,
            allocations: before.allocations + counted.count_total,
        });
        for output in outputs {
            self.carry(self.here, output);
        }
    }

    /// Joins with an offer; the index of the new member.
    pub fn join(&mut self, identity: &str, audio: bool, video: &[&str], slots: (usize, usize)) -> usize {
        let mut client = self.new_client();
        let offer = client.offer(audio, video, slots);
        let joined = self.try_join(identity, Some(offer)).unwrap();
        client.answer(joined.answer.as_deref().unwrap());
        self.add(identity, client, joined)
    }

    /// A client for the next member.
    pub fn new_client(&self) -> Client {
        Client::new(
            self.now,
            SocketAddr::from(([10, 0, 1, self.members.len() as u8 + 1], 4_000)),
        )
    }

    /// A member that was admitted; its index.
    pub fn add(&mut self, identity: &str, client: Client, joined: Joined) -> usize {
        let seed = self.seed * 1_000 + self.members.len() as u64 * 2;
        self.members.push(Member {
            client,
            joined,
            identity: identity.to_owned(),
            up: Link::new(self.impairment, seed),
            down: Link::new(self.impairment, seed + 1),
            is_gone: false,
            only_checks: false,
            loses_nominations: false,
        });
        self.members.len() - 1
    }

    pub fn try_join(&mut self, identity: &str, offer: Option<String>) -> Result<Joined, Refusal> {
        self.admit(Join {
            offer,
            ..Self::request(identity)
        })
    }

    /// Joins without a peer connection; the index of the new member among those.
    pub fn join_srtp(&mut self, identity: &str, publish: &[&str], request: SrtpRequest) -> usize {
        let joined = self.try_join_srtp(identity, publish, request).unwrap();
        self.add_srtp(identity, joined)
    }

    /// Adds a client for a join that was made.
    pub fn add_srtp(&mut self, identity: &str, joined: Joined) -> usize {
        let address = SocketAddr::from(([10, 0, 2, self.srtp.len() as u8 + 1], 6_000));
        let client = SrtpClient::new(self.now, address, joined.srtp.as_ref().unwrap());
        let seed = self.seed * 1_000 + 500 + self.srtp.len() as u64 * 2;
        self.srtp.push(SrtpMember {
            client,
            joined,
            identity: identity.to_owned(),
            up: Link::new(self.impairment, seed),
            down: Link::new(self.impairment, seed + 1),
            is_gone: false,
        });
        self.srtp.len() - 1
    }

    pub fn try_join_srtp(&mut self, identity: &str, publish: &[&str], request: SrtpRequest) -> Result<Joined, Refusal> {
        let publish = publish
            .iter()
            .enumerate()
            .map(|(index, codec)| publication(index, codec));
        self.admit(Join {
            transports: Transports::Srtp,
            publish: publish.collect(),
            srtp: Some(request),
            ..Self::request(identity)
        })
    }

    /// What all joins have in common.
    pub fn request(identity: &str) -> Join {
        Join {
            limits: Default::default(),
            ticket: String::new(),
            room: room(),
            identity: identity.parse().unwrap(),
            name: String::new(),
            metadata: String::new(),
            attributes: Default::default(),
            grants: Grants::default(),
            transports: Transports::Single,
            auto_subscribe: true,
            never_pause: false,
            attach: true,
            publish: Vec::new(),
            offer: None,
            one_offer: None,
            srtp: None,
            dialect_info: None,
            resume: None,
        }
    }

    /// Joins as a client that offers once and has no signaling.
    pub fn try_join_once(&mut self, identity: &str, purpose: OneOffer, offer: &str) -> Result<Joined, Refusal> {
        self.admit(Join {
            attach: false,
            one_offer: Some(purpose),
            offer: Some(offer.to_owned()),
            ..Self::request(identity)
        })
    }

    pub fn admit(&mut self, join: Join) -> Result<Joined, Refusal> {
        let reply = self.shard.handle_join(self.now, Generation(1), join);
        self.drain();
        match reply? {
            Reply::Joined(joined) => Ok(*joined),
            other => panic!("{other:?}"),
        }
    }

    pub fn command(&mut self, member: usize, command: Command) -> Result<Reply, Refusal> {
        let (id, identity) = (self.id(member), self.members[member].identity.parse().unwrap());
        let reply = self.shard.handle_command(self.now, &room(), &id, &identity, command);
        self.drain();
        reply
    }

    pub fn command_srtp(&mut self, member: usize, command: Command) -> Result<Reply, Refusal> {
        let (id, identity) = (self.srtp[member].id(), self.srtp[member].identity.parse().unwrap());
        let reply = self.shard.handle_command(self.now, &room(), &id, &identity, command);
        self.drain();
        reply
    }

    pub fn id(&self, member: usize) -> ParticipantId {
        self.members[member].joined.snapshot.participant.id.clone()
    }

    /// What a member's slots carry now: the snapshot, and what events changed.
    pub fn slots(&self, member: usize) -> Vec<Slot> {
        let id = self.id(member);
        let mut slots = self.members[member].joined.snapshot.slots.clone();
        for (to, event) in &self.events {
            if let Event::Slots { slots: changed } = event
                && to.contains(&id)
            {
                for new in changed {
                    slots.retain(|slot| slot.mid != new.mid);
                    slots.push(new.clone());
                }
            }
        }
        slots
    }

    /// What a member received of another, on audio or video.
    pub fn received(&self, member: usize, of: usize, kind: Kind) -> &[Received] {
        self.received_of(member, self.id(of), kind)
    }

    /// The same of anyone.
    pub fn received_of(&self, member: usize, publisher: ParticipantId, kind: Kind) -> &[Received] {
        let slots = self.slots(member);
        let slot = slots
            .iter()
            .find(|slot| slot.kind == kind && slot.track.as_ref().is_some_and(|track| track.participant == publisher));
        let mid = slot.map(|slot| Mid::from(slot.mid.as_str()));
        mid.and_then(|mid| self.members[member].client.received.get(&mid))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Runs on a good network until everyone is connected, and returns to the impaired one. Retries of the DTLS handshake are at
    /// random times, so only what follows is the same for the same seed.
    pub fn connect(&mut self) {
        self.restart_links(Impairment::NONE);
        self.run_until(Duration::from_secs(10), "everyone is connected", |world| {
            world.members.iter().all(|member| member.client.is_connected)
        });
        self.restart_links(self.impairment);
    }

    /// Changes a member's network from now on: from it to the node, and to it.
    pub fn impair(&mut self, member: usize, up: Impairment, down: Impairment) {
        let now = self.now;
        let member = &mut self.members[member];
        member.up.change(now, up);
        member.down.change(now, down);
    }

    /// What has become of the datagrams to a member.
    pub fn down(&self, member: usize) -> Counts {
        self.members[member].down.counts()
    }

    fn restart_links(&mut self, impairment: Impairment) {
        let links = self
            .members
            .iter_mut()
            .flat_map(|member| [&mut member.up, &mut member.down]);
        for (index, link) in links.enumerate() {
            link.restart(impairment, self.seed * 1_000 + index as u64);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// Runs until it holds, at most for so long.
    pub fn run_until(&mut self, at_most: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.now + at_most;
        while !holds(self) {
            assert!(self.now < end, "not within {at_most:?}: {what}");
            self.step(end);
        }
    }

    fn step(&mut self, end: Instant) {
        let is_alone = self.other.is_none();
        for member in self.members.iter_mut().filter(|member| !member.is_gone) {
            member.send(self.now, is_alone);
        }
        for member in self.srtp.iter_mut().filter(|member| !member.is_gone) {
            for datagram in member.client.poll(self.now) {
                member.up.send(self.now, datagram);
            }
        }
        let srtp = self.srtp.iter().filter(|member| !member.is_gone);
        let srtp = srtp.flat_map(|member| {
            [
                member.up.next_arrival(),
                member.down.next_arrival(),
                Some(member.client.due()),
            ]
        });
        let links = self.members.iter().filter(|member| !member.is_gone);
        let next = links
            .flat_map(|member| {
                [
                    member.up.next_arrival(),
                    member.down.next_arrival(),
                    Some(member.client.due),
                ]
            })
            .chain(srtp)
            .chain([self.shard.poll_timeout()])
            .chain([self.other.as_ref().and_then(|(_, shard)| shard.poll_timeout())])
            .flatten()
            .chain([end])
            .min()
            .unwrap();
        self.now = next.max(self.now + Duration::from_micros(100));
        let mut arrived = Vec::new();
        for member in self.members.iter_mut().filter(|member| !member.is_gone) {
            while let Some(datagram) = member.up.receive(self.now) {
                let (at, datagram) = addressed(datagram, is_alone);
                arrived.push((at, member.client.address, datagram));
            }
            while let Some(datagram) = member.down.receive(self.now) {
                let (from, datagram) = addressed(datagram, is_alone);
                member.client.receive(self.now, from, &datagram);
                member.send(self.now, is_alone);
            }
        }
        for (at, source, datagram) in arrived {
            self.arrive(at, source, &datagram);
        }
        for member in self.srtp.iter_mut().filter(|member| !member.is_gone) {
            while let Some(datagram) = member.up.receive(self.now) {
                self.shard.handle_datagram(self.now, member.client.address, &datagram);
            }
            while let Some(datagram) = member.down.receive(self.now) {
                for datagram in member.client.receive(self.now, &datagram) {
                    member.up.send(self.now, datagram);
                }
            }
        }
        self.shard.handle_timeout(self.now);
        if let Some((_, shard)) = &mut self.other {
            shard.handle_timeout(self.now);
        }
        self.drain();
    }

    /// Gives the shard a datagram at once.
    pub fn inject(&mut self, source: SocketAddr, datagram: &[u8]) {
        self.shard.handle_datagram(self.now, source, datagram);
        self.drain();
    }

    fn next_output(&mut self) -> Option<(SocketAddr, Output)> {
        if let Some(output) = self.shard.poll_output(self.now) {
            return Some((self.here, output));
        }
        let (at, shard) = self.other.as_mut()?;
        Some((*at, shard.poll_output(self.now)?))
    }

    pub fn drain(&mut self) {
        while let Some((from, output)) = self.next_output() {
            self.carry(from, output);
        }
    }

    fn carry(&mut self, from: SocketAddr, output: Output) {
        match output {
            Output::Datagram { to, bytes } if self.node_at(to).is_some() => {
                let (to, source) = match self.have_network {
                    true => (self.node_at(to).unwrap(), inside(from)),
                    false => (to, from),
                };
                let (node, left, length) = &mut self.lost_between;
                if *node == to && *left > 0 && bytes.len() >= *length {
                    *left -= 1;
                } else if !self.is_parted {
                    self.arrive(to, source, &bytes);
                    self.between.push((to, bytes.to_vec()));
                }
            }
            Output::Datagram { to, bytes } => {
                if let Some(runs) = &mut self.runs {
                    match runs.last_mut() {
                        Some((before, count)) if *before == to => *count += 1,
                        _ => runs.push((to, 1)),
                    }
                }
                let mut bytes = bytes.to_vec();
                if self.other.is_some() {
                    bytes.push(u8::from(from == second()));
                }
                // A client that was made anew is at the address of the one before.
                let peer = self.members.iter_mut().rfind(|member| member.client.address == to);
                let srtp = self.srtp.iter_mut().find(|member| member.client.address == to);
                match (peer, srtp) {
                    (Some(member), _) => member.down.send(self.now, bytes),
                    (None, Some(member)) => member.down.send(self.now, bytes),
                    (None, None) => self.astray += 1,
                }
            }
            Output::Event { to, event } => self.events.push((to, *event)),
            Output::RoomEmpty { room, .. } => self.empty_rooms.push(room),
        }
    }
}

impl Member {
    /// Sends what its client has to say. With two nodes, each datagram says in its last byte which one it is for.
    fn send(&mut self, now: Instant, is_alone: bool) {
        for (to, mut datagram) in self.client.poll(now) {
            let is_nomination = stun::nominates(&datagram);
            if is_alone {
                assert_eq!(to, public());
            } else {
                datagram.push(u8::from(to == second()));
            }
            if self.only_checks && stun::classify(&datagram) != stun::Protocol::Stun
                || self.loses_nominations && is_nomination
            {
                continue;
            }
            self.up.send(now, datagram);
        }
    }
}

/// The node that a datagram is for, or comes from.
fn addressed(mut datagram: Vec<u8>, is_alone: bool) -> (SocketAddr, Vec<u8>) {
    if is_alone {
        return (public(), datagram);
    }
    let is_second = datagram.pop() == Some(1);
    (if is_second { second() } else { public() }, datagram)
}
