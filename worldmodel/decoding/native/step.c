/* New positions of a GPT through all blocks, in one parallel region; step.py fills the structs.
 *
 * The work is a row of phases, five per layer, each cut into chunks. A thread takes the next chunk
 * that nobody took; where it finds none, it waits for the others, and what takes them too long it
 * computes again: a thread that another process keeps from running holds up the end of a step, and no
 * part of it. So no buffer is written twice in a step with different numbers: every layer has its
 * own. Each sum has one order, so the results depend neither on the number of threads nor on how many
 * rows are computed at once.
 *
 * Weights lie as in torch.nn.Linear, [out, in]; inputs, sums and outputs are float32.
 */
#include "lanes.h"
#include <stdatomic.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
  const void *weight;
  const float *scale, *bias; /* one per output, or NULL */
  int64_t rows, cols;
} Matrix;

typedef struct {
  Matrix qkv, proj, up, gate, down;
  const float *attention_norm, *attention_bias, *mlp_norm, *mlp_bias, *query_norm, *key_norm;
  char *keys, *values, *shared_keys, *shared_values;
  float *key_scales, *shared_scales;
} Layer;

typedef struct {
  const Layer *layers;
  int64_t num_layers, dim, heads, kv_heads, head_dim, hidden;
  int64_t weight_kind, rms, mlp_kind; /* 0 float, 1 bfloat16, 2 int8; 0 tanh, 1 erf, 2 swiglu */
  int64_t int8_cache, capacity;       /* positions between two rows of the cache */
  int64_t shared, shared_capacity, futures; /* first positions, that so many rows share; splits */
  int64_t rows, new_positions, length, threads;
  const float *x, *cos, *sin; /* x [row, new, dim]; cos, sin [new, head_dim / 2] or NULL */
  float *out, *arena;
  double eps, qk_eps, scale;
} Step;

enum { QKV, ATTENTION, PROJ, UP, DOWN, KINDS };
enum { CHUNK_BYTES = 262144, MOST_ROWS = 64, ROW_END = 8, PATIENCE = 1500 };

typedef struct {
  atomic_int next, done;
  char apart[56]; /* a cache line each */
} Phase;

typedef struct {
  int64_t many, width, splits, shared_splits, shared_chunks, part, chunks[KINDS], lines[KINDS], most;
  float *qkv, *parts, *middle, *hidden, *end; /* of all layers */
  float *own;                                 /* of all threads */
  Phase *phases;
  atomic_uchar *made; /* by phase and chunk */
} Plan;

static int64_t chunk_rows(const Step *s, int64_t cols) {
  int64_t size = s->weight_kind == 0 ? 4 : s->weight_kind == 1 ? 2 : 1;
  int64_t rows = CHUNK_BYTES / (cols * size) & ~3;
  return rows < 4 ? 4 : rows > MOST_ROWS ? MOST_ROWS : rows;
}

/* Lays the arena out; returns how many floats it takes. */
static int64_t make_plan(const Step *s, Plan *p) {
  int64_t inner = s->heads * s->head_dim, layers = s->num_layers, at = 0;
  const Layer *one = s->layers;
  p->many = s->rows * s->new_positions;
  p->width = s->dim > inner ? s->dim : inner;
  p->splits = (s->length + s->new_positions + SPLIT - 1) / SPLIT;
  p->part = s->head_dim + 2;
  int64_t cols[KINDS] = {one->qkv.cols, 0, one->proj.cols, one->up.cols, one->down.cols};
  int64_t rows[KINDS] = {one->qkv.rows, 0, one->proj.rows, one->up.rows, one->down.rows};
  p->shared_splits = s->shared / SPLIT;
  p->shared_chunks = s->rows / s->futures * s->kv_heads * p->shared_splits;
  p->most = p->chunks[ATTENTION] = p->shared_chunks + s->rows * s->kv_heads * (p->splits - p->shared_splits);
  for (int kind = 0; kind < KINDS; kind++)
    if (kind != ATTENTION) {
      p->lines[kind] = chunk_rows(s, cols[kind]);
      p->chunks[kind] = (rows[kind] + p->lines[kind] - 1) / p->lines[kind];
      if (p->chunks[kind] > p->most) p->most = p->chunks[kind];
    }
#define TAKE(part, count) part = (void *)(s->arena + at), at += ((count) + 15) / 16 * 16
  TAKE(p->phases, layers * KINDS * 16);
  TAKE(p->made, (layers * KINDS * p->most + 3) / 4);
  TAKE(p->qkv, layers * p->many * one->qkv.rows);
  TAKE(p->parts, layers * p->many * s->heads * p->splits * p->part);
  TAKE(p->middle, layers * p->many * s->dim);
  TAKE(p->hidden, layers * p->many * s->hidden);
  TAKE(p->end, layers * p->many * s->dim);
  TAKE(p->own, s->threads * p->many * p->width);
  return at;
}

