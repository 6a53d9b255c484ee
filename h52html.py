"""Loss surfaces as one page to explore in a browser.

    python h52html.py --surf_file S.h5                                      writes S.h5.html
    python h52html.py --surf_file A.h5 B.h5 --labels "ResNet-56" "no shortcuts" --output compare.html
    python h52html.py --surf_file S.h5 --proj_file P.h5                     with the path of the optimizer

The page is one file that works from the disk, without a network: Plotly and the data are inside. Rotate, zoom, hover
for coordinates and values; switch between loss and accuracy, train and test, linear and log; clip what is too high;
contours on the floor; the optimizer's path up to any epoch. Several surfaces stand side by side with one camera and
one colour scale. Points that are not computed, NaN or infinite are gaps; +inf is drawn at the clip height, if any.
"""

import argparse
import base64
import html
import json
import os
import re

import numpy as np

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files.layouts import ERRORS, read_projection, read_surface, write_file

MAX_VALUES = 4_000_000  # float32 values in one page: about 21 MB as base64; a browser struggles beyond


def packed(array):
    """Base64 of the array as little-endian float32; NaN where it is masked."""
    plain = np.ma.filled(np.ma.asarray(array, dtype=float), np.nan)
    with np.errstate(over="ignore"):
        return base64.b64encode(plain.astype("<f4").tobytes()).decode()


def panel(surface, label, path="", projection=None):
    """What the page holds of one 2-D surface: plain values, ready for JSON.

    `values` has one entry per array of the surface (ny, nx); the page makes errors, 100 - accuracy, of accuracies.
    `projection` is {proj_xcoord: (n,), proj_ycoord: (n,)}, with the `epochs` of the n checkpoints if the file has them.
    """
    if surface.grid.y is None:
        raise InputError(f"expected a 2-D surface, got a 1-D one in {path or label}; draw it with plot_1D.py")
    if min(surface.grid.shape) < 2:
        raise InputError(f"expected at least 2 points per axis in {path or label}, got {surface.grid}")
    if not surface.values:
        raise InputError(f"expected values such as train_loss in {path or label}, found none; compute them first")
    found = {
        "label": label,
        "path": path,
        "x": surface.grid.x.tolist(),
        "y": surface.grid.y.tolist(),
        "values": {name: packed(surface.get(name)) for name in sorted(surface.values)},  # (ny, nx), row = y
        "walk": None,
    }
    if projection is not None:
        n = len(projection["proj_xcoord"])
        epochs = next((projection[name] for name in ("epochs", "epoch") if len(projection.get(name, ())) == n), None)
        found["walk"] = {
            "x": packed(projection["proj_xcoord"]),
            "y": packed(projection["proj_ycoord"]),
            "epochs": None if epochs is None else np.asarray(epochs).tolist(),
        }
    return found


