"use strict";
document.documentElement.classList.add("scripted");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Sort a table by the column whose head is clicked; numbers by value, undefined ones last.
function sortBy(head) {
  const table = head.closest("table"), index = [...head.parentNode.children].indexOf(head);
  const numeric = head.classList.contains("number");
  const current = head.getAttribute("aria-sort");
  const direction = current === "none" ? (numeric ? -1 : 1) : current === "ascending" ? -1 : 1;
  all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const keyed = [...table.tBodies[0].rows].map((row) => [row.cells[index].dataset.value, row]);
  keyed.sort(([a], [b]) => {
    if (!numeric) return direction * a.localeCompare(b, undefined, { numeric: true });
    const x = parseFloat(a), y = parseFloat(b);
    return isNaN(x) - isNaN(y) || direction * (x - y) || 0;
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}
all(".sort").forEach((button) => button.addEventListener("click", () => sortBy(button.closest("th"))));

// Hide rows that do not match the typed text (part of the cell) or the selected one (all of it).
function filterTable(id) {
  const controls = all(`[data-filters="${id}"]`), rows = [...document.getElementById(id).tBodies[0].rows];
  for (const row of rows) {
    row.hidden = !controls.every((control) => {
      const cell = row.cells[control.dataset.column].dataset.value, text = control.value;
      if (control.type !== "search") return !text || cell === text;
      return cell.toLowerCase().includes(text.trim().toLowerCase());
    });
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById(`count-${id}`).textContent = `${shown} of ${rows.length} rows`;
}
all("[data-filters]").forEach((control) => {
  control.addEventListener("input", () => filterTable(control.dataset.filters));
  filterTable(control.dataset.filters);
});

// Show only the selected metric.
all("[data-shows]").forEach((select) => {
  const show = () => all(`[data-group="${select.dataset.shows}"]`).forEach((block) => {
    block.hidden = block.dataset.name !== select.value;
  });
  select.addEventListener("input", show);
  show();
});

// Show means, gains, or gains with their intervals in the cells of a table.
all("[data-cells]").forEach((select) => {
  const show = () => { document.getElementById(select.dataset.cells).dataset.numbers = select.value; };
  select.addEventListener("input", show);
  show();
});

// Scroll through the slices of a case, or through 2-D images.
const viewers = all(".viewer").map((figure) => {
  const frames = JSON.parse(figure.querySelector("script").textContent);
  const range = figure.querySelector("input");
  const show = (index) => {
    const frame = frames[index];
    range.value = index;
    range.setAttribute("aria-valuetext", frame.caption);
    all(".stack", figure).forEach((stack) => { stack.style.aspectRatio = frame.ratio; });
    all(".base", figure).forEach((image, i) => { image.src = frame.image; image.alt = i ? "" : frame.caption; });
    all(".layer", figure).forEach((image) => {
      image.src = frame.layers[image.dataset.layer];
      image.alt = `${image.dataset.alt}, ${frame.caption}`;
    });
    all(".caption", figure).forEach((text) => { text.textContent = frame.caption; });
    figure.querySelector(".scores tbody")?.replaceChildren(...frame.scores.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((cell, i) => {
        const td = document.createElement("td");
        td.textContent = cell;
        td.className = i ? "number" : "";
        row.append(td);
      });
      return row;
    }));
  };
  const clamp = (index) => Math.min(frames.length - 1, Math.max(0, index));
  range.addEventListener("input", () => show(Number(range.value)));
  all(".step", figure).forEach((button) => button.addEventListener("click", () => {
    show(clamp(Number(range.value) + Number(button.dataset.step)));
  }));
  show(Number(range.value));
  return show;
});
all("[data-viewer]").forEach((link) => link.addEventListener("click", () => {
  viewers[link.dataset.viewer](Number(link.dataset.frame));
}));

// Unfold all details for printing.
let folded = [];
function unfold() {
  if (!folded.length) folded = all("details:not([open])");
  folded.forEach((details) => { details.open = true; });
}
function fold() {
  folded.forEach((details) => { details.open = false; });
  folded = [];
}
addEventListener("beforeprint", unfold);
addEventListener("afterprint", fold);
matchMedia("print").addEventListener("change", (media) => (media.matches ? unfold() : fold()));
