// The arithmetic of worldmodel/codec/exact for a browser: the same bits as `numbers` gives in Python.
//
// Sums add integers that int32 or float64 hold, so their order is free. Everything else is a single
// operation of IEEE 754, or a table that Python made. WebAssembly has no fused multiply-add that a
// compiler could slip in. Rebuild with the command in build.py.

#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define WIDE 524288.0f        // numbers.LIMIT: largest operand of attention and norms
#define TINY 1e-30f           // numbers.TINY
#define MASS 1073741824.0f    // numbers.MASS
#define STEPS 65536.0f        // numbers.STEPS
#define DEPTH 32.0f           // numbers.DEPTH
#define FINE 10               // numbers.FINE
#define REACH 8.0f            // numbers.WIDTH
#define GRAIN 256.0f          // numbers.GRAIN

static const float *coarse, *fine; // tables of exp

EXPORT(tables) void tables(const float *of_coarse, const float *of_fine) {
  coarse = of_coarse;
  fine = of_fine;
}

static float largest(const float *x, int n) {
  float most = 0;
  for (int i = 0; i < n; i++) {
    float size = __builtin_fabsf(x[i]);
    most = size > most ? size : most;
  }
  return most;
}

static float scale_of(float most, float limit) {
  return (most < TINY ? TINY : most) * (1 / limit);
}

static float exp_of(float x) { // x is not positive
  float steps = x * -STEPS;
  int place = (int)__builtin_rintf(steps < STEPS * DEPTH ? steps : STEPS * DEPTH);
  return coarse[place >> FINE] * fine[place & ((1 << FINE) - 1)];
}

static void masses_of(float *x, int n) {
  float most = x[0];
  for (int i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
  for (int i = 0; i < n; i++) x[i] = __builtin_rintf(exp_of(x[i] - most) * MASS);
}

EXPORT(masses) void masses(float *x, int n) { masses_of(x, n); }

// Rows to int16 of at most `limit`, a power of two, and a scale each; `stride` is a multiple of 8.
EXPORT(round_rows)
void round_rows(const float *x, int rows, int n, int stride, float limit, int16_t *out, float *scales) {
  for (int r = 0; r < rows; r++, x += n, out += stride) {
    float scale = scales[r] = scale_of(largest(x, n), limit);
    int i = 0;
    v128_t by = wasm_f32x4_splat(scale);
    for (; i + 8 <= n; i += 8) {
      v128_t a = wasm_f32x4_nearest(wasm_f32x4_div(wasm_v128_load(x + i), by));
      v128_t b = wasm_f32x4_nearest(wasm_f32x4_div(wasm_v128_load(x + i + 4), by));
      a = wasm_i32x4_trunc_sat_f32x4(a);
      b = wasm_i32x4_trunc_sat_f32x4(b);
      wasm_v128_store(out + i, wasm_i16x8_narrow_i32x4(a, b));
    }
    for (; i < n; i++) out[i] = (int16_t)__builtin_rintf(x[i] / scale);
    for (; i < stride; i++) out[i] = 0;
  }
}

static v128_t four_sums(v128_t a, v128_t b, v128_t c, v128_t d) {
  v128_t ab = wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
  v128_t cd = wasm_i32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
  return wasm_i32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 1, 4, 5), wasm_i32x4_shuffle(ab, cd, 2, 3, 6, 7));
}

static void put(v128_t sums, float scale, const float *scales, const float *bias, int room, float *out) {
  v128_t y = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sums), wasm_f32x4_splat(scale));
  y = wasm_f32x4_mul(y, wasm_v128_load(scales));
  y = bias ? wasm_f32x4_add(y, wasm_v128_load(bias)) : y;
  if (room >= 4) {
    wasm_v128_store(out, y);
    return;
  }
  float four[4];
  wasm_v128_store(four, y);
  for (int i = 0; i < room; i++) out[i] = four[i];
}

#define MORE(acc, a, w) acc = wasm_i32x4_add(acc, wasm_i32x4_dot_i16x8(a, w))

// out = a b.T + bias for int16 rows a and int8 rows b, whose number is padded to a multiple of 4.
EXPORT(products)
void products(const int16_t *a, const float *a_scales, int rows, int stride, const int8_t *b,
              const float *b_scales, const float *bias, int outs, float *out) {
  for (int r = 0; r < rows; r += 2, a += 2 * stride, out += 2 * outs) {
    int two = r + 1 < rows;
    const int16_t *second = a + (two ? stride : 0);
    for (int o = 0; o < outs; o += 4) {
      const int8_t *w = b + o * stride;
      v128_t s0, s1, s2, s3, t0, t1, t2, t3;
      s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = wasm_i32x4_splat(0);
      for (int k = 0; k < stride; k += 8) {
        v128_t x = wasm_v128_load(a + k), y = wasm_v128_load(second + k);
        v128_t w0 = wasm_i16x8_load8x8(w + k), w1 = wasm_i16x8_load8x8(w + stride + k);
        v128_t w2 = wasm_i16x8_load8x8(w + 2 * stride + k), w3 = wasm_i16x8_load8x8(w + 3 * stride + k);
        MORE(s0, x, w0); MORE(s1, x, w1); MORE(s2, x, w2); MORE(s3, x, w3);
        if (two) { MORE(t0, y, w0); MORE(t1, y, w1); MORE(t2, y, w2); MORE(t3, y, w3); }
      }
      const float *more = bias ? bias + o : 0;
      put(four_sums(s0, s1, s2, s3), a_scales[r], b_scales + o, more, outs - o, out + o);
      if (two) put(four_sums(t0, t1, t2, t3), a_scales[r + 1], b_scales + o, more, outs - o, out + outs + o);
    }
  }
}

