// <gently-volume>: any volume of a run. Three planes that belong together, views beside or over each other,
// projections; embryo, time and depth by sliders. Its state is a plain object, so that an address can hold it.

import { Api, Lane } from "./api.js";
import { Contrast } from "./contrast.js";
import { h, fill, Part } from "./dom.js";
import { auto_window } from "./draw.js";
import { Ortho } from "./ortho.js";
import { Images, of_session } from "./series.js";
import { value, when } from "./words.js";

const SETTLED_MS = 140;
const LAYER_COLOURS = ["green", "magenta"];
const TALLEST = 0.72; // of the window

export class Volume extends Part {
  constructor() {
    super();
    this.state = {};
    this.lanes = new Map();
    this.planes = new Map();
    this.opening = new Lane();
    this.orthos = [];
    this.contrasts = new Map();
    this.sliders = { embryo: this.slider("embryo"), time: this.slider("time"), z: this.slider("z") };
    this.streams = h("select", { "aria-label": "stream", onchange: () => { this.streams.blur(); this.go_to_stream(this.streams.value); } });
    this.channels = h("select", { "aria-label": "channel", title: "channel (h)", onchange: () => { this.channels.blur(); this.go_to_channel(this.channels_there[this.channels.selectedIndex]); } });
    this.modes = h("div", { class: "segments", role: "group", "aria-label": "views" });
    this.projected = h("button", { class: "toggle", title: "maximum projections (p)", onclick: () => this.set({ mip: !this.state.mip }) }, "projection");
    this.followed = h("button", { class: "toggle", title: "go on to what comes (l)", onclick: () => this.follow(!this.state.follow) }, "latest");
    this.stage = h("div", { class: "stage" });
    this.probe = h("p", { class: "probe dim" }, "\u00a0");
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.windows = h("div", { class: "windows" });
    fill(
      this.root,
      h("div", { class: "volume" },
        this.controls = h("div", { class: "controls" },
          h("div", { class: "sliders" }, ...Object.values(this.sliders).map((slider) => slider.node)),
          h("div", { class: "row wrap" }, this.streams, this.modes, this.channels, this.projected, this.followed)),
        this.problem, this.stage, this.probe, this.windows),
    );
    this.sliders.embryo.moved = (place) => this.go_to_embryo(place);
    this.sliders.time.moved = (place) => this.go_to(this.times[place]);
    this.sliders.z.moved = (z) => this.set({ z });
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    new ResizeObserver(() => this.lay_out()).observe(this.stage);
  }

  connectedCallback() {
    this.api = new Api(this.base);
    const run = this.getAttribute("run");
    if (run) this.open({ run, event: Number(this.getAttribute("event") ?? -1) });
  }

  slider(name) {
    const input = h("input", { type: "range", min: "0", max: "0", step: "1", value: "0", "aria-label": name });
    const said = h("output", {});
    const slider = { node: h("label", { class: "slider" }, h("span", { class: "dim" }, name), said, input), input, said };
    input.addEventListener("input", () => slider.moved(Number(input.value)));
    slider.put = (place, most, words) => {
      input.max = String(Math.max(0, most));
      input.value = String(place);
      input.disabled = most <= 0;
      said.value = words;
      input.setAttribute("aria-valuetext", words);
    };
    return slider;
  }

  // --- which volume ----------------------------------------------------------------------------------------

  /**
   * Show a state: { run, stream, event, z, y, x, show, mip, zoom, windows, follow }; what is left out is found.
   * What is not there is said, and nothing is shown in its place; but where somebody only moves on, what is nearest is.
   */
  async open(state, { moving = false } = {}) {
    const { images } = this;
    const same = images?.events.length && state.run === images.run && (!state.stream || state.stream === images.stream);
    this.state = { ...state };
    this.complain(null);
    try {
      if (!same) {
        const found = await this.opening.run((signal) => Images.of(this.api, state.run, state.stream, { signal }));
        if (!found) return;
        this.take(found);
      }
      if (!moving) this.check();
      this.controls.hidden = false;
      this.settle();
    } catch (error) {
      this.show_nothing(error);
      return;
    }
    await this.find_times().catch((error) => this.complain(error));
  }

