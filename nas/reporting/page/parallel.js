// Parallel coordinates: an axis for each chosen choice or figure, a line for each network.
const parallel = (() => {
  const box = $("lines");
  const canvas = el("canvas", { "aria-hidden": "true" });
  const front = svg("svg", { class: "overlay", role: "group", "aria-label": "Axes" });
  const [lasting, moving] = [svg("g"), svg("g")];
  front.append(moving, lasting);
  box.append(canvas, front);
  const [TOP, HEIGHT, LEAST, WORDS] = [40, 320, 104, 14];
  const shown = firstAxes();
  let placed = []; // of the axes shown: {axis, left, scale, none}

  /** The choices that matter most, in their own order, and the objectives. */
  function firstAxes() {
    const first = Object.values(RUNS[0].importance)[0] ?? [];
    const varying = choices.filter((choice) => choice.varies).map((choice) => choice.name);
    const ranked = first.map(([name]) => name).filter((name) => varying.includes(name));
    const chosen = new Set([...ranked, ...varying].slice(0, 5));
    return [...varying.filter((name) => chosen.has(name)).map((name) => `c:${name}`), ...objectives.map((key) => `f:${key}`)];
  }

  function fillPicker() {
    const keys = [...choices.filter((choice) => choice.varies).map((choice) => `c:${choice.name}`), ...figures.map((figure) => `f:${figure.key}`)];
    keys.forEach((key, index) => {
      const toggle = (event) => {
        if (event.target.checked) shown.push(key);
        else shown.splice(shown.indexOf(key), 1);
        state.ranges.delete(key);
        shown.sort((a, b) => keys.indexOf(a) - keys.indexOf(b));
        changed();
      };
      const input = el("input", { type: "checkbox", id: `axis-${index}`, onchange: toggle });
      input.checked = shown.includes(key);
      $("axis-picker").append(el("span", { class: "pair" }, input, el("label", { for: `axis-${index}` }, axisOf(key).name)));
    });
  }

  function draw() {
    const room = Math.max(LEAST_WIDTH, box.parentElement.clientWidth);
    const step = Math.max(LEAST, room / Math.max(1, shown.length));
    const width = Math.round(Math.max(room, step * shown.length));
    const bottom = HEIGHT - 30;
    placed = shown.map((key, index) => {
      const axis = axisOf(key);
      const range = axis.words === null ? rangeOf(placesOf(axis)) ?? [0, 1] : [-0.5, axis.words.length - 0.5];
      return { axis, left: step * (index + 0.5), scale: makeScale(range[0], range[1], bottom, TOP), none: bottom + 16 };
    });
    box.style.width = `${width}px`;
    box.style.height = `${HEIGHT}px`;
    front.setAttribute("width", width);
    front.setAttribute("height", HEIGHT);
    drawLines(fitCanvas(canvas, width, HEIGHT));
    lasting.replaceChildren(...placed.map((place) => drawAxis(place, step, bottom)));
  }

  function placesOf(axis) {
    const found = [];
    for (let row = 0; row < COUNT; row++) {
      const value = state.runs.has(runOf[row]) ? axis.place(row) : null;
      if (value !== null) found.push(value);
    }
    return found;
  }

  function heightOf(place, row) {
    const value = place.axis.place(row);
    return value === null ? place.none : place.scale.at(value);
  }

  function drawLines(pen) {
    const paints = MANY ? RUNS.map((run, number) => colour(seriesName(number))) : KINDS.map((kind) => colour(kind.colour));
    const faint = colour("--muted");
    const heights = placed.map((place) => Float32Array.from({ length: COUNT }, (_, row) => heightOf(place, row)));
    const trace = (row) => {
      pen.beginPath();
      placed.forEach((place, index) => (index === 0 ? pen.moveTo(place.left, heights[index][row]) : pen.lineTo(place.left, heights[index][row])));
      pen.stroke();
    };
    const density = Math.max(0.05, Math.min(0.55, 60 / Math.max(1, keptCount)));
    for (const kind of [null, INFEASIBLE, UNJUDGED, DOMINATED, FRONT]) {
      for (let row = 0; row < COUNT; row++) {
        if (!state.runs.has(runOf[row]) || !state.kinds.has(kinds[row])) continue;
        if (kind === null ? kept[row] : !kept[row] || kinds[row] !== kind) continue;
        pen.globalAlpha = kind === null ? Math.min(0.06, density) : kind === FRONT ? 0.9 : density;
        pen.lineWidth = kind === FRONT ? 1.6 : 1;
        pen.strokeStyle = kind === null ? faint : paints[MANY ? runOf[row] : kind];
        trace(row);
      }
    }
  }

  function short(text) {
    return text.length > WORDS ? `${text.slice(0, WORDS - 1)}…` : text;
  }

  function drawAxis({ axis, left, scale, none }, step, bottom) {
    const parts = [svg("line", { class: "axis", x1: left, x2: left, y1: TOP, y2: bottom })];
    const every = axis.words === null ? 1 : Math.ceil(axis.words.length / 16);
    const marks = axis.words === null ? scale.ticks().filter((value) => !axis.whole || Number.isInteger(value)).map((value) => [value, tell(value, axis.counted)]) : [...axis.words.entries()].filter(([index]) => index % every === 0);
    for (const [value, text] of marks) {
      parts.push(svg("text", { class: "halo", x: left + 5, y: scale.at(value) + 4 }, svg("title", null, text), short(text)));
    }
    if (kept.some((keep, row) => keep && axis.place(row) === null)) {
      parts.push(svg("text", { class: "halo", x: left + 5, y: none + 4 }, "none"));
    }
    const range = state.ranges.get(axis.key);
    if (range !== undefined) {
      const [low, high] = range.map(scale.at);
      parts.push(svg("rect", { class: "brush", x: left - 8, y: high, width: 16, height: low - high }));
    }
    const ask = () => filterBox.put(axis.short);
    const title = svg("g", { role: "button", tabindex: 0, "aria-label": `${axis.name}: put into the filter`, onclick: ask, onkeydown: (event) => event.key === "Enter" && ask() });
    const words = wrap(axis.name, Math.floor(step / 7));
    words.forEach((text, index) => title.append(svg("text", { class: "strong", x: left, y: TOP - 12 - 13 * (words.length - 1 - index), "text-anchor": "middle" }, text)));
    return svg("g", null, ...parts, title);
  }

  /** At most two lines of about so many characters. */
  function wrap(text, most) {
    if (text.length <= most) return [text];
    const cut = text.lastIndexOf(" ", most);
    const [first, rest] = cut > 0 ? [text.slice(0, cut), text.slice(cut + 1)] : [text.slice(0, most), text.slice(most)];
    return [first, rest.length > most ? `${rest.slice(0, most - 1)}…` : rest];
  }

  function mark() {
    const parts = [];
    for (const row of new Set([state.selected, state.hovered])) {
      if (row < 0 || !state.runs.has(runOf[row])) continue;
      const points = placed.map((place) => `${place.left},${heightOf(place, row)}`).join(" ");
      parts.push(svg("polyline", { class: "ring", points, "stroke-linejoin": "round" }));
    }
    moving.replaceChildren(...parts);
  }

  let drag = null; // {place, from, before}

  function heightAt(event) {
    const top = event.clientY - front.getBoundingClientRect().top;
    return Math.max(TOP, Math.min(HEIGHT - 30, top));
  }

  front.addEventListener("pointerdown", (event) => {
    const left = event.clientX - front.getBoundingClientRect().left;
    const place = placed.find((one) => Math.abs(one.left - left) < 24);
    if (place === undefined || event.button !== 0 || event.target.closest("[role=button]")) return;
    drag = { place, from: heightAt(event), before: state.ranges.get(place.axis.key) };
    state.ranges.delete(place.axis.key);
    front.setPointerCapture(event.pointerId);
    changed();
  });
  front.addEventListener("pointermove", (event) => {
    if (drag === null || Math.abs(heightAt(event) - drag.from) < 4) return;
    const ends = [drag.from, heightAt(event)].sort((a, b) => b - a);
    state.ranges.set(drag.place.axis.key, ends.map(drag.place.scale.back));
    changed();
  });
  front.addEventListener("pointerup", () => (drag = null));
  front.addEventListener("pointercancel", () => {
    if (drag !== null && drag.before !== undefined) state.ranges.set(drag.place.axis.key, drag.before);
    drag = null;
    changed();
  });

  return { draw, mark, fillPicker };
})();
views.push(parallel);