def in_script(value):
    """JSON that can stand inside a <script> element whatever its strings hold."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(panels, name="train_loss"):
    """The HTML page (str) of a list of `panel(...)`, showing `name` first."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError(f"this needs Plotly, which can't be imported ({error}); pip install plotly") from None
    names = sorted({key for found in panels for key in found["values"]})
    names += [error for error, accuracy in ERRORS.items() if accuracy in names and error not in names]
    if name not in names:
        raise InputError(f"expected one of {', '.join(names)} as the name of a surface, got {name!r}")
    parts = {
        "TITLE": html.escape(" | ".join(found["label"] for found in panels)),
        "DATA": in_script({"name": name, "panels": panels}),
        "PLOTLY": get_plotlyjs(),
    }
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], PAGE)  # in one pass: a label may look like a mark


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; form-action 'none'; base-uri 'none'">
<title>@@TITLE@@</title>
<style>
  :root { --ink: #1a1d21; --soft: #5c6570; --line: #d5dae0; --accent: #31688e; }
  * { box-sizing: border-box; }
  html, body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }
  #controls { display: flex; flex-wrap: wrap; gap: 8px 18px; align-items: center; padding: 10px 14px;
    border-bottom: 1px solid var(--line); position: sticky; top: 0; background: #fff; z-index: 5; }
  .group { display: inline-flex; flex-wrap: wrap; border: 1px solid var(--line); border-radius: 7px; overflow: hidden; }
  .group button { font: inherit; border: 0; background: #fff; color: var(--ink); padding: 7px 13px; cursor: pointer; }
  .group button + button { border-left: 1px solid var(--line); }
  .group button[aria-pressed=true] { background: var(--accent); color: #fff; }
  .group button:focus-visible, input:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
  label { display: inline-flex; align-items: center; gap: 8px; }
  input[type=range] { width: 150px; accent-color: var(--accent); }
  input[type=checkbox] { width: 17px; height: 17px; accent-color: var(--accent); }
  output { min-width: 4.5em; font-variant-numeric: tabular-nums; color: var(--soft); }
  #panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 4px; }
  .panel { min-width: 0; padding: 8px 10px 0; }
  .panel h2 { font-size: 16px; font-weight: 600; margin: 2px 4px; overflow-wrap: anywhere; }
  .panel p { margin: 0 4px 4px; font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; }
  .plot { width: 100%; height: max(300px, min(calc(100vh - 190px), 92vw)); }
  #scale { display: flex; align-items: center; justify-content: center; gap: 10px; padding: 2px 14px 14px;
    font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; }
  #bar { height: 12px; width: min(340px, 45vw); border-radius: 3px; }
  [hidden] { display: none !important; }
  @media (max-width: 600px) {
    #controls { position: static; gap: 8px; padding: 8px 10px; }
    .plot { height: max(300px, 88vw); }
    input[type=range] { width: 38vw; }
  }
</style>
</head>
<body>
<div id="controls">
  <span class="group" id="quantity" role="group" aria-label="quantity"></span>
  <span class="group" id="split" role="group" aria-label="data"></span>
  <span class="group" id="scaling" role="group" aria-label="scale"></span>
  <label>clip <input type="range" id="clip" min="0" max="1000" value="1000"><output id="clipped"></output></label>
  <label><input type="checkbox" id="floor" checked>contours on the floor</label>
  <label id="walk" hidden>path <input type="range" id="epoch" min="0" value="0"><output id="reached"></output></label>
</div>
<div id="panels"></div>
<div id="scale"><span id="low"></span><span id="bar"></span><span id="high"></span></div>
<noscript><p style="padding: 14px">This page draws its surfaces with JavaScript.</p></noscript>
<script type="application/json" id="data">@@DATA@@</script>
<script>@@PLOTLY@@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e",
                 "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const COLOURS = VIRIDIS.map((colour, i) => [i / (VIRIDIS.length - 1), colour]);
const find = id => document.getElementById(id);

function unpack(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}
const ACCURACY = /^(train|test)_acc$/, PERCENT = /^(train|test)_(acc|err)(_low|_high|_iqr)?$/;
for (const panel of data.panels) {
  for (const name of Object.keys(panel.values)) {
    const values = panel.values[name] = unpack(panel.values[name]);  // (ny, nx), row = y
    const error = ACCURACY.test(name) && name.replace("_acc", "_err");
    if (error && !(error in panel.values)) panel.values[error] = values.map(v => 100 - v);
  }
  if (panel.walk) for (const axis of ["x", "y"]) panel.walk[axis] = unpack(panel.walk[axis]);
}

/* What can be shown: train_loss and test_loss are the quantity "loss" of two data sets; other names stand alone. */
const TITLES = {loss: "loss", acc: "accuracy", err: "error", max_eig: "largest eigenvalue",
                min_eig: "smallest eigenvalue"};
const STATISTICS = {low: "lower quartile", high: "upper quartile", iqr: "interquartile range"};  // of repeats
const ofRepeats = quantity => (/^(.+)_(low|high|iqr)$/.exec(quantity) ?? [null, quantity, ""]).slice(1);
const words = quantity => {
  const [base, statistic] = ofRepeats(quantity);
  const text = TITLES[base] ?? base.replaceAll("_", " ");
  return statistic ? `${text}, ${STATISTICS[statistic]}` : text;
};
const quantities = new Map();  // quantity -> Map(data set -> name)
for (const panel of data.panels) for (const name of Object.keys(panel.values)) {
  const match = /^(train|test)_(.+)$/.exec(name), quantity = match ? match[2] : name;
  if (!quantities.has(quantity)) quantities.set(quantity, new Map());
  quantities.get(quantity).set(match ? match[1] : "", name);
}
const order = ["loss", "acc", "err"];
const rank = quantity => {  // loss, accuracy, error, other values; then the same of their statistics
  const [base, statistic] = ofRepeats(quantity), last = order.length + 1;
  return (order.indexOf(base) + last) % last + (statistic ? last : 0);
};
const shown = /^(?:(train|test)_)?(.+)$/.exec(data.name);
const state = {quantity: shown[2], split: shown[1] || "", log: false, clip: 1, floor: true, step: 0};

const currentName = () => {
  const sets = quantities.get(state.quantity);
  return sets.get(state.split) ?? sets.get([...sets.keys()].sort().reverse()[0]);
};
const title = () => {
  const name = currentName(), match = /^(train|test)_(.+)$/.exec(name);
  return match ? match[1] + " " + words(match[2]) : words(name);
};
const unit = () => PERCENT.test(currentName()) ? " %" : "";
const number = v =>
  v !== 0 && (Math.abs(v) >= 1e5 || Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4));
