// Scales, ticks and axes, which all pictures share; and the front of two figures.

const LEAST_WIDTH = 240; // pixels of a picture, also while its place has none

/** A scale from values to pixels; on a logarithmic one only values above zero have a place. */
function makeScale(low, high, from, to, log = false) {
  const place = log ? Math.log10 : (value) => value;
  const [start, end] = [place(low), place(high)];
  const span = end - start || 1;
  const at = (value) => from + ((place(value) - start) / span) * (to - from);
  const back = (pixel) => {
    const value = start + ((pixel - from) / (to - from)) * span;
    return log ? 10 ** value : value;
  };
  return { at, back, low, high, log, ticks: () => (log ? logTicks(low, high) : ticks(low, high, Math.abs(to - from) / 70)) };
}

/** The range of values with a little room at both ends; null where there are none. */
function rangeOf(values, log = false, room = 0.05) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  if (log) {
    const more = Math.max((high / low) ** room, 1.02);
    return [low / more, high * more];
  }
  const more = (high - low) * room || Math.abs(high) * room || 1;
  return [low - more, high + more];
}

function ticks(low, high, about) {
  const rough = (high - low) / Math.max(2, Math.min(8, about));
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high + step * 1e-9; index++) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const factors = decades > 4 ? [1] : decades > 1.5 ? [1, 3] : decades > 0.5 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of factors) {
      const value = Number((factor * 10 ** power).toPrecision(12));
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found.length >= 2 ? found : ticks(low, high, 5);
}

/** Grid, frame, tick labels and names of two axes. box: left, right, top, bottom in pixels. */
function drawAxes(target, box, x, y, names) {
  const parts = [];
  for (const value of x.ticks()) {
    const at = x.at(value);
    parts.push(svg("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }));
    parts.push(svg("text", { x: at, y: box.bottom + 15, "text-anchor": "middle" }, tell(value, names.xCounted)));
  }
  for (const value of y.ticks()) {
    const at = y.at(value);
    parts.push(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }));
    parts.push(svg("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, tell(value, names.yCounted)));
  }
  const middle = (box.top + box.bottom) / 2;
  parts.push(
    svg("rect", { class: "frame", x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top }),
    svg("text", { class: "strong", x: (box.left + box.right) / 2, y: box.bottom + 33, "text-anchor": "middle" }, names.x),
    svg("text", { class: "strong", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, names.y),
  );
  target.replaceChildren(...parts);
}

/** A canvas of the right resolution, cleared; lengths are those of the page. */
function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

/** The rows that no other beats in both figures, best across first; equal points are all kept. */
function frontOf(rows, x, y) {
  const sorted = [...rows].sort(
    (a, b) => x.better * (x.values[b] - x.values[a]) || y.better * (y.values[b] - y.values[a]) || a - b,
  );
  const found = [];
  let best = -Infinity;
  for (const row of sorted) {
    const height = y.better * y.values[row];
    const last = found[found.length - 1];
    const twin = last !== undefined && height === best && x.values[row] === x.values[last];
    if (height > best || twin) found.push(row);
    best = Math.max(best, height);
  }
  return found;
}

/** Draws a mark of a kind, so that kinds differ in shape as well as in colour. */
function drawMark(pen, kind, x, y, size = 1) {
  pen.beginPath();
  if (kind === FRONT) {
    const r = 5.6 * size;
    pen.moveTo(x, y - r);
    pen.lineTo(x + r, y);
    pen.lineTo(x, y + r);
    pen.lineTo(x - r, y);
    pen.closePath();
    pen.fill();
  } else if (kind === DOMINATED) {
    pen.arc(x, y, 3 * size, 0, 2 * Math.PI);
    pen.fill();
  } else if (kind === INFEASIBLE) {
    const r = 3 * size;
    pen.moveTo(x - r, y - r);
    pen.lineTo(x + r, y + r);
    pen.moveTo(x - r, y + r);
    pen.lineTo(x + r, y - r);
    pen.stroke();
  } else {
    const r = 4 * size;
    pen.moveTo(x, y - r);
    pen.lineTo(x + r, y + 0.8 * r);
    pen.lineTo(x - r, y + 0.8 * r);
    pen.closePath();
    pen.stroke();
  }
}

/** The same mark for a legend. */
function markPicture(kind) {
  const paint = MANY ? "var(--muted)" : `var(${KINDS[kind].colour})`; // colours are those of runs where there are several
  const shapes = [
    () => svg("path", { d: "M7 1.4 12.6 7 7 12.6 1.4 7Z", fill: paint }),
    () => svg("circle", { cx: 7, cy: 7, r: 3.2, fill: paint }),
    () => svg("path", { d: "M4 4 10 10M4 10 10 4", stroke: paint, "stroke-width": 1.6 }),
    () => svg("path", { d: "M7 3 11 10 3 10Z", stroke: paint, "stroke-width": 1.4, fill: "none" }),
  ];
  return svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, shapes[kind]());
}

function swatch(name) {
  const box = svg("rect", { x: 1, y: 1, width: 12, height: 12, rx: 2, fill: `var(${name})` });
  return svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, box);
}
