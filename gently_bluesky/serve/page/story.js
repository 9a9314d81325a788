// <gently-story>: what a run was, beside its pixels: plan, this event's numbers, devices, files, where it came from.

import { Api, Lane } from "./api.js";
import { h, fill, Part } from "./dom.js";
import { bytes, counted, duration, moment, clock_time, spoken, value, when } from "./words.js";

const MOST_POINTS = 2000;
const SVG = "http://www.w3.org/2000/svg";

export class Story extends Part {
  constructor() {
    super();
    this.lane = new Lane();
    this.row = new Lane();
    this.line = new Lane();
    this.body = h("div", { class: "story" });
    fill(this.root, this.body);
  }

  connectedCallback() {
    this.api = new Api(this.base);
    const run = this.getAttribute("run");
    if (run) this.open({ run, event: 0 });
  }

  /** Tell of an event of a run: { run, stream, event }. */
  async open({ run, stream, event }) {
    const asked = `${run} ${stream} ${event}`;
    if (asked === this.asked) return;
    this.asked = asked;
    try {
      if (run !== this.about?.uid) {
        const about = await this.lane.run((signal) => this.api.json(`/runs/${encodeURIComponent(run)}`, {}, { signal }));
        if (!about) return;
        this.about = about;
        this.build();
      }
      await this.tell_event(stream, event);
    } catch (error) {
      fill(this.body, h("p", { class: "problem" }, error.message));
    }
  }

  async refresh() {
    if (!this.about) return;
    const about = await this.lane.run((signal) => this.api.json(`/runs/${encodeURIComponent(this.about.uid)}`, {}, { signal })).catch(() => null);
    if (about && about.uid === this.about.uid) {
      this.about = about;
      this.put_plan();
    }
  }

  build() {
    this.plan = h("section", {});
    const saying = this.saying();
    this.numbers = h("section", {});
    this.rest = h("section", {});
    fill(this.body, this.plan, saying, this.numbers, this.rest);
    this.filter = "";
    this.put_plan();
    this.put_rest();
  }

