// One token through all blocks of a transformer: products with packed weights by the tile registers of
// a CPU (AMX), and all that lies between them; tile_steps.py says what this is for. HEAD_DIM and
// NUMBER, bfloat16, are set there.
//
// All threads go through a step together and wait for each other between its parts. What a part does
// for a row, a head or a column is done by one thread in one order: results depend neither on the
// number of threads nor on the other rows.

#include "tiles.h"
#include "comparing.h"
#include "norms.h"
#include "one_query.h"
#include "steps.h"

namespace {

// The norm of every row, for a product.
void norm_rows(const float* rows, int64_t count, const float* weight, const Matrix& to) {
#pragma omp for schedule(static)
  for (int64_t row = 0; row < count; ++row) {
    norm(rows + row * to.width, weight, to.width, [&](int64_t i, __m512 first, __m512 second) {
      store(to.at(row, i / kBlock), rounded(first, second));
    });
  }
}

// left times packed panels: all there is to do is to read these, for all rows at once.
template <class Finish>
void multiply_panels(const Matrix& left, int64_t rows, const Bf16* right, int64_t panels,
                     Finish finish) {
  const int64_t deep = left.blocks();
  {
    Blocks<Finish> blocks(finish, deep);
#pragma omp for schedule(static) nowait
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t block = 0; block < blocks_of(rows); ++block) {
        blocks.multiply_block(left, right + panel * deep * kPair, block, panel);
      }
    }
  }
#pragma omp barrier
}

struct StoreRows {
  Bf16* to;
  int64_t rows, width;

  void operator()(int64_t block, int64_t panel, int64_t i, __m512 first, __m512 second) const {
    const int64_t row = block * kBlock + i;
    if (row < rows) store(to + row * width + panel * kBlock, rounded(first, second));
  }
};

struct AddRows {
  float* to;
  int64_t rows, width;

  void operator()(int64_t block, int64_t panel, int64_t i, __m512 first, __m512 second) const {
    const int64_t row = block * kBlock + i;
    if (row >= rows) return;
    float* const at = to + row * width + panel * kBlock;
    _mm512_storeu_ps(at, _mm512_add_ps(load(at), first));
    _mm512_storeu_ps(at + kHalf, _mm512_add_ps(load(at + kHalf), second));
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

// The cache of a layer: of each row and head the tokens so far, and room for others.
struct Cache {
  Bf16 *keys, *values;
  int64_t room, now;
};

// Attention of every head of every row to its cache, which its own key and value are put into first.
void attend(const Comparing& how, const Bf16* projected, int64_t rows, const Cache& cache,
            const Matrix& mixed) {
  std::vector<float> weights(cache.now + 1 + one_query::kLanes);
  const float scale = 1.0f / std::sqrt(static_cast<float>(HEAD_DIM));
  const auto numbers = [](const Bf16* from) {
    return reinterpret_cast<const one_query::Number*>(from);
  };
#pragma omp for schedule(static)
  for (int64_t i = 0; i < rows * how.heads; ++i) {
    const int64_t row = i / how.heads, head = i % how.heads;
    const Bf16* const query = projected + (row * 3 * how.heads + head) * HEAD_DIM;
    const Bf16 *const key = query + mixed.width, *const value = key + mixed.width;
    Bf16* const keys = cache.keys + i * cache.room * HEAD_DIM;
    Bf16* const values = cache.values + i * cache.room * HEAD_DIM;
    const bool last = i + 1 == rows * how.heads;
    alignas(64) Bf16 compared[HEAD_DIM], found[HEAD_DIM];
    compare<HEAD_DIM>(how, row, head, query, compared);
    compare<HEAD_DIM>(how, row, how.heads + head, key, keys + cache.now * HEAD_DIM);
    std::copy_n(value, HEAD_DIM, values + cache.now * HEAD_DIM);
    one_query::attend(numbers(compared), numbers(keys), numbers(values),
                      numbers(last ? keys : keys + cache.room * HEAD_DIM), cache.now + 1, scale,
                      weights.data(), reinterpret_cast<one_query::Number*>(found));
    for (int64_t column = 0; column < HEAD_DIM; column += kBlock) {
      store(mixed.at(row, (head * HEAD_DIM + column) / kBlock), loaded(found + column));
    }
  }
}

// Memory of the calling thread, kept from step to step. In blocks, what lies behind the last row is
// computed with, whatever it is, and looked at by nobody.
Bf16* kept_room(int64_t count) {
  static thread_local int64_t size = 0;
  static thread_local Room<Bf16> room(0);
  if (count > size) {
    room = Room<Bf16>(count);
    size = count;
    std::fill_n(static_cast<Bf16*>(room), count, 0);
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

// stream (rows, width): what goes in, then what comes out. keys, values (layers, rows, heads, room,
// head_dim): `now` tokens of them are there. cosines, sines (turns, 2, head_dim / 2), or null.
extern "C" void step(const Layer<Bf16>* layers, const float* weight, float* stream, Bf16* keys,
                     Bf16* values, const float* cosines, const float* sines, int64_t num_layers,
                     int64_t rows, int64_t width, int64_t hidden, int64_t room, int64_t now,
                     int64_t turns, int threads) {
  const int64_t padded = blocks_of(rows) * kBlock, heads = width / HEAD_DIM;
  const int64_t of_layer = rows * heads * room * HEAD_DIM;
  Bf16* const memory = kept_room(padded * (5 * width + hidden));
  const Matrix normed = Matrix::blocked(memory, width);
  const Matrix mixed = Matrix::blocked(memory + padded * width, width);
  const Matrix gated = Matrix::blocked(memory + padded * 2 * width, hidden);
  Bf16* const projected = memory + padded * (2 * width + hidden);
  const AddRows add{stream, rows, width};
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    for (int64_t i = 0; i < num_layers; ++i) {
      const Layer<Bf16>& layer = layers[i];
      const Comparing how{layer.gain, cosines, sines, turns, heads, HEAD_DIM};
      const Cache cache{keys + i * of_layer, values + i * of_layer, room, now};
      norm_rows(stream, rows, layer.attention_norm, normed);
      multiply_panels(normed, rows, layer.to_heads, 3 * width / kBlock,
                      StoreRows{projected, rows, 3 * width});
      attend(how, projected, rows, cache, mixed);
      multiply_panels(mixed, rows, layer.from_heads, width / kBlock, add);
      norm_rows(stream, rows, layer.feed_forward_norm, normed);
      multiply_panels(normed, rows, layer.to_gates, hidden / kHalf, Gate{gated});
      multiply_panels(gated, rows, layer.from_gates, width / kBlock, add);
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      float* const numbers = stream + row * width;
      norm(numbers, weight, width, [&](int64_t i, __m512 first, __m512 second) {
        _mm512_storeu_ps(numbers + i, first);
        _mm512_storeu_ps(numbers + i + kHalf, second);
      });
    }
  }
}