// Integers of at most WIDE in float64; the scale.
static float widened(const float *x, int n, double *out) {
  float scale = scale_of(largest(x, n), WIDE);
  for (int i = 0; i < n; i++) out[i] = __builtin_rintf(x[i] / scale);
  return scale;
}

static double square_sum(const double *x, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += x[i] * x[i];
  return sum;
}

// x with mean 0 and variance 1 over `n` integers of a scale; overwrites them.
static void standardised(double *x, int n, float own_scale, double eps) {
  double scale = own_scale, sum = 0;
  for (int i = 0; i < n; i++) sum += x[i];
  double mean = sum / n, variance = square_sum(x, n) / n - mean * mean;
  variance = (variance > 0 ? variance : 0) * (scale * scale);
  double by = scale / __builtin_sqrt(variance + eps);
  for (int i = 0; i < n; i++) x[i] = (x[i] - mean) * by;
}

EXPORT(layer_norm)
void layer_norm(const float *x, int rows, int n, const float *weight, const float *bias, double eps,
                double *scratch, float *out) {
  for (int r = 0; r < rows; r++, x += n, out += n) {
    float scale = widened(x, n, scratch);
    standardised(scratch, n, scale, eps);
    for (int i = 0; i < n; i++) {
      float y = (float)scratch[i];
      y = weight ? y * weight[i] : y;
      out[i] = bias ? y + bias[i] : y;
    }
  }
}

// Over all cells and the channels of a group; x is [cell channel].
EXPORT(group_norm)
void group_norm(const float *x, int cells, int channels, int groups, const float *weight,
                const float *bias, double eps, double *scratch, float *out) {
  int size = channels / groups;
  for (int first = 0; first < channels; first += size) {
    float most = 0;
    for (int c = 0; c < cells; c++) {
      float here = largest(x + c * channels + first, size);
      most = here > most ? here : most;
    }
    float scale = scale_of(most, WIDE);
    for (int c = 0; c < cells; c++)
      for (int i = 0; i < size; i++)
        scratch[c * size + i] = __builtin_rintf(x[c * channels + first + i] / scale);
    standardised(scratch, cells * size, scale, eps);
    for (int c = 0; c < cells; c++)
      for (int i = 0; i < size; i++) {
        int at = first + i;
        out[c * channels + at] = (float)scratch[c * size + i] * weight[at] + bias[at];
      }
  }
}

static void head_norm(float *x, int n, const float *weight, double eps, double *scratch) {
  double scale = widened(x, n, scratch);
  float root = (float)__builtin_sqrt(square_sum(scratch, n) / n * (scale * scale) + eps);
  for (int i = 0; i < n; i++) x[i] = x[i] / root * weight[i];
}

static void turn(float *x, int half, const float *cosine, const float *sine) {
  for (int i = 0; i < half; i++) {
    float a = x[i], b = x[i + half];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + half] = a * sine[i] + b * cosine[i];
  }
}

// Queries, keys and values of new positions: norms and RoPE in place; keys and values go to the
// cache [kv_head position channel], integers and scales. Weights of norms and `cosine` may be 0.
EXPORT(remember)
void remember(float *qkv, int rows, int heads, int kv_heads, int n, const float *query_weight,
              const float *key_weight, double eps, const float *cosine, const float *sine, int first,
              int capacity, double *keys, float *key_scales, double *values, float *value_scales,
              double *scratch) {
  for (int r = 0; r < rows; r++) {
    int at = first + r, half = n / 2;
    for (int h = 0; h < heads + kv_heads; h++, qkv += n) {
      const float *weight = h < heads ? query_weight : key_weight;
      if (weight) head_norm(qkv, n, weight, eps, scratch);
      if (cosine) turn(qkv, half, cosine + at * half, sine + at * half);
      if (h < heads) continue;
      int place = (h - heads) * capacity + at;
      key_scales[place] = widened(qkv, n, keys + place * n);
    }
    for (int h = 0; h < kv_heads; h++, qkv += n) {
      int place = h * capacity + at;
      value_scales[place] = widened(qkv, n, values + place * n);
    }
  }
}

#define PAIR(s, w, at) s = wasm_f64x2_add(s, wasm_f64x2_mul(w, wasm_v128_load(at)))

static double both(v128_t x) { return wasm_f64x2_extract_lane(x, 0) + wasm_f64x2_extract_lane(x, 1); }

