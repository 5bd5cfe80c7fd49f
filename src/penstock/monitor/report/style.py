"""The report's style sheet: dark and light, print, and lines that differ without colour."""

from penstock.monitor.report.markup import Markup

__all__ = ["STYLE"]

STYLE = Markup("""
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #57606a; --paper: #fff; --box: #f6f8fa; --rule: #d0d7de;
  --s0: #0550ae; --s1: #bc4c00; --s2: #116329; --s3: #8250df; --bad: #a40e26; --warn: #7d4e00; --good: #116329; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9ea7b3; --paper: #0d1117; --box: #161b22;
  --rule: #3d444d; --s0: #79c0ff; --s1: #ffa657; --s2: #7ee787; --s3: #d2a8ff; --bad: #ff9492; --warn: #f0b72f;
  --good: #7ee787; } }
@media print { :root { color-scheme: light; --ink: #000; --quiet: #444; --paper: #fff; --box: #fff; --rule: #bbb;
  --s0: #0550ae; --s1: #bc4c00; --s2: #116329; --s3: #8250df; --bad: #a40e26; --warn: #7d4e00; --good: #116329; }
  article, figure, tr, li { break-inside: avoid; } h2, h3 { break-after: avoid; } .scroll { overflow: visible; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink); background: var(--paper);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--rule);
  padding-bottom: .2rem; } h3 { font-size: 1rem; margin: 0 0 .4rem; }
header p, .meaning, .left-out, figcaption { color: var(--quiet); font-size: .87rem; }
header p { margin: .2rem 0 0; }
.verdict { font-size: 1.05rem; padding-left: 1.5rem; } .verdict li { margin: .5rem 0; }
p.verdict { padding-left: 0; } .good { color: var(--good); font-weight: 600; }
.severity, .kind { font-size: .8rem; font-weight: 600; border: 1px solid currentColor; border-radius: .3rem;
  padding: 0 .35rem; white-space: nowrap; }
.error { color: var(--bad); } .warning, .kind { color: var(--warn); }
article { background: var(--box); border: 1px solid var(--rule); border-radius: .5rem; padding: .8rem;
  margin: .8rem 0; }
dl { margin: .3rem 0; } .facts { display: flex; flex-wrap: wrap; gap: .1rem .5rem; font-size: .9rem; }
dl div { display: flex; gap: .4rem; }
.facts dt { color: var(--quiet); } .facts dd { margin: 0 1rem 0 0; }
dl.meaning { display: flex; flex-wrap: wrap; gap: 0 .4rem; margin: .3rem 0 1.2rem; } dl.meaning dt { font-weight: 600; }
dl.meaning dd { margin: 0 .8rem 0 0; }
pre { margin: .3rem 0; font-size: .8rem; white-space: pre-wrap; } summary { font-size: .87rem; cursor: pointer; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: 0; } .chart { border: 1px solid var(--rule); border-radius: .5rem; padding: .6rem; }
.chart figcaption { color: var(--ink); } .chart .meaning { display: block; }
svg { display: block; width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--quiet); }
.grid { stroke: var(--rule); stroke-width: 1; } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); stroke-dasharray: 6 3; }
.s2 { stroke: var(--s2); stroke-dasharray: 2 3; } .s3 { stroke: var(--s3); stroke-dasharray: 9 3 2 3; }
.legend { margin: .2rem 0 0; font-size: .83rem; display: flex; flex-wrap: wrap; gap: .1rem 1rem; }
.key { display: inline-flex; align-items: center; gap: .35rem; } .key svg { width: 24px; height: 10px; }
.timeline { overflow-x: auto; } .timeline svg { min-width: 40rem; } .busy { fill: var(--s0); opacity: .55; }
.busy.incidents { fill: var(--s1); opacity: 1; } .busy.jobs { fill: var(--s2); }
.box { fill: var(--s0); stroke: var(--paper); stroke-width: .5; } .box.stall { fill: var(--bad); }
.box.gc { fill: var(--s3); } .box.shed, .box.finding { fill: var(--s1); } .box.job { fill: var(--s2); }
.mark { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 3 2; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; width: 100%; margin-top: 1rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; font-size: .95rem; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--quiet); font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
""")
