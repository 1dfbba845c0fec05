// The mosaic explorer: which training patches the theory paints every pixel of a sample with.
"use strict";

(async () => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
  const meta = JSON.parse($("explorer-meta").textContent);
  const { width, height, channels } = meta;
  const area = width * height;
  // Okabe and Ito's colours; neighbouring tiles never share one.
  const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"];
  const VIEWS = [["theory", meta.machine], ["network", "Network"], ["difference", "Difference"], ["mosaic", "Mosaic"], ["order", "Decided"]];
  const NOTES = {
    theory: "What the theory makes of its state.",
    network: "What the network makes of its own state.",
    difference: "Theory less network: grey where they agree, lighter where the theory is brighter.",
    mosaic: "Tiles. Neighbours differ in colour; the colours mean nothing else.",
    order: "White where a pixel is decided; black where it still weighs as many patches as there are training images, or more.",
  };
  // A patch of one pixel shows nothing: where the last step has no other, the last one before that has.
  const wide = (step) => step.slot >= 0 && step.patch !== 1;
  const first = wide(meta.steps.at(-1)) ? -1 : meta.steps.findLastIndex(wide);
  const state = { pair: Math.max(0, meta.pairs.findIndex((pair) => pair.mark === "median")), step: first < 0 ? meta.steps.length - 1 : first, view: "theory", x: width >> 1, y: height >> 1 };
  let data;
  try {
    data = await unpack($("explorer-data").textContent);
  } catch (error) {
    $("ex-off").textContent = `The explorer needs a browser that can unpack its data (${error.message}).`;
    return;
  }
  const keptAt = new Map(Array.from(data.kept, (image, place) => [image, place]));
  const tilings = new Map();

  // Data ----------------------------------------------------------------------------------------------------------

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = new Uint8Array(await new Response(stream).arrayBuffer());
    const types = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float16: Uint16Array };
    const found = {};
    for (const [name, place] of Object.entries(meta.arrays)) {
      const Type = types[place.type];
      const size = Type.BYTES_PER_ELEMENT;
      const count = place.bytes / size;
      const whole = new Uint8Array(place.bytes); // bytes of equal weight lie together in the file
      for (let byte = 0; byte < size; byte++)
        for (let i = 0; i < count; i++) whole[i * size + byte] = buffer[place.offset + byte * count + i];
      const array = new Type(whole.buffer);
      found[name] = place.type === "float16" ? Float32Array.from(array, half) : array;
    }
    return found;
  }

  function half(bits) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    return exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
  }

  const last = () => meta.steps.length - 1;
  const slot = (step = state.step) => meta.steps[step].slot;
  const slots = Math.max(...meta.steps.map((step) => step.slot)) + 1;

  /** Bytes of the image `name` at the present pair and step, channel by channel. */
  function image(name) {
    const steps = meta.arrays[name].shape[1];
    if (!steps || !meta.arrays[name].shape[0]) return null;
    if (steps === 1 && meta.steps.length > 1 && state.step !== last()) return null;
    const size = channels * area;
    const start = (state.pair * steps + Math.min(state.step, steps - 1)) * size;
    return data[name].subarray(start, start + size);
  }

  /** The sources of a pixel at the present step, the most responsible first; null if they were not computed. */
  function sources(x, y) {
    if (slot() < 0) return null;
    if (state.step === last()) {
      const start = (state.pair * area + y * width + x) * meta.top;
      const each = Array.from({ length: meta.top }, (_, i) => ({
        image: data.top_image[start + i], row: data.top_row[start + i],
        column: data.top_column[start + i], weight: data.top_weight[start + i],
      }));
      return each.filter((one) => one.image >= 0);
    }
    const i = (state.pair * slots + slot()) * area + y * width + x;
    return [{ image: data.image[i], row: data.row[i], column: data.column[i], weight: data.weight[i] }];
  }

  function effective(x, y) {
    if (slot() < 0) return null;
    const i = (state.pair * slots + slot()) * area + y * width + x;
    return Math.exp((data.entropy[i] / 255) * meta.entropyMax);
  }

  function medianEffective() {
    if (slot() < 0) return null;
    const start = (state.pair * slots + slot()) * area;
    const sorted = data.entropy.slice(start, start + area).sort();
    return Math.exp((sorted[(area - 1) >> 1] / 255) * meta.entropyMax);
  }

  /** Tiles of the present pair and step: connected pixels whose source has one image and one offset. */
  function tiling() {
    if (slot() < 0) return null;
    const key = state.pair * slots + slot();
    if (tilings.has(key)) return tilings.get(key);
    const start = key * area;
    const wraps = meta.padding === "circular";
    const mod = (value, length) => (wraps ? ((value % length) + length) % length : value);
    const same = (a, b) => data.image[start + a] === data.image[start + b]
      && mod(data.row[start + a] - Math.floor(a / width), height) === mod(data.row[start + b] - Math.floor(b / width), height)
      && mod(data.column[start + a] - (a % width), width) === mod(data.column[start + b] - (b % width), width);
    const tile = new Int32Array(area).fill(-1);
    const sizes = [];
    for (let first = 0; first < area; first++) {
      if (tile[first] >= 0) continue;
      const waiting = [first];
      tile[first] = sizes.length;
      let size = 0;
      while (waiting.length) {
        const here = waiting.pop();
        size++;
        for (const next of neighbours(here))
          if (tile[next] < 0 && same(here, next)) { tile[next] = sizes.length; waiting.push(next); }
      }
      sizes.push(size);
    }
    const colours = paint(tile, sizes.length);
    tilings.set(key, { tile, sizes, colours });
    return tilings.get(key);
  }

  function neighbours(i) {
    const x = i % width;
    return [x > 0 && i - 1, x < width - 1 && i + 1, i >= width && i - width, i < area - width && i + width]
      .filter((next) => next !== false);
  }

  /** A colour per tile, other than those of the tiles it touches as long as there are enough. */
  function paint(tile, count) {
    const touching = Array.from({ length: count }, () => new Set());
    for (let i = 0; i < area; i++) for (const next of neighbours(i)) if (tile[next] !== tile[i]) touching[tile[i]].add(tile[next]);
    const colours = new Array(count);
    for (let i = 0; i < count; i++) {
      const taken = new Set([...touching[i]].map((other) => colours[other]));
      const order = PALETTE.map((_, k) => (k + i) % PALETTE.length);
      colours[i] = order.find((colour) => !taken.has(colour)) ?? order[0];
    }
    return colours;
  }

  // Drawing -------------------------------------------------------------------------------------------------------

  /** Draws bytes as an image that fills the canvas, pixels as squares; returns the side of a pixel. */
  function show(canvas, bytes, wanted) {
    const side = Math.max(2, Math.round(wanted / Math.max(width, height)));
    canvas.width = width * side;
    canvas.height = height * side;
    const context = canvas.getContext("2d");
    const picture = new ImageData(width, height);
    for (let i = 0; i < area; i++) {
      for (let k = 0; k < 3; k++) picture.data[4 * i + k] = bytes[(channels === 3 ? k * area : 0) + i];
      picture.data[4 * i + 3] = 255;
    }
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(picture, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    return side;
  }

  /** A rectangle of pixels in two lines, dark and light, so that it shows on every ground; it may leave the image. */
  function frame(canvas, side, x, y, w, h, dashed = false) {
    const context = canvas.getContext("2d");
    const thick = Math.max(2, side / 9);
    for (const [colour, extra, dash] of [["#000", thick, []], ["#ffd23f", 0, dashed ? [thick * 2, thick * 2] : []]]) {
      context.setLineDash(dash);
      context.strokeStyle = colour;
      context.lineWidth = thick + extra;
      context.strokeRect(x * side, y * side, w * side, h * side);
    }
    context.setLineDash([]);
  }

  function borders(context, side, tile, only) {
    context.fillStyle = only === undefined ? "rgba(0,0,0,.75)" : "#ffd23f";
    const thick = Math.max(1, side / (only === undefined ? 24 : 7));
    for (let i = 0; i < area; i++) {
      if (only !== undefined && tile[i] !== only) continue;
      const x = i % width, y = Math.floor(i / width);
      const other = (dx, dy) => x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height || tile[i + dx + dy * width] !== tile[i];
      if (other(1, 0)) context.fillRect((x + 1) * side - thick, y * side, thick, side);
      if (other(-1, 0)) context.fillRect(x * side, y * side, thick, side);
      if (other(0, 1)) context.fillRect(x * side, (y + 1) * side - thick, side, thick);
      if (other(0, -1)) context.fillRect(x * side, y * side, side, thick);
    }
  }

  function difference() {
    const a = image("theory"), b = image("network");
    if (!b) return null;
    return Uint8Array.from(a, (value, i) => Math.round(127.5 + (value - b[i]) / 2));
  }

  /** The order parameter, 1 - entropy / ln N with N images of the class, if there are classes, from 0 (black) to 1 (white); null where it was not computed. */
  function order() {
    if (slot() < 0) return null;
    const start = (state.pair * slots + slot()) * area;
    const most = Math.log(Math.max(2, meta.pairs[state.pair].images));
    return Uint8Array.from({ length: channels * area }, (_, i) => {
      const entropy = (data.entropy[start + (i % area)] / 255) * meta.entropyMax;
      return Math.round(255 * Math.max(0, 1 - entropy / most));
    });
  }

  function drawMain() {
    const canvas = $("ex-canvas");
    const box = $("ex-canvas-box").clientWidth * Math.min(2, window.devicePixelRatio || 1);
    const bytes = { theory: () => image("theory"), mosaic: () => image("theory"), network: () => image("network"), difference, order }[state.view]();
    const side = show(canvas, bytes || new Uint8Array(channels * area).fill(128), Math.max(box, 280));
    const context = canvas.getContext("2d");
    const tiles = tiling();
    if (state.view === "mosaic" && tiles) {
      context.globalAlpha = 0.5;
      for (let i = 0; i < area; i++) {
        context.fillStyle = PALETTE[tiles.colours[tiles.tile[i]]];
        context.fillRect((i % width) * side, Math.floor(i / width) * side, side, side);
      }
      context.globalAlpha = 1;
      borders(context, side, tiles.tile);
    }
    if (tiles) borders(context, side, tiles.tile, tiles.tile[state.y * width + state.x]);
    const patch = meta.steps[state.step].patch;
    if (patch) frame(canvas, side, state.x - (patch >> 1), state.y - (patch >> 1), patch, patch, true);
    frame(canvas, side, state.x, state.y, 1, 1);
    canvas.dataset.pixel = `${state.y},${state.x}`;
  }

  function drawSource(canvas, source, wanted) {
    const place = source && keptAt.get(source.image);
    const size = channels * area;
    const bytes = place === undefined ? new Uint8Array(size).fill(128) : data.bank.subarray(place * size, (place + 1) * size);
    const side = show(canvas, bytes, wanted);
    if (!source || place === undefined) return false;
    const patch = meta.steps[state.step].patch;
    if (patch) {
      const wraps = meta.padding === "circular" ? [-1, 0, 1] : [0];
      for (const down of wraps) for (const right of wraps)
        frame(canvas, side, source.column - (patch >> 1) + right * width, source.row - (patch >> 1) + down * height, patch, patch);
    }
    frame(canvas, side, source.column, source.row, 1, 1);
    return true;
  }

  // Words ---------------------------------------------------------------------------------------------------------

  // Two digits of what is below 10 %, and never a power of ten.
  const percent = (weight) =>
    weight >= 0.001 ? `${(100 * weight).toFixed(weight < 0.01 ? 2 : weight < 0.1 ? 1 : 0)} %` : "less than 0.1 %";
  const count = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));

  function named(source) {
    const label = meta.keptLabels && keptAt.has(source.image) ? `, ${meta.classes[meta.keptLabels[keptAt.get(source.image)]]}` : "";
    return `${source.image}${label}`;
  }

  const describe = (source) => `training image ${named(source)}`;

  function tell() {
    const found = sources(state.x, state.y);
    const step = meta.steps[state.step];
    const tiles = tiling();
    const position = `Row ${state.y}, column ${state.x}`;
    $("ex-title").textContent = position;
    const others = $("ex-others");
    others.replaceChildren();
    let text;
    if (!found || !found.length) {
      text = "Sources were not computed at this step.";
    } else {
      const size = tiles.sizes[tiles.tile[state.y * width + state.x]];
      const where = step.patch ? `its ${step.patch}×${step.patch} patch around row ${found[0].row}, column ${found[0].column}` : "the whole image";
      text = `Leading source: ${describe(found[0])}, ${where}, with weight ${percent(found[0].weight)}. `
        + `Effective number of ${step.patch ? "patches" : "images"}: ${count(effective(state.x, state.y))}. `
        + `Tile: ${size} ${size === 1 ? "pixel" : "pixels"}.`;
      for (const source of found) others.append(runnerUp(source));
    }
    $("ex-text").textContent = text;
    const there = drawSource($("ex-source"), found && found[0], 220);
    $("ex-source").dataset.image = found && found[0] ? found[0].image : "";
    $("ex-source").dataset.patch = found && found[0] ? `${found[0].row},${found[0].column},${step.patch}` : "";
    const caption = found && found[0] ? describe(found[0]) : "no source";
    $("ex-source-caption").textContent = there || !found ? caption : `${caption} (picture left out: file size)`;
    $("ex-source").setAttribute("aria-label", `${caption}, with the source patch outlined`);
    const noisySide = show($("ex-noisy"), image("noisy"), 220);
    if (step.patch) frame($("ex-noisy"), noisySide, state.x - (step.patch >> 1), state.y - (step.patch >> 1), step.patch, step.patch);
    frame($("ex-noisy"), noisySide, state.x, state.y, 1, 1);
    $("ex-noisy-caption").textContent = "what the machine sees";
    $("ex-others-title").textContent = state.step === last() ? "Leading sources" : "Leading source (runners-up are kept for the last step)";
    return `${position}. ${text}`;
  }

  function runnerUp(source) {
    const canvas = make("canvas", { ariaHidden: "true" });
    drawSource(canvas, source, 64);
    const words = make("span", { textContent: `${named(source)} · row ${source.row}, column ${source.column}` });
    const weight = make("span", { className: "weight", textContent: percent(source.weight) });
    const bar = make("span", { className: "bar" });
    bar.style.setProperty("--share", source.weight);
    const item = make("li");
    item.append(canvas, words, weight, bar);
    return item;
  }

  function tellStep() {
    const step = meta.steps[state.step];
    const median = medianEffective();
    const parts = [`Step ${state.step + 1} of ${meta.steps.length}`, `t = ${step.time.toFixed(2)}`];
    parts.push(step.patch ? `patch ${step.patch}×${step.patch}` : "whole images");
    parts.push(median === null ? "sources not computed" : `median effective number ${count(median)}`);
    $("ex-step-text").textContent = parts.join(" · ");
    $("ex-step").setAttribute("aria-valuetext", parts.join(", "));
  }

  // Control -------------------------------------------------------------------------------------------------------

  let speaking;
  function update({ speak = true } = {}) {
    drawMain();
    const text = tell();
    tellStep();
    const pair = meta.pairs[state.pair];
    const view = VIEWS.find(([name]) => name === state.view)[1];
    const undecided = state.view === "order" && slot() < 0;
    const missing = undecided || (["network", "difference"].includes(state.view) && !image("network"));
    $("ex-canvas-box").setAttribute("aria-label", `${view} of pair ${pair.pair}, ${width} by ${height} pixels${missing ? ", not available at this step" : ""}`);
    $("ex-note").textContent = undecided ? "The sources were not computed at this step." : missing ? "The network's state at this step is not known." : NOTES[state.view];
    clearTimeout(speaking); // whoever crosses ten pixels hears of the last
    if (speak) speaking = setTimeout(() => { $("ex-live").textContent = text; }, 250);
  }

  function choices(box, name, entries, chosen, choose) {
    entries.forEach(([value, content], place) => {
      const label = make("label");
      const input = make("input", { type: "radio", name, value, checked: place === chosen });
      input.addEventListener("change", () => choose(value));
      label.append(input, content);
      box.append(label);
    });
  }

  function card(pair, place) {
    const content = make("span", { className: "card" });
    const canvas = make("canvas", { ariaHidden: "true" });
    const before = { pair: state.pair, step: state.step };
    Object.assign(state, { pair: place, step: last() });
    show(canvas, image("theory"), 64);
    Object.assign(state, before);
    const mark = make("b", { textContent: pair.mark || `#${pair.pair}` });
    content.append(canvas, mark, make("span", { textContent: `r ${pair.r.toFixed(2)}` }));
    return content;
  }

  function pixelAt(event) {
    const box = $("ex-canvas").getBoundingClientRect();
    const clip = (value, length) => Math.min(length - 1, Math.max(0, Math.floor(value)));
    return [clip(((event.clientX - box.left) / box.width) * width, width), clip(((event.clientY - box.top) / box.height) * height, height)];
  }

  function move(x, y) {
    if (x === state.x && y === state.y) return;
    Object.assign(state, { x, y });
    update();
  }

  function keys(event) {
    const { x, y } = state;
    const target = {
      ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1],
      Home: [0, y], End: [width - 1, y], PageUp: [x, 0], PageDown: [x, height - 1],
    }[event.key];
    if (!target || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(Math.min(width - 1, Math.max(0, target[0])), Math.min(height - 1, Math.max(0, target[1])));
  }

  let playing = null;
  function play() {
    const stop = () => { clearInterval(playing); playing = null; $("ex-play").textContent = "Play"; $("ex-play").setAttribute("aria-pressed", "false"); };
    if (playing !== null) return stop();
    if (state.step === last()) state.step = 0;
    $("ex-play").textContent = "Stop";
    $("ex-play").setAttribute("aria-pressed", "true");
    playing = setInterval(() => {
      if (state.step === last()) return stop();
      $("ex-step").value = ++state.step;
      update({ speak: false });
    }, matchMedia("(prefers-reduced-motion: reduce)").matches ? 1500 : 350);
  }

  $("ex-off").remove();
  $("ex-root").hidden = false;
  choices($("ex-pairs"), "ex-pair", meta.pairs.map((pair, place) => [place, card(pair, place)]), state.pair, (place) => { state.pair = Number(place); update(); });
  const chosen = $("ex-pairs").children[state.pair];
  $("ex-pairs").scrollLeft = chosen.offsetLeft - ($("ex-pairs").clientWidth - chosen.clientWidth) / 2;
  choices($("ex-views"), "ex-view", VIEWS, 0, (view) => { state.view = view; update(); });
  $("ex-step").max = last();
  $("ex-step").value = state.step;
  $("ex-step").addEventListener("input", (event) => { state.step = Number(event.target.value); update(); });
  $("ex-play").addEventListener("click", play);
  $("ex-canvas").addEventListener("pointermove", (event) => move(...pixelAt(event)));
  $("ex-canvas").addEventListener("pointerdown", (event) => move(...pixelAt(event)));
  $("ex-canvas-box").addEventListener("keydown", keys);
  window.addEventListener("resize", () => drawMain());
  update({ speak: false });
  document.documentElement.dataset.explorer = "ready";
})();
