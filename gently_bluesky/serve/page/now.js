// <gently-now>: what is happening: the plan and how far it is, every view live, embryos and timepoints, free space.

import { Api } from "./api.js";
import { h, fill, Part } from "./dom.js";
import { Live } from "./live.js";
import { ago, bytes, clock, counted, duration, value, when } from "./words.js";

const MOST_ROWS = 10_000;
const RECENT = 6;
const RATE = 8;
const LOW_SPACE = 0.05;

export class Now extends Part {
  constructor() {
    super();
    Object.assign(this, { cards: new Map(), embryos: new Map(), recent: [], show: "projection" });
    this.state = h("span", { class: "pill" }, "…");
    this.heading = h("h2", {}, "\u00a0");
    this.about = h("p", { class: "dim about" });
    this.bar = h("progress", { max: 1, value: 0 });
    this.far = h("span", { class: "far" });
    this.shows = h("div", { class: "segments", role: "group", "aria-label": "what is shown live" },
      ["projection", "plane"].map((show) => h("button", { data: { show }, onclick: () => this.choose(show) }, show === "plane" ? "newest frame" : show)));
    this.views = h("div", { class: "live" });
    this.matrix = h("div", { class: "matrix" });
    this.events = h("ol", { class: "events" });
    this.space = h("div", { class: "space" }, h("span", { class: "dim" }, "disk"), h("meter", { min: 0, max: 1, high: 1 - LOW_SPACE * 2, low: 1 - LOW_SPACE * 2, optimum: 0, value: 0 }), h("span", { class: "free" }));
    this.lost = h("p", { class: "problem", role: "alert", hidden: true });
    fill(
      this.root,
      h("section", { class: "now" },
        h("header", { class: "head" },
          h("div", { class: "row wrap" }, this.state, this.heading, h("span", { class: "grow" }), this.shows),
          this.about,
          h("div", { class: "row how-far" }, this.bar, this.far)),
        this.lost, this.views,
        h("div", { class: "below" }, h("div", {}, h("h3", {}, "embryos"), this.matrix), h("div", {}, h("h3", {}, "latest"), this.events, this.space))),
    );
    this.observer = new ResizeObserver(() => this.want());
    this.turned = () => this.want();
  }

  connectedCallback() {
    this.api = new Api(this.base);
    this.live = new Live(this.base, { run: this.getAttribute("run") ?? undefined });
    this.live.addEventListener("hello", ({ detail }) => this.hello(detail));
    this.live.addEventListener("progress", ({ detail }) => this.progress(detail));
    this.live.addEventListener("document", ({ detail }) => this.document(detail));
    this.live.addEventListener("picture", ({ detail }) => this.picture(detail));
    this.live.addEventListener("state", ({ detail }) => this.connection(detail));
    this.choose(this.show);
    this.live.open();
    this.observer.observe(this.views);
    document.addEventListener("visibilitychange", this.turned);
    this.ticking = setInterval(() => this.tick(), 1000);
  }

  disconnectedCallback() {
    this.live.close();
    this.observer.disconnect();
    document.removeEventListener("visibilitychange", this.turned);
    clearInterval(this.ticking);
  }

  choose(show) {
    this.show = show;
    for (const button of this.shows.children) button.setAttribute("aria-pressed", String(button.dataset.show === show));
    this.want();
  }

  want() {
    const width = Math.max(0, ...[...this.cards.values()].map(({ canvas }) => canvas.clientWidth)) || this.views.clientWidth / 2 || 512;
    const size = Math.min(2048, Math.ceil((width * (globalThis.devicePixelRatio || 1)) / 128) * 128);
    const seen = this.views.clientWidth && !document.hidden;
    const asked = { size: Math.max(128, size), rate: seen ? RATE : 0, show: this.show };
    if (JSON.stringify(asked) === this.asked) return;
    this.asked = JSON.stringify(asked);
    this.live.want(asked);
  }

  connection({ connected, reason }) {
    this.lost.hidden = connected;
    fill(this.lost, connected ? "" : `${reason} Trying again.`);
    this.tell("gently-connection", { connected, reason });
  }

  hello({ runs }) {
    const newest = runs.at(-1);
    if (!newest) {
      this.put_state("idle", "nothing yet");
      fill(this.heading, "No run yet");
      fill(this.about, "As soon as a plan runs, it is seen here.");
    } else if (newest.run !== this.run) {
      this.begin(newest.run);
    }
  }

