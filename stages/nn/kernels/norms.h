// Root mean square norms of rows, and what becomes of queries and keys before they are compared.
// Included behind tiles.h and comparing.h.

#include <limits>

namespace {

constexpr float kEpsilon = std::numeric_limits<float>::epsilon();

inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 load(const Bf16* from) { return widened(from); }

// 1 / (root mean square) of numbers, from what lanes have of their squares, in all lanes.
inline __m512 scale_from(__m512 squares, int64_t width) {
  const __m512 mean =
      _mm512_set1_ps(_mm512_reduce_add_ps(squares) / static_cast<float>(width) + kEpsilon);
  // To 14 bits, and twice as many by a step of Newton's method.
  const __m512 scale = _mm512_rsqrt14_ps(mean);
  const __m512 half = _mm512_mul_ps(_mm512_mul_ps(mean, _mm512_set1_ps(0.5f)), scale);
  return _mm512_mul_ps(scale, _mm512_fnmadd_ps(half, scale, _mm512_set1_ps(1.5f)));
}

inline __m512 scale_of(const float* row, int64_t width) {
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kHalf) {
    const __m512 numbers = load(row + i);
    squares = _mm512_fmadd_ps(numbers, numbers, squares);
  }
  return scale_from(squares, width);
}

// Of the gradient of a norm what is subtracted for each of the numbers: scale^3 mean(gradient * number),
// from what lanes have of the sum, in all lanes.
inline __m512 less_of(__m512 scale, __m512 along, int64_t width) {
  const float mean = _mm512_reduce_add_ps(along) / static_cast<float>(width);
  return _mm512_mul_ps(_mm512_mul_ps(scale, scale), _mm512_mul_ps(scale, _mm512_set1_ps(mean)));
}

// The norm of a row times the weight: `put(i, first, second)` gets the numbers from i and i + 16 on.
template <class Put>
inline void norm(const float* row, const float* weight, int64_t width, Put put) {
  const __m512 scale = scale_of(row, width);
  const auto normed = [&](int64_t i) {
    return _mm512_mul_ps(_mm512_mul_ps(load(row + i), scale), load(weight + i));
  };
  for (int64_t i = 0; i < width; i += kBlock) put(i, normed(i), normed(i + kHalf));
}

// A query or key, in registers.
template <int kVectors>
using Numbers = __m512[kVectors];

template <int kVectors>
inline void load_all(const Bf16* from, Numbers<kVectors>& numbers) {
  for (int i = 0; i < kVectors; ++i) numbers[i] = load(from + i * kHalf);
}

// 32 of them side by side, and these so far apart.
template <int kVectors>
inline void store_all(const Numbers<kVectors>& numbers, Bf16* to, int64_t apart = kBlock) {
  for (int i = 0; i < kVectors; i += 2) store(to + i / 2 * apart, rounded(numbers[i], numbers[i + 1]));
}

template <int kVectors>
inline __m512 scale_of(const Numbers<kVectors>& numbers) {
  __m512 squares = _mm512_setzero_ps();
  for (const __m512 each : numbers) squares = _mm512_fmadd_ps(each, each, squares);
  return scale_from(squares, kVectors * kHalf);
}

// Its halves by its place; back again with -1 times the sine.
template <int kVectors>
inline void turn(const Comparing& how, int64_t row, int64_t head, float by_sine,
                 Numbers<kVectors>& numbers) {
  if (how.cosines == nullptr) return;
  const int64_t at = how.turn_of(row, head);
  for (int i = 0; i < kVectors / 2; ++i) {
    const __m512 cosine = load(how.cosines + at + i * kHalf);
    const __m512 sine = _mm512_mul_ps(load(how.sines + at + i * kHalf), _mm512_set1_ps(by_sine));
    const __m512 first = numbers[i], second = numbers[kVectors / 2 + i];
    numbers[i] = _mm512_fnmadd_ps(second, sine, _mm512_mul_ps(first, cosine));
    numbers[kVectors / 2 + i] = _mm512_fmadd_ps(first, sine, _mm512_mul_ps(second, cosine));
  }
}

