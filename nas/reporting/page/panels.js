// The pictures beside the front: hypervolume, importance, agreement with measurements; and where all comes from.
const curve = (() => {
  const box = $("curve");
  const drawing = svg("svg", { class: "alone", role: "img" });
  const [grid, lines] = [svg("g"), svg("g")];
  drawing.append(grid, lines);
  box.append(drawing);

  function draw() {
    $("curve-note").textContent = describe();
    drawing.toggleAttribute("hidden", told.progress === null);
    if (told.progress === null) return;
    const shown = told.progress.curves.map((points, number) => ({ points, number })).filter(({ number }) => state.runs.has(number));
    const [width, height] = [Math.max(LEAST_WIDTH, box.clientWidth), 240];
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    const frame = { left: 58, right: width - 20, top: 8, bottom: height - 42 };
    const last = Math.max(2, ...shown.map(({ points }) => points[points.length - 1][0]));
    const x = makeScale(0, last, frame.left, frame.right);
    const y = makeScale(0, 1.04, frame.bottom, frame.top);
    drawAxes(grid, frame, x, y, { x: "networks proposed", y: "share of the largest", xCounted: false, yCounted: false });
    lines.replaceChildren(...shown.map(({ points, number }) => svg("path", { d: path(points, x, y), fill: "none", "stroke-width": 1.8, stroke: `var(${MANY ? seriesName(number) : "--front"})` })));
    drawing.setAttribute("aria-label", describe());
  }

  function path(points, x, y) {
    return points.map(([trial, share], index) => (index === 0 ? `M${x.at(trial)} ${y.at(share)}` : `H${x.at(trial)}V${y.at(share)}`)).join("");
  }

  function describe() {
    if (told.progress === null) return "There is no hypervolume: no network keeps its limits with all objectives known.";
    const ends = told.progress.curves.map((points, number) => `${RUNS[number].name} ${tell(Number((100 * points[points.length - 1][1]).toPrecision(3)))} %`);
    return `Room that the networks found so far dominate, from the reference point ${told.progress.told}.${MANY ? ` At the end: ${ends.join(", ")}.` : ""}`;
  }

  return { draw, mark: () => {} };
})();

