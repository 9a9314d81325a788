// Asking the server: few requests at a time, those that are out of date cancelled, errors in its own words.

const MOST_AT_ONCE = 4;
const MOST_KEPT_BYTES = 192 << 20;
const ARRAYS = {
  "|u1": Uint8Array, "|b1": Uint8Array, "|i1": Int8Array, "<u2": Uint16Array, "<i2": Int16Array,
  "<u4": Uint32Array, "<i4": Int32Array, "<f4": Float32Array, "<f8": Float64Array,
};

/** What the server refused, in words. */
export class Problem extends Error {
  constructor(status, title, detail, available) {
    super(detail || title || `The server answered ${status}.`);
    Object.assign(this, { status, title, available });
  }
}

let under_way = 0;
const waiting = [];

async function turn(signal) {
  if (under_way >= MOST_AT_ONCE) {
    await new Promise((resolve, reject) => {
      waiting.push(resolve);
      signal?.addEventListener("abort", () => {
        const place = waiting.indexOf(resolve);
        if (place >= 0) waiting.splice(place, 1);
        reject(signal.reason);
      }, { once: true });
    });
  }
  signal?.throwIfAborted();
  under_way += 1;
}

function done() {
  under_way -= 1;
  waiting.shift()?.();
}

async function problem(response) {
  let said = {};
  try {
    said = await response.json();
  } catch { /* not JSON: the status has to do */ }
  return new Problem(response.status, said.title ?? response.statusText, typeof said.detail === "string" ? said.detail : "", said.available);
}

export class Api {
  constructor(base = "") {
    this.base = new URL(base ? `${base.replace(/\/$/, "")}/api/v1` : "api/v1", document.baseURI).href;
    this.kept = new Map();
    this.kept_bytes = 0;
  }

  url(path, query = {}) {
    const url = new URL(this.base + path);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
    }
    return url;
  }

  async fetch(path, query, { signal, ...options } = {}) {
    await turn(signal);
    try {
      let response;
      try {
        response = await fetch(this.url(path, query), { signal, credentials: "same-origin", ...options });
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new Problem(0, "The server does not answer", "The server does not answer. Is it still running?");
      }
      if (!response.ok) throw await problem(response);
      return await (options.take ?? ((each) => each.json()))(response);
    } finally {
      done();
    }
  }

  json(path, query, options) {
    return this.fetch(path, query, options);
  }

  /** Pixels as they are: { data, shape }; kept, so that going back costs nothing. */
  async pixels(path, query, { signal } = {}) {
    const key = this.url(path, query).href;
    const kept = this.kept.get(key);
    if (kept) {
      this.kept.delete(key);
      this.kept.set(key, kept);
      return kept;
    }
    const plane = await this.fetch(path, { ...query, format: "raw" }, {
      signal,
      take: async (response) => {
        const kind = ARRAYS[response.headers.get("x-dtype")];
        if (!kind) throw new Problem(0, "Not shown", `Pixels of ${response.headers.get("x-dtype")} are not shown here.`);
        const shape = response.headers.get("x-shape").split(",").filter(Boolean).map(Number);
        return { data: new kind(await response.arrayBuffer()), shape };
      },
    });
    this.keep(key, plane);
    return plane;
  }

  keep(key, plane) {
    this.kept.set(key, plane);
    this.kept_bytes += plane.data.byteLength;
    for (const [oldest, item] of this.kept) {
      if (this.kept_bytes <= MOST_KEPT_BYTES) break;
      this.kept.delete(oldest);
      this.kept_bytes -= item.data.byteLength;
    }
  }
}

/** One place that shows one thing: a new request takes the place of the one before. */
export class Lane {
  async run(work) {
    this.stop();
    const controller = (this.controller = new AbortController());
    try {
      return await work(controller.signal);
    } catch (error) {
      if (controller.signal.aborted) return undefined;
      throw error;
    } finally {
      if (this.controller === controller) this.controller = null;
    }
  }

  stop() {
    this.controller?.abort(new DOMException("out of date", "AbortError"));
    this.controller = null;
  }

  get busy() {
    return Boolean(this.controller);
  }
}
