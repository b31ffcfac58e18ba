// Draws the maps of heads from the data in the page. Text comes into the page as text, never as HTML.
"use strict";
(() => {
  const { cells, labels, maps } = JSON.parse(document.getElementById("look").textContent);
  if (!cells) return;
  const levels = (map) => Uint8Array.from(atob(map.levels), (letter) => letter.charCodeAt(0));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const printed = window.matchMedia("print");

  // The ink is the text's colour, so that no weight is the page itself.
  function draw(canvas, map) {
    canvas.width = canvas.height = cells;
    const context = canvas.getContext("2d");
    const image = context.createImageData(cells, cells);
    const ink = dark.matches && !printed.matches ? [124, 199, 238] : [0, 60, 100];
    levels(map).forEach((level, at) => image.data.set([...ink, level], 4 * at));
    context.putImageData(image, 0, 0);
  }

  const byName = new Map(maps.map((map) => [map.attention + "." + map.head, map]));
  const buttons = [...document.querySelectorAll("button[data-map]")].filter((button) => byName.has(button.dataset.map));
  const large = document.getElementById("large");
  const canvas = large.querySelector("canvas");
  const status = document.getElementById("cell");
  let shown, place = [0, 0];

  // What the text of a cell is: blanks and breaks are seen.
  const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "·");
  const percent = (weight) => (100 * weight).toPrecision(3) + " %";

  function tell(row, column) {
    place = [row, column];
    const level = levels(shown)[row * cells + column] / 255;
    const weight = level * level * shown.largest;
    status.textContent = `query ${row} “${visible(labels[row] ?? "")}”, key ${column} “${visible(labels[column] ?? "")}”: about ${percent(weight)}`;
  }

  function show(button) {
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    shown = byName.get(button.dataset.map);
    large.hidden = false;
    document.getElementById("large-title").textContent = button.getAttribute("aria-label");
    document.getElementById("large-text").textContent = `The largest weight of a cell is ${percent(shown.largest)}. Point at a cell, or go to it with the arrow keys.`;
    draw(canvas, shown);
    tell(Math.min(place[0], cells - 1), Math.min(place[1], cells - 1));
    large.scrollIntoView({ block: "nearest" });
  }

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (from, size) => Math.max(0, Math.min(cells - 1, Math.floor((from / size) * cells)));
    tell(at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width));
  });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    const within = (at) => Math.max(0, Math.min(cells - 1, at));
    tell(within(place[0] + by[0]), within(place[1] + by[1]));
  });

  function drawAll() {
    buttons.forEach((button) => draw(button.querySelector("canvas"), byName.get(button.dataset.map)));
    if (shown) draw(canvas, shown);
  }
  buttons.forEach((button) => {
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => show(button));
  });
  [dark, printed].forEach((media) => media.addEventListener("change", drawAll));
  drawAll();
})();
