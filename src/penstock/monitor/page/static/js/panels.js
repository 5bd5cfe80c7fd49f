// The faults, the notices, the figures of now, the workers, and the tables of loops, lanes and gates.
import { byId, make, setText } from "./dom.js";
import * as format from "./format.js";
import { post } from "./api.js";
import { Table } from "./table.js";

const SIGNS = { running: "●", partial: "◐", silent: "○", starting: "…", ended: "✕" };

const workersOf = ({ workers }) => (workers.length ? `Worker${workers.length > 1 ? "s" : ""} ${workers.join(", ")}: ` : "");

export function showWrong(rows, hasEnded) {
  const host = byId("wrong-lines");
  const lines = rows.map((row) => ({
    bad: true, sign: "▲", what: workersOf(row) + row.text, next: row.next ? `Next: ${row.next}` : "",
  }));
  if (!lines.length) lines.push(hasEnded ? { bad: true, sign: "✕", what: "The process has ended.", next: "" } : { bad: false, sign: "✓", what: "Nothing is wrong.", next: "" });
  lines.forEach((line, at) => {
    const box = host.children[at] || host.appendChild(make("div", {}, make("p", { class: "what" }, make("span", { class: "sign", "aria-hidden": "true" }), make("span")), make("p", { class: "next" })));
    box.className = `verdict${line.bad ? " bad" : ""}${at ? " minor" : ""}`;
    setText(box.querySelector(".sign"), line.sign);
    setText(box.querySelector(".what").lastChild, line.what);
    setText(box.querySelector(".next"), line.next);
    box.querySelector(".next").hidden = !line.next;
  });
  while (host.children.length > lines.length) host.lastChild.remove();
}

export function showNotices(notices) {
  const host = byId("notices");
  notices.forEach((text, at) => setText(host.children[at] || host.appendChild(make("li")), text));
  while (host.children.length > notices.length) host.lastChild.remove();
}

export function showTiles(state) {
  const row = state.scope ? state.processes.find((each) => each.pid === state.scope) : null;
  const live = state.processes.filter((each) => each.state !== "ended");
  const shown = row ? [row] : live;
  const most = (key) => shown.reduce((value, each) => (each[key] === null || each[key] === undefined ? value : Math.max(value ?? -Infinity, each[key])), null);
  const sum = (key) => shown.reduce((value, each) => (each[key] === null || each[key] === undefined ? value : (value ?? 0) + each[key]), null);
  const values = [
    ["Delay p99", format.seconds(most("p99_s"))],
    ["Utilization", format.share(most("utilization"))],
    ["Tasks", format.count(sum("live"))],
    ["CPU cores used", sum("cpu") === null ? "–" : sum("cpu").toFixed(2)],
    ["Memory (RSS)", format.bytes(sum("rss_bytes"))],
    ["Up", format.seconds(most("uptime_s"))],
  ];
  if (state.processes.length > 1) values.push(["Workers", `${live.length}`]);
  const host = byId("tiles");
  values.forEach(([name, text], at) => {
    const tile = host.children[at] || host.appendChild(make("div", {}, make("dt"), make("dd")));
    setText(tile.firstChild, name);
    setText(tile.lastChild, text);
  });
  while (host.children.length > values.length) host.lastChild.remove();
}

export const nameOf = (row) => (row.number === null || row.number === undefined ? `process ${row.pid}` : `worker ${row.number} (${row.pid})`);

