// <gently-page>: the parts on one page, its address, and its keys. The address after # says what is seen.

import { h, fill, Part } from "./dom.js";
import "./now.js";
import "./runs.js";
import "./story.js";
import "./volume.js";

const HEARING_MS = 250;
const KEYS = [
  ["↑ ↓", "z, by one plane (Page: ten)"], ["← →", "earlier, later timepoint (Home, End)"], ["e E", "next, previous embryo"], ["h", "next channel"],
  ["1 2", "one view"], ["3 4", "side by side, overlay"], ["p", "projections"], ["c", "contrast found anew"],
  ["+ − 0", "larger, smaller, all"], ["f", "images alone"], ["l", "go on to the latest"], ["n", "what happens now"], ["/", "search"], ["?", "keys"], ["Esc", "back"],
];

/** What an address says: the part after "#" into a state. */
export function read_address(hash) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (name) => (/^-?\d+$/.test(said.get(name) ?? "") ? Number(said.get(name)) : said.get(name) ?? undefined); // words stay, to be told what is wrong
  const search = said.get("q");
  if (!said.get("run")) return { search };
  const windows = {};
  for (const each of (said.get("w") ?? "").split(";")) {
    const found = each.match(/^(.+):(-?[\d.]+),(-?[\d.]+)$/);
    if (found) windows[found[1]] = [Number(found[2]), Number(found[3])];
  }
  const zoom = Number(said.get("zoom") ?? 1);
  return {
    search, run: said.get("run"), stream: said.get("stream") ?? undefined, event: number("event"),
    z: number("z"), y: number("y"), x: number("x"), show: said.get("show") ?? undefined, mip: said.get("mip") === "1",
    follow: said.get("follow") === "1", zoom: zoom >= 1 && zoom <= 16 ? zoom : 1, windows,
  };
}

export function write_address(state) {
  const said = new URLSearchParams();
  for (const name of ["run", "stream", "event", "z", "y", "x", "show"]) if (state[name] !== undefined) said.set(name, state[name]);
  if (state.mip) said.set("mip", "1");
  if (state.follow) said.set("follow", "1");
  if (state.zoom > 1) said.set("zoom", String(Math.round(state.zoom * 100) / 100));
  const windows = Object.entries(state.windows ?? {}).map(([key, [low, high]]) => `${key}:${low},${high}`);
  if (windows.length) said.set("w", windows.join(";"));
  if (state.search) said.set("q", state.search);
  return `#${said}`;
}

