"use strict";
(() => {
  const cell = (item, column) => (item.tagName === "TBODY" ? item.rows[0] : item).cells[column];

  const key = (item, column) => {
    const given = cell(item, column).dataset.sort;
    return (given === undefined ? cell(item, column).textContent : given).trim();
  };

  const compare = (numeric, sign) => (a, b) => {
    // What is undefined or absent stays at the end whichever way the column is sorted.
    if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "") || a.place - b.place;
    const order = numeric ? Number(a.key) - Number(b.key) : a.key.localeCompare(b.key, undefined, { numeric: true });
    return sign * order || a.place - b.place;
  };

  const itemsOf = (table) => {
    const entries = [...table.querySelectorAll(":scope > .entry")];
    return entries.length || table.matches(".every") ? entries : [...table.tBodies[0].rows];
  };

  const sort = (table, column, direction) => {
    const items = itemsOf(table).map((item) => ({ item, key: key(item, column), place: Number(item.dataset.place) }));
    if (!items.length) return;
    if (direction === "none") items.sort((a, b) => a.place - b.place);
    else {
      const numeric = items.every((r) => r.key === "" || !Number.isNaN(Number(r.key)));
      items.sort(compare(numeric, direction === "ascending" ? 1 : -1));
    }
    const parent = items[0].item.parentNode;
    const after = parent.querySelector(":scope > .fold");
    for (const { item } of items) parent.insertBefore(item, after);
  };

  const next = { none: "ascending", ascending: "descending", descending: "none" };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    itemsOf(table).forEach((item, place) => { item.dataset.place = place; });
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

  // What is chosen of the one table. Nothing is hidden before somebody chooses.
  const bar = document.querySelector(".filters");
  const table = document.querySelector(".every");
  let clear = () => {};
  let apply = () => {};
  let unhide = () => {};
  if (bar && table) {
    const [selects, search] = [[...bar.querySelectorAll("select")], bar.querySelector("input")];
    const said = bar.querySelector("[role=status]");
    const lines = [...table.querySelectorAll(".lines > div")];
    const folds = [...table.querySelectorAll(".fold")];
    const keysOf = (element) => new Set(element.dataset.keys.split(" "));
    const item = (element, keys, around) => ({ element, keys, words: () => `${around} ${element.textContent}` });
    let items = null;
    const index = () => items ??= [
      ...[...table.querySelectorAll(".entry")].map((entry) => item(entry, keysOf(entry), "")),
      ...lines.flatMap((line) => {
        const around = line.closest(".fold").querySelector(".asked").textContent + " " + line.firstChild.textContent;
        const keys = keysOf(line);
        return [...line.querySelectorAll(".number")].map((number) => item(number, keys, around));
      }),
    ];
    const opened = new Set();
    unhide = () => { for (const e of table.querySelectorAll("[hidden]")) e.hidden = false; };
    apply = () => {
      const chosen = selects.map((select) => select.value).filter(Boolean);
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const any = chosen.length > 0 || words.length > 0;
      let shown = 0;
      for (const i of index()) {
        const kept = chosen.every((name) => i.keys.has(name));
        const read = kept && words.length ? (i.text ??= i.words().toLowerCase()) : "";
        i.element.hidden = !(kept && words.every((word) => read.includes(word)));
        shown += i.element.hidden ? 0 : 1;
      }
      for (const line of lines) line.hidden = !line.querySelector(".number:not([hidden])");
      for (const fold of folds) {
        fold.hidden = !fold.querySelector(".lines > div:not([hidden])");
        const details = fold.querySelector(".folded");
        if (any && !fold.hidden && !details.open) {
          opened.add(details);
          details.open = true;
        } else if ((!any || fold.hidden) && opened.delete(details)) details.open = false;
      }
      const counts = { n: shown, m: items.length };
      said.textContent = any ? said.dataset.said.replace(/\{([nm])\}/g, (_, name) => counts[name].toLocaleString()) : "";
    };
    clear = () => {
      for (const select of selects) select.value = "";
      search.value = "";
      apply();
    };
    for (const control of [...selects, search]) control.addEventListener("input", apply);
    bar.querySelector("button").addEventListener("click", clear);
    bar.hidden = false;
  }

  const openAround = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target && target.closest("[hidden]")) clear();
    for (let e = target || null; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    if (target && target.matches(".entry")) target.querySelector("details").open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", openAround);
  openAround();

  // On paper everything is there, whatever was chosen or folded on the screen.
  let opened = [];
  addEventListener("beforeprint", () => {
    unhide();
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    opened = [];
    apply();
  });
})();
