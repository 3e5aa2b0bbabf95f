/* Sums of products, as many lanes at once as a register holds. GCC keeps wider vectors in memory. */
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, COLUMNS = 6 };
#elif defined(__AVX2__)
enum { LANES = 8, COLUMNS = 3 }; /* 4 rows times 3 columns of sums leave 4 registers of 16 */
#else
enum { LANES = 4, COLUMNS = 3 };
#endif
enum { BATCH = 6, TILE = 96 };
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 8")
#define TILES _Pragma("GCC unroll 24")

INLINE void rest(void) {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

INLINE vec lanes_float(const float *p) { return *(const vec *)p; }
INLINE vec lanes_bfloat16(const uint16_t *p) {
  return (vec)(__builtin_convertvector(*(const halves *)p, words) << 16);
}
#if defined(__AVX512F__)
INLINE vec lanes_int8(const int8_t *p) {
  return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
INLINE vec lanes_uint8(const uint8_t *p) { /* 128 stands for 0 */
  __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
  return (vec)_mm512_cvtepi32_ps(_mm512_sub_epi32(wide, _mm512_set1_epi32(128)));
}
#elif defined(__AVX2__)
INLINE vec lanes_int8(const int8_t *p) {
  return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
INLINE vec lanes_uint8(const uint8_t *p) {
  __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
  return (vec)_mm256_cvtepi32_ps(_mm256_sub_epi32(wide, _mm256_set1_epi32(128)));
}
#else
INLINE vec lanes_int8(const int8_t *p) { return (vec){p[0], p[1], p[2], p[3]}; }
INLINE vec lanes_uint8(const uint8_t *p) {
  return (vec){p[0] - 128, p[1] - 128, p[2] - 128, p[3] - 128};
}
#endif

/* sum + a * b, rounded once wherever it stands: a compiler would fuse some loops and not others. */
INLINE vec plus(vec sum, vec a, vec b) {
#if defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__AVX2__) && defined(__FMA__)
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
  return sum + a * b;
#endif
}
INLINE vec each(float x) { return (vec){0} + x; }

INLINE vec first(const float *x, int64_t count) {
  float lanes[LANES] = {0};
  memcpy(lanes, x, count * sizeof(float));
  return lanes_float(lanes);
}

INLINE float total(vec v) {
  union { vec whole; vec4 part[LANES / 4]; } a = {v};
  for (int i = LANES / 8; i > 0; i /= 2)
    for (int j = 0; j < i; j++) a.part[j] += a.part[j + i];
  vec4 c = a.part[0];
  return (c[0] + c[2]) + (c[1] + c[3]);
}

/* R rows of weights times B rows of x: one sum of LANES parts each; what is missing at the end is 0.
 * So a longer row of which the rest is 0 has the same sum, bit by bit. */
#define DOTS(NAME, TYPE)                                                                           \
  INLINE void tile_##NAME(const TYPE *w, int64_t apart, int64_t cols, const float *x, int64_t ldx, \
                          const int R, const int B, int64_t ahead, float *y, int64_t ldy) {        \
    enum { UNIT = 64 / sizeof(TYPE) };                                                             \
    vec acc[4][COLUMNS];                                                                            \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int b = 0; b < B; b++) acc[r][b] = (vec){0};    \
    int64_t k = 0;                                                                                 \
    for (; k + UNIT <= cols; k += UNIT) UNROLL for (int r = 0; r < R; r++) {                       \
        __builtin_prefetch(w + r * apart + k + ahead, 0, 2);                                       \
        UNROLL for (int u = 0; u < UNIT; u += LANES) {                                             \
          vec v = lanes_##NAME(w + r * apart + k + u);                                             \
          UNROLL for (int b = 0; b < B; b++) acc[r][b] = plus(acc[r][b], v, lanes_float(x + b * ldx + k + u)); \
        }                                                                                          \
      }                                                                                            \
    for (; k + LANES <= cols; k += LANES) UNROLL for (int r = 0; r < R; r++) {                     \
        vec v = lanes_##NAME(w + r * apart + k);                                                   \
        UNROLL for (int b = 0; b < B; b++) acc[r][b] = plus(acc[r][b], v, lanes_float(x + b * ldx + k)); \
      }                                                                                            \
    if (k < cols) UNROLL for (int r = 0; r < R; r++) {                                             \
        TYPE last[LANES] = {0};                                                                    \
        memcpy(last, w + r * apart + k, (cols - k) * sizeof(TYPE));                                \
        vec v = lanes_##NAME(last);                                                                \
        UNROLL for (int b = 0; b < B; b++) acc[r][b] = plus(acc[r][b], v, first(x + b * ldx + k, cols - k)); \
      }                                                                                            \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int b = 0; b < B; b++)                          \
      y[b * ldy + r] = total(acc[r][b]);                                                           \
  }                                                                                                \
  INLINE void rows_##NAME(const TYPE *w, int64_t apart, int64_t cols, const float *x, int64_t ldx, \
                          const int R, int64_t many, int64_t ahead, float *y, int64_t ldy) {       \
    int64_t b = 0;                                                                                 \
    for (; b + COLUMNS <= many; b += COLUMNS)                                                      \
      tile_##NAME(w, apart, cols, x + b * ldx, ldx, R, COLUMNS, b ? 0 : ahead, y + b * ldy, ldy);                       \
    for (; b + 2 <= many; b += 2)                                                                  \
      tile_##NAME(w, apart, cols, x + b * ldx, ldx, R, 2, b ? 0 : ahead, y + b * ldy, ldy);                       \
    if (b < many) tile_##NAME(w, apart, cols, x + b * ldx, ldx, R, 1, b ? 0 : ahead, y + b * ldy, ldy);           \
  }                                                                                                \
  /* y[b][row] = sum over k of w[row][k] x[b][k]; rows of w are `apart` numbers apart. */          \
  static void dots_##NAME(const TYPE *w, int64_t apart, int64_t rows, int64_t cols, const float *x,\
                          int64_t ldx, int64_t many, float *y, int64_t ldy) {                      \
    int64_t r = 0; /* what lies behind the last rows, another thread reads */                      \
    for (; r + 4 <= rows; r += 4)                                                                  \
      rows_##NAME(w + r * apart, apart, cols, x, ldx, 4, many, r + 8 <= rows ? 4 * apart : 0, y + r, ldy); \
    for (; r < rows; r++) rows_##NAME(w + r * apart, apart, cols, x, ldx, 1, many, 0, y + r, ldy); \
  }