  // --- the run ---------------------------------------------------------------------------------------------

  async begin(run) {
    this.run = run;
    this.embryos.clear();
    this.recent = [];
    for (const { node } of this.cards.values()) node.remove();
    this.cards.clear();
    this.lay_out();
    try {
      const about = await this.api.json(`/runs/${encodeURIComponent(run)}`);
      for (const [name, stream] of Object.entries(about.streams)) {
        const keys = ["embryo", "timepoint", "channel", "good"].filter((key) => key in stream.data_keys);
        if (keys.length && stream.events) await this.catch_up(run, name, stream, keys, about.start);
      }
    } catch { /* the journal goes on all the same */ }
    this.put_embryos();
    this.put_recent();
  }

  async catch_up(run, name, stream, keys, start) {
    const first = Math.max(0, stream.events - MOST_ROWS);
    const table = await this.api.json(`/runs/${encodeURIComponent(run)}/streams/${encodeURIComponent(name)}`, { first, keys: keys.join(","), limit: MOST_ROWS });
    if (run !== this.run) return;
    table.seq_num.forEach((seq_num, i) => {
      const said = Object.fromEntries(keys.map((key) => [key, table.columns[key][i]]));
      this.count({ embryo: start.embryo, ...said, time: table.time[i], seq_num });
    });
  }

  count({ embryo, timepoint, channel, good, time, seq_num }) {
    if (embryo !== undefined && embryo !== null) {
      const name = String(embryo);
      const times = this.embryos.get(name) ?? this.embryos.set(name, new Map()).get(name);
      if (Number.isInteger(timepoint)) times.set(timepoint, good !== false && (times.get(timepoint) ?? true));
    }
    this.recent = [{ embryo, timepoint, channel, good, time, seq_num }, ...this.recent.filter((each) => each.seq_num !== seq_num)].slice(0, RECENT);
  }

  document({ run, name, doc }) {
    if (name === "start") this.begin(run);
    if (run !== this.run) return;
    if (name === "event" && ("embryo" in doc.data || "timepoint" in doc.data || this.recent.length === 0)) {
      this.count({ embryo: this.plan?.embryo, ...doc.data, time: doc.time, seq_num: doc.seq_num });
      this.put_embryos();
      this.put_recent();
    }
    this.tell("gently-document", { run, name, seq_num: doc.seq_num });
  }

  progress(said) {
    const used = 1 - said.free_bytes / said.total_bytes;
    this.space.querySelector("meter").value = used;
    fill(this.space.querySelector(".free"), `${bytes(said.free_bytes)} free of ${bytes(said.total_bytes)}`);
    this.space.classList.toggle("bad", 1 - used < LOW_SPACE);
    this.skew = said.time - Date.now() / 1000;
    if (!said.run || said.run !== this.run) return;
    this.said = said;
    this.plan = said.plan;
    const events = Math.max(0, ...Object.values(said.events));
    const { plan_name, scan_id, session, operator, purpose, num_points } = said.plan;
    fill(this.heading, h("a", { href: `#run=${encodeURIComponent(said.run)}` }, plan_name ?? "run"));
    fill(this.about, [scan_id !== undefined && `scan ${value(scan_id)}`, session, operator, purpose, said.reason].filter(Boolean).map((each) => h("span", {}, value(each))));
    this.bar.hidden = !num_points;
    this.bar.value = num_points ? events / num_points : 0;
    this.events_there = { events, num_points };
    this.tick();
  }

  put_state(kind, words) {
    this.state.className = `pill ${kind}`;
    fill(this.state, words);
  }

  tick() {
    const { said } = this;
    const now = Date.now() / 1000 + (this.skew ?? 0);
    for (const card of this.cards.values()) fill(card.age, card.time ? ago(now - card.time) : "");
    if (!said) return;
    const { events, num_points } = this.events_there;
    const over = Boolean(said.exit_status);
    if (over) this.put_state(said.exit_status, { success: "finished", abort: "aborted", fail: "failed" }[said.exit_status] ?? said.exit_status);
    else this.put_state(said.damage ? "fail" : "running", said.damage ? "journal damaged" : "running");
    const elapsed = (said.until ?? now) - said.since;
    const of = num_points ? `${events} of ${num_points} events` : counted(events, "event");
    const left = !over && num_points && events ? ` · about ${duration((elapsed / events) * Math.max(0, num_points - events))} left` : "";
    const end = over ? ` · ended ${when(said.until)}, ${ago(now - said.until)}` : "";
    fill(this.far, `${of} · ${duration(elapsed)}${left}${end}`);
  }

