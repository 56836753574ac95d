// The scatter of two figures: marks on a canvas, axes beneath and what moves above it.
const scatter = (() => {
  const box = $("scatter");
  const back = svg("svg", { "aria-hidden": "true" });
  const canvas = el("canvas", { "aria-hidden": "true" });
  const front = svg("svg", { class: "overlay", "aria-hidden": "true" });
  const [lasting, moving] = [svg("g"), svg("g")];
  front.append(lasting, moving);
  box.append(back, canvas, front);
  const [px, py] = [new Float32Array(COUNT), new Float32Array(COUNT)];
  const STRIP = 22; // beneath the plot, for networks without a figure upwards
  const MANY_MARKS = 2000; // beyond, they are drawn fainter
  const NEAR = 16; // pixels within which a point is meant
  let [x, y, frame, strip] = [null, null, null, 0];

  function draw() {
    const [across, up] = [figureOf.get(state.x), figureOf.get(state.y)];
    const width = Math.max(LEAST_WIDTH, box.clientWidth);
    const height = Math.round(Math.max(300, Math.min(520, width * 0.62)));
    const { both, half, missing } = sort(across, up);
    strip = half.length > 0 ? STRIP : 0;
    frame = { left: 58, right: width - 12, top: 10, bottom: height - 42 - strip };
    const known = both.length > 0 ? both : half;
    x = scaleOf(across, known, state.xLog, frame.left, frame.right);
    y = scaleOf(up, both, state.yLog, frame.bottom, frame.top);
    box.style.height = `${height}px`;
    for (const part of [back, front]) {
      part.setAttribute("width", width);
      part.setAttribute("height", height);
    }
    const names = { x: titled(across), y: titled(up), xCounted: across.counted, yCounted: up.counted };
    drawAxes(back, { ...frame, bottom: frame.bottom }, x, y, names);
    shiftForStrip(up);
    const beyond = placeRows(across, up, both, half);
    drawMarks(across, up, width, height);
    drawLasting(across, up);
    note(across, up, both, half, missing, beyond);
    KINDS.forEach(({ name }, kind) => (document.querySelector(`label[for=kind-picker-${kind}]`).textContent = `${name} (${countOf(kind)})`));
    const keys = "Arrow keys go from network to network, Enter selects one, Escape lets a rectangle go.";
    box.setAttribute("aria-label", `${up.label} over ${across.label}: ${both.length} networks. ${keys}`);
  }

  /** Rows with both figures, with the one across only, and how many without. */
  function sort(across, up) {
    const [both, half] = [[], []];
    let missing = 0;
    for (let row = 0; row < COUNT; row++) {
      if (!state.runs.has(runOf[row]) || !state.kinds.has(kinds[row])) continue;
      const [a, b] = [across.values[row], up.values[row]];
      if (a === null || (state.xLog && a <= 0) || (state.yLog && b !== null && b <= 0)) missing++;
      else (b === null ? half : both).push(row);
    }
    return { both, half, missing };
  }

  function countOf(kind) {
    return kinds.reduce((sum, one, row) => sum + (one === kind && state.runs.has(runOf[row]) ? 1 : 0), 0);
  }

  function limitsOf(figure) {
    const found = new Map();
    for (const number of state.runs) {
      const limit = RUNS[number].limits[figure.key];
      if (limit !== undefined) found.set(limit, number);
    }
    return [...found.keys()];
  }

  function scaleOf(figure, rows, log, from, to) {
    const values = rows.map((row) => figure.values[row]);
    const own = rangeOf(values, log, 0);
    const near = own === null ? [] : limitsOf(figure).filter((limit) => limit <= own[1] + 0.35 * (own[1] - own[0]) && (!log || limit > 0));
    const range = rangeOf([...values, ...near], log) ?? (log ? [1, 10] : [0, 1]);
    return makeScale(range[0], range[1], from, to, log);
  }

  function titled(figure) {
    const better = { "-1": ", less is better", 0: "", 1: ", more is better" }[figure.better];
    return frame.right - frame.left > 380 ? figure.label + better : figure.label;
  }

  /** Moves the names of the axis across below the strip, and names the strip. */
  function shiftForStrip(up) {
    if (strip === 0) return;
    for (const text of back.querySelectorAll("text[text-anchor=middle]:not([transform])")) {
      text.setAttribute("y", Number(text.getAttribute("y")) + strip);
    }
    const top = frame.bottom + 3;
    back.append(
      svg("rect", { class: "frame", x: frame.left, y: top, width: frame.right - frame.left, height: strip - 4 }),
      svg("text", { x: frame.left - 6, y: top + 13, "text-anchor": "end" }, "none"),
    );
  }

  function placeRows(across, up, both, half) {
    px.fill(NaN);
    for (const row of both) [px[row], py[row]] = [x.at(across.values[row]), y.at(up.values[row])];
    let beyond = 0;
    for (const row of half) {
      const value = across.values[row];
      if (value < x.low || value > x.high) beyond++;
      else [px[row], py[row]] = [x.at(value), frame.bottom + strip / 2 + 1];
    }
    return beyond;
  }

  function drawMarks(across, up, width, height) {
    const pen = fitCanvas(canvas, width, height);
    const bars = keptCount <= 150 ? [DOMINATED, FRONT] : [FRONT];
    const paints = MANY ? RUNS.map((run, number) => colour(seriesName(number))) : KINDS.map((kind) => colour(kind.colour));
    const strength = Math.max(0.12, Math.min(0.4, 6 / Math.max(1, countOf(FRONT)))); // many bars hide what they are of
    pen.lineWidth = 1.5;
    for (const shown of [0, 1]) {
      for (const kind of [INFEASIBLE, UNJUDGED, DOMINATED, FRONT]) {
        for (let row = 0; row < COUNT; row++) {
          if (kinds[row] !== kind || kept[row] !== shown || Number.isNaN(px[row])) continue;
          const paint = paints[MANY ? runOf[row] : kind];
          [pen.fillStyle, pen.strokeStyle] = [paint, paint];
          if (shown === 1 && bars.includes(kind)) drawBars(pen, across, up, row, strength);
          pen.globalAlpha = shown === 0 ? 0.13 : kind === FRONT ? 1 : keptCount > MANY_MARKS ? 0.35 : 0.7;
          drawMark(pen, kind, px[row], py[row]);
        }
      }
    }
  }

  function drawBars(pen, across, up, row, strength) {
    pen.globalAlpha = strength;
    pen.beginPath();
    const [sideways, upwards] = [across.sigma?.[row], up.sigma?.[row]];
    if (sideways) {
      const ends = [-1, 1].map((sign) => x.at(clamp(across.values[row] + sign * sideways, x)));
      pen.moveTo(ends[0], py[row]);
      pen.lineTo(ends[1], py[row]);
    }
    if (upwards && up.values[row] !== null) {
      const ends = [-1, 1].map((sign) => y.at(clamp(up.values[row] + sign * upwards, y)));
      pen.moveTo(px[row], ends[0]);
      pen.lineTo(px[row], ends[1]);
    }
    pen.lineWidth = 1;
    pen.stroke();
    pen.lineWidth = 1.5;
  }

  function clamp(value, scale) {
    return Math.max(scale.low, Math.min(scale.high, value));
  }

  /** Limits, the edge of what each front dominates, numbers of members, the rectangle. */
  function drawLasting(across, up) {
    const parts = [];
    const numbered = [];
    for (const limit of limitsOf(across).filter((limit) => limit >= x.low && limit <= x.high)) {
      parts.push(svg("line", { class: "limit", x1: x.at(limit), x2: x.at(limit), y1: frame.top, y2: frame.bottom }));
      parts.push(svg("text", { class: "limit halo", x: x.at(limit) - 4, y: frame.top + 12, "text-anchor": "end" }, `limit ${tell(limit, across.counted)}`));
    }
    for (const limit of limitsOf(up).filter((limit) => limit >= y.low && limit <= y.high)) {
      parts.push(svg("line", { class: "limit", x1: frame.left, x2: frame.right, y1: y.at(limit), y2: y.at(limit) }));
      parts.push(svg("text", { class: "limit halo", x: frame.left + 4, y: y.at(limit) - 4 }, `limit ${tell(limit, up.counted)}`));
    }
    for (const number of state.runs) {
      const run = RUNS[number];
      const rows = [];
      for (let row = run.from; row < run.from + run.rows; row++) if (kinds[row] === FRONT && !Number.isNaN(px[row])) rows.push(row);
      const paint = `var(${MANY ? seriesName(number) : KINDS[FRONT].colour})`;
      if (rows.length > 1) parts.unshift(svg("path", { class: "steps", d: steps(rows, across), fill: "none", stroke: paint, "stroke-opacity": 0.7 }));
      for (const { row, number: name } of run.front) {
        if (Number.isNaN(px[row]) || !kept[row] || numbered.some((other) => tooNear(row, other))) continue;
        numbered.push(row);
        parts.push(svg("text", { class: "strong halo", x: px[row], y: py[row] - 9, "text-anchor": "middle" }, name));
      }
    }
    if (state.brush !== null) {
      const [left, right] = state.brush.x.map(x.at);
      const [bottom, top] = state.brush.y.map(y.at);
      parts.push(svg("rect", { class: "brush", x: left, y: top, width: right - left, height: bottom - top }));
    }
    lasting.replaceChildren(...parts);
  }

  /** Whether the numbers of two networks would lie on each other. */
  const tooNear = (one, other) => Math.abs(px[one] - px[other]) < 14 && Math.abs(py[one] - py[other]) < 11;

  function steps(rows, across) {
    const sorted = rows.sort((a, b) => px[a] - px[b] || py[a] - py[b]);
    let path = `M${px[sorted[0]]} ${py[sorted[0]]}`;
    for (const row of sorted.slice(1)) path += across.better < 0 ? `H${px[row]}V${py[row]}` : `V${py[row]}H${px[row]}`;
    return path;
  }

  function note(across, up, both, half, missing, beyond) {
    const found = [];
    if (across.better === 0 || up.better === 0) found.push("There is no front, since it is not known where better is on both axes.");
    else found.push("The line is the edge of what the front of these two figures dominates" + (MANY ? ", for each run." : "."));
    if (across.sigma !== null || up.sigma !== null) found.push("Bars are one standard deviation (of a measured latency: half of the 95 % interval).");
    if (half.length > 0) found.push(`In the strip: ${half.length} networks without ${up.label}${beyond > 0 ? `, ${beyond} of them beyond the axis` : ""}.`);
    if (missing > 0) found.push(`Not shown: ${missing} without ${across.label}${state.xLog || state.yLog ? " or not above zero" : ""}.`);
    for (const [figure, scale] of [[across, x], [up, y]]) {
      for (const limit of limitsOf(figure)) if (limit > scale.high) found.push(`The limit of ${figure.label}, ${tell(limit, figure.counted)}, lies beyond the axis.`);
    }
    if (RUNS.some((run) => run.front.length > 0)) found.push("Numbers are those of the run's own front.");
    $("scatter-note").textContent = found.join(" ");
  }

  function mark() {
    const parts = [];
    for (const [row, radius] of [[state.selected, 9], [state.hovered, 7]]) {
      if (row < 0 || Number.isNaN(px[row])) continue;
      const name = row === state.hovered ? "ring hovered" : "ring selected";
      parts.push(svg("circle", { class: name, cx: px[row], cy: py[row], r: radius }));
    }
    moving.replaceChildren(...parts);
  }

  function nearest(left, top) {
    let [found, least] = [-1, NEAR * NEAR];
    for (let row = 0; row < COUNT; row++) {
      const distance = (px[row] - left) ** 2 + (py[row] - top) ** 2;
      if (distance < least - (kept[row] ? 0 : NEAR)) [found, least] = [row, distance];
    }
    return found;
  }

  function show(row) {
    hover(row);
    if (row < 0) return tip.hide();
    const corner = box.getBoundingClientRect();
    tip.show(row, corner.left + window.scrollX + px[row], corner.top + window.scrollY + py[row]);
  }

  let start = null; // of a drag

  function place(event) {
    const corner = box.getBoundingClientRect();
    return [event.clientX - corner.left, event.clientY - corner.top];
  }

  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = place(event);
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    const [left, top] = place(event);
    if (start === null) return show(nearest(left, top));
    if (Math.hypot(left - start[0], top - start[1]) < 5) return;
    show(-1);
    const inside = (value, low, high) => Math.max(low, Math.min(high, value));
    const sides = [start[0], left].map((value) => inside(value, frame.left, frame.right)).sort((a, b) => a - b);
    const ends = [start[1], top].map((value) => inside(value, frame.top, frame.bottom)).sort((a, b) => b - a);
    state.brush = { x: sides.map(x.back), y: ends.map(y.back) };
    changed();
  });
  box.addEventListener("pointerup", (event) => {
    const [left, top] = place(event);
    if (start !== null && Math.hypot(left - start[0], top - start[1]) < 5) {
      const row = nearest(left, top);
      if (row >= 0) select(row);
      else if (state.brush !== null) letGo();
    }
    start = null;
  });
  box.addEventListener("pointercancel", () => (start = null));
  box.addEventListener("pointerleave", () => show(-1));
  box.addEventListener("blur", () => show(-1));

  function letGo() {
    state.brush = null;
    changed();
  }

  box.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 10, ArrowDown: -10, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") return letGo();
    if (event.key === "Enter" && state.hovered >= 0) return select(state.hovered);
    if (!(event.key in moves)) return;
    event.preventDefault();
    const rows = [...kept.keys()].filter((row) => kept[row] && !Number.isNaN(px[row])).sort((a, b) => px[a] - px[b] || a - b);
    if (rows.length === 0) return;
    const from = rows.indexOf(state.hovered >= 0 ? state.hovered : state.selected);
    const to = from < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, from + moves[event.key]));
    show(rows[to]);
    tip.speak(rows[to]);
  });

  return { draw, mark };
})();
views.push(scatter);
