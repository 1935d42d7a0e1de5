// Changing settings: here, with the token, or by the commands that do it elsewhere.

import { at, make, show } from "./dom.js";
import { bytes } from "./format.js";
import { sentence } from "./stream.js";

const WHY_NOT = {
  unix: "This listener only shows. On this machine, as the same user:",
  tcp: "This listener only shows. With the token there is the same page where settings can be changed; or on this machine:",
  off: "This service takes no changes: it has control = off.",
};

/** `headers()` are those that carry the token. */
export function setUp({ name, control, controlUrl }, headers) {
  if (control !== "here") return explain(name, control, controlUrl);
  at("controls").hidden = false;
  for (const button of document.querySelectorAll("[data-post]")) {
    button.addEventListener("click", () => ask(button, "POST", button.dataset.post, undefined, headers));
  }
  for (const form of document.querySelectorAll("[data-put]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const input = form.querySelector("input");
      ask(form.querySelector("button"), "PUT", form.dataset.put, input.value.trim(), headers);
    });
  }
}

function explain(name, control, url) {
  at("no-controls").hidden = false;
  show("why-no-controls", WHY_NOT[control]);
  at("commands").hidden = control === "off";
  const which = control === "tcp" ? `--url ${url.replace(/\/$/, "")} --token-file FILE` : `--name ${name}`;
  const commands = ["gogc 200", "memory-limit 512MiB", "procs 2", "gc", "free-os-memory"];
  show("commands", commands.map((command) => `gomp ctl ${command} ${which}`).join("\n"));
  if (control === "tcp") at("why-no-controls").append(" ", make("a", { href: url }, url));
}

async function ask(button, method, what, value, headers) {
  button.disabled = true;
  show("control-answer", "…");
  try {
    const answer = await fetch(`control/${what}`, { method, body: value, headers: { ...headers(), "Content-Type": "text/plain" } });
    show("control-answer", answer.ok ? describe(what, await answer.json()) : await sentence(answer));
    at("control-answer").classList.toggle("error", !answer.ok);
  } catch {
    show("control-answer", "nobody answers");
    at("control-answer").classList.add("error");
  } finally {
    button.disabled = false;
  }
}

function describe(what, answer) {
  if (what === "gc") return `Collected: ${answer.num_gc} cycles so far.`;
  if (what === "free-os-memory") return `Collected: ${bytes(answer.heap_released)} of the heap are released now.`;
  const write = (n) => (what === "memory-limit" && typeof n === "number" ? bytes(n) : String(n));
  const named = { gogc: "GOGC", "memory-limit": "The memory limit", procs: "The number of Ps" }[what];
  return `${named} is ${write(answer.new)} now; it was ${write(answer.old)}.`;
}