static void product(const Step *s, const Matrix *w, int64_t first, int64_t count, const float *x,
                    int64_t many, float y[][MOST_ROWS]) {
  int64_t offset = first * w->cols;
  if (s->weight_kind == 0)
    dots_float((const float *)w->weight + offset, w->cols, count, w->cols, x, w->cols, many, *y, MOST_ROWS);
  else if (s->weight_kind == 1)
    dots_bfloat16((const uint16_t *)w->weight + offset, w->cols, count, w->cols, x, w->cols, many, *y, MOST_ROWS);
  else
    dots_int8((const int8_t *)w->weight + offset, w->cols, count, w->cols, x, w->cols, many, *y, MOST_ROWS);
  for (int64_t m = 0; m < many; m++) {
    if (w->scale)
      for (int64_t i = 0; i < count; i++) y[m][i] *= w->scale[first + i];
    if (w->bias)
      for (int64_t i = 0; i < count; i++) y[m][i] += w->bias[first + i];
  }
}

static void normed(const float *x, const float *weight, const float *bias, int64_t size, double eps,
                   int64_t rms, float *y) {
  float mean = rms ? 0 : sum(x, size) / size;
  for (int64_t i = 0; i < size; i++) y[i] = x[i] - mean;
  float factor = 1 / sqrtf(dot(y, y, size) / size + (float)eps);
  for (int64_t i = 0; i < size; i++) {
    y[i] *= factor;
    if (weight) y[i] *= weight[i];
    if (bias) y[i] += bias[i];
  }
}

/* A query or a key, with norm and rotary position. */
static void turned(const Step *s, const float *x, const float *weight, int64_t place, float *y) {
  int64_t half = s->head_dim / 2;
  if (weight)
    normed(x, weight, NULL, s->head_dim, s->qk_eps, 1, y);
  else
    memcpy(y, x, s->head_dim * sizeof(float));
  if (!s->cos) return;
  const float *cos = s->cos + place * half, *sin = s->sin + place * half;
  for (int64_t i = 0; i < half; i++) {
    float a = y[i], b = y[i + half];
    y[i] = a * cos[i] - b * sin[i];
    y[i + half] = a * sin[i] + b * cos[i];
  }
}

static void write_bytes(const float *x, int64_t size, uint8_t *bytes, int64_t apart, float *scale) {
  float most = 0;
  for (int64_t i = 0; i < size; i++) most = fmaxf(most, fabsf(x[i]));
  *scale = 1e-30f + most * (1.0f / 127);
  for (int64_t i = 0; i < size; i++) bytes[i * apart] = (uint8_t)(128.5f + x[i] / *scale);
}

/* Writes the key and value of a position into the cache, as the classes of step.py lay it out. */
static void store(const Step *s, const Layer *layer, int64_t table, int64_t at, const float *key,
                  const float *value) {
  int64_t size = s->head_dim, room = s->capacity;
  if (!s->int8_cache) {
    float *keys = (float *)layer->keys + table * size * room, *values = (float *)layer->values + table * size * room;
    for (int64_t i = 0; i < size; i++) keys[i * room + at] = key[i], values[i * room + at] = value[i];
    return;
  }
  float ends[2];
  int64_t line = TILE + ROW_END;
  uint8_t *tile = (uint8_t *)layer->keys + (table * (room / TILE) + at / TILE) * size * line;
  uint8_t *row = (uint8_t *)layer->values + (table * room + at) * (size + ROW_END);
  write_bytes(key, size, tile + at % TILE, line, layer->key_scales + table * room + at);
  write_bytes(value, size, row, 1, ends);
  ends[1] = -128 * ends[0];
  memcpy(row + size, ends, ROW_END);
}

/* The part of a cache that a chunk reads: some positions of one key head. */
typedef struct {
  const char *keys, *values;
  const float *scales;
  int64_t room, table, at, count; /* `at`: the first one, in this memory */
} Past;