  /** Say what was asked for and is not there. */
  check() {
    const { images, state } = this;
    const within = (name, first, last) => {
      const asked = state[name];
      if (asked === undefined || (Number.isInteger(asked) && asked >= first && asked <= last)) return;
      throw new Error(`There is no ${name} ${asked}: stream "${images.stream}" of this run has ${name} 0 to ${last}.`);
    };
    const shows = [...images.series.map(({ key }) => key), ...(images.series.length > 1 ? ["beside", "over"] : [])];
    if (state.show !== undefined && !shows.includes(state.show)) throw new Error(`There is no "${state.show}" to be shown; there is ${shows.join(", ")}.`);
    within("event", -images.events.length, images.events.length - 1);
    const { z, y, x } = Images.geometry(images.series.find(({ key }) => key === state.show) ?? images.series[0]);
    for (const [axis, size] of Object.entries({ z, y, x })) within(axis, 0, size - 1);
  }

  show_nothing(error) {
    for (const lane of this.lanes.values()) lane.stop();
    if (this.images?.events.length) this.images = undefined; // one that has none yet is looked at again
    this.controls.hidden = true;
    this.orthos = [];
    fill(this.stage);
    fill(this.windows);
    this.complain(error);
  }

  /** Look again at a run that is being acquired. */
  async refresh() {
    const { images } = this;
    if (!images) return;
    if (!images.events.length) {
      await this.open({ ...this.state, stream: undefined });
      return;
    }
    try {
      const before = images.events.length;
      await this.opening.run((signal) => images.load(signal));
      if (images !== this.images) return;
      if (images.events.length > before && this.state.follow) this.set({ event: images.events.length - 1 });
      else this.settle();
    } catch (error) {
      this.complain(error);
    }
  }

  take(images) {
    this.images = images;
    this.planes.clear();
    this.known_windows = {};
    this.orthos = [];
    this.contrasts.clear();
    fill(this.stage);
    fill(this.windows);
    if (!images.series.length) throw new Error("This run has no images.");
    if (!images.events.length) throw new Error("This run has no volume yet.");
  }

  /** Hold the state against what there is, and show it. */
  settle() {
    const { images, state } = this;
    const last = images.events.length - 1;
    const event = Number.isInteger(state.event) ? state.event : last;
    state.event = Math.min(last, Math.max(0, event < 0 ? last + 1 + event : event));
    Object.assign(state, { run: images.run, stream: images.stream });
    const keys = images.series.map(({ key }) => key);
    if (!["beside", "over", ...keys].includes(state.show)) state.show = keys.length > 1 ? "beside" : keys[0];
    if (keys.length < 2 && ["beside", "over"].includes(state.show)) state.show = keys[0];
    const { z, y, x } = this.geometry;
    for (const [axis, size] of Object.entries({ z, y, x })) {
      state[axis] = Math.min(size - 1, Math.max(0, Number.isInteger(state[axis]) ? state[axis] : Math.floor(size / 2)));
    }
    state.windows ??= {};
    state.zoom ??= 1;
    this.build();
    this.put_sliders();
    this.lay_out();
  }

  get shown() {
    const { series } = this.images;
    const several = ["beside", "over"].includes(this.state.show);
    return several ? series.slice(0, this.state.show === "over" ? 2 : 4) : series.filter(({ key }) => key === this.state.show);
  }

  get geometry() {
    return Images.geometry(this.shown[0] ?? this.images.series[0]);
  }

  set(changes) {
    if (!this.images) return;
    Object.assign(this.state, changes);
    this.settle();
    this.tell("gently-state", { ...this.state });
  }

  get event() {
    return this.images.events[this.state.event];
  }

  go_to(place) {
    if (!place) return;
    if (place.run && place.run !== this.images.run) {
      const { show, mip, zoom, z, y, x, windows } = this.state;
      this.open({ show, mip, zoom, z, y, x, windows, run: place.run, stream: place.stream, event: place.event }, { moving: true })
        .then(() => this.tell("gently-state", { ...this.state }));
    } else {
      this.set({ event: place.event });
    }
  }

  go_to_embryo(place) {
    const embryo = this.images.embryos()[place];
    const events = this.images.of_embryo(embryo);
    const same = events.filter((event) => same_channel(event, this.event));
    this.go_to(at_time_of(this.event, same.length ? same : events));
    this.find_times();
  }

  go_to_channel(channel) {
    this.go_to(at_time_of(this.event, this.all_times.filter((each) => same_channel(each, { channel }))));
  }

  async go_to_stream(stream) {
    const { run, mip, zoom, follow } = this.state;
    await this.open({ run, stream, mip, zoom, follow });
    if (this.images) this.tell("gently-state", { ...this.state });
  }

