// The table of tasks: sorted, filtered, grouped, and one task with its await chain.
import { get } from "./api.js";
import { byId, make, setText } from "./dom.js";
import * as format from "./format.js";
import { actionButton, nameOf } from "./panels.js";
import { Table } from "./table.js";

const EVERY_MS = 2000;
const MOST_PROCESSES = 16;
const LIMIT = 100;

const TASK_COLUMNS = [
  { label: "Task", title: "its name", text: (row) => row.name, open: true },
  { label: "Site", title: "where it was created", text: (row) => format.place(row.site) },
  { label: "State", title: "ready: waits for its turn; running: its step runs; waiting: awaits something", text: (row) => `${{ running: "▶", ready: "◆", waiting: "◦" }[row.state] || ""} ${row.state}` },
  { label: "Age", number: true, sort: "age", title: "since its creation", text: (row) => format.seconds(row.age_s) },
  { label: "Running", number: true, sort: "running", title: "time in its steps", text: (row) => format.seconds(row.running_s) },
  { label: "Ready", number: true, sort: "ready", title: "time in the loop's queue", text: (row) => format.seconds(row.ready_s) },
  { label: "Waiting", number: true, sort: "waiting", title: "time of its present wait", text: (row) => format.seconds(row.waiting_s) },
  { label: "Steps", number: true, sort: "steps", text: (row) => format.count(row.steps) },
];
const SITE_COLUMNS = [
  { label: "Site", text: (row) => format.place(row.site) },
  { label: "Tasks", number: true, text: (row) => format.count(row.count) },
  { label: "Running", number: true, text: (row) => format.count(row.running) },
  { label: "Ready", number: true, text: (row) => format.count(row.ready) },
  { label: "Waiting", number: true, text: (row) => format.count(row.waiting) },
  { label: "Oldest", number: true, text: (row) => format.seconds(row.oldest_s) },
  { label: "Ran for", number: true, text: (row) => format.seconds(row.running_s) },
];
const STACK_COLUMNS = [
  { label: "Tasks", number: true, text: (row) => format.count(row.count) },
  { label: "Names", text: (row) => (row.names || []).join(", ") + (row.count > (row.names || []).length ? ", …" : "") },
  { label: "Await stack, outermost first", text: (row) => (row.frames || []).map(format.place).join(" → ") || "–" },
  { label: "Awaits", text: (row) => row.awaits || "–" },
];
const PROCESS_COLUMN = { label: "Worker", number: true, text: (row) => row.worker };
const SORT_KEYS = { age: "age_s", running: "running_s", ready: "ready_s", waiting: "waiting_s", steps: "steps" };