class Page extends Part {
  connectedCallback() {
    const part = (name) => h(`gently-${name}`, this.base ? { base: this.base } : {});
    Object.assign(this, { now: part("now"), runs: part("runs"), volume: part("volume"), story: part("story") });
    this.connection = h("span", { class: "connection", role: "status" });
    this.help = h("dialog", { class: "help" }, h("h2", {}, "keys"), h("dl", {}, KEYS.map(([key, words]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, words)])), h("form", { method: "dialog" }, h("button", {}, "close")));
    this.main = h("main", {}, this.now, this.volume);
    fill(
      this.root,
      h("div", { class: "page" },
        h("header", { class: "top" },
          h("button", { class: "menu", "aria-label": "runs", title: "runs", onclick: () => this.classList.toggle("rail-open") }, "☰"),
          h("a", { href: "#", class: "brand", title: "what happens now (n)" }, "gently"),
          h("nav", {}, this.tab_now = h("a", { href: "#" }, "now"), this.tab_volume = h("a", { href: "#run=-1" }, "volumes")),
          h("span", { class: "grow" }), this.connection,
          h("button", { class: "quiet", title: "keys (?)", "aria-label": "keys", onclick: () => this.help.showModal() }, "?")),
        this.runs, this.main, this.story),
      this.help,
    );
    this.addEventListener("gently-open", ({ detail }) => this.visit(detail));
    this.addEventListener("gently-state", ({ detail }) => this.put(detail));
    this.addEventListener("gently-search", ({ detail }) => { this.search = detail; this.write(); });
    this.addEventListener("gently-tagged", () => this.runs.load());
    this.addEventListener("gently-document", ({ detail }) => this.heard(detail));
    this.addEventListener("gently-connection", ({ detail }) => {
      this.connection.className = `connection ${detail.connected ? "" : "lost"}`;
      fill(this.connection, detail.connected ? "" : "server gone");
    });
    addEventListener("hashchange", () => this.read());
    addEventListener("keydown", (event) => this.key(event));
    this.read().then(() => this.runs.load());
  }

  // --- the address -----------------------------------------------------------------------------------------

  async read() {
    clearTimeout(this.writing);
    this.hash = location.hash;
    const { search, ...state } = read_address(this.hash);
    if (search !== null && search !== (this.search ?? "")) {
      this.search = search;
      this.runs.search.value = search;
      this.runs.load();
    }
    this.classList.remove("rail-open");
    const seen = state.run ? "volume" : "now";
    const came_back = this.dataset.seen !== seen;
    this.dataset.seen = seen;
    this.tab_now.toggleAttribute("data-here", seen === "now");
    this.tab_volume.toggleAttribute("data-here", seen === "volume");
    if (!state.run) {
      this.runs.mark(null);
      document.title = "gently";
      return;
    }
    if (came_back && this.state && this.volume.images?.run === state.run && state.event === undefined) Object.assign(state, { ...this.state });
    await this.volume.open(state);
    if (this.volume.images) {
      this.put(this.volume.state);
      this.story.hidden = false;
    } else {
      this.state = { ...state }; // the address stays as it was asked
      this.runs.mark(null);
      this.story.hidden = true;
      document.title = "gently";
    }
  }

  visit(state) {
    location.hash = write_address({ ...state, search: this.search });
  }

  /** Take note of what is seen: in the address, the list of runs and the story. */
  put(state) {
    this.state = { ...state };
    this.write();
    this.runs.mark(state.run);
    this.tab_volume.setAttribute("href", write_address(state));
    const { images, event } = this.volume;
    this.story.open(state).then(() => this.story.put_files(images.series.map(({ key, events }) => ({ key, ...events[state.event] }))));
    document.title = [event?.embryo, images.about.plan_name, "gently"].filter(Boolean).join(" · ");
  }

  write() {
    clearTimeout(this.writing); // browsers allow so many in so many seconds
    this.writing = setTimeout(() => {
      if (location.hash !== this.hash) return; // somebody goes elsewhere: that is read first
      const state = this.dataset.seen === "volume" ? this.state : {};
      history.replaceState(null, "", write_address({ ...state, search: this.search }));
      this.hash = location.hash;
    }, 120);
  }

  // --- what happens ----------------------------------------------------------------------------------------

  heard({ run, name }) {
    if (name === "start" || name === "stop") this.runs.load();
    if (this.dataset.seen !== "volume" || this.volume.images?.run !== run) return;
    if (name === "stop") this.story.refresh();
    if (name === "event" || name === "stop") this.hearing ??= setTimeout(() => { // events may come faster than they need be seen
      this.hearing = undefined;
      this.volume.refresh();
    }, HEARING_MS);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.composedPath()[0];
    if (target instanceof HTMLElement && target.closest("input:not([type=range]), textarea, select, dialog[open]")) return;
    const range = target instanceof HTMLInputElement && event.key.startsWith("Arrow");
    if (range) return;
    const does = {
      "/": () => { this.classList.add("rail-open"); this.runs.focus_search(); },
      "?": () => this.help.showModal(),
      n: () => { location.hash = ""; },
      f: () => this.classList.toggle("wide"),
      Escape: () => { if (this.classList.contains("rail-open")) this.classList.remove("rail-open"); else location.hash = ""; },
    }[event.key];
    if (does) does();
    else if (this.dataset.seen !== "volume" || !this.volume.key(event.key)) return;
    event.preventDefault();
  }
}

customElements.define("gently-page", Page);
