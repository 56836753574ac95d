// The networks: their documents and blocks, put together from columns when one is looked at.
const documents = (() => {
  const networks = told.networks;
  const stages = unpackFields(networks.stages);
  const entries = unpackFields(networks.entries);
  const head = unpackFields(networks);
  const stageCounts = unpack(networks.counts);
  const entryCounts = unpack(networks.stages.counts, networks.stages.length);
  const tokens = unpack(networks.stages.tokens, networks.stages.length);
  const dropped = unpack(networks.dropped, networks.blocks);
  const repeats = entries.find(([key]) => key === "repeat")?.[1] ?? new Array(networks.entries.length).fill(null);
  const stageStart = starts(stageCounts);
  const entryStart = starts(entryCounts);
  const blockStart = starts(repeats.map((repeat) => repeat ?? 1));

  function unpackFields(table) {
    return table.fields.map(([key, packed]) => [key, unpack(packed, table.length)]);
  }

  function starts(counts) {
    const sums = new Uint32Array(counts.length + 1);
    counts.forEach((count, index) => (sums[index + 1] = sums[index] + count));
    return sums;
  }

  function record(fields, index) {
    return Object.fromEntries(fields.map(([key, values]) => [key, values[index]]).filter(([, value]) => value !== null));
  }

  /** The blocks of a network in order, each with its stage's number, width, and tokens before and after. */
  function blocks(row) {
    const found = [];
    for (let stage = stageStart[row]; stage < stageStart[row + 1]; stage++) {
      const own = record(stages, stage);
      let before = tokens[stage];
      for (let entry = entryStart[stage]; entry < entryStart[stage + 1]; entry++) {
        for (let block = blockStart[entry]; block < blockStart[entry + 1]; block++) {
          const left = before - dropped[block];
          found.push({ ...record(entries, entry), stage: stage - stageStart[row], embed: own.embed, width: own.dim, tokens: before, left });
          before = left;
        }
      }
    }
    return found;
  }

  /** The operators of a network as one text, to search in. */
  function words(row) {
    const found = [];
    for (const [key, values] of entries) {
      if (key === "repeat") continue;
      const [from, to] = [entryStart[stageStart[row]], entryStart[stageStart[row + 1]]];
      for (let entry = from; entry < to; entry++) if (values[entry] !== null) found.push(values[entry]);
    }
    for (const [, values] of stages) {
      for (let stage = stageStart[row]; stage < stageStart[row + 1]; stage++) {
        if (typeof values[stage] === "string") found.push(values[stage]);
      }
    }
    return found.join(" ");
  }

  /** The document of a network as the text of an architecture file (YAML). */
  function text(row) {
    const lines = [`# ${digests[row]}, trial ${figureOf.get("trial").values[row]}`];
    const own = record(head, row);
    const last = own.head;
    delete own.head;
    put(own, "");
    lines.push("stages:");
    for (let stage = stageStart[row]; stage < stageStart[row + 1]; stage++) {
      put(record(stages, stage), "- ");
      const [from, to] = [entryStart[stage], entryStart[stage + 1]];
      lines.push(from === to ? "  blocks: []" : "  blocks:");
      for (let entry = from; entry < to; entry++) {
        const { repeat, ...block } = record(entries, entry);
        put(repeat === undefined ? block : { repeat, ...block }, "  - ");
      }
    }
    put({ head: last }, "");
    return lines.join("\n") + "\n";

    function put(fields, first) {
      const rest = " ".repeat(first.length);
      const pairs = Object.entries(fields).map(([key, value]) => `${key}: ${scalar(value)}`);
      if (pairs.length === 0 && first !== "") pairs.push("{}");
      pairs.forEach((pair, index) => lines.push((index === 0 ? first : rest) + pair));
    }
  }

  function scalar(value) {
    const plain = typeof value !== "string" || /^[A-Za-z_]\w*(\([\w=., ()'-]*\))?$/.test(value);
    const word = /^(true|false|yes|no|on|off|null|y|n)$/i.test(value);
    return plain && !(typeof value === "string" && word) ? String(value) : JSON.stringify(value);
  }

  return { blocks, words, text, mixers: unique(entries.find(([key]) => key === "mixer")?.[1] ?? []) };

  /** Names of the mixers, the most frequent first, so that those get the colours that differ most. */
  function unique(specs) {
    const counts = new Map();
    for (const spec of specs) {
      const name = spec === null ? "none" : spec.split("(")[0];
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  }
})();
