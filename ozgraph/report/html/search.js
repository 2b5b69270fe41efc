"use strict";
// Search by name: operators, tensors, scopes and families.
oz.Search = class {
  constructor(page) {
    this.page = page;
    this.hits = [];
    this.input = oz.h("input", { type: "search", id: "search", placeholder: "Search  ( / )", autocomplete: "off", role: "combobox",
      "aria-label": "search by name", "aria-expanded": "false", "aria-controls": "hits",
      on: { input: () => this.look(), keydown: (event) => this.key(event), blur: () => setTimeout(() => this.close(), 150), focus: () => this.look() } });
    this.list = oz.h("ul", { class: "hits", id: "hits", role: "listbox", hidden: true });
    this.element = oz.h("div", { class: "search" }, this.input, this.list);
  }

  // Made when it is first needed: it is as long as the model.
  get all() {
    if (this.entries) return this.entries;
    const model = this.page.model, all = [];
    for (const scope of model.scopes.slice(1)) all.push({ name: scope.path, kind: "scope", go: { scope: scope.number } });
    for (const family of model.families) all.push({ name: `${family.id} ${family.dim}`, kind: "family", family: family.number });
    for (const op of model.ops) all.push({ name: `${op.type} ${op.name}`, kind: "operator", go: { op: op.number } });
    for (const value of model.values) all.push({ name: value.name, kind: value.kind || "tensor", value: value.number });
    this.entries = all;
    return all;
  }

  look() {
    const text = this.input.value.trim().toLowerCase();
    this.hits = [];
    if (text) {
      // What begins with the text, or has it at a part's beginning, comes first.
      const other = [];
      for (const entry of this.all) {
        entry.lower ??= entry.name.slice(0, 2000).toLowerCase();
        const at = entry.lower.indexOf(text);
        if (at < 0) continue;
        (at === 0 || /[^a-z0-9]/.test(entry.lower[at - 1]) ? this.hits : other).push(entry);
        if (this.hits.length >= 40) break;
      }
      this.hits = [...this.hits, ...other].slice(0, 40);
    }
    this.at = 0;
    this.list.replaceChildren(...this.hits.map((entry, place) => oz.h("li", { role: "option", "aria-selected": String(place === 0),
      on: { mousedown: (event) => { event.preventDefault(); this.take(entry); } } },
      oz.h("span", { class: "name", title: oz.long(entry.name) }, oz.short(entry.name, 52)), oz.h("span", { class: "kind" }, entry.kind))));
    if (text && !this.hits.length) this.list.replaceChildren(oz.h("li", { class: "soft" }, "nothing is called that"));
    this.list.hidden = !text;
    this.input.setAttribute("aria-expanded", String(Boolean(text)));
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.hits.length) {
      event.preventDefault();
      this.at = (this.at + step + this.hits.length) % this.hits.length;
      [...this.list.children].forEach((row, place) => row.setAttribute("aria-selected", String(place === this.at)));
      this.list.children[this.at].scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && this.hits.length) this.take(this.hits[this.at]);
    else if (event.key === "Escape") { this.input.value = ""; this.close(); }
  }

  take(entry) {
    this.close();
    this.input.blur();
    oz.read(false);
    if (entry.family !== undefined) this.page.choose({ kind: "family", number: entry.family }, true);
    else if (entry.go) this.page.goto(entry.go);
    else {
      const value = this.page.model.values[entry.value], op = value.producer >= 0 ? value.producer : value.uses[0];
      if (op !== undefined) this.page.goto({ op });
      this.page.choose({ kind: "value", number: entry.value });
    }
  }

  close() { this.list.hidden = true; this.input.setAttribute("aria-expanded", "false"); }
};
