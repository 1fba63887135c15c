// Root mean square norms and what surrounds them, row by row, with AVX-512; norm_kernels.py says what
// this is for. Sums over rows are added by pieces that do not depend on the number of threads.

#include "tiles.h"
#include "norms.h"

namespace {

// Rows whose sums are added one after the other.
constexpr int64_t kPiece = 64;

inline int64_t pieces_of(int64_t rows) { return (rows + kPiece - 1) / kPiece; }

// What pieces of rows add up to, one after the other.
class Pieces {
 public:
  Pieces(int64_t rows, int64_t width)
      : count_(pieces_of(rows)), width_(width), sums_(count_ * width) {}

  float* cleared(int64_t piece) const {
    float* const sums = sums_ + piece * width_;
    std::fill_n(sums, width_, 0.0f);
    return sums;
  }

  void add_up(float* to) const {
    std::fill_n(to, width_, 0.0f);
    for (int64_t piece = 0; piece < count_; ++piece) {
      for (int64_t i = 0; i < width_; ++i) to[i] += sums_[piece * width_ + i];
    }
  }

 private:
  const int64_t count_, width_;
  const Room<float> sums_;
};

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

}  // namespace

// compared (rows, 2 heads, head_dim) from projected (rows, 3 heads, head_dim).
extern "C" void compare(const Bf16* projected, const float* gain, const float* cosines,
                        const float* sines, Bf16* compared, int64_t rows, int64_t heads,
                        int64_t head_dim, int64_t turns, int threads) {
  const Comparing how{gain, cosines, sines, turns, heads, head_dim};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < 2 * heads; ++head) {
      compare(how, row, head, projected + (row * 3 * heads + head) * head_dim,
              compared + (row * 2 * heads + head) * head_dim);
    }
  }
}

// The gradients of projected and gain (2, head_dim) from those of queries, keys and values, (rows,
// heads, head_dim) each.
extern "C" void compare_gradient(const Bf16* by_queries, const Bf16* by_keys,
                                 const Bf16* by_values, const Bf16* projected, const float* gain,
                                 const float* cosines, const float* sines, Bf16* by_projected,
                                 float* by_gain, int64_t rows, int64_t heads, int64_t head_dim,
                                 int64_t turns, int threads) {
  const Comparing how{gain, cosines, sines, turns, heads, head_dim};
  const Pieces pieces(rows, 2 * head_dim);
  const int64_t width = heads * head_dim;
#pragma omp parallel num_threads(threads)
  {
    const Room<float> held(head_dim);
#pragma omp for schedule(static)
    for (int64_t piece = 0; piece < pieces_of(rows); ++piece) {
      float* const sums = pieces.cleared(piece);
      for (int64_t row = piece * kPiece; row < std::min(rows, (piece + 1) * kPiece); ++row) {
        const Bf16* const from = projected + row * 3 * width;
        Bf16* const to = by_projected + row * 3 * width;
        for (int64_t head = 0; head < 2 * heads; ++head) {
          const bool query = how.is_query(head);
          const Bf16* const back =
              (query ? by_queries : by_keys) + row * width + head % heads * head_dim;
          compare_gradient(how, row, head, back, from + head * head_dim, held,
                           to + head * head_dim, sums + (query ? 0 : head_dim));
        }
        std::copy_n(by_values + row * width, width, to + 2 * width);
      }
    }
  }
  if (gain != nullptr) pieces.add_up(by_gain);
}

// sum = stream + added, normed = weight * sum / its root mean square; all (rows, width).
extern "C" void add_and_norm(const float* stream, const Bf16* added, const float* weight,
                             float* sum, Bf16* normed, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t start = row * width;
    for (int64_t i = start; i < start + width; i += kHalf) {
      _mm512_storeu_ps(sum + i, _mm512_add_ps(load(stream + i), load(added + i)));
    }
    const __m512 scale = scale_of(sum + start, width);
    for (int64_t i = 0; i < width; i += kHalf) {
      const __m512 number = _mm512_mul_ps(load(sum + start + i), scale);
      store(normed + start + i, rounded(_mm512_mul_ps(number, load(weight + i))));
    }
  }
}

// The gradients of stream, of added (the same, rounded) and of weight from those of sum and normed.
extern "C" void add_and_norm_gradient(const float* by_sum, const Bf16* by_normed, const float* sum,
                                      const float* weight, float* by_stream, Bf16* by_added,
                                      float* by_weight, int64_t rows, int64_t width,
                                      int threads) {
  const Pieces pieces(rows, width);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t piece = 0; piece < pieces_of(rows); ++piece) {
    float* const sums = pieces.cleared(piece);
    for (int64_t row = piece * kPiece; row < std::min(rows, (piece + 1) * kPiece); ++row) {
      const int64_t start = row * width;
      const __m512 scale = scale_of(sum + start, width);
      __m512 along = _mm512_setzero_ps();
      for (int64_t i = 0; i < width; i += kHalf) {
        const __m512 number = load(sum + start + i), back = load(by_normed + start + i);
        const __m512 normed = _mm512_mul_ps(number, scale);
        _mm512_storeu_ps(sums + i, _mm512_fmadd_ps(back, normed, load(sums + i)));
        along = _mm512_fmadd_ps(_mm512_mul_ps(back, load(weight + i)), number, along);
      }
      const float mean = _mm512_reduce_add_ps(along) / static_cast<float>(width);
      const __m512 less = _mm512_mul_ps(_mm512_mul_ps(scale, scale),
                                    _mm512_mul_ps(scale, _mm512_set1_ps(mean)));
      for (int64_t i = 0; i < width; i += kHalf) {
        const __m512 back = _mm512_mul_ps(load(by_normed + start + i), load(weight + i));
        const __m512 through = _mm512_fnmadd_ps(
            load(sum + start + i), less, _mm512_mul_ps(back, scale));
        const __m512 total = _mm512_add_ps(load(by_sum + start + i), through);
        _mm512_storeu_ps(by_stream + start + i, total);
        store(by_added + start + i, rounded(total));
      }
    }
  }
  pieces.add_up(by_weight);
}
