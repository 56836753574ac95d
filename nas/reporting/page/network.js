// The selected network: its figures, the command that takes it away, a picture of its blocks, its document.
const network = (() => {
  const body = $("network-body");
  const [BASE, HIGHEST, LABELS, LEFT, GAP] = [150, 120, 116, 8, 14];
  let drawn = -1;

  function mark() {
    if (drawn === state.selected) return;
    drawn = state.selected;
    if (drawn < 0) return body.replaceChildren(el("p", { class: "note" }, "Select a network in the front or in the table."));
    const blocks = documents.blocks(drawn);
    body.replaceChildren(el("h3", null, nameOf(drawn)), facts(drawn), command(drawn), ...picture(blocks), listed(blocks), text(drawn));
  }

  function facts(row) {
    const list = el("dl", { class: "figures" });
    const add = (name, value) => list.append(el("dt", null, name), el("dd", null, value));
    if (MANY) add("run", RUNS[runOf[row]].name);
    for (const figure of figures) {
      if (figure.key !== "measured_ms" && figure.values[row] !== null) add(figure.label, tellFigure(figure, row));
    }
    const member = members[row];
    if (member !== null && member.ms !== null) add("measured (ms, 95 %)", tellInterval(member));
    if (member !== null && member.peak !== null) add("peak memory (MB)", tell(member.peak));
    add("state", tellState(row));
    add("origin", origins[row]);
    if (member?.notes) add("notes", member.notes);
    if (member?.file) add("file", member.file);
    add("hash", digests[row]);
    return list;
  }

  function command(row) {
    const field = el("textarea", { id: "command", readonly: true, rows: 2, spellcheck: "false" }, commandOf(row));
    const told = el("span", { role: "status" });
    const button = el("button", { type: "button", class: "main", id: "copy", onclick: async () => (told.textContent = (await copy(field)) ? "Copied." : "Select the text to copy it.") }, "Copy");
    return el("div", { class: "command" }, el("label", { for: "command" }, "To export it"), told, button, field);
  }

  async function copy(field) {
    try {
      await navigator.clipboard.writeText(field.value);
      return true;
    } catch {
      field.select(); // pages opened from a file may not have the clipboard
      return document.execCommand("copy");
    }
  }

  const nameOfSpec = (spec) => (spec === undefined ? "none" : spec.split("(")[0]);

  function look(mixer) {
    const index = Math.max(0, documents.mixers.indexOf(mixer));
    return { paint: `var(${seriesName(index)})`, hatch: Math.floor(index / SERIES) % 4 };
  }

  function hatches() {
    const line = (d) => svg("path", { d, stroke: "var(--panel)", "stroke-width": 2, fill: "none" });
    const shapes = [line("M0 6 6 0"), svg("circle", { cx: 3, cy: 3, r: 1.5, fill: "var(--panel)" }), line("M0 3H6")];
    return svg("defs", null, shapes.map((shape, index) => svg("pattern", { id: `hatch-${index + 1}`, width: 6, height: 6, patternUnits: "userSpaceOnUse" }, shape)));
  }

  /** A column for each block: its sides as high as the square root of the tokens that enter and leave it. */
  function picture(blocks) {
    if (blocks.length === 0) return [el("p", { class: "note" }, "The network has no blocks.")];
    const most = Math.max(...blocks.map((block) => Math.max(block.tokens, block.left)));
    const widest = Math.max(...blocks.map((block) => block.width));
    const heightOf = (count) => Math.max(3, HIGHEST * Math.sqrt(count / most));
    const parts = [hatches()];
    let [left, stage, begun] = [LEFT, 0, LEFT];
    blocks.forEach((block, index) => {
      if (block.stage !== stage) {
        left = Math.max(left, begun + 46) + GAP;
        parts.push(svg("line", { class: "frame", x1: left - GAP / 2, x2: left - GAP / 2, y1: BASE - HIGHEST - 12, y2: BASE + LABELS + 40 }));
        [stage, begun] = [block.stage, left];
      }
      const width = 11 + (13 * block.width) / widest;
      parts.push(column(block, left, width, heightOf, index === 0 || blocks[index - 1].left !== block.left));
      if (left === begun) parts.push(...stageNames(block, left));
      left += width + 3;
    });
    const width = Math.ceil(Math.max(left, begun + 60) + 4);
    const drawing = svg("svg", { class: "alone", width, height: BASE + LABELS + 44, role: "img", "aria-label": spoken(blocks) }, parts);
    const note = "Height: square root of the tokens that enter and leave a block; width: channels.";
    return [el("h3", null, "Blocks"), el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Picture of the blocks" }, drawing), legend(blocks), el("p", { class: "note" }, note)];
  }

  function column(block, left, width, heightOf, tell) {
    const { paint, hatch } = look(nameOfSpec(block.mixer));
    const [before, after] = [heightOf(block.tokens), heightOf(block.left)];
    const points = `${left},${BASE} ${left},${BASE - before} ${left + width},${BASE - after} ${left + width},${BASE}`;
    const middle = left + width / 2;
    const top = BASE - Math.max(before, after);
    const parts = [svg("title", null, describe(block)), svg("polygon", { points, fill: paint, stroke: "var(--text)", "stroke-width": 0.6 })];
    if (hatch > 0) parts.push(svg("polygon", { points, fill: `url(#hatch-${hatch})` }));
    if (tell) parts.push(svg("text", { x: middle, y: top - 4, "text-anchor": "middle" }, String(block.left)));
    if (block.reduction !== undefined) parts.push(svg("path", { d: reductionPath(middle, top - 16), fill: "var(--text)" }));
    if (block.exit !== undefined) parts.push(svg("circle", { cx: middle, cy: top - 22, r: 3.5, fill: "none", stroke: "var(--text)", "stroke-width": 1.5 }));
    parts.push(svg("text", { class: "strong", "text-anchor": "end", transform: `translate(${middle + 4} ${BASE + 6}) rotate(-90)` }, nameOfSpec(block.mixer)));
    return svg("g", { class: "block" }, parts);
  }

  const reductionPath = (x, y) => `M${x - 4} ${y - 5}H${x + 4}L${x} ${y + 2}Z`;

  function stageNames(block, left) {
    const text = (content, line, strong) => svg("text", { class: strong ? "strong" : null, x: left, y: BASE + LABELS + 12 + 14 * line }, content);
    return [text(`stage ${block.stage + 1}`, 0, true), text(`${block.width} ch`, 1, false)];
  }

  function legend(blocks) {
    const list = el("ul", { class: "key" });
    for (const mixer of new Set(blocks.map((block) => nameOfSpec(block.mixer)))) {
      const { paint, hatch } = look(mixer);
      const box = svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("rect", { width: 14, height: 14, rx: 2, fill: paint }));
      if (hatch > 0) box.append(svg("rect", { width: 14, height: 14, rx: 2, fill: `url(#hatch-${hatch})` }));
      list.append(el("li", null, box, mixer));
    }
    const small = (shape) => svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, shape);
    if (blocks.some((block) => block.reduction !== undefined)) list.append(el("li", null, small(svg("path", { d: reductionPath(7, 8), fill: "var(--text)" })), "token reduction"));
    if (blocks.some((block) => block.exit !== undefined)) list.append(el("li", null, small(svg("circle", { cx: 7, cy: 7, r: 3.5, fill: "none", stroke: "var(--text)", "stroke-width": 1.5 })), "exit"));
    return list;
  }

  function describe(block) {
    const parts = ["mixer", "feedforward", "reduction", "exit"].filter((key) => block[key] !== undefined).map((key) => `${key} ${block[key]}`);
    return [`stage ${block.stage + 1}`, `${block.width} channels`, ...parts, `tokens ${block.tokens} to ${block.left}`].join(", ");
  }

  function spoken(blocks) {
    const [first, last] = [blocks[0], blocks[blocks.length - 1]];
    const names = [...new Set(blocks.map((block) => nameOfSpec(block.mixer)))].join(", ");
    return `${blocks.length} blocks in ${last.stage + 1} stages, from ${first.tokens} tokens to ${last.left}; mixers: ${names}`;
  }

  function listed(blocks) {
    const keys = ["stage", "width", "tokens", "left", "mixer", "feedforward", "reduction", "exit", "position"].filter((key) => blocks.some((block) => block[key] !== undefined));
    const words = new Set(["mixer", "feedforward", "reduction", "exit", "position"]);
    const head = el("tr", null, keys.map((key) => el("th", { class: words.has(key) ? "plain text" : "plain", scope: "col" }, key)));
    const rows = blocks.map((block) => el("tr", null, keys.map((key) => el("td", { class: words.has(key) ? "text" : null }, key === "stage" ? String(block.stage + 1) : String(block[key] ?? "")))));
    const inside = el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table of the blocks" }, el("table", null, el("thead", null, head), el("tbody", null, rows)));
    return el("details", null, el("summary", null, "Blocks as a table"), inside);
  }

  function text(row) {
    return el("details", { id: "document" }, el("summary", null, "Architecture file"), el("pre", { tabindex: 0 }, documents.text(row)));
  }

  return { draw: () => {}, mark };
})();
views.push(network);
