// The await graph as a drawing: tasks in layers from waiter to awaited, cycles thick and dashed, and as text.
import { get } from "./api.js";
import { byId, make, setText } from "./dom.js";
import * as format from "./format.js";
import { layered } from "./layers.js";

const MOST_NODES = 60;
const [WIDTH, NODE_HEIGHT, GAP_X, GAP_Y, MARGIN] = [190, 30, 70, 14, 26];
const MOST_CHARS = 23;
const ARC = 34;
const SPACE = "http://www.w3.org/2000/svg";

export class Graph {
  constructor() { byId("graph-draw").addEventListener("click", () => this.draw()); }

  setProcesses(rows) { this.rows = rows.filter((row) => row.state !== "ended"); }

  async draw() {
    const note = byId("graph-note");
    if (!this.rows || this.rows.length !== 1) { setText(note, "Choose one worker to draw its graph."); return; }
    setText(note, "reading …");
    try {
      const answer = await (await get("/api/graph", { pid: this.rows[0].pid })).json();
      if (answer.partial) setText(note, "The GIL is held: the graph cannot be read now.");
      else this.#show(answer);
    } catch (error) { setText(note, error.message); }
  }

  #show(answer) {
    const { names, edges, things, left } = chosen(answer);
    const cycles = answer.cycles || [];
    const text = cycles.length ? `${cycles.length} ${cycles.length === 1 ? "cycle" : "cycles"}` : "no cycle";
    setText(byId("graph-note"), `${format.count(answer.task_count)} tasks, ${text}${left ? `; ${left} nodes are not drawn` : ""}; at ${format.clock(Date.now() / 1000)}`);
    const list = cycles.map((names) => make("li", { class: "cycle-name" }, `↺ ${[...names, names[0]].join(" → ")}`));
    const parts = list.length ? [make("p", {}, "These tasks wait for each other and cannot go on:"), make("ul", {}, ...list)] : [];
    if (!names.length) { byId("graph").replaceChildren(...parts, make("p", { class: "empty" }, "No task awaits another one.")); return; }
    const region = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Drawing of the await graph" }, drawing(names, edges, things, cycles));
    byId("graph").replaceChildren(...parts, region, asTable(edges));
  }
}

// Cycles come first, then tasks that await tasks, then groups of tasks with their awaited object.
function chosen(answer) {
  const all = [];
  const things = new Set();
  const cycles = (answer.cycles || []).flatMap((names) => names.map((name, at) => [name, names[(at + 1) % names.length]]));
  all.push(...cycles, ...(answer.edges || []).map(([from, to]) => [String(from), String(to)]));
  for (const group of answer.groups || []) {
    if (!group.awaits || group.awaits_kind === "task") continue;
    const label = group.count > 1 ? `${group.count} × ${group.names?.[0] ?? "tasks"}` : group.names?.[0] ?? "task";
    things.add(group.awaits);
    all.push([label, group.awaits]);
  }
  const kept = new Set();
  const every = new Set(all.flat());
  const edges = [];
  const seen = new Set();
  for (const [from, to] of all) {
    const added = [from, to].filter((name) => !kept.has(name)).length;
    if (kept.size + added > MOST_NODES || seen.has(`${from}\n${to}`)) continue;
    seen.add(`${from}\n${to}`);
    kept.add(from).add(to);
    edges.push([from, to]);
  }
  return { names: [...kept], edges, things, left: every.size - kept.size };
}

function shape(tag, attributes, ...children) {
  const node = document.createElementNS(SPACE, tag);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  node.append(...children);
  return node;
}

function drawing(names, edges, things, cycles) {
  const { layers, back } = layered(names, edges);
  const inCycle = new Set(cycles.flat());
  const closing = new Set(cycles.flatMap((each) => each.map((name, at) => `${name}\n${each[(at + 1) % each.length]}`)));
  const place = new Map();
  const top = back.size ? MARGIN + ARC / 2 : MARGIN;
  layers.forEach((layer, column) => layer.forEach((name, row) => place.set(name, [MARGIN + column * (WIDTH + GAP_X), top + row * (NODE_HEIGHT + GAP_Y)])));
  const width = MARGIN * 2 + layers.length * (WIDTH + GAP_X) - GAP_X;
  const height = top + MARGIN + Math.max(...layers.map((layer) => layer.length)) * (NODE_HEIGHT + GAP_Y) - GAP_Y;
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Await graph: ${names.length} nodes, ${edges.length} edges, ${cycles.length} cycles` });
  svg.append(shape("defs", {}, tip("tip"), tip("tip-back")));
  edges.forEach(([from, to]) => svg.append(edge(place.get(from), place.get(to), back.has(`${from}\n${to}`), closing.has(`${from}\n${to}`))));
  names.forEach((name) => svg.append(node(name, place.get(name), things.has(name), inCycle.has(name))));
  return svg;
}

function tip(id) {
  const path = shape("path", { d: "M0 0 L8 4 L0 8 z", class: id === "tip" ? "tip" : "tip back" });
  return shape("marker", { id, viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" }, path);
}

function edge([x1, y1], [x2, y2], isBack, isCycle) {
  const middle = NODE_HEIGHT / 2;
  let path;
  if (!isBack) {
    const half = (x2 - x1 - WIDTH) / 2;
    path = `M${x1 + WIDTH} ${y1 + middle} C${x1 + WIDTH + half} ${y1 + middle} ${x2 - half} ${y2 + middle} ${x2 - 2} ${y2 + middle}`;
  } else {
    // around above both nodes, back to the left
    const top = Math.min(y1, y2) - ARC;
    path = `M${x1 + WIDTH * 0.6} ${y1} C${x1 + WIDTH * 0.5} ${top} ${x2 + WIDTH * 0.5} ${top} ${x2 + WIDTH * 0.4} ${y2 - 2}`;
  }
  const marked = isBack || isCycle;
  return shape("path", { d: path, class: marked ? "edge back" : "edge", "marker-end": `url(#${marked ? "tip-back" : "tip"})` });
}

function node(name, [x, y], isThing, isInCycle) {
  const label = (isInCycle ? "↺ " : "") + (name.length > MOST_CHARS ? `${name.slice(0, MOST_CHARS - 1)}…` : name);
  const kind = isInCycle ? "node in-cycle" : isThing ? "thing" : "node";
  return shape("g", {}, shape("title", {}, name), shape("rect", { x, y, width: WIDTH, height: NODE_HEIGHT, rx: isThing ? 14 : 4, class: kind }), shape("text", { x: x + 9, y: y + 19 }, label));
}

function asTable(edges) {
  const rows = edges.map(([from, to]) => make("tr", {}, make("td", { class: "text" }, from), make("td", { class: "text" }, to)));
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Waits"), make("th", { scope: "col" }, "For")));
  return make("details", {}, make("summary", {}, "The same as a table"), make("table", {}, make("caption", {}, "Edges of the await graph"), head, make("tbody", {}, ...rows)));
}
