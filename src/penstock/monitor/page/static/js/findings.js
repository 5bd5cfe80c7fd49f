// The findings, newest first, each with its evidence.
import { get } from "./api.js";
import { byId, make } from "./dom.js";
import * as format from "./format.js";

const SHOWN = 50;

export class Findings {
  constructor() { this.mark = -1; this.scope = -1; }

  async update(state) {
    if (state.finding_mark === this.mark && state.scope === this.scope) return;
    [this.mark, this.scope] = [state.finding_mark, state.scope];
    try { this.#show((await (await get("/api/findings", { scope: state.scope })).json()).findings, state.processes.length > 1); } catch { this.mark = -1; }
  }

  #show(rows, hasWorkers) {
    const host = byId("findings");
    const open = new Set([...host.querySelectorAll("details[open]")].map((each) => each.dataset.key));
    if (!rows.length) { host.replaceChildren(make("p", { class: "empty" }, "No findings.")); return; }
    host.replaceChildren(...rows.slice(0, SHOWN).map((row) => {
      const key = `${row.pid} ${row.wall_time_s} ${row.kind} ${row.message}`;
      const element = make("details", { "data-key": key }, summary(row), evidence(row, hasWorkers));
      element.open = open.has(key);
      return element;
    }));
    if (rows.length > SHOWN) host.append(make("p", { class: "hint" }, `${rows.length - SHOWN} older ones are not shown.`));
  }
}

const summary = (row) => make("summary", {}, make("span", { class: "when" }, format.clock(row.wall_time_s)), make("span", { class: "kind" }, row.kind), row.message);

function evidence(row, hasWorkers) {
  const pairs = [["site", row.site ? format.place(row.site) : null], ["task", row.task], ["loop", row.loop], ["process", hasWorkers ? row.pid : null], ...Object.entries(row.evidence || {})];
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", {}, ...shown.flatMap(([name, value]) => [make("dt", {}, name.replace(/_(s|ns|bytes|count)$/, "").replaceAll("_", " ")), make("dd", {}, text(name, value))]));
}

function text(name, value) {
  if (typeof value === "number" && name.endsWith("_s")) return format.seconds(value);
  if (Array.isArray(value)) return value.map((each) => text("", each)).join(" → ");
  if (typeof value === "object") return value.function ? format.place(value) : JSON.stringify(value);
  return String(value);
}
