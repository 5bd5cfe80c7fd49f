// Colours, dashes and fill patterns of series: each differs from the others without colour too.
const COLOURS = {
  light: ["#0072b2", "#d55e00", "#00805c", "#a8518a", "#8a6a00", "#3b8fc4", "#6b7177"],
  dark: ["#56b4e9", "#ff9350", "#2bc79a", "#e29ac4", "#f0e442", "#9fc9ee", "#a9b0b6"],
};
export const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [4, 4], [1, 4], []];
const TILE = 8;

export const themeName = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");
export const colour = (at) => COLOURS[themeName()][at % 7];
export const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const STROKES = [
  (c) => c.rect(0, 0, 0, 0),
  (c) => { c.moveTo(0, TILE); c.lineTo(TILE, 0); },
  (c) => { c.moveTo(2, 2); c.arc(2, 2, 1.2, 0, 7); },
  (c) => { c.moveTo(0, 0); c.lineTo(TILE, TILE); },
  (c) => { c.moveTo(0, TILE / 2); c.lineTo(TILE, TILE / 2); },
  (c) => { c.moveTo(TILE / 2, 0); c.lineTo(TILE / 2, TILE); },
  (c) => { c.moveTo(0, 0); c.lineTo(TILE, TILE); c.moveTo(0, TILE); c.lineTo(TILE, 0); },
];
const made = new Map();

export function pattern(context, at) {
  const key = `${themeName()} ${at % 7}`;
  if (!made.has(key)) made.set(key, context.createPattern(tile(at), "repeat"));
  return made.get(key);
}

function tile(at) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = TILE;
  const context = canvas.getContext("2d");
  context.fillStyle = `${colour(at)}55`;
  context.fillRect(0, 0, TILE, TILE);
  context.strokeStyle = colour(at);
  context.lineWidth = 1.4;
  context.beginPath();
  STROKES[at % 7](context);
  context.stroke();
  return canvas;
}

// The sample of a series in a legend: its line or its area.
export function swatch(canvas, at, isArea) {
  canvas.width = 56;
  canvas.height = 24;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, 56, 24);
  if (isArea) {
    context.fillStyle = pattern(context, at);
    context.fillRect(0, 0, 56, 24);
  }
  context.strokeStyle = colour(at);
  context.lineWidth = 4;
  context.setLineDash(isArea ? [] : DASHES[at % 7].map((length) => length * 2));
  context.beginPath();
  context.moveTo(0, isArea ? 2 : 12);
  context.lineTo(56, isArea ? 2 : 12);
  context.stroke();
}
