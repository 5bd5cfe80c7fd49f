// The page: connects the stream of states to the views.
import { loginByFragment, onLogin, setUpLogin, get } from "./api.js";
import { Charts } from "./charts.js";
import { byId, make, setText } from "./dom.js";
import { Findings } from "./findings.js";
import { Graph } from "./graph.js";
import { nameOf, showNotices, showParts, showTiles, showWorkers, showWrong } from "./panels.js";
import { Stream } from "./stream.js";
import { Tasks } from "./tasks.js";
import { Trace } from "./trace.js";

const CONNECTIONS = { connecting: "◌ connecting", live: "● live", paused: "❚❚ paused", lost: "○ no connection: the page's process does not answer", locked: "○ not logged in" };
const charts = new Charts(byId("charts"));
const findings = new Findings();
const graph = new Graph();
const trace = new Trace();
const stream = new Stream({ onHistory: (points) => charts.load(points), onState: show, onConnection: showConnection });
const tasks = new Tasks(() => stream.isOpen && connection === "live");
let connection = "connecting";

function showConnection(name) {
  connection = name;
  setText(byId("connection"), CONNECTIONS[name]);
  byId("connection").dataset.state = name;
  if (name === "lost") checkLogin();
}

// An event source gives no reason for its failure: a plain request does.
async function checkLogin() {
  try {
    await get("/api/findings", { scope: 0 });
  } catch (error) {
    // the login begins the stream again
    if (error.status === 401) stream.stop("locked");
  }
}

function choose(scope) {
  byId("scope").value = String(scope);
  stream.choose(scope);
}

function show(state) {
  if (state.scope !== stream.scope) return;
  const chosen = state.processes.filter((row) => !state.scope || row.pid === state.scope);
  // a worker that was replaced is gone: all of them are shown again
  if (state.scope && !chosen.length) { choose(0); return; }
  showScopes(state);
  showWrong(state.wrong, state.ended);
  showNotices(state.notices);
  if (state.ended) setText(byId("connection"), "✕ ended");
  showTiles(state);
  showWorkers(state, choose);
  showParts(state.details);
  charts.add(state.point, state.wall_time_s);
  for (const view of [tasks, graph, trace]) view.setProcesses(chosen);
  findings.update(state);
  const first = chosen[0] || state.processes[0];
  setText(byId("program"), first?.name || "");
  setText(byId("footer"), first ? `penstock ${first.penstock || ""}, Python ${first.python || ""}, process ${chosen.length === 1 ? first.pid : state.processes.map((row) => row.pid).join(", ")}` : "penstock monitor");
  document.title = `${state.wrong.length ? "▲ " : ""}${first?.name || "penstock"} – penstock monitor`;
}

function showScopes(state) {
  const select = byId("scope");
  const isOne = state.processes.length < 2;
  const wanted = [["0", isOne ? "the process" : "all workers, merged"], ...(isOne ? [] : state.processes.map((row) => [String(row.pid), nameOf(row) + (row.state === "ended" ? ", ended" : "")]))];
  const shape = JSON.stringify(wanted);
  if (select.dataset.shape === shape) return;
  select.dataset.shape = shape;
  select.replaceChildren(...wanted.map(([value, label]) => make("option", { value }, label)));
  select.value = String(stream.scope);
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("scope").addEventListener("change", () => choose(Number(byId("scope").value)));
byId("span").addEventListener("change", () => charts.setSpan(Number(byId("span").value)));
byId("pause").addEventListener("click", () => {
  const isPaused = byId("pause").getAttribute("aria-pressed") !== "true";
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  setText(byId("pause"), isPaused ? "Continue" : "Pause");
  stream.pause(isPaused);
});
onLogin(() => stream.restart());
setUpLogin();
await loginByFragment();
stream.restart();
