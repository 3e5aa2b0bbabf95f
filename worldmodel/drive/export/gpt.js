// Decodes a GPT as worldmodel/codec/exact/decoder.py does, number by number.
"use strict";

class Numbers {  // of torch.Generator on a CPU: MT19937 (Matsumoto and Nishimura 1998)
  constructor(seed) {
    const s = this.words = new Uint32Array(624);
    s[0] = seed;
    for (let i = 1; i < 624; i++) s[i] = Math.imul(1812433253, s[i - 1] ^ (s[i - 1] >>> 30)) + i;
    this.next = 624;
  }
  // Copies share their words, which turn() replaces: one is kept for every step.
  copy() { return Object.assign(Object.create(Numbers.prototype), this) }
  uniform() {  // 24 bits, as torch.rand in float32
    if (this.next === 624) this.turn();
    let y = this.words[this.next++];
    y ^= y >>> 11; y ^= (y << 7) & 0x9d2c5680; y ^= (y << 15) & 0xefc60000; y ^= y >>> 18;
    return (y & 0xffffff) / 0x1000000;
  }
  turn() {
    const s = this.words = this.words.slice();
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }
}

class GPT {
  constructor(kernel, model, sampling) {
    Object.assign(this, { kernel, model, sampling });
    const [height, width] = model.grid;
    this.cells = height * width;
    this.length = this.cells + 1;  // positions of a time step: a prefix, then the cells
    this.shape = [model.heads, model.kv_heads, model.head_dim];
    const capacity = model.context * this.length;
    this.caches = model.blocks.map(() => kernel.cache(model.kv_heads, model.head_dim, capacity));
    this.steps = 0;  // read so far
  }

  row(name, rows = 1, width = this.model.dim) { return this.kernel.scratch(name, 4 * rows * width) }
  embedded(id) { return this.kernel.floats(this.kernel.at(this.model.embed) + 4 * id * this.model.dim, this.model.dim) }

  acted(action) {  // an embedded action
    const { action: way, dim } = this.model, { kernel } = this, x = this.row("action", 1, action.length), inner = this.row("acting");
    const standard = (value, i) => Math.fround(value - Math.fround(way.mean[i])) / Math.fround(way.std[i]);
    kernel.floats(x, action.length).set(action.map(way.mean ? standard : symlog));
    kernel.linear(x, 1, way.first, inner);
    kernel.gelu(inner, dim, "none");
    const out = this.row("acted");
    kernel.linear(inner, 1, way.second, out);
    return kernel.floats(out, dim).slice();
  }

  prefix(action, isFirst) {
    if (isFirst) return this.embedded(this.model.start_id).slice();
    return this.model.action ? this.acted(action) : this.embedded(this.model.no_action_id).slice();
  }

  hints(grid) {  // the previous frame around every cell; null where the model does not look back
    if (!this.model.look_back || !grid) return null;
    const { dim } = this.model, count = this.cells * dim, cells = this.row("cells", this.cells), around = this.row("around", this.cells);
    const x = this.kernel.floats(cells, count);
    grid.forEach((token, i) => x.set(this.embedded(token), i * dim));
    this.kernel.convolution(cells, this.model.grid, this.model.look_back, around);
    this.kernel.run.add(cells, around, count);
    return this.kernel.floats(cells, count).slice();
  }

  // The input of position `i` of a time step; the sums in the order of embed_clip.
  place(into, i, prefix, hints, token) {
    const { dim } = this.model, own = i ? this.embedded(token) : prefix, acts = i && this.model.action, hinted = hints && i < this.cells;
    for (let c = 0; c < dim; c++) {
      const x = acts ? Math.fround(own[c] + prefix[c]) : own[c];
      into[c] = hinted ? x + hints[i * dim + c] : x;
    }
  }

  // Reads time steps into fresh caches; actions[t] led to grid t + 1.
  read(grids, actions) {
    const { dim } = this.model, rows = grids.length * this.length, x = this.row("read", rows);
    for (let t = 0; t < grids.length; t++) {
      const hints = this.hints(t ? grids[t - 1] : null), prefix = this.prefix(t ? actions[t - 1] : null, !t);
      const all = this.kernel.floats(x + 4 * t * this.length * dim, this.length * dim);
      for (let i = 0; i < this.length; i++) this.place(all.subarray(i * dim, (i + 1) * dim), i, prefix, hints, i && grids[t][i - 1]);
    }
    this.blocks(x, rows, 0, true);
    this.steps = grids.length;
  }

  // The next grid; `choose` picks a token from the logits of a cell.
  predict(before, action, choose) {
    const prefix = this.prefix(action, false), hints = this.hints(before), x = this.row("x"), grid = [];
    for (let i = 0; i < this.length; i++) {
      this.place(this.kernel.floats(x, this.model.dim), i, prefix, hints, i && grid[i - 1]);
      this.blocks(x, 1, this.steps * this.length + i, i === this.cells);
      if (i < this.cells) grid.push(choose(this.logits(x), i));
    }
    this.steps++;
    return grid;
  }

