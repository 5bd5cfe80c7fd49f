// Numbers as text, with their units.
const DASH = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);

export function seconds(value) {
  if (!known(value)) return DASH;
  if (value === 0) return "0 s";
  if (value < 1e-3) return `${(value * 1e6).toPrecision(value < 1e-5 ? 1 : 3)} µs`;
  if (value < 1) return `${(value * 1e3).toPrecision(3)} ms`;
  if (value < 120) return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;
  if (value < 7200) return `${(value / 60).toFixed(0)} min`;
  return value < 172800 ? `${(value / 3600).toFixed(1)} h` : `${(value / 86400).toFixed(1)} d`;
}

export function count(value) {
  if (!known(value)) return DASH;
  if (Math.abs(value) >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  return Math.round(value).toLocaleString("en");
}

export function rate(value) {
  if (!known(value)) return DASH;
  return `${value < 10 ? value.toFixed(1) : count(value)}/s`;
}

export function share(value) {
  return known(value) ? `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %` : DASH;
}

export function bytes(value) {
  if (!known(value)) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${at ? value.toFixed(1) : value} ${units[at]}`;
}

export function place(site) {
  if (!site) return DASH;
  if (typeof site === "string") return site;
  const file = String(site.file || "").split("/").pop();
  return file ? `${site.function} (${file}:${site.line})` : String(site.function || DASH);
}

export function clock(wallTime) {
  return known(wallTime) ? new Date(wallTime * 1000).toLocaleTimeString("en-GB") : DASH;
}

export function counts(table) {
  const parts = Object.entries(table || {}).filter(([, value]) => value);
  return parts.length ? parts.map(([name, value]) => `${name} ${count(value)}`).join(", ") : DASH;
}
