"use strict";
/* A click on the head of a column sorts its table: numbers by size, all else as text. */
const number = (text) => {
  const found = text.replace(/[,\s]/g, "").match(/^[<~]?[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?/i);
  return found ? parseFloat(found[0].replace(/^[<~]/, "")) : NaN;
};
const sort = (table, column, rising) => {
  const rows = [...table.tBodies[0].rows];
  const text = (row) => row.cells[column].textContent.trim();
  const sizes = rows.map((row) => number(text(row)));
  const isNumeric = sizes.filter(Number.isFinite).length * 2 > rows.length;
  const keyed = rows.map((row, place) => [isNumeric ? sizes[place] : text(row), row]);
  keyed.sort(([a], [b]) => {
    if (isNumeric && Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
    const order = isNumeric ? (Number.isNaN(a) ? 0 : a - b) : a.localeCompare(b);
    return rising ? order : -order;
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const act = () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      sort(table, column, rising);
    };
    head.tabIndex = 0;
    head.addEventListener("click", act);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); }
    });
  });
}