  logits(x) {
    const normed = this.row("normed"), out = this.row("logits", 1, this.model.head.outputs);
    this.kernel.layerNorm(x, 1, this.model.dim, this.model.norm, normed);
    this.kernel.linear(normed, 1, this.model.head, out);
    return this.kernel.floats(out, this.model.vocab);
  }

  // Rows from position `first` on. Only keys and values of the last block count where `ends`.
  blocks(x, rows, first, ends) {
    const { kernel, model, shape } = this, { dim } = model, rope = [kernel.at(model.cos), kernel.at(model.sin)];
    model.blocks.forEach((block, layer) => {
      const cache = this.caches[layer], normed = this.row("normed", rows), out = this.row("out", rows);
      const qkv = this.row("qkv", rows, block.qkv.outputs), mixed = this.row("mixed", rows, block.proj.inputs);
      kernel.layerNorm(x, rows, dim, block.attention_norm, normed);
      kernel.linear(normed, rows, block.qkv, qkv);
      kernel.remember(qkv, rows, shape, [block.query_norm, block.key_norm], rope, first, cache);
      if (ends && layer === model.blocks.length - 1) return;
      kernel.attend(qkv, rows, shape, first + 1, 1, cache, model.scale, mixed);
      kernel.linear(mixed, rows, block.proj, out);
      kernel.run.add(x, out, rows * dim);
      kernel.layerNorm(x, rows, dim, block.mlp_norm, normed);
      const hidden = this.row("hidden", rows, block.up.outputs);
      kernel.linear(normed, rows, block.up, hidden);
      kernel.gelu(hidden, rows * block.up.outputs, model.gelu);
      kernel.linear(hidden, rows, block.down, out);
      kernel.run.add(x, out, rows * dim);
    });
  }

  // exp(logits) over its largest value, as integers.
  masses(logits) {
    const place = this.row("masses", 1, logits.length);
    this.kernel.floats(place, logits.length).set(logits);
    this.kernel.run.masses(place, logits.length);
    return this.kernel.floats(place, logits.length);
  }

  // Bits of the distribution, and a token of it after temperature, top_k and top_p.
  draw(logits, uniform) {
    logits = logits.slice();
    const masses = this.masses(logits), bits = entropy(masses), { temperature, greedy } = this.sampling;
    if (greedy) return [logits.indexOf(Math.max(...logits)), bits];
    if (temperature === 1) return [drawn(masses, logits, this.sampling, uniform), bits];
    const scaled = logits.map(value => value / Math.fround(temperature));
    return [drawn(this.masses(scaled), scaled, this.sampling, uniform), bits];
  }
}

function symlog(x) { return Math.sign(x) * Math.fround(log(1 + Math.abs(x))) }

function log(x) {  // of a normal number, as `numbers.log`
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, x);
  let exponent = (bits.getUint16(0) >> 4) - 1022;
  bits.setUint16(0, bits.getUint16(0) & 0xf | 1022 << 4);  // from 1/2 to 1
  let mantissa = bits.getFloat64(0);
  if (mantissa < 0.7071) { mantissa *= 2; exponent-- }
  const t = (mantissa - 1) / (mantissa + 1), square = t * t;
  let series = 0;
  for (let power = 23; power > 0; power -= 2) series = series * square + 1 / power;
  return 2 * t * series + exponent * 0.6931471805599453;
}

function entropy(masses) {
  const total = sum(masses);
  let logs = 0;
  for (let i = 0; i < masses.length; i++) if (masses[i]) logs += masses[i] * Math.log2(masses[i]);
  return Math.log2(total) - logs / total;
}

function drawn(masses, logits, { top_k, top_p }, uniform) {  // as `drawn` in decoder.py
  const kept = Float64Array.from(masses), count = kept.length;
  if (top_k > 0 && top_k < count) {
    const kth = logits.slice().sort()[count - top_k];
    let room = top_k;
    for (let i = 0; i < count; i++) room -= logits[i] > kth;
    for (let i = 0; i < count; i++) if (logits[i] < kth || (logits[i] === kth && room-- <= 0)) kept[i] = 0;
  }
  if (top_p < 1) {
    const most = top_p * sum(kept);
    let before = 0;
    for (const i of [...kept.keys()].sort((a, b) => kept[b] - kept[a] || a - b)) {
      const mass = kept[i];
      if (before >= most) kept[i] = 0;
      before += mass;
    }
  }
  const level = uniform * sum(kept);
  let total = 0, token = 0;
  while ((total += kept[token]) <= level) token++;
  return token;
}

function sum(values) {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}
