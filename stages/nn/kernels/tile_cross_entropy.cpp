// Cross entropy of a linear layer, and its gradient, with the tile registers of a CPU (AMX);
// tile_cross_entropy.py says what this is for. Threads share rows as in tile_layers.cpp.

#include "tiles.h"
#include "products.h"
#include "rounds.h"

#include <cmath>
#include <limits>

namespace {

// The sums of a panel and the bias, rounded.
struct StoreBiased : Store {
  const float* bias;

  void operator()(int64_t block_row, int64_t panel, int64_t row, __m512 first,
                  __m512 second) const {
    const float* const here = bias + panel * kBlock;
    Store::operator()(block_row, panel, row, _mm512_add_ps(first, _mm512_loadu_ps(here)),
                      _mm512_add_ps(second, _mm512_loadu_ps(here + kHalf)));
  }
};

// log(sum of e^l) of a row.
float log_of_sum(const Bf16* logits, int64_t codes) {
  __m512 high = widened(logits);
  for (int64_t i = kHalf; i < codes; i += kHalf) high = _mm512_max_ps(high, widened(logits + i));
  const float largest = _mm512_reduce_max_ps(high);
  const __m512 less = _mm512_set1_ps(largest);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < codes; i += kHalf) {
    sum = _mm512_add_ps(sum, exponential(_mm512_sub_ps(widened(logits + i), less)));
  }
  return largest + std::log(_mm512_reduce_add_ps(sum));
}

// That of a row's loss by its logits, `back` times (softmax(l) - 1 at the target), rounded; what is
// rounded is added to `by_bias` first.
void gradient_of_row(const Bf16* logits, float log_of_sum, int64_t target, float back,
                     int64_t codes, Bf16* by_logits, float* by_bias) {
  const __m512 less = _mm512_set1_ps(log_of_sum), by = _mm512_set1_ps(back);
  const auto gradient = [&](int64_t i) {
    const __m512 share = exponential(_mm512_sub_ps(widened(logits + i), less));
    const int64_t lane = target - i;
    const __mmask16 here = static_cast<__mmask16>(0 <= lane && lane < kHalf ? 1 << lane : 0);
    const __m512 change = _mm512_mask_sub_ps(share, here, share, _mm512_set1_ps(1.0f));
    const __m512 found = _mm512_mul_ps(change, by);
    _mm512_storeu_ps(by_bias + i, _mm512_add_ps(_mm512_loadu_ps(by_bias + i), found));
    return found;
  };
  for (int64_t i = 0; i < codes; i += kBlock) {
    const __m512 first = gradient(i);
    store(by_logits + i, rounded(first, gradient(i + kHalf)));
  }
}

}  // namespace

// losses = logs - logits at the targets, logs the log(sum of e^l) of logits = hidden weight^T + bias;
// weight (codes, width). A target that is no code has no loss but NaN.
extern "C" void cross_entropy(const Bf16* hidden, const float* weight, const float* bias,
                              const int64_t* targets, float* losses, Bf16* logits, float* logs,
                              int64_t rows, int64_t width, int64_t codes, int threads) {
  const Chunks chunks(rows, kBlock, threads);
  const Matrix inner = Matrix::plain(hidden, width), outer = Matrix::plain(logits, codes);
  const Room<Bf16> packed(codes * width);
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    pack_right_turned(weight, weight + kHalf * width, kBlock, codes / kBlock, width, packed);
    chunks.for_each([&](int64_t begin, int64_t end) {
      multiply_rows(inner.from(begin), end - begin, packed, codes / kBlock,
                    StoreBiased{{outer.from(begin)}, bias});
      for (int64_t row = begin; row < end; ++row) {
        const int64_t target = targets[row];
        const bool is_code = 0 <= target && target < codes;
        logs[row] = log_of_sum(logits + row * codes, codes);
        losses[row] = is_code ? logs[row] - number(logits[row * codes + target])
                              : std::numeric_limits<float>::quiet_NaN();
      }
    });
  }
}

// The gradients of hidden, weight and bias from those of losses.
extern "C" void cross_entropy_gradient(const float* by_losses, const Bf16* hidden,
                                       const float* weight, const int64_t* targets,
                                       const Bf16* logits, const float* logs, Bf16* by_hidden,
                                       float* by_weight, float* by_bias, int64_t rows,
                                       int64_t width, int64_t codes, int threads) {
  const Chunks chunks(rows, kBlock, threads);
  const Matrix inner = Matrix::plain(hidden, width), outer = Matrix::plain(by_hidden, width);
  const Room<Bf16> of_round(chunks.of_round() * codes);
  const Matrix by_logits = Matrix::plain(of_round, codes);
  const Pieces of_bias(rows / kBlock, codes);
  const WeightGradient of_weight(codes, width, chunks.of_round(), by_weight);
  const Room<Bf16> packed(codes * width);
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    of_bias.clear();
    pack_right(weight, codes, width, packed);
    chunks.in_rounds(
        [&](int64_t begin, int64_t end, int64_t first) {
          const Matrix of_chunk = by_logits.from(begin - first);
          for (int64_t row = begin; row < end; ++row) {
            gradient_of_row(logits + row * codes, logs[row], targets[row], by_losses[row], codes,
                            of_chunk.from(row - begin).numbers, of_bias.of(row / kBlock));
          }
          multiply_rows(of_chunk, end - begin, packed, width / kBlock, Store{outer.from(begin)});
        },
        [&](int64_t first, int64_t count) {
          of_weight.add(by_logits, inner.from(first), count, first == 0);
        });
    of_weight.finish();
    of_bias.add_up(by_bias);
  }
}
