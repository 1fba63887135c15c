// Linear layers with the tile registers of a CPU (AMX); tile_products.py says what this is for.
//
// What only this file reads is blocked: its 32 x 32 blocks one after the other, so that memory is read
// and written in its order and not in rows far apart. Every sum is added by one thread in one order:
// results do not depend on their number.

#include "tiles.h"

namespace {

// Rows added up at once in a gradient of weights: what belongs to them stays in the cache of a core.
constexpr int64_t kRowsAtOnce = 8 * kBlock;
// Bytes of packed columns that stay there: of a wide left, whose rows are long to read again, more.
constexpr int64_t kKeptBytes = 1 << 20, kMostKeptBytes = 3 << 19;

// left times packed panels, as many at once as stay in cache; by all threads together.
template <class Finish>
void multiply_all(const Matrix& left, int64_t rows, const Bf16* right, int64_t panels,
                  Finish finish) {
  const TileRegisters registers;
  const int64_t deep = left.blocks(), panel_size = deep * kPair;
  const int64_t bytes = deep > panels ? kMostKeptBytes : kKeptBytes;
  const int64_t kept = std::max<int64_t>(1, bytes / (panel_size * sizeof(Bf16)));
  for (int64_t start = 0; start < panels; start += kept) {
    Blocks<Finish> blocks(finish, deep);
    const int64_t count = std::min(kept, panels - start), last = rows / kBlock - 1;
#pragma omp for schedule(static) nowait
    for (int64_t block_row = 0; block_row <= last; ++block_row) {
      const int64_t next = std::min(block_row + 1, last);
      for (int64_t i = 0; i < count; ++i) {
        const auto ask_for_next_rows = [&](int64_t k) {
          for (int64_t row = i * kBlock / count; row < (i + 1) * kBlock / count; ++row) {
            ask_for(left.block(next, k) + row * left.stride);
          }
        };
        blocks.multiply_block(left, right + (start + i) * panel_size, block_row, start + i,
                              ask_for_next_rows);
      }
    }
  }
#pragma omp barrier
}

// The panels of right (deep, width), by all threads together.
void pack_right(const float* right, int64_t deep, int64_t width, Bf16* to) {
#pragma omp for schedule(static)
  for (int64_t panel = 0; panel < width / kBlock; ++panel) {
    for (int64_t k = 0; k < deep / kBlock; ++k) {
      const float* from = right + k * kBlock * width + panel * kBlock;
      pack_rows(from, width, to + (panel * (deep / kBlock) + k) * kPair);
    }
  }
}

// sums (widths of both) = left^T right over all rows, `packed` with room for right; by all threads
// together.
void product_over_rows(const Matrix& left, const Matrix& right, int64_t rows, Bf16* packed,
                       float* sums) {
  const int64_t panels = right.blocks();
#pragma omp for schedule(static)
  for (int64_t start = 0; start < rows; start += kRowsAtOnce) {
    const int64_t deep = std::min(kRowsAtOnce, rows - start) / kBlock;
    for (int64_t k = 0; k < deep; ++k) {
      for (int64_t panel = 0; panel < panels; ++panel) {
        pack_rows(right.block(start / kBlock + k, panel), right.stride,
                  packed + start * right.width + (panel * deep + k) * kPair);
      }
    }
  }
  const TileRegisters registers;
  // So that all blocks of a strip together ask for every row of the next.
  const int64_t rows_asked_for = (kBlock + panels - 1) / panels;
  alignas(64) Bf16 strip[kRowsAtOnce * kBlock];
  for (int64_t start = 0; start < rows; start += kRowsAtOnce) {
    const int64_t deep = std::min(kRowsAtOnce, rows - start) / kBlock;
#pragma omp for schedule(static) nowait
    for (int64_t column = 0; column < left.blocks(); ++column) {
      for (int64_t k = 0; k < deep; ++k) {
        pack_left(left.block(start / kBlock + k, column), left.stride, strip + k * kPair);
      }
      // The next strip lies beside this one; behind the last there may be nothing.
      const int64_t next_column = std::min(column + 1, left.blocks() - 1);
      int64_t asked_for = 0;
      for (int64_t panel = 0; panel < panels; ++panel) {
        float* const block = sums + column * kBlock * right.width + panel * kBlock;
        const float* const next = panel + 1 < panels ? block + kBlock : block;
        if (start == 0) {
          clear_sums();
        } else {
          load_sums(block, right.width);
        }
        const Bf16* const tiles = packed + start * right.width + panel * deep * kPair;
        multiply(strip, kPair, kBlock, tiles, deep, [&](int64_t k) {
          for (int64_t i = 4 * k; i < std::min(4 * k + 4, kBlock); ++i) {
            ask_for(next + i * right.width);
            ask_for(next + i * right.width + kHalf);
          }
          for (int64_t i = 0; i < rows_asked_for && asked_for < deep * kBlock; ++i, ++asked_for) {
            ask_for(left.block(start / kBlock + asked_for / kBlock, next_column) +
                    asked_for % kBlock * left.stride);
          }
        });
        store_sums(block, right.width);
      }
    }
  }
#pragma omp barrier
}

// gradient (out, in) = left^T right, (rows, out) and (rows, in), summed as is faster: of what is
// packed as it stands little, of what is turned much.
void weight_gradient(const Matrix& left, const Matrix& right, int64_t rows, Bf16* packed,
                     float* turned, float* gradient) {
  const int64_t out = left.width, in = right.width;
  if (in <= out) {
    product_over_rows(left, right, rows, packed, gradient);
    return;
  }
  product_over_rows(right, left, rows, packed, turned);
#pragma omp for schedule(static)
  for (int64_t i = 0; i < out; i += kHalf) {
    for (int64_t j = 0; j < in; j += kHalf) {
      __m512i numbers[16];
      for (int64_t k = 0; k < kHalf; ++k) numbers[k] = _mm512_loadu_si512(turned + (j + k) * out + i);
      transpose(numbers);
      for (int64_t k = 0; k < kHalf; ++k) _mm512_storeu_si512(gradient + (i + k) * in + j, numbers[k]);
    }
  }
}

struct Store {
  Matrix to;

