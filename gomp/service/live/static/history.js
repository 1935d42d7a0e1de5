// What the charts show: readings and cycles of the last WINDOW_MS, in the order of time.

export const WINDOW_MS = 120_000;

export class History {
  constructor() {
    this.heap = []; // {t, live, goal, trigger, mapped, limit}; undefined where a point says nothing of it
    this.cpu = []; // {t, shares: by kind}
    this.pauses = []; // {t, s}
    this.totals = null; // the highest CPU times seen: in a pause some are told without what comes later
  }

  /** Takes a frame in; the shares of the processors by kind since the last. */
  addFrame(frame) {
    const { heap, memory, settings } = frame;
    this.heap.push({
      t: frame.now, live: heap.live, goal: heap.goal, trigger: heap.trigger, mapped: memory.mapped, limit: settings.memory_limit,
    });
    const shares = this.#shares(frame.cpu);
    if (shares) this.cpu.push({ t: frame.now, shares });
    this.#forget(frame.now);
    return shares;
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
      { t: cycle.start, live: cycle.heap_start },
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

  clear() {
    this.totals = null; // another process may answer now
  }
}
