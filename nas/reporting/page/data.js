// What the page was given, unpacked, and how it is told in words.
const told = JSON.parse(document.getElementById("data").textContent);
const COUNT = told.count;
const RUNS = told.runs;
const MANY = RUNS.length > 1;
const KINDS = [
  { name: "front", colour: "--front" },
  { name: "dominated", colour: "--dominated" },
  { name: "over a limit", colour: "--infeasible" },
  { name: "could not be judged", colour: "--unjudged" },
];
const [FRONT, DOMINATED, INFEASIBLE, UNJUDGED] = [0, 1, 2, 3];
const SERIES = 8;

const $ = (id) => document.getElementById(id);

const DIGIT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
const valueOf = Object.fromEntries(Array.from(DIGIT, (digit, value) => [digit, value]));

/** A packed column as an array: see `packed` of page_data.py, whose inverse this is. */
function unpack(packed, length = COUNT) {
  if (Array.isArray(packed)) return packed;
  if ("all" in packed) return new Array(length).fill(packed.all);
  if ("names" in packed) return packed.at.map((at) => at && at.split("+").map((index) => packed.names[index]).join("+"));
  const { of, at } = packed;
  if (of.length <= DIGIT.length) return Array.from(at, (digit) => of[valueOf[digit]]);
  return Array.from({ length: at.length / 2 }, (_, index) => of[DIGIT.length * valueOf[at[2 * index]] + valueOf[at[2 * index + 1]]]);
}

function makeElement(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element with attributes, listeners (on...) and children; texts become text and nothing else. */
function el(tag, attributes, ...children) {
  return makeElement(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return makeElement(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

const figures = told.figures.map((figure) => ({
  ...figure,
  values: unpack(figure.values),
  sigma: figure.sigma === null ? null : unpack(figure.sigma),
}));
const figureOf = new Map(figures.map((figure) => [figure.key, figure]));
const choices = told.choices.map(([name, packed]) => {
  const values = unpack(packed);
  const known = values.filter((value) => value !== null);
  return { name, values, text: known.some((value) => typeof value === "string"), varies: new Set(values).size > 1 };
});
const choiceOf = new Map(choices.map((choice) => [choice.name, choice]));
const digests = told.digest;
const origins = unpack(told.origin);
const reasons = unpack(told.reason);
const overs = unpack(told.over);
const runOf = new Uint16Array(COUNT);
const members = new Array(COUNT).fill(null);
RUNS.forEach((run, number) => {
  runOf.fill(number, run.from, run.from + run.rows);
  for (const member of run.front) members[member.row] = member;
});
/** What a network is whatever the axes are; which of those within the limits make a front depends on the axes. */
const status = Uint8Array.from(overs, (over, row) => (reasons[row] !== null ? UNJUDGED : over > 0 ? INFEASIBLE : DOMINATED));

const PREFIXES = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]];

/** A number for people: four significant digits; counts with a prefix. */
function tell(value, counted = false) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  const [scale, prefix] = (counted && PREFIXES.find(([size]) => Math.abs(value) >= size)) || [1, ""];
  const scaled = value / scale;
  const digits = Math.abs(scaled) >= 1000 || Number.isInteger(scaled) ? 0 : 4;
  if (digits === 0 && Math.abs(scaled) < 1e7) return `${Math.round(scaled)}${prefix}`;
  return `${Number(scaled.toPrecision(4))}${prefix}`;
}

function tellFigure(figure, row, spread = true) {
  const value = figure.values[row];
  const sigma = spread && figure.sigma !== null ? figure.sigma[row] : null;
  const known = value !== null && sigma !== null && sigma !== undefined;
  return tell(value, figure.counted) + (known ? ` ± ${tell(Number(sigma.toPrecision(2)), figure.counted)}` : "");
}

function tellInterval(member) {
  if (member.ms === null) return "–";
  const [low, high] = [member.low, member.high].map((end) => tell(end));
  return `${tell(member.ms)} (${low} to ${high})`;
}

function tellState(row) {
  if (status[row] === UNJUDGED) return `could not be judged: ${reasons[row]}`;
  if (status[row] === INFEASIBLE) return `over its limits by ${tell(Number((100 * overs[row]).toPrecision(2)))} %`;
  return members[row] === null ? "within its limits" : `member ${members[row].number} of the front`;
}

function nameOf(row) {
  const short = digests[row].slice(0, 8);
  const name = members[row] === null ? `network ${short}` : `member ${members[row].number} (${short})`;
  return MANY ? `${RUNS[runOf[row]].name}: ${name}` : name;
}

function commandOf(row) {
  const pick = members[row] === null ? digests[row] : members[row].number;
  return `python -m nas.export ${RUNS[runOf[row]].shell} --pick ${pick} --to onnx`;
}

/** The colour of a custom property, for what is drawn on a canvas. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const seriesName = (run) => `--s${run % SERIES}`;

function option(value, text) {
  return el("option", { value }, text);
}
