"use strict";
// Draws the charts of a page. Their numbers are in the JSON beside them.
(() => {
  const HEIGHT = 250, LEFT = 56, RIGHT = 26, TOP = 10, BOTTOM = 40;
  const UNITS = [["days", 86400, 3], ["hours", 3600, 2], ["minutes", 60, 2], ["seconds", 1, 0]];
  const WORDS = { speech: "of speech", time: "of wall time" };
  const KEY = "brainquant " + location.pathname;
  const all = (selector, place = document) => [...place.querySelectorAll(selector)];
  const json = (element) => JSON.parse(element.textContent);

  // What the reader has chosen stays when the page is read anew.
  const chosen = { axis: "step", hidden: [], theme: "", renew: true, view: null };
  try { Object.assign(chosen, JSON.parse(sessionStorage.getItem(KEY))); } catch { /* no storage */ }
  const keep = () => { try { sessionStorage.setItem(KEY, JSON.stringify(chosen)); } catch { /* no storage */ } };

  const svg = (name, attributes, parent, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent?.append(element);
    return element;
  };
  const digits = (value, most) => value.toLocaleString("en", { maximumSignificantDigits: most });
  const short = (value) => {
    const size = Math.abs(value);
    if (size >= 1e15 || (size < 1e-4 && size > 0)) return value.toExponential(1).replace("e+", "e");
    for (const [limit, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]])
      if (size >= limit) return digits(value / (letter === "k" ? 1e3 : limit), 4) + letter;
    return digits(value, 4);
  };

  const runsElement = document.getElementById("runs");
  const runs = runsElement ? json(runsElement) : [];
  // Where a step of a run is on an axis; NaN where its log does not say it.
  const place = (run, step, axis) => {
    if (axis === "step") return step;
    const [steps, values] = runs[run]?.[axis] ?? [];
    if (!values || step < steps[0] || step > steps.at(-1)) return NaN;
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle; else high = middle;
    }
    const share = high > low ? (step - steps[low]) / (steps[high] - steps[low]) : 0;
    return values[low] + share * (values[high] - values[low]);
  };

  const ticks = (low, high, log, most, whole = false) => {
    if (log) {
      const found = [], decades = Math.log10(high) - Math.log10(low), skip = Math.ceil(decades / most);
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const digit of decades < 1.5 ? [1, 2, 3, 5, 7] : decades < 3 ? [1, 2, 5] : [1]) {
          const tick = digit * 10 ** power;
          if (power % skip === 0 && tick >= low * 0.999 && tick <= high * 1.001 && (!whole || Number.isInteger(tick))) found.push(tick);
        }
      if (found.length > 1) return found;
    }
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 2.5, 5, 10].find((digit) => digit * power >= rough * 0.999) * power;
    if (whole) step = Math.ceil(step); // there is no layer 1.25
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(+(n * step).toPrecision(12));
    return found;
  };
  const scale = (values, log, from, to, padding) => {
    let low = Infinity, high = -Infinity;
    for (const v of values) if (Number.isFinite(v) && (!log || v > 0)) { if (v < low) low = v; if (v > high) high = v; }
    if (low > high) [low, high] = [log ? 0.1 : 0, 1];
    if (log) {
      const factor = high > low ? (high / low) ** padding : 2;
      [low, high] = [low / factor, high * factor];
    } else {
      const more = high > low ? padding * (high - low) : padding && (Math.abs(high) || 1) / 2;
      low -= low >= 0 && low < more ? low : more; // what is positive does not go below 0
      high += more || (high > low ? 0 : 1);
    }
    const at = log ? Math.log : (v) => v;
    const map = (v) => (log && !(v > 0) ? NaN : from + (to - from) * (at(v) - at(low)) / (at(high) - at(low)));
    return { low, high, map };
  };
  const MARKS = [ // circle, square, triangle, diamond: the runs in turn
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "m-3-3h6v6h-6z", "m0-4l4 7h-8z", "m0-4l4 4l-4 4l-4-4z",
  ];

  class Chart {
    constructor(figure, number) {
      Object.assign(this, json(figure.querySelector("script")));
      this.figure = figure;
      this.title = figure.querySelector("figcaption").textContent;
      this.caption = figure.querySelector("caption");
      for (const curve of this.curves) {
        let step = 0;
        if (this.follows) curve.x = curve.x.map((more) => (step += more));
        curve.y = curve.y.map((value) => value ?? NaN);
      }
      this.plot = figure.querySelector(".plot");
      this.slider = document.createElement("input");
      Object.assign(this.slider, { type: "range", className: "read", id: `read-${number}`, min: 0 });
      this.slider.setAttribute("aria-label", `Read the values of ${this.title}`);
      this.plot.after(this.slider);
      this.slider.addEventListener("input", () => this.read());
      this.plot.addEventListener("pointermove", (event) => this.point(event));
      this.plot.addEventListener("pointerleave", () => this.leave());
    }

    // Where the points are on the axis; gives the end of the longest curve.
    place() {
      const axis = this.follows ? chosen.axis : "step";
      this.shown = this.curves.filter((curve) => !this.follows || !chosen.hidden.includes(curve.run));
      for (const curve of this.curves) curve.at = this.follows ? curve.x.map((step) => place(curve.run, step, axis)) : curve.x;
      return this.follows ? Math.max(0, ...this.shown.map((curve) => curve.at.findLast(Number.isFinite) ?? 0)) : 0;
    }

    // The charts that follow the switch have one axis, which ends where the longest run does.
    draw(longest) {
      const width = this.plot.clientWidth || 400;
      let name = this.x;
      if (this.follows && chosen.axis !== "step") {
        const [word, seconds] = UNITS.find(([unit, size, least]) =>
          longest >= size * least && !(unit === "days" && chosen.axis === "speech"));
        name = `${word} ${WORDS[chosen.axis]}`;
        longest /= seconds;
        for (const curve of this.curves) curve.at = curve.at.map((value) => value / seconds);
      }
      Object.assign(this, { name, width });
      const values = (key) => this.shown.flatMap((curve) => curve[key].filter((_, n) => Number.isFinite(curve.at[n])));
      const xs = this.follows ? [0, longest] : values("at");
      this.scale = scale(xs, this.logX, LEFT, width - RIGHT, 0);
      const y = scale(values("y"), this.log, HEIGHT - BOTTOM, TOP, 0.06);
      const label = `${this.title}: curves over ${name}. The table has their values.`;
      const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
      for (const tick of ticks(y.low, y.high, this.log, 5)) {
        svg("path", { class: "grid", d: `M${LEFT} ${y.map(tick)}H${width - RIGHT}` }, picture);
        const text = this.percent ? `${digits(100 * tick, 4)} %` : short(tick);
        svg("text", { x: LEFT - 6, y: y.map(tick) + 4, "text-anchor": "end" }, picture, text);
      }
      const whole = xs.every((x) => !Number.isFinite(x) || Number.isInteger(x));
      for (const tick of ticks(this.scale.low, this.scale.high, this.logX, Math.max(2, Math.floor(width / 110)), whole)) {
        svg("path", { class: "grid", d: `M${this.scale.map(tick)} ${HEIGHT - BOTTOM}v4` }, picture);
        svg("text", { x: this.scale.map(tick), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, picture, short(tick));
      }
      svg("text", { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, picture, name);
      const ends = [];
      for (const curve of this.shown) {
        let path = "", marks = "", pen = "M", last = null;
        curve.y.forEach((value, n) => {
          const px = this.scale.map(curve.at[n]), py = y.map(value);
          if (!Number.isFinite(px + py)) { pen = "M"; return; }
          last = [px.toFixed(1), py.toFixed(1)];
          path += `${pen}${last.join(" ")}${pen === "M" ? "h0" : ""}`;
          pen = "L";
          if (curve.marks) marks += `M${last.join(" ")}${MARKS[curve.run % MARKS.length]}`;
        });
        svg("path", { class: `curve ${curve.style}`, d: path, "stroke-dasharray": curve.dash || "none" }, picture);
        if (marks) svg("path", { class: `marks ${curve.style}`, d: marks }, picture);
        if (last && this.figure.querySelector("th[scope=row]")) ends.push([+last[0], +last[1], curve.run + 1]);
      }
      // The number of its run is at the end of each curve; those that would overlap move down.
      const taken = [];
      for (const [x, height, number] of ends.sort((a, b) => a[1] - b[1])) {
        let free = height + 4;
        if (taken.some(([, other, same]) => same === number && Math.abs(other - free) < 13)) continue;
        while (taken.some(([beside, other]) => Math.abs(beside - x) < 14 && Math.abs(other - free) < 12)) free += 1;
        taken.push([x, free, number]);
        svg("text", { class: "end", x: x + 5, y: free }, picture, number);
      }
      this.cursor = svg("path", { class: "cursor" }, picture);
      this.plot.replaceChildren(picture);
      for (const row of all("tr[data-run]", this.figure)) row.hidden = this.follows && chosen.hidden.includes(+row.dataset.run);
      const isDrawn = (stop) => Number.isFinite(this.scale.map(stop));
      this.stops = [...new Set(values("at"))].filter(isDrawn).sort((a, b) => a - b);
      this.slider.max = Math.max(0, this.stops.length - 1);
      this.leave();
    }

    leave() {
      this.slider.value = this.follows ? this.slider.max : 0;
      this.read();
    }

    point(event) {
      const x = ((event.clientX - this.plot.getBoundingClientRect().left) * this.width) / this.plot.clientWidth;
      let best = 0;
      this.stops.forEach((stop, n) => {
        if (Math.abs(this.scale.map(stop) - x) < Math.abs(this.scale.map(this.stops[best]) - x)) best = n;
      });
      this.slider.value = best;
      this.read();
    }

    // Shows the values where the slider is; at the end of a run the last value of each curve.
    read() {
      const isLast = this.follows && this.slider.value === this.slider.max, x = this.stops[this.slider.value];
      const where = isLast ? "Last values" : `Values at ${this.name} ${digits(x ?? 0, 4)}`;
      this.caption.textContent = where;
      this.cursor.setAttribute("d", isLast || x === undefined ? "" : `M${this.scale.map(x)} ${TOP}V${HEIGHT - BOTTOM}`);
      const spoken = [];
      for (const cell of all("td[data-curve]", this.figure)) {
        const curve = this.curves[cell.dataset.curve];
        const text = this.text(curve, isLast ? Infinity : x);
        cell.textContent = text;
        if (!cell.parentElement.hidden) {
          const run = cell.parentElement.querySelector("bdi");
          spoken.push(`${run ? run.textContent + " " : ""}${curve.name} ${text}`);
        }
      }
      this.slider.setAttribute("aria-valuetext", `${where}: ${spoken.join("; ")}`);
    }

    text(curve, x) {
      let best = -1;
      curve.y.forEach((value, n) => {
        if (!Number.isFinite(value)) return;
        if (x === Infinity || best < 0 || Math.abs(curve.at[n] - x) <= Math.abs(curve.at[best] - x)) best = n;
      });
      const finite = curve.at.filter(Number.isFinite);
      if (best < 0 || (x !== Infinity && !(x >= finite[0] && x <= finite.at(-1)))) return "–";
      const value = curve.y[best];
      return this.percent ? `${digits(100 * value, 3)} %` : short(value);
    }
  }

  const charts = all("figure.chart").map((figure, number) => new Chart(figure, number));
  const draw = () => {
    const longest = Math.max(...charts.map((chart) => chart.place()));
    charts.forEach((chart) => chart.draw(longest));
  };
  const say = () => {
    const names = runs.filter((run) => chosen.axis !== "step" && !run[chosen.axis]).map((run) => run.name);
    const missing = document.getElementById("missing");
    if (missing) missing.textContent = names.length ? `Not on this axis, since their logs lack it: ${names.join(", ")}` : "";
  };
  for (const input of all("input[name=axis]")) {
    input.checked = input.value === chosen.axis;
    input.addEventListener("change", () => { chosen.axis = input.value; keep(); say(); draw(); });
  }
  for (const input of all("input[name=run]")) {
    input.checked = !chosen.hidden.includes(+input.value);
    input.addEventListener("change", () => {
      chosen.hidden = all("input[name=run]").filter((box) => !box.checked).map((box) => +box.value);
      keep();
      draw();
    });
  }
  document.documentElement.className = "scripted";
  const theme = document.getElementById("theme");
  const paint = () => { theme.value = document.documentElement.dataset.theme = chosen.theme; };
  theme.addEventListener("change", () => { chosen.theme = theme.value; keep(); paint(); });
  paint();
  say();
  draw();
  let width = window.innerWidth;
  window.addEventListener("resize", () => { if (width !== window.innerWidth) { width = window.innerWidth; draw(); } });

  // The page of a run that goes on is read anew, and the reader sees the same part of it.
  const parts = () => all("section, figure");
  const top = (part) => part?.getBoundingClientRect().top ?? 0;
  if (chosen.view) {
    document.getElementById(chosen.view.focus)?.focus({ preventScroll: true });
    window.scrollBy(0, top(parts()[chosen.view.part]) - chosen.view.top);
    chosen.view = null;
    keep();
    window.addEventListener("pageshow", () => setTimeout(() => { history.scrollRestoration = "auto"; }));
  }
  const renew = document.getElementById("renew");
  if (!renew) return;
  renew.checked = chosen.renew;
  renew.addEventListener("change", () => { chosen.renew = renew.checked; keep(); });
  setInterval(() => {
    if (!chosen.renew || document.hidden) return;
    const part = Math.max(0, parts().findLastIndex((one) => top(one) < 1));
    chosen.view = { part, top: top(parts()[part]), focus: document.activeElement?.id ?? "" };
    history.scrollRestoration = "manual";
    keep();
    location.reload();
  }, 1000 * renew.dataset.seconds);
})();
