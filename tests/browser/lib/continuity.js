// Runs inside each page before the page's own scripts: notes when each received picture and sound was there, so that tests can ask how
// long any of them stood still. Times are in milliseconds since 1970, and so the same in all pages and processes of a machine.

/**
 * Makes `window.continuity`. A picture is noted when its frame has been decoded, by a reader of its track, so that it does not matter how
 * often the page is painted; where there is none (Firefox), when it is shown in a video element.
 *
 * Sound is noted by the receiver's list of sources, every 10 ms: it tells when the samples of the packet that was played last were handed over. What is made up for
 * a lost packet changes nothing there. So a sender that leaves out silence (DTX) would look like gaps: tests turn that off.
 */
export function watchContinuity() {
  const SOUND_EVERY_MS = 10;
  const clock = () => performance.timeOrigin + performance.now();
  /** By `kind whose`: the times. */
  const times = new Map();
  const known = new Set();
  const note = (key, at) => {
    if (!times.has(key)) times.set(key, []);
    times.get(key).push(at);
  };

  const read = async (key, track) => {
    const reader = new window.MediaStreamTrackProcessor({ track }).readable.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      value.close();
      note(key, clock());
    }
  };
  const watchElement = (key, element) => {
    const again = () => element.requestVideoFrameCallback(() => {
      note(key, clock());
      again();
    });
    again();
  };

  /** `[whose, kind, track, receiver]` of all that is received, in LiveKit's application and in Signalbox's page. */
  const received = () => {
    if (window.client) {
      return [...window.client.room.remoteParticipants.values()].flatMap(({ identity, trackPublications }) => (
        [...trackPublications.values()].filter(({ track }) => track).map(({ track }) => [identity, track.kind, track.mediaStreamTrack, track.receiver])
      ));
    }
    return [...document.querySelectorAll('[data-participant]:not([data-local="true"]) video')].flatMap((element) => (
      (element.srcObject?.getVideoTracks() ?? []).map((track) => [element.closest('[data-participant]').dataset.participant, 'video', track])
    ));
  };

  const sounds = new Map();
  const look = () => {
    for (const [whose, kind, track, receiver] of received()) {
      const key = `${kind} ${whose}`;
      if (kind === 'audio' && receiver) sounds.set(key, receiver);
      if (kind !== 'video' || known.has(track)) continue;
      if (window.MediaStreamTrackProcessor) {
        known.add(track);
        read(key, track);
        continue;
      }
      const element = [...document.querySelectorAll('video')].find(({ srcObject }) => srcObject?.getVideoTracks().includes(track));
      if (!element) continue;
      known.add(track);
      watchElement(key, element);
    }
  };
  const last = new Map();
  const listen = () => {
    for (const [key, receiver] of sounds) {
      const [source] = receiver.getSynchronizationSources();
      if (!source || last.get(key) === source.rtpTimestamp) continue;
      last.set(key, source.rtpTimestamp);
      note(key, clock());
    }
  };
  setInterval(look, 50);
  setInterval(listen, SOUND_EVERY_MS);

  window.continuity = {
    clock,
    /**
     * From one time on until now, of all that was received before it: `{key: {longest, from, back, last, count}}`. `longest` is the longest time without
     * a picture or sound, which began at `from`, the last one before `since` included; `back` is when the one that ended it came, and null if it has not ended.
     */
    since(since) {
      const now = clock();
      const result = {};
      for (const [key, all] of times) {
        const before = all.findLastIndex((at) => at <= since);
        if (before < 0) continue;
        const points = all.slice(before);
        let [longest, from, back] = [now - points.at(-1), points.at(-1), null];
        for (let index = 1; index < points.length; index += 1) {
          const gap = points[index] - points[index - 1];
          if (gap > longest) [longest, from, back] = [gap, points[index - 1], points[index]];
        }
        result[key] = { longest, from, back, last: points.at(-1), count: points.length - 1 };
      }
      return result;
    },
    /** How many pictures of each there were in the last `ms`. */
    lately(ms) {
      const from = clock() - ms;
      return Object.fromEntries([...times].map(([key, all]) => [key, all.filter((at) => at > from).length]));
    },
  };
}