/* Plotly reads a few HTML tags in its texts: a name from a file must not become one. */
const plain = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/* Lowest and highest shown value over all panels, on the shown scale: one colour scale for all. */
const scaled = v => state.log ? (v > 0 ? Math.log10(v) : NaN) : v;
function limits(name) {
  let low = Infinity, high = -Infinity;
  for (const panel of data.panels) for (const v of panel.values[name] ?? []) {
    const s = scaled(v);
    if (Number.isFinite(s)) { low = Math.min(low, s); high = Math.max(high, s); }
  }
  return low <= high ? [low, high] : [0, 1];
}
function view() {
  const name = currentName(), [low, high] = limits(name);
  const top = low + state.clip * (high - low), span = top - low || Math.abs(low) || 1;
  const floor = low - (state.floor ? 0.35 : 0.03) * span;
  return {name, low, top, span, floor, ground: floor + 0.006 * span, cut: state.clip < 1};  // ground: just above
}

/* Heights as drawn: clipped, scaled, null where there is no finite value. */
function heights(panel, v) {
  const values = panel.values[v.name], nx = panel.x.length;
  return panel.y.map((_, j) => panel.x.map((_, i) => {
    if (!values) return null;
    let s = scaled(values[j * nx + i]);
    if (v.cut && s > v.top) s = v.top;
    return Number.isFinite(s) ? s : null;
  }));
}
function texts(panel, v) {
  const values = panel.values[v.name], nx = panel.x.length, label = plain(title());
  return panel.y.map((y, j) => panel.x.map((x, i) => values ?
    `x ${number(x)}, y ${number(y)}<br>${label} <b>${number(values[j * nx + i])}${unit()}</b>` : ""));
}

const within = (axis, value) => value >= axis[0] && value <= axis[axis.length - 1];
/* Height (bilinear) of the drawn surface at (x, y); NaN outside and in gaps. */
function heightAt(panel, z, x, y) {
  const cell = (axis, value) => {
    if (!within(axis, value)) return [-1, 0];
    let k = axis.findIndex(a => a > value) - 1;
    if (k < 0) k = axis.length - 2;
    return [k, (value - axis[k]) / (axis[k + 1] - axis[k])];
  };
  const [i, u] = cell(panel.x, x), [j, w] = cell(panel.y, y);
  if (i < 0 || j < 0) return NaN;
  let sum = 0;
  for (const [dj, di, weight] of [[0, 0, (1-u)*(1-w)], [0, 1, u*(1-w)], [1, 0, (1-u)*w], [1, 1, u*w]]) {
    if (weight > 0) sum += weight * (z[j + dj][i + di] ?? NaN);
  }
  return sum;
}

