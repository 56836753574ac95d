// Puts the parts together: controls, first drawing, and drawing again when the page changes.
const filterBox = (() => {
  const input = $("filter");

  function read() {
    let fault = "";
    try {
      state.terms = parseFilter(input.value);
    } catch (problem) {
      if (typeof problem !== "string") throw problem;
      fault = problem;
    }
    $("filter-fault").textContent = fault;
    if (fault === "") input.removeAttribute("aria-invalid");
    else input.setAttribute("aria-invalid", "true");
    if (fault === "") changed();
  }

  /** Adds a name to the filter's text, for a comparison to follow. */
  function put(name) {
    input.value = `${input.value.trim().replace(/,$/, "")}${input.value.trim() === "" ? "" : ", "}${name}`;
    input.focus();
  }

  function clear() {
    input.value = "";
    state.brush = null;
    state.ranges.clear();
    read();
  }

  input.addEventListener("input", read);
  $("filter-form").addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", clear);
  const names = [...figures.map((figure) => figure.key), "member", "run", "origin", ...choices.map((choice) => choice.name)];
  $("filter-names").append(...names.flatMap((name, index) => [index === 0 ? "" : ", ", el("code", null, name)]));
  return { put };
})();

/** Check boxes for a set of numbers, each with its mark and name; those of kinds are counted while drawing. */
function fillLegend(id, set, entries) {
  for (const { number, picture, name } of entries) {
    const toggle = (event) => {
      if (event.target.checked) set.add(number);
      else set.delete(number);
      changed();
    };
    const input = el("input", { type: "checkbox", id: `${id}-${number}`, onchange: toggle });
    input.checked = true;
    $(id).append(el("span", { class: "pair" }, input, picture, el("label", { for: `${id}-${number}` }, name)));
  }
}

function fillAxes() {
  for (const axis of ["x", "y"]) {
    const chooser = $(axis);
    chooser.append(...figures.map((figure) => option(figure.key, figure.label)));
    chooser.value = state[axis];
    chooser.addEventListener("change", () => {
      state[axis] = chooser.value;
      state.brush = null;
      changed();
    });
    $(`${axis}-log`).addEventListener("change", (event) => {
      state[`${axis}Log`] = event.target.checked;
      changed();
    });
  }
}

/** The best member of the first front is shown first. */
function firstSelected() {
  const front = RUNS.find((run) => run.front.length > 0)?.front ?? [];
  return front.length > 0 ? front[front.length - 1].row : COUNT > 0 ? 0 : -1;
}

function begin() {
  state.y = objectives[0];
  state.x = objectives[1] ?? figures.find(({ key, better }) => key !== state.y && better !== 0)?.key ?? "trial";
  fillHeader();
  fillFacts();
  fillAxes();
  fillLegend("kind-picker", state.kinds, KINDS.map(({ name }, number) => ({ number, name, picture: markPicture(number) })));
  if (MANY) {
    fillLegend("run-picker", state.runs, RUNS.map(({ name }, number) => ({ number, name, picture: swatch(seriesName(number)) })));
    $("run-picker").hidden = false;
  }
  parallel.fillPicker();
  state.selected = firstSelected();
  redraw();
  let width = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    if (width === document.documentElement.clientWidth) return; // a phone's address bar changes the height alone
    width = document.documentElement.clientWidth;
    changed();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  for (const [name, dark] of [["beforeprint", false], ["afterprint", true]]) {
    window.addEventListener(name, () => {
      document.documentElement.toggleAttribute("data-print", !dark); // paper is light
      redraw();
    });
  }
  performance.mark("ready");
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

begin();
