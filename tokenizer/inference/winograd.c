/* The two transforms of Winograd's F(4x4, 3x3); winograd.py multiplies between them.
 *
 * Pixels are [frame, height, width, channels]. Tiles of 4 x 4 are counted over all frames; those from
 * `first` to `first + count - 1` are computed. Channels are a multiple of 8.
 */
#include <stdint.h>

enum { TILE = 4, SEEN = 6, LANES = 8 };
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 6")

typedef struct { /* of the first pixel that a tile writes */
  int64_t frame, row, column;
} Place;

INLINE Place place_of(int64_t tile, int64_t height, int64_t width) {
  const int64_t down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE;
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

/* tiles [count, 36, channels] of what each tile sees: its pixels and one more on every side */
void into(const float *pixels, float *tiles, int64_t height, int64_t width, int64_t channels,
          int64_t first, int64_t count) {
  static const float nothing[LANES];
#pragma omp parallel for
  for (int64_t t = 0; t < count; t++) {
    const Place at = place_of(first + t, height, width);
    const float *from[SEEN][SEEN];
    int64_t step[SEEN][SEEN]; /* 0 outside of the frame: the same zeros for all channels */
    for (int i = 0; i < SEEN; i++)
      for (int j = 0; j < SEEN; j++) {
        const int64_t row = at.row - 1 + i, column = at.column - 1 + j;
        step[i][j] = row >= 0 && row < height && column >= 0 && column < width;
        from[i][j] = step[i][j] ? pixels + ((at.frame * height + row) * width + column) * channels
                                : nothing;
      }
    float *to = tiles + t * SEEN * SEEN * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
      vec half[SEEN][SEEN]; /* [column, row] */
      for (int j = 0; j < SEEN; j++) {
        vec seen[SEEN];
        UNROLL for (int i = 0; i < SEEN; i++)
          seen[i] = *(const vec *)(from[i][j] + c * step[i][j]);
        spread(seen, half[j]);
      }
      for (int i = 0; i < SEEN; i++) {
        vec row[SEEN], out[SEEN];
        UNROLL for (int j = 0; j < SEEN; j++) row[j] = half[j][i];
        spread(row, out);
        UNROLL for (int j = 0; j < SEEN; j++) *(vec *)(to + (i * SEEN + j) * channels + c) = out[j];
      }
    }
  }
}

/* pixels of products [36, count, channels], with the bias */
void out_of(const float *products, const float *bias, float *pixels, int64_t height, int64_t width,
            int64_t channels, int64_t first, int64_t count) {
#pragma omp parallel for
  for (int64_t t = 0; t < count; t++) {
    const Place at = place_of(first + t, height, width);
    const int64_t rows = height - at.row, columns = width - at.column, next = count * channels;
    float *to = pixels + ((at.frame * height + at.row) * width + at.column) * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
      const float *from = products + t * channels + c;
      const vec base = *(const vec *)(bias + c);
      vec half[SEEN][TILE]; /* [column, row] */
      for (int j = 0; j < SEEN; j++) {
        vec seen[SEEN];
        UNROLL for (int i = 0; i < SEEN; i++) seen[i] = *(const vec *)(from + (i * SEEN + j) * next);
        gather(seen, half[j]);
      }
      for (int i = 0; i < TILE && i < rows; i++) {
        vec row[SEEN], out[TILE];
        UNROLL for (int j = 0; j < SEEN; j++) row[j] = half[j][i];
        gather(row, out);
        for (int j = 0; j < TILE && j < columns; j++)
          *(vec *)(to + (i * width + j) * channels + c) = out[j] + base;
      }
    }
  }
}