// One query or key of kHeadDim numbers.
template <int kHeadDim>
inline void compare(const Comparing& how, int64_t row, int64_t head, const Bf16* from, Bf16* to) {
  constexpr int kVectors = kHeadDim / kHalf;
  Numbers<kVectors> numbers;
  load_all<kVectors>(from, numbers);
  if (const float* const gain = how.gain_of(head)) {
    const __m512 scale = scale_of<kVectors>(numbers);
    for (int i = 0; i < kVectors; ++i) {
      numbers[i] = _mm512_mul_ps(_mm512_mul_ps(numbers[i], scale), load(gain + i * kHalf));
    }
  }
  turn<kVectors>(how, row, head, 1.0f, numbers);
  store_all<kVectors>(numbers, to);
}

// Of its gradient `back` that of its projection, `from`, to blocks so far apart; adds to that of its gain.
template <int kHeadDim>
inline void compare_gradient(const Comparing& how, int64_t row, int64_t head, const Bf16* back,
                             const Bf16* from, Bf16* to, int64_t apart, float* by_gain) {
  constexpr int kVectors = kHeadDim / kHalf;
  Numbers<kVectors> gradient;
  load_all<kVectors>(back, gradient);
  turn<kVectors>(how, row, head, -1.0f, gradient);
  if (const float* const gain = how.gain_of(head)) {
    Numbers<kVectors> numbers;
    load_all<kVectors>(from, numbers);
    const __m512 scale = scale_of<kVectors>(numbers);
    __m512 along = _mm512_setzero_ps();
    for (int i = 0; i < kVectors; ++i) {
      float* const by = by_gain + i * kHalf;
      const __m512 normed = _mm512_mul_ps(numbers[i], scale);
      _mm512_storeu_ps(by, _mm512_fmadd_ps(gradient[i], normed, load(by)));
      gradient[i] = _mm512_mul_ps(gradient[i], load(gain + i * kHalf));
      along = _mm512_fmadd_ps(gradient[i], numbers[i], along);
    }
    const __m512 less = less_of(scale, along, kHeadDim);
    for (int i = 0; i < kVectors; ++i) {
      gradient[i] = _mm512_fnmadd_ps(numbers[i], less, _mm512_mul_ps(gradient[i], scale));
    }
  }
  store_all<kVectors>(gradient, to, apart);
}

// Of a row: sum = stream + added, normed = weight * sum / its root mean square. Null: nothing is added.
inline void add_and_norm(const float* stream, const Bf16* added, const float* weight, int64_t width,
                         float* sum, Bf16* normed) {
  for (int64_t i = 0; i < width; i += kHalf) {
    const __m512 number = load(stream + i);
    _mm512_storeu_ps(sum + i, added == nullptr ? number : _mm512_add_ps(number, load(added + i)));
  }
  norm(sum, weight, width, [&](int64_t i, __m512 first, __m512 second) {
    store(normed + i, rounded(first, second));
  });
}

// Of a row the gradients of stream and, the same rounded, of added; adds to that of the weight.
inline void add_and_norm_gradient(const float* by_sum, const Bf16* by_normed, const float* sum,
                                  const float* weight, int64_t width, float* by_stream,
                                  Bf16* by_added, float* by_weight) {
  const __m512 scale = scale_of(sum, width);
  __m512 along = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kHalf) {
    const __m512 number = load(sum + i), back = load(by_normed + i);
    const __m512 normed = _mm512_mul_ps(number, scale);
    _mm512_storeu_ps(by_weight + i, _mm512_fmadd_ps(back, normed, load(by_weight + i)));
    along = _mm512_fmadd_ps(_mm512_mul_ps(back, load(weight + i)), number, along);
  }
  const __m512 less = less_of(scale, along, width);
  for (int64_t i = 0; i < width; i += kHalf) {
    const __m512 back = _mm512_mul_ps(load(by_normed + i), load(weight + i));
    const __m512 through = _mm512_fnmadd_ps(load(sum + i), less, _mm512_mul_ps(back, scale));
    const __m512 total = _mm512_add_ps(load(by_sum + i), through);
    _mm512_storeu_ps(by_stream + i, total);
    store(by_added + i, rounded(total));
  }
}

}  // namespace
