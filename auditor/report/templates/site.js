"use strict";
(() => {
  const today = new Date().toISOString().slice(0, 10);
  for (const cell of document.querySelectorAll("[data-by]")) {
    // The page was made on a day of its own; what has become due since is said by the reader's clock.
    if (cell.dataset.by === "" || cell.dataset.by >= today || cell.querySelector(".overdue")) continue;
    const mark = document.createElement("small");
    mark.className = "overdue";
    mark.textContent = "overdue by now";
    cell.append(mark);
  }

  for (const bar of document.querySelectorAll("[data-filters]")) {
    const table = document.getElementById(bar.dataset.filters);
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const choices = [...bar.querySelectorAll("select")];
    const search = bar.querySelector("input");
    const shown = bar.querySelector("output");
    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      rows.forEach((row, i) => {
        const fits = choices.every((c) => c.selectedIndex === 0 || row.dataset[c.name] === c.value)
          && words.every((word) => texts[i].includes(word));
        row.hidden = !fits;
        n += fits;
      });
      shown.textContent = `${n} of ${rows.length} shown`;
    };
    bar.hidden = false;
    for (const each of [...choices, search]) each.addEventListener("input", apply);
    apply();
  }
})();
