// The page: follows the stream, and shows each reading.

import { CPU_KINDS, CpuChart, HeapChart, PauseChart } from "./charts.js";
import * as controls from "./controls.js";
import { Cycles } from "./cycles.js";
import { at, figures, show } from "./dom.js";
import { bytes, count, percent, seconds } from "./format.js";
import { History } from "./history.js";
import { PageMap } from "./map.js";
import { Memory } from "./memory.js";
import { Metrics } from "./metrics.js";
import { Ps } from "./ps.js";
import { follow } from "./stream.js";

const RETRY_MS = [500, 1000, 2000, 5000];
const SILENT_MS = 5000; // the stream is not there, whatever the connection says
const settings = { name: document.body.dataset.name, control: document.body.dataset.control, controlUrl: document.body.dataset.controlUrl };

let token = "";
let isHeld = false;
let uptime = 0;
const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

const past = new History();
const cycles = new Cycles();
const [heapChart, cpuChart, pauseChart] = [new HeapChart("heap-chart"), new CpuChart("cpu-chart"), new PauseChart("pause-chart")];
const [memory, ps, map] = [new Memory(), new Ps(), new PageMap()];
const setCpu = figures(at("cpu-figures"), [...CPU_KINDS, ["total", "together"]]);

// --- what comes -------------------------------------------------------------------------------------------------------

function take(kind, data) {
  if (kind === "frame") takeFrame(data);
  else if (kind === "map" && !isHeld) map.update(data);
  else if (kind === "cycles") cycles.add(data).forEach((cycle) => past.addCycle(cycle));
}

function takeFrame(frame) {
  if (frame.uptime_s < uptime) {
    past.clear(); // it is another runtime, that began with cycle 1
    cycles.clear();
  }
  uptime = frame.uptime_s;
  past.addFrame(frame);
  if (isHeld) return;
  showHead(frame);
  showHeap(frame);
  memory.update(frame);
  showCpu(past.averageShares());
  heapChart.update(past.heap, frame.now);
  cpuChart.update(past.cpu, frame.now);
  pauseChart.update(past.pauses, frame.now);
  ps.update(frame.ps);
  cycles.draw(frame.now);
}

function showHead({ state, uptime_s, settings: now, goroutines, cycles: { is_limited } }) {
  setState(state);
  show("uptime", seconds(Math.floor(uptime_s)));
  show("gogc", now.gogc === null ? "off" : String(now.gogc));
  show("limit", (now.memory_limit === null ? "off" : bytes(now.memory_limit)) + (now.memory_limit_is_auto ? " (auto)" : ""));
  show("procs", String(now.procs) + (now.procs_are_auto ? " (auto)" : ""));
  show("goroutines", count(goroutines));
  at("limiter").hidden = !is_limited;
}

function showHeap({ heap, memory: { mapped, lingering }, settings: { memory_limit }, pauses, cycles: { count: n, forced } }) {
  show("heap-live", bytes(heap.live));
  show("heap-goal", bytes(heap.goal));
  show("heap-trigger", bytes(heap.trigger));
  show("heap-mapped", bytes(mapped));
  show("heap-resident", bytes(mapped + lingering));
  at("heap-lingers").hidden = !lingering;
  show("heap-limit", bytes(memory_limit));
  show("heap-marked", bytes(heap.marked));
  show("heap-objects", count(heap.objects));
  show("pause-p50", seconds(pauses.p50_s));
  show("pause-p99", seconds(pauses.p99_s));
  show("pause-max", seconds(pauses.max_s));
  show("cycle-count", count(n) + (forced ? ` (${count(forced)} forced)` : ""));
}

function showCpu(shares) {
  if (!shares) return;
  let sum = 0;
  for (const [kind] of CPU_KINDS) {
    setCpu(kind, percent(shares[kind]));
    sum += shares[kind];
  }
  setCpu("total", percent(sum));
}

/** What goes wrong is read out to who listens; that the runtime marks or stops, twice a second, is not. */
function setState(state, isBad = false) {
  at("state").setAttribute("aria-live", isBad ? "assertive" : "off");
  at("state").classList.toggle("bad", isBad);
  at("state").dataset.state = state;
  show("state", state);
}

// --- the connection ---------------------------------------------------------------------------------------------------

/** Follows the stream while the page can be seen, and begins anew whenever it breaks. */
async function run() {
  for (let failures = 0; ; failures += 1) {
    await whenVisible();
    past.interrupt();
    ps.interrupt();
    const problem = await followOnce(() => (failures = 0));
    if (problem?.status === 401) return askForToken(problem.message);
    if (document.hidden) continue;
    setState(problem?.status === 503 ? "too many pages are open" : "connection lost", true);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]));
  }
}

async function followOnce(onFrame) {
  const abort = new AbortController();
  const leave = () => document.hidden && abort.abort(); // at once: a page that one has gone back from may be kept, without its timers
  let heard = performance.now();
  const watch = setInterval(() => performance.now() - heard > SILENT_MS && abort.abort(), 500);
  document.addEventListener("visibilitychange", leave);
  try {
    await follow(headers(), (kind, data) => {
      heard = performance.now();
      onFrame();
      take(kind, data);
    }, abort.signal);
  } catch (error) {
    return error;
  } finally {
    clearInterval(watch);
    document.removeEventListener("visibilitychange", leave);
  }
  return null;
}

function whenVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

function askForToken(problem) {
  lock(true);
  setState("locked");
  show("token-error", token ? problem : "");
  at("token-word").focus();
}

function lock(isLocked) {
  document.body.classList.toggle("locked", isLocked);
  at("live").hidden = isLocked;
  at("token").hidden = !isLocked;
}

at("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token-word").value.trim();
  at("token-word").value = "";
  lock(false);
  run();
});

at("hold").addEventListener("click", () => {
  isHeld = !isHeld;
  at("hold").setAttribute("aria-pressed", String(isHeld));
  show("hold", isHeld ? "Go on" : "Hold");
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  ps.redraw();
  map.draw();
});

controls.setUp(settings, headers);
new Metrics(headers);
at("links").hidden = settings.control === "here"; // they are on the other listener
if (settings.control === "here") askForToken("");
else run();
