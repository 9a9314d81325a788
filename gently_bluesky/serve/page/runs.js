// <gently-runs>: runs, newest first, found by words: "plan:timelapse embryo:e3 since:2026-11-23 dark".

import { Api, Lane } from "./api.js";
import { h, fill, Part } from "./dom.js";
import { counted, when } from "./words.js";

const PAGE = 40;
const WAIT_MS = 200;
const NAMED = { plan: "plan_name", plan_name: "plan_name", session: "session", embryo: "embryo", operator: "operator",
  purpose: "purpose", tag: "tag", since: "since", until: "until" };

/** What a search asks the server: names with a colon, and the rest as text. */
export function question(search) {
  const asked = {};
  const words = [];
  for (const [part, name, quoted, plain] of search.matchAll(/(?:(\w+):)?(?:"([^"]*)"|(\S+))/g)) {
    const said = quoted ?? plain;
    if (name && NAMED[name]) asked[NAMED[name]] = said;
    else words.push(name ? part : said);
  }
  if (words.length) asked.text = words.join(" ");
  return asked;
}

export class Runs extends Part {
  constructor() {
    super();
    this.lane = new Lane();
    this.search = h("input", { type: "search", placeholder: "search runs", "aria-label": "search runs", spellcheck: "false",
      title: "words of a start document, or plan: session: embryo: operator: purpose: tag: since: until:" });
    this.list = h("ol", { class: "runs" });
    this.more = h("button", { class: "quiet", hidden: true, onclick: () => this.load(this.next) }, "older runs");
    this.said = h("p", { class: "dim said" });
    fill(this.root, h("div", { class: "rail" }, this.search, this.list, this.said, this.more));
    this.search.addEventListener("input", () => this.changed(WAIT_MS));
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.list.querySelector("a")?.click();
      if (event.key !== "Escape") return;
      event.preventDefault(); // a browser empties the box and does not say so
      if (this.search.value) {
        this.search.value = "";
        this.changed(0);
      }
      this.search.blur();
    });
  }

  connectedCallback() {
    this.api = new Api(this.base);
  }

  changed(wait_ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.tell("gently-search", this.search.value);
      this.load();
    }, wait_ms);
  }

  focus_search() {
    this.search.focus();
    this.search.select();
  }

  async load(after) {
    try {
      const page = await this.lane.run((signal) => this.api.json("/runs", { ...question(this.search.value), limit: PAGE, after }, { signal }));
      if (!page) return;
      const items = page.runs.map((run) => this.item(run));
      if (after) this.list.append(...items);
      else fill(this.list, items);
      this.next = page.next;
      this.more.hidden = !page.next;
      fill(this.said, page.runs.length || after ? "" : `Nothing found: ${page.why_none || "there are no runs yet"}.`);
      this.mark(this.current);
    } catch (error) {
      fill(this.said, error.message);
    }
  }

  item(run) {
    const events = Object.values(run.streams).reduce((sum, each) => sum + each, 0);
    const state = run.is_open ? "open" : run.exit_status;
    const words = run.is_open ? "no stop document yet" : run.exit_status;
    return h("li", {},
      h("a", { href: `#run=${encodeURIComponent(run.uid)}`, data: { run: run.uid } },
        h("span", { class: `dot ${state}`, title: words }),
        h("span", { class: "what" }, run.plan_name ?? "run", run.embryo && typeof run.embryo === "string" && h("span", { class: "dim" }, ` ${run.embryo}`)),
        h("span", { class: "dim where" }, [when(run.time), counted(events, "event"), run.session, ...run.tags.map((tag) => `#${tag}`)].filter(Boolean).join(" · "))));
  }

  mark(uid) {
    this.current = uid;
    for (const link of this.list.querySelectorAll("a")) {
      if (link.dataset.run === uid) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }
}

customElements.define("gently-runs", Runs);
