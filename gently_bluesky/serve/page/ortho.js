// Three planes of one volume that belong together: z, y and x at one scale, cut where the lines cross.

import { h, fill } from "./dom.js";
import { draw } from "./draw.js";

// axis that is cut: what goes right, what goes down
const AXES = { z: ["x", "y"], y: ["x", "z"], x: ["z", "y"] };

/** The largest of 1, 2, 5, 10, 20 ... that is not larger. */
function round(um) {
  const power = 10 ** Math.floor(Math.log10(um));
  return Number(([5, 2, 1].find((each) => each * power <= um) * power).toPrecision(1));
}

export class Ortho {
  /** `picked(position)` is told where somebody points to: some of { z, y, x }; `probed` over what the pointer is. */
  constructor({ picked, probed }) {
    Object.assign(this, { picked, probed, layers: {}, panes: {} });
    this.caption = h("figcaption", {});
    this.corner = h("div", { class: "corner" });
    this.grid = h("div", { class: "planes" });
    for (const axis of ["z", "x", "y"]) this.panes[axis] = this.pane(axis);
    this.grid.append(this.panes.z.node, this.panes.x.node, this.panes.y.node, this.corner);
    this.node = h("figure", { class: "ortho" }, this.caption, this.grid);
  }

  pane(axis) {
    const canvas = h("canvas", { data: { axis }, role: "img", "aria-label": `plane across ${axis}` });
    const [across, down] = [h("i", { class: "line across" }), h("i", { class: "line down" })];
    const said = h("p", { class: "said" });
    const node = h("div", { class: `pane ${axis}` }, canvas, across, down, axis === "z" && (this.scale = h("span", { class: "scale" })), said);
    const pane = { axis, canvas, node, across, down, said };
    node.addEventListener("pointerdown", (event) => {
      node.setPointerCapture(event.pointerId);
      this.picked(this.place(pane, event));
    });
    node.addEventListener("pointermove", (event) => {
      const place = this.place(pane, event);
      if (node.hasPointerCapture(event.pointerId)) this.picked(place);
      this.probed(axis, place);
    });
    node.addEventListener("pointerleave", () => this.probed(axis, null));
    return pane;
  }

  place(pane, event) {
    const rect = pane.node.getBoundingClientRect();
    const [right, down] = AXES[pane.axis];
    const along = (part, size) => Math.min(size - 1, Math.max(0, Math.floor(part * size)));
    return {
      [right]: along((event.clientX - rect.left) / rect.width, this.geometry[right]),
      [down]: along((event.clientY - rect.top) / rect.height, this.geometry[down]),
    };
  }

  /** Lay the panes out in so many pixels of the page. */
  size(geometry, width, height, zoom) {
    this.geometry = geometry;
    const { z, y, x, um, flat, known } = geometry;
    const long = { z: z * um[0], y: y * um[1], x: x * um[2] };
    const gap = flat ? 0 : 6;
    const depth = flat ? 0 : long.z;
    const scale = Math.max(1e-6, Math.min((width - gap) / (long.x + depth), (height - gap) / (long.y + depth))) * zoom;
    const px = Object.fromEntries(Object.entries(long).map(([axis, size]) => [axis, Math.max(2, Math.round(size * scale))]));
    for (const [axis, pane] of Object.entries(this.panes)) {
      const [right, down] = AXES[axis];
      pane.node.hidden = flat && axis !== "z";
      pane.node.style.width = `${px[right]}px`;
      pane.node.style.height = `${px[down]}px`;
    }
    this.corner.hidden = flat;
    this.grid.style.gridTemplateColumns = flat ? `${px.x}px` : `${px.x}px ${px.z}px`;
    this.px = px;
    const bar = round(Math.min(width, px.x) / scale / 6);
    this.scale.hidden = !known || px.x < 90;
    this.scale.style.width = `${bar * scale}px`;
    fill(this.scale, bar >= 1000 ? `${bar / 1000} mm` : `${bar} µm`);
  }

  /** How many pixels of the screen a voxel of an axis has. */
  detail(axis) {
    return (this.px[axis] * (globalThis.devicePixelRatio || 1)) / this.geometry[axis];
  }

  lines({ z, y, x }, projected) {
    const at = { z, y, x };
    for (const [axis, pane] of Object.entries(this.panes)) {
      const [right, down] = AXES[axis];
      pane.node.classList.toggle("projected", projected);
      pane.down.style.left = `${((at[right] + 0.5) / this.geometry[right]) * 100}%`;
      pane.across.style.top = `${((at[down] + 0.5) / this.geometry[down]) * 100}%`;
    }
  }

  /** Show layers [{ plane, window, colour }] across an axis; words where there are none. */
  show(axis, layers) {
    const pane = this.panes[axis];
    this.layers[axis] = layers;
    if (!layers.length) return;
    fill(pane.said);
    pane.node.classList.remove("failed");
    draw(pane.canvas, layers, { transposed: axis === "x" });
    pane.canvas.classList.toggle("coarse", this.detail(AXES[axis][0]) > 1.5);
  }

  say(axis, words) {
    const pane = this.panes[axis];
    fill(pane.said, words);
    pane.node.classList.add("failed");
    this.layers[axis] = [];
  }

  /** The counts under a place of a pane. */
  counts(axis, place) {
    const [right, down] = AXES[axis];
    return (this.layers[axis] ?? []).map(({ plane, name }) => {
      const [rows, columns] = plane.shape;
      const [first, second] = axis === "x" ? [right, down] : [down, right];
      const row = Math.floor((place[first] / this.geometry[first]) * rows);
      const column = Math.floor((place[second] / this.geometry[second]) * columns);
      return { name, count: plane.data[row * columns + column] };
    });
  }
}
