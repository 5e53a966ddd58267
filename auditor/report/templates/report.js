"use strict";
(() => {
  const key = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.sort;
    return (given === undefined ? cell.textContent : given).trim();
  };

  const compare = (numeric, sign) => (a, b) => {
    // What is undefined or absent stays at the end whichever way the column is sorted.
    if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "") || a.place - b.place;
    const order = numeric ? Number(a.key) - Number(b.key) : a.key.localeCompare(b.key, undefined, { numeric: true });
    return sign * order || a.place - b.place;
  };

  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: key(row, column), place: Number(row.dataset.place) }));
    if (direction === "none") rows.sort((a, b) => a.place - b.place);
    else {
      const numeric = rows.every((r) => r.key === "" || !Number.isNaN(Number(r.key)));
      rows.sort(compare(numeric, direction === "ascending" ? 1 : -1));
    }
    body.append(...rows.map((r) => r.row));
  };

  const next = { none: "ascending", ascending: "descending", descending: "none" };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = next[header.getAttribute("aria-sort")];
        for (const other of headers) other.setAttribute("aria-sort", "none");
        header.setAttribute("aria-sort", direction);
        sort(table, column, direction);
      });
    });
  }

  const openAround = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    for (let e = target || null; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", openAround);
  openAround();

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    opened = [];
  });
})();
