// Makes every table sortable: a button in each heading, which a click, Enter or Space presses; aria-sort says what the table is sorted by.
"use strict";
const key = (row, column) => {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
};
const compare = (one, other) => {
  const unknown = (value) => value === "" || value === "-";
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one === "number" || typeof other === "number") return typeof one === "number" ? -1 : 1;
  if (unknown(one) || unknown(other)) return unknown(one) - unknown(other);
  return one.localeCompare(other, undefined, { numeric: true });
};
const known = (value) => typeof value === "number" || (value !== "" && value !== "-");
const sort = (table, heads, column) => {
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => {
    const one = key(a, column), other = key(b, column);
    const order = compare(one, other);
    return down && known(one) && known(other) ? -order : order; // what is not known stays at the end
  });
  body.append(...rows);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, heads, column));
  });
}
