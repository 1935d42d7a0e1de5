// The table of the last cycles.

import { at, make } from "./dom.js";
import { bytes, percent, seconds } from "./format.js";

const SHOWN = 20;

export class Cycles {
  #cycles = [];

  /** Which of them are new: after an interruption some are told again. */
  add(cycles) {
    const last = this.#cycles.at(-1)?.number ?? 0;
    const fresh = cycles.filter((cycle) => cycle.number > last);
    this.#cycles = [...this.#cycles, ...fresh].slice(-SHOWN);
    return fresh;
  }

  clear() {
    this.#cycles = [];
  }

  draw(now) {
    if (!this.#cycles.length) return;
    at("cycles").replaceChildren(...this.#cycles.toReversed().map((cycle) => row(cycle, now)));
  }
}

function row(cycle, now) {
  const landing = cycle.goal ? (cycle.heap_end - cycle.goal) / cycle.goal : null;
  const cells = [
    `${seconds(Math.max(Math.round((now - cycle.end) / 1000), 0))} ago`,
    bytes(cycle.heap_start),
    bytes(cycle.heap_end),
    bytes(cycle.heap_marked),
    bytes(cycle.goal),
    landing === null ? "–" : (landing > 0 ? "+" : "") + percent(landing),
    seconds((cycle.term - cycle.mark) / 1e3),
    seconds(cycle.pause_ns / 1e9),
    seconds(cycle.assist_ns / 1e9),
    seconds(cycle.background_ns / 1e9),
    seconds(cycle.idle_ns / 1e9),
  ];
  const number = make("th", { scope: "row" }, String(cycle.number) + (cycle.forced ? " (forced)" : ""));
  return make("tr", {}, number, ...cells.map((text) => make("td", {}, text)));
}
