// The browser's side of the box widget (rsssl_nb/widgets/boxes.py): boxes to drag, points to set on an image.
// All coordinates are pixels of the raster; `extent` says which part is shown: left, top, right, bottom.
const NS = "http://www.w3.org/2000/svg";
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

// ---- Geometry: a box is x0, y0, x1, y1; corners count clockwise from the top left.

const clamp = (v, low, high) => Math.min(Math.max(v, low), Math.max(low, high));
const round = values => values.map(v => Math.round(v * 100) / 100);
const isLeft = k => k == 0 || k == 3;
const isTop = k => k < 2;
const cornerOf = ([x0, y0, x1, y1], k) => [isLeft(k) ? x0 : x1, isTop(k) ? y0 : y1];

// The box moved by (dx, dy), kept whole on the picture.
function movedBox([x0, y0, x1, y1], dx, dy, [left, top, right, bottom]) {
  dx = clamp(dx, left - x0, right - x1);
  dy = clamp(dy, top - y0, bottom - y1);
  return round([x0 + dx, y0 + dy, x1 + dx, y1 + dy]);
}

// The box with corner k at (x, y). It may shrink to nothing, but not turn inside out.
function pulledBox([x0, y0, x1, y1], k, x, y, [left, top, right, bottom]) {
  if (isLeft(k)) x0 = clamp(x, left, x1);
  else x1 = clamp(x, x0, right);
  if (isTop(k)) y0 = clamp(y, top, y1);
  else y1 = clamp(y, y0, bottom);
  return round([x0, y0, x1, y1]);
}

// The box in the middle of the picture, at its own size, or at half the picture's when it is flat.
function centredBox([x0, y0, x1, y1], [left, top, right, bottom]) {
  const flat = x1 - x0 < 1 || y1 - y0 < 1;
  const width = flat ? (right - left) / 2 : Math.min(x1 - x0, right - left);
  const height = flat ? (bottom - top) / 2 : Math.min(y1 - y0, bottom - top);
  const x = (left + right - width) / 2;
  const y = (top + bottom - height) / 2;
  return round([x, y, x + width, y + height]);
}

// One step of an arrow key: a 64th of the picture, one pixel at least.
const keyStep = ([left, , right]) => Math.max(1, Math.round((right - left) / 64));

// ---- Drawing: SVG nodes over the picture. Names become text nodes: a class called <b> is shown as <b>.

