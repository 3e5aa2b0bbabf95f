/* Winograd's F(4x4, 3x3) in one parallel region: tiles into the cache, products, pixels.
 *
 * Pixels are [frame, height, width, channels], `in` channels (a multiple of 8) before and `out` (of
 * 16) after. Tiles of 4 x 4 are counted over all frames; a thread takes SPAN of them at a time. Each
 * sum has one order, so results do not depend on the number of threads.
 */
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { TILE = 4, SEEN = 6, ALL = SEEN * SEEN, SPAN = 24, ROWS = 6, WIDE = 16, LANES = 8 };
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 6")

typedef struct {
  const float *pixels, *weight, *bias; /* weight: [36, out / 16, in, 16] */
  const float *plus;                   /* added to what is made; or NULL */
  float *made, *room;                  /* room: of every thread 36 x SPAN x (in + out) */
  int64_t frames, height, width, in, out, threads;
  int64_t up; /* 1: each pixel stands for 2 x 2; height and width are those of what is made */
} Call;

typedef struct { /* of the first pixel that a tile writes */
  int64_t frame, row, column;
} Place;

INLINE Place place_of(const Call *call, int64_t tile) {
  const int64_t down = (call->height + TILE - 1) / TILE, across = (call->width + TILE - 1) / TILE;
  return (Place){tile / across / down, tile / across % down * TILE, tile % across * TILE};
}

INLINE void spread(const vec d[SEEN], vec out[SEEN]) {
  const vec even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
  const vec far = d[4] - d[2], turn = 2 * (d[3] - d[1]);
  out[0] = 4 * d[0] - 5 * d[2] + d[4];
  out[1] = even + odd;
  out[2] = even - odd;
  out[3] = far + turn;
  out[4] = far - turn;
  out[5] = 4 * d[1] - 5 * d[3] + d[5];
}

INLINE void gather(const vec m[SEEN], vec out[TILE]) {
  const vec near = m[1] + m[2], turn = m[1] - m[2], far = m[3] + m[4], twist = m[3] - m[4];
  out[0] = m[0] + near + far;
  out[1] = turn + 2 * twist;
  out[2] = near + 4 * far;
  out[3] = turn + 8 * twist + m[5];
}

/* What a tile sees, its pixels and one more on every side: to[36][SPAN][in], of one tile. */
static void into(const Call *call, int64_t tile, float *to) {
  static const float nothing[LANES];
  const Place at = place_of(call, tile);
  const float *from[SEEN][SEEN];
  int64_t step[SEEN][SEEN]; /* 0 outside of the frame: the same zeros for all channels */
  for (int i = 0; i < SEEN; i++)
    for (int j = 0; j < SEEN; j++) {
      const int64_t row = at.row - 1 + i, column = at.column - 1 + j;
      const int64_t rows = (at.frame * call->height + row) >> call->up;
      const int64_t pixel = (rows * call->width + column) >> call->up;
      step[i][j] = row >= 0 && row < call->height && column >= 0 && column < call->width;
      from[i][j] = step[i][j] ? call->pixels + pixel * call->in : nothing;
    }
  for (int64_t c = 0; c < call->in; c += LANES) {
    vec half[SEEN][SEEN]; /* [column, row] */
    for (int j = 0; j < SEEN; j++) {
      vec seen[SEEN];
      UNROLL for (int i = 0; i < SEEN; i++) seen[i] = *(const vec *)(from[i][j] + c * step[i][j]);
      spread(seen, half[j]);
    }
    for (int i = 0; i < SEEN; i++) {
      vec row[SEEN], out[SEEN];
      UNROLL for (int j = 0; j < SEEN; j++) row[j] = half[j][i];
      spread(row, out);
      UNROLL for (int j = 0; j < SEEN; j++)
        *(vec *)(to + (i * SEEN + j) * SPAN * call->in + c) = out[j];
    }
  }
}

/* to[ROWS][out], 16 columns of it, from ROWS tiles times one panel [in, 16] of weights. */
static void product(const float *tiles, const float *panel, float *to, int64_t in, int64_t out) {
  vec sum[ROWS][2];
  UNROLL for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = (vec){0};
  for (int64_t c = 0; c < in; c++) {
    const vec left = *(const vec *)(panel + c * WIDE), right = *(const vec *)(panel + c * WIDE + LANES);
    UNROLL for (int r = 0; r < ROWS; r++) {
      sum[r][0] += tiles[r * in + c] * left;
      sum[r][1] += tiles[r * in + c] * right;
    }
  }
  UNROLL for (int r = 0; r < ROWS; r++) {
    *(vec *)(to + r * out) = sum[r][0];
    *(vec *)(to + r * out + LANES) = sum[r][1];
  }
}

/* The pixels of a tile from its products [36][SPAN][out], with the bias and `plus`. */
static void out_of(const Call *call, int64_t tile, const float *from) {
  const Place at = place_of(call, tile);
  const int64_t rows = call->height - at.row, columns = call->width - at.column;
  const int64_t start = ((at.frame * call->height + at.row) * call->width + at.column) * call->out;
  for (int64_t c = 0; c < call->out; c += LANES) {
    const vec base = *(const vec *)(call->bias + c);
    vec half[SEEN][TILE]; /* [column, row] */
    for (int j = 0; j < SEEN; j++) {
      vec seen[SEEN];
      UNROLL for (int i = 0; i < SEEN; i++)
        seen[i] = *(const vec *)(from + (i * SEEN + j) * SPAN * call->out + c);
      gather(seen, half[j]);
    }
    for (int i = 0; i < TILE && i < rows; i++) {
      vec row[SEEN], out[TILE];
      UNROLL for (int j = 0; j < SEEN; j++) row[j] = half[j][i];
      gather(row, out);
      for (int j = 0; j < TILE && j < columns; j++) {
        const int64_t place = start + (i * call->width + j) * call->out + c;
        vec made = out[j] + base;
        if (call->plus) made += *(const vec *)(call->plus + place);
        *(vec *)(call->made + place) = made;
      }
    }
  }
}

static void span(const Call *call, int64_t first, int64_t count, float *tiles) {
  float *products = tiles + ALL * SPAN * call->in;
  for (int64_t t = 0; t < count; t++) into(call, first + t, tiles + t * call->in);
  for (int64_t k = 0; k < ALL; k++)
    for (int64_t d = 0; d < call->out; d += WIDE)
      for (int64_t t = 0; t < count; t += ROWS) /* the last rows may be those of no tile */
        product(tiles + (k * SPAN + t) * call->in, call->weight + (k * call->out + d) * call->in,
                products + (k * SPAN + t) * call->out + d, call->in, call->out);
  for (int64_t t = 0; t < count; t++) out_of(call, first + t, products + t * call->out);
}

void winograd(const Call *call) {
  const int64_t down = (call->height + TILE - 1) / TILE, across = (call->width + TILE - 1) / TILE;
  const int64_t total = call->frames * down * across, room = ALL * SPAN * (call->in + call->out);
#pragma omp parallel num_threads(call->threads)
  {
    float *own = call->room;
#ifdef _OPENMP
    own += omp_get_thread_num() * room;
#endif
#pragma omp for schedule(dynamic)
    for (int64_t first = 0; first < total; first += SPAN)
      span(call, first, total - first < SPAN ? total - first : SPAN, own);
  }
}
