// The table of all rows: asks the store, and draws only the rows that are in sight.
"use strict";

const MOST_HIGH = 8_000_000; // pixels: browsers end somewhere beyond; with more rows, scrolling moves proportionally
const MORE = 8; // rows drawn beyond what is in sight
const PAUSE_MS = 60; // after the last key, before it is searched

const id = (name) => document.getElementById(name);
const LINE_END = /[\r\n]/g;
const text = (name) => id(name).textContent;
const number = new Intl.NumberFormat("en");

// What strangers wrote, made visible: controls and marks that hide or reorder text become their code.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;
const shown = (value) => String(value).replace(UNSEEN, (char) => `\\u{${char.codePointAt(0).toString(16)}}`);

function made(tag, { cls, role, say, ...attributes } = {}, ...inside) {
  const element = document.createElement(tag);
  if (cls) element.className = cls;
  if (role) element.setAttribute("role", role);
  if (say !== undefined) element.textContent = shown(say);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}

class Store {
  constructor(source) {
    this.waiting = new Map();
    this.worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    this.worker.onmessage = ({ data }) => {
      const { done, failed } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) failed(new Error(data.error));
      else done(data);
    };
  }

  ask(ask, rest = {}) {
    const number = (this.last = (this.last ?? 0) + 1);
    this.worker.postMessage({ id: number, ask, ...rest });
    return new Promise((done, failed) => this.waiting.set(number, { done, failed }));
  }
}

class Table {
  constructor(layout) {
    this.layout = layout;
    this.columns = layout.fields.filter((field) => field.title);
    this.names = this.columns.map((field) => field.name);
    this.sort = "address";
    this.down = false;
    this.count = 0;
    this.top = 0; // the first row in sight, in rows
    this.active = 0;
    this.asked = 0;
    this.details = new Details(layout);
  }

  async begin() {
    id("finder").hidden = false;
    this.drawHead();
    this.listen();
    const parts = {};
    for (const script of document.querySelectorAll("script[data-part]")) {
      parts[script.dataset.part] = script.textContent;
      script.remove();
    }
    this.store = new Store(text("store"));
    await this.store.ask("load", { layout: this.layout, parts });
    await this.find();
  }

  drawHead() {
    for (const { name, title } of this.columns) {
      const button = made("button", { type: "button", say: title });
      button.onclick = () => {
        this.down = this.sort === name && !this.down;
        this.sort = name;
        this.find();
      };
      id("head").append(made("div", { role: "columnheader", cls: `c-${name}`, "data-name": name }, button));
    }
    id("grid").setAttribute("aria-colcount", this.columns.length);
  }

  listen() {
    const scroll = id("scroll");
    let pause = 0;
    id("search").oninput = () => {
      clearTimeout(pause);
      pause = setTimeout(() => this.find(), PAUSE_MS);
    };
    id("search-form").onsubmit = (event) => {
      event.preventDefault();
      this.find();
    };
    scroll.onscroll = () => {
      if (!this.moving) this.top = this.rowAt(scroll.scrollTop);
      this.moving = false;
      this.draw();
    };
    scroll.addEventListener(
      "wheel",
      (event) => {
        if (this.high() <= MOST_HIGH || event.ctrlKey || event.deltaMode) return; // the browser scrolls well enough
        event.preventDefault();
        this.move(this.top + event.deltaY / this.height);
      },
      { passive: false },
    );
    scroll.onkeydown = (event) => this.key(event);
    scroll.onfocus = () => this.mark();
    id("window").onclick = (event) => {
      const row = event.target.closest("[role=row]");
      if (row && !String(getSelection())) this.open(Number(row.dataset.at));
    };
    new ResizeObserver(() => this.measure()).observe(scroll);
  }

