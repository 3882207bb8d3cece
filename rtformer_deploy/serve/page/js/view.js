// The picture on the screen: photograph and colours over, beside or swiped; the pointer or the arrow keys read a pixel.

import { paint } from "./labels.js";

export class View {
  #elements;
  #result = null;
  #hidden = new Set();
  #mask = document.createElement("canvas");
  #mode = "over";
  #opacity = 0.5;
  #swipe = 0.5;
  #point = null;

  /** `elements`: frames, photo, beside, view, sheet, divider, cross, tip. `onSwipe` gets the place, 0 to 1, to which a pointer pulls. */
  constructor(elements, onSwipe) {
    this.#elements = elements;
    this.#listen(onSwipe);
  }

  /** Shows a result: {photo, labels, confidence, classes, live}. */
  show(result) {
    if (this.#result && (this.#result.labels.width !== result.labels.width || this.#result.labels.height !== result.labels.height)) {
      this.#read(null);
    }
    this.#replace(result);
    const { view, photo, tip } = this.#elements;
    const { width, height } = result.labels;
    for (const canvas of [view, photo]) resize(canvas, width, height);
    tip.setAttribute("aria-live", result.live ? "off" : "polite"); // nobody wants thirty announcements a second
    this.#elements.frames.hidden = false;
    this.#elements.frames.style.setProperty("--ratio", width / height);
    this.#paint();
    this.#read(this.#point);
  }

  clear() {
    this.#replace(null);
    this.#read(null);
    this.#elements.frames.hidden = true;
  }

  hide(hidden) {
    this.#hidden = hidden;
    this.#paint();
  }

  set mode(mode) {
    this.#mode = mode;
    this.#elements.beside.hidden = mode !== "beside";
    this.#elements.divider.hidden = mode !== "swipe";
    this.#elements.frames.dataset.mode = mode;
    this.#draw();
  }

  set opacity(opacity) {
    this.#opacity = opacity;
    this.#draw();
  }

  set swipe(swipe) {
    this.#swipe = swipe;
    this.#elements.divider.style.left = `${100 * swipe}%`;
    this.#draw();
  }

  #replace(result) {
    if (this.#result && this.#result.photo !== result?.photo) this.#result.photo.close();
    this.#result = result;
  }

  #paint() {
    if (!this.#result) return;
    const { labels, classes } = this.#result;
    resize(this.#mask, labels.width, labels.height);
    this.#mask.getContext("2d").putImageData(paint(labels, classes, this.#hidden), 0, 0);
    this.#draw();
  }

  #draw() {
    if (!this.#result) return;
    const { width, height } = this.#mask;
    const { photo } = this.#result;
    const context = this.#elements.view.getContext("2d");
    drawPhoto(context, photo, width, height);
    context.globalAlpha = this.#opacity;
    const left = this.#mode === "swipe" ? Math.round(this.#swipe * width) : 0;
    if (left < width) context.drawImage(this.#mask, left, 0, width - left, height, left, 0, width - left, height);
    context.globalAlpha = 1;
    if (this.#mode === "beside") drawPhoto(this.#elements.photo.getContext("2d"), photo, width, height);
  }

  #listen(onSwipe) {
    const { view, photo } = this.#elements;
    for (const canvas of [view, photo]) {
      canvas.addEventListener("pointermove", (event) => {
        this.#read(this.#at(canvas, event));
        if (canvas === view && event.buttons & 1) this.#pull(event, onSwipe);
      });
      canvas.addEventListener("pointerdown", (event) => {
        this.#read(this.#at(canvas, event));
        if (canvas === view) this.#pull(event, onSwipe);
      });
      canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#read(null));
    }
    view.addEventListener("keydown", (event) => this.#key(event));
    view.addEventListener("blur", () => this.#read(null));
  }

  #pull(event, onSwipe) {
    if (this.#mode !== "swipe") return;
    if (event.type === "pointerdown") this.#elements.view.setPointerCapture(event.pointerId);
    const box = this.#elements.view.getBoundingClientRect();
    onSwipe(clamp((event.clientX - box.left) / box.width, 0, 1));
  }

  #at(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const { width, height } = canvas;
    return {
      x: clamp(Math.floor(((event.clientX - box.left) / box.width) * width), 0, width - 1),
      y: clamp(Math.floor(((event.clientY - box.top) / box.height) * height), 0, height - 1),
    };
  }

  #key(event) {
    if (event.key === "Escape") this.#read(null);
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!direction || !this.#result) return;
    event.preventDefault();
    const { width, height } = this.#result.labels;
    const start = this.#point ?? { x: width >> 1, y: height >> 1 };
    const step = event.shiftKey ? 1 : Math.max(1, Math.round(width / 50));
    this.#read({ x: clamp(start.x + step * direction[0], 0, width - 1), y: clamp(start.y + step * direction[1], 0, height - 1) });
  }

  /** Shows what the result says at a point {x, y}; null: nothing. */
  #read(point) {
    const { tip, cross } = this.#elements;
    this.#point = this.#result && point;
    tip.hidden = cross.hidden = !this.#point;
    if (!this.#point) return;
    const { labels, confidence, classes } = this.#result;
    const index = point.y * labels.width + point.x;
    const name = classes[labels.values[index]]?.name ?? "no class";
    const sure = confidence ? ` ${Math.round((100 * confidence.values[index]) / 255)} %` : "";
    tip.textContent = `${name}${sure}`;
    const [left, top] = [(point.x + 0.5) / labels.width, (point.y + 0.5) / labels.height];
    for (const element of [tip, cross]) {
      element.style.left = `${100 * left}%`;
      element.style.top = `${100 * top}%`;
    }
    tip.dataset.side = `${top > 0.5 ? "above" : "below"} ${left > 0.5 ? "left" : "right"}`;
  }
}

function resize(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

function drawPhoto(context, photo, width, height) {
  context.clearRect(0, 0, width, height);
  context.drawImage(photo, 0, 0, width, height);
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