/* Level lines of the drawn surface: {x, y, level} with null between lines. Each cell is four triangles that meet in its
   middle, the mean of the corners. Plotly can project contours itself, but with gaps it takes seconds per frame where
   WebGL runs in software. */
const LEVELS = 14;
function levelLines(panel, z, v) {
  const nx = panel.x.length, total = 2 * nx * panel.y.length, step = v.span / LEVELS;
  const nets = Array.from({length: LEVELS}, () => new Map());  // per level: edge -> its crossing, and those beside
  const crossing = (n, a, b) => {
    const key = Math.min(a.id, b.id) * total + Math.max(a.id, b.id);
    if (!nets[n].has(key)) {
      const t = (v.low + (n + 0.5) * step - a.z) / (b.z - a.z);
      nets[n].set(key, {x: a.x + t * (b.x - a.x), y: a.y + t * (b.y - a.y), next: []});
    }
    return key;
  };
  for (let j = 0; j + 1 < panel.y.length; j++) for (let i = 0; i + 1 < nx; i++) {
    const ring = [[j, i], [j, i + 1], [j + 1, i + 1], [j + 1, i]].map(
      ([row, column]) => ({id: row * nx + column, x: panel.x[column], y: panel.y[row], z: z[row][column]}));
    if (ring.some(corner => corner.z === null)) continue;
    const mean = axis => ring.reduce((sum, corner) => sum + corner[axis], 0) / 4;
    const middle = {id: total / 2 + j * nx + i, x: mean("x"), y: mean("y"), z: mean("z")};
    for (let k = 0; k < 4; k++) {
      const [low, mid, high] = [ring[k], ring[(k + 1) % 4], middle].sort((a, b) => a.z - b.z);
      // levels are half a step off the lowest value, where flat ground would be nothing but line
      for (let n = Math.max(0, Math.floor((low.z - v.low) / step - 0.5)); n < LEVELS; n++) {
        const level = v.low + (n + 0.5) * step;
        if (level >= high.z) break;
        if (level < low.z) continue;
        const p = crossing(n, low, high), q = level < mid.z ? crossing(n, low, mid) : crossing(n, mid, high);
        nets[n].get(p).next.push(q);
        nets[n].get(q).next.push(p);
      }
    }
  }
  const lines = {x: [], y: [], level: []};
  const add = (x, y, level) => { lines.x.push(x); lines.y.push(y); lines.level.push(level); };
  nets.forEach((net, n) => {
    const level = v.low + (n + 0.5) * step, keys = [...net.keys()];
    keys.sort((a, b) => net.get(a).next.length - net.get(b).next.length);  // open lines from their ends, then rings
    for (const start of keys) if (net.has(start)) {
      const first = net.get(start);
      let last = null;
      for (let key = start; key !== undefined; key = last.next.find(other => net.has(other))) {
        last = net.get(key);
        net.delete(key);
        add(last.x, last.y, level);
      }
      if (last !== first && last.next.includes(start)) add(first.x, first.y, level);
      add(null, null, null);
    }
  });
  return lines;
}

function ticks(v) {
  if (!state.log) return {};
  const values = [], low = Math.floor(v.low), high = Math.ceil(v.top), few = v.top - v.low < 2.5;
  const step = Math.max(1, Math.ceil((high - low) / 8));
  for (let k = low; k <= high; k += step) for (const m of few ? [1, 2, 5] : [1]) {
    const s = k + Math.log10(m);
    if (s >= v.low - 1e-9 && s <= v.top + 1e-9) values.push(s);
  }
  return {tickmode: "array", tickvals: values, ticktext: values.map(s => number(10 ** s))};
}
const steps = panel => panel.walk ? panel.walk.x.length : 0;
const longest = Math.max(...data.panels.map(steps));
state.step = longest - 1;

