"use strict";
// The page is complete without this script. It adds: the comparison, a slider for the slices, a cross that shows one
// voxel in every picture, tables that can be sorted, and a switch between light and dark.
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const one = (selector, from = document) => from.querySelector(selector);

const theme = one("#theme");
if (theme) {
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
}

// Slices: the slider checks the buttons, which alone decide what is seen.
const buttons = all('input[name="slice"]');
const slider = one("#slices .slider");
const slices = slider && one("input", slider);
function tellSlice() {
  const at = buttons.findIndex((button) => button.checked);
  slices.value = at;
  one("span", slider).textContent = `slice ${buttons[at].id.slice("slice-".length)}`;
}
function toSlice(at) {
  buttons[Math.min(Math.max(at, 0), buttons.length - 1)].checked = true;
  tellSlice();
}
if (slider) {
  slider.hidden = false;
  one("#slices .choices").hidden = true;
  slices.addEventListener("input", () => toSlice(Number(slices.value)));
  tellSlice();
}

// Comparison of the fixed image with the moved or moving one.
const compare = one("#compare");
const stage = compare && one(".stage", compare);
const cut = compare && one("#cut", compare);
const chosen = (name) => one(`input[name="${name}"]:checked`, compare).value;
function draw() {
  const over = chosen("over"), mode = chosen("mode"), outlines = one("#outlines", compare);
  stage.dataset.over = over;
  stage.dataset.mode = mode;
  stage.toggleAttribute("data-labels", !outlines || outlines.checked);
  stage.style.setProperty("--cut", `${cut.value}%`);
  cut.disabled = mode === "checker";
  const name = one(`input[name="over"]:checked`, compare).parentElement.textContent.trim();
  one(".what", compare).textContent =
    mode === "wipe" ? `left of the line: ${name}, right: fixed`
      : mode === "blend" ? `${cut.value} % ${name}, ${100 - cut.value} % fixed` : `squares of ${name} and fixed`;
}
function next(name) {
  const options = all(`input[name="${name}"]`, compare);
  options[(options.findIndex((option) => option.checked) + 1) % options.length].checked = true;
  draw();
}
if (compare) {
  compare.hidden = false;
  const edge = document.createElement("div");
  edge.className = "edge";
  stage.append(edge);
  compare.addEventListener("input", draw);
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    cut.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    draw();
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
  stage.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
  draw();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "text") return;
  const key = event.key.toLowerCase();
  if (compare && key === "b") next("over");
  else if (compare && key === "m") next("mode");
  else if (compare && key === "l" && one("#outlines")) { one("#outlines").checked ^= true; draw(); }
  else if (event.target.matches("input, button, summary, a")) return; // arrows keep their meaning there
  else if (compare && (key === "arrowleft" || key === "arrowright")) {
    cut.value = Number(cut.value) + (key === "arrowleft" ? -2 : 2);
    draw();
  } else if (slider && (key === "arrowup" || key === "arrowdown")) {
    toSlice(Number(slices.value) + (key === "arrowup" ? 1 : -1));
  } else return;
  event.preventDefault();
});

// The same voxel in every picture.
const view = document.body.dataset.view && JSON.parse(document.body.dataset.view);
if (view) {
  const frames = all(".plate .frame");
  const told = document.createElement("div");
  told.id = "voxel";
  told.hidden = true;
  document.body.append(told);
  const show = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const index = view.axes.length === 2 && share.map((part, n) => {
      const voxel = Math.min(Math.max(Math.floor(part * view.sizes[n]), 0), view.sizes[n] - 1);
      return view.flipped[n] ? view.sizes[n] - 1 - voxel : voxel;
    });
    const place = [];
    view.axes.forEach((axis, n) => { place[axis] = index[n]; });
    const button = buttons.find((item) => item.checked);
    if (view.through !== null) place[view.through] = Number(button.id.slice("slice-".length));
    told.textContent = `voxel (${place.join(", ")}) of the array`;
    told.hidden = false;
    for (const frame of frames) {
      frame.classList.add("linked");
      frame.style.setProperty("--x", `${100 * share[0]}%`);
      frame.style.setProperty("--y", `${100 * share[1]}%`);
    }
  };
  const hide = () => {
    told.hidden = true;
    frames.forEach((frame) => frame.classList.remove("linked"));
  };
  for (const frame of frames) {
    frame.addEventListener("pointermove", show);
    frame.addEventListener("pointerleave", hide);
  }
}

// Tables: a click on a heading sorts by it, another the other way round; what is not known stays last.
for (const table of all("table.sortable")) {
  const headings = all("thead th", table);
  const value = (row, column) => {
    const cell = row.cells[column], number = all("data", cell).at(-1); // of before → after the latter
    if (cell.dataset.empty !== undefined) return null;
    return number ? Number(number.value) : cell.textContent.trim();
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = all("tbody tr", table).map((row) => [value(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
        return down ? -order : order;
      });
      one("tbody", table).append(...rows.map(([, row]) => row));
    });
  });
}
