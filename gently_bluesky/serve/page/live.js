// The WebSocket: documents, progress and pictures as they come; it comes back by itself and goes on where it was.

const LONGEST_WAIT_MS = 10_000;
const SILENCE_MS = 15_000;

/** Events: "hello", "document", "progress", "picture" ({ about, image }), "state" ({ connected, reason }). */
export class Live extends EventTarget {
  constructor(base = "", { run } = {}) {
    super();
    const url = new URL(base ? `${base.replace(/\/$/, "")}/api/v1/live` : "api/v1/live", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    Object.assign(this, { url, run, wanted: {}, offsets: new Map(), wait: 250, closed: false });
  }

  open() {
    this.closed = false;
    const url = new URL(this.url);
    url.searchParams.set("ack", "true");
    for (const [name, value] of Object.entries(this.wanted)) url.searchParams.set(name, value);
    if (this.run) url.searchParams.set("run", this.run);
    const from = [...this.offsets].slice(-16).map(([run, offset]) => (this.run ? offset : `${run}:${offset}`));
    if (from.length) url.searchParams.set("from", from.join(","));
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (message) => this.take(message.data);
    this.socket.onclose = (event) => this.lost(event);
    this.listen();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    this.socket?.close();
  }

  /** Say which pictures are wanted from now on: { size, rate, show, series }. */
  want(wanted) {
    this.wanted = wanted;
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(wanted));
  }

  listen() {
    clearTimeout(this.silence); // a server that is gone without a word says nothing, not even every few seconds
    this.silence = setTimeout(() => this.socket?.close(), SILENCE_MS);
  }

  lost(event) {
    clearTimeout(this.silence);
    if (this.closed) return;
    const reason = this.reason ?? "The server does not answer.";
    this.reason = undefined;
    if (event.code === 1008) this.offsets.clear(); // where it was is not there any more
    this.emit("state", { connected: false, reason });
    this.timer = setTimeout(() => this.open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
  }

  async take(data) {
    this.listen();
    if (typeof data !== "string") {
      await this.picture(data);
      return;
    }
    const said = JSON.parse(data);
    if (said.type === "hello") {
      this.wait = 250;
      for (const { run, offset } of said.runs) this.offsets.set(run, offset);
      this.emit("state", { connected: true });
    }
    if (said.type === "document") {
      this.offsets.delete(said.run); // the newest last
      this.offsets.set(said.run, said.offset);
    }
    if (said.type === "error") this.reason = said.detail;
    this.emit(said.type, said);
  }

  async picture(data) {
    const bytes = new Uint8Array(data);
    const end = bytes.indexOf(10);
    const about = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
    try {
      const image = await createImageBitmap(new Blob([bytes.subarray(end + 1)], { type: "image/jpeg" }));
      this.emit("picture", { about, image });
      image.close();
    } finally {
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"drawn":1}');
    }
  }

  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
