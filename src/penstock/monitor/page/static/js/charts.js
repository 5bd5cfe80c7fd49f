// The charts: lines and stacked areas over time, drawn by uPlot, with a legend that has the values as text.
import { make, setText } from "./dom.js";
import * as format from "./format.js";
import { colour, DASHES, pattern, style, swatch } from "./patterns.js";

const HEIGHT = 200;
const MOST_SITES = 5;
// a longer time without a point is drawn as a gap
const GAP_S = 4;
const logRange = (u, low, high) => {
  const top = Math.max(high || 0, 1e-2);
  const bottom = Math.min(low || 1e-4, 1e-4);
  return [10 ** Math.floor(Math.log10(Math.max(bottom, 1e-6))), 10 ** Math.ceil(Math.log10(top * 1.01))];
};
const fromZero = (least) => (u, low, high) => [0, Math.max(least, (high || 0) * 1.1)];

// "1.00 ms" as "1 ms", "0.50" as "0.5"
const short = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

const CHARTS = [
  { id: "delay", title: "Loop delay", about: "how late callbacks run", text: format.seconds, log: true, range: logRange, series: delaySeries },
  { id: "utilization", title: "Utilization", about: "time in callbacks; workers: the mean", text: format.share, range: () => [0, 1], series: utilizationSeries },
  { id: "sites", title: "Tasks by site", about: "live tasks, stacked", text: format.count, range: fromZero(4), series: siteSeries, stacked: true },
  { id: "lanes", title: "Lanes", about: "workers busy, jobs queued", text: format.count, range: fromZero(4), series: laneSeries },
  { id: "memory", title: "Memory", about: "resident set", text: format.bytes, range: fromZero(2 ** 20), series: memorySeries },
  { id: "gates", title: "Gates", about: "goodput against sheds", text: format.rate, range: fromZero(4), series: gateSeries },
];

function delaySeries(points) {
  return [
    { label: "p99", values: points.map((point) => point.p99_s || null) },
    { label: "p50", values: points.map((point) => point.p50_s || null) },
  ];
}

function utilizationSeries(points) {
  return [{ label: "utilization", values: points.map((point) => point.utilization) }];
}

// The largest sites of the whole window keep their places; the rest is one area.
function siteSeries(points) {
  const largest = new Map();
  for (const point of points) {
    for (const [site, live] of Object.entries(point.sites)) largest.set(site, Math.max(live, largest.get(site) || 0));
  }
  const names = [...largest].sort((a, b) => b[1] - a[1]).slice(0, MOST_SITES).map(([name]) => name);
  const unknown = (point) => point.live === null;
  const series = names.map((name) => ({ label: name, values: points.map((point) => (unknown(point) ? null : point.sites[name] || 0)) }));
  const others = points.map((point) => {
    if (unknown(point)) return null;
    return Math.max(0, point.live - names.reduce((sum, name) => sum + (point.sites[name] || 0), 0));
  });
  if (others.some((value) => value > 0) || !series.length) series.push({ label: "other sites", values: others, style: 6 });
  return series;
}

function memorySeries(points) {
  return points.some((point) => point.rss_bytes !== null) ? [{ label: "RSS", values: points.map((point) => point.rss_bytes) }] : [];
}

function namesOf(points, key) {
  return [...new Set(points.flatMap((point) => Object.keys(point[key])))].sort().slice(0, 3);
}

function laneSeries(points) {
  return namesOf(points, "lanes").flatMap((name) => [
    { label: `${name}: busy`, values: points.map((point) => point.lanes[name]?.[0] ?? null) },
    { label: `${name}: queued`, values: points.map((point) => point.lanes[name]?.[1] ?? null) },
  ]);
}

function gateSeries(points) {
  return namesOf(points, "gates").flatMap((name) => [
    { label: `${name}: goodput`, values: points.map((point) => point.gates[name]?.[0] ?? null) },
    { label: `${name}: sheds`, values: points.map((point) => point.gates[name]?.[1] ?? null) },
  ]);
}

const powers = (base, least, most) => Array.from({ length: most - least }, (_, at) => base ** (at + least));
const COUNTS = powers(10, 0, 10).flatMap((each) => [each, 2 * each, 5 * each]);
const isDecade = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;

