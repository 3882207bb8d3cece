// The list of classes with their shares; a click hides a class or shows it again.

import { shares } from "./labels.js";

export class Legend {
  #list;
  #absent;
  #onChange;
  #classes = [];
  #rows = new Map();
  hidden = new Set();

  /** `onChange` is called when a class is hidden or shown. */
  constructor(list, absent, onChange) {
    this.#list = list;
    this.#absent = absent;
    this.#onChange = onChange;
  }

  /** Another model's classes: nothing is hidden. */
  setClasses(classes) {
    this.#classes = classes;
    this.hidden = new Set();
    this.reset();
    this.#onChange();
  }

  /** Another picture or video: no class has been seen yet. */
  reset() {
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#absent.hidden = true;
  }

  /** Shows counts. Rows come largest first; while frames come `live` they stay where they are, or nobody could click one. */
  update(counts, live) {
    const all = shares(counts);
    const present = this.#classes.filter(({ id }) => counts[id] || (live && this.#rows.has(id)));
    const order = [...present].sort((a, b) => all[b.id] - all[a.id]);
    if (!live) this.reset();
    for (const each of order) if (!this.#rows.has(each.id)) this.#add(each);
    for (const [id, row] of this.#rows) row.show(all[id], this.hidden.has(id));
    const missing = this.#classes.length - this.#rows.size;
    this.#absent.hidden = missing === 0;
    this.#absent.textContent = missing === 1 ? "1 class does not occur." : `${missing} classes do not occur.`;
  }

  showAll() {
    this.#hide(new Set());
  }

  hideAll() {
    this.#hide(new Set(this.#classes.map(({ id }) => id)));
  }

  #hide(hidden) {
    this.hidden = hidden;
    for (const [id, row] of this.#rows) row.press(!hidden.has(id));
    this.#onChange();
  }

  #add(each) {
    const row = makeRow(each, () => {
      const hidden = new Set(this.hidden);
      if (!hidden.delete(each.id)) hidden.add(each.id);
      this.#hide(hidden);
    });
    this.#rows.set(each.id, row);
    this.#list.append(row.item);
  }
}

function makeRow({ name, colour }, onClick) {
  const item = document.createElement("li");
  const button = item.appendChild(document.createElement("button"));
  button.type = "button";
  const [swatch, label, share, bar] = ["swatch", "name", "share", "extent"].map((kind) => {
    const part = button.appendChild(document.createElement("span"));
    part.className = kind;
    return part;
  });
  swatch.style.background = bar.style.background = `rgb(${colour.join(" ")})`;
  label.textContent = label.title = name;
  button.addEventListener("click", onClick);
  const press = (shown) => button.setAttribute("aria-pressed", String(shown));
  return {
    item,
    press,
    show(value, hidden) {
      press(!hidden);
      share.textContent = percent(value);
      bar.style.width = `${100 * value}%`;
    },
  };
}

/** A share -> "12.3 %"; "< 0.1 %" for what rounding would make nothing of. */
export function percent(share) {
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}