static void scores_of(const Step *s, const Past *p, const float *query, int64_t many, float *scores) {
  int64_t size = s->head_dim, line = TILE + ROW_END;
  if (!s->int8_cache) {
    const float *keys = (const float *)p->keys + p->table * size * p->room + p->at;
    scores_float(keys, p->room, p->room - p->at, size, p->count, query, many, scores, SPLIT);
    return;
  }
  for (int64_t at = 0; at < p->count; at += TILE) {
    int64_t tile = p->table * (p->room / TILE) + (p->at + at) / TILE;
    scores_int8((const uint8_t *)p->keys + tile * size * line, line, size, at + TILE < p->count,
                p->scales + p->table * p->room + p->at + at, query, many, scores + at, SPLIT);
  }
}

static void values_of(const Step *s, const Past *p, const float *weights, int64_t many, float *value) {
  int64_t size = s->head_dim;
  if (!s->int8_cache)
    dots_float((const float *)p->values + p->table * size * p->room + p->at, p->room, size, p->count,
               weights, SPLIT, many, value, size);
  else
    values_int8((const uint8_t *)p->values + (p->table * p->room + p->at) * (size + ROW_END), size,
                p->count, weights, SPLIT, many, value);
}

/* Attention of the queries that share a key head to one split of the positions. First come the
 * splits of what several rows share. */
static void attend(const Step *s, const Plan *p, int64_t number, int64_t chunk) {
  const Layer *layer = s->layers + number;
  int64_t shares = chunk < p->shared_chunks, rows = shares ? s->futures : 1, size = s->head_dim;
  int64_t splits = shares ? p->shared_splits : p->splits - p->shared_splits;
  if (!shares) chunk -= p->shared_chunks;
  int64_t split = chunk % splits + (shares ? 0 : p->shared_splits), table = chunk / splits;
  int64_t row = table / s->kv_heads * rows, head = table % s->kv_heads, group = s->heads / s->kv_heads;
  int64_t begin = split * SPLIT, stop = s->length + s->new_positions, line = layer->qkv.rows;
  int64_t count = stop - begin < SPLIT ? stop - begin : SPLIT;
  Past own = {layer->keys, layer->values, layer->key_scales, s->capacity, table, begin - s->shared, count};
  Past shared = {layer->shared_keys, layer->shared_values, layer->shared_scales, s->shared_capacity, table, begin, count};
  const Past *past = shares ? &shared : &own;
  const float *qkv = p->qkv + (number * p->many + row * s->new_positions) * line;
  for (int64_t i = 0; i < s->new_positions && !shares; i++) {
    int64_t at = s->length + i;
    float key[size];
    if (at < begin || at >= begin + count) continue;
    turned(s, qkv + i * line + (s->heads + head) * size, layer->key_norm, i, key);
    store(s, layer, table, at - s->shared, key, qkv + i * line + (s->heads + s->kv_heads + head) * size);
  }
  int64_t queries = rows * s->new_positions * group;
  float query[BATCH][size], scores[BATCH][SPLIT], value[BATCH][size];
  for (int64_t from = 0; from < queries; from += BATCH) {
    int64_t some = queries - from < BATCH ? queries - from : BATCH;
    float *parts[BATCH];
    for (int64_t q = 0; q < some; q++) {
      int64_t i = (from + q) / group, of = head * group + (from + q) % group;
      turned(s, qkv + i * line + of * size, layer->query_norm, i % s->new_positions, query[q]);
      for (int64_t c = 0; c < size; c++) query[q][c] *= (float)s->scale;
      parts[q] = p->parts + (((number * p->many + row * s->new_positions + i) * s->heads + of) * p->splits + split) * p->part;
    }
    scores_of(s, past, *query, some, *scores);
    for (int64_t q = 0; q < some; q++) {
      int64_t seen = s->length + (from + q) / group % s->new_positions + 1 - begin;
      seen = seen < 0 ? 0 : seen > count ? count : seen;
      parts[q][0] = exponentials(scores[q], seen, parts[q] + 1);
      for (int64_t at = seen; at < count; at++) scores[q][at] = 0;
    }
    values_of(s, past, *scores, some, *value);
    for (int64_t q = 0; q < some; q++) memcpy(parts[q] + 2, value[q], size * sizeof(float));
  }
}

/* The output of attention: the splits weighed by their shares of the softmax. */
static void joined(const Step *s, const Plan *p, int64_t number, float *y) {
  for (int64_t i = 0; i < p->many * s->heads; i++) {
    const float *parts = p->parts + (number * p->many * s->heads + i) * p->splits * p->part;
    float *out = y + i * s->head_dim, most = parts[0], total = 0;
    for (int64_t j = 1; j < p->splits; j++) most = fmaxf(most, parts[j * p->part]);
    memset(out, 0, s->head_dim * sizeof(float));
    for (int64_t j = 0; j < p->splits; j++) {
      const float *part = parts + j * p->part;
      float weight = expf(part[0] - most);
      total += weight * part[1];
      for (int64_t c = 0; c < s->head_dim; c++) out[c] += weight * part[2 + c];
    }
    for (int64_t c = 0; c < s->head_dim; c++) out[c] /= total;
  }
}

