// Numbers, times and bytes as people read them.

const LONG = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
const SHORT = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

export const bytes = (number) => {
  if (!Number.isFinite(number)) return "";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let step = 0;
  while (number >= 1000 && step < units.length - 1) [number, step] = [number / 1000, step + 1];
  return `${number >= 100 || step === 0 ? Math.round(number) : number.toFixed(1)} ${units[step]}`;
};

export const clock = (seconds) => (Number.isFinite(seconds) ? SHORT.format(seconds * 1000) : "");
export const moment = (seconds) => (Number.isFinite(seconds) ? LONG.format(seconds * 1000) : "");
export const when = (seconds) => {
  if (!Number.isFinite(seconds)) return "";
  const today = new Date().toDateString() === new Date(seconds * 1000).toDateString();
  return today ? clock(seconds) : `${DAY.format(seconds * 1000)} ${clock(seconds).slice(0, 5)}`;
};

export const duration = (seconds) => {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  const hours = Math.floor(seconds / 3600);
  return hours < 48 ? `${hours} h ${Math.round((seconds % 3600) / 60)} min` : `${Math.round(hours / 24)} d`;
};

export const ago = (seconds) => (seconds < 1.5 ? "now" : `${duration(seconds)} ago`);

export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** A value of a document in one line. */
export const value = (item) => {
  if (item === null || item === undefined) return "–";
  if (typeof item === "number") return String(Number.isInteger(item) ? item : Number(Math.abs(item) < 1e5 ? item.toPrecision(6) : item.toFixed(1)));
  if (typeof item === "string") return item;
  if (typeof item === "boolean") return item ? "yes" : "no";
  if (Array.isArray(item)) return item.length > 12 ? `${item.length} values` : item.map(value).join(", ");
  if ("$float" in item) return item.$float;
  const text = JSON.stringify(item);
  return text.length > 120 ? `${text.slice(0, 117)}…` : text;
};

/** Seconds since the epoch, or some of them, as a date and a clock; null for what is none: a name and a unit tell. */
const EPOCH = 1e9; // s; durations are shorter
export const clock_time = (key, unit, item) => {
  const some = Array.isArray(item) ? item : [item];
  const is_time = (unit === "s" || /(^|_)times?$/.test(key)) && some.length && some.every((each) => typeof each === "number" && each > EPOCH);
  if (!is_time) return null;
  const exact = (seconds) => `${LONG.format(seconds * 1000)}.${String(Math.floor(seconds * 1000) % 1000).padStart(3, "0")}`;
  return some.length > 2 ? `${exact(some[0])} to ${exact(some.at(-1))}, ${some.length} times` : some.map(exact).join(", ");
};

/** A name as it is said: "spim_z_step_um" of device "spim" is "z step" in "µm". */
const UNITS = { um: "µm", deg: "°", ms: "ms", s: "s", px: "px", pixel: "px", pct: "%", percent: "%", c: "°C", hz: "Hz", nm: "nm" };
export const spoken = (key, units) => {
  const words = key.split("_");
  const per = words.at(-2) === "per" && [words.at(-3), words.at(-1)].map((each) => UNITS[each]);
  if (per && per.every(Boolean)) return { name: words.slice(0, -3).join(" "), unit: per.join("/") };
  const last = UNITS[words.at(-1)?.toLowerCase()];
  const unit = last ?? UNITS[units] ?? units ?? "";
  return { name: (last && words.length > 1 ? words.slice(0, -1) : words).join(" "), unit };
};
