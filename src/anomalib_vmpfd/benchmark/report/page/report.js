"use strict";
(() => {
  const filters = document.getElementById("filters");
  const order = document.getElementById("gallery-filters");
  const gallery = document.getElementById("gallery");
  const status = document.getElementById("status");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Plots are gzipped.
  for (const image of all("img[data-svg]")) {
    const packed = Uint8Array.from(atob(image.dataset.svg), (letter) => letter.charCodeAt(0));
    const svg = new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    svg.then((text) => { image.src = `data:image/svg+xml,${encodeURIComponent(text)}`; });
  }

  // Sorting: numbers in descending order at first; missing values stay last.
  for (const button of all("thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const table = button.closest("table");
      const column = [...head.parentNode.children].indexOf(head);
      const numeric = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      const value = (row) => {
        const cell = row.children[column];
        return numeric ? (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)) : cell.textContent;
      };
      const rows = all("tbody tr", table).sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (numeric && (Number.isNaN(x) || Number.isNaN(y))) return Number.isNaN(x) - Number.isNaN(y);
        const sign = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return descending ? -sign : sign;
      });
      table.tBodies[0].append(...rows);
      for (const other of all("th", table.tHead)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      status.textContent = `Sorted by ${button.textContent.trim()}, ${descending ? "highest" : "lowest"} first.`;
    });
  }

  function show() {
    const { category, kind, model } = Object.fromEntries(new FormData(filters));
    const verdict = order ? order.elements.verdict.value : "";
    const matches = (node) =>
      (!category || !node.dataset.category || node.dataset.category === category) &&
      (!kind || !node.dataset.kind || node.dataset.kind === kind) &&
      (!model || !node.dataset.model || node.dataset.model === model);
    for (const node of all("tbody tr, .plots figure, .tiles figure[data-model]")) node.hidden = !matches(node);
    for (const card of all("#gallery article")) {
      const answers = all("figure[data-verdict]:not([hidden])", card);
      card.hidden = !matches(card) || (verdict !== "" && !answers.some((answer) => answer.dataset.verdict === verdict));
    }
    const count = (selector) => all(selector).filter((node) => !node.hidden).length;
    const parts = [`${count("#results-table tbody tr")} results`];
    if (document.getElementById("kinds-table")) parts.push(`${count("#kinds-table tbody tr")} defect kinds`);
    if (gallery) parts.push(`${count("#gallery article")} pictures`);
    status.textContent = `${parts.join(", ")} shown.`;
  }

  function arrange() {
    const index = order.elements.order.value;
    const severity = (card) => {
      const answer = index === "" ? card : card.querySelector(`figure[data-index="${index}"]`);
      return answer ? Number(answer.dataset.severity) : -Infinity;
    };
    gallery.append(...all("article", gallery).sort((a, b) => severity(b) - severity(a)));
  }

  filters.addEventListener("change", show);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(show));
  if (order) {
    order.addEventListener("change", () => { arrange(); show(); });
    order.addEventListener("submit", (event) => event.preventDefault());
  }
  show();
})();