  measure() {
    this.height = parseFloat(getComputedStyle(id("grid")).getPropertyValue("--row"));
    id("head").style.marginRight = `${id("scroll").offsetWidth - id("scroll").clientWidth}px`; // of the scroll bar
    this.sight = Math.max(1, Math.floor(id("scroll").clientHeight / this.height));
    id("tall").style.height = `${Math.min(this.high(), MOST_HIGH)}px`;
    return this.move(this.top);
  }

  high() {
    return this.count * this.height;
  }

  // Between pixels of the scroll bar and rows; beyond MOST_HIGH one pixel is several rows.
  scale() {
    const pixels = Math.min(this.high(), MOST_HIGH) - id("scroll").clientHeight;
    return Math.max(0, this.count - id("scroll").clientHeight / this.height) / Math.max(1, pixels);
  }

  rowAt(pixel) {
    return pixel * this.scale();
  }

  move(top) {
    this.top = Math.max(0, Math.min(top, this.count - id("scroll").clientHeight / this.height));
    const pixel = Math.round(this.top / (this.scale() || 1));
    const scroll = id("scroll");
    if (scroll.scrollTop !== pixel) {
      scroll.scrollTop = pixel;
      this.moving = scroll.scrollTop === pixel;
    }
    return this.draw();
  }

  async find() {
    const asked = ++this.asked;
    const { count, ms } = await this.store.ask("find", { text: id("search").value, sort: this.sort, down: this.down });
    if (asked !== this.asked) return; // somebody has typed on
    this.count = count;
    this.active = 0;
    this.top = 0;
    const { rows, all } = this.layout;
    const beyond = all > rows ? `; ${number.format(all - rows)} more are not in the page` : "";
    id("told").textContent = `${number.format(count)} of ${number.format(rows)} rows${beyond}`;
    id("told").title = `${ms.toFixed(1)} ms`;
    id("grid").setAttribute("aria-rowcount", count + 1);
    for (const head of id("head").children) {
      const here = head.dataset.name === this.sort;
      if (here) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    await this.measure();
    id("grid").dataset.found = asked;
  }

  async draw() {
    const from = Math.max(0, Math.floor(this.top) - MORE);
    const to = Math.min(this.count, Math.ceil(this.top) + this.sight + MORE);
    const drawing = (this.drawing = `${this.asked} ${from} ${to}`);
    if (this.drawn !== drawing) {
      const { rows } = await this.store.ask("list", { from, to, names: [...this.names, "age"] });
      if (drawing !== this.drawing) return; // scrolled on
      this.drawn = drawing;
      id("window").replaceChildren(...rows.map((values, at) => this.row(from + at, values)));
    }
    id("window").style.transform = `translateY(${id("scroll").scrollTop - (this.top - from) * this.height}px)`;
    this.mark();
  }

  row(at, values) {
    const cells = this.names.map((name, column) => {
      const cls = `c-${name}${name === "version" && values.at(-1) ? " old" : ""}`;
      return made("div", { role: "gridcell", cls, say: values[column], title: shown(values[column]) });
    });
    return made("div", { role: "row", id: `row-${at}`, "aria-rowindex": at + 2, "data-at": at }, ...cells);
  }

  mark() {
    for (const row of id("window").children) row.classList.toggle("active", Number(row.dataset.at) === this.active);
    if (id(`row-${this.active}`)) id("scroll").setAttribute("aria-activedescendant", `row-${this.active}`);
  }

  key(event) {
    const page = Math.max(1, this.sight - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" || event.key === " ") this.open(this.active);
    else if (event.key in steps) this.activate(this.active + steps[event.key]);
    else return;
    event.preventDefault();
  }

  activate(at) {
    this.active = Math.max(0, Math.min(at, this.count - 1));
    if (this.active < this.top) this.move(this.active);
    else if (this.active + 1 > this.top + this.sight) this.move(this.active + 1 - this.sight);
    else this.mark();
  }

  async open(at) {
    this.active = at;
    this.mark();
    const { known, leftOut } = await this.store.ask("one", { at });
    if (known) this.details.show(known, leftOut);
  }
}
