// Runs inside a page: a picture that takes an encoder all the bits that it may have. The browser's made-up camera shows so little that its
// top layer fits through anything.

/** Makes `window.busyCamera(width, height, fps)`, which gives a video track. */
export function defineBusyCamera() {
  window.busyCamera = (width, height, fps) => {
    const texture = new OffscreenCanvas(2 * width, 2 * height);
    const paint = texture.getContext('2d');
    for (let index = 0; index < 900; index += 1) {
      paint.fillStyle = `hsl(${(index * 47) % 360} 70% ${20 + ((index * 13) % 60)}%)`;
      paint.fillRect((index * 7919) % (2 * width), (index * 104_729) % (2 * height), 20 + (index % 97), 20 + (index % 71));
    }
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    let frame = 0;
    setInterval(() => {
      frame += 1;
      const [x, y] = [(1 + Math.sin(frame / 40)) / 2, (1 + Math.cos(frame / 67)) / 2];
      context.drawImage(texture, -x * width, -y * height);
      // What moves otherwise than the rest cannot be predicted from the frame before.
      for (let index = 0; index < 6; index += 1) {
        context.drawImage(texture, (index * 97 + frame * 5) % width, (index * 61) % height, 90, 90, (index * 83 + frame * (index - 3)) % width, (index * 47) % height, 90, 90);
      }
    }, 1000 / fps);
    return canvas.captureStream(fps).getVideoTracks()[0];
  };
}
