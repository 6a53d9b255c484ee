/* The interactive page of loss surfaces. page.py puts this script into page.html, below the data and Plotly.

   data     what the file holds: panels, one per surface
   state    what the controls say
   view     what follows from both: the shown values, their range, the floor
   traces   and a layout for each panel, which Plotly draws

   Values on a grid are flat arrays of ny * nx numbers, row by row; heights are rows of numbers or null (a gap). */

"use strict";

const VIRIDIS = [
  "#440154", "#482878", "#3e4989", "#31688e", "#26828e",
  "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
];
const COLOUR_SCALE = VIRIDIS.map((colour, index) => [index / (VIRIDIS.length - 1), colour]);
const PATH_COLOUR = "#d7191c";
const LEVEL_COUNT = 14;
const SHORTEST_SIDE = 0.1; // of the plane, relative to the longer one
const MAX_IDS = 2 ** 26; // of points of a panel; the key of an edge, from two of them, is still an exact number

const SPLIT_NAME = /^(train|test)_(.+)$/s;
const STATISTIC_NAME = /^(.+)_(low|high|iqr|se)$/s;
const ACCURACY_NAME = /^(train|test)_acc$/;
const PERCENT_NAME = /^(train|test)_(acc|err)(_low|_high|_iqr|_se)?$/;

function element(id) {
  return document.getElementById(id);
}


// ---------------------------------------------------------------- data

const data = JSON.parse(element("data").textContent);
const quantityWords = new Map(Object.entries(data.quantityWords));
const statisticWords = new Map(Object.entries(data.statisticWords));

/* Numbers from their text: base64 of little-endian float32. */
function unpackFloats(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < bytes.length; index++) {
    bytes[index] = binary.charCodeAt(index);
  }
  return new Float32Array(bytes.buffer);
}

/* Map from name to values (ny * nx); errors, 100 - accuracy, are made of accuracies. */
function unpackValues(packedValues) {
  const values = new Map();
  for (const [name, {low, scale, floats}] of Object.entries(packedValues)) {
    values.set(name, Float64Array.from(unpackFloats(floats), share => low + scale * share));
  }
  for (const name of [...values.keys()]) {
    const errorName = name.replace("_acc", "_err");
    if (ACCURACY_NAME.test(name) && !values.has(errorName)) {
      values.set(errorName, values.get(name).map(accuracy => 100 - accuracy));
    }
  }
  return values;
}

for (const panel of data.panels) {
  panel.values = unpackValues(panel.values);
  if (panel.walk) {
    panel.walk.x = unpackFloats(panel.walk.x);
    panel.walk.y = unpackFloats(panel.walk.y);
  }
}

/* Number of checkpoints of the optimizer's path. */
function stepCount(panel) {
  return panel.walk ? panel.walk.x.length : 0;
}

const longestWalk = Math.max(...data.panels.map(stepCount));


// ---------------------------------------------------------------- names, in words

/* train_loss and test_loss are the quantity "loss" of two data sets; other names stand alone. */
function parseName(name) {
  const match = SPLIT_NAME.exec(name);
  if (match) {
    return {split: match[1], quantity: match[2]};
  }
  return {split: "", quantity: name};
}

/* loss_iqr is a statistic of repeats, of the quantity loss. */
function parseStatistic(quantity) {
  const match = STATISTIC_NAME.exec(quantity);
  if (match) {
    return {base: match[1], statistic: match[2]};
  }
  return {base: quantity, statistic: ""};
}

/* A name from a file may hold line ends and control characters. */
function oneLine(text) {
  return text.replace(/[\p{Cc}\s]+/gu, " ").trim();
}