  /** Where a tag or a note is given, if the server takes any. */
  saying() {
    const tag = h("input", { class: "small", placeholder: "tag", "aria-label": "tag" });
    const note = h("textarea", { rows: 2, placeholder: "note", "aria-label": "note" });
    const by = h("input", { class: "small", placeholder: "who says so", "aria-label": "by", required: true, value: this.by ?? "", onchange: () => { this.by = by.value.trim(); } });
    const problem = h("p", { class: "problem", hidden: true });
    const say = async () => {
      problem.hidden = true;
      try {
        const said = { add: tag.value.trim() ? [tag.value.trim()] : [], note: note.value.trim(), by: by.value.trim() };
        await this.api.json(`/runs/${encodeURIComponent(this.about.uid)}/tags`, {}, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(said) });
        tag.value = note.value = "";
        await this.refresh();
        this.tell("gently-tagged", { run: this.about.uid });
      } catch (error) {
        fill(problem, error.message);
        problem.hidden = false;
      }
    };
    const add = h("button", { onclick: () => (tag.value.trim() || note.value.trim()) && by.reportValidity() && say() }, "add");
    const all = h("section", { class: "saying", hidden: true }, note, tag, by, add, problem);
    this.may_tag ??= this.api.json("").then(({ may_tag }) => may_tag, () => false);
    this.may_tag.then((may) => { all.hidden = !may; });
    return all;
  }

  pairs(pairs) {
    const there = pairs.filter(([, said]) => said !== null && said !== undefined && said !== "" && said !== false);
    return h("dl", {}, there.map(([name, said]) => [h("dt", {}, name), h("dd", {}, said instanceof Node ? said : value(said))]));
  }

  put_plan() {
    const { about } = this;
    const { start, stop } = about;
    const state = about.is_open ? "running" : about.exit_status;
    const words = { running: "no stop yet", success: "finished", abort: "aborted", fail: "failed" }[state] ?? state;
    fill(this.plan,
      h("h2", {}, about.plan_name ?? "run", h("span", { class: `pill ${state}` }, words)),
      this.pairs([
        ["started", moment(start.time)],
        ["took", stop && duration(stop.time - start.time)],
        ["reason", stop?.reason],
        ["session", start.session],
        ["embryo", start.embryo],
        ["operator", start.operator],
        ["purpose", start.purpose],
        ["scan", start.scan_id],
        ["uid", h("code", { title: "click to copy", onclick: () => navigator.clipboard?.writeText(about.uid) }, about.uid)],
        ["size", bytes(about.disk_bytes)],
        ["damage", about.damage],
      ]),
      h("p", { class: "tags" }, about.tags.map((tag) => h("span", { class: "tag" }, tag))),
      about.notes.filter((note) => note.text).map((note) => h("blockquote", {}, note.text, h("footer", { class: "dim" }, `${note.by}, ${when(note.time)}`))));
  }

  // --- one event -------------------------------------------------------------------------------------------

  async tell_event(stream, event) {
    const name = stream ?? Object.keys(this.about.streams)[0];
    if (!name || event === undefined || event === null) return;
    const path = `/runs/${encodeURIComponent(this.about.uid)}/streams/${encodeURIComponent(name)}`;
    const table = await this.row.run((signal) => this.api.json(path, { first: Math.max(0, event), limit: 1 }, { signal }));
    if (!table || !table.seq_num.length) return;
    const keys = this.about.streams[name].data_keys;
    this.event = { path, stream: name, event, events: table.events, row: Object.fromEntries(Object.entries(table.columns).map(([key, [cell]]) => [key, cell])), keys };
    const search = h("input", { type: "search", class: "small", placeholder: "filter", value: this.filter, "aria-label": "filter numbers", oninput: () => { this.filter = search.value; this.put_numbers(); } });
    this.table = h("div", {});
    fill(this.numbers,
      h("header", { class: "row" }, h("h3", {}, `event ${table.seq_num[0]}`), h("span", { class: "dim" }, when(table.time[0])), h("span", { class: "grow" }), search),
      this.table);
    this.put_numbers();
  }

  put_numbers() {
    const { row, keys } = this.event;
    const groups = new Map();
    for (const [key, cell] of Object.entries(row)) {
      if (!key.toLowerCase().includes(this.filter.toLowerCase())) continue;
      const device = keys[key]?.object_name ?? key;
      groups.set(device, [...(groups.get(device) ?? []), [key, cell]]);
    }
    const single = [...groups].filter(([device, cells]) => cells.length === 1 && cells[0][0] === device).flatMap(([, cells]) => cells);
    const several = [...groups].filter(([device, cells]) => !(cells.length === 1 && cells[0][0] === device));
    fill(this.table,
      single.length ? this.rows("", single) : null,
      several.map(([device, cells]) => this.rows(device, cells)));
  }

  rows(device, cells) {
    const lines = cells.map(([key, cell]) => {
      const { name, unit } = spoken(device && key.startsWith(`${device}_`) ? key.slice(device.length + 1) : key, this.event.keys[key]?.units);
      const time = clock_time(key, unit, cell);
      const plots = typeof cell === "number" && this.event.events > 1;
      return h("tr", { class: plots ? "plots" : "", title: key, tabIndex: plots ? 0 : undefined, onclick: plots && ((each) => this.plot(each.currentTarget, key)), onkeydown: plots && ((each) => each.key === "Enter" && this.plot(each.currentTarget, key)) },
        h("th", {}, name), time ? h("td", { colSpan: 2 }, time) : [h("td", {}, value(cell)), h("td", { class: "dim" }, unit)]);
    });
    return h("details", { open: true }, device ? h("summary", {}, device) : h("summary", {}, "address"), h("table", {}, lines));
  }

  async plot(line, key) {
    if (line.nextSibling?.classList?.contains("plot")) {
      line.nextSibling.remove();
      return;
    }
    const first = Math.max(0, this.event.events - MOST_POINTS);
    const by = ["embryo", "channel"].filter((each) => each in this.event.row);
    const table = await this.line.run((signal) => this.api.json(this.event.path, { first, limit: MOST_POINTS, keys: [...new Set([key, ...by])].join(",") }, { signal })).catch(() => null);
    if (!table) return;
    const lines = new Map(); // what was measured of two embryos, or in two channels, is no one course
    table.columns[key].forEach((cell, i) => {
      const of = by.map((each) => value(table.columns[each][i])).join(" · ");
      if (typeof cell === "number") lines.set(of, [...(lines.get(of) ?? []), [first + i, cell]]);
    });
    const here = by.map((each) => value(this.event.row[each])).join(" · ");
    const said = (each) => clock_time(key, spoken(key, this.event.keys[key]?.units).unit, each) ?? value(each);
    line.after(h("tr", { class: "plot" }, h("td", { colSpan: 3 }, curve(lines, here, this.event.event, said))));
  }

  // --- the rest --------------------------------------------------------------------------------------------

  put_rest() {
    const { about } = this;
    const streams = Object.entries(about.streams);
    const relatives = (runs) => runs.map(({ run, kind, is_there }) => h("li", {}, is_there ? h("a", { href: `#run=${encodeURIComponent(run)}` }, run.slice(0, 8)) : h("span", {}, `${run.slice(0, 8)}, which is gone`), h("span", { class: "dim" }, ` ${kind}`)));
    const configuration = h("details", {}, h("summary", {}, "device configuration"));
    configuration.addEventListener("toggle", () => configuration.open && this.configure(configuration), { once: true });
    const known = new Set(["uid", "time", "session", "operator", "purpose", "scan_id", "plan_name", "embryo", "versions", "hints", "parents"]);
    fill(this.rest,
      h("details", {}, h("summary", {}, "plan arguments"), this.pairs(Object.entries(about.start).filter(([key]) => !known.has(key)).map(([key, said]) => [spoken(key).name, said]))),
      configuration,
      h("details", {}, h("summary", {}, "files"), streams.map(([name, stream]) => h("p", {}, `${name}: ${counted(stream.events, "event")}`, stream.series.length ? `, images ${stream.series.join(", ")}` : "")),
        h("p", { class: "dim" }, `${bytes(about.disk_bytes)} on disk`), this.source = h("p", { class: "path" })),
      about.parents.length + about.children.length ? h("details", { open: true }, h("summary", {}, "lineage"),
        about.parents.length ? [h("p", { class: "dim" }, "made from"), h("ul", {}, relatives(about.parents))] : null,
        about.children.length ? [h("p", { class: "dim" }, "from it were made"), h("ul", {}, relatives(about.children))] : null) : null,
      h("details", {}, h("summary", {}, "versions"), this.pairs(Object.entries(about.start.versions ?? {}))));
  }

  /** Say in which files a volume is: [{ key, source, removed }]. */
  put_files(files) {
    if (this.source) fill(this.source, files.map(({ key, source, removed }) => h("span", { class: removed ? "bad" : "" }, `${key}: ${removed ?? source ?? "in the event"}`, h("br"))));
  }

  async configure(where) {
    try {
      const text = await this.api.fetch(`/runs/${encodeURIComponent(this.about.uid)}/documents`, {}, { take: (response) => response.text() });
      const documents = text.split("\n").filter(Boolean).slice(0, 200).map((line) => JSON.parse(line));
      const found = documents.filter(({ name }) => name === "descriptor").flatMap(({ doc }) => Object.entries(doc.configuration ?? {}));
      for (const [device, { data }] of found) {
        if (Object.keys(data).length) where.append(h("h4", {}, device), this.pairs(Object.entries(data).map(([key, said]) => [key.startsWith(`${device}_`) ? key.slice(device.length + 1) : key, said])));
      }
    } catch (error) {
      where.append(h("p", { class: "problem" }, error.message));
    }
  }
}

