"use strict";
// The page shows everything without this script; it adds sorting, filters, enlarged images and copying.

const select = (root, selector) => Array.from(root.querySelectorAll(selector));

function makeButton(label, className) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = className;
  button.textContent = label;
  return button;
}

// Sorting: each header becomes a button; equal values keep their order.
function addSorting(table) {
  const body = table.tBodies[0];
  const initial = Array.from(body.rows);
  for (const header of select(table, "th[data-sort]")) {
    const button = makeButton(header.textContent, "");
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const direction = { ascending: "descending", descending: "" }[header.getAttribute("aria-sort") || ""] ?? "ascending";
      for (const other of select(table, "th[aria-sort]")) other.removeAttribute("aria-sort");
      if (direction) header.setAttribute("aria-sort", direction);
      const isNumber = header.dataset.sort === "number";
      const valueOf = (row) => {
        const cell = row.cells[header.cellIndex];
        const text = cell.dataset.value ?? cell.textContent;
        return isNumber ? Number(text) : text;
      };
      const rows = direction
        ? initial
            .map((row) => ({ row, value: valueOf(row) }))
            .sort((a, b) => {
              const order = isNumber ? a.value - b.value : a.value.localeCompare(b.value);
              return direction === "ascending" ? order : -order;
            })
            .map(({ row }) => row)
        : initial;
      body.append(...rows);
    });
  }
}

function addFilters(form, table) {
  const rows = Array.from(table.tBodies[0].rows);
  const output = form.querySelector("output");
  const update = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const { faults, found, requested, change } = row.dataset;
      const text = row.cells[1].textContent.toLowerCase() + " " + row.cells[2].textContent;
      const isShown =
        words.every((word) => text.includes(word)) &&
        (!wanted.fault || (wanted.fault === "none" ? !faults : faults.split(" ").includes(wanted.fault))) &&
        (!wanted.found || found === wanted.found) &&
        (!wanted.requested || requested === wanted.requested) &&
        (!wanted.change || change === wanted.change);
      row.hidden = !isShown;
      count += isShown;
    }
    output.textContent = `${count} of ${rows.length} images`;
  };
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  update();
}

// Enlarged images: a button over each group of images opens it in the dialog; arrow keys go to its neighbors.
function addZoom(dialog) {
  const body = dialog.querySelector(".zoom-body");
  let current = null;
  const show = (group) => {
    current = group;
    const copy = group.cloneNode(true);
    const caption = document.createElement("p");
    const source = group.closest("figure, tr");
    const text = source.querySelector("figcaption, .prompt");
    caption.textContent = `${text.firstChild.textContent} (${group.dataset.zoom})`;
    body.replaceChildren(copy, caption);
  };
  const step = (distance) => {
    const list = current.closest(".rows, tbody");
    const groups = select(list, ".shots").filter((group) => !group.closest("[hidden]"));
    show(groups[(groups.indexOf(current) + distance + groups.length) % groups.length]);
  };
  for (const group of select(document, ".shots")) {
    const button = makeButton("", "zoom");
    button.setAttribute("aria-label", `Enlarge the images of ${group.dataset.zoom}`);
    button.addEventListener("click", () => {
      show(group);
      dialog.showModal();
    });
    group.append(button);
  }
  for (const button of select(dialog, "[data-step]")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  dialog.querySelector("[data-landmarks]").addEventListener("click", () => document.getElementById("landmarks").click());
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}

// The clipboard is not available everywhere, such as in MLflow's frame: then the command is at least selected.
function addCopying(command) {
  const text = command.textContent;
  const button = makeButton("Copy", "copy");
  button.addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents(command.lastChild);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let isCopied = false;
    try {
      await navigator.clipboard.writeText(text);
      isCopied = true;
    } catch {
      isCopied = document.execCommand("copy");
    }
    button.textContent = isCopied ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  command.prepend(button);
}

const table = document.getElementById("images");
addSorting(table);
addFilters(document.getElementById("filter"), table);
addZoom(document.getElementById("zoom"));
for (const command of select(document, ".command")) addCopying(command);
