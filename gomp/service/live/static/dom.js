// Small helpers. What comes from the runtime is only ever set as text.

export const at = (id) => document.getElementById(id);

export function show(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The canvas's drawing context, its bitmap as large as the screen shows it. `height` is in CSS pixels. */
export function context(canvas, height) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A definition list of figures: `rows` are [key, words], a key being that of a colour if there is one; returns what sets the values. */
export function figures(list, rows) {
  const values = new Map();
  for (const [key, words] of rows) {
    const value = make("dd", {}, "–");
    values.set(key, value);
    list.append(make("div", { "data-key": key }, make("dt", {}, words), value));
  }
  return (key, text) => {
    values.get(key).textContent = text;
  };
}
