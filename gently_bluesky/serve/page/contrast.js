// <gently-contrast>: a histogram with the counts that are black and white; dragged, typed, or found.

import { h, fill, Part } from "./dom.js";
import { auto_window, histogram } from "./draw.js";
import { value } from "./words.js";

const NEAR_PX = 14;

export class Contrast extends Part {
  constructor() {
    super();
    this.canvas = h("canvas", { class: "histogram", width: 320, height: 72, tabIndex: 0, role: "slider", "aria-label": "window" });
    this.low = h("input", { type: "number", class: "count", "aria-label": "black at", onchange: () => this.typed() });
    this.high = h("input", { type: "number", class: "count", "aria-label": "white at", onchange: () => this.typed() });
    this.name = h("span", { class: "name" });
    fill(
      this.root,
      h("div", { class: "contrast" },
        h("div", { class: "row" }, this.name, h("span", { class: "grow" }), this.low, h("span", { class: "dim" }, "–"), this.high,
          h("button", { class: "quiet", title: "1 to 99.8 percent (c)", onclick: () => this.auto() }, "auto")),
        this.canvas),
    );
    this.canvas.addEventListener("pointerdown", (event) => this.grab(event));
    this.canvas.addEventListener("dblclick", () => this.auto());
  }

  /** Show a plane's counts: { name, colour, data, window }. */
  show({ name, colour, data, window }) {
    if (data !== this.data) {
      this.data = data;
      this.counts = histogram(data);
    }
    Object.assign(this, { window, colour });
    fill(this.name, name);
    this.dataset.colour = colour;
    [this.low.value, this.high.value] = window.map((bound) => value(Math.round(bound * 10) / 10));
    this.draw();
  }

  auto() {
    if (this.data) this.set(auto_window(this.data));
  }

  typed() {
    this.set([Number(this.low.value), Number(this.high.value)]);
  }

  set([low, high]) {
    if (!Number.isFinite(low) || !Number.isFinite(high)) return;
    this.window = high > low ? [low, high] : [low, low + 1];
    [this.low.value, this.high.value] = this.window.map((bound) => value(Math.round(bound * 10) / 10));
    this.draw();
    this.tell("gently-window", this.window);
  }

  /** The counts that the canvas spans: those that there are, and the window. */
  get span() {
    const { low, high } = this.counts;
    const [from, to] = [Math.min(low, this.window[0]), Math.max(this.window[1] + (this.window[1] - this.window[0]) * 0.5, low + (high - low) * 0.02)];
    return [from, Math.max(to, from + 1)];
  }

  grab(event) {
    if (!this.data) return;
    const [from, to] = this.span;
    const rect = this.canvas.getBoundingClientRect();
    const at = (x) => from + ((x - rect.left) / rect.width) * (to - from);
    const px = this.window.map((bound) => rect.left + ((bound - from) / (to - from)) * rect.width);
    const away = px.map((x) => Math.abs(x - event.clientX));
    const end = Math.min(...away) > NEAR_PX ? null : away[0] < away[1] ? 0 : 1;
    const begun = { at: at(event.clientX), window: [...this.window] };
    this.canvas.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const now = at(moved.clientX);
      const next = [...begun.window];
      if (end === null) next.forEach((bound, i) => { next[i] = bound + now - begun.at; });
      else next[end] = end ? Math.max(now, next[0] + 1) : Math.min(now, next[1] - 1);
      this.set(next.map(Math.round));
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("lostpointercapture", () => this.canvas.removeEventListener("pointermove", move), { once: true });
  }

  draw() {
    if (!this.counts) return;
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this);
    const [from, to] = this.span;
    const { counts, low, high } = this.counts;
    const most = Math.log1p(Math.max(...counts));
    context.clearRect(0, 0, width, height);
    const x = (count) => ((count - from) / (to - from)) * width;
    context.fillStyle = style.getPropertyValue("--line").trim() || "#222";
    context.fillRect(x(this.window[0]), 0, x(this.window[1]) - x(this.window[0]), height);
    context.fillStyle = style.getPropertyValue(`--${this.colour}`).trim() || "#9aa4b2";
    const bin = (high - low) / counts.length;
    const wide = Math.max(1, (bin / (to - from)) * width);
    counts.forEach((count, i) => {
      if (count) context.fillRect(x(low + i * bin), height, wide, -(Math.log1p(count) / most) * (height - 4));
    });
    context.fillStyle = style.getPropertyValue("--text").trim() || "#fff";
    for (const bound of this.window) context.fillRect(Math.min(width - 1.5, Math.max(0, x(bound) - 0.75)), 0, 1.5, height);
  }
}

customElements.define("gently-contrast", Contrast);
