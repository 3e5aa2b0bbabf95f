// Decodes token grids to pixels by the decoder of an image autoencoder; rows of channels by cell.
"use strict";

class Frames {
  constructor(kernel, network) { Object.assign(this, { kernel, network }) }

  // Pixels [height width 3] of a grid, and their height and width.
  decode(grid, size) {
    const { kernel, network } = this, { width } = network, codes = kernel.at(network.codes);
    let x = kernel.scratch("frame codes", 4 * grid.length * width), now = { size, channels: width };
    const into = kernel.floats(x, grid.length * width);
    grid.forEach((token, i) => into.set(kernel.floats(codes + 4 * token * width, width), i * width));
    network.layers.forEach((layer, n) => { x = this[layer.kind](x, now, layer, `frame ${n % 2} `) });
    const out = this.convolved(this.normed(x, now, network.norm, "frame inner"), now, network.out, "frame conv");
    return this.pixels(this.shuffled(out, now, network.patch, "frame pixels"), now);
  }

  room(name, { size: [height, width], channels }) { return this.kernel.scratch(name, 4 * height * width * channels) }

  normed(x, now, norm, name) {  // group norm and SiLU
    const out = this.room(name, now), [height, width] = now.size;
    this.kernel.groupNorm(x, height * width, now.channels, norm, out);
    this.kernel.run.silu(out, height * width * now.channels);
    return out;
  }

  convolved(x, now, layer, name) {
    now.channels = layer.outputs;
    const out = this.room(name, now);
    this.kernel.convolution(x, now.size, layer, out);
    return out;
  }

  add(x, y, { size: [height, width], channels }) { this.kernel.run.add(x, y, height * width * channels); return x }

  convolution(x, now, layer, name) { return this.convolved(x, now, layer.convolution, name) }

  residual(x, now, layer, name) {
    const before = { ...now };
    let inner = this.normed(x, now, layer.norm1, "frame inner");
    inner = this.convolved(inner, now, layer.conv1, "frame conv");
    inner = this.normed(inner, now, layer.norm2, "frame inner");
    inner = this.convolved(inner, now, layer.conv2, "frame conv");
    const out = layer.shortcut ? this.convolved(x, before, layer.shortcut, name) : this.copy(x, now, name);
    return this.add(out, inner, now);
  }

  copy(x, now, name) {
    const out = this.room(name, now), count = now.size[0] * now.size[1] * now.channels;
    this.kernel.floats(out, count).set(this.kernel.floats(x, count));
    return out;
  }

  attention(x, now, layer, name) {  // of every cell to all
    const { kernel } = this, { channels } = now, cells = now.size[0] * now.size[1], shape = [1, 1, channels];
    const normed = this.room("frame inner", now), mixed = this.room("frame conv", now), out = this.copy(x, now, name);
    kernel.groupNorm(x, cells, channels, layer.norm, normed);
    const qkv = this.convolved(normed, { ...now }, layer.qkv, "frame qkv");
    this.cache ??= kernel.cache(1, channels, cells);
    kernel.remember(qkv, cells, shape, [null, null], [0, 0], 0, this.cache);
    kernel.attend(qkv, cells, shape, cells, 0, this.cache, channels ** -.5, mixed);
    return this.add(out, this.convolved(mixed, now, layer.proj, "frame inner"), now);
  }

  upsample(x, now, layer, name) {  // every cell four times, then a convolution
    const [height, width] = now.size, { channels } = now;
    now.size = [2 * height, 2 * width];
    const large = this.room("frame large", now), from = this.kernel.floats(x, height * width * channels), to = this.kernel.floats(large, 4 * from.length);
    for (let i = 0; i < 2 * height; i++) for (let j = 0; j < 2 * width; j++) {
      const cell = ((i >> 1) * width + (j >> 1)) * channels;
      to.set(from.subarray(cell, cell + channels), (i * 2 * width + j) * channels);
    }
    return this.convolved(large, now, layer.convolution, name);
  }

  shuffle(x, now, layer, name) { return this.shuffled(this.convolved(x, now, layer.convolution, "frame conv"), now, 2, name) }

  shuffled(x, now, by, name) {  // depth to space
    const [height, width] = now.size, deep = now.channels, channels = deep / by ** 2;
    now.size = [height * by, width * by]; now.channels = channels;
    const out = this.room(name, now), from = this.kernel.floats(x, height * width * deep), to = this.kernel.floats(out, from.length);
    for (let i = 0; i < height * by; i++) for (let j = 0; j < width * by; j++) {
      const cell = (Math.floor(i / by) * width + Math.floor(j / by)) * deep + (i % by) * by + j % by;
      for (let c = 0; c < channels; c++) to[(i * width * by + j) * channels + c] = from[cell + c * by ** 2];
    }
    return out;
  }

  pixels(x, { size: [height, width] }) {  // as to_uint8, which rounds halves to even
    const values = this.kernel.floats(x, height * width * 3), out = new Uint8Array(values.length);
    values.forEach((value, i) => {
      const level = Math.fround(Math.fround(Math.min(Math.max(value, -1), 1) + 1) * 127.5), low = Math.floor(level), rest = level - low;
      out[i] = low + (rest > .5 || (rest === .5 && low % 2) ? 1 : 0);
    });
    return { pixels: out, height, width };
  }
}