function make(tag, parent, attributes = {}, text = undefined) {
  const node = parent.appendChild(document.createElementNS(NS, tag));
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function describe([x0, y0, x1, y1], name, turn, fixed) {
  const at = `x ${Math.round(x0)} to ${Math.round(x1)}, y ${Math.round(y0)} to ${Math.round(y1)}`;
  const more = fixed ? "" : ", with Shift they pull its far corner, T turns it";
  const keys = `Arrow keys move it${more}, Home puts it in the middle.`;
  return `box ${name}: ${at}, turned by ${90 * turn} degrees. ${keys}`;
}

// Box i anew: outline, name and, unless boxes are fixed, four grips and a dot at its view's first corner.
// Odd boxes are dashed, for those who do not tell their colours apart. `unit`: one pixel of the screen.
function drawBox(group, i, get, unit) {
  const box = get("boxes")[i];
  const [x0, y0, x1, y1] = box;
  const turn = get("turns")[i] || 0;
  const name = get("names")[i] ?? "";
  const color = get("colors")[i % get("colors").length];
  const place = {x: x0, y: y0, width: x1 - x0, height: y1 - y0, "data-box": i};
  group.replaceChildren();
  group.setAttribute("aria-label", describe(box, name, turn, get("fixed")));
  make("rect", group, {...place, class: "halo", stroke: "white", "stroke-dasharray": "none"});
  const dashes = i % 2 ? "7 4" : "none";
  make("rect", group, {...place, class: "line", stroke: color, "stroke-dasharray": dashes});
  if (name) {
    make("text", group, {x: x0 + 5 * unit, y: y0 + 15 * unit, "font-size": 13 * unit, fill: color}, name);
  }
  if (get("fixed")) return;
  for (let k = 0; k < 4; k++) {
    const [x, y] = cornerOf(box, k);
    const side = 10 * unit;
    const square = {x: x - side / 2, y: y - side / 2, width: side, height: side};
    make("rect", group, {...square, class: "grip", fill: color, "data-box": i, "data-corner": k});
  }
  const [x, y] = cornerOf(box, (4 - turn) % 4);
  make("circle", group, {class: "dot", cx: x, cy: y, r: 4 * unit, fill: "white", stroke: color});
}

// What lies on all boxes: their overlap, matched points, points set by hand, the cross that keys move.
function drawMarks(layer, get, cross, unit) {
  layer.replaceChildren();
  const [x0, y0, x1, y1] = get("common");
  if (x1 > x0 && y1 > y0) {
    make("rect", layer, {class: "common", x: x0, y: y0, width: x1 - x0, height: y1 - y0});
  }
  for (const [x, y] of get("marks")) make("circle", layer, {class: "mark", cx: x, cy: y, r: 3 * unit});
  for (const [x, y, k] of get("points")) {
    const color = get("colors")[k % get("colors").length];
    const beside = {x: x + 7 * unit, y: y + 4 * unit, "font-size": 12 * unit, fill: color};
    make("circle", layer, {class: "point", cx: x, cy: y, r: 5 * unit, fill: color});
    make("text", layer, beside, get("names")[k] ?? "");
  }
  if (!get("most")) return;
  const [cx, cy] = cross;
  make("path", layer, {class: "cross", d: `M${cx - 9 * unit} ${cy}h${18 * unit}`});
  make("path", layer, {class: "cross", d: `M${cx} ${cy - 9 * unit}v${18 * unit}`});
}

// ---- Pointer and keys. While the kernel is busy, the widget layer keeps changes and then sends the newest.

function addPoint(model, x, y) {
  const [left, top, right, bottom] = model.get("extent");
  const point = [...round([clamp(x, left, right), clamp(y, top, bottom)]), model.get("kind")];
  model.set("points", [...model.get("points"), point].slice(-model.get("most")));
  model.save_changes();
}

function listenToPointer(model, svg, pointAt) {
  let held = null;
  svg.addEventListener("pointerdown", event => {
    const {box, corner} = event.target.dataset;
    const [x, y] = pointAt(event);
    if (box === undefined) {
      if (model.get("most")) addPoint(model, x, y);
      return;
    }
    held = {i: +box, corner, x, y, start: model.get("boxes")[+box]};
    svg.setPointerCapture(event.pointerId);
    event.target.parentNode.focus();
    event.preventDefault();
  });
  svg.addEventListener("pointermove", event => {
    if (!held) return;
    const [x, y] = pointAt(event);
    const extent = model.get("extent");
    const boxes = model.get("boxes").slice();
    boxes[held.i] = held.corner === undefined
      ? movedBox(held.start, x - held.x, y - held.y, extent)
      : pulledBox(held.start, +held.corner, x, y, extent);
    model.set("boxes", boxes);
    model.save_changes();
  });
  const release = () => { held = null; };
  svg.addEventListener("pointerup", release);
  svg.addEventListener("pointercancel", release);
}

// Keys on box i: arrows move it, Shift and arrows pull its far corner, Home centres it, T turns it.
function onBoxKey(model, i, event) {
  const extent = model.get("extent");
  const step = keyStep(extent);
  const box = model.get("boxes")[i];
  const arrow = ARROWS[event.key];
  const free = !model.get("fixed");
  const put = (name, value) => {
    model.set(name, model.get("boxes").map((_, j) => j == i ? value : model.get(name)[j] ?? 0));
    model.save_changes();
  };
  if (arrow && event.shiftKey && free) {
    put("boxes", pulledBox(box, 2, box[2] + step * arrow[0], box[3] + step * arrow[1], extent));
  } else if (arrow) put("boxes", movedBox(box, step * arrow[0], step * arrow[1], extent));
  else if (event.key == "Home") put("boxes", centredBox(box, extent));
  else if (event.key.toLowerCase() == "t" && free) put("turns", ((model.get("turns")[i] || 0) + 1) % 4);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

// Keys on the picture: arrows move the cross, Enter or Space set a point, Backspace takes the last away.
function onCrossKey(model, cross, event) {
  const extent = model.get("extent");
  const [left, top, right, bottom] = extent;
  const arrow = ARROWS[event.key];
  if (arrow) {
    cross[0] = clamp(cross[0] + keyStep(extent) * arrow[0], left, right);
    cross[1] = clamp(cross[1] + keyStep(extent) * arrow[1], top, bottom);
  } else if (event.key == "Enter" || event.key == " ") addPoint(model, ...cross);
  else if (event.key == "Backspace" || event.key == "Delete") {
    model.set("points", model.get("points").slice(0, -1));
    model.save_changes();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

// ---- The widget. The picture arrives as bytes over the channel of all other values.

function render({model, el}) {
  const get = name => model.get(name);
  const frame = el.appendChild(document.createElement("div"));
  const img = frame.appendChild(document.createElement("img"));
  const svg = make("svg", frame);
  const layer = make("g", svg, {class: "marks"});
  const groups = [];
  const cross = [];
  let url;
  frame.className = "rsssl-boxes";
  img.draggable = false;
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "group");

  function pointAt(event) {
    const shown = svg.getBoundingClientRect();
    const [left, top, right, bottom] = get("extent");
    const across = (event.clientX - shown.left) / shown.width;
    const down = (event.clientY - shown.top) / shown.height;
    return [left + across * (right - left), top + down * (bottom - top)];
  }

  function showPicture() {
    URL.revokeObjectURL(url);
    url = URL.createObjectURL(new Blob([get("image")], {type: "image/png"}));
    img.src = url;
    img.alt = get("label");
  }

  function newGroup() {
    const i = groups.length;
    const group = make("g", svg, {tabindex: 0, role: "group"});
    group.addEventListener("keydown", event => onBoxKey(model, i, event));
    groups.push(group);
  }

  function update() {
    const [left, top, right, bottom] = get("extent");
    const width = right - left;
    const height = bottom - top;
    const unit = width / get("width");
    const next = get("most") && get("names")[get("kind")];
    cross[0] = clamp(cross[0] ?? (left + right) / 2, left, right);
    cross[1] = clamp(cross[1] ?? (top + bottom) / 2, top, bottom);
    frame.style.width = `${get("width")}px`;
    frame.style.height = `${get("width") * height / width}px`;
    svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
    svg.setAttribute("aria-label", get("label") + (next ? `; next: ${next}` : ""));
    if (get("most")) svg.setAttribute("tabindex", 0);
    else svg.removeAttribute("tabindex");
    while (groups.length > get("boxes").length) groups.pop().remove();
    while (groups.length < get("boxes").length) newGroup();
    groups.forEach((group, i) => {
      const now = JSON.stringify([get("boxes")[i], get("turns")[i], unit]);
      if (group.dataset.now == now) return;
      group.dataset.now = now;
      drawBox(group, i, get, unit);
    });
    drawMarks(layer, get, cross, unit);
  }

  listenToPointer(model, svg, pointAt);
  svg.addEventListener("keydown", event => {
    if (event.target != svg || !get("most")) return;
    onCrossKey(model, cross, event);
    update();
  });
  model.on("change:image", showPicture);
  model.on("change", update);
  showPicture();
  update();
  return () => {
    model.off("change:image", showPicture);
    model.off("change", update);
    URL.revokeObjectURL(url);
  };
}

export default { render };