DOTS(float, float)
DOTS(bfloat16, uint16_t)
DOTS(int8, int8_t)

INLINE float dot(const float *a, const float *b, int64_t size) {
  float y;
  rows_float(a, 0, size, b, 0, 1, 1, 0, &y, 0);
  return y;
}

INLINE float sum(const float *x, int64_t size) {
  vec all = {0};
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) all += *(const vec *)(x + i);
  if (i < size) all += first(x + i, size - i);
  return total(all);
}

/* e^x to 2 ulp: 2^n times a polynomial (Cephes). */
INLINE float exponential(float x) {
  x = x < -87 ? -87 : x > 87 ? 87 : x;
  float n = rintf(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  union { int32_t word; float number; } power = {((int32_t)n + 127) << 23};
  return (y * r * r + r + 1) * power.number;
}

/* x becomes e^(x - most); returns the most, and the sum. */
INLINE float exponentials(float *x, int64_t size, float *all) {
  float most = -1e30f;
  for (int64_t i = 0; i < size; i++) most = x[i] > most ? x[i] : most;
  for (int64_t i = 0; i < size; i++) x[i] = exponential(x[i] - most);
  *all = sum(x, size);
  return most;
}

INLINE void activate(float *y, const float *gate, int64_t kind, int64_t size) {
  if (kind == 0)
    for (int64_t i = 0; i < size; i++) {
      float z = 1.5957691216f * (y[i] + 0.044715f * y[i] * y[i] * y[i]);
      y[i] = y[i] / (1 + exponential(-z)); /* (1 + tanh(z / 2)) / 2 is the sigmoid of z */
    }
  else if (kind == 1)
    for (int64_t i = 0; i < size; i++) y[i] *= 0.5f * (1 + erff(y[i] * 0.70710678f));
  else
    for (int64_t i = 0; i < size; i++) y[i] *= gate[i] / (1 + exponential(-gate[i]));
}

/* scores[b][position] = sum over c of query[b][c] keys[c][position]; `left` positions of a row may be
 * read, and scores has room for whole vectors. Rows are read a few at a time, from end to end: short
 * pieces of many rows come at half of memory speed. */
static void scores_float(const float *keys, int64_t room, int64_t left, int64_t size,
                         int64_t count, const float *query, int64_t many, float *scores, int64_t lds) {
  int64_t wide = (count + LANES - 1) / LANES * LANES, end = wide > left ? wide - LANES : wide;
  for (int64_t b = 0; b < many; b++) memset(scores + b * lds, 0, wide * sizeof(float));
  for (int64_t c = 0; c < size; c++) /* a few whole vectors are left at the end of a cache */
    for (int64_t b = 0; b < many && end < count; b++) {
      vec *to = (vec *)(scores + b * lds + end);
      *to = plus(*to, each(query[b * size + c]), first(keys + c * room + end, count - end));
    }
#define ROWS(MANY)                                                                               \
  for (; c + MANY <= size; c += MANY)                                                            \
    for (int64_t b = 0; b < many; b++) {                                                         \
      vec q[MANY];                                                                               \
      UNROLL for (int i = 0; i < MANY; i++) q[i] = each(query[b * size + c + i]);                 \
      for (int64_t at = 0; at < end; at += LANES) {                                              \
        const float *k = keys + c * room + at;                                                   \
        vec acc = lanes_float(scores + b * lds + at);                                            \
        UNROLL for (int i = 0; i < MANY; i++) {                                                  \
          if (!b && at % 16 == 0 && c + 2 * MANY <= size) /* a line has 16 numbers */            \
            __builtin_prefetch(k + (i + MANY) * room, 0, 2);                                     \
          acc = plus(acc, q[i], lanes_float(k + i * room));                                      \
        }                                                                                        \
        *(vec *)(scores + b * lds + at) = acc;                                                   \
      }                                                                                          \
    }
  int64_t c = 0;
  ROWS(4)
  ROWS(1)
}

/* The same for one tile of positions in bytes; `more`: whether this thread reads the next one. */
static void scores_int8(const uint8_t *keys, int64_t line, int64_t size, int more, const float *scales,
                        const float *query, int64_t many, float *scores, int64_t lds) {
  for (int64_t b = 0; b < many; b++) {
    vec acc[TILE / LANES] = {{0}};
    for (int64_t c = 0; c < size; c++) {
      if (!b && more) /* of the next tile; a line has 64 bytes */
        for (int64_t at = 0; at < line; at += 64) __builtin_prefetch(keys + (size + c) * line + at, 0, 2);
      TILES for (int i = 0; i < TILE / LANES; i++)
        acc[i] = plus(acc[i], each(query[b * size + c]), lanes_uint8(keys + c * line + i * LANES));
    }
    TILES for (int i = 0; i < TILE / LANES; i++)
      *(vec *)(scores + b * lds + i * LANES) = acc[i] * *(const vec *)(scales + i * LANES);
  }
}

/* value[b][c] = sum over positions of weights[b][position] times the bytes of a row, scaled. */
static void values_int8(const uint8_t *rows, int64_t size, int64_t count, const float *weights,
                        int64_t ldw, int64_t many, float *value) {
  int64_t line = size + 8;
  for (int64_t b = 0; b < many; b++) {
    int64_t c = 0;
#define WIDE_ROW(WIDE)                                                                             \
  for (; c + WIDE * LANES <= size; c += WIDE * LANES) {                                            \
    vec acc[WIDE];                                                                                 \
    UNROLL for (int i = 0; i < WIDE; i++) acc[i] = (vec){0};                                       \
    for (int64_t at = 0; at < count; at++) {                                                       \
      const uint8_t *row = rows + at * line;                                                       \
      float by = weights[b * ldw + at] * *(const vec_scale *)(row + size);                         \
      if (!b && (count - at) * line > 4096) __builtin_prefetch(row + 4096, 0, 2);                                               \
      UNROLL for (int i = 0; i < WIDE; i++) acc[i] = plus(acc[i], each(by), lanes_uint8(row + c + i * LANES)); \
    }                                                                                              \
    UNROLL for (int i = 0; i < WIDE; i++) *(vec *)(value + b * size + c + i * LANES) = acc[i];     \
  }
    typedef float vec_scale __attribute__((aligned(1), may_alias));
    WIDE_ROW(8)
#if defined(__AVX512F__)
    WIDE_ROW(4)
#endif
    WIDE_ROW(1)
    for (; c < size; c++) {
      float all = 0;
      for (int64_t at = 0; at < count; at++) {
        const uint8_t *row = rows + at * line;
        all += weights[b * ldw + at] * *(const vec_scale *)(row + size) * ((float)row[c] - 128);
      }
      value[b * size + c] = all;
    }
  }
}
