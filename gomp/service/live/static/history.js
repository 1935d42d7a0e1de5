// What the charts show: readings and cycles of the last WINDOW_MS, in the order of time.

export const WINDOW_MS = 120_000;
const AVERAGE_MS = 10_000;
const SILENT_MS = 3000; // six readings are missing

export class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.heap = []; // {t, live, goal, trigger, mapped, resident, limit}; undefined where a point says nothing of it
    this.cpu = []; // {t, shares: by kind}
    this.pauses = []; // {t, s}
    this.interrupt();
  }

  /** What follows does not follow at once. */
  interrupt() {
    this.totals = null; // the highest CPU times seen: in a pause some are told without what comes later
  }

  /** Takes a frame in. */
  addFrame(frame) {
    const { heap, memory, settings } = frame;
    this.heap.push({
      t: frame.now, live: heap.live, goal: heap.goal, trigger: heap.trigger, mapped: memory.mapped, limit: settings.memory_limit,
      resident: memory.lingering ? memory.mapped + memory.lingering : null,
    });
    const shares = this.#shares(frame.cpu);
    if (shares) this.cpu.push({ t: frame.now, shares });
    this.#forget(frame.now);
  }

  /** Shares of the processors by kind over the last ten seconds, as far as they are known; null if not at all. */
  averageShares() {
    const last = this.cpu.at(-1);
    if (!last) return null;
    const recent = this.cpu.filter((point) => point.t > last.t - AVERAGE_MS);
    const mean = (kind) => recent.reduce((sum, { shares }) => sum + shares[kind], 0) / recent.length;
    return Object.fromEntries(Object.keys(last.shares).map((kind) => [kind, mean(kind)]));
  }

  #shares(cpu) {
    const before = this.totals;
    this.totals = { ...cpu };
    if (!before || cpu.available <= before.available) return null;
    const shares = {};
    for (const kind of Object.keys(cpu)) {
      this.totals[kind] = Math.max(cpu[kind], before[kind]);
      shares[kind] = (this.totals[kind] - before[kind]) / (cpu.available - before.available);
    }
    return shares;
  }

  /** A cycle says where the heap was at three moments, and so what was between two readings. */
  addCycle(cycle) {
    this.heap.push(
      { t: cycle.start, live: cycle.heap_start, goal: cycle.goal },
      { t: cycle.term, live: cycle.heap_end, goal: cycle.goal },
      { t: cycle.end, live: cycle.heap_marked },
    );
    this.heap.sort((a, b) => a.t - b.t);
    this.pauses.push({ t: cycle.end, s: cycle.pause_ns / 1e9 });
  }

  #forget(now) {
    for (const list of [this.heap, this.cpu, this.pauses]) {
      const first = list.findIndex((point) => point.t >= now - WINDOW_MS);
      list.splice(0, first < 0 ? list.length : first);
    }
  }
}

/** A chart's data: the times of the points, and of each name what they say, null where nothing was heard of it for long. */
export function rowsOf(points, names) {
  const all = points.flatMap((point, i) => (i && point.t - points[i - 1].t > SILENT_MS ? [{ t: points[i - 1].t + 1 }, point] : [point]));
  return [all.map((point) => point.t), ...names.map((name) => row(all, name))];
}

function row(points, name) {
  const values = points.map((point) => point[name]);
  let last = 0;
  values.forEach((value, i) => {
    if (value === undefined) return;
    if (points[i].t - points[last].t > SILENT_MS) values.fill(null, last + 1, i);
    last = i;
  });
  return values;
}
