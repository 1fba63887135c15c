// Attention of one new token to a cache of keys and values, in every head of every row:
//
//     o = sum over t <= now of p_t v_t,    p = softmax(q k_t / sqrt(d))
//
// after its own key and value are put into the cache at `now`. NUMBER, the type of all of them, and
// HEAD_DIM are set by decode_attention.py, which says what this is for. Each head is computed by
// one thread in one order, in float32: results do not depend on the number of threads.

#include "one_query.h"

using one_query::Number;

// The heads of a row lie side by side in `queries`, `new_keys` and `new_values`, whose rows are
// `..._stride` numbers apart, and in `mixed`, row after row. From the tokens of one head to those of
// the next, in the order of rows and heads, the cache has `cache_stride` numbers.
extern "C" void attend(const Number* queries, int64_t query_stride, const Number* new_keys,
                       int64_t key_stride, const Number* new_values, int64_t value_stride,
                       Number* keys, Number* values, int64_t cache_stride, Number* mixed,
                       int64_t rows, int64_t heads, int64_t now, float scale, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> weights(now + 1 + one_query::kLanes);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows * heads; ++i) {
      const int64_t row = i / heads, place = i % heads * HEAD_DIM;
      Number* own_keys = keys + i * cache_stride;
      Number* own_values = values + i * cache_stride;
      const Number* next_keys = i + 1 < rows * heads ? own_keys + cache_stride : own_keys;
      std::copy_n(new_keys + row * key_stride + place, HEAD_DIM, own_keys + now * HEAD_DIM);
      std::copy_n(new_values + row * value_stride + place, HEAD_DIM, own_values + now * HEAD_DIM);
      one_query::attend(queries + row * query_stride + place, own_keys, own_values, next_keys,
                        now + 1, scale, weights.data(), mixed + i * HEAD_DIM);
    }
  }
}