  follow(yes) {
    this.set({ follow: yes, ...(yes ? { event: this.images.events.length - 1 } : {}) });
  }

  /** The times of this embryo: in this run, or in its whole session where a run holds one volume. */
  async find_times() {
    const { embryo } = this.event;
    const session = this.images.about.session;
    if (this.images.events.length > 1 || !session || embryo === null || embryo === undefined) return;
    const key = `${session} ${embryo} ${this.images.run}`;
    if (this.found?.key === key) return;
    const times = await of_session(this.api, session, embryo);
    this.found = { key, times };
    this.put_sliders();
  }

  /** When this embryo was taken, in any channel. */
  get all_times() {
    const found = this.images.events.length === 1 ? this.found?.times ?? [] : [];
    return found.some((each) => this.is_here(each)) ? found : this.images.of_embryo(this.event.embryo ?? null);
  }

  /** When it was taken in the channel that is seen. */
  get times() {
    return this.all_times.filter((each) => same_channel(each, this.event));
  }

  get channels_there() {
    return [...new Set(this.all_times.map((each) => each.channel ?? null))];
  }

  is_here(each) {
    return each.seq_num === this.event.seq_num && (each.run ?? this.state.run) === this.state.run;
  }

  put_sliders() {
    const { state, event, sliders, times } = this;
    const embryos = this.images.embryos();
    sliders.embryo.node.hidden = embryos.length < 2 && embryos[0] === null;
    sliders.embryo.put(embryos.indexOf(event.embryo ?? null), embryos.length - 1, value(event.embryo));
    sliders.time.put(times.findIndex((each) => this.is_here(each)), times.length - 1, `${event.timepoint ?? `event ${event.seq_num}`} · ${when(event.time)}`);
    choose(this.channels, this.channels_there, event.channel ?? null);
    choose(this.streams, this.images.streams, this.images.stream);
    const { z, um, known, flat } = this.geometry;
    sliders.z.node.hidden = flat;
    sliders.z.input.closest("label").classList.toggle("off", Boolean(state.mip));
    sliders.z.put(state.z, z - 1, known ? `${state.z} · ${value(Math.round(state.z * um[0] * 10) / 10)} µm` : `${state.z}`);
    this.projected.setAttribute("aria-pressed", String(Boolean(state.mip)));
    this.followed.setAttribute("aria-pressed", String(Boolean(state.follow)));
    this.followed.hidden = !this.images.about.is_open;
  }

  // --- how it is laid out ----------------------------------------------------------------------------------

  label(series) {
    return series.view ? `view ${series.view}` : series.key;
  }

  build() {
    const { series } = this.images;
    const options = series.map((each) => [each.key, this.label(each)]);
    if (series.length > 1) options.push(["beside", "side by side"], ["over", "overlay"]);
    fill(this.modes, options.length < 2 ? [] : options.map(([name, words]) => h("button", {
      "aria-pressed": String(this.state.show === name), data: { show: name }, onclick: () => this.set({ show: name }),
    }, words)));
    const blocks = this.state.show === "over" ? [this.shown] : this.shown.map((each) => [each]);
    const wanted = blocks.map((block) => block.map(({ key }) => key).join("+"));
    if (wanted.join("|") !== this.orthos.map(({ name }) => name).join("|")) {
      this.orthos = blocks.map((block, i) => this.block(block, wanted[i]));
      fill(this.stage, this.orthos.map(({ ortho }) => ortho.node));
    }
    for (const { ortho, block } of this.orthos) this.caption(ortho, block);
    const panels = this.shown.map(({ key }) => {
      if (!this.contrasts.has(key)) {
        const panel = new Contrast();
        panel.addEventListener("gently-window", (event) => this.window_set(key, event.detail));
        this.contrasts.set(key, panel);
      }
      return this.contrasts.get(key);
    });
    if (panels.length !== this.windows.children.length || panels.some((panel, i) => panel !== this.windows.children[i])) {
      fill(this.windows, panels);
    }
  }

  block(block, name) {
    const ortho = new Ortho({
      picked: (place) => !this.state.mip && this.set(place),
      probed: (axis, place) => this.probed(ortho, axis, place),
    });
    return { name, block, ortho };
  }

