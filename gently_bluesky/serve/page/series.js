// What there is of a run to look at: its images, and which event shows which embryo when.

const PAGE = 1000;

/** A run with the series of one stream: shapes, voxels and events of each. */
export class Images {
  static async of(api, run, stream, { signal } = {}) {
    const about = await api.json(`/runs/${encodeURIComponent(run)}`, {}, { signal });
    const names = Object.keys(about.streams).filter((name) => about.streams[name].series.length);
    if (stream && names.length && !names.includes(stream)) throw new Error(`This run has no images in a stream "${stream}"; it has them in ${names.join(", ")}.`);
    const chosen = names.includes(stream) ? stream : names.includes("primary") ? "primary" : names[0];
    const images = new Images(api, about, names, chosen);
    if (chosen) await images.load(signal);
    return images;
  }

  constructor(api, about, streams, stream) {
    Object.assign(this, { api, about, streams, stream, run: about.uid, series: [], events: [] });
  }

  path(key, rest = "") {
    const parts = ["runs", this.run, "streams", this.stream, "series", key].map(encodeURIComponent);
    return `/${parts.join("/")}${rest}`;
  }

  /** Take in the events that came since. */
  async load(signal) {
    const { series } = this.about.streams[this.stream];
    this.series = await Promise.all(series.map((key) => this.one(key, this.series.find((each) => each.key === key), signal)));
    this.events = this.series.reduce((longest, { events }) => (events.length > longest.length ? events : longest), []);
    this.about.is_open = this.series.some(({ is_open }) => is_open);
  }

  async one(key, known, signal) {
    const events = known ? [...known.events] : [];
    let answer = { next: events.length };
    while (answer.next !== null) {
      answer = await this.api.json(this.path(key), { first: answer.next, limit: PAGE }, { signal });
      events.push(...answer.events);
    }
    const view = events.find((event) => event.view)?.view ?? null;
    return { ...answer, key, events, view, inner: answer.shape.slice(1) };
  }

  /** Sizes of a series as planes are cut: { z, y, x } in voxels, and micrometers a voxel; z is 1 for frames. */
  static geometry(series) {
    const sizes = series.inner.slice(-3);
    while (sizes.length < 3) sizes.unshift(1);
    const spacing = (series.voxel_size_um ?? []).slice(-3);
    const known = spacing.length === Math.min(3, series.inner.length);
    while (spacing.length < 3) spacing.unshift(1);
    const [z, y, x] = sizes;
    return { z, y, x, um: known ? spacing : [1, 1, 1], known, flat: series.inner.length < 3, extra: Math.max(0, series.inner.length - 3) };
  }

  /** The embryos that events name, in the order in which they came; [null] where they name none. */
  embryos() {
    return [...new Set(this.events.map((event) => event.embryo ?? null))];
  }

  /** The events of an embryo, in time. */
  of_embryo(embryo) {
    return this.events.filter((event) => (event.embryo ?? null) === embryo);
  }
}

/** Volumes of an embryo over all runs of a session, one a time: where a run holds a single volume. */
export async function of_session(api, session, embryo, { signal } = {}) {
  const found = new Map();
  let after;
  do {
    const page = await api.json("/volumes", { session, embryo, limit: 200, include_bad: true, after }, { signal });
    for (const volume of page.volumes) {
      const key = `${volume.run_uid} ${volume.stream} ${volume.seq_num}`;
      if (!found.has(key)) found.set(key, { ...volume, run: volume.run_uid });
    }
    after = page.next;
  } while (after);
  return [...found.values()].sort((a, b) => (a.timepoint ?? 0) - (b.timepoint ?? 0) || (a.time ?? 0) - (b.time ?? 0));
}
