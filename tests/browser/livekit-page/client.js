// A minimal application of the unmodified livekit-client, as its documentation writes one, with what tests want to know kept in
// plain data on `window.client`.

const { ExternalE2EEKeyProvider, Room, RoomEvent } = window.LivekitClient;
const decoder = new TextDecoder();
const parameters = new URLSearchParams(location.search);

// `?options=` is what an application would say to the SDK, as JSON.
const options = JSON.parse(parameters.get('options') ?? '{}');
// `?key=` is what all is encrypted with that others shall get, and decrypted with that they send.
const key = parameters.get('key');
const keyProvider = key && new ExternalE2EEKeyProvider();
if (key) options.encryption = { keyProvider, worker: new Worker('/livekit-client.e2ee.worker.js') };
const room = new Room(options);
const events = [];
const data = [];
const note = (type, participant, more = {}) => events.push({ type, identity: participant?.identity, at: Date.now(), ...more });

room
  .on(RoomEvent.ParticipantConnected, (participant) => note('joined', participant))
  .on(RoomEvent.ParticipantDisconnected, (participant) => note('left', participant))
  .on(RoomEvent.TrackMuted, (publication, participant) => note('muted', participant, { kind: publication.kind }))
  .on(RoomEvent.TrackUnmuted, (publication, participant) => note('unmuted', participant, { kind: publication.kind }))
  .on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
    note('subscribed', participant, { kind: track.kind });
    document.body.append(track.attach());
  })
  .on(RoomEvent.TrackUnsubscribed, (track, publication, participant) => {
    note('unsubscribed', participant, { kind: track.kind });
    track.detach().forEach((element) => element.remove());
  })
  .on(RoomEvent.TrackPublished, (publication, participant) => note('published', participant, { kind: publication.kind }))
  .on(RoomEvent.TrackUnpublished, (publication, participant) => note('unpublished', participant, { kind: publication.kind }))
  .on(RoomEvent.TrackStreamStateChanged, (publication, state, participant) => note(`stream ${state}`, participant, { kind: publication.kind }))
  .on(RoomEvent.TrackSubscriptionFailed, (sid, participant) => note('subscription failed', participant, { sid }))
  .on(RoomEvent.ParticipantEncryptionStatusChanged, (isEncrypted, participant) => note(isEncrypted ? 'encrypted' : 'not encrypted', participant))
  .on(RoomEvent.EncryptionError, (error, participant) => note('encryption error', participant, { message: error.message }))
  .on(RoomEvent.ActiveSpeakersChanged, (speakers) => speakers.forEach((speaker) => note('speaks', speaker)))
  .on(RoomEvent.SignalReconnecting, () => note('resuming'))
  .on(RoomEvent.Reconnecting, () => note('restarting'))
  .on(RoomEvent.Reconnected, () => note('reconnected'))
  .on(RoomEvent.Disconnected, (reason) => note('disconnected', undefined, { reason }))
  .on(RoomEvent.DataReceived, (bytes, participant, kind) => {
    data.push({ text: decoder.decode(bytes), from: participant?.identity, reliable: kind === 0 });
  });

/** The receiver's statistics of each subscribed track, added up by the publisher's identity; of the picture also its width. */
async function stats() {
  const result = {};
  for (const participant of room.remoteParticipants.values()) {
    const sum = { frameWidth: 0, framesDecoded: 0, videoBytes: 0, audioPackets: 0, audioEnergy: 0 };
    for (const { track } of participant.trackPublications.values()) {
      const report = await track?.receiver?.getStats();
      report?.forEach((entry) => {
        if (entry.type !== 'inbound-rtp') return;
        sum.framesDecoded += entry.framesDecoded ?? 0;
        sum.audioEnergy += entry.totalAudioEnergy ?? 0;
        if (entry.kind === 'audio') sum.audioPackets += entry.packetsReceived;
        else {
          sum.videoBytes += entry.bytesReceived;
          sum.frameWidth = entry.frameWidth ?? 0;
        }
      });
    }
    result[participant.identity] = sum;
  }
  return result;
}

async function connect(url, token) {
  if (key) {
    await keyProvider.setKey(key);
    await room.setE2EEEnabled(true);
  }
  await room.connect(url, token);
}

/** What this client knows of everyone, itself included, in plain data: names, metadata, permissions, and tracks by their ids. */
function roster() {
  const everyone = [room.localParticipant, ...room.remoteParticipants.values()];
  return Object.fromEntries(everyone.map(({ identity, sid, name, metadata, attributes, permissions, trackPublications }) => [identity, {
    sid, name, metadata, attributes, canPublish: permissions?.canPublish,
    tracks: Object.fromEntries([...trackPublications.values()].map(({ trackSid, source, isMuted, isSubscribed, isDesired }) => (
      [trackSid, { source, isMuted, isSubscribed, isDesired }]
    ))),
  }]));
}

window.client = {
  room,
  roster,
  events,
  data,
  stats,
  connect,
  publish: () => room.localParticipant.enableCameraAndMicrophone(),
  mute: (on) => room.localParticipant.setMicrophoneEnabled(!on),
  send: (text, reliable) => room.localParticipant.publishData(new TextEncoder().encode(text), { reliable, topic: 'test' }),
  leave: () => room.disconnect(),
};
