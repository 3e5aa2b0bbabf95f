// The kernel and its memory: layers of networks over rows of float32 numbers at places.
"use strict";

const LIMIT = 8192;  // numbers.BYTES.inputs
const ALIGNED = 16;

class Kernel {
  constructor(module, numbers) {
    const made = new WebAssembly.Instance(module, {});
    this.run = made.exports;
    this.memory = made.exports.memory;
    this.end = made.exports.__heap_base.value;
    this.named = new Map();
    this.base = this.room(numbers.length);  // of what the file holds
    new Uint8Array(this.memory.buffer, this.base, numbers.length).set(numbers);
  }

  room(bytes) {  // memory that nobody else has
    const place = Math.ceil(this.end / ALIGNED) * ALIGNED;
    this.end = place + bytes;
    const missing = this.end - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / 65536));
    return place;
  }

  scratch(name, bytes) {  // the same memory for a name, as large as it was ever asked for
    let held = this.named.get(name);
    if (!held || held.bytes < bytes) this.named.set(name, held = { bytes, place: this.room(bytes) });
    return held.place;
  }

  floats(place, count) { return new Float32Array(this.memory.buffer, place, count) }
  at(place) { return place && this.base + place }  // of what the file holds; 0 is nothing

  tables({ exp, none, tanh }) {
    this.run.tables(...exp.map(place => this.at(place)));
    this.gelus = { none, tanh };
  }

  linear(x, rows, layer, out) {
    const ints = this.scratch("ints", 2 * rows * layer.stride), scales = this.scratch("scales", 4 * rows);
    this.run.round_rows(x, rows, layer.inputs, layer.stride, LIMIT, ints, scales);
    this.run.products(ints, scales, rows, layer.stride, this.at(layer.weight), this.at(layer.scales), this.at(layer.bias), layer.outputs, out);
  }

  convolution(x, [height, width], layer, out) {  // of cells in rows of channels; zeros around them
    const side = layer.side, cells = height * width;
    if (side === 1) return this.linear(x, cells, layer, out);
    const patches = this.scratch("patches", 4 * cells * layer.inputs);
    this.run.patches(x, height, width, layer.inputs / side ** 2, side, patches);
    this.linear(patches, cells, layer, out);
  }

  layerNorm(x, rows, width, norm, out) {
    this.run.layer_norm(x, rows, width, this.at(norm.weight), this.at(norm.bias), norm.eps, this.scratch("wide", 8 * width), out);
  }

  groupNorm(x, cells, channels, norm, out) {
    const wide = this.scratch("wide", 8 * cells * channels);
    this.run.group_norm(x, cells, channels, norm.groups, this.at(norm.weight), this.at(norm.bias), norm.eps, wide, out);
  }

  gelu(x, count, kind) { this.run.gelu(x, count, ...this.gelus[kind].map(place => this.at(place))) }

  cache(heads, width, capacity) {  // keys and values of one layer
    const whole = () => this.room(8 * heads * width * capacity), scales = () => this.room(4 * heads * capacity);
    return { capacity, keys: whole(), keyScales: scales(), values: whole(), valueScales: scales() };
  }

  remember(qkv, rows, [heads, kvHeads, width], norms, rope, first, cache) {
    const [query, key] = norms.map(norm => norm ? this.at(norm.weight) : 0), eps = norms[0] ? norms[0].eps : 0;
    this.run.remember(qkv, rows, heads, kvHeads, width, query, key, eps, ...rope, first, cache.capacity,
      cache.keys, cache.keyScales, cache.values, cache.valueScales, this.scratch("wide", 8 * width));
  }

  attend(qkv, rows, [heads, kvHeads, width], seen, causal, cache, scale, out) {
    this.run.attend(qkv, rows, (heads + 2 * kvHeads) * width, heads, kvHeads, width, seen, causal, cache.capacity,
      cache.keys, cache.keyScales, cache.values, cache.valueScales, scale,
      this.scratch("wide", 8 * (2 * width + cache.capacity)), this.scratch("weights", 4 * cache.capacity), out);
  }
}
