"use strict";
// The data of the page as objects that refer to each other; ozgraph/report/html/document.py writes it.
oz.Model = class {
  constructor(data) {
    Object.assign(this, data);
    this.families.forEach((family, number) => { family.number = number; });
    this.axes = data.axes.map(([size, families, reason, kept]) => ({ size, families, reason, kept }));
    this.values = data.values.map(([name, axes, kind, dtype], number) =>
      ({ number, name, axes, kind, dtype, producer: -1, uses: [] }));
    this.ops = data.ops.map(([type, label, name, scope, inputs, outputs], number) =>
      ({ number, type, label, name, scope, inputs, outputs }));
    for (const op of this.ops) {
      for (const value of op.inputs) this.values[value].uses.push(op.number);
      for (const value of op.outputs) this.values[value].producer = op.number;
    }
    this.results = new Set(data.outputs);
    this.frozen = data.frozen.map(([reason, operator, slots, parameters]) => ({ reason, operator, slots, parameters }));
    this.reasons = data.reasons.map(([text, operator, op, row]) => ({ text, operator, op, row }));
    this.scopes = data.scopes.map(([parent, label, path], number) =>
      ({ number, parent, label, path, depth: 0, children: [], ops: [], chain: [] }));
    for (const scope of this.scopes) {
      const around = this.scopes[scope.parent];
      scope.depth = scope.number ? around.depth + 1 : 0;
      scope.chain = scope.number ? [...around.chain, scope.number] : [0];
    }
    for (const op of this.ops) for (const scope of this.scopes[op.scope].chain) this.scopes[scope].ops.push(op.number);
    this.arrange();
    // Family -> operators that read one of its weight axes, by what the axis is to them.
    this.places = this.families.map((family) => {
      const found = new Map();
      for (const [value, , role] of family.slices)
        for (const op of this.values[value].uses)
          if (found.get(op) !== "producer") found.set(op, role);
      return found;
    });
  }

  // The children of every scope in the order of the model: "s3" is a scope, "o7" an operator.
  arrange() {
    const seen = new Set();
    for (const op of this.ops) {
      const chain = this.scopes[op.scope].chain;
      for (let depth = 1; depth < chain.length; depth += 1) {
        if (seen.has(chain[depth])) continue;
        seen.add(chain[depth]);
        this.scopes[chain[depth - 1]].children.push(`s${chain[depth]}`);
      }
      this.scopes[op.scope].children.push(`o${op.number}`);
    }
  }

  // The child of a scope that an operator is in, or null where it is outside.
  within(op, scope) {
    const chain = this.scopes[this.ops[op].scope].chain, depth = this.scopes[scope].depth;
    if (chain[depth] !== scope) return null;
    return depth + 1 < chain.length ? `s${chain[depth + 1]}` : `o${op}`;
  }

  color(family) { return `var(--f${family % 10})`; }

  // Whether an axis carries slots of the chosen family, or is held by the chosen reason.
  carries(axis, choice) {
    const found = this.axes[axis];
    if (choice.kind === "family") return found.families.includes(choice.number);
    return choice.kind === "reason" && found.reason === choice.number;
  }
};
