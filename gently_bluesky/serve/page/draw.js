// Counts into colours: windows, histograms, and one or several layers on a canvas. Knows arrays and nothing else.

export const COLOURS = { gray: [255, 255, 255], green: [0, 255, 0], magenta: [255, 0, 255] };
const BINS = 256;

/** The counts at which so many percent of the pixels lie below; of every few pixels of a large plane. */
export function percentiles(data, percents) {
  const step = Math.max(1, Math.floor(data.length / 65536));
  const sample = new Float64Array(Math.ceil(data.length / step));
  let count = 0;
  for (let i = 0; i < data.length; i += step) if (Number.isFinite(data[i])) sample[count++] = data[i];
  const sorted = sample.subarray(0, count).sort();
  return percents.map((percent) => (count ? sorted[Math.min(count - 1, Math.round((percent / 100) * (count - 1)))] : 0));
}

export function auto_window(data) {
  const [low, high] = percentiles(data, [1, 99.8]);
  return [low, high > low ? high : low + 1];
}

/** How many pixels have which count: { counts, low, high }. */
export function histogram(data) {
  let low = Infinity;
  let high = -Infinity;
  for (const each of data) {
    if (each < low) low = each;
    if (each > high) high = each;
  }
  if (!(high > low)) high = low + 1;
  const counts = new Uint32Array(BINS);
  const by = BINS / (high - low);
  for (const each of data) counts[Math.min(BINS - 1, Math.max(0, Math.floor((each - low) * by)))] += 1;
  return { counts, low, high };
}

function table([red, green, blue]) {
  const packed = new Uint32Array(256);
  for (let i = 0; i < 256; i += 1) {
    packed[i] = (Math.round((blue * i) / 255) << 16) | (Math.round((green * i) / 255) << 8) | Math.round((red * i) / 255);
  }
  return packed;
}

const TABLES = Object.fromEntries(Object.entries(COLOURS).map(([name, colour]) => [name, table(colour)]));

/** Add a layer to packed pixels; colours of layers that overlap share no channel, so sums never overflow. */
function add(out, data, [low, high], packed, opaque) {
  const by = 255 / (high - low);
  if (data instanceof Uint16Array || data instanceof Uint8Array) {
    const levels = new Uint32Array(data instanceof Uint8Array ? 256 : 65536);
    for (let i = 0; i < levels.length; i += 1) {
      levels[i] = packed[Math.min(255, Math.max(0, Math.round((i - low) * by)))] + opaque;
    }
    for (let i = 0; i < out.length; i += 1) out[i] += levels[data[i]];
    return;
  }
  for (let i = 0; i < out.length; i += 1) {
    const level = (data[i] - low) * by;
    out[i] += packed[level > 255 ? 255 : level > 0 ? Math.round(level) : 0] + opaque;
  }
}

/** Draw layers [{ plane, window, colour }] of one shape; transposed, the first axis goes to the right. */
export function draw(canvas, layers, { transposed = false } = {}) {
  const [first, second] = layers[0].plane.shape;
  const [width, height] = transposed ? [first, second] : [second, first];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { alpha: false });
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const packed = transposed ? new Uint32Array(pixels.length) : pixels;
  layers.forEach(({ plane, window, colour }, i) => add(packed, plane.data, window, TABLES[colour], i === 0 ? 0xff000000 : 0));
  if (transposed) {
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) pixels[row * width + column] = packed[column * height + row];
    }
  }
  context.putImageData(image, 0, 0);
}
