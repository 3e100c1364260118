// The browser's part of click_segmenter: shows the picture, the mask and the prompt, and sends each finished
// click or drag to the kernel. The box under the mouse is drawn here, so it never waits for the kernel.

const SVG = "http://www.w3.org/2000/svg";

function element(parent, name, style = {}, attributes = {}) {
  const made = document.createElement(name);
  Object.assign(made.style, style);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  parent.append(made);
  return made;
}

function shape(svg, name, attributes) {
  const made = document.createElementNS(SVG, name);
  const all = { fill: "none", "stroke-width": 2, "vector-effect": "non-scaling-stroke", ...attributes };
  Object.entries(all).forEach(([key, value]) => made.setAttribute(key, value));
  svg.append(made);
}

function drawBox(svg, [x0, y0, x1, y1], colour) {
  const place = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
  shape(svg, "rect", { ...place, stroke: "white", "stroke-width": 4, "stroke-opacity": 0.6 }); // seen on any image
  shape(svg, "rect", { ...place, stroke: colour, "stroke-dasharray": "6 4" });
}

// A circle inside the object, a diagonal cross outside: told apart without colours.
function drawPoint(svg, [x, y], inside, colours, r) {
  if (inside) return shape(svg, "circle", { cx: x, cy: y, r, fill: colours.inside, stroke: "white" });
  const cross = `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`;
  shape(svg, "path", { d: cross, stroke: "white", "stroke-width": 6 });
  shape(svg, "path", { d: cross, stroke: colours.outside, "stroke-width": 3 });
}

// Show the bytes of a trait; resolves when the picture can be seen.
async function showBytes(image, view) {
  if (image.src) URL.revokeObjectURL(image.src);
  const some = view && view.byteLength > 0;
  image.style.display = some ? "block" : "none";
  if (!some) return image.removeAttribute("src");
  image.src = URL.createObjectURL(new Blob([view]));
  await image.decode().catch(() => {}); // another answer came first
}

function build(model, el) {
  const [height, width] = model.get("size");
  const shown = Math.round((model.get("width") * width) / Math.max(height, width));
  const sharp = Math.max(height, width) < model.get("width") ? "pixelated" : "auto";
  const full = { position: "absolute", inset: 0, width: "100%", height: "100%", imageRendering: sharp };
  const root = element(el, "div", { maxWidth: "100%" }, { class: "seminar-click" });
  const stage = element(root, "div", {
    position: "relative", width: `${shown}px`, maxWidth: "100%", aspectRatio: `${width} / ${height}`,
    cursor: "crosshair", touchAction: "none", userSelect: "none",
  }, { class: "seminar-click-stage" });
  const picture = element(stage, "img", full, { alt: "the image to segment", draggable: "false" });
  const mask = element(stage, "img", full, { alt: "", draggable: "false", class: "seminar-click-mask" });
  const svg = document.createElementNS(SVG, "svg");
  Object.assign(svg.style, { ...full, overflow: "visible" });
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  stage.append(svg);
  const bar = element(root, "div", { display: "flex", gap: "8px", alignItems: "center", margin: "6px 0" });
  const status = element(root, "div", { minHeight: "1.4em" }, { class: "seminar-click-status", role: "status" });
  return { root, stage, picture, mask, svg, bar, status, width, height };
}

function addButtons(model, bar, ask) {
  for (const name of ["undo", "clear"]) {
    const button = element(bar, "button", {}, { type: "button", class: "jupyter-button", "data-act": name });
    button.textContent = name;
    button.onclick = () => ask({ type: name });
  }
  if (model.get("mode") !== "point") return { checked: false };
  const label = element(bar, "label");
  const box = element(label, "input", {}, { type: "checkbox", class: "seminar-click-outside" });
  label.append(" next points lie outside the object");
  return box;
}

function render({ model, el }) {
  const view = build(model, el);
  const { root, stage, svg, status, width, height } = view;
  let start = null; // where the button went down, in pixels of the image
  let sent = null; // when the question left

  const ask = (message) => {
    sent = performance.now();
    status.textContent = "asking the model ..."; // stays if the kernel is busy or dead
    model.send(message);
  };
  const outside = addButtons(model, view.bar, ask);

  const place = (event) => {
    const area = stage.getBoundingClientRect();
    return [((event.clientX - area.left) / area.width) * width, ((event.clientY - area.top) / area.height) * height];
  };

  const drawPrompt = (dragged = null) => {
    const { box, points = [], labels = [] } = model.get("prompt");
    const colours = model.get("colours");
    svg.replaceChildren();
    if (dragged || box) drawBox(svg, dragged || box, colours.box);
    const radius = (6 * width) / (stage.clientWidth || width); // six pixels of the screen
    points.forEach((point, i) => drawPoint(svg, point, labels[i], colours, radius));
  };

  const answer = async () => {
    drawPrompt();
    await showBytes(view.mask, model.get("overlay"));
    const waited = sent === null || !model.get("overlay").byteLength ? "" : `, on the screen after ${Math.round(performance.now() - sent)} ms`;
    sent = null;
    status.textContent = model.get("status") + (model.get("failed") ? "" : waited);
    status.style.color = model.get("failed") ? model.get("colours").outside : "";
    root.dataset.answered = model.get("answered"); // last: who waits for it finds all else in place
  };

  stage.onpointerdown = (event) => {
    event.preventDefault(); // no text is selected, no picture dragged away
    start = place(event);
    stage.setPointerCapture(event.pointerId); // the drag may leave the image
  };
  stage.onpointermove = (event) => {
    if (start && model.get("mode") === "box") drawPrompt([...start, ...place(event)]);
  };
  stage.onpointerup = (event) => {
    if (!start) return;
    const isOutside = event.shiftKey || event.button === 2 || outside.checked;
    ask({ type: "drag", start, end: place(event), outside: isOutside });
    start = null;
  };
  stage.onpointercancel = () => { start = null; drawPrompt(); };
  stage.oncontextmenu = (event) => { event.preventDefault(); event.stopPropagation(); };

  model.on("change:answered", answer);
  showBytes(view.picture, model.get("picture"));
  answer();
  model.send({ type: "ready" });
  return () => model.off("change:answered", answer);
}

export default { render };
