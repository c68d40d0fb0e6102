// Which elements can be seen, and how large they are: in pixels of the screen, and once things have come to rest.

// Higher: a picture that comes into sight is asked for later. Lower: scrolling past many asks for each.
const REST_MS = 150;
// In coarse steps, so that dragging a window's edge does not ask for another picture at every pixel.
const STEP = 160;

export class Sight {
  #tell;
  #watched = new Map();
  #timer = 0;
  #sizes = new ResizeObserver((entries) => this.#note(entries, ({ contentRect }) => ({ rect: contentRect })));
  #screen = new IntersectionObserver((entries) => this.#note(entries, ({ isIntersecting }) => ({ onScreen: isIntersecting })));

  /** `tell(key, {width, height})`, or `tell(key, null)` for what nobody can see; again whenever anything changes. */
  constructor(tell) {
    this.#tell = tell;
    document.addEventListener('visibilitychange', () => this.#settle());
  }

  watch(key, element) {
    this.#watched.set(element, { key, rect: null, onScreen: null });
    this.#sizes.observe(element);
    this.#screen.observe(element);
  }

  forget(element) {
    this.#watched.delete(element);
    this.#sizes.unobserve(element);
    this.#screen.unobserve(element);
  }

  /** Tells everything again, for who has forgotten. */
  repeat() { this.#settle(); }

  #note(entries, seen) {
    for (const entry of entries) {
      const one = this.#watched.get(entry.target);
      if (one) Object.assign(one, seen(entry));
    }
    this.#settle();
  }

  #settle() {
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      const scale = window.devicePixelRatio || 1;
      const step = (length) => Math.ceil((length * scale) / STEP) * STEP;
      for (const { key, rect, onScreen } of this.#watched.values()) {
        // Both observers report soon after they begin; until then nothing is known.
        if (!rect || onScreen === null) continue;
        this.#tell(key, onScreen && !document.hidden ? { width: step(rect.width), height: step(rect.height) } : null);
      }
    }, REST_MS);
  }
}
