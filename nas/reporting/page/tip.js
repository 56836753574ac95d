// What is said of a network under the pointer or the keyboard.
const tip = (() => {
  const box = $("tip");

  function lines(row) {
    const keys = new Set([state.x, state.y, ...objectives]);
    const found = [...keys].map((key) => figureOf.get(key)).map((figure) => [figure.label, tellFigure(figure, row)]);
    if (members[row] !== null && members[row].ms !== null) found.push(["measured (ms)", tellInterval(members[row])]);
    found.push(["", tellState(row)]);
    return found;
  }

  /** Shows a network's figures beside a place of the page. */
  function show(row, x, y) {
    box.replaceChildren(
      el("strong", null, nameOf(row)),
      ...lines(row).map(([name, value]) => el("div", null, el("span", null, name), el("span", null, value))),
    );
    box.hidden = false;
    const width = document.documentElement.clientWidth;
    const { offsetWidth, offsetHeight } = box;
    const left = x + 16 + offsetWidth > window.scrollX + width ? Math.max(window.scrollX + 4, x - offsetWidth - 16) : x + 16;
    box.style.left = `${Math.max(4, Math.min(left, window.scrollX + width - offsetWidth - 4))}px`;
    box.style.top = `${Math.max(window.scrollY + 4, y - offsetHeight / 2)}px`;
  }

  function hide() {
    box.hidden = true;
  }

  function speak(row) {
    const text = lines(row).map(([name, value]) => `${name} ${value}`.trim());
    $("spoken").textContent = [nameOf(row), ...text].join(", ");
  }

  return { show, hide, speak };
})();