static const float *input_of(const Step *s, const Plan *p, int64_t number) {
  return number ? p->end + (number - 1) * p->many * s->dim : s->x;
}

/* What a product reads, in this thread's own memory. */
static const float *prepared(const Step *s, const Plan *p, int64_t number, int kind, float *own) {
  const Layer *layer = s->layers + number;
  if (kind == DOWN) return p->hidden + number * p->many * s->hidden;
  if (kind == PROJ) {
    joined(s, p, number, own);
    return own;
  }
  const float *x = kind == QKV ? input_of(s, p, number) : p->middle + number * p->many * s->dim;
  const float *weight = kind == QKV ? layer->attention_norm : layer->mlp_norm;
  const float *bias = kind == QKV ? layer->attention_bias : layer->mlp_bias;
  for (int64_t m = 0; m < p->many; m++)
    normed(x + m * s->dim, weight, bias, s->dim, s->eps, s->rms, own + m * s->dim);
  return own;
}

static void multiply(const Step *s, const Plan *p, int64_t number, int kind, int64_t chunk, const float *x) {
  const Layer *layer = s->layers + number;
  const Matrix *matrices[KINDS] = {&layer->qkv, NULL, &layer->proj, &layer->up, &layer->down};
  const Matrix *w = matrices[kind];
  float *ends[KINDS] = {p->qkv, NULL, p->middle, p->hidden, p->end};
  float *out = number == s->num_layers - 1 && kind == DOWN ? s->out : ends[kind] + number * p->many * w->rows;
  const float *past = kind == PROJ ? input_of(s, p, number) : kind == DOWN ? p->middle + number * p->many * s->dim : NULL;
  int64_t first = chunk * p->lines[kind];
  int64_t count = w->rows - first < p->lines[kind] ? w->rows - first : p->lines[kind];
  float y[p->many][MOST_ROWS], gate[p->many][MOST_ROWS];
  product(s, w, first, count, x, p->many, y);
  if (kind == UP && s->mlp_kind == 2) product(s, &layer->gate, first, count, x, p->many, gate);
  for (int64_t m = 0; m < p->many; m++) {
    float *to = out + m * w->rows + first;
    if (kind == UP) activate(y[m], gate[m], s->mlp_kind, count);
    if (past)
      for (int64_t i = 0; i < count; i++) to[i] = past[m * w->rows + first + i] + y[m][i];
    else
      memcpy(to, y[m], count * sizeof(float));
  }
}

static void work(const Step *s, const Plan *p, int64_t thread) {
  float *own = p->own + thread * p->many * p->width;
  for (int64_t phase = 0; phase < s->num_layers * KINDS; phase++) {
    int64_t number = phase / KINDS, kind = phase % KINDS, chunks = p->chunks[kind];
    Phase *state = p->phases + phase;
    atomic_uchar *made = p->made + phase * p->most;
    const float *x = NULL;
    int waited = 0;
    for (int64_t again = 0, chunk = 0;;) {
      if (!again && (chunk = atomic_fetch_add(&state->next, 1)) >= chunks) {
        while (atomic_load(&state->done) < chunks && waited < PATIENCE) waited++, rest();
        again = 1, chunk = -1;
      }
      if (again) {
        while (++chunk < chunks && atomic_load(made + chunk)) {}
        if (chunk >= chunks) break; /* all are made, by whomever */
      }
      if (kind != ATTENTION && !x) x = prepared(s, p, number, kind, own);
      if (kind == ATTENTION)
        attend(s, p, number, chunk);
      else
        multiply(s, p, number, kind, chunk, x);
      if (!atomic_exchange(made + chunk, 1)) atomic_fetch_add(&state->done, 1);
    }
  }
}

/* Floats that the arena of a step needs. */
int64_t arena_size(const Step *s) {
  Plan plan;
  return make_plan(s, &plan);
}

void step(const Step *s) {
  Plan plan;
  make_plan(s, &plan);
  memset(plan.phases, 0, (char *)plan.qkv - (char *)plan.phases);
#ifdef _OPENMP
#pragma omp parallel num_threads((int)s->threads)
  work(s, &plan, omp_get_thread_num());
#else
  work(s, &plan, 0);
#endif
}
