// Products of few rows with packed weights and the tile registers of a CPU (AMX); tile_steps.py says
// what this is for.
//
// All there is to do is to read the weights: every thread reads panels of its own, one after the other,
// for all rows at once.

#include "tiles.h"

namespace {

inline int64_t blocks_of(int64_t rows) { return (rows + kBlock - 1) / kBlock; }

// Rows blocked, with zeros behind the last.
void block_rows(const Bf16* rows, int64_t count, const Matrix& to) {
  for (int64_t block = 0; block < blocks_of(count); ++block) {
    for (int64_t column = 0; column < to.blocks(); ++column) {
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t row = block * kBlock + i;
        const Bf16* const from = rows + row * to.width + column * kBlock;
        store(to.block(block, column) + i * kBlock,
              row < count ? loaded(from) : _mm512_setzero_si512());
      }
    }
  }
}

// left times packed panels, which all threads share.
template <class Finish>
void multiply_panels(const Matrix& left, int64_t rows, const Bf16* right, int64_t panels,
                     Finish finish) {
  const int64_t deep = left.blocks();
  Blocks<Finish> blocks(finish, deep);
#pragma omp for schedule(static) nowait
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t block = 0; block < blocks_of(rows); ++block) {
      blocks.multiply_block(left, right + panel * deep * kPair, block, panel, [](int64_t) {});
    }
  }
}

// As rows that there are.
struct StoreRows {
  Bf16* to;
  int64_t rows, width;

  void operator()(int64_t block, int64_t panel, int64_t i, __m512 first, __m512 second) const {
    const int64_t row = block * kBlock + i;
    if (row < rows) store(to + row * width + panel * kBlock, rounded(first, second));
  }
};

// silu(g) u, from panels of 16 columns of g and of u.
struct Gate {
  Matrix mixed;

  void operator()(int64_t block, int64_t panel, int64_t i, __m512 gate, __m512 up) const {
    const __m512 silu = _mm512_mul_ps(gate, sigmoid(gate));
    store(mixed.block(block, panel / 2) + i * kBlock + panel % 2 * kHalf,
          rounded(_mm512_mul_ps(silu, up)));
  }
};

// Memory of a thread for its copy of rows, kept from call to call.
Bf16* kept_room(int64_t count) {
  static thread_local int64_t size = 0;
  static thread_local Room<Bf16> room(0);
  if (count > size) {
    room = Room<Bf16>(count);
    size = count;
  }
  return room;
}

}  // namespace

// The panels of weight^T; weight (out, in).
extern "C" void pack(const Bf16* weight, Bf16* to, int64_t out, int64_t in) {
  pack_right_turned(weight, weight + kHalf * in, kBlock, out / kBlock, in, to);
}

// The panels of a gate's weight^T, 16 columns of either half each; weight (2 hidden, in).
extern "C" void pack_gate(const Bf16* weight, Bf16* to, int64_t hidden, int64_t in) {
  pack_right_turned(weight, weight + hidden * in, kHalf, hidden / kHalf, in, to);
}

// output (rows, out) of input (rows, in).
extern "C" void linear(const Bf16* input, const Bf16* packed, Bf16* output, int64_t rows, int64_t in,
                       int64_t out, int64_t threads) {
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    const Matrix left = Matrix::blocked(kept_room(blocks_of(rows) * kBlock * in), in);
    block_rows(input, rows, left);
    multiply_panels(left, rows, packed, out / kBlock, StoreRows{output, rows, out});
  }
}

// output (rows, width) = (silu(gate) * up) weight_out^T, of input (rows, width).
extern "C" void feed_forward(const Bf16* input, const Bf16* packed_in, const Bf16* packed_out,
                             Bf16* output, int64_t rows, int64_t width, int64_t hidden,
                             int64_t threads) {
  const Room<Bf16> numbers(blocks_of(rows) * kBlock * hidden);
  const Matrix mixed = Matrix::blocked(numbers, hidden);
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    const Matrix left = Matrix::blocked(kept_room(blocks_of(rows) * kBlock * width), width);
    block_rows(input, rows, left);
    multiply_panels(left, rows, packed_in, hidden / kHalf, Gate{mixed});
#pragma omp barrier
    multiply_panels(mixed, rows, packed_out, width / kBlock, StoreRows{output, rows, width});
  }
}
