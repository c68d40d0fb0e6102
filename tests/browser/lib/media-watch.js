// Runs inside each page before the page's own scripts: notes the peer connections and WebSockets that they make, so that tests can
// ask what has really arrived. It changes nothing about them.

export function watchMedia() {
  /** When each WebSocket got its first message, in milliseconds since 1970. */
  const answers = [];
  const noting = (name, andThen = () => {}) => {
    const made = [];
    window[name] = new Proxy(window[name], {
      construct(target, args, newTarget) {
        const one = Reflect.construct(target, args, newTarget);
        made.push(one);
        andThen(one);
        return one;
      },
    });
    return made;
  };
  const connections = noting('RTCPeerConnection');
  const sockets = noting('WebSocket', (socket) => socket.addEventListener('message', () => answers.push(Date.now()), { once: true }));

  const open = () => connections.filter((one) => one.connectionState !== 'closed');

  /** The statistics about video of one type of all open connections, with each entry's codec as `mimeType`. */
  const statistics = async (type) => {
    const reports = await Promise.all(open().map((connection) => connection.getStats()));
    return reports.flatMap((report) => [...report.values()]
      .filter((entry) => entry.type === type && entry.kind === 'video')
      .map((entry) => ({ ...entry, mimeType: report.get(entry.codecId)?.mimeType })));
  };

  window.watched = {
    statistics,
    connections,
    sockets,
    answers,
    /** Whether a received picture can be seen: one of its frames is decoded and in a video element. */
    pictureIsUp() {
      const received = new Set(open().flatMap((one) => one.getReceivers().map(({ track }) => track.id)));
      return [...document.querySelectorAll('video')].some((video) => (
        video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && video.srcObject?.getVideoTracks().some(({ id }) => received.has(id))
      ));
    },
    /** The UDP ports that media arrives at. */
    async localPorts() {
      const ports = [];
      for (const connection of open()) {
        const report = await connection.getStats();
        report.forEach((entry) => {
          if (entry.type === 'candidate-pair' && entry.state === 'succeeded') ports.push(report.get(entry.localCandidateId)?.port);
        });
      }
      return ports.filter(Boolean);
    },
    /** The decoder's counters of the only picture that is received, or of the newest. */
    async picture() {
      let found = { width: 0, frames: 0, freezes: 0, frozen: 0, buffered: 0, emitted: 0, plis: 0, nacks: 0 };
      for (const connection of open()) {
        (await connection.getStats()).forEach((entry) => {
          if (entry.type !== 'inbound-rtp' || entry.kind !== 'video') return;
          found = {
            width: entry.frameWidth ?? 0, frames: entry.framesDecoded, freezes: entry.freezeCount, frozen: entry.totalFreezesDuration,
            buffered: entry.jitterBufferDelay, emitted: entry.jitterBufferEmittedCount, plis: entry.pliCount, nacks: entry.nackCount,
          };
        });
      }
      return found;
    },
    /** What all open connections have received, added up, and the addresses that media comes from. */
    async received() {
      const sum = { framesDecoded: 0, videoBytes: 0, audioPackets: 0, audioEnergy: 0, connections: connections.length };
      const from = new Set();
      for (const connection of open()) {
        const report = new Map();
        (await connection.getStats()).forEach((entry, id) => report.set(id, entry));
        for (const entry of report.values()) {
          if (entry.type === 'inbound-rtp' && entry.kind === 'video') {
            sum.framesDecoded += entry.framesDecoded ?? 0;
            sum.videoBytes += entry.bytesReceived ?? 0;
          } else if (entry.type === 'inbound-rtp' && entry.kind === 'audio') {
            sum.audioPackets += entry.packetsReceived ?? 0;
            sum.audioEnergy += entry.totalAudioEnergy ?? 0;
          } else if (entry.type === 'candidate-pair' && entry.state === 'succeeded' && entry.nominated) {
            const remote = report.get(entry.remoteCandidateId);
            if (remote) from.add(`${remote.address ?? remote.ip}:${remote.port}`);
          }
        }
      }
      return { ...sum, from: [...from].sort() };
    },
  };
}