/* Plotly reads a few HTML tags in its texts: a name from a file must not become one. */
function withoutTags(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function quantityTitle(quantity) {
  const {base, statistic} = parseStatistic(quantity);
  const title = quantityWords.get(base) ?? oneLine(base.replaceAll("_", " "));
  return statistic ? `${title}, ${statisticWords.get(statistic)}` : title;
}

const quantities = new Map(); // quantity -> Map(split -> name)
for (const panel of data.panels) {
  for (const name of panel.values.keys()) {
    const {split, quantity} = parseName(name);
    if (!quantities.has(quantity)) {
      quantities.set(quantity, new Map());
    }
    quantities.get(quantity).set(split, name);
  }
}

/* Loss, accuracy, error, other values; then the same of their statistics. */
function quantityRank(quantity) {
  const order = ["loss", "acc", "err"];
  const {base, statistic} = parseStatistic(quantity);
  let rank = order.includes(base) ? order.indexOf(base) : order.length;
  if (statistic) {
    rank += order.length + 1;
  }
  return rank;
}

function sortedQuantities() {
  return [...quantities.keys()].sort((a, b) => quantityRank(a) - quantityRank(b) || (a < b ? -1 : 1));
}

/* The data sets that the shown quantity has: train, then test. */
function splitsOf(quantity) {
  return [...quantities.get(quantity).keys()].sort().reverse();
}

/* At most five digits, with an exponent where the number is very large or small. */
function numberText(value) {
  const size = Math.abs(value);
  if (value !== 0 && (size >= 1e5 || size < 1e-3)) {
    return value.toExponential(2);
  }
  return String(Number(value.toPrecision(4)));
}


// ---------------------------------------------------------------- state and view

const state = {
  ...parseName(data.name), // quantity and split
  log: false,
  clip: 1, // share of the range that is shown
  floor: true,
  step: longestWalk - 1, // the last checkpoint of the paths that is shown
};

function currentSplit() {
  const splits = splitsOf(state.quantity);
  return splits.includes(state.split) ? state.split : splits[0];
}

function currentName() {
  return quantities.get(state.quantity).get(currentSplit());
}

function currentTitle() {
  const {split, quantity} = parseName(currentName());
  return split ? `${split} ${quantityTitle(quantity)}` : quantityTitle(quantity);
}

function currentUnit() {
  return PERCENT_NAME.test(currentName()) ? " %" : "";
}

/* A value on the shown scale; NaN where it has no logarithm. */
function scaled(value) {
  if (!state.log) {
    return value;
  }
  return value > 0 ? Math.log10(value) : NaN;
}

/* Lowest and highest shown value over all panels, on the shown scale: one colour scale for all. */
function limits(name) {
  let low = Infinity;
  let high = -Infinity;
  for (const panel of data.panels) {
    for (const value of panel.values.get(name) ?? []) {
      const height = scaled(value);
      if (Number.isFinite(height)) {
        low = Math.min(low, height);
        high = Math.max(high, height);
      }
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

/* What is drawn: name of the values; low, top and span of the heights; the floor, and the ground just above it. */
function currentView() {
  const name = currentName();
  const [low, high] = limits(name);
  const top = low + state.clip * (high - low);
  const span = top - low || Math.abs(low) || 1;
  const floor = low - (state.floor ? 0.35 : 0.03) * span;
  return {name, low, top, span, floor, ground: floor + 0.006 * span, clipped: state.clip < 1};
}

/* A log scale to begin with where the values span more than a factor of 50, as losses of bad points do. */
function chooseScale() {
  state.log = false;
  const name = currentName();
  const [low, high] = limits(name);
  state.log = low > 0 && high / low > 50 && /loss/.test(name);
}


// ---------------------------------------------------------------- geometry

/* Rows of f(row, column) over the grid of a panel. */
function overGrid(panel, f) {
  return panel.y.map((_, row) => panel.x.map((_, column) => f(row, column)));
}

/* Rows of heights as drawn: clipped, scaled, null where there is no finite value. */
function drawnHeights(panel, view) {
  const values = panel.values.get(view.name);
  if (!values) {
    return overGrid(panel, () => null);
  }
  return overGrid(panel, (row, column) => {
    let height = scaled(values[row * panel.x.length + column]);
    if (view.clipped && height > view.top) {
      height = view.top;
    }
    return Number.isFinite(height) ? height : null;
  });
}

function isWithin(axis, coordinate) {
  return coordinate >= axis[0] && coordinate <= axis[axis.length - 1];
}

/* The cell of an axis that holds the coordinate, and where in it, from 0 to 1. */
function cellOf(axis, coordinate) {
  let cell = axis.findIndex(other => other > coordinate) - 1;
  if (cell < 0) {
    cell = axis.length - 2; // the end of the axis belongs to the last cell
  }
  return [cell, (coordinate - axis[cell]) / (axis[cell + 1] - axis[cell])];
}

/* Height (bilinear) of the drawn surface at (x, y); NaN outside and in gaps. */
function heightAt(panel, heights, x, y) {
  if (!isWithin(panel.x, x) || !isWithin(panel.y, y)) {
    return NaN;
  }
  const [column, u] = cellOf(panel.x, x);
  const [row, v] = cellOf(panel.y, y);
  const corners = [
    [row, column, (1 - u) * (1 - v)],
    [row, column + 1, u * (1 - v)],
    [row + 1, column, (1 - u) * v],
    [row + 1, column + 1, u * v],
  ];
  let height = 0;
  for (const [cornerRow, cornerColumn, weight] of corners) {
    if (weight > 0) {
      height += weight * (heights[cornerRow][cornerColumn] ?? NaN);
    }
  }
  return height;
}


// ---------------------------------------------------------------- level lines

/* Levels are half a step off the lowest value, where flat ground would be nothing but line. */
function levelHeight(view, number) {
  return view.low + (number + 0.5) * (view.span / LEVEL_COUNT);
}

/* The four triangles of a cell, which meet in the mean of its corners; none where a corner is a gap. */
function cellTriangles(panel, heights, row, column) {
  const nx = panel.x.length;
  const corner = (j, i) => ({id: j * nx + i, x: panel.x[i], y: panel.y[j], z: heights[j][i]});
  const ring = [
    corner(row, column),
    corner(row, column + 1),
    corner(row + 1, column + 1),
    corner(row + 1, column),
  ];
  if (ring.some(point => point.z === null)) {
    return [];
  }

  const mean = axis => ring.reduce((sum, point) => sum + point[axis], 0) / 4;
  const middle = {id: (panel.y.length + row) * nx + column, x: mean("x"), y: mean("y"), z: mean("z")};
  return ring.map((point, side) => [point, ring[(side + 1) % 4], middle]);
}

/* Key of the point in which a level crosses the edge from a to b.

   A network maps keys to such points, and each point lists the keys of its neighbours along the line. Neighbouring
   triangles share the edge, and so the point. */
function crossing(network, level, a, b) {
  const key = Math.min(a.id, b.id) * MAX_IDS + Math.max(a.id, b.id);
  if (!network.has(key)) {
    const share = (level - a.z) / (b.z - a.z);
    network.set(key, {x: a.x + share * (b.x - a.x), y: a.y + share * (b.y - a.y), neighbours: []});
  }
  return key;
}

/* Add the lines in which the levels cut a triangle. */
function addCrossings(networks, triangle, view) {
  const [lowest, between, highest] = triangle.sort((a, b) => a.z - b.z);
  const stepsUp = (lowest.z - view.low) / (view.span / LEVEL_COUNT);
  for (let number = Math.max(0, Math.floor(stepsUp - 0.5)); number < LEVEL_COUNT; number++) {
    const level = levelHeight(view, number);
    if (level >= highest.z) {
      break;
    }
    if (level < lowest.z) {
      continue;
    }

    // a level enters through the longest edge, and leaves through one of the two others
    const network = networks[number];
    const entry = crossing(network, level, lowest, highest);
    let exit;
    if (level < between.z) {
      exit = crossing(network, level, lowest, between);
    } else {
      exit = crossing(network, level, between, highest);
    }
    network.get(entry).neighbours.push(exit);
    network.get(exit).neighbours.push(entry);
  }
}

/* Append the lines of a network to `lines`, each followed by null; the network is empty afterwards. */
function appendLines(lines, network, level) {
  const append = (x, y, lineLevel) => {
    lines.x.push(x);
    lines.y.push(y);
    lines.level.push(lineLevel);
  };

  // open lines from their ends first, then rings
  const starts = [...network.keys()];
  starts.sort((a, b) => network.get(a).neighbours.length - network.get(b).neighbours.length);
  for (const start of starts) {
    if (!network.has(start)) {
      continue;
    }
    const first = network.get(start);
    let last = null;
    let key = start;
    while (key !== undefined) {
      last = network.get(key);
      network.delete(key);
      append(last.x, last.y, level);
      key = last.neighbours.find(other => network.has(other));
    }
    if (last !== first && last.neighbours.includes(start)) {
      append(first.x, first.y, level);
    }
    append(null, null, null);
  }
}

/* Places [row, column] of the heights that no cell with four heights holds. */
function lonelyPoints(heights) {
  const has = (row, column) => (heights[row]?.[column] ?? null) !== null;
  const isWhole = (row, column) =>
    has(row, column) && has(row, column + 1) && has(row + 1, column) && has(row + 1, column + 1);
  const isInCell = (row, column) =>
    isWhole(row, column) || isWhole(row, column - 1) || isWhole(row - 1, column) || isWhole(row - 1, column - 1);

  const places = [];
  for (let row = 0; row < heights.length; row++) {
    for (let column = 0; column < heights[row].length; column++) {
      if (has(row, column) && !isInCell(row, column)) {
        places.push([row, column]);
      }
    }
  }
  return places;
}

/* Level lines of the drawn surface: {x, y, level} with null between lines.

   Plotly can project contours itself, but with gaps it takes seconds per frame where WebGL runs in software. */
function levelLines(panel, heights, view) {
  const networks = Array.from({length: LEVEL_COUNT}, () => new Map());
  for (let row = 0; row + 1 < panel.y.length; row++) {
    for (let column = 0; column + 1 < panel.x.length; column++) {
      for (const triangle of cellTriangles(panel, heights, row, column)) {
        addCrossings(networks, triangle, view);
      }
    }
  }

  const lines = {x: [], y: [], level: []};
  networks.forEach((network, number) => appendLines(lines, network, levelHeight(view, number)));
  return lines;
}


// ---------------------------------------------------------------- traces

/* Rows of what is shown when the pointer is over a point. */
function hoverTexts(panel, view) {
  const values = panel.values.get(view.name);
  if (!values) {
    return overGrid(panel, () => "");
  }
  const title = withoutTags(currentTitle());
  const unit = currentUnit();
  const errors = panel.values.get(`${view.name.replace(/_err$/, "_acc")}_se`); // of an estimated surface
  return overGrid(panel, (row, column) => {
    const point = row * panel.x.length + column;
    const place = `x ${numberText(panel.x[column])}, y ${numberText(panel.y[row])}`;
    const error = errors && errors[point] > 0 ? ` \u00b1 ${numberText(errors[point])}` : "";
    return `${place}<br>${title} <b>${numberText(values[point])}${error}${unit}</b>`;
  });
}

function colouring(view) {
  return {colorscale: COLOUR_SCALE, cmin: view.low, cmax: view.low + view.span};
}

function surfaceTrace(panel, heights, view) {
  const hasGaps = heights.flat().includes(null);
  const levels = {
    show: state.floor && !hasGaps,
    usecolormap: true,
    highlight: false,
    start: levelHeight(view, 0),
    end: view.top,
    size: view.span / LEVEL_COUNT,
  };
  return {
    type: "surface",
    x: panel.x,
    y: panel.y,
    z: heights,
    text: hoverTexts(panel, view),
    hovertemplate: "%{text}<extra></extra>",
    ...colouring(view),
    showscale: false,
    contours: {x: {highlight: false}, y: {highlight: false}, z: levels},
    lighting: {ambient: 0.65, diffuse: 0.7, specular: 0.12, roughness: 0.6, fresnel: 0.05},
    lightposition: {x: -1000, y: -1500, z: 4000},
  };
}

/* An invisible point: it keeps the axes of a panel that has nothing to draw. */
function emptyTrace(panel, view) {
  return {
    type: "scatter3d",
    mode: "markers",
    x: [panel.x[0]],
    y: [panel.y[0]],
    z: [view.floor],
    marker: {size: 1, opacity: 0},
    hoverinfo: "skip",
    showlegend: false,
  };
}

/* Points without neighbours, which a surface would leave out. */
function lonelyTrace(panel, heights, view, places) {
  const texts = hoverTexts(panel, view);
  const z = places.map(([row, column]) => heights[row][column]);
  return {
    type: "scatter3d",
    mode: "markers",
    x: places.map(([, column]) => panel.x[column]),
    y: places.map(([row]) => panel.y[row]),
    z,
    marker: {size: 4, color: z, ...colouring(view)},
    text: places.map(([row, column]) => texts[row][column]),
    hovertemplate: "%{text}<extra></extra>",
    showlegend: false,
  };
}

function floorTrace(panel, heights, view) {
  const {x, y, level} = levelLines(panel, heights, view);
  return {
    type: "scatter3d",
    mode: "lines",
    meta: "floor",
    x,
    y,
    z: level.map(height => height === null ? null : view.ground),
    line: {width: 2.8, color: level, ...colouring(view)},
    hoverinfo: "skip",
    showlegend: false,
  };
}

function checkpointText(panel, step) {
  if (panel.walk.epochs) {
    return `${panel.walk.unit} ${panel.walk.epochs[step]}`;
  }
  return `checkpoint ${step + 1} of ${stepCount(panel)}`;
}

function isOnPlot(panel, step) {
  return isWithin(panel.x, panel.walk.x[step]) && isWithin(panel.y, panel.walk.y[step]);
}

/* The optimizer's path just above the surface, and its shadow on the floor. */
function pathTraces(panel, heights, view) {
  const x = Array.from(panel.walk.x.slice(0, state.step + 1));
  const y = Array.from(panel.walk.y.slice(0, state.step + 1));
  const onSurface = x.map((_, step) => {
    const height = heightAt(panel, heights, x[step], y[step]);
    return Number.isFinite(height) ? height + 0.015 * view.span : null;
  });
  const onFloor = x.map((_, step) => isOnPlot(panel, step) ? view.ground : null);

  const path = {
    type: "scatter3d",
    mode: "lines+markers",
    x,
    y,
    z: onSurface,
    line: {color: PATH_COLOUR, width: 5},
    marker: {color: PATH_COLOUR, size: 3},
    text: x.map((_, step) => checkpointText(panel, step)),
    hovertemplate: "%{text}<br>x %{x:.4g}, y %{y:.4g}<extra></extra>",
    showlegend: false,
  };
  if (!state.floor) {
    return [path];
  }
  const shadow = {
    type: "scatter3d",
    mode: "lines+markers",
    x,
    y,
    z: onFloor,
    line: {color: PATH_COLOUR, width: 3},
    marker: {color: PATH_COLOUR, size: 2},
    hoverinfo: "skip",
    showlegend: false,
  };
  return [path, shadow];
}

function panelTraces(panel, view) {
  const heights = drawnHeights(panel, view);
  if (heights.flat().every(height => height === null)) {
    return [emptyTrace(panel, view)]; // Plotly fails on a surface without a height
  }
  const traces = [surfaceTrace(panel, heights, view)];
  const places = lonelyPoints(heights);
  if (places.length) {
    traces.push(lonelyTrace(panel, heights, view, places));
  }
  if (state.floor) {
    traces.push(floorTrace(panel, heights, view));
  }
  if (panel.walk) {
    traces.push(...pathTraces(panel, heights, view));
  }
  return traces;
}


// ---------------------------------------------------------------- layout

/* On a log scale: ticks at powers of ten, and at 2 and 5 times these where the range is short. */
function heightTicks(view) {
  if (!state.log) {
    return {};
  }
  const first = Math.floor(view.low);
  const last = Math.ceil(view.top);
  const stride = Math.max(1, Math.ceil((last - first) / 8));
  const multiples = view.top - view.low < 2.5 ? [1, 2, 5] : [1];

  const heights = [];
  for (let power = first; power <= last; power += stride) {
    for (const multiple of multiples) {
      const height = power + Math.log10(multiple);
      if (height >= view.low - 1e-9 && height <= view.top + 1e-9) {
        heights.push(height);
      }
    }
  }
  return {tickmode: "array", tickvals: heights, ticktext: heights.map(height => numberText(10 ** height))};
}

function panelLayout(panel, view) {
  const length = axis => axis[axis.length - 1] - axis[0];
  const range = axis => [axis[0], axis[axis.length - 1]];
  const longerSide = Math.max(length(panel.x), length(panel.y));
  const side = axis => 1.25 * Math.max(length(axis) / longerSide, SHORTEST_SIDE);

  // step back in a narrow panel
  const {clientWidth, clientHeight} = panel.plot;
  const distance = 1.1 * Math.max(1, 1.25 * clientHeight / clientWidth);
  const firstCamera = {
    eye: {x: -1.05 * distance, y: -1.55 * distance, z: 0.95 * distance},
    center: {x: 0, y: 0, z: -0.2},
  };

  const axis = {
    showspikes: false,
    backgroundcolor: "#f5f7f9",
    showbackground: true,
    gridcolor: "#dde2e8",
    zeroline: false,
    tickfont: {size: 11},
  };
  const heightTitle = clientWidth < 480 ? "" : withoutTags(currentTitle()); // no room for it on a phone
  return {
    margin: {l: 0, r: 0, t: 0, b: 0},
    showlegend: false,
    paper_bgcolor: "#fff",
    hoverlabel: {bgcolor: "#fff", bordercolor: "#31688e", font: {color: "#1a1d21", size: 13}},
    scene: {
      aspectmode: "manual",
      aspectratio: {
        x: side(panel.x),
        y: side(panel.y),
        z: state.floor ? 0.85 : 0.7,
      },
      xaxis: {...axis, title: {text: "x"}, range: range(panel.x)},
      yaxis: {...axis, title: {text: "y"}, range: range(panel.y)},
      zaxis: {
        ...axis,
        ...heightTicks(view),
        title: {text: heightTitle},
        range: [view.floor, view.low + 1.03 * view.span],
      },
      camera: panel.camera ?? firstCamera,
    },
  };
}


// ---------------------------------------------------------------- panels

/* One line of facts under each title. */
function factsText(panel, view) {
  const values = panel.values.get(view.name);
  if (!values) {
    return `${currentTitle()} is not in this file`;
  }
  const finite = Array.from(values.keys()).filter(index => Number.isFinite(values[index]));
  if (!finite.length) {
    return "no finite value";
  }

  const nx = panel.x.length;
  const valueText = index => {
    const place = `(${numberText(panel.x[index % nx])}, ${numberText(panel.y[Math.floor(index / nx)])})`;
    return `${numberText(values[index])}${currentUnit()} at ${place}`;
  };
  const lowest = finite.reduce((best, index) => values[index] < values[best] ? index : best);
  const highest = finite.reduce((best, index) => values[index] > values[best] ? index : best);
  const facts = [`lowest ${valueText(lowest)}`, `highest ${valueText(highest)}`];

  // what the picture does not show
  const gapCount = values.length - finite.length;
  if (gapCount) {
    facts.push(`${gapCount} of ${values.length} points without a finite value`);
  }
  const hidden = finite.filter(index => state.log && values[index] <= 0).length;
  if (hidden) {
    facts.push(`${hidden} values \u2264 0 have no logarithm`);
  }
  if (panel.walk) {
    const outside = [...panel.walk.x.keys()].filter(step => !isOnPlot(panel, step)).length;
    if (outside) {
      facts.push(`${outside} of ${stepCount(panel)} checkpoints lie outside of the plot`);
    }
  }
  return facts.join("; ");
}

/* Heading, facts, plot and file name of a panel. A heading that only repeats the headline is left out. */
function buildPanel(panel) {
  const heading = document.createElement("h2");
  heading.textContent = panel.label;
  heading.hidden = panel.label === document.querySelector("h1").textContent;

  const file = document.createElement("p");
  file.className = "file";
  file.textContent = panel.file;
  file.title = panel.path;
  file.hidden = panel.file === "" || panel.file === panel.label;

  panel.facts = document.createElement("p");
  panel.facts.className = "facts";
  panel.plot = document.createElement("div");
  panel.plot.className = "plot";

  const box = document.createElement("div");
  box.className = "panel";
  box.append(heading, panel.facts, panel.plot, file);
  element("panels").append(box);
}


// ---------------------------------------------------------------- controls

/* Fill a group with one button per [value, text]; a single choice needs no buttons. */
function fillButtons(id, choices, chosen, choose) {
  const buttons = choices.map(([value, text]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.dataset.value = value;
    button.setAttribute("aria-pressed", String(value === chosen));
    button.onclick = () => {
      choose(value);
      draw();
    };
    return button;
  });
  element(id).replaceChildren(...buttons);
  element(id).hidden = choices.length < 2;
}

function updateControls(view) {
  const quantityChoices = sortedQuantities().map(quantity => [quantity, quantityTitle(quantity)]);
  fillButtons("quantity", quantityChoices, state.quantity, quantity => {
    state.quantity = quantity;
    chooseScale();
  });

  const splitChoices = splitsOf(state.quantity).map(split => [split, split || "other"]);
  fillButtons("split", splitChoices, currentSplit(), split => {
    state.split = split;
  });

  fillButtons("scaling", [["linear", "linear"], ["log", "log"]], state.log ? "log" : "linear", scale => {
    state.log = scale === "log";
  });

  const valueText = height => numberText(state.log ? 10 ** height : height) + currentUnit();
  element("clipped").textContent = view.clipped ? `at ${valueText(view.top)}` : "off";
  element("low").textContent = `${currentTitle()} ${valueText(view.low)}`;
  element("high").textContent = valueText(view.top) + (view.clipped ? " and above" : "");

  element("walk").hidden = !longestWalk;
  if (longestWalk) {
    const walker = data.panels.find(panel => stepCount(panel) === longestWalk);
    element("reached").textContent = checkpointText(walker, state.step);
  }
}

function connectControls() {
  element("bar").style.background = `linear-gradient(to right, ${VIRIDIS.join(", ")})`;
  element("clip").oninput = event => {
    state.clip = event.target.value / 1000;
    drawSoon();
  };
  element("floor").onchange = event => {
    state.floor = event.target.checked;
    draw();
  };
  element("epoch").max = Math.max(0, longestWalk - 1);
  element("epoch").value = state.step;
  element("epoch").oninput = event => {
    state.step = Number(event.target.value);
    drawSoon();
  };
}


// ---------------------------------------------------------------- drawing

/* The buttons by name: Plotly's own choice has one that would send the data to a server. */
const PLOTLY_CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [["toImage", "zoom3d", "pan3d", "tableRotation", "resetCameraDefault3d"]],
};

let drawn = Promise.resolve(); // fulfilled when what was asked for is drawn

function draw() {
  const view = currentView();
  updateControls(view);
  for (const panel of data.panels) {
    panel.facts.textContent = factsText(panel, view);
  }

  const drawPanel = panel =>
    Plotly.react(panel.plot, panelTraces(panel, view), panelLayout(panel, view), PLOTLY_CONFIG);
  // one drawing after the other: Plotly must not be called again before it is done
  drawn = drawn.then(() => Promise.all(data.panels.map(drawPanel)));
  return drawn;
}

let nextFrame = 0;

/* Draw at the next frame, once, however often a slider reports. */
function drawSoon() {
  cancelAnimationFrame(nextFrame);
  nextFrame = requestAnimationFrame(draw);
}


// ---------------------------------------------------------------- cameras move together

/* The panel that is being turned leads. It is watched, frame by frame, until it has rested for a while, because it
   glides on after Plotly's last event. */
const REST_FRAMES = 60;
let leader = null;
let leaderCamera = ""; // as JSON, when it was last seen
let restedFrames = REST_FRAMES;

function cameraOf(panel) {
  const scene = panel.plot._fullLayout.scene._scene;
  return scene?.getCamera?.() ?? panel.plot.layout.scene.camera;
}

function follow(panel) {
  leader = panel;
  if (restedFrames >= REST_FRAMES) {
    requestAnimationFrame(passCameraOn);
  }
  restedFrames = 0;
}

function passCameraOn() {
  const camera = JSON.stringify(cameraOf(leader));
  if (camera === leaderCamera) {
    restedFrames++;
  } else {
    restedFrames = 0;
    leaderCamera = camera;
    for (const panel of data.panels) {
      panel.camera = JSON.parse(camera);
      if (panel !== leader) {
        Plotly.relayout(panel.plot, {"scene.camera": JSON.parse(camera)});
      }
    }
  }
  if (restedFrames < REST_FRAMES) {
    requestAnimationFrame(passCameraOn);
  }
}

function connectCamera(panel) {
  for (const kind of ["pointerdown", "mousedown", "wheel", "touchstart"]) {
    panel.plot.addEventListener(kind, () => follow(panel), {capture: true, passive: true});
  }
  for (const kind of ["plotly_relayouting", "plotly_relayout"]) {
    panel.plot.on(kind, () => {
      if (leader === panel) {
        follow(panel);
      }
    });
  }
}


// ---------------------------------------------------------------- the page opens

data.panels.forEach(buildPanel);
connectControls();
chooseScale();
draw().then(() => {
  data.panels.forEach(connectCamera);
  document.body.dataset.ready = "yes";
});
