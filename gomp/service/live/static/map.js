// The map of the heap's pages. A cell is a character of the stream: its code less 48 is 8 times a kind, plus how full it is, from 0 to 7.

import { at, colour, context, figures, show } from "./dom.js";
import { bytes, count } from "./format.js";

const FULLEST = 7;
const FIRST_LETTER = 48;
const KINDS = [
  ["released", "free, released"],
  ["free", "free, kept"],
  ["swept", "in use, swept"],
  ["cached", "in use, a P's own"],
  ["unswept", "in use, to be swept"],
  ["large", "in use, large objects"],
  ["stacks", "goroutine stacks"],
];

export class PageMap {
  #map = null;
  #columns = 1;
  #size = 8;
  #chosen = -1;
  #set = figures(at("map-figures"), KINDS.map(([key, words]) => [`map-${key}`, words]));
  #canvas = at("map");

  constructor() {
    new ResizeObserver(() => this.draw()).observe(this.#canvas.parentElement);
    this.#canvas.addEventListener("pointermove", (event) => {
      const column = Math.floor(event.offsetX / this.#size);
      this.#choose(column < this.#columns ? Math.floor(event.offsetY / this.#size) * this.#columns + column : -1);
    });
    this.#canvas.addEventListener("pointerleave", () => this.#choose(-1));
    this.#canvas.addEventListener("blur", () => this.#choose(-1));
    this.#canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.#columns, ArrowDown: this.#columns }[event.key];
      if (!step || !this.#map) return;
      event.preventDefault();
      this.#choose(Math.min(Math.max(this.#chosen < 0 ? 0 : this.#chosen + step, 0), this.#map.cells.length - 1));
    });
  }

  update(map) {
    this.#map = map;
    const cell = map.cell_pages * map.page_bytes;
    show("map-caption", `${count(map.cells.length)} cells of ${bytes(cell)}: ${bytes(map.cells.length * cell)} from the lowest address`);
    for (const [key] of KINDS) this.#set(`map-${key}`, bytes(map.bytes[key]));
    this.draw();
    this.#tell();
  }

  draw() {
    const width = this.#canvas.clientWidth;
    const ncells = this.#map?.cells.length ?? 0;
    if (!ncells || !width) return;
    this.#size = [16, 14, 12, 10, 8, 7, 6].find((size) => Math.ceil(ncells / Math.floor(width / size)) * size <= 300) ?? 5;
    this.#columns = Math.floor(width / this.#size);
    const height = Math.ceil(ncells / this.#columns) * this.#size;
    this.#canvas.style.height = `${height}px`;
    const pen = context(this.#canvas, height);
    const colours = KINDS.map(([key]) => colour(`map-${key}`));
    for (let i = 0; i < ncells; i += 1) {
      const { kind, fullness } = this.#cell(i);
      const [x, y] = [(i % this.#columns) * this.#size, Math.floor(i / this.#columns) * this.#size];
      pen.fillStyle = fullness ? colours[1] : colours[kind]; // what is not in use shows behind what is
      pen.fillRect(x, y, this.#size - 1, this.#size - 1);
      pen.fillStyle = colours[kind];
      const used = fullness ? ((this.#size - 1) * fullness) / FULLEST : 0;
      pen.fillRect(x, y + this.#size - 1 - used, this.#size - 1, used);
      if (i === this.#chosen) {
        pen.strokeStyle = colour("ink");
        pen.lineWidth = 2;
        pen.strokeRect(x, y, this.#size - 1, this.#size - 1);
      }
    }
  }

  #cell(i) {
    const code = this.#map.cells.charCodeAt(i) - FIRST_LETTER;
    return { kind: code >> 3, fullness: code & FULLEST };
  }

  #choose(i) {
    if (i === this.#chosen) return;
    this.#chosen = this.#map && i < this.#map.cells.length ? i : -1;
    this.draw();
    this.#tell();
  }

  #tell() {
    if (this.#chosen < 0 || this.#chosen >= this.#map.cells.length) return show("map-cell", "\u00a0");
    const { kind, fullness } = this.#cell(this.#chosen);
    const first = this.#chosen * this.#map.cell_pages;
    const pages = this.#map.cell_pages === 1 ? `page ${first}` : `pages ${first} to ${first + this.#map.cell_pages - 1}`;
    const share = fullness && fullness < FULLEST ? `, at most ${Math.round((100 * fullness) / FULLEST)}% in use` : "";
    show("map-cell", `${pages}: ${KINDS[kind][1]}${share}`);
  }
}
