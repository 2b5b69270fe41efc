"use strict";
// What is left when slots go: polynomials in the number of kept slots, as ozgraph/passes/cost.py has them.
oz.Costs = class {
  constructor(model) {
    this.model = model;
    this.full = this.left(null);
  }

  // Everything kept: null. Otherwise kept slots by family, and what weighted counts have lost.
  left(selection) {
    const model = this.model;
    const counts = model.counts.map(([family, weights], number) => {
      const size = model.families[family].size, kept = selection ? selection.kept[family] : size;
      if (!weights) return kept;
      const whole = weights.reduce((sum, weight) => sum + weight, 0);
      if (selection && selection.lost) return whole - (selection.lost[number] || 0);
      return Math.round((whole * kept) / size);
    });
    const axes = model.axes.map((axis) => {
      if (!axis.families.length) return axis.size;
      let total = 0;
      for (const [factor, numbers] of axis.kept) total += numbers.reduce((product, n) => product * counts[n], factor);
      return total;
    });
    const cost = ([, factor, dims]) => dims.reduce((product, axis) => product * axes[axis], factor);
    return {
      axes,
      cost,
      parameters: model.parameter_terms.reduce((sum, term) => sum + cost(term), 0),
      macs: Math.floor(model.mac_terms.reduce((sum, term) => sum + cost(term), 0) / model.samples),
    };
  }

  // Cost of every scope, the scopes around it included.
  byScope(terms, left) {
    const totals = new Float64Array(this.model.scopes.length);
    const samples = terms === "mac_terms" ? this.model.samples : 1;
    for (const term of this.model[terms]) {
      const scope = term[0] < 0 ? 0 : this.model.ops[term[0]].scope;
      for (const around of this.model.scopes[scope].chain) totals[around] += left.cost(term) / samples;
    }
    return totals;
  }

  byOp(terms, left) {
    const totals = new Float64Array(this.model.ops.length);
    const samples = terms === "mac_terms" ? this.model.samples : 1;
    for (const term of this.model[terms]) if (term[0] >= 0) totals[term[0]] += left.cost(term) / samples;
    return totals;
  }
};

// Which slots go: the first blocks of an order, as ozgraph/passes/select.py takes them.
oz.Selection = class {
  constructor(model, order, blocks) {
    this.kept = model.families.map((family) => family.size);
    this.lost = {};
    const seen = new Map();
    for (let block = 0; block < blocks; block += 1) {
      const family = order.families[block];
      this.kept[family] -= order.widths[block];
      seen.set(family, (seen.get(family) || 0) + 1);
    }
    for (const [count, taken] of Object.entries(order.weighted)) {
      const gone = seen.get(model.counts[count][0]) || 0;
      this.lost[count] = taken.slice(0, gone).reduce((sum, weight) => sum + weight, 0);
    }
  }
};

// The shortest beginning of an order that removes a share of the MACs or the parameters; all of it where none does.
oz.meet = (costs, order, what, share) => {
  const model = costs.model, whole = costs.full[what];
  const enough = (blocks) => whole - costs.left(new oz.Selection(model, order, blocks))[what] >= share * whole;
  let low = 0, high = order.families.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (enough(middle)) high = middle; else low = middle + 1;
  }
  return low;
};