function traces(panel, v) {
  const z = heights(panel, v);
  const step = v.span / LEVELS;
  const found = [{
    type: "surface", x: panel.x, y: panel.y, z, text: texts(panel, v), hovertemplate: "%{text}<extra></extra>",
    colorscale: COLOURS, cmin: v.low, cmax: v.low + v.span, showscale: false,
    contours: {x: {highlight: false}, y: {highlight: false},
               z: {show: state.floor && !z.flat().includes(null), usecolormap: true, highlight: false,
                   start: v.low + 0.5 * step, end: v.top, size: step}},
    lighting: {ambient: 0.65, diffuse: 0.7, specular: 0.12, roughness: 0.6, fresnel: 0.05},
    lightposition: {x: -1000, y: -1500, z: 4000},
  }];
  if (state.floor) {
    const {x, y, level} = levelLines(panel, z, v);
    found.push({type: "scatter3d", mode: "lines", x, y, z: level.map(s => s === null ? null : v.ground), meta: "floor",
                line: {width: 2.8, color: level, colorscale: COLOURS, cmin: v.low, cmax: v.low + v.span},
                hoverinfo: "skip", showlegend: false});
  }
  if (panel.walk) {
    const n = Math.min(state.step + 1, steps(panel));
    const x = Array.from(panel.walk.x.slice(0, n)), y = Array.from(panel.walk.y.slice(0, n));
    const on = x.map((_, k) => heightAt(panel, z, x[k], y[k]));
    const inside = x.map((_, k) => within(panel.x, x[k]) && within(panel.y, y[k]));
    const path = {type: "scatter3d", mode: "lines+markers", x, y, showlegend: false,
                  line: {color: "#d7191c", width: 5}, marker: {color: "#d7191c", size: 3}};
    const text = x.map((_, k) => epochText(panel, k));
    found.push({...path, z: on.map(s => Number.isFinite(s) ? s + 0.015 * v.span : null),  // just above the surface
                text, hovertemplate: "%{text}<br>x %{x:.4g}, y %{y:.4g}<extra></extra>"});
    if (state.floor) found.push({...path, z: inside.map(yes => yes ? v.ground : null), hoverinfo: "skip",
                                 line: {color: "#d7191c", width: 3}, marker: {color: "#d7191c", size: 2}});
  }
  return found;
}
const epochText = (panel, k) =>
  panel.walk.epochs ? "epoch " + panel.walk.epochs[k] : `checkpoint ${k + 1} of ${steps(panel)}`;

function layout(panel, v) {
  const width = a => a[a.length - 1] - a[0], side = Math.max(width(panel.x), width(panel.y));
  const axis = {showspikes: false, backgroundcolor: "#f5f7f9", showbackground: true, gridcolor: "#dde2e8",
                zeroline: false, tickfont: {size: 11}};
  const far = 1.1 * Math.max(1, 1.25 * panel.div.clientHeight / panel.div.clientWidth);  // step back in a narrow panel
  return {
    margin: {l: 0, r: 0, t: 0, b: 0}, showlegend: false, paper_bgcolor: "#fff",
    hoverlabel: {bgcolor: "#fff", bordercolor: "#31688e", font: {color: "#1a1d21", size: 13}},
    scene: {
      aspectmode: "manual",
      aspectratio: {x: 1.25 * width(panel.x) / side, y: 1.25 * width(panel.y) / side, z: state.floor ? 0.85 : 0.7},
      xaxis: {...axis, title: {text: "x"}, range: [panel.x[0], panel.x[panel.x.length - 1]]},
      yaxis: {...axis, title: {text: "y"}, range: [panel.y[0], panel.y[panel.y.length - 1]]},
      zaxis: {...axis, ...ticks(v), range: [v.floor, v.low + 1.03 * v.span],
              title: {text: panel.div.clientWidth < 480 ? "" : plain(title())}},  // no room for it on a phone
      camera: panel.camera ?? {eye: {x: -1.05 * far, y: -1.55 * far, z: 0.95 * far}, center: {x: 0, y: 0, z: -0.2}},
    },
  };
}

