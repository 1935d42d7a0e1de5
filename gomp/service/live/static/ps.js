// A row for each P: a strip of what it did, a letter of the stream for each look, and what it does now in words.

import { at, colour, context, make } from "./dom.js";
import { count, seconds } from "./format.js";

const LOOKS = 600; // 30 s of 20 a second
const HEIGHT = 18;
const DOING = {
  r: ["p-program", "program", "in a compiled program"],
  p: ["p-python", "Python", "in Python or the system"],
  m: ["background", "marking", "marking"],
  a: ["assists", "assisting", "assisting"],
  o: ["p-owes", "in debt", "waiting for its assist"],
  w: ["sweeping", "sweeping", "sweeping"],
  s: ["pauses", "stopped", "stopped with the world"],
  i: ["p-idle", "idle", "idle"],
  g: ["p-gone", "no process", "without a process"],
};

export class Ps {
  #rows = new Map();

  constructor() {
    for (const [key, words] of Object.values(DOING)) at("ps-legend").append(make("li", { "data-key": key }, words));
  }

  update(ps) {
    const names = new Set(ps.map((p) => p.name));
    for (const [name, row] of this.#rows) {
      if (names.has(name)) continue;
      row.element.remove();
      this.#rows.delete(name);
    }
    for (const p of ps) this.#row(p).update(p);
  }

  /** What each did from now on does not follow what is shown. */
  interrupt() {
    for (const row of this.#rows.values()) row.clear();
  }

  redraw() {
    for (const row of this.#rows.values()) row.draw();
  }

  #row(p) {
    let row = this.#rows.get(p.name);
    if (!row) {
      row = new Row(p.name);
      this.#rows.set(p.name, row);
      at("ps").append(row.element);
    }
    if (p.name === "coordinator") at("ps").append(row.element); // stays last
    return row;
  }
}

class Row {
  #did = "";
  #cells = {};

  constructor(name) {
    this.canvas = make("canvas", { role: "img", "aria-label": `what ${name} did in the last 30 seconds` });
    this.element = make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "strip" }, this.canvas));
    for (const key of ["now", "mark", "assist", "sweep", "stopped", "programs", "pid"]) {
      this.#cells[key] = make("td", { class: key });
      this.element.append(this.#cells[key]);
    }
  }

  update(p) {
    this.#did = (this.#did + p.did).slice(-LOOKS);
    const texts = {
      now: DOING[this.#did.at(-1)]?.[2] ?? "–",
      mark: seconds(p.mark_s),
      assist: seconds(p.assist_s),
      sweep: seconds(p.sweep_s),
      stopped: seconds(p.stopped_s),
      programs: count(p.programs),
      pid: String(p.pid) + (p.deaths ? ` (${p.deaths} died)` : ""),
    };
    for (const [key, text] of Object.entries(texts)) this.#cells[key].textContent = text;
    this.draw();
  }

  clear() {
    this.#did = "";
  }

  draw() {
    const pen = context(this.canvas, HEIGHT);
    const width = this.canvas.clientWidth / LOOKS;
    const first = LOOKS - this.#did.length;
    let begin = 0;
    for (let i = 1; i <= this.#did.length; i += 1) {
      if (this.#did[i] === this.#did[begin]) continue;
      const key = DOING[this.#did[begin]]?.[0];
      if (key) {
        pen.fillStyle = colour(key);
        pen.fillRect((first + begin) * width, 0, (i - begin) * width, HEIGHT);
      }
      begin = i;
    }
  }
}
