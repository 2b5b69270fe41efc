"use strict";
// The side: families, what stays, where the cost is, and what is chosen.
oz.Panel = class {
  constructor(page) {
    Object.assign(this, { page, model: page.model, shown: 80 });
    this.treemap = new oz.Treemap(page);
    this.tabs = { families: "Families", stays: "What stays", where: "Where", chosen: "Chosen" };
    this.bar = oz.h("div", { class: "tabs", role: "tablist" }, Object.entries(this.tabs).map(([name, text]) =>
      oz.h("button", { role: "tab", id: `tab-${name}`, "data-tab": name, "aria-controls": "panel", on: { click: () => this.tab(name) } }, text)));
    this.bar.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], names = Object.keys(this.tabs);
      if (!step) return;
      this.tab(names[(names.indexOf(this.current) + step + names.length) % names.length]);
      oz.byId(`tab-${this.current}`).focus();
    });
    this.body = oz.h("div", { id: "panel", class: "card", role: "tabpanel" });
    const saves = (family) => (family.parameters_per_slot * family.free) / Math.max(1, this.model.parameters)
      + (family.macs_per_slot * family.free) / Math.max(1, this.model.macs);
    this.sorted = [...this.model.families].sort((a, b) => saves(b) - saves(a));
    this.tab("families");
  }

  tab(name) {
    this.current = name;
    for (const button of this.bar.children) {
      button.setAttribute("aria-selected", String(button.dataset.tab === name));
      button.tabIndex = button.dataset.tab === name ? 0 : -1;
    }
    this.body.setAttribute("aria-labelledby", `tab-${name}`);
    this.render();
  }

  render() { this.body.replaceChildren(...[this[this.current]()].flat().filter(Boolean)); }

  pill(family) {
    return oz.h("span", { class: "pill", style: { background: this.model.color(family.number) } }, family.id);
  }

  // A list entry that a click, Enter or space chooses.
  entry(choice, ...content) {
    const now = this.page.choice, current = now && now.kind === choice.kind && now.number === choice.number;
    const act = () => this.page.choose(choice);
    return oz.h("li", { tabindex: 0, role: "button", "aria-current": current ? "true" : undefined,
      on: { click: act, keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } } } }, content);
  }

  kept(family) { return this.page.selection ? this.page.selection.kept[family.number] : family.size; }

  slots(family) {
    const kept = this.kept(family);
    if (kept < family.size) return `${family.size} → ${kept}`;
    return family.free === family.size ? String(family.size) : `${family.free} of ${family.size}`;
  }

  families() {
    const model = this.model;
    if (!model.families.length) return oz.h("p", {}, "No family of slots can be removed. “What stays” says why.");
    const rows = this.sorted.slice(0, this.shown).map((family) => {
      const share = Math.min(1, (family.parameters_per_slot * family.free) / Math.max(1, model.parameters));
      const entry = this.entry({ kind: "family", number: family.number }, this.pill(family),
        oz.h("span", { class: "name", title: oz.long(family.dim) }, oz.short(family.dim, 44)),
        oz.h("span", { class: "number" }, this.slots(family)),
        oz.h("span", { class: "more" }, oz.h("span", {}, family.exactness + (family.active ? "" : ", left alone")),
          oz.h("span", { class: "number", style: { "margin-left": "auto" } }, `${oz.percent(share)} of parameters`),
          oz.h("span", { class: "meter" }, oz.h("i", { style: { width: `${100 * share}%` } }))));
      if (!family.active) entry.classList.add("off");
      entry.dataset.family = family.id;
      return entry;
    });
    const rest = model.families.length - rows.length;
    return [oz.h("ul", { class: "list" }, rows), rest > 0 ? oz.h("div", { class: "buttons" },
      oz.h("button", { on: { click: () => { this.shown += 300; this.render(); } } }, `${oz.plural(rest, "smaller family")}: show more`)) : null];
  }

  stays() {
    const total = Math.max(1, this.model.parameters);
    const rows = this.model.frozen.slice(0, 200).map((row, number) => {
      const reason = this.model.reasons.findIndex((found) => found.row === number);
      return this.entry(reason < 0 ? { kind: "frozen", number } : { kind: "reason", number: reason },
        oz.h("span", { class: "pill frozen" }, oz.human(row.slots)),
        oz.h("span", { style: { "grid-column": "2 / 4" } }, row.reason),
        oz.h("span", { class: "more" }, oz.h("span", {}, oz.short(row.operator || "the model itself", 60)),
          oz.h("span", { style: { "margin-left": "auto" } }, `${oz.human(row.parameters)} parameters`),
          oz.h("span", { class: "meter" }, oz.h("i", { style: { width: `${(100 * row.parameters) / total}%` } }))));
    });
    const unknown = Object.entries(this.model.unknown_operators);
    return [rows.length ? oz.h("ul", { class: "list" }, rows) : oz.h("p", {}, "Nothing is held back."),
      this.model.frozen.length > 200 ? oz.h("p", { class: "note" }, `and ${this.model.frozen.length - 200} lesser reasons, in the tables`) : null,
      unknown.length ? oz.h("p", { class: "note" }, `Unknown operators, all they touch stays: ${unknown.map(([name, count]) => `${oz.short(name, 60)} ×${count}`).join(", ")}`) : null];
  }

  where() { return this.treemap.element(); }

  chosen() {
    const choice = this.page.choice;
    if (!choice) return oz.h("p", { class: "note" }, "Click a coloured dim, an operator or a scope; or a family in the list.");
    return { family: () => this.family(this.model.families[choice.number]), reason: () => this.reason(choice.number),
      frozen: () => this.frozenRow(this.model.frozen[choice.number], null), op: () => this.operator(this.model.ops[choice.number]),
      scope: () => this.scope(this.model.scopes[choice.number]), value: () => this.value(this.model.values[choice.number]) }[choice.kind]();
  }

  grid(rows) {
    return oz.h("dl", { class: "facts-grid" }, rows.filter(Boolean).map(([name, text, value]) =>
      [oz.h("dt", {}, name), oz.h("dd", value === undefined ? {} : { "data-value": value, "data-fact": name }, text)]));
  }

  family(family) {
    const model = this.model, kept = this.kept(family), before = model.pruned && model.pruned.widths[family.id];
    const rows = family.slices.map(([value, axis, role]) => {
      const op = model.values[value].uses[0];
      return oz.h("li", { tabindex: 0, role: "button", on: this.goes(() => this.page.goto({ op })) },
        oz.h("span", { class: "name mono", title: oz.long(model.values[value].name) }, `${oz.short(model.values[value].name, 38)}[${axis}]`),
        oz.h("span", { class: "role" }, role));
    });
    const producers = family.slices.filter(([, , role]) => role === "producer").length;
    const words = { exact: "producers at zero make a slot dead; consumers’ slices are dropped",
      consumers: "a slot is dead when consumers’ slices are zero as well", folded: "a constant moves into a bias",
      rescaled: "a norm or mean runs over it; the rewrite keeps the statistics" };
    return [oz.h("h2", {}, this.pill(family), " ", oz.h("span", { class: "name" }, oz.short(family.dim, 60))),
      this.grid([
        ["slots", oz.whole(family.size), family.size],
        family.free < family.size ? ["may go", oz.whole(family.free), family.free] : null,
        kept < family.size ? ["kept", `${oz.whole(kept)}  (${oz.percent(kept / family.size)})`, kept] : null,
        before !== undefined && before !== null ? [`in ${oz.short(model.pruned.model, 24)}`, oz.whole(before), before] : null,
        ["exactness", oz.h("span", {}, oz.h("strong", {}, family.exactness), `: ${words[family.exactness] || ""}`), family.exactness],
        ["a slot saves", `${oz.whole(family.parameters_per_slot)} parameters`, family.parameters_per_slot],
        ["", `${oz.whole(family.macs_per_slot)} MACs`, family.macs_per_slot],
        family.overlaps.length ? ["shares axes with", oz.h("span", {}, family.overlaps.slice(0, 12).map((id) => {
          const other = model.families.find((found) => found.id === id);
          return [oz.h("button", { class: "pill", style: { background: model.color(other.number) }, on: { click: () => this.page.choose({ kind: "family", number: other.number }) } }, id), " "];
        }))] : null]),
      family.active ? null : oz.h("p", { class: "note" }, `A default run leaves it alone: ${family.inactive || "left out"}.`),
      oz.h("h3", {}, `${oz.plural(producers, "producer")}, ${oz.whole(family.slices.length - producers)} other weight axes`),
      oz.h("ul", { class: "places" }, rows.slice(0, 60)),
      rows.length > 60 ? oz.h("p", { class: "note" }, `and ${rows.length - 60} more, in the tables`) : null,
      oz.h("div", { class: "buttons" },
        oz.h("button", { on: { click: () => this.page.revealFamily(family) } }, "open all its scopes"), this.clear())];
  }

  clear() { return oz.h("button", { on: { click: () => this.page.choose(null) } }, "clear"); }
  goes(act) { return { click: act, keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); } } }; }

  reason(number) {
    const reason = this.model.reasons[number];
    return this.frozenRow(this.model.frozen[reason.row] || { reason: reason.text, operator: reason.operator, slots: 0, parameters: 0 }, reason);
  }

  frozenRow(row, reason) {
    const op = reason && reason.op ? this.model.ops.find((found) => found.name === reason.op) : null;
    return [oz.h("h2", {}, "This stays"), oz.h("p", { class: "note", id: "reason" }, `because ${row.reason}.`),
      this.grid([
        ["comes from", row.operator || "the model itself", row.operator],
        op ? ["for one", oz.h("button", { on: { click: () => this.page.goto({ op: op.number }) } }, oz.short(op.name, 36))] : null,
        ["slots held", oz.whole(row.slots), row.slots],
        ["parameters held", `${oz.whole(row.parameters)}  (${oz.percent(Math.min(1, row.parameters / Math.max(1, this.model.parameters)))})`, row.parameters]]),
      oz.h("div", { class: "buttons" }, this.clear())];
  }

  operator(op) {
    const model = this.model, costs = this.page.costs;
    const tensor = (value) => oz.h("li", { tabindex: 0, role: "button", on: this.goes(() => this.page.choose({ kind: "value", number: value })) },
      oz.h("span", { class: "name mono", title: oz.long(model.values[value].name) }, oz.short(model.values[value].name, 30)), this.axes(model.values[value]));
    const sum = (terms) => costs.byOp(terms, this.page.left || costs.full)[op.number];
    return [oz.h("h2", {}, op.type), oz.h("p", { class: "note name" }, oz.short(op.name, 160)),
      this.grid([["scope", oz.h("button", { on: { click: () => this.page.choose({ kind: "scope", number: op.scope }) } }, oz.short(model.scopes[op.scope].path || "the model", 40))],
        ["parameters", oz.whole(sum("parameter_terms"))], ["MACs", oz.whole(Math.floor(sum("mac_terms")))]]),
      oz.h("h3", {}, "operands"), oz.h("ul", { class: "places" }, op.inputs.slice(0, 40).map(tensor)),
      oz.h("h3", {}, "results"), oz.h("ul", { class: "places" }, op.outputs.slice(0, 40).map(tensor)), oz.h("div", { class: "buttons" }, this.clear())];
  }

  axes(value) {
    return oz.h("span", { class: "role mono" }, value.axes.map((axis, place) => {
      const found = this.model.axes[axis], family = found.families[0];
      const size = String(Math.round(this.page.left ? this.page.left.axes[axis] : found.size));
      const act = (event) => { event.stopPropagation(); this.page.chooseAxis(axis); };
      return [place ? " × " : "", family === undefined
        ? found.reason >= 0 ? oz.h("button", { class: "pill frozen", title: this.page.axisTitle(axis), on: { click: act } }, size) : size
        : oz.h("button", { class: "pill", title: this.page.axisTitle(axis), style: { background: this.model.color(family) }, on: { click: act } }, size)];
    }));
  }

  value(value) {
    const model = this.model, made = value.producer < 0 ? null : model.ops[value.producer];
    const op = (number) => oz.h("li", { tabindex: 0, role: "button", on: this.goes(() => this.page.goto({ op: number })) },
      oz.h("span", { class: "name" }, `${model.ops[number].type} ${oz.short(model.ops[number].label || model.ops[number].name, 34)}`));
    return [oz.h("h2", {}, value.kind || "tensor"), oz.h("p", { class: "note name" }, oz.short(value.name, 160)),
      this.grid([["dims", this.axes(value)], ["type", value.dtype]]),
      made ? [oz.h("h3", {}, "made by"), oz.h("ul", { class: "places" }, op(made.number))] : null,
      oz.h("h3", {}, "read by"), oz.h("ul", { class: "places" }, value.uses.slice(0, 40).map(op)), oz.h("div", { class: "buttons" }, this.clear())].flat();
  }

  scope(scope) {
    const now = this.page.shares, open = this.page.layout.open.has(scope.number);
    return [oz.h("h2", {}, oz.short(scope.path || "the model", 60)),
      this.grid([["operators", oz.whole(scope.ops.length)],
        ["parameters", `${oz.whole(now.parameters[scope.number])}  (${oz.percent(now.parameters[scope.number] / Math.max(1, now.parameters[0]))})`],
        ["MACs", `${oz.whole(Math.floor(now.macs[scope.number]))}  (${oz.percent(now.macs[scope.number] / Math.max(1, now.macs[0]))})`]]),
      oz.h("div", { class: "buttons" },
        scope.number ? oz.h("button", { on: { click: () => this.page.toggle(scope.number) } }, open ? "close it" : "open it") : null,
        oz.h("button", { on: { click: () => { this.treemap.root = scope.number; this.tab("where"); } } }, "where in it"), this.clear())];
  }
};