/* One line of facts under each title. */
function facts(panel, v) {
  const values = panel.values[v.name];
  if (!values) return `${title()} is not in this file`;
  const finite = Array.from(values.keys()).filter(k => Number.isFinite(values[k])), nx = panel.x.length;
  if (!finite.length) return "no finite value";
  const best = finite.reduce((a, b) => values[b] < values[a] ? b : a);
  const worst = finite.reduce((a, b) => values[b] > values[a] ? b : a);
  const point = k => `(${number(panel.x[k % nx])}, ${number(panel.y[Math.floor(k / nx)])})`;
  const at = k => `${number(values[k])}${unit()} at ${point(k)}`;
  const parts = [`lowest ${at(best)}`, `highest ${at(worst)}`];
  const gaps = values.length - finite.length;
  if (gaps) parts.push(`${gaps} of ${values.length} points without a finite value`);
  const hidden = state.log ? finite.filter(k => values[k] <= 0).length : 0;
  if (hidden) parts.push(`${hidden} values \\u2264 0 have no logarithm`);
  if (panel.walk) {
    const n = steps(panel), inside = k => within(panel.x, panel.walk.x[k]) && within(panel.y, panel.walk.y[k]);
    const outside = [...panel.walk.x.keys()].filter(k => !inside(k)).length;
    if (outside) parts.push(`${outside} of ${n} checkpoints lie outside of the plot`);
  }
  return parts.join("; ");
}

for (const panel of data.panels) {
  const box = document.createElement("div"), head = document.createElement("h2"), note = document.createElement("p");
  box.className = "panel";
  head.textContent = panel.label;
  head.title = panel.path;
  panel.note = note;
  panel.div = document.createElement("div");
  panel.div.className = "plot";
  box.append(head, note, panel.div);
  find("panels").append(box);
}

function buttons(id, choices, chosen, choose) {
  const group = find(id);
  group.replaceChildren(...choices.map(([value, text]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.dataset.value = value;
    button.setAttribute("aria-pressed", String(value === chosen));
    button.onclick = () => { choose(value); draw(); };
    return button;
  }));
  group.hidden = choices.length < 2;
}

function controls(v) {
  const all = [...quantities.keys()].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  buttons("quantity", all.map(q => [q, words(q)]), state.quantity, q => { state.quantity = q; chooseScale(); });
  const sets = [...quantities.get(state.quantity).keys()].sort().reverse();  // train, test
  const set = sets.includes(state.split) ? state.split : sets[0];
  buttons("split", sets.map(s => [s, s]), set, s => { state.split = s; });
  const scale = state.log ? "log" : "linear";
  buttons("scaling", [["linear", "linear"], ["log", "log"]], scale, s => { state.log = s === "log"; });
  const value = s => number(state.log ? 10 ** s : s) + unit();
  find("clipped").textContent = v.cut ? "at " + value(v.top) : "off";
  find("low").textContent = `${title()} ${value(v.low)}`;
  find("high").textContent = value(v.top) + (v.cut ? " and above" : "");
  find("walk").hidden = !longest;
  const walker = data.panels.find(panel => steps(panel) === longest);
  if (longest) find("reached").textContent = epochText(walker, state.step);
}

/* A log scale to begin with where the values span more than a factor of 50, as losses of bad points do. */
function chooseScale() {
  state.log = false;
  const [low, high] = limits(currentName());
  state.log = low > 0 && high / low > 50 && /loss/.test(currentName());
}

/* The buttons by name: Plotly's own choice has one that would send the data to a server. */
const CONFIG = {displaylogo: false, responsive: true,
                modeBarButtons: [["toImage", "zoom3d", "pan3d", "tableRotation", "resetCameraDefault3d"]]};
