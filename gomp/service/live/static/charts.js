// The three charts, drawn by uPlot from the history.

import { colour } from "./dom.js";
import { bytes, seconds } from "./format.js";
import { WINDOW_MS, rowsOf } from "./history.js";

export const CPU_KINDS = [
  ["background", "workers"],
  ["assists", "assists"],
  ["idle", "idle Ps"],
  ["pauses", "pauses"],
  ["sweeping", "sweeping"],
  ["returning", "returning memory"],
];

const translucent = (name) => `${colour(name)}33`;

class Chart {
  constructor(id) {
    this.element = document.getElementById(id);
    this.readout = this.element.parentElement.querySelector(".readout");
    this.plot = null;
    new ResizeObserver(() => this.plot?.setSize(this.#size())).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#remake());
  }

  /** Below the chart stands what it says of the moment that is pointed at, here or in another chart. */
  #read({ cursor: { idx }, data, scales: { x } }) {
    const isThere = idx !== null && idx !== undefined && idx < data[0].length;
    const said = isThere ? this.names.map((name, i) => [name, lastKnown(data[i + 1], idx)]).filter(([, value]) => value !== null) : [];
    const when = isThere ? `${Math.round((data[0][idx] - x.max) / 1000)} s: ` : "";
    this.readout.textContent = when + said.map(([name, value]) => `${name} ${this.label(value)}`).join(" · ") || "\u00a0";
  }

  #size() {
    return { width: Math.max(this.element.clientWidth, 50), height: Math.max(this.element.clientHeight, 50) };
  }

  #remake() {
    this.plot?.destroy();
    this.plot = null;
    if (this.last) this.draw(...this.last);
  }

  draw(data, now) {
    this.last = [data, now];
    this.plot ??= new uPlot(this.#options(), data, this.element);
    this.plot.batch(() => {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: now - WINDOW_MS, max: now });
      this.plot.setScale("y", this.range(data));
    });
  }

  #options() {
    const axis = { stroke: colour("faint"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: colour("line"), width: 1 };
    return {
      ...this.#size(),
      ms: 1,
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false }, sync: { key: "time" } },
      hooks: { setCursor: [(u) => this.#read(u)] },
      scales: { x: { time: false, auto: false }, y: { auto: false, distr: this.isLogarithmic ? 3 : 1 } },
      axes: [
        { ...axis, grid: { show: false }, size: 22, space: 60, splits: everyHalfMinute, values: secondsAgo },
        { ...axis, grid, size: 62, space: 28, gap: 4, values: (u, splits) => splits.map(this.label), ...this.axis },
      ],
      series: [{}, ...this.series()],
    };
  }
}

/** What stands alone between two gaps, as a cycle of which nothing else was heard, is narrower than its line: which would show or not by chance. */
const betweenLines = (u, series, first, last, gaps) => gaps.map(([from, to]) => [from + uPlot.pxRatio, to - uPlot.pxRatio]);

const everyHalfMinute = (u, axis, min, max) => [3, 2, 1, 0].map((n) => max - n * 30_000);
const secondsAgo = (u, splits) => splits.map((t) => (t >= u.scales.x.max ? "now" : `${Math.round((t - u.scales.x.max) / 1000)} s`));

export class HeapChart extends Chart {
  names = ["resident", "mapped", "live", "trigger", "goal", "limit"];
  label = (n) => bytes(n);
  axis = { splits: (u, axis, min, max) => powersOfTwoSteps(max) };

  series() {
    const line = (name, width, dash) => ({ stroke: colour(name), width, dash, points: { show: false } });
    const steps = { paths: uPlot.paths.stepped({ align: 1 }) };
    return [
      line("resident", 1.5),
      { ...line("mapped", 1.5), fill: translucent("mapped") },
      { ...line("live", 2), fill: translucent("live"), gaps: betweenLines },
      { ...line("trigger", 1.5, [2, 4]), ...steps },
      { ...line("goal", 1.5, [7, 4]), ...steps },
      { ...line("limit", 2), ...steps },
    ];
  }

  /** The limit is shown where it is not far above everything else. */
  update(heap, now) {
    const data = rowsOf(heap, this.names);
    const most = highest(data.slice(1, 6));
    data[6] = data[6].map((limit) => (limit === null || limit > 3 * most ? null : limit));
    this.draw(data, now);
  }

  range = (data) => ({ min: 0, max: 1.08 * Math.max(highest(data.slice(1)), 1 << 20) });
}

export class CpuChart extends Chart {
  names = ["together"];
  label = (share) => `${Math.round(100 * share)}%`;
  axis = {};

  /** Stacked: each is drawn up to the sum of those from the first to it, the last one behind all others. */
  series() {
    return [...CPU_KINDS].reverse().map(([kind]) => ({
      stroke: colour(kind), fill: colour(kind), width: 0, points: { show: false }, paths: uPlot.paths.stepped({ align: -1 }),
    }));
  }

  update(cpu, now) {
    const sums = cpu.map(({ t, shares }) => {
      let sum = 0;
      return { t, ...Object.fromEntries(CPU_KINDS.map(([kind]) => [kind, (sum += shares[kind])])) };
    });
    const [times, ...rows] = rowsOf(sums, CPU_KINDS.map(([kind]) => kind));
    this.draw([times, ...rows.reverse()], now);
  }

  range = (data) => ({ min: 0, max: Math.max(0.1, Math.min(highest(data.slice(1)) * 1.1, 1.05)) });
}

export class PauseChart extends Chart {
  isLogarithmic = true;
  names = ["pauses of a cycle"];
  label = (s) => seconds(s);
  axis = { splits: (u, axis, min, max) => powersOfTen(min, max) };

  series() {
    const points = { show: true, size: 5, width: 0, fill: colour("pauses"), stroke: colour("pauses") };
    return [{ paths: () => null, points }];
  }

  update(pauses, now) {
    this.draw([pauses.map((point) => point.t), pauses.map((point) => point.s)], now);
  }

  range = (data) => ({ min: 1e-5, max: Math.max(10 ** Math.ceil(Math.log10(highest([data[1]]) || 1e-3)), 1e-2) });
}

/** A point may say nothing of a value: then it is what it was. */
function lastKnown(values, idx) {
  while (idx > 0 && values[idx] === undefined) idx -= 1;
  return values[idx] ?? null;
}

function highest(rows) {
  let most = 0;
  for (const row of rows) for (const value of row) if (value > most) most = value;
  return most;
}

function powersOfTwoSteps(max) {
  const step = 2 ** Math.ceil(Math.log2(max / 5));
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, i) => i * step);
}

function powersOfTen(min, max) {
  const found = [];
  for (let power = Math.round(Math.log10(min)); power <= Math.round(Math.log10(max)); power += 1) found.push(10 ** power);
  return found;
}
