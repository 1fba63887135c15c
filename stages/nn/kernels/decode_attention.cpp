// Attention of one new token to a cache of keys and values, in every head of every row:
//
//     o = sum over t <= now of p_t v_t,    p = softmax(q k_t / sqrt(d))
//
// after its own key and value are put into the cache at `now`. NUMBER, the type of all of them, and
// HEAD_DIM are set by decode_attention.py, which says what this is for. Each head is computed by
// one thread in one order, in float32: results do not depend on the number of threads.

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

namespace {

using Number = NUMBER;
using Floats = at::vec::Vectorized<float>;
constexpr int64_t kLanes = Floats::size();
constexpr int64_t kParts = (HEAD_DIM + kLanes - 1) / kLanes;

inline Floats load(const float* numbers) { return Floats::loadu(numbers); }

inline Floats load(const c10::BFloat16* numbers) {
  Floats loaded;
  at::vec::load_to_float<c10::BFloat16>(numbers, loaded);
  return loaded;
}

// The first numbers; the other lanes are zero.
inline Floats load(const float* numbers, int64_t count) { return Floats::loadu(numbers, count); }

inline Floats load(const c10::BFloat16* numbers, int64_t count) {
  using Halves = at::vec::Vectorized<c10::BFloat16>;
  return std::get<0>(at::vec::convert_bfloat16_float(Halves::loadu(numbers, count)));
}

// The i-th part of a token, the last one perhaps not whole.
inline Floats part(const Number* token, int64_t i) {
  const int64_t left = HEAD_DIM - i * kLanes;
  return left < kLanes ? load(token + i * kLanes, left) : load(token + i * kLanes);
}

inline float sum_of(const Floats& lanes) {
  return at::vec::vec_reduce_all<float>([](Floats& a, Floats& b) { return a + b; }, lanes);
}

inline float maximum_of(const Floats& lanes) {
  return at::vec::vec_reduce_all<float>(
      [](Floats& a, Floats& b) { return at::vec::maximum(a, b); }, lanes);
}

// All that takes time is waiting for the cache. What is read next is asked for while this token is
// computed with: left alone, a processor does not look beyond the page of memory it is in. Into the
// outer caches (1): as much as a head reads would push out what is in the first.
inline void ask_for(const Number* token) {
  constexpr int64_t kCacheLine = 64 / sizeof(Number);
  for (int64_t i = 0; i < HEAD_DIM; i += kCacheLine) __builtin_prefetch(token + i, 0, 1);
}

// weights[t] = scale * q k_t
void compare(const Number* query, const Number* keys, const Number* values, int64_t seen,
             float scale, float* weights) {
  Floats scaled[kParts];
  for (int64_t i = 0; i < kParts; ++i) scaled[i] = part(query, i) * Floats(scale);
  for (int64_t t = 0; t < seen; ++t) {
    ask_for(values + t * HEAD_DIM);
    Floats product(0.0f);
    for (int64_t i = 0; i < kParts; ++i) {
      product = at::vec::fmadd(scaled[i], part(keys + t * HEAD_DIM, i), product);
    }
    weights[t] = sum_of(product);
  }
}

// weights <- exp(weights - their maximum); gives the sum. There is room for whole vectors.
float exponentiate(int64_t seen, float* weights) {
  const int64_t whole = (seen + kLanes - 1) / kLanes * kLanes;
  std::fill(weights + seen, weights + whole, -INFINITY);
  Floats greatest(-INFINITY), sum(0.0f);
  for (int64_t t = 0; t < whole; t += kLanes) {
    greatest = at::vec::maximum(greatest, load(weights + t));
  }
  const Floats maximum(maximum_of(greatest));
  for (int64_t t = 0; t < whole; t += kLanes) {
    const Floats weight = (load(weights + t) - maximum).exp();
    weight.store(weights + t);
    sum = sum + weight;
  }
  return sum_of(sum);
}

// mixed = sum over t of weights[t] v_t / total
void mix(const float* weights, float total, const Number* values, const Number* next_keys,
         int64_t seen, Number* mixed) {
  Floats sums[kParts];
  for (int64_t i = 0; i < kParts; ++i) sums[i] = Floats(0.0f);
  for (int64_t t = 0; t < seen; ++t) {
    ask_for(next_keys + t * HEAD_DIM);
    const Floats weight(weights[t]);
    for (int64_t i = 0; i < kParts; ++i) {
      sums[i] = at::vec::fmadd(weight, part(values + t * HEAD_DIM, i), sums[i]);
    }
  }
  float numbers[kParts * kLanes];
  for (int64_t i = 0; i < kParts; ++i) (sums[i] / Floats(total)).store(numbers + i * kLanes);
  for (int64_t i = 0; i < HEAD_DIM; ++i) mixed[i] = static_cast<Number>(numbers[i]);
}

}  // namespace

// The heads of a row lie side by side in `queries`, `new_keys` and `new_values`, whose rows are
// `..._stride` numbers apart, and in `mixed`, row after row. From the tokens of one head to those of
// the next, in the order of rows and heads, the cache has `cache_stride` numbers.
extern "C" void attend(const Number* queries, int64_t query_stride, const Number* new_keys,
                       int64_t key_stride, const Number* new_values, int64_t value_stride,
                       Number* keys, Number* values, int64_t cache_stride, Number* mixed,
                       int64_t rows, int64_t heads, int64_t now, float scale, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> weights(now + 1 + kLanes);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows * heads; ++i) {
      const int64_t row = i / heads, place = i % heads * HEAD_DIM;
      Number* own_keys = keys + i * cache_stride;
      Number* own_values = values + i * cache_stride;
      const Number* next_keys = i + 1 < rows * heads ? own_keys + cache_stride : own_keys;
      std::copy_n(new_keys + row * key_stride + place, HEAD_DIM, own_keys + now * HEAD_DIM);
      std::copy_n(new_values + row * value_stride + place, HEAD_DIM, own_values + now * HEAD_DIM);
      compare(queries + row * query_stride + place, own_keys, own_values, now + 1, scale,
              weights.data());
      const float total = exponentiate(now + 1, weights.data());
      mix(weights.data(), total, own_values, next_keys, now + 1, mixed + i * HEAD_DIM);
    }
  }
}