let workers = null;
export function showWorkers(state, choose) {
  byId("workers-section").hidden = state.processes.length < 2;
  if (state.processes.length < 2) return;
  workers ??= new Table(byId("workers"), {
    caption: "Worker processes; a name shows that worker alone",
    keyOf: (row) => row.pid,
    onOpen: (row) => choose(row.pid),
    columns: [
      { label: "Worker", text: nameOf, open: true },
      { label: "State", text: (row) => `${SIGNS[row.state] || ""} ${row.state}` },
      { label: "Utilization", number: true, text: (row) => format.share(row.utilization) },
      { label: "Delay p99", number: true, text: (row) => format.seconds(row.p99_s) },
      { label: "Tasks", number: true, text: (row) => format.count(row.live) },
      { label: "CPU", number: true, text: (row) => (row.cpu === null || row.cpu === undefined ? "–" : row.cpu.toFixed(2)) },
      { label: "RSS", number: true, text: (row) => format.bytes(row.rss_bytes) },
      { label: "Up", number: true, text: (row) => format.seconds(row.uptime_s) },
    ],
  });
  workers.show(state.processes);
}

const PARTS = {
  loops: { caption: "Event loops", columns: [
    { label: "Loop", text: (row) => row.name || "–" },
    { label: "State", text: (row) => (row.blocked ? `▲ blocked for ${format.seconds(row.blocked.lasted_s)}` : row.running ? "● running" : "○ stopped") },
    { label: "Kind", text: (row) => `${row.implementation || "–"}, level ${row.level || "–"}` },
    { label: "Turns", number: true, text: (row) => format.count(row.turns) },
    { label: "Ready", number: true, title: "callbacks that wait for their turn", text: (row) => format.count(row.ready_count) },
    { label: "Timers", number: true, text: (row) => format.count(row.timer_count) },
    { label: "Stalls", text: (row) => format.counts(row.stalls) },
    { label: "Connections", text: (row) => format.counts(Object.fromEntries(Object.entries(row.connections || {}).filter(([name]) => name !== "bytes_buffered"))) },
  ] },
  lanes: { caption: "Lanes: executors of offloaded calls", columns: [
    { label: "Lane", text: (row) => row.name },
    { label: "Kind", text: (row) => row.kind || "–" },
    { label: "Busy", number: true, text: (row) => `${format.count(row.workers_busy)} of ${format.count(row.workers)}` },
    { label: "Limit", number: true, text: (row) => format.count(row.workers_limit) },
    { label: "Queued", number: true, text: (row) => format.count(row.queued) },
    { label: "Completed", text: (row) => format.counts(row.completed) },
    { label: "Shed", text: (row) => format.counts(row.shed) },
  ] },
  gates: { caption: "Gates: limits of requests at once", columns: [
    { label: "Gate", text: (row) => row.name },
    { label: "Limit", number: true, text: (row) => format.count(row.limit) },
    { label: "In flight", number: true, text: (row) => format.count(row.inflight) },
    { label: "Queued", number: true, text: (row) => format.count(row.queued) },
    { label: "Oldest wait", number: true, text: (row) => format.seconds(row.oldest_wait_s) },
    { label: "Finished", number: true, text: (row) => format.count(row.finished) },
    { label: "Sheds", text: (row) => format.counts(row.sheds) },
    { label: "Limit moved by", text: (row) => row.limit_reason || "–" },
  ] },
};

const tables = {};
export function showParts(details) {
  const host = byId("parts");
  if (!details) {
    if (!host.querySelector(".empty")) host.replaceChildren(make("p", { class: "empty" }, "Choose one worker to see its loops, lanes and gates."));
    for (const name of Object.keys(tables)) delete tables[name];
    return;
  }
  host.querySelector(".empty")?.remove();
  for (const [name, spec] of Object.entries(PARTS)) {
    const rows = details[name] || [];
    if (!tables[name]) {
      if (!rows.length) continue;
      tables[name] = new Table(host, { ...spec, keyOf: (row, at) => row.name || at });
    }
    const age = details.age_s > 1.5 ? `, as of ${format.seconds(details.age_s)} ago` : "";
    setText(tables[name].caption, spec.caption + age);
    tables[name].show(rows);
  }
}

// Buttons of actions: shown where the process allows them.
export function actionButton(label, path, query, body, done) {
  const button = make("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try { done((await (await post(path, query, body)).json()).done || "done"); } catch (error) { done(error.message); }
    button.disabled = false;
  });
  return button;
}
