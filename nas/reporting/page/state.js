// What is looked at: one state that all views draw from. A network is kept while it meets all that narrows.
const objectives = told.objectives;
const state = {
  runs: new Set(RUNS.keys()),
  kinds: new Set(KINDS.keys()),
  x: "",
  y: "",
  xLog: false,
  yLog: false,
  brush: null, // a rectangle of the scatter, in its figures: [low, high] across and up
  ranges: new Map(), // axis of the parallel coordinates to [low, high]
  terms: [],
  selected: -1,
  hovered: -1,
};
const kinds = Uint8Array.from(status); // of every network under the present axes
const kept = new Uint8Array(COUNT).fill(1);
const MOST_WORDS = 24; // on an axis
const views = []; // of {draw, mark}: mark shows what is selected and hovered, draw everything
let keptCount = COUNT;

/** The kind of every network: the front is that of the two figures shown, of each run on its own. */
function judge() {
  kinds.set(status);
  const [x, y] = [figureOf.get(state.x), figureOf.get(state.y)];
  if (x.better === 0 || y.better === 0 || x === y) return;
  RUNS.forEach((run) => {
    const rows = [];
    for (let row = run.from; row < run.from + run.rows; row++) {
      if (status[row] === DOMINATED && x.values[row] !== null && y.values[row] !== null) rows.push(row);
    }
    for (const row of frontOf(rows, x, y)) kinds[row] = FRONT;
  });
}

function within(value, range) {
  return value !== null && value >= range[0] && value <= range[1];
}

function narrow() {
  const [x, y] = [figureOf.get(state.x), figureOf.get(state.y)];
  const ranges = [...state.ranges].map(([key, range]) => [axisOf(key), range]);
  keptCount = 0;
  for (let row = 0; row < COUNT; row++) {
    let keep = state.runs.has(runOf[row]) && state.kinds.has(kinds[row]);
    if (keep && state.brush !== null) keep = within(x.values[row], state.brush.x) && within(y.values[row], state.brush.y);
    for (let at = 0; keep && at < ranges.length; at++) keep = within(ranges[at][0].place(row), ranges[at][1]);
    for (let at = 0; keep && at < state.terms.length; at++) keep = state.terms[at](row);
    kept[row] = keep ? 1 : 0;
    keptCount += kept[row];
  }
}

let asked = false;

/** Draw again, once for all changes of one moment. */
function changed() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    redraw();
  });
}

function redraw() {
  judge();
  narrow();
  $("count").textContent = `${tell(keptCount)} of ${tell(COUNT)} networks`;
  for (const view of views) view.draw();
  for (const view of views) view.mark();
}

function select(row) {
  state.selected = row;
  for (const view of views) view.mark();
}

function hover(row) {
  if (state.hovered === row) return;
  state.hovered = row;
  for (const view of views) view.mark();
}

/** An axis over a figure or a choice: where a network lies on it (texts by their order), and what it says there. */
const axes = new Map();

function axisOf(key) {
  if (!axes.has(key)) axes.set(key, makeAxis(key));
  return axes.get(key);
}

function makeAxis(key) {
  const [kind, name] = [key.slice(0, 2), key.slice(2)];
  if (kind === "f:") {
    const figure = figureOf.get(name);
    return { key, name: figure.label, short: figure.key, words: null, place: (row) => figure.values[row], counted: figure.counted };
  }
  const choice = choiceOf.get(name);
  const whole = choice.values.every((value) => value === null || Number.isInteger(value));
  if (!choice.text) return { key, name, short: name, words: null, place: (row) => choice.values[row], counted: false, whole };
  let texts = choice.values.map((value) => (value === null ? null : String(value)));
  const distinct = () => [...new Set(texts.filter((text) => text !== null))];
  const most = distinct().length > MOST_WORDS; // then by the first of several names: the operator of most blocks
  if (most) texts = texts.map((text) => (text === null ? null : text.split("+")[0]));
  const words = distinct().sort(new Intl.Collator("en", { numeric: true }).compare);
  const places = new Map(words.map((word, index) => [word, index]));
  const at = texts.map((text) => (text === null ? null : places.get(text)));
  return { key, name: most ? `${name}, mostly` : name, short: name, words, place: (row) => at[row], counted: false };
}

/** The terms of a filter's text as tests of a row; throws a text that says what is wrong. */
function parseFilter(text) {
  const terms = text.split(/,(?![^(]*\))/).map((term) => term.trim()).filter((term) => term !== "");
  return terms.map(parseTerm);
}

const COMPARE = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};

function parseTerm(term) {
  const parts = term.match(/^(.*?)\s*(<=|>=|!=|<|>|=)\s*(.*)$/);
  const values = parts === null ? null : valuesOf(parts[1].toLowerCase());
  if (values === null) {
    if (parts !== null && parts[2] !== "=") throw `there is no figure or choice called “${parts[1]}”`;
    const wanted = term.toLowerCase();
    return (row) => haystack(row).includes(wanted);
  }
  const number = parts[3].match(/^([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*([kmgt]?)$/i);
  if (number !== null && !values.text) {
    const scale = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12 }[number[2].toLowerCase()];
    const [compare, wanted] = [COMPARE[parts[2]], Number(number[1]) * scale];
    return (row) => values.of(row) !== null && compare(values.of(row), wanted);
  }
  if (parts[2] !== "=" && parts[2] !== "!=") throw `“${parts[1]}” is compared with ${values.text ? "= or !=" : "a number"}, not with “${parts[3]}”`;
  const wanted = parts[3].toLowerCase();
  return (row) => String(values.of(row) ?? "none").toLowerCase().includes(wanted) === (parts[2] === "=");
}

function valuesOf(name) {
  const figure = figures.find((one) => one.key.toLowerCase() === name || one.label.toLowerCase() === name);
  if (figure !== undefined) return { text: false, of: (row) => figure.values[row] };
  const choice = choices.find((one) => one.name.toLowerCase() === name);
  if (choice !== undefined) return { text: choice.text, of: (row) => choice.values[row] };
  if (name === "member") return { text: false, of: (row) => members[row]?.number ?? null };
  if (name === "run") return { text: true, of: (row) => RUNS[runOf[row]].name };
  if (name === "origin") return { text: true, of: (row) => origins[row] };
  return null;
}

const haystacks = new Array(COUNT);

function haystack(row) {
  haystacks[row] ??= [digests[row], origins[row], RUNS[runOf[row]].name, tellState(row), documents.words(row)].join(" ").toLowerCase();
  return haystacks[row];
}
