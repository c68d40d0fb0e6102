// What is sent and in which codecs: simulcast layers, the words of the publish request, and offers that stay small.

export const KINDS = { microphone: 'audio', camera: 'video' };
// Lowest first, as the publish request wants them.
const LAYERS = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];

/** The simulcast layers of a camera, as a sender wants them. */
export function encodings() { return LAYERS.map((layer) => ({ ...layer })); }

const QUALITIES = ['low', 'medium', 'high'];

/** Encodes exactly these layers. A source without layers is sent if any is named. */
export function sendOnly(sender, layers) {
  const parameters = sender.getParameters();
  const { encodings: all } = parameters;
  all.forEach((encoding, index) => { encoding.active = all.length > 1 ? layers.includes(QUALITIES[index]) : layers.length > 0; });
  // It fails only when the sender is stopped, or negotiated anew, which turns everything on.
  sender.setParameters(parameters).catch(() => {});
}

/** The `publish` of a join: what the sources that are in this offer are. */
export function announcement(sources, sdp) {
  return Object.entries(sources).filter(([, own]) => own.track && own.transceiver?.mid).map(([name, own]) => {
    const { width = 0, height = 0 } = own.track.getSettings();
    // Browsers may put another id than the track's into `a=msid`; the m-line's mid identifies it as well.
    const cid = sdp.includes(own.track.id) ? own.track.id : own.transceiver.mid;
    const track = { cid, kind: KINDS[name], source: name, muted: !own.on };
    if (name !== 'camera') return track;
    const layers = LAYERS.map(({ rid, scaleResolutionDownBy: scale, maxBitrate }) => (
      { rid, width: Math.floor(width / scale), height: Math.floor(height / scale), bitrate: maxBitrate }));
    return { ...track, width, height, layers };
  });
}

/** Leaves out codecs that no one in a room sends, which would make up most of an offer with many slots. */
export function slim(transceiver, kind) {
  const codecs = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  const kept = codecs.filter(({ mimeType, sdpFmtpLine: line = '' }) => {
    switch (mimeType.toLowerCase()) {
      case 'audio/opus': case 'video/vp8': case 'video/rtx': return true;
      case 'video/vp9': return !/profile-id=[1-9]/.test(line);
      case 'video/av1': return !/profile=[1-9]/.test(line);
      case 'video/h264': return /packetization-mode=1/.test(line) && /profile-level-id=(42e0|4200|64)/i.test(line);
      default: return false;
    }
  });
  if (kept.length > 0) transceiver.setCodecPreferences?.(kept);
}