let drawn = Promise.resolve();
function draw() {
  const v = view();
  controls(v);
  for (const panel of data.panels) panel.note.textContent = facts(panel, v);
  // one drawing after the other: Plotly must not be called again before it is done
  drawn = drawn.then(() => Promise.all(
    data.panels.map(panel => Plotly.react(panel.div, traces(panel, v), layout(panel, v), CONFIG))));
  return drawn;
}
let waiting = 0;
const soon = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); };

find("bar").style.background = `linear-gradient(to right, ${VIRIDIS.join(", ")})`;
find("clip").oninput = event => { state.clip = event.target.value / 1000; soon(); };
find("floor").onchange = event => { state.floor = event.target.checked; draw(); };
find("epoch").max = Math.max(0, longest - 1);
find("epoch").value = state.step;
find("epoch").oninput = event => { state.step = +event.target.value; soon(); };

/* Cameras move together. The panel that is being turned leads; it is watched, frame by frame, until it has rested for a
   while, because it glides on after Plotly's last event. */
const cameraOf = panel => panel.div._fullLayout.scene._scene?.getCamera?.() ?? panel.div.layout.scene.camera;
const REST = 60;  // frames
let leader = null, rested = REST;
function watch(panel) {
  leader = panel;
  if (rested >= REST) requestAnimationFrame(step);
  rested = 0;
}
function step() {
  const camera = cameraOf(leader), seen = JSON.stringify(camera);
  if (seen === leader.seen) rested++;
  else {
    rested = 0;
    leader.seen = seen;
    for (const panel of data.panels) {
      panel.camera = JSON.parse(seen);
      if (panel !== leader) Plotly.relayout(panel.div, {"scene.camera": JSON.parse(seen)});
    }
  }
  if (rested < REST) requestAnimationFrame(step);
}
chooseScale();
draw().then(() => {
  for (const panel of data.panels) {
    for (const kind of ["pointerdown", "mousedown", "wheel", "touchstart"]) {
      panel.div.addEventListener(kind, () => watch(panel), {capture: true, passive: true});
    }
    for (const kind of ["plotly_relayouting", "plotly_relayout"]) {
      panel.div.on(kind, () => { if (leader === panel) watch(panel); });
    }
  }
  document.body.dataset.ready = "yes";
});
</script>
</body>
</html>
"""


def main(argv=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surf_file", "-f", nargs="+", required=True, metavar="S.h5", help="2-D surface files")
    parser.add_argument("--surf_name", default="", help="what the page shows first (default: train_loss, or what the "
                                                        "first file has)")
    parser.add_argument("--proj_file", nargs="+", default=[], metavar="P.h5",
                        help="projected trajectories, one per surface, in order; 'none' for a surface without one")
    parser.add_argument("--labels", nargs="+", default=[], help="titles of the surfaces (default: the file names)")
    parser.add_argument("--output", metavar="F.html", help="the page (default: the first surface file + .html)")
    args = parser.parse_args(argv)

    n = len(args.surf_file)
    for flag, given in (("--proj_file", args.proj_file), ("--labels", args.labels)):
        if given and len(given) != n:
            raise InputError(f"expected as many {flag} as surfaces ({n}), got {len(given)}")
    labels = args.labels or [os.path.basename(path) for path in args.surf_file]
    projections = [None if path == "none" else read_projection(path)[0] for path in args.proj_file] or [None] * n
    surfaces = [read_surface(path) for path in args.surf_file]
    panels = [panel(*found) for found in zip(surfaces, labels, args.surf_file, projections, strict=True)]
    count = sum(len(found["x"]) * len(found["y"]) * len(found["values"]) for found in panels)
    if count > MAX_VALUES:
        raise InputError(f"expected at most {MAX_VALUES} values in one page, got {count}; give fewer surfaces")
    output = args.output or args.surf_file[0] + ".html"
    write_file(output, page(panels, args.surf_name or surfaces[0].main_name).encode("utf-8", "replace"))
    print(output)


if __name__ == "__main__":
    run(main)
