// Root mean square norms of rows, and what becomes of queries and keys before they are compared.

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

}  // namespace