  put_embryos() {
    const most = Math.max(1, ...[...this.embryos.values()].map((times) => Math.max(0, ...times.keys()) + 1));
    const rows = [...this.embryos].map(([name, times]) => {
      const strip = h("canvas", { class: "strip", width: Math.min(4096, most * 8), height: 8, role: "img", "aria-label": `${times.size} timepoints` });
      const context = strip.getContext("2d");
      const wide = strip.width / most;
      for (const [timepoint, good] of times) {
        context.fillStyle = good ? "#5fb98a" : "#e5706b";
        context.fillRect(timepoint * wide, 0, Math.max(1, wide - (wide > 3 ? 1.5 : 0)), 8);
      }
      strip.style.width = `${Math.min(100, (most * 14) / 3)}%`;
      return [h("span", { class: "name", title: name }, name), h("span", { class: "dim number" }, times.size ? `t ${Math.max(...times.keys())}` : ""), strip];
    });
    fill(this.matrix, rows.length ? rows : h("p", { class: "dim" }, "no embryo named yet"));
  }

  put_recent() {
    fill(this.events, this.recent.map(({ embryo, timepoint, channel, good, time }) => h("li", { class: good === false ? "bad" : "" },
      h("time", { class: "dim" }, clock(time)),
      h("span", {}, [embryo, Number.isInteger(timepoint) && `t ${timepoint}`, channel, good === false && "not good"].filter(Boolean).map(value).join(" · ") || "event"))));
  }

  // --- pictures --------------------------------------------------------------------------------------------

  card(about) {
    const name = `${about.stream ?? ""} ${about.series}`;
    const found = [...this.cards.values()].find((card) => card.series === about.series);
    if (found) return found;
    const canvas = h("canvas", { role: "img", "aria-label": `live ${about.series}` });
    const title = h("b", {});
    const what = h("span", {});
    const age = h("span", { class: "dim age" });
    const node = h("figure", { class: "card", tabIndex: 0, title: "open this volume" }, canvas, h("figcaption", {}, title, what, h("span", { class: "grow" }), age));
    const card = { series: about.series, name, canvas, title, what, age, node };
    const open = () => card.event !== undefined && this.tell("gently-open", { run: card.run, stream: card.stream, event: card.event });
    node.addEventListener("click", open);
    node.addEventListener("keydown", (event) => event.key === "Enter" && open());
    this.cards.set(name, card);
    fill(this.views, [...this.cards.values()].sort((a, b) => a.series.localeCompare(b.series)).map((each) => each.node));
    this.lay_out();
    return card;
  }

  lay_out() {
    this.views.dataset.cards = String(this.cards.size);
    this.views.classList.toggle("none", !this.cards.size);
  }

  picture({ about, image }) {
    if (about.run !== this.run) {
      if (this.run) return;
      this.run = about.run;
    }
    const card = this.card(about);
    const first = !card.canvas.dataset.drawn;
    if (card.canvas.width !== image.width || card.canvas.height !== image.height) Object.assign(card.canvas, { width: image.width, height: image.height });
    card.canvas.getContext("2d").drawImage(image, 0, 0);
    Object.assign(card.canvas.dataset, { drawn: about.number, seq_num: about.seq_num ?? "", kind: about.kind });
    Object.assign(card, { run: about.run, time: about.time ?? Date.now() / 1000 + (this.skew ?? 0) });
    if (about.event !== undefined) Object.assign(card, { stream: about.stream, event: about.event });
    fill(card.title, about.view ? `view ${about.view}` : about.series);
    card.title.dataset.view = about.view ?? "";
    const said = about.kind === "frame" ? `plane ${about.plane + 1} of ${about.frames}` : [about.embryo, Number.isInteger(about.timepoint) && `t ${about.timepoint}`, about.channel].filter(Boolean).map(value).join(" · ");
    fill(card.what, said);
    fill(card.age, "now");
    if (first) this.want();
    this.tell("gently-live-drawn", { run: about.run, series: about.series, seq_num: about.seq_num, kind: about.kind, at: Date.now() });
  }
}

customElements.define("gently-now", Now);
