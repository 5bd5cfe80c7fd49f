// Places a directed graph in layers, after Sugiyama: cycles are cut, layers counted, crossings made fewer.

// Returns {layers: [[name]], back: Set of "from\nto" edges that close a cycle}.
export function layered(names, edges) {
  const next = new Map(names.map((name) => [name, []]));
  edges.forEach(([from, to]) => next.get(from)?.push(to));
  const back = backEdges(names, next);
  const depth = depths(names, next, back);
  const layers = [];
  names.forEach((name) => { (layers[depth.get(name)] ??= []).push(name); });
  order(layers, edges);
  return { layers, back };
}

function backEdges(names, next) {
  const back = new Set();
  const state = new Map();
  for (const start of names) {
    if (state.has(start)) continue;
    const stack = [[start, 0]];
    state.set(start, "open");
    while (stack.length) {
      const top = stack[stack.length - 1];
      const to = next.get(top[0])[top[1]++];
      if (to === undefined) { state.set(top[0], "done"); stack.pop(); } else if (state.get(to) === "open") back.add(`${top[0]}\n${to}`);
      else if (!state.has(to)) { state.set(to, "open"); stack.push([to, 0]); }
    }
  }
  return back;
}

// The longest way from a beginning, without the edges that close cycles.
function depths(names, next, back) {
  const left = new Map(names.map((name) => [name, 0]));
  names.forEach((from) => next.get(from).forEach((to) => { if (!back.has(`${from}\n${to}`)) left.set(to, left.get(to) + 1); }));
  const depth = new Map(names.map((name) => [name, 0]));
  const ready = names.filter((name) => left.get(name) === 0);
  while (ready.length) {
    const from = ready.pop();
    for (const to of next.get(from)) {
      if (back.has(`${from}\n${to}`)) continue;
      depth.set(to, Math.max(depth.get(to), depth.get(from) + 1));
      left.set(to, left.get(to) - 1);
      if (left.get(to) === 0) ready.push(to);
    }
  }
  return depth;
}

// Each node goes near the middle of its neighbours in the layer before.
function order(layers, edges) {
  for (let at = 1; at < layers.length; at += 1) {
    const places = new Map(layers[at - 1].map((name, index) => [name, index]));
    const middle = new Map(layers[at].map((name, index) => {
      const near = edges.filter(([from, to]) => to === name && places.has(from)).map(([from]) => places.get(from));
      return [name, near.length ? near.reduce((sum, each) => sum + each, 0) / near.length : index];
    }));
    layers[at].sort((a, b) => middle.get(a) - middle.get(b));
  }
}
