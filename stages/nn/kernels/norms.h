// Root mean square norms of rows, and what becomes of queries and keys before they are compared.
// Included behind tiles.h.

#include <limits>

namespace {

constexpr float kEpsilon = std::numeric_limits<float>::epsilon();

inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 load(const Bf16* from) { return widened(from); }

// 1 / (root mean square) of a row, in all lanes.
template <class Number>
inline __m512 scale_of(const Number* row, int64_t width) {
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kHalf) {
    const __m512 numbers = load(row + i);
    squares = _mm512_fmadd_ps(numbers, numbers, squares);
  }
  const __m512 mean =
      _mm512_set1_ps(_mm512_reduce_add_ps(squares) / static_cast<float>(width) + kEpsilon);
  // To 14 bits, and twice as many by a step of Newton's method.
  const __m512 scale = _mm512_rsqrt14_ps(mean);
  const __m512 half = _mm512_mul_ps(_mm512_mul_ps(mean, _mm512_set1_ps(0.5f)), scale);
  return _mm512_mul_ps(scale, _mm512_fnmadd_ps(half, scale, _mm512_set1_ps(1.5f)));
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

// How queries and keys of a token are made from their projections. Null: not normalised, not turned.
struct Comparing {
  const float *gain, *cosines, *sines;
  int64_t turns;  // rows of them; one for every token of an image, or of all
  int64_t heads, head_dim;

  bool is_query(int64_t head) const { return head < heads; }
  const float* gain_of(int64_t head) const {
    return gain == nullptr ? nullptr : gain + (is_query(head) ? 0 : head_dim);
  }
  int64_t turn_of(int64_t row, int64_t head) const {
    return (row % turns * 2 + (is_query(head) ? 0 : 1)) * (head_dim / 2);
  }
};

// The halves of a query or key by their place; back again with the sine of the other sign.
inline void turn(__m512& first, __m512& second, __m512 cosine, __m512 sine) {
  const __m512 turned = _mm512_fnmadd_ps(second, sine, _mm512_mul_ps(first, cosine));
  second = _mm512_fmadd_ps(first, sine, _mm512_mul_ps(second, cosine));
  first = turned;
}

// One query or key.
inline void compare(const Comparing& how, int64_t row, int64_t head, const Bf16* from, Bf16* to) {
  const int64_t half = how.head_dim / 2;
  const float* const gain = how.gain_of(head);
  const __m512 scale =
      gain == nullptr ? _mm512_set1_ps(1.0f) : scale_of(from, how.head_dim);
  for (int64_t i = 0; i < half; i += kHalf) {
    __m512 first = _mm512_mul_ps(load(from + i), scale);
    __m512 second = _mm512_mul_ps(load(from + half + i), scale);
    if (gain != nullptr) {
      first = _mm512_mul_ps(first, load(gain + i));
      second = _mm512_mul_ps(second, load(gain + half + i));
    }
    if (how.cosines != nullptr) {
      const int64_t at = how.turn_of(row, head) + i;
      turn(first, second, load(how.cosines + at), load(how.sines + at));
    }
    store(to + i, rounded(first));
    store(to + half + i, rounded(second));
  }
}

// Of its gradient `back` that of its projection, `from`; adds to that of its gain. `held`: room for it.
inline void compare_gradient(const Comparing& how, int64_t row, int64_t head, const Bf16* back,
                             const Bf16* from, float* held, Bf16* to, float* by_gain) {
  const int64_t half = how.head_dim / 2;
  for (int64_t i = 0; i < half; i += kHalf) {
    __m512 first = load(back + i), second = load(back + half + i);
    if (how.cosines != nullptr) {
      const int64_t at = how.turn_of(row, head) + i;
      const __m512 back_again = _mm512_sub_ps(_mm512_setzero_ps(), load(how.sines + at));
      turn(first, second, load(how.cosines + at), back_again);
    }
    _mm512_storeu_ps(held + i, first);
    _mm512_storeu_ps(held + half + i, second);
  }
  const float* const gain = how.gain_of(head);
  if (gain == nullptr) {
    for (int64_t i = 0; i < how.head_dim; i += kHalf) store(to + i, rounded(load(held + i)));
    return;
  }
  const __m512 scale = scale_of(from, how.head_dim);
  __m512 along = _mm512_setzero_ps();
  for (int64_t i = 0; i < how.head_dim; i += kHalf) {
    const __m512 number = load(from + i), of_it = load(held + i);
    const __m512 normed = _mm512_mul_ps(number, scale);
    _mm512_storeu_ps(by_gain + i, _mm512_fmadd_ps(of_it, normed, load(by_gain + i)));
    const __m512 scaled = _mm512_mul_ps(of_it, load(gain + i));
    _mm512_storeu_ps(held + i, scaled);
    along = _mm512_fmadd_ps(scaled, number, along);
  }
  const float mean = _mm512_reduce_add_ps(along) / static_cast<float>(how.head_dim);
  const __m512 less = _mm512_mul_ps(_mm512_mul_ps(scale, scale),
                                    _mm512_mul_ps(scale, _mm512_set1_ps(mean)));
  for (int64_t i = 0; i < how.head_dim; i += kHalf) {
    const __m512 kept = _mm512_mul_ps(load(held + i), scale);
    store(to + i, rounded(_mm512_fnmadd_ps(load(from + i), less, kept)));
  }
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
  const float mean = _mm512_reduce_add_ps(along) / static_cast<float>(width);
  const __m512 less = _mm512_mul_ps(_mm512_mul_ps(scale, scale),
                                    _mm512_mul_ps(scale, _mm512_set1_ps(mean)));
  for (int64_t i = 0; i < width; i += kHalf) {
    const __m512 back = _mm512_mul_ps(load(by_normed + i), load(weight + i));
    const __m512 through = _mm512_fnmadd_ps(load(sum + i), less, _mm512_mul_ps(back, scale));
    const __m512 total = _mm512_add_ps(load(by_sum + i), through);
    _mm512_storeu_ps(by_stream + i, total);
    store(by_added + i, rounded(total));
  }
}

}  // namespace
