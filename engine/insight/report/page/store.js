// The rows of the table, and finding among them: runs in a worker, so that the page never waits for it.
//
// What arrives is what blob.py wrote: for every field its distinct texts ("words") and a number a row into them.
// A search looks for each of its terms in the texts of a field, marks those that have it, and then goes once over the
// numbers; sorting counts how often each number comes. Messages: {id, ask, ...} -> {id, ...} or {id, error}.
"use strict";

const LEFT_OUT = "\0";
const WIDTHS = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: Float64Array };

let rows = 0;
let fields = [];
let byName = new Map();
let orders = new Map(); // by the name of a field: all rows, in its order
let found = new Uint32Array(0); // the rows that are shown, in order

async function unpacked(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function numbersOf(field, parts) {
  if (!field.width) return null; // all rows alike
  const numbers = new WIDTHS[field.width](await unpacked(parts[field.numbers]));
  if (!field.rising) return numbers;
  const sums = new (field.words ? Uint32Array : Float64Array)(numbers.length);
  for (let at = 0, sum = 0; at < numbers.length; at++) sums[at] = sum += numbers[at];
  return sums;
}

async function load({ layout, parts }) {
  rows = layout.rows;
  fields = await Promise.all(
    layout.fields.map(async (field) => {
      const words = field.words && JSON.parse(new TextDecoder().decode(await unpacked(parts[field.words])));
      return { ...field, words, numbers: await numbersOf(field, parts) };
    }),
  );
  byName = new Map(fields.map((field) => [field.name, field]));
  found = allRows();
  return { rows };
}

function allRows() {
  const order = new Uint32Array(rows);
  for (let row = 0; row < rows; row++) order[row] = row;
  return order;
}

const numberAt = (field, row) => (field.width ? field.numbers[row] : 0) + field.least;

function valueAt(field, row) {
  const number = numberAt(field, row);
  return field.words ? field.words[number] : number;
}

// Terms: word, "some words", field:part, field="whole", and a minus in front of any of them for rows without it. A
// quotation mark within quotation marks stands there twice.
const TERM = /(-?)(?:([a-z_]+)(:|=))?(?:"((?:[^"]|"")*)"|(\S+))/gi;

function terms(text) {
  return [...text.matchAll(TERM)].flatMap(([all, minus, name, sign, quoted, plain]) => {
    const known = name && byName.get(name.toLowerCase());
    const value = name && !known ? all.slice(minus.length).replaceAll('"', "") : (quoted?.replaceAll('""', '"') ?? plain);
    const whole = known && sign === "=";
    return value || whole ? [{ without: minus === "-", field: known, whole, value: value.toLowerCase() }] : [];
  });
}

// The texts of a field one below the other, in lower case, and where each begins: looked through in one go.
function searchable(field) {
  if (!field.text) {
    const lower = field.words.map((word) => word.replaceAll(/[\r\n]/g, " ").toLowerCase());
    field.text = lower.join("\n");
    field.starts = new Uint32Array(lower.length + 1);
    for (let at = 0, start = 0; at < lower.length; at++) field.starts[at + 1] = start += lower[at].length + 1;
  }
  return field;
}

// A byte a text: whether it has the term; null where none has.
function marks(field, { value, whole }) {
  const { text, starts, words } = searchable(field);
  const marked = new Uint8Array(words.length);
  let any = false;
  if (field.name === "port" && /^\d+$/.test(value)) {
    value += "/";
    words.forEach((word, at) => word.startsWith(value) && (any = true) && (marked[at] = 1));
  } else if (!value) {
    words.forEach((word, at) => word === "" && (any = true) && (marked[at] = 1));
  } else {
    for (let at = 0, hit = text.indexOf(value); hit >= 0; hit = text.indexOf(value, starts[at])) {
      at = after(starts, hit, at);
      if (!whole || starts[at] - starts[at - 1] - 1 === value.length) any = marked[at - 1] = 1;
    }
  }
  return any ? marked : null;
}

// The first of `starts` behind a place, from `low` on.
function after(starts, place, low) {
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] > place) high = middle;
    else low = middle + 1;
  }
  return low;
}

// A byte a row: whether it has every term; null where there are no terms.
function matching(text) {
  let kept = null;
  for (const term of terms(text)) {
    const here = new Uint8Array(rows);
    const places = term.field ? [term.field] : fields.filter((field) => field.searched);
    for (const field of places.filter((field) => field.words)) {
      const marked = marks(field, term);
      if (!marked) continue;
      const { numbers, width } = field;
      if (!width) here.fill(1);
      else for (let row = 0; row < rows; row++) here[row] |= marked[numbers[row]];
    }
    const wanted = term.without ? 0 : 1;
    if (!kept) kept = new Uint8Array(rows).fill(1);
    for (let row = 0; row < rows; row++) kept[row] &= here[row] === wanted ? 1 : 0;
  }
  return kept;
}

// All rows in the order of a field's texts; those that are alike as they stand in the file.
function ordered(name) {
  const field = byName.get(name);
  if (!field || !field.width) return orders.get("") ?? orders.set("", allRows()).get("");
  if (!orders.has(name)) {
    const places = new Uint32Array(field.words.length + 1);
    for (let row = 0; row < rows; row++) places[field.numbers[row] + 1]++;
    for (let at = 1; at < places.length; at++) places[at] += places[at - 1];
    const order = new Uint32Array(rows);
    for (let row = 0; row < rows; row++) order[places[field.numbers[row]]++] = row;
    orders.set(name, order);
  }
  return orders.get(name);
}

// sort: the name of a field; rows without a text come last, in either direction.
function find({ text, sort, down }) {
  const began = performance.now();
  const kept = matching(text);
  const order = ordered(sort);
  const field = byName.get(sort);
  const filled = field && field.width ? field.words[0] === "" : false;
  const into = new Uint32Array(rows);
  let count = 0;
  const take = (row) => {
    if (!kept || kept[row]) into[count++] = row;
  };
  let empty = 0;
  if (filled) while (empty < rows && field.numbers[order[empty]] === 0) empty++;
  if (down) for (let at = rows - 1; at >= empty; at--) take(order[at]);
  else for (let at = empty; at < rows; at++) take(order[at]);
  for (let at = 0; at < empty; at++) take(order[at]);
  found = into.subarray(0, count);
  return { count, ms: performance.now() - began };
}

function list({ from, to, names }) {
  const shown = names.map((name) => byName.get(name));
  return { rows: Array.from(found.subarray(from, to), (row) => shown.map((field) => valueAt(field, row))) };
}

function one({ at }) {
  const row = found[at];
  const known = Object.fromEntries(fields.map((field) => [field.name, valueAt(field, row)]));
  return { known: row === undefined ? null : known, leftOut: LEFT_OUT };
}

const ANSWERS = { load, find, list, one };

onmessage = async ({ data }) => {
  try {
    postMessage({ id: data.id, ...(await ANSWERS[data.ask](data)) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error) });
  }
};
