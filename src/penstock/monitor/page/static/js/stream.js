// The stream of states. It ends while the page is paused or hidden, and begins again after a failure.
const RETRY_MS = 1500;
// states come twice a second: without one for so long the connection is broken
const SILENT_MS = 8000;

export class Stream {
  constructor({ onHistory, onState, onConnection }) {
    Object.assign(this, { onHistory, onState, onConnection });
    this.scope = 0;
    this.isPaused = false;
    this.source = null;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.restart());
    setInterval(() => this.#check(), 2000);
  }

  choose(scope) { this.scope = scope; this.restart(); }

  pause(isPaused) { this.isPaused = isPaused; this.restart(); }

  get isOpen() { return this.source !== null; }

  stop(reason) {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    this.onConnection(reason);
  }

  restart() {
    if (this.isPaused || document.hidden) { this.stop("paused"); return; }
    clearTimeout(this.timer);
    this.source?.close();
    this.onConnection("connecting");
    const source = new EventSource(`/api/events?scope=${this.scope}`);
    this.source = source;
    this.receivedAt = Date.now();
    source.addEventListener("history", (event) => this.#take(source, () => this.onHistory(JSON.parse(event.data).points)));
    source.addEventListener("state", (event) => this.#take(source, () => {
      this.onConnection("live");
      this.onState(JSON.parse(event.data));
    }));
    source.addEventListener("error", () => { if (source === this.source) this.#retry(); });
  }

  #take(source, action) {
    if (source !== this.source) return;
    this.receivedAt = Date.now();
    action();
  }

  #check() {
    if (this.source && Date.now() - this.receivedAt > SILENT_MS) this.#retry();
  }

  #retry() {
    this.stop("lost");
    this.timer = setTimeout(() => this.restart(), RETRY_MS);
  }
}
