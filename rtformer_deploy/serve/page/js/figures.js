// Latency and frames per second, over the last two seconds.

const WINDOW_MS = 2000;

export class Figures {
  #elements;
  #frames = [];

  /** `elements`: latency, fps, fpsRow, engine, queue, size. */
  constructor(elements) {
    this.#elements = elements;
  }

  /** Another picture or video: nothing is known of it yet. */
  reset() {
    this.#frames = [];
    for (const name of ["latency", "fps", "engine", "queue", "size"]) this.#elements[name].textContent = "–";
  }

  /** Shows one picture's times, in milliseconds. */
  still(latency, { engine, queue }, { width, height }) {
    this.#show(latency, null, engine, queue, width, height);
  }

  /** Adds one of many frames, and shows the means. */
  frame(latency, { engine_ms: engine, queue_ms: queue }, { width, height }) {
    const now = performance.now();
    this.#frames.push({ now, latency, engine, queue });
    this.#frames = this.#frames.filter((each) => now - each.now <= WINDOW_MS);
    const mean = (name) => this.#frames.reduce((sum, each) => sum + each[name], 0) / this.#frames.length;
    const span = now - this.#frames[0].now;
    const fps = span ? (1000 * (this.#frames.length - 1)) / span : null;
    this.#show(mean("latency"), fps, mean("engine"), mean("queue"), width, height);
  }

  #show(latency, fps, engine, queue, width, height) {
    const { latency: latencyCell, fps: fpsCell, fpsRow, engine: engineCell, queue: queueCell, size } = this.#elements;
    latencyCell.textContent = milliseconds(latency);
    fpsRow.hidden = fps === null;
    fpsCell.textContent = fps === null ? "" : fps.toFixed(1);
    engineCell.textContent = milliseconds(engine);
    queueCell.textContent = milliseconds(queue);
    size.textContent = `${width} × ${height}`;
  }
}

function milliseconds(value) {
  if (!Number.isFinite(value)) return "–";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}