  caption(ortho, block) {
    const { event } = this;
    const names = block.map((each, i) => h("b", { class: block.length > 1 ? LAYER_COLOURS[i] : "" }, this.label(each)));
    const bad = event.good === false && h("span", { class: "bad" }, "marked as not good");
    const said = [event.embryo, event.timepoint !== null && event.timepoint !== undefined && `t ${event.timepoint}`, event.channel];
    if (said[1] === false) said[1] = `event ${event.seq_num}`;
    fill(ortho.caption, names, said.filter((each) => each || each === 0).map((each) => h("span", {}, String(each))), bad);
  }

  lay_out() {
    if (!this.images?.series.length || !this.orthos.length) return;
    const room = this.stage.clientWidth;
    if (!room) return;
    const gap = 20;
    const most = innerHeight * TALLEST;
    const beside = this.orthos.length > 1 && room > 600;
    const width = beside ? (room - gap * (this.orthos.length - 1)) / this.orthos.length : room;
    this.stage.classList.toggle("beside", beside);
    for (const { ortho } of this.orthos) {
      ortho.size(this.geometry, Math.floor(width), most / (beside ? 1 : Math.min(1.6, this.orthos.length)), this.state.zoom);
      ortho.lines(this.state, this.state.mip);
    }
    this.draw();
  }

  probed(ortho, axis, place) {
    if (!place) {
      fill(this.probe, "\u00a0");
      return;
    }
    const counts = ortho.counts(axis, place).map(({ name, count }) => `${name} ${value(count)}`);
    const at = { ...(this.state.mip ? {} : { z: this.state.z, y: this.state.y, x: this.state.x }), ...place };
    fill(this.probe, ["x", "y", "z"].filter((each) => each in at).map((each) => `${each} ${at[each]}`).join("  "), counts.length ? `  ·  ${counts.join("  ")} counts` : "");
  }

  wheel(event) {
    if (event.ctrlKey) this.zoom(event.deltaY < 0 ? 1.25 : 0.8);
    else if (event.target.closest?.(".pane") && !this.state.mip && !event.shiftKey) this.set({ z: this.state.z + Math.sign(event.deltaY) });
    else return;
    event.preventDefault();
  }

  zoom(by) {
    this.set({ zoom: by ? Math.min(16, Math.max(1, this.state.zoom * by)) : 1 });
  }

  // --- pixels ----------------------------------------------------------------------------------------------

  /** Fetch what is not there yet, coarse where that is all that the screen shows. */
  draw() {
    clearTimeout(this.settled);
    for (const { ortho, block } of this.orthos) {
      for (const axis of this.geometry.flat ? ["z"] : ["z", "y", "x"]) {
        for (const series of block) this.fetch(ortho, block, series, axis);
        this.paint(ortho, block, axis);
      }
    }
  }

  asked(series, axis, ortho) {
    const { state } = this;
    const geometry = Images.geometry(series);
    const include_bad = this.event.good === false ? true : undefined;
    if (state.mip && !geometry.flat && !geometry.extra) {
      return { rest: "/projection", query: { event: state.event, axis, include_bad } };
    }
    const every = (along) => {
      const by = Math.max(1, Math.floor(1 / Math.max(ortho.detail(along), 1e-6)));
      return by > 1 ? `::${by}` : ":";
    };
    const cut = geometry.flat ? [every("y"), every("x")] : ["z", "y", "x"].map((along) => (along === axis ? state[along] : along === "z" ? ":" : every(along)));
    return { rest: "/pixels", query: { slice: [state.event, ...Array(geometry.extra).fill(0), ...cut].join(","), include_bad } };
  }

  async fetch(ortho, block, series, axis) {
    const { rest, query } = this.asked(series, axis, ortho);
    const path = this.images.path(series.key, rest);
    const name = this.api.url(path, query).href;
    const place = `${series.key} ${axis}`;
    const kind = `${series.key} ${rest} ${this.event.channel ?? ""}`;
    const lane = this.lanes.get(place) ?? this.lanes.set(place, new Lane()).get(place);
    if (this.planes.get(place)?.name === name) return;
    if (lane.busy && lane.name === name) return;
    lane.name = name;
    ortho.node.setAttribute("aria-busy", "true");
    try {
      const plane = await lane.run(async (signal) => {
        if (axis === "x" && !this.api.kept.has(name)) await pause(SETTLED_MS, signal); // touches every page of its file
        return this.api.pixels(path, query, { signal });
      });
      if (!plane) return;
      this.planes.set(place, { name, plane, kind });
      this.complain(null);
      this.paint(ortho, block, axis);
    } catch (error) {
      this.planes.delete(place);
      ortho.say(axis, axis === "z" ? error.message : "");
      if (error.status === 0) this.complain(error);
    } finally {
      if (![...this.lanes.values()].some(({ busy }) => busy)) {
        for (const each of this.orthos) each.ortho.node.removeAttribute("aria-busy");
        this.tell("gently-drawn", { event: this.state.event });
      }
    }
  }