export class Tasks {
  constructor(isActive) {
    this.isActive = isActive;
    this.sort = "age";
    this.descending = true;
    this.processes = [];
    this.shape = "";
    let timer = 0;
    byId("task-filter").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => this.refresh(), 200); });
    byId("task-group").addEventListener("change", () => this.refresh());
    byId("task-controls").addEventListener("submit", (event) => { event.preventDefault(); this.refresh(); });
    setInterval(() => { if (this.isActive()) this.refresh(); }, EVERY_MS);
  }

  setProcesses(rows) {
    const before = this.processes.map((row) => row.pid).join();
    this.processes = rows.filter((row) => row.state !== "ended").slice(0, MOST_PROCESSES);
    if (this.processes.map((row) => row.pid).join() !== before) this.refresh();
  }

  async refresh() {
    if (!this.processes.length) return;
    const turn = (this.turn = (this.turn || 0) + 1);
    const group = byId("task-group").value;
    const filter = byId("task-filter").value;
    const query = group ? { group } : { sort: this.sort, descending: this.descending ? 1 : 0, filter, limit: LIMIT };
    const answers = await Promise.all(this.processes.map(async (row) => {
      try { return { row, answer: await (await get("/api/tasks", { pid: row.pid, ...query })).json() }; } catch (error) { return { row, error }; }
    }));
    // a later choice has overtaken this one
    if (turn === this.turn) this.#show(answers, group, filter);
  }

  #show(answers, group, filter) {
    const good = answers.filter(({ answer }) => answer && !answer.partial && (answer.tasks || answer.groups));
    const note = answers.length - good.length;
    if (!good.length) {
      const reason = answers[0].answer?.partial ? "not readable while the GIL is held; shown as before" : answers[0].error?.message || "not known";
      setText(byId("task-count"), reason);
      return;
    }
    const rows = good.flatMap(({ row, answer }) => (answer.tasks || answer.groups).map((each) => ({ ...each, pid: row.pid, worker: row.number ?? row.pid, actions: row.actions })));
    this.#table(group, good.length > 1);
    if (group) this.#showGroups(rows, filter);
    else this.#showTasks(rows, good, note);
  }

  #showTasks(rows, good, missing) {
    const key = SORT_KEYS[this.sort];
    rows.sort((a, b) => ((a[key] ?? -1) - (b[key] ?? -1)) * (this.descending ? -1 : 1));
    const matched = good.reduce((sum, { answer }) => sum + (answer.matched ?? answer.tasks.length), 0);
    const total = good.reduce((sum, { answer }) => sum + (answer.total ?? answer.tasks.length), 0);
    const shown = rows.slice(0, LIMIT);
    this.table.showSort(this.sort, this.descending);
    this.table.show(shown);
    const text = matched === total ? `${format.count(shown.length)} of ${format.count(total)} tasks` : `${format.count(shown.length)} shown, ${format.count(matched)} of ${format.count(total)} match`;
    setText(byId("task-count"), missing ? `${text}; ${missing} ${missing === 1 ? "process" : "processes"} did not answer` : text);
  }

  #showGroups(rows, filter) {
    const words = filter.toLowerCase();
    const matching = rows.filter((row) => !words || JSON.stringify([row.site, row.names, row.frames, row.awaits]).toLowerCase().includes(words));
    matching.sort((a, b) => b.count - a.count);
    this.table.show(matching.slice(0, LIMIT));
    setText(byId("task-count"), `${format.count(matching.length)} groups`);
  }

  #table(group, hasWorkers) {
    const shape = `${group} ${hasWorkers}`;
    if (shape === this.shape) return;
    this.shape = shape;
    const columns = { "": TASK_COLUMNS, site: SITE_COLUMNS, stack: STACK_COLUMNS }[group];
    byId("tasks").replaceChildren();
    this.table = new Table(byId("tasks"), {
      caption: { "": "Tasks; a name shows its await chain", site: "Tasks by the place of their creation", stack: "Tasks by their await stack" }[group],
      columns: hasWorkers ? [PROCESS_COLUMN, ...columns] : columns,
      keyOf: (row, at) => (group ? `${at}` : `${row.pid} ${row.number}`),
      onSort: (sort) => { this.descending = sort === this.sort ? !this.descending : true; this.sort = sort; this.refresh(); },
      onOpen: (row) => this.#open(row),
    });
  }

  async #open(row) {
    const host = byId("task-detail");
    host.hidden = false;
    host.replaceChildren(make("p", {}, `Reading ${row.name} …`));
    host.focus();
    try {
      const answer = await (await get("/api/task", { pid: row.pid, number: row.number })).json();
      host.replaceChildren(...(answer.partial ? [make("p", {}, "The GIL is held: the task cannot be read now.")] : detail(row, answer)));
    } catch (error) {
      host.replaceChildren(make("p", {}, `${row.name}: ${error.message}`));
    }
    const close = make("button", { type: "button", onclick: () => { host.hidden = true; byId("tasks").querySelector("button.open")?.focus(); } }, "Close");
    const bar = make("div", { class: "bar" }, close);
    if (row.actions) bar.append(actionButton("Cancel the task", "/api/cancel", { pid: row.pid }, { number: row.number }, (text) => bar.append(` ${text}`)));
    host.append(bar);
  }
}

function detail(row, answer) {
  const task = answer.task || row;
  const list = (title, items) => (items && items.length ? [make("p", {}, make("b", {}, title)), make("ol", {}, ...items.map((item) => make("li", {}, item)))] : []);
  const names = (tasks) => (tasks || []).map((each) => each.name);
  return [
    make("h3", {}, task.name),
    make("p", {}, `${task.state}, ${format.seconds(task.age_s)} old, ${format.count(task.steps)} steps, created at ${format.place(task.site)}`),
    ...list("Await chain, outermost first", [...(answer.chain || []).map(format.place), ...(answer.awaits?.text ? [`awaits ${answer.awaits.text}`] : [])]),
    ...list("Awaited by", names(answer.waiters)),
    ...list("Awaits the tasks", names(answer.awaited_tasks)),
    ...list("Created by", (answer.creation_stack || []).map(format.place)),
  ];
}
export { nameOf };
