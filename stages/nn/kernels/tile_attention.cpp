// softmax(Q K^T / sqrt(d)) V of short sequences and its gradient, with the tile registers of a CPU
// (AMX); tile_attention.py says what this is for.

#include "tiles.h"
#include "heads.h"

// Strides are of batch, heads and tokens; sums (2, batch, heads, tokens): the largest logit of each
// row, and one over the sum of e to the others less this.
extern "C" void attention(PerHead queries, PerHead keys, PerHead values, PerHead mixed, float* sums,
                          int64_t batch, int64_t heads, int64_t tokens, int64_t head_dim,
                          bool causal, int threads) {
  const Sizes sizes{tokens / kBlock, head_dim / kBlock, causal};
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    Forward forward(sizes);
#pragma omp for schedule(static)
    for (int64_t one = 0; one < batch * heads; ++one) {
      const int64_t b = one / heads, h = one % heads;
      if (h == 0) {
        for (const PerHead& all : {queries, keys, values}) expect(all, b, heads, tokens, head_dim);
      }
      float* const largest = sums + one * tokens;
      forward.attend(queries.of(b, h), keys.of(b, h), values.of(b, h), mixed.of(b, h), largest,
                     largest + batch * heads * tokens);
    }
  }
}

// From `back`, the gradient of `mixed`.
extern "C" void attention_gradient(PerHead queries, PerHead keys, PerHead values, PerHead mixed,
                                   PerHead back, const float* sums, PerHead by_queries,
                                   PerHead by_keys, PerHead by_values, int64_t batch,
                                   int64_t heads, int64_t tokens, int64_t head_dim, bool causal,
                                   int threads) {
  const Sizes sizes{tokens / kBlock, head_dim / kBlock, causal};
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    Backward backward(sizes);
#pragma omp for schedule(static)
    for (int64_t one = 0; one < batch * heads; ++one) {
      const int64_t b = one / heads, h = one % heads;
      if (h == 0) {
        for (const PerHead& all : {queries, keys, values, mixed, back}) {
          expect(all, b, heads, tokens, head_dim);
        }
      }
      const float* const largest = sums + one * tokens;
      backward.gradient(queries.of(b, h), keys.of(b, h), values.of(b, h), mixed.of(b, h),
                        back.of(b, h), largest, largest + batch * heads * tokens,
                        by_queries.of(b, h), by_keys.of(b, h), by_values.of(b, h));
    }
  }
}
