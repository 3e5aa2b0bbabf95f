// The worker of the page: answers its questions as worldmodel/drive/session.py does.
"use strict";

const MOST_DREAMS = 8, MAX_SEED = 2 ** 31;

class Session {
  constructor({ known, numbers, kernel }) {
    this.known = known;
    this.kernel = new Kernel(new WebAssembly.Module(kernel), numbers);
    this.kernel.tables(known.tables);
    this.gpt = new GPT(this.kernel, known.gpt, known.sampling);
    this.frames = new Frames(this.kernel, known.frames);
    this.clips = known.clips.map(clip => this.opened(clip));
    this.start({ clip: 0, seed: known.about.seed });
  }

  opened(clip) {  // grids and rows of actions
    const { cells } = this.gpt, { buffer } = this.kernel.memory, columns = this.known.controls ? this.known.controls.names.length : 0;
    const tokens = new Uint16Array(buffer, this.kernel.at(clip.tokens), clip.steps * cells);
    const rows = columns ? this.kernel.floats(this.kernel.at(clip.actions), clip.rows * columns) : [];
    const cut = (all, size, count) => Array.from({ length: count }, (_, i) => Array.from(all.subarray(i * size, (i + 1) * size)));
    return { ...clip, grids: cut(tokens, cells, clip.steps), rows: columns ? cut(rows, columns, clip.rows) : [] };
  }

  open() { return { ...this.known.about, seed: this.seed, ...this.state() } }
  look() { return this.state() }

  start({ clip, seed = this.known.about.seed }) {
    whole({ seed }, 0, MAX_SEED);
    whole({ clip }, 0, this.clips.length - 1);
    this.clip = this.clips[clip];
    this.seed = seed;
    this.numbers = new Numbers(seed);
    const prompt = this.clip.prompt;
    this.dreams = [{ grids: this.clip.grids.slice(0, prompt), actions: this.clip.rows.slice(0, prompt - 1), bits: [] }];
    this.before = [];  // of every step: time steps read, and the random numbers
    this.read = prompt;
    this.holder = null;  // whose keys and values the cache holds
    return this.state();
  }

  step({ commands, recorded, actions }) {
    const began = performance.now(), { dreams, gpt } = this, { controls } = this.known;
    const given = controls ? actions || (recorded ? this.recorded() : this.completed(commands)) : dreams.map(() => null);
    const outside = controls ? controls.names.filter((_, c) => given.some(row => beyond(row[c], controls.low[c], controls.high[c]))) : [];
    this.before.push({ read: this.read, numbers: this.numbers.copy() });
    // Cells first, then dreams, as the decoder draws them.
    const uniform = Array.from({ length: gpt.cells }, () => dreams.map(() => this.numbers.uniform()));
    const read = this.reads();
    dreams.forEach((dream, d) => {
      this.recall(dream, read);
      const bits = [];
      const grid = gpt.predict(dream.grids.at(-1), given[d], (logits, cell) => {
        const [token, own] = gpt.draw(logits, uniform[cell][d]);
        bits.push(own);
        return token;
      });
      dream.grids.push(grid); dream.bits.push(bits);
      if (controls) dream.actions.push(given[d]);
    });
    this.read = read + 1;
    return { ...this.state(outside), ms: performance.now() - began };
  }

  // Time steps that the next one reads: a full context slides.
  reads() {
    const { context } = this.gpt.model;
    return this.read === context ? context - this.known.slide : this.read;
  }

  recall(dream, read) {  // keys and values of the newest time steps of a dream
    if (this.holder === dream && this.gpt.steps === read) return;
    this.gpt.read(dream.grids.slice(-read), read > 1 ? dream.actions.slice(1 - read) : []);
    this.holder = dream;
  }

  // What the next step needs and no action changes, while the page paints.
  foresee() { if (this.dreams.length === 1) this.recall(this.dreams[0], this.reads()) }

  rewind({ num }) {
    whole({ num }, 1, Infinity);
    num = Math.min(num, this.before.length);
    if (!num) return this.state();
    const { read, numbers } = this.before.at(-num);
    this.before.splice(-num);
    for (const dream of this.dreams) for (const kept of [dream.grids, dream.bits, dream.actions]) kept.splice(-Math.min(num, kept.length));
    Object.assign(this, { read, numbers: numbers.copy(), holder: null });
    return this.state();
  }