  paint(ortho, block, axis) {
    const layers = [];
    block.forEach((series, i) => {
      const found = this.planes.get(`${series.key} ${axis}`);
      if (!found) return;
      const window = this.window_of(series.key, found, axis);
      const colour = block.length > 1 ? LAYER_COLOURS[i] : "gray";
      layers.push({ plane: found.plane, window, colour, name: this.label(series) });
      if (axis === "z") this.contrasts.get(series.key)?.show({ name: this.label(series), colour, data: found.plane.data, window });
    });
    if (layers.length === block.length) {
      const [first] = layers;
      ortho.show(axis, layers.filter(({ plane }) => plane.data.length === first.plane.data.length));
    }
  }

  /** The window of a series: as it was set, else what suits the first plane, or projection, of a channel that came. */
  window_of(key, { plane, kind }, axis) {
    const set = this.state.windows?.[key];
    if (set) return set;
    if (!this.known_windows[kind] || (axis === "z" && this.known_windows[kind].axis !== "z")) {
      this.known_windows[kind] = { axis, window: auto_window(plane.data) };
    }
    return this.known_windows[kind].window;
  }

  window_set(key, window) {
    this.state.windows = { ...this.state.windows, [key]: window };
    for (const { ortho, block } of this.orthos) {
      if (block.some((series) => series.key === key)) for (const axis of ["z", "y", "x"]) this.paint(ortho, block, axis);
    }
    this.tell("gently-state", { ...this.state });
  }

  auto() {
    for (const { key } of this.shown) this.contrasts.get(key)?.auto();
  }

  complain(error) {
    this.problem.hidden = !error;
    fill(this.problem, error ? error.message : "");
  }

  /** What a key means here; whether it meant anything. */
  key(key) {
    if (!this.images?.series.length) return false;
    const { state, times } = this;
    const place = () => times.findIndex((each) => this.is_here(each));
    const channels = this.channels_there;
    const embryos = this.images.embryos();
    const keys = this.images.series.map((each) => each.key);
    const views = { 1: keys[0], 2: keys[1], 3: "beside", 4: "over" };
    const does = {
      ArrowUp: () => this.set({ z: state.z + 1 }),
      ArrowDown: () => this.set({ z: state.z - 1 }),
      PageUp: () => this.set({ z: state.z + 10 }),
      PageDown: () => this.set({ z: state.z - 10 }),
      ArrowRight: () => this.go_to(times[place() + 1]),
      ArrowLeft: () => this.go_to(times[place() - 1]),
      Home: () => this.go_to(times[0]),
      End: () => this.go_to(times.at(-1)),
      e: () => this.go_to_embryo((embryos.indexOf(this.event.embryo ?? null) + 1) % embryos.length),
      E: () => this.go_to_embryo((embryos.indexOf(this.event.embryo ?? null) + embryos.length - 1) % embryos.length),
      h: () => this.go_to_channel(channels[(channels.indexOf(this.event.channel ?? null) + 1) % channels.length]),
      p: () => this.set({ mip: !state.mip }),
      c: () => this.auto(),
      l: () => this.follow(!state.follow),
      "+": () => this.zoom(1.25),
      "=": () => this.zoom(1.25),
      "-": () => this.zoom(0.8),
      0: () => this.zoom(null),
      ...Object.fromEntries(Object.entries(views).filter(([, show]) => show).map(([each, show]) => [each, () => this.set({ show })])),
    }[key];
    does?.();
    return Boolean(does);
  }
}

const same_channel = (a, b) => (a.channel ?? null) === (b.channel ?? null);

/** Of some events, the one of the same timepoint; else the nearest in time. */
function at_time_of({ timepoint, time }, events) {
  const away = (each) => Math.abs(each.time - time);
  const same = (timepoint ?? null) === null ? [] : events.filter((each) => each.timepoint === timepoint);
  return (same.length ? same : events).reduce((a, b) => (away(b) < away(a) ? b : a));
}

/** Options of a select that is there where there is something to choose. */
function choose(select, options, chosen) {
  select.hidden = options.length < 2;
  fill(select, options.map((each) => h("option", { selected: each === chosen }, value(each))));
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

customElements.define("gently-volume", Volume);
