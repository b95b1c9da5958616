"use strict";
(() => {
  const table = document.getElementById("guests");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const words = document.getElementById("words");
  const state = document.getElementById("state");

  function fits(element) {
    const wanted = words.value.trim().toLowerCase();
    return element.dataset.name.toLowerCase().includes(wanted)
      && (state.value === "" || element.dataset.state === state.value);
  }

  function filter() {
    let shown = 0;
    for (const row of rows) {
      row.hidden = !fits(row);
      shown += row.hidden ? 0 : 1;
    }
    for (const section of document.querySelectorAll("section")) {
      section.hidden = !fits(section);
    }
    document.getElementById("shown").value = `${shown} of ${rows.length}`;
  }

  function key(row, column) {
    const cell = row.cells[column];
    return "key" in cell.dataset ? Number(cell.dataset.key) : cell.textContent.trim();
  }

  function compare(one, other) {
    return typeof one === "number" ? one - other : one.localeCompare(other);
  }

  function sort(head) {
    const downwards = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) {
      other.removeAttribute("aria-sort");
    }
    head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
    const column = head.cellIndex;
    rows.sort((one, other) => compare(key(one, column), key(other, column)) * (downwards ? -1 : 1));
    body.append(...rows);
  }

  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head));
    head.replaceChildren(button);
  }
  document.getElementById("filter").hidden = false;
  document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
  words.addEventListener("input", filter);
  state.addEventListener("change", filter);
  filter();
})();
