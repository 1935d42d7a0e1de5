// Every metric there is, as its description says: read while somebody has the list open.

import { at, colour, context, make } from "./dom.js";
import { bytes, count, seconds } from "./format.js";

const PERIOD_MS = 2000;
const SILENT_MS = 3 * PERIOD_MS; // nobody looked meanwhile
const KEPT = 60; // readings: two minutes
const ENDLESS = 2 ** 62; // from here on there is no limit, or no goal
const SPARK_HEIGHT = 18;

export class Metrics {
  #rows = new Map(); // by name and label
  #timer = null;
  #headers;

  /** `headers()` are those that carry the token. */
  constructor(headers) {
    this.#headers = headers;
    at("metrics").addEventListener("toggle", () => this.#begin());
    at("metrics-filter").addEventListener("input", () => this.#filter());
    document.addEventListener("visibilitychange", () => this.#begin());
  }

  #begin() {
    clearTimeout(this.#timer);
    if (at("metrics").open && !document.hidden) this.#read();
  }

  async #read() {
    try {
      const answer = await fetch("live/metrics", { headers: this.#headers(), cache: "no-store" });
      if (answer.ok) this.#show(await answer.json());
    } catch {
      // the state in the first line says that nobody answers
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#begin(), PERIOD_MS);
  }

  #show({ now, rows }) {
    const told = new Set();
    for (const values of rows) {
      const key = values.name + JSON.stringify(values.labels);
      told.add(key);
      if (!this.#rows.has(key)) this.#rows.set(key, new Row(values));
      this.#rows.get(key).update(now, values);
    }
    for (const key of [...this.#rows.keys()].filter((key) => !told.has(key))) this.#rows.delete(key);
    at("metrics-rows").replaceChildren(...[...this.#rows.values()].map((row) => row.element));
    this.#filter();
    for (const row of this.#rows.values()) row.draw();
  }

  #filter() {
    const words = at("metrics-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of this.#rows.values()) row.element.hidden = !words.every((word) => row.text.includes(word));
  }
}

class Row {
  #past = []; // [ms, what is drawn]
  #last = null; // [ms, total]

  constructor({ name, labels, help, kind, unit, plot }) {
    const shown = Object.entries(labels).map(([label, value]) => `{${label}="${value}"}`);
    this.name = name;
    this.unit = unit;
    this.plot = plot;
    this.bound = kind === "histogram" ? "<" : ""; // only the bucket is known
    this.text = `${name} ${shown} ${help}`.toLowerCase();
    [this.value, this.rate, this.spark] = [make("td"), make("td"), make("canvas", { role: "img", "aria-label": `${name} lately` })];
    const head = make("th", { scope: "row", title: help }, name + shown);
    this.element = make("tr", {}, head, this.value, this.rate, make("td", { class: "spark" }, this.spark));
  }

  update(now, { value }) {
    const total = typeof value === "number" ? value : value.count;
    const rate = this.plot === "value" || this.#last === null ? null : Math.max((total - this.#last[1]) / ((now - this.#last[0]) / 1e3), 0);
    this.#last = [now, total];
    this.value.textContent = typeof value === "number" ? this.#written(value) : this.#quantiles(value);
    this.rate.textContent = rate === null ? "" : this.plot === "rate" ? this.#written(rate) : count(Number(rate.toPrecision(3)));
    const drawn = { value, rate, quantiles: byShare(value).at(-1)?.[1] ?? null }[this.plot];
    if (drawn !== null) this.#past = [...this.#past, [now, drawn]].slice(-KEPT);
  }

  #quantiles(value) {
    if (value.count === 0) return "none yet";
    return byShare(value).map(([share, quantile]) => `p${100 * share} ${this.bound}${this.#written(quantile)}`).join(" · ");
  }

  #written(value) {
    if (value >= ENDLESS) return "none";
    if (this.unit === "bytes") return bytes(value);
    if (this.unit === "seconds" || this.unit === "cpu-seconds") {
      return this.name.endsWith("_time_seconds") ? new Date(value * 1e3).toLocaleString() : seconds(value);
    }
    return count(Number.isInteger(value) ? value : Number(value.toPrecision(3)));
  }

  draw() {
    if (this.element.hidden || this.#past.length < 2) return;
    const pen = context(this.spark, SPARK_HEIGHT);
    const values = this.#past.map(([, value]) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const end = this.#past.at(-1)[0];
    pen.strokeStyle = colour("live");
    pen.beginPath();
    let before = -Infinity;
    for (const [at, value] of this.#past) {
      const x = this.spark.clientWidth * (1 - (end - at) / (KEPT * PERIOD_MS));
      const y = high > low ? 1 + (SPARK_HEIGHT - 2) * (1 - (value - low) / (high - low)) : SPARK_HEIGHT / 2;
      pen[at - before > SILENT_MS ? "moveTo" : "lineTo"](x, y);
      before = at;
    }
    pen.stroke();
  }
}

/** [share, quantile], the least share first; none of a number. */
const byShare = ({ quantiles = {} }) => Object.entries(quantiles).toSorted(([a], [b]) => a - b);
