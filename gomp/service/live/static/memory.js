// What is mapped, as one bar: a class behind the other, up to the memory limit if that is in sight.

import { at, figures, make, show } from "./dom.js";
import { bytes } from "./format.js";

const CLASSES = [
  ["objects", "objects"],
  ["unused", "room in their spans"],
  ["stacks", "goroutine stacks"],
  ["free", "free, kept"],
  ["metadata", "metadata"],
];
const IN_SIGHT = 4; // times what is mapped

export class Memory {
  #parts = new Map();
  #limit = make("i", { class: "limit" });
  #set = figures(at("memory-figures"), [...CLASSES.map(([key, words]) => [`mem-${key}`, words]), ["returned", "beside it: returned to the system"], ["lingering", "released, in memory until it is needed"]]);
  #lingering = at("memory-figures").querySelector("[data-key=lingering]");

  constructor() {
    for (const [key] of CLASSES) {
      this.#parts.set(key, make("span", { "data-key": `mem-${key}` }));
      at("memory-bar").append(this.#parts.get(key));
    }
    at("memory-bar").append(this.#limit);
  }

  update({ memory, container, settings: { memory_limit: limit } }) {
    const isInSight = limit !== null && limit < IN_SIGHT * memory.mapped;
    const whole = isInSight ? Math.max(limit * 1.02, memory.mapped) : memory.mapped;
    for (const [key] of CLASSES) {
      this.#parts.get(key).style.width = `${(100 * memory[key]) / whole}%`;
      this.#set(`mem-${key}`, bytes(memory[key]));
    }
    this.#set("returned", bytes(memory.released - memory.lingering));
    this.#set("lingering", bytes(memory.lingering));
    this.#lingering.hidden = !memory.lingering;
    at("container").hidden = !container?.limit || !container.usage;
    if (container) show("container", `The container is charged ${bytes(container.usage)} of ${bytes(container.limit)}: this, the interpreters, and pages of files.`);
    this.#limit.hidden = !isInSight;
    if (isInSight) this.#limit.style.left = `${(100 * limit) / whole}%`;
  }
}