const importance = (() => {
  const HOW =
    "Share of the variance over the networks with this figure, by stepwise analysis of variance: the choice that explains most " +
    "comes first, each next explains some of what is left. Choices always taken together share one bar; what chance would " +
    "explain (F test at 1 %) is left out.";
  const chooser = $("importance-of");
  const options = RUNS.flatMap((run, number) => Object.entries(run.importance).map(([key, bars]) => ({ run, number, key, bars })));
  options.forEach(({ run, key }, index) => chooser.append(option(index, (MANY ? `${run.name}: ` : "") + figureOf.get(key).label)));
  chooser.addEventListener("change", fill);

  function fill() {
    const chosen = options[Number(chooser.value)];
    const bars = chosen === undefined ? [] : chosen.bars;
    $("bars").replaceChildren(...bars.map(([name, share]) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${(100 * Math.max(0, share)) / Math.max(1e-9, bars[0][1])}%`;
      return el("li", null, el("span", null, name), bar, el("span", null, `${Math.round(100 * share)} %`));
    }));
    $("importance-note").textContent = bars.length > 0 ? HOW : "No choice explains more than chance would, or too few networks could be judged.";
  }

  fill();
  return { draw: () => {}, mark: () => {} };
})();

const agreement = (() => {
  const box = $("agreement");
  const drawing = svg("svg", { class: "alone", role: "img" });
  const [grid, marks] = [svg("g"), svg("g")];
  drawing.append(grid, marks);
  box.append(drawing);
  const predicted = figureOf.get("latency_ms");

  function draw() {
    const all = RUNS.flatMap((run, number) => (state.runs.has(number) ? run.front : []));
    const found = all.filter((member) => member.ms !== null && predicted !== undefined && predicted.values[member.row] !== null);
    $("agreement-note").textContent = describe(all, found);
    drawing.toggleAttribute("hidden", found.length === 0);
    if (found.length === 0) return;
    const side = Math.max(LEAST_WIDTH, Math.min(box.clientWidth, 420));
    drawing.setAttribute("width", side);
    drawing.setAttribute("height", side - 60);
    const frame = { left: 58, right: side - 10, top: 8, bottom: side - 102 };
    const range = rangeOf(found.flatMap(({ row, ms, low, high }) => [predicted.values[row], ms, low, high]));
    const x = makeScale(Math.max(0, range[0]), range[1], frame.left, frame.right);
    const y = makeScale(x.low, x.high, frame.bottom, frame.top);
    drawAxes(grid, frame, x, y, { x: "predicted latency (ms)", y: "measured (ms)", xCounted: false, yCounted: false });
    grid.append(svg("line", { class: "axis", "stroke-dasharray": "4 3", x1: frame.left, y1: frame.bottom, x2: frame.right, y2: frame.top }));
    marks.replaceChildren(...found.map((member) => point(member, x, y)));
    drawing.setAttribute("aria-label", describe(all, found));
  }

  function point({ row, ms, low, high }, x, y) {
    const [value, sigma] = [predicted.values[row], predicted.sigma?.[row] ?? 0];
    const inside = (number) => Math.max(x.low, Math.min(x.high, number));
    const paint = `var(${MANY ? seriesName(runOf[row]) : "--front"})`;
    const at = (event) => (hover(row), tip.show(row, event.pageX, event.pageY));
    return svg("g", { stroke: paint, fill: paint, onclick: () => select(row), onpointermove: at, onpointerleave: () => (hover(-1), tip.hide()) },
      svg("title", null, `${nameOf(row)}: predicted ${tell(value)} ms, measured ${tell(ms)} ms`),
      svg("line", { x1: x.at(inside(value - sigma)), x2: x.at(inside(value + sigma)), y1: y.at(ms), y2: y.at(ms), "stroke-opacity": 0.5 }),
      svg("line", { x1: x.at(value), x2: x.at(value), y1: y.at(inside(low)), y2: y.at(inside(high)) }),
      svg("circle", { cx: x.at(value), cy: y.at(ms), r: 4.5 }));
  }

  function describe(all, found) {
    if (all.length === 0) return "The front has no members.";
    if (found.length === 0) return whyNot(all);
    const errors = found.map(({ row, ms }) => Math.abs(predicted.values[row] - ms) / ms).sort((a, b) => a - b);
    const median = (errors[Math.floor((errors.length - 1) / 2)] + errors[Math.ceil((errors.length - 1) / 2)]) / 2;
    const near = found.filter(({ row, ms }) => Math.abs(predicted.values[row] - ms) <= (predicted.sigma?.[row] ?? 0)).length;
    const how = "Bars: one standard deviation of the prediction, 95 % interval of the measurement.";
    const within = predicted.sigma === null ? "" : `; ${near} of ${found.length} lie within one standard deviation of their prediction`;
    return `${found.length} of ${all.length} members of the front were measured again on the device. Median difference: ${tell(Number((100 * median).toPrecision(2)))} % of the measured latency${within}. ${how}`;
  }

  function whyNot(all) {
    if (all.some((member) => member.ms !== null)) return "The members were measured, and no latency was predicted for them.";
    const notes = [...new Set(all.map((member) => member.notes).filter((text) => text))];
    const targets = [...new Set(RUNS.map((run) => run.target))].join(", ");
    const reason = notes.length > 0 ? notes.join("; ") : `${targets} was not in the machine of the search, or measuring did not come to its end`;
    return `None of the ${all.length} members of the front was measured: ${reason}.`;
  }

  return { draw, mark: () => {} };
})();
views.push(curve, importance, agreement);

function fillHeader() {
  $("lead").textContent = told.lead;
  const add = (name, value) => $("totals").append(el("div", null, el("dt", null, name), el("dd", null, value)));
  add("networks", tell(COUNT));
  add("within their limits", tell(status.filter((one) => one === DOMINATED).length));
  add("over a limit", tell(status.filter((one) => one === INFEASIBLE).length));
  add("could not be judged", tell(status.filter((one) => one === UNJUDGED).length));
  add("members of the front", tell(members.filter((one) => one !== null).length));
  $("notices").hidden = told.notices.length === 0;
  $("notices").append(...told.notices.map((text) => el("li", null, text)));
}

function fillFacts() {
  for (const run of RUNS) {
    const list = el("dl", { class: "figures facts" });
    for (const [name, value] of run.facts) list.append(el("dt", null, name), el("dd", null, value));
    $("facts").append(...(MANY ? [el("h3", null, run.name)] : []), list);
  }
}