// Products of a query with consecutive keys; eight at once share what is read of the query.
static void dots(const double *query, const double *keys, int rows, int n, double *out) {
  int p = 0, even = n & ~1;
  for (; p + 8 <= rows; p += 8, keys += 8 * n) {
    v128_t a = wasm_f64x2_splat(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (int i = 0; i < even; i += 2) {
      v128_t q = wasm_v128_load(query + i);
      PAIR(a, q, keys + i);
      PAIR(b, q, keys + n + i);
      PAIR(c, q, keys + 2 * n + i);
      PAIR(d, q, keys + 3 * n + i);
      PAIR(e, q, keys + 4 * n + i);
      PAIR(f, q, keys + 5 * n + i);
      PAIR(g, q, keys + 6 * n + i);
      PAIR(h, q, keys + 7 * n + i);
    }
    double sums[8] = {both(a), both(b), both(c), both(d), both(e), both(f), both(g), both(h)};
    for (int k = 0; k < 8; k++) out[p + k] = sums[k] + (even < n ? query[even] * keys[k * n + even] : 0);
  }
  for (; p < rows; p++, keys += n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += query[i] * keys[i];
    out[p] = sum;
  }
}

// The sum of the rows of `values`, each by its weight; eight columns at once stay in registers.
static void weigh(double *sums, const double *values, const double *by, int rows, int n) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    v128_t a = wasm_f64x2_splat(0), b = a, c = a, d = a;
    const double *at = values + i;
    for (int p = 0; p < rows; p++, at += n) {
      v128_t w = wasm_v128_load64_splat(by + p);
      PAIR(a, w, at);
      PAIR(b, w, at + 2);
      PAIR(c, w, at + 4);
      PAIR(d, w, at + 6);
    }
    wasm_v128_store(sums + i, a);
    wasm_v128_store(sums + i + 2, b);
    wasm_v128_store(sums + i + 4, c);
    wasm_v128_store(sums + i + 6, d);
  }
  for (; i < n; i++) {
    sums[i] = 0;
    for (int p = 0; p < rows; p++) sums[i] += by[p] * values[p * n + i];
  }
}

// Attention of row r to the first `seen + r * causal` positions. Rows of x are `x_stride` floats
// apart. `scratch` has room for 2 n float64 and one of every position, `weights` for a float of each.
EXPORT(attend)
void attend(const float *x, int rows, int x_stride, int heads, int kv_heads, int n, int seen,
            int causal, int capacity, const double *keys, const float *key_scales,
            const double *values, const float *value_scales, float factor, double *scratch,
            float *weights, float *out) {
  double *query = scratch, *sums = query + n, *by = sums + n;
  for (int r = 0; r < rows; r++, x += x_stride) {
    int count = seen + r * causal;
    for (int h = 0; h < heads; h++, out += n) {
      int kv = h / (heads / kv_heads) * capacity;
      float scale = widened(x + h * n, n, query);
      dots(query, keys + kv * n, count, n, by);
      for (int p = 0; p < count; p++) weights[p] = (float)by[p] * scale * key_scales[kv + p] * factor;
      masses_of(weights, count);
      double total = 0;
      for (int p = 0; p < count; p++) total += weights[p];
      for (int p = 0; p < count; p++) weights[p] *= value_scales[kv + p];
      float weight_scale = scale_of(largest(weights, count), WIDE);
      for (int p = 0; p < count; p++) by[p] = __builtin_rintf(weights[p] / weight_scale);
      weigh(sums, values + kv * n, by, count, n);
      double back = weight_scale / total;
      for (int i = 0; i < n; i++) out[i] = (float)(sums[i] * back);
    }
  }
}

EXPORT(gelu) void gelu(float *x, int n, const float *values, const float *slopes) {
  float last = 2 * REACH * GRAIN;
  for (int i = 0; i < n; i++) {
    float place = x[i] * GRAIN + REACH * GRAIN;
    place = place < 0 ? 0 : place > last ? last : place;
    float low = __builtin_floorf(place);
    int index = (int)low;
    x[i] = ((place - low) * slopes[index] + values[index]) * x[i];
  }
}

EXPORT(silu) void silu(float *x, int n) {
  for (int i = 0; i < n; i++) {
    float tail = exp_of(-__builtin_fabsf(x[i]));
    x[i] = (x[i] < 0 ? tail : 1.0f) / (tail + 1) * x[i];
  }
}

EXPORT(add) void add(float *x, const float *y, int n) {
  for (int i = 0; i < n; i++) x[i] += y[i];
}

// The cells around every cell, as rows [ky kx channel]; x is [height width channel], zeros outside.
EXPORT(patches)
void patches(const float *x, int height, int width, int channels, int side, float *out) {
  int reach = side / 2;
  for (int i = 0; i < height; i++)
    for (int j = 0; j < width; j++)
      for (int y = i - reach; y <= i + reach; y++)
        for (int z = j - reach; z <= j + reach; z++, out += channels) {
          int inside = y >= 0 && y < height && z >= 0 && z < width;
          const float *from = x + (y * width + z) * channels;
          for (int c = 0; c < channels; c++) out[c] = inside ? from[c] : 0;
        }
}
