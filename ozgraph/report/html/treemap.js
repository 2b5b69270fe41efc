"use strict";
// Where parameters and MACs are, by scope: area is cost, and what a target removes is cut out of it.
oz.Treemap = class {
  constructor(page) { Object.assign(this, { page, model: page.model, root: 0, terms: "parameter_terms" }); }

  element() {
    const names = { parameter_terms: "parameters", mac_terms: "MACs" };
    const select = oz.h("select", { id: "measure", "aria-label": "what the areas stand for",
      on: { change: (event) => { this.terms = event.target.value; this.page.panel.render(); } } },
      Object.entries(names).map(([value, text]) => oz.h("option", { value, selected: value === this.terms }, text)));
    const crumbs = oz.h("nav", { class: "crumbs", "aria-label": "scopes around" },
      this.model.scopes[this.root].chain.map((scope) => oz.h("button", { on: { click: () => this.go(scope) } },
        oz.short(this.model.scopes[scope].label || "model", 22))), oz.h("span", { style: { "margin-left": "auto" } }, select));
    const costs = this.page.costs, full = costs.byScope(this.terms, costs.full);
    const left = this.page.left ? costs.byScope(this.terms, this.page.left) : full;
    const what = names[this.terms], total = full[this.root];
    const text = `${oz.human(total)} ${what}, ${oz.percent(total / Math.max(1, full[0]))} of the model`;
    return [crumbs, this.picture(full, left, what), oz.h("p", { class: "note" }, text + (this.page.left ? "; the lighter part would go" : ""))];
  }

  go(scope) { this.root = scope; this.page.panel.render(); }

  // Two levels below the root; what belongs to operators of a scope itself is one more part of it.
  data(full) {
    const opCosts = this.page.costs.byOp(this.terms, this.page.costs.full);
    const grow = (number, depth) => {
      const scope = this.model.scopes[number];
      const inner = scope.children.filter((key) => key[0] === "s").map((key) => +key.slice(1)).filter((child) => full[child] > 0);
      const own = scope.children.filter((key) => key[0] === "o").map((key) => +key.slice(1)).filter((op) => opCosts[op] > 0);
      if (depth === 2 || !(inner.length + own.length)) return { scope: number, value: full[number] };
      return { scope: number, children: [...inner.map((child) => grow(child, depth + 1)),
        ...own.map((op) => ({ op, scope: number, value: opCosts[op] }))] };
    };
    return grow(this.root, 0);
  }

  picture(full, left, what) {
    const width = 388, height = 400, costs = this.page.costs;
    const tree = d3.hierarchy(this.data(full)).sum((part) => part.value || 0).sort((a, b) => b.value - a.value);
    d3.treemap().size([width, height]).paddingInner(1).paddingTop((node) => (node.depth === 1 && node.children ? 17 : 0)).round(true)(tree);
    const ops = this.page.left ? costs.byOp(this.terms, this.page.left) : null;
    const tops = tree.children || [tree], svg = oz.s("svg", { class: "treemap", viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `${what} by scope` });
    tops.forEach((top, number) => {
      const color = `var(--f${number % 10})`;
      top.each((node) => {
        const { op, scope } = node.data, box = { x: node.x0, y: node.y0, width: node.x1 - node.x0, height: node.y1 - node.y0 };
        if (box.width < 1.5 || box.height < 1.5) return;
        const name = op === undefined ? this.model.scopes[scope].label || "model" : this.model.ops[op].label || this.model.ops[op].type;
        const kept = op === undefined ? left[scope] / Math.max(1, full[scope]) : ops ? ops[op] / Math.max(1, node.value) : 1;
        const act = () => {
          if (op !== undefined) this.page.goto({ op }, true);
          else { this.page.goto({ scope }, true); if (this.model.scopes[scope].children.length > 1 && scope !== this.root) this.go(scope); }
        };
        const title = `${oz.long(op === undefined ? this.model.scopes[scope].path : this.model.ops[op].name)}: ${oz.human(node.value)} ${what}`;
        const part = oz.s("g", { tabindex: 0, role: "button", "aria-label": title, on: this.page.panel.goes(act) },
          oz.s("title", {}, title + (kept < 1 ? `, ${oz.percent(kept)} kept` : "")),
          oz.s("rect", { ...box, height: node.children ? Math.min(17, box.height) : box.height, rx: 3, fill: color, class: "frame",
            "fill-opacity": node.children ? 1 : 0.4 }));
        if (!node.children) part.append(oz.s("rect", { ...box, class: "kept", rx: 3, y: box.y + box.height * (1 - kept), height: box.height * kept, fill: color, "pointer-events": "none" }));
        // What is kept fills a tile from below, and bears the words.
        const letters = Math.floor((box.width - 8) / 6.4), tall = !node.children && letters > 6 && box.height > 32;
        const y = node.children ? box.y + 12.5 : box.y + box.height - (tall ? 18 : 5);
        if (letters > 3 && box.height > 14) part.append(oz.s("text", { x: box.x + 5, y }, oz.short(name, letters)));
        if (tall) part.append(oz.s("text", { class: "value", x: box.x + 5, y: y + 13 }, oz.human(node.value)));
        svg.append(part);
      });
    });
    return svg;
  }
};
