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

  // Pictures: a line that is pointed at, or come to by keys, is brought forward and told; Enter or a click keeps it.
  for (const chart of document.querySelectorAll("svg.chart")) {
    const lines = [...chart.querySelectorAll(".series")].sort((a, b) => a.dataset.rank - b.dataset.rank);
    const figure = chart.closest("figure");
    const readout = figure.querySelector(".readout");
    const hint = readout.textContent;
    let kept;
    const show = (line) => {
      chart.classList.toggle("pointed", line !== undefined);
      lines.forEach((one) => one.classList.toggle("on", one === line));
      figure.classList.toggle("pointed-at", line !== undefined);
      readout.textContent = line?.querySelector("title").textContent ?? hint;
    };
    const rest = () => show(lines.find((one) => one.matches(":focus-visible")) ?? kept);
    const keep = (line) => {
      kept = line;
      lines.forEach((one) => one.setAttribute("aria-selected", one === kept));
    };
    const stop = (line) => lines.forEach((one) => one.setAttribute("tabindex", one === line ? 0 : -1));

    chart.setAttribute("role", "group");
    const list = chart.querySelector(".contenders");
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Contenders, from the top");
    lines.forEach((line, place) => {
      line.setAttribute("role", "option");
      line.setAttribute("aria-posinset", place + 1);
      line.setAttribute("aria-setsize", lines.length);
    });
    keep();
    stop(lines.findLast((line) => line.querySelector(".best")) ?? lines[0]);
    readout.hidden = false;

    const under = (event) => event.target.closest(".series") ?? undefined;
    const frame = chart.parentElement; // Chromium gives the focus to an SVG that listens for it
    frame.addEventListener("pointerover", (event) => (under(event) ? show(under(event)) : rest()));
    frame.addEventListener("pointerleave", rest);
    frame.addEventListener("focusin", (event) => {
      const line = under(event);
      if (line) stop(line);
      rest();
      if (line?.matches(":focus-visible")) (line.querySelector(".label") ?? line).scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    frame.addEventListener("focusout", rest);
    frame.addEventListener("click", (event) => {
      const line = under(event);
      if (line) keep(line === kept ? undefined : line);
    });
    frame.addEventListener("keydown", (event) => {
      const at = lines.indexOf(event.target);
      const last = lines.length - 1;
      const next = { ArrowUp: at - 1, ArrowLeft: at - 1, ArrowDown: at + 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
      if (at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
      if (next !== undefined) lines[Math.min(Math.max(next, 0), last)].focus();
      else if (event.key === "Enter" || event.key === " ") keep(lines[at] === kept ? undefined : lines[at]);
      else if (event.key === "Escape") show(keep());
      else return;
      event.preventDefault();
    });
  }
})();
