/* Group norm and SiLU: one pass for the sums, one that normalises and activates.
 *
 * Pixels are [frame, area, channels], with a multiple of 8 channels. Sums are those of parts of PART
 * pixels, added in one order, so results do not depend on the number of threads.
 */
#include <math.h>
#include <stdint.h>

enum { PART = 256, LANES = 8, WIDE = 4 };
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(32), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

typedef struct {
  const float *pixels, *weight, *bias;
  float *made, *sums, *affine; /* sums: [frame, part, 2, channels]; affine: [frame, 2, channels] */
  int64_t frames, area, channels, groups, threads;
  double eps;
} Call;

/* Sums of differences from `first` and of their squares, of `wide` x 8 channels of some pixels. */
INLINE void sum_channels(const float *pixels, const float *first, int64_t count, int64_t channels,
                         int wide, float *to) {
  vec sum[WIDE], squares[WIDE];
  for (int i = 0; i < wide; i++) sum[i] = squares[i] = (vec){0};
  for (int64_t p = 0; p < count; p++)
    for (int i = 0; i < wide; i++) {
      const vec away = *(const vec *)(pixels + p * channels + i * LANES) - *(const vec *)(first + i * LANES);
      sum[i] += away;
      squares[i] += away * away;
    }
  for (int i = 0; i < wide; i++) {
    *(vec *)(to + i * LANES) = sum[i];
    *(vec *)(to + channels + i * LANES) = squares[i];
  }
}

static void sum_part(const Call *call, int64_t frame, int64_t part, float *to) {
  const int64_t channels = call->channels, left = call->area - part * PART;
  const int64_t count = left < PART ? left : PART;
  const float *first = call->pixels + frame * call->area * channels;
  const float *pixels = first + part * PART * channels;
  int64_t c = 0;
  for (; c + WIDE * LANES <= channels; c += WIDE * LANES)
    sum_channels(pixels + c, first + c, count, channels, WIDE, to + c);
  for (; c < channels; c += LANES) sum_channels(pixels + c, first + c, count, channels, 1, to + c);
}

/* The scale and the shift of each channel of a frame, from the sums of its parts. */
static void affine_of(const Call *call, int64_t frame, int64_t parts) {
  const int64_t channels = call->channels, size = channels / call->groups;
  const float *first = call->pixels + frame * call->area * channels;
  const float *sums = call->sums + frame * parts * 2 * channels;
  float *scale = call->affine + frame * 2 * channels, *shift = scale + channels;
  const double count = (double)call->area;
  for (int64_t g = 0; g < call->groups; g++) {
    double mean = 0, spread = 0, means[size];
    for (int64_t i = 0; i < size; i++) {
      const int64_t c = g * size + i;
      double sum = 0, squares = 0;
      for (int64_t p = 0; p < parts; p++) {
        sum += sums[p * 2 * channels + c];
        squares += sums[(p * 2 + 1) * channels + c];
      }
      means[i] = first[c] + sum / count;
      mean += means[i] / size;
      spread += squares - sum * sum / count;
    }
    for (int64_t i = 0; i < size; i++) spread += count * (means[i] - mean) * (means[i] - mean);
    const double rate = 1 / sqrt(fmax(spread / (count * size), 0) + call->eps);
    for (int64_t c = g * size; c < (g + 1) * size; c++) {
      scale[c] = (float)(rate * call->weight[c]);
      shift[c] = (float)(call->bias[c] - mean * rate * call->weight[c]);
    }
  }
}

INLINE vec at_most(vec x, float limit) {
  const ints above = x > limit;
  return (vec)((above & (ints)((vec){0} + limit)) | (~above & (ints)x));
}

/* exp(-x), to a few units in the last place, for -87 < x < 87; the nearer end outside. */
INLINE vec exp_of_minus(vec x) {
  const float round = 12582912.0f; /* 1.5 * 2^23: what is added to it becomes a whole number */
  x = at_most(x, 87.0f);
  x = -at_most(-x, 87.0f);
  const vec held = x * -1.44269504f + round, whole = held - round;
  const vec rest = -x - whole * 0.693359375f + whole * 2.12194440e-4f;
  vec power = rest * (1.0f / 720) + 1.0f / 120;
  power = power * rest + 1.0f / 24;
  power = power * rest + 1.0f / 6;
  power = power * rest + 0.5f;
  power = power * rest * rest + rest + 1.0f;
  return (vec)((ints)power + ((ints)held << 23));
}

static void apply_part(const Call *call, int64_t frame, int64_t part) {
  const int64_t channels = call->channels, end = (part + 1) * PART;
  const int64_t last = end < call->area ? end : call->area, from = frame * call->area * channels;
  const float *scale = call->affine + frame * 2 * channels, *shift = scale + channels;
  for (int64_t p = part * PART; p < last; p++)
    for (int64_t c = 0; c < channels; c += LANES) {
      const int64_t at = from + p * channels + c;
      const vec x = *(const vec *)(call->pixels + at) * *(const vec *)(scale + c) + *(const vec *)(shift + c);
      *(vec *)(call->made + at) = x / (1.0f + exp_of_minus(x));
    }
}

void norm_silu(const Call *call) {
  const int64_t parts = (call->area + PART - 1) / PART, all = call->frames * parts;
#pragma omp parallel num_threads(call->threads)
  {
#pragma omp for
    for (int64_t i = 0; i < all; i++)
      sum_part(call, i / parts, i % parts, call->sums + i * 2 * call->channels);
#pragma omp for
    for (int64_t f = 0; f < call->frames; f++) affine_of(call, f, parts);
#pragma omp for
    for (int64_t i = 0; i < all; i++) apply_part(call, i / parts, i % parts);
  }
}
