"use strict";
(() => {
  const root = document.documentElement;

  // Light or dark: the system's, until the reader chooses.
  const button = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const dress = (theme) => {
    if (theme) root.dataset.theme = theme;
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show in ${dark() ? "light" : "dark"}`);
  };
  const remembered = (theme) => {
    try {
      if (theme) localStorage.setItem("fm-theme", theme);
      return localStorage.getItem("fm-theme");
    } catch {
      return theme; // a browser may forbid it on file://
    }
  };
  button.hidden = false;
  button.addEventListener("click", () => dress(remembered(dark() ? "light" : "dark")));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dress());
  dress(remembered());

  // Tables: sorted by their headings, filtered by words.
  const compare = (a, b) => {
    if (a === "" || b === "") return null;
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? a.localeCompare(b, "en", { numeric: true }) : difference;
  };
  const sort = (table, column, heading) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.sort;
    const rows = [...body.rows].sort((a, b) => {
      const order = compare(key(a), key(b));
      return order === null ? (key(a) === "") - (key(b) === "") : down ? -order : order;
    });
    body.append(...rows);
  };
  const filter = (table, words, told) => {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    told.textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
  };
  for (const one of document.querySelectorAll(".sortable")) {
    const table = one.querySelector("table");
    table.querySelectorAll("thead th").forEach((heading, column) => {
      const press = document.createElement("button");
      press.type = "button";
      press.append(...heading.childNodes);
      press.addEventListener("click", () => sort(table, column, heading));
      heading.append(press);
    });
    const field = one.querySelector(".filter");
    field.hidden = false;
    const input = field.querySelector("input");
    input.addEventListener("input", () => filter(table, input.value, field.querySelector("output")));
    filter(table, input.value, field.querySelector("output"));
  }

  // Pictures: pointing at a line or its label brings both forward.
  for (const chart of document.querySelectorAll("svg.chart")) {
    const show = (line) => {
      chart.classList.toggle("pointed", line !== undefined);
      chart.querySelectorAll("[data-line]").forEach((part) => part.classList.toggle("on", part.dataset.line === line));
    };
    chart.addEventListener("pointerover", (event) => show(event.target.closest("[data-line]")?.dataset.line));
    chart.addEventListener("pointerleave", () => show(undefined));
  }
})();
