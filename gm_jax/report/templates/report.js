// What moves in the pages: tables that sort, curves that hide, the latent plane, and the film of a reverse process.
"use strict";

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");  // what is not there comes last, either way
    const [x, y] = [Number.parseFloat(a.replaceAll(",", "")), Number.parseFloat(b.replaceAll(",", ""))];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      const sign = (a, b) => (down && a !== "" && b !== "" ? -1 : 1);
      rows.sort((a, b) => sign(key(a, column), key(b, column)) * compare(key(a, column), key(b, column)));
      table.tBodies[0].append(...rows);
    });
  });
}

function curves(block) {
  block.querySelectorAll("input[data-line]").forEach((box) => {
    const line = block.querySelector(`svg [data-line="${box.dataset.line}"]`);
    const show = () => { line.style.display = box.checked ? "" : "none"; };
    box.addEventListener("change", show);
    show();
  });
}

function whenLoaded(image, draw) {
  if (image.complete) draw();
  else image.addEventListener("load", draw);
}

// Calls moved(x, y), both from 0 to 1, while a mouse is over the element or a finger is on it.
function follow(element, moved, onlyPressed) {
  const tell = (event) => {
    if (onlyPressed && !event.buttons) return;
    const box = element.getBoundingClientRect();
    const within = (value) => Math.min(Math.max(value, 0), 0.999999);
    moved(within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height));
  };
  element.addEventListener("pointermove", tell);
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    tell(event);
  });
}

function plane(corner) {
  const sprite = JSON.parse(corner.dataset.sprite);
  const [image, cross, canvas] = ["img", ".cross", "canvas"].map((name) => corner.querySelector(name));
  const [across, up] = [corner.querySelector(".x"), corner.querySelector(".y")];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const draw = () => {
    const [column, row] = [Number(across.value), sprite.rows - 1 - Number(up.value)];
    const { width, height } = sprite;
    context.drawImage(image, column * width, row * height, width, height, 0, 0, canvas.width, canvas.height);
    cross.style.left = `${(100 * column) / sprite.columns}%`;
    cross.style.top = `${(100 * row) / sprite.rows}%`;
    cross.style.width = `${100 / sprite.columns}%`;
    cross.style.height = `${100 / sprite.rows}%`;
    const at = (index) => sprite.along[index].toFixed(2);
    corner.querySelector("output").textContent = `z = (${at(column)}, ${at(Number(up.value))})`;
  };
  follow(corner.querySelector(".map"), (x, y) => {
    across.value = Math.floor(x * sprite.columns);
    up.value = sprite.rows - 1 - Math.floor(y * sprite.rows);
    draw();
  });
  across.addEventListener("input", draw);
  up.addEventListener("input", draw);
  whenLoaded(image, draw);
}

function film(corner) {
  const sprite = JSON.parse(corner.dataset.sprite);
  const [image, canvas, slider, button] = ["img", "canvas", "input", "button"].map((name) => corner.querySelector(name));
  const context = canvas.getContext("2d");
  let timer = null;
  const draw = () => {
    const frame = Number(slider.value);
    context.drawImage(image, 0, frame * sprite.height, sprite.width, sprite.height, 0, 0, canvas.width, canvas.height);
    const share = Math.round(100 * sprite.noise[frame]);
    corner.querySelector("output").textContent = `state ${frame + 1} of ${sprite.rows}, noise ${share} % of what is seen`;
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Run";
  };
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(slider.value) === sprite.rows - 1) slider.value = 0;
    draw();
    button.textContent = "Stop";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      draw();
      if (Number(slider.value) === sprite.rows - 1) stop();
    }, 250);
  });
  slider.addEventListener("input", () => { stop(); draw(); });
  follow(canvas, (x) => { stop(); slider.value = Math.floor(x * sprite.rows); draw(); }, true);
  whenLoaded(image, draw);
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".curves").forEach(curves);
document.querySelectorAll(".plane").forEach(plane);
document.querySelectorAll(".film").forEach(film);