  void operator()(int64_t block_row, int64_t panel, int64_t row, __m512 first,
                  __m512 second) const {
    store(to.block(block_row, panel) + row * to.stride, rounded(first, second));
  }
};

// m = silu(g) u, from panels of 16 columns of g and of u, and what the gradient will need: dm/dg and
// dm/du, side by side.
struct Gate {
  Matrix by_both, mixed;

  void operator()(int64_t block_row, int64_t panel, int64_t row, __m512 gate, __m512 up) const {
    const __m512 share = sigmoid(gate), silu = _mm512_mul_ps(gate, share);
    // silu' = s + g s (1 - s)
    const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(_mm512_set1_ps(1.0f), share), share);
    store(by_both.block(block_row, panel) + row * kBlock,
          rounded(_mm512_mul_ps(up, slope), silu));
    store(mixed.block(block_row, panel / 2) + row * kBlock + panel % 2 * kHalf,
          rounded(_mm512_mul_ps(silu, up)));
  }
};

// The gradients of g and u, side by side, from that of m.
struct GateGradient {
  Matrix by_both, gradients;

  void operator()(int64_t block_row, int64_t panel, int64_t row, __m512 first,
                  __m512 second) const {
    const int64_t at = row * kBlock;
    const Bf16* const one = by_both.block(block_row, 2 * panel) + at;
    const Bf16* const other = by_both.block(block_row, 2 * panel + 1) + at;
    store(gradients.block(block_row, panel) + at,
          rounded(_mm512_mul_ps(first, widened(one)), _mm512_mul_ps(second, widened(other))));
    store(gradients.block(block_row, panel + gradients.blocks() / 2) + at,
          rounded(_mm512_mul_ps(first, widened(one + kHalf)),
                  _mm512_mul_ps(second, widened(other + kHalf))));
  }
};

}  // namespace

// Of a linear layer: of_weight (out, in) from the gradient of its output and from its input.
extern "C" void linear_gradient(const Bf16* gradient, const Bf16* input, float* of_weight,
                                int64_t rows, int64_t in, int64_t out, int threads) {
  const Room<Bf16> packed(rows * std::min(in, out));
  const Room<float> turned(in <= out ? 0 : in * out);
#pragma omp parallel num_threads(threads)
  weight_gradient(Matrix::plain(gradient, out), Matrix::plain(input, in), rows, packed, turned,
                  of_weight);
}

// output = (silu(gate) * up) weight_out^T, gate and up = input weight_in^T; weight_in (2 hidden,
// width), weight_out (width, hidden). `kept`: what Gate gives, blocked.
extern "C" void feed_forward(const Bf16* input, const float* weight_in, const float* weight_out,
                             Bf16* kept, Bf16* output, int64_t rows, int64_t width, int64_t hidden,
                             int threads) {
  const Matrix by_both = Matrix::blocked(kept, 2 * hidden);
  const Matrix mixed = Matrix::blocked(kept + 2 * rows * hidden, hidden);
  const Room<Bf16> packed_in(2 * hidden * width), packed_out(hidden * width);
#pragma omp parallel num_threads(threads)
  {
    const float* const to_up = weight_in + hidden * width;
    pack_right_turned(weight_in, to_up, kHalf, hidden / kHalf, width, packed_in);
    pack_right_turned(weight_out, weight_out + kHalf * hidden, kBlock, width / kBlock, hidden,
                      packed_out);
    multiply_all(Matrix::plain(input, width), rows, packed_in, hidden / kHalf,
                 Gate{by_both, mixed});
    multiply_all(mixed, rows, packed_out, width / kBlock, Store{Matrix::plain(output, width)});
  }
}

// From the gradient of its output those of its input and weights.
extern "C" void feed_forward_gradient(const Bf16* gradient, const Bf16* input,
                                      const float* weight_in, const float* weight_out,
                                      const Bf16* kept, Bf16* of_input, float* of_weight_in,
                                      float* of_weight_out, int64_t rows, int64_t width,
                                      int64_t hidden, int threads) {
  const Matrix by_both = Matrix::blocked(kept, 2 * hidden);
  const Matrix mixed = Matrix::blocked(kept + 2 * rows * hidden, hidden);
  const Matrix outer = Matrix::plain(gradient, width), inner = Matrix::plain(input, width);
  const Room<Bf16> numbers(2 * rows * hidden), packed_rows(rows * width);
  const Room<Bf16> packed_in(2 * hidden * width), packed_out(hidden * width);
  const Room<float> turned(2 * hidden * width);
  const Matrix gradients = Matrix::blocked(numbers, 2 * hidden);
#pragma omp parallel num_threads(threads)
  {
    pack_right(weight_out, width, hidden, packed_out);
    pack_right(weight_in, 2 * hidden, width, packed_in);
    multiply_all(outer, rows, packed_out, hidden / kBlock, GateGradient{by_both, gradients});
    multiply_all(gradients, rows, packed_in, width / kBlock,
                 Store{Matrix::plain(of_input, width)});
    weight_gradient(outer, mixed, rows, packed_rows, turned, of_weight_out);
    weight_gradient(gradients, inner, rows, packed_rows, turned, of_weight_in);
  }
}