/** Lines of [event, value] by what they are of; the one of `here` stands out, and its `event` has a dot. */
function curve(lines, here, event, said) {
  const [width, height, pad] = [300, 64, 4];
  const points = [...lines.values()].flat();
  const values = points.map(([, each]) => each);
  const events = points.map(([each]) => each);
  const [begin, end] = [Math.min(...events), Math.max(...events)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (each) => pad + ((each - begin) / Math.max(1, end - begin)) * (width - 2 * pad);
  const y = (each) => height - pad - ((each - low) / (high - low || 1)) * (height - 2 * pad);
  const svg = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, each] of Object.entries(attributes)) node.setAttribute(name, each);
    return node;
  };
  const all = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", role: "img", "aria-label": `${said(low)} to ${said(high)}` });
  for (const [of, line] of lines) {
    const drawn = svg("polyline", { class: of === here ? "here" : "", points: line.map(([each, number]) => `${x(each).toFixed(1)},${y(number).toFixed(1)}`).join(" ") });
    drawn.append(Object.assign(svg("title", {}), { textContent: of }));
    all.append(drawn);
  }
  const at = points.find(([each]) => each === event);
  if (at) all.append(svg("circle", { cx: x(at[0]), cy: y(at[1]), r: 3 }));
  return h("figure", {}, all, h("figcaption", { class: "dim" }, `${said(low)} to ${said(high)}${lines.size > 1 ? ` · bright: ${here}` : ""}`));
}

customElements.define("gently-story", Story);
