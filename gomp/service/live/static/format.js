// How figures are written, as gomp.runtime.units does it.

/** `n` bytes with the unit in which there are three digits or fewer. */
export function bytes(n) {
  if (n === null || n === undefined) return "none";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1000) return `${digits(n)} ${unit}`;
    n /= 1024;
  }
  return `${digits(n)} TiB`;
}

/** `s` seconds in the unit that fits. */
export function seconds(s) {
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.floor((s / 60) % 60)} min`;
  if (s >= 60) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s >= 1) return `${digits(s)} s`;
  if (s >= 1e-3) return `${digits(s * 1e3)} ms`;
  return s > 0 ? `${digits(s * 1e6)} µs` : "0";
}

export const percent = (share) => `${(100 * share).toFixed(1)}%`;
export const count = (n) => n.toLocaleString("en");

function digits(n) {
  return String(Number(n.toPrecision(n < 1000 ? 3 : 4)));
}
