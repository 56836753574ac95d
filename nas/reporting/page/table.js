// The table of networks: sorted by any column, a page at a time.
const table = (() => {
  const body = document.querySelector("#table tbody");
  const SIZES = [15, 25, 50, 100];
  const [LONGEST, HASH] = [60, 8];
  const columns = makeColumns();
  let [order, page, size, sorted, rising] = [[], 0, SIZES[0], columns[0], true];
  const heads = columns.map((column) => {
    const head = el("th", { scope: "col", class: column.text ? "text" : null });
    head.append(el("button", { type: "button", onclick: () => sortBy(column) }, column.name));
    return head;
  });
  document.querySelector("#table thead").append(el("tr", null, ...heads));

  function makeColumns() {
    const found = [
      { name: "#", value: (row) => members[row]?.number ?? null },
      { name: "network", text: true, value: (row) => digests[row], show: button },
    ];
    if (MANY) found.push({ name: "run", text: true, value: (row) => RUNS[runOf[row]].name });
    for (const figure of figures) {
      const value = (row) => figure.values[row];
      if (figure.key === "measured_ms") found.push({ name: "measured ms", value, show: (row) => (members[row] === null ? "" : tellInterval(members[row])) });
      else found.push({ name: headOf(figure.key), value, show: (row) => tellFigure(figure, row) });
    }
    found.push({ name: "state", text: true, value: (row) => tellState(row) }, { name: "origin", text: true, value: (row) => origins[row] });
    return found;
  }

  function headOf(key) {
    return key.replaceAll("_", " ").replace(/\bmacs\b/, "MACs").replace(/\bmb\b/, "MB");
  }

  function button(row) {
    return el("button", { type: "button", "aria-label": `show ${nameOf(row)}` }, digests[row].slice(0, HASH));
  }

  function sortBy(column) {
    rising = column === sorted ? !rising : true;
    sorted = column;
    page = 0;
    draw();
    mark();
  }

  function sort() {
    const values = new Map(order.map((row) => [row, sorted.value(row)]));
    const sign = rising ? 1 : -1;
    order.sort((a, b) => {
      const [one, other] = [values.get(a), values.get(b)];
      if (one === other) return a - b;
      if (one === null || other === null) return one === null ? 1 : -1; // what is not known comes last either way
      return one < other ? -sign : sign;
    });
  }

  function draw() {
    order = [];
    for (let row = 0; row < COUNT; row++) if (kept[row]) order.push(row);
    sort();
    page = Math.max(0, Math.min(page, Math.ceil(order.length / size) - 1));
    heads.forEach((head, index) => {
      head.setAttribute("aria-sort", columns[index] !== sorted ? "none" : rising ? "ascending" : "descending");
    });
    const shown = order.slice(page * size, (page + 1) * size);
    body.replaceChildren(...shown.map(drawRow));
    if (shown.length === 0) body.append(el("tr", null, el("td", { class: "text", colspan: columns.length }, "No network meets all that narrows.")));
    $("page-told").textContent = shown.length === 0 ? "" : `${page * size + 1} to ${page * size + shown.length} of ${order.length}`;
    $("previous").disabled = page === 0;
    $("next").disabled = (page + 1) * size >= order.length;
  }

  function drawRow(row) {
    const cells = columns.map((column) => {
      const shown = column.show?.(row) ?? tell(column.value(row));
      const short = typeof shown === "string" && shown.length > LONGEST ? `${shown.slice(0, LONGEST)}…` : shown;
      return el("td", { class: column.text ? "text" : null }, column.name === "#" && members[row] === null ? "" : short);
    });
    return el("tr", { class: "row", "data-row": row, onclick: () => select(row), onpointerenter: () => hover(row), onpointerleave: () => hover(-1) }, ...cells);
  }

  function mark() {
    for (const line of body.querySelectorAll("tr.row")) {
      const row = Number(line.dataset.row);
      if (row === state.selected) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
      line.classList.toggle("hovered", row === state.hovered);
    }
  }

  function turn(by) {
    page += by;
    draw();
    mark();
  }

  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("page-size").append(...SIZES.map((count) => option(count, String(count))));
  $("page-size").addEventListener("change", (event) => {
    size = Number(event.target.value);
    page = 0;
    turn(0);
  });

  return { draw, mark };
})();
views.push(table);