  branch({ num }) {
    whole({ dreams: num * this.dreams.length }, 1, MOST_DREAMS);
    return this.go(this.dreams.flatMap(dream => Array(num).fill(dream)));
  }

  keep({ dream }) {
    whole({ dream }, 0, this.dreams.length - 1);
    return this.go([this.dreams[dream]]);
  }

  go(dreams) {
    this.dreams = dreams.map(dream => ({ grids: [...dream.grids], actions: [...dream.actions], bits: [...dream.bits] }));
    this.holder = null;
    return this.state();
  }

  // All columns: the commands, and what follows by least squares, as Controls.complete.
  completed(commands) {
    const { commanded, followers, weights, turns, low, high } = this.known.controls;
    if (!Array.isArray(commands) || commands.length !== this.dreams.length || commands.some(row => row.length !== commanded.length || !row.every(Number.isFinite)))
      throw new Error(`commands: give ${commanded.length} finite numbers of each of ${this.dreams.length} dreams`);
    return commands.map((row, d) => {
      const before = this.newest(this.dreams[d]), given = row.map(Math.fround), out = [...before];
      commanded.forEach((place, c) => { out[place] = given[c] });
      const features = [1, ...before, ...given, ...turns ? [Math.fround(given[turns[0]] * before[turns[1]])] : []];
      followers.forEach((place, f) => {
        const value = features.reduce((sum, x, i) => sum + x * weights[i][f], 0);
        out[place] = Math.fround(Math.min(Math.max(value, low[place]), high[place]));
      });
      return out;
    });
  }

  recorded() {
    const row = this.clip.rows[this.clip.prompt - 1 + this.before.length];
    if (!row) throw new Error(`${this.clip.name}: the file keeps no more of the recording; drive on yourself`);
    return this.dreams.map(() => row);
  }

  newest(dream) { return dream.actions.at(-1) || this.clip.rows[Math.max(0, this.clip.prompt - 2)] || [] }

  state(outside = []) {
    const { dreams } = this, size = this.known.gpt.grid, still = Array(this.gpt.cells).fill(0);
    const shown = dreams.map(dream => this.frames.decode(dream.grids.at(-1), size)), [{ pixels, height, width }] = shown;
    const all = new Uint8Array(shown.length * pixels.length);
    shown.forEach((frame, i) => all.set(frame.pixels, i * pixels.length));
    return {
      time: this.before.length, clip: this.clip.name, dreams: dreams.length, outside,
      tokens: dreams.map(dream => dream.grids.at(-1)), bits: dreams.map(dream => dream.bits.at(-1) || still),
      actions: dreams.map(dream => this.newest(dream)),
      pixels: all, shape: [shown.length, 1, height, width, 3], real: this.real ? this.recording(size) : "",
    };
  }

  recording(size) {  // the recording's frame now; "" where it has ended
    const grid = this.clip.grids[this.clip.prompt - 1 + this.before.length];
    return grid ? this.frames.decode(grid, size).pixels : "";
  }
}

function whole(values, low, high) {
  for (const [name, value] of Object.entries(values))
    if (!Number.isInteger(value) || value < low || value > high) throw new Error(`${name}=${value}: give a whole number from ${low} to ${high}`);
}
function beyond(value, low, high) {
  const margin = 1e-6 * Math.max(1, Math.abs(high - low));
  return value < low - margin || value > high + margin;
}

const QUESTIONS = ["open", "look", "start", "step", "rewind", "branch", "keep"];
let session, failed;
onmessage = ({ data: { number, what, values, begin } }) => {
  try {
    if (failed) throw failed;
    if (begin) { session = new Session(begin); return }
    if (!QUESTIONS.includes(what)) throw new Error(`${what}: this file has no such question`);
    session.real = Boolean(values.real);
    postMessage({ number, said: session[what](values) });
    if (what === "step") session.foresee();
  } catch (error) {
    if (begin) failed = error; else postMessage({ number, error: error.message });
  }
};