// Labels at round numbers: decades of times, whole counts, binary sizes.
function yAxis({ log, text }) {
  if (log) {
    const filter = (u, splits) => splits.map((value) => (isDecade(value) ? value : null));
    return { filter, grid: { stroke: () => style("--grid"), width: 1, filter } };
  }
  if (text === format.bytes) return { incrs: powers(2, 10, 45) };
  return text === format.count || text === format.rate ? { incrs: COUNTS } : {};
}

class Chart {
  constructor(host, spec) {
    this.spec = spec;
    this.plot = null;
    this.shape = "";
    this.legend = make("ul");
    this.area = make("div", { class: "plot", tabindex: "0", role: "img", "aria-label": spec.title, onkeydown: (event) => this.#onKey(event), onblur: () => this.#leave() });
    this.none = make("p", { class: "none", hidden: true }, `No ${spec.title.toLowerCase()} yet.`);
    const title = make("h3", {}, spec.title, " ", make("small", { class: "hint" }, spec.about));
    this.element = make("figure", { class: "chart", id: `chart-${spec.id}` }, make("figcaption", {}, title), this.area, this.none, this.legend);
    host.append(this.element);
    new ResizeObserver(() => this.plot?.setSize(this.#size())).observe(this.area);
  }

  #size() { return { width: Math.max(120, this.area.clientWidth), height: HEIGHT }; }

  show(points, spanS, nowS) {
    this.points = points;
    this.window = [nowS - spanS, nowS];
    this.series = this.spec.series(points);
    const isEmpty = !points.length || !this.series.length;
    this.none.hidden = !isEmpty;
    this.area.hidden = isEmpty;
    this.legend.hidden = isEmpty;
    if (isEmpty) return;
    const shape = this.series.map((each) => each.label).join("\n");
    if (shape !== this.shape || !this.plot) this.#rebuild(shape);
    this.plot.setData(this.#data(), false);
    this.plot.batch(() => {
      this.plot.setScale("x", { min: this.window[0], max: this.window[1] });
      const [low, high] = this.#extent();
      const [min, max] = this.spec.range(this.plot, low, high);
      this.plot.setScale("y", { min, max });
    });
    this.#showValues();
  }

  #extent() {
    let low = Infinity, high = -Infinity;
    for (const values of this.data.slice(1)) {
      values.forEach((value, at) => {
        if (value === null || value === undefined || this.data[0][at] < this.window[0]) return;
        low = Math.min(low, value); high = Math.max(high, value);
      });
    }
    return high === -Infinity ? [null, null] : [low, high];
  }

  // Times and values, with a gap where points are missing. Areas are summed from the first one up.
  #data() {
    const times = this.points.map((point) => point.at_s);
    let columns = this.series.map((each) => each.values);
    if (this.spec.stacked) {
      const sums = times.map(() => 0);
      columns = columns.map((values) => values.map((value, at) => (value === null ? null : (sums[at] += value))));
      columns.reverse();
    }
    const data = [[], ...columns.map(() => [])];
    this.index = [];
    times.forEach((time, at) => {
      if (at && time - times[at - 1] > GAP_S) {
        data[0].push((time + times[at - 1]) / 2);
        columns.forEach((_, index) => data[index + 1].push(null));
        this.index.push(null);
      }
      data[0].push(time);
      columns.forEach((values, index) => data[index + 1].push(values[at]));
      this.index.push(at);
    });
    this.data = data;
    return data;
  }

  #rebuild(shape) {
    this.plot?.destroy();
    this.shape = shape;
    const styles = this.series.map((each, at) => each.style ?? at);
    const lines = this.series.map((each, at) => this.#line(styles[at]));
    if (this.spec.stacked) lines.reverse();
    const axis = { stroke: () => style("--dim"), grid: { stroke: () => style("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const text = this.spec.text;
    this.plot = new uPlot({
      ...this.#size(), legend: { show: false }, padding: [8, 26, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: true, auto: false }, y: { auto: false, distr: this.spec.log ? 3 : 1 } },
      axes: [
        { ...axis, size: 34, gap: 9, space: 70, values: (u, splits) => splits.map((at) => format.clock(at)) },
        { ...axis, ...yAxis(this.spec), size: 62, space: 34, values: (u, splits) => splits.map((value) => (value === null ? "" : short(text(value)))) },
      ],
      series: [{}, ...lines],
      bands: this.spec.stacked ? lines.slice(1).map((_, at) => ({ series: [at + 1, at + 2] })) : [],
      hooks: { drawClear: [(u) => this.#shade(u)], setCursor: [() => this.#showValues()] },
    }, [[], ...lines.map(() => [])], this.area);
    this.swatches = styles;
    this.values = this.series.map(() => make("b"));
    const isArea = this.spec.stacked;
    this.legend.replaceChildren(...this.series.map((each, at) => {
      const canvas = make("canvas", { class: "swatch", "aria-hidden": "true" });
      swatch(canvas, styles[at], isArea);
      return make("li", {}, canvas, make("span", { title: each.label }, each.label), this.values[at]);
    }));
  }

  #line(at) {
    const line = { stroke: () => colour(at), width: 2, dash: DASHES[at % 7], points: { show: false } };
    return this.spec.stacked ? { ...line, width: 1, dash: [], fill: (u) => pattern(u.ctx, at) } : line;
  }

  // Shades the times at which the GIL was held or the loop was blocked.
  #shade(u) {
    if (!this.points) return;
    const { left, top, width, height } = u.bbox;
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(left, top, width, height);
    u.ctx.clip();
    u.ctx.fillStyle = style("--shade");
    this.points.forEach((point, at) => {
      if (!point.partial && point.blocked_s === null) return;
      const from = u.valToPos(at ? Math.max(this.points[at - 1].at_s, point.at_s - 2) : point.at_s - 0.5, "x", true);
      u.ctx.fillRect(Math.round(from), top, Math.round(u.valToPos(point.at_s, "x", true)) - Math.round(from), height);
    });
    u.ctx.restore();
  }

  #showValues() {
    if (!this.plot || !this.series) return;
    const cursor = this.plot.cursor.idx;
    const at = cursor === null || cursor === undefined ? this.points.length - 1 : this.index[cursor];
    const texts = this.series.map((each) => {
      return at === null || at === undefined ? "–" : this.spec.text(each.values[at]);
    });
    texts.forEach((text, index) => setText(this.values[index], text));
    const when = cursor === null || cursor === undefined ? "now" : `at ${format.clock(this.points[at]?.at_s)}`;
    const label = this.series.map((each, index) => `${each.label} ${texts[index]}`).join(", ");
    this.area.setAttribute("aria-label", `${this.spec.title} ${when}: ${label}`);
  }

  #onKey(event) {
    if (!this.plot || !["ArrowLeft", "ArrowRight", "Home", "End", "Escape"].includes(event.key)) return;
    event.preventDefault();
    const last = this.data[0].length - 1;
    const now = this.plot.cursor.idx ?? last;
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next === undefined) { this.#leave(); return; }
    const at = Math.min(last, Math.max(0, next));
    this.plot.setCursor({ left: this.plot.valToPos(this.data[0][at], "x"), top: 10 });
  }

  #leave() { this.plot?.setCursor({ left: -10, top: -10 }); }

  recolour() { if (this.plot) { this.shape = ""; } }
}

export class Charts {
  constructor(host) {
    this.charts = CHARTS.map((spec) => new Chart(host, spec));
    this.points = [];
    document.addEventListener("themechange", () => { this.charts.forEach((chart) => chart.recolour()); this.draw(); });
  }

  load(points) { this.points = points; this.draw(); }

  add(point, nowS) {
    if (point) this.points.push(point);
    while (this.points.length && this.points[0].at_s < nowS - 600) this.points.shift();
    this.nowS = nowS;
    this.draw();
  }

  setSpan(seconds) { this.spanS = seconds; this.draw(); }

  draw() {
    const nowS = this.nowS || (this.points.length ? this.points[this.points.length - 1].at_s : Date.now() / 1000);
    const spanS = this.spanS || 120;
    // one point before the window, so that lines begin at its edge
    const first = Math.max(0, this.points.findIndex((point) => point.at_s >= nowS - spanS) - 1);
    const shown = this.points.slice(first);
    this.charts.forEach((chart) => chart.show(shown, spanS, nowS));
  }
}
