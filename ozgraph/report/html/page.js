"use strict";
// The page: what is chosen, what goes, and who must know.
oz.Page = class {
  constructor(model) {
    this.model = model;
    this.costs = new oz.Costs(model);
    this.layout = new oz.Layout(model);
    this.choice = null;
    this.selection = null;
    this.left = null;
    this.share();
    const svg = oz.s("svg", { class: "graph", role: "group", tabindex: 0,
      "aria-label": "the operators of the model; Tab goes through them, Enter chooses or opens, arrow keys move the picture" });
    this.svg = svg;
    const side = oz.h("aside", { class: "side" });
    oz.byId("app").append(oz.h("div", { class: "picture" }, svg, this.controls(), this.legend()), side);
    this.drawing = new oz.Drawing(this, svg);
    this.panel = new oz.Panel(this);
    this.slim = new oz.Slim(this);
    side.append(this.slim.element, this.panel.bar, this.panel.body);
    this.search = new oz.Search(this);
    oz.byId("tools").prepend(this.search.element);
    this.layout.openUpTo(36);
    this.drawing.arrange();
    this.drawing.fit();
    this.slim.set(0);
    this.listen();
  }

  controls() {
    const button = (text, label, act) => oz.h("button", { "aria-label": label, title: label, on: { click: act } }, text);
    return oz.h("div", { class: "controls", role: "toolbar", "aria-label": "picture" },
      button("+", "zoom in", () => this.drawing.zoom.scaleBy(this.drawing.view, 1.3)),
      button("−", "zoom out", () => this.drawing.zoom.scaleBy(this.drawing.view, 1 / 1.3)),
      button("fit", "show all of it", () => this.drawing.fit(true)),
      button("open more", "open the next level of scopes", () => this.level(true)),
      button("close all", "close all scopes", () => this.level(false)));
  }

  legend() {
    const entry = (style, text) => oz.h("span", {}, oz.h("i", { style }), text);
    return oz.h("div", { class: "legend", "aria-hidden": "true" }, entry({ background: "var(--f0)" }, "a dim of a family"),
      entry({ "border-bottom": "2px dotted var(--soft)" }, "stays, click for why"));
  }

  share() {
    const left = this.left || this.costs.full;
    this.shares = { parameters: this.costs.byScope("parameter_terms", left), macs: this.costs.byScope("mac_terms", left) };
  }

  axisTitle(axis) {
    const found = this.model.axes[axis], named = found.families.map((number) => this.model.families[number]);
    if (named.length) return named.map((family) => `${family.id}: ${oz.long(family.dim)}, ${family.size} slots`).join("\n");
    if (found.reason >= 0) return `${found.size}: stays, ${this.model.reasons[found.reason].text}`;
    return found.reason === -3 ? `${found.size}: not data, a size or an index` : String(found.size);
  }

  // -- what happens ------------------------------------------------------------------------------------------------

  // Light up a choice; the side shows it, or stays as it is.
  choose(choice, reveal = false, stay = false) {
    this.choice = choice;
    if (stay) this.panel.render();
    else if (choice) this.panel.tab("chosen");
    else this.panel.tab(this.panel.current === "chosen" ? "families" : this.panel.current);
    this.drawing.draw();
    if (choice && choice.kind === "family" && (reveal || !this.inView())) {
      const first = [...this.model.places[choice.number]].find(([, role]) => role === "producer") || [...this.model.places[choice.number]][0];
      if (first) this.drawing.show(this.layout.visible(first[0]));
    }
  }

  inView() {
    const area = this.drawing.window(0);
    return [...this.drawing.lit.keys()].some((key) => {
      const item = this.drawing.places.get(key);
      return item && item.x < area.right && item.x + item.width > area.left && item.y < area.bottom && item.y + item.height > area.top;
    });
  }

  chooseAxis(axis) {
    const found = this.model.axes[axis];
    if (found.families.length) {
      // An axis of several families goes through them click by click.
      const now = this.choice && this.choice.kind === "family" ? found.families.indexOf(this.choice.number) : -1;
      this.choose({ kind: "family", number: found.families[(now + 1) % found.families.length] });
    } else if (found.reason >= 0) this.choose({ kind: "reason", number: found.reason });
  }

  toggle(scope) {
    this.layout.toggle(scope);
    this.drawing.arrange(`s${scope}`);
    if (this.panel.current === "chosen") this.panel.render();
  }

  goto({ op, scope }, stay = false) {
    if (op !== undefined) this.layout.reveal(op);
    else for (const around of this.model.scopes[scope].chain.slice(0, -1)) this.layout.toggle(around, true);
    this.drawing.found = op !== undefined ? `o${op}` : `s${scope}`;
    this.drawing.arrange();
    this.drawing.show(this.drawing.found);
    this.choose(op !== undefined ? { kind: "op", number: op } : { kind: "scope", number: scope }, false, stay);
  }

  revealFamily(family) {
    for (const op of [...this.model.places[family.number].keys()].slice(0, 60)) this.layout.reveal(op);
    this.drawing.arrange();
    this.choose({ kind: "family", number: family.number }, true);
  }

  level(open) {
    if (open) {
      const closed = this.model.scopes.filter((scope) => scope.number && !this.layout.open.has(scope.number) && this.layout.open.has(scope.parent));
      let shown = [...this.layout.open].reduce((sum, scope) => sum + this.model.scopes[scope].children.length, 0);
      for (const scope of closed) {
        shown += scope.children.length;
        if (shown > 700) break;
        this.layout.toggle(scope.number, true);
      }
    } else for (const scope of [...this.layout.open]) this.layout.toggle(scope, false);
    this.drawing.arrange();
    this.drawing.fit();
  }

  slimmed(selection, left) {
    this.selection = selection;
    this.left = left;
    this.share();
    this.drawing.later();
    this.panel.render();
  }

  // -- mouse and keys ----------------------------------------------------------------------------------------------

  act(target) {
    const dim = target.closest("[data-axis]");
    if (dim) { this.chooseAxis(+dim.dataset.axis); return; }
    const box = target.closest("[data-key]");
    if (!box) { if (this.choice) this.choose(null); return; }
    const key = box.dataset.key, number = +key.slice(1);
    if (key[0] === "s") this.toggle(number);
    else this.choose({ kind: key[0] === "p" ? "value" : "op", number });
  }

  listen() {
    this.svg.addEventListener("click", (event) => this.act(event.target));
    this.svg.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [0, 60], ArrowDown: [0, -60], ArrowLeft: [60, 0], ArrowRight: [-60, 0] }[event.key];
      if (move) this.drawing.zoom.translateBy(this.drawing.view, ...move.map((step) => step / this.drawing.transform.k));
      else if ((event.key === "Enter" || event.key === " ") && event.target !== this.svg) this.act(event.target);
      else return;
      event.preventDefault();
    });
    document.addEventListener("keydown", (event) => {
      const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
      if (event.key === "/" && !typing) { event.preventDefault(); this.search.input.focus(); }
      if (event.key === "Escape" && this.choice) this.choose(null);
    });
    new ResizeObserver(() => this.drawing.later()).observe(this.svg);
  }
};

oz.theme = () => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const button = oz.h("button", { id: "theme", on: { click: () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("ozgraph-theme", root.dataset.theme); } catch { /* pages from disk may have none */ }
    say();
  } } });
  const say = () => { button.textContent = dark() ? "light" : "dark"; button.setAttribute("aria-label", `${button.textContent} theme`); };
  try { const kept = localStorage.getItem("ozgraph-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* none */ }
  say();
  return button;
};

// The tables in the place of the picture, or back.
oz.read = (on) => {
  const button = oz.byId("reading");
  document.documentElement.classList.toggle("reading", on);
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "picture" : "tables";
};

oz.start = () => {
  const root = document.documentElement;
  const reading = oz.h("button", { id: "reading", "aria-pressed": "false",
    on: { click: () => oz.read(!root.classList.contains("reading")) } }, "tables");
  oz.byId("tools").append(reading, oz.theme());
  try {
    oz.page = new oz.Page(new oz.Model(JSON.parse(oz.byId("data").textContent)));
    requestAnimationFrame(() => setTimeout(() => performance.mark("picture")));
  } catch (error) {
    // Text first: where the picture fails, the tables are there.
    root.classList.remove("js");
    throw error;
  }
};
oz.start();
