// One query among the keys and values of a cache, in float32. NUMBER, the type of all of them, and
// HEAD_DIM are set by who compiles it.

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

namespace one_query {
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
inline void compare(const Number* query, const Number* keys, const Number* values, int64_t seen,
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
inline float exponentiate(int64_t seen, float* weights) {
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
inline void mix(const float* weights, float total, const Number* values, const Number* next_keys,
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

// mixed = sum over t < seen of p_t v_t,    p = softmax(scale * query k_t)
//
// `next_keys`: of whom is computed after it. `weights`: room for as many numbers, and a vector.
inline void attend(const Number* query, const Number* keys, const Number* values,
                   const Number* next_keys, int64_t seen, float scale, float* weights,
                   Number* mixed) {
  compare(query, keys, values, seen, scale, weights);
  const float total = exponentiate(seen, weights);
  mix(weights, total, values, next_keys, seen, mixed);
}

}  // namespace
}  // namespace one_query
