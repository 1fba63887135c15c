// One token through all blocks of a transformer: products with packed weights by the vector registers
// of a CPU, and all that lies between them; vector_steps.py says what this is for. HEAD_DIM, a multiple
// of 16, and NUMBER, of weights and cache, are set there. All is computed in float32.
//
// All threads go through a step together and wait for each other between its parts. What a part does
// for a row, a head or a column is done by one thread in one order: results depend neither on the
// number of threads nor on the other rows.

#include "comparing.h"
#include "one_query.h"
#include "steps.h"

#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

namespace {

using one_query::Floats;
using one_query::kLanes;
using one_query::load;
using one_query::Number;

// Rows and columns that are multiplied at once: with 16 registers 12 sums, two parts of a panel and a
// number of the left.
constexpr int64_t kRows = 6, kPanel = 2 * kLanes;

// Of the columns of a panel the row k, its first half and its second.
inline void load_row(const float* row, Floats& first, Floats& second) {
  first = load(row);
  second = load(row + kLanes);
}

// In bfloat16 columns lie in turns, one of either half: as float32 one is the lower, one the upper part
// of 32 bits.
inline void load_row(const c10::BFloat16* row, Floats& first, Floats& second) {
  using Pairs = uint32_t __attribute__((vector_size(sizeof(Floats))));
  Pairs pairs;
  std::memcpy(&pairs, row, sizeof pairs);
  first = std::bit_cast<Floats>(pairs << 16);
  second = std::bit_cast<Floats>(pairs & 0xffff0000);
}

inline int64_t place_of(int64_t column) {
  if constexpr (std::is_same_v<Number, float>) return column;
  return column < kLanes ? 2 * column : 2 * (column - kLanes) + 1;
}

// The panel that is read next, or a share of it: some is asked for at every row of this one. Left alone, a
// processor asks for too little at once, and not before it is needed.
struct Ahead {
  const char* from;
  int64_t apart;

  void ask_for(int64_t row) const { __builtin_prefetch(from + row * apart, 0, 1); }
};

// `count` rows, so far apart, times a panel; `finish(row, first, second)` gets their sums.
template <int count, class Finish>
inline void multiply_rows(const float* rows, int64_t width, const Number* panel, const Ahead& ahead,
                          const Finish& finish) {
  Floats sums[count][2];
#pragma GCC unroll 6
  for (int r = 0; r < count; ++r) sums[r][0] = sums[r][1] = Floats(0.0f);
  for (int64_t k = 0; k < width; ++k) {
    Floats first, second;
    load_row(panel + k * kPanel, first, second);
    ahead.ask_for(k);
#pragma GCC unroll 6
    for (int r = 0; r < count; ++r) {
      const Floats number(rows[r * width + k]);
      sums[r][0] = at::vec::fmadd(number, first, sums[r][0]);
      sums[r][1] = at::vec::fmadd(number, second, sums[r][1]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < count; ++r) finish(r, sums[r][0], sums[r][1]);
}

// The same for a number of rows up to `most`: each has its own loop.
template <int most, class Finish>
inline void multiply_up_to(int64_t count, const float* rows, int64_t width, const Number* panel,
                           const Ahead& ahead, const Finish& finish) {
  if (count == most) return multiply_rows<most>(rows, width, panel, ahead, finish);
  if constexpr (most > 1) multiply_up_to<most - 1>(count, rows, width, panel, ahead, finish);
}

// left times packed panels: each is fetched once, for all rows. These are shared out evenly among blocks:
// of few rows every sum waits for what was added to it before.
template <class Finish>
void multiply_panels(const float* left, int64_t rows, int64_t width, const Number* right,
                     int64_t columns, const Finish& finish) {
  const int64_t row_bytes = kPanel * sizeof(Number), blocks = (rows + kRows - 1) / kRows;
#pragma omp for schedule(static)
  for (int64_t column = 0; column < columns; column += kPanel) {
    const Number* const panel = right + column * width;
    Ahead ahead{reinterpret_cast<const char*>(panel + width * kPanel), row_bytes / blocks};
    for (int64_t block = 0; block < blocks; ++block, ahead.from += width * ahead.apart) {
      const int64_t row = block * rows / blocks, count = (block + 1) * rows / blocks - row;
      multiply_up_to<kRows>(count, left + row * width, width, panel, ahead,
                            [&](int64_t r, const Floats& first, const Floats& second) {
                              finish(row + r, column, first, second);
                            });
    }
  }
}

// 1 / (root mean square) of a row.
inline float scale_of(const float* row, int64_t width) {
  Floats squares(0.0f);
  for (int64_t i = 0; i < width; i += kLanes) {
    const Floats numbers = load(row + i);
    squares = at::vec::fmadd(numbers, numbers, squares);
  }
  const float mean = one_query::sum_of(squares) / static_cast<float>(width);
  return 1.0f / std::sqrt(mean + std::numeric_limits<float>::epsilon());
}

// The norm of every row.
void norm_rows(const float* from, int64_t rows, const float* weight, int64_t width, float* to) {
#pragma omp for schedule(static)
  for (int64_t at = 0; at < rows * width; at += width) {
    const float scale = scale_of(from + at, width);
    for (int64_t i = 0; i < width; ++i) to[at + i] = from[at + i] * scale * weight[i];
  }
}

// A query or key from its projection.
inline void compare(const Comparing& how, int64_t row, int64_t head, const float* from, Number* to) {
  constexpr int64_t kPairs = HEAD_DIM / 2;
  float numbers[HEAD_DIM];
  std::copy_n(from, HEAD_DIM, numbers);
  if (const float* const gain = how.gain_of(head)) {
    const float scale = scale_of(from, HEAD_DIM);
    for (int64_t i = 0; i < HEAD_DIM; ++i) numbers[i] = numbers[i] * scale * gain[i];
  }
  if (how.cosines != nullptr) {
    const float* const cosines = how.cosines + how.turn_of(row, head);
    const float* const sines = how.sines + how.turn_of(row, head);
    for (int64_t i = 0; i < kPairs; ++i) {
      const float first = numbers[i], second = numbers[kPairs + i];
      numbers[i] = first * cosines[i] - second * sines[i];
      numbers[kPairs + i] = second * cosines[i] + first * sines[i];
    }
  }
  std::copy_n(numbers, HEAD_DIM, to);
}

// Attention of every head of every row to its cache, which its own key and value are put into first.
void attend(const Comparing& how, const float* projected, int64_t rows, Number* keys, Number* values,
            int64_t room, int64_t now, float* mixed) {
  std::vector<float> weights(now + 1 + kLanes);
  const float scale = 1.0f / std::sqrt(static_cast<float>(HEAD_DIM));
  const int64_t width = how.heads * HEAD_DIM, apart = room * HEAD_DIM;
#pragma omp for schedule(static)
  for (int64_t i = 0; i < rows * how.heads; ++i) {
    const int64_t row = i / how.heads, head = i % how.heads;
    const float* const query = projected + (row * 3 * how.heads + head) * HEAD_DIM;
    Number *const own_keys = keys + i * apart, *const own_values = values + i * apart;
    const Number* const next_keys = i + 1 < rows * how.heads ? own_keys + apart : own_keys;
    Number compared[HEAD_DIM], found[HEAD_DIM];
    compare(how, row, head, query, compared);
    compare(how, row, how.heads + head, query + width, own_keys + now * HEAD_DIM);
    std::copy_n(query + 2 * width, HEAD_DIM, own_values + now * HEAD_DIM);
    one_query::attend(compared, own_keys, own_values, next_keys, now + 1, scale, weights.data(), found);
    std::copy_n(found, HEAD_DIM, mixed + i * HEAD_DIM);
  }
}

// Memory of the calling thread, kept from step to step.
float* kept_room(int64_t count) {
  static thread_local std::vector<float> room;
  if (count > static_cast<int64_t>(room.size())) room.resize(count);
  return room.data();
}

// Rows and columns of weight^T in panels of so many columns, of which the one at `column` is `out`.
template <class Out>
void pack_panels(const Number* weight, Number* to, int64_t columns, int64_t in, Out out) {
  for (int64_t column = 0; column < columns; ++column) {
    const Number* const from = weight + out(column) * in;
    Number* const panel = to + column / kPanel * kPanel * in + place_of(column % kPanel);
    for (int64_t k = 0; k < in; ++k) panel[k * kPanel] = from[k];
  }
}

}  // namespace

// The panels of weight^T; weight (out, in).
extern "C" void pack(const Number* weight, Number* to, int64_t out, int64_t in) {
  pack_panels(weight, to, out, in, [](int64_t column) { return column; });
}

// The panels of a gate's weight^T, as many columns of either half in each; weight (2 hidden, in).
extern "C" void pack_gate(const Number* weight, Number* to, int64_t hidden, int64_t in) {
  pack_panels(weight, to, 2 * hidden, in, [&](int64_t column) {
    const int64_t place = column % kPanel;
    return column / kPanel * kLanes + place % kLanes + place / kLanes * hidden;
  });
}

// stream (rows, width): what goes in, then what comes out. keys, values (layers, rows, heads, room,
// head_dim): `now` tokens of them are there. cosines, sines (turns, 2, head_dim / 2), or null.
extern "C" void step(const Layer<Number>* layers, const float* weight, float* stream, Number* keys,
                     Number* values, const float* cosines, const float* sines, int64_t num_layers,
                     int64_t rows, int64_t width, int64_t hidden, int64_t room, int64_t now,
                     int64_t turns, int threads) {
  const int64_t heads = width / HEAD_DIM, of_layer = rows * heads * room * HEAD_DIM;
  float* const normed = kept_room(rows * (5 * width + hidden));
  float* const mixed = normed + rows * width;
  float* const projected = mixed + rows * width;
  float* const gated = projected + rows * 3 * width;
  const auto store = [&](int64_t row, int64_t column, const Floats& first, const Floats& second) {
    float* const to = projected + row * 3 * width + column;
    first.store(to);
    second.store(to + kLanes);
  };
  const auto add = [&](int64_t row, int64_t column, const Floats& first, const Floats& second) {
    float* const to = stream + row * width + column;
    (load(to) + first).store(to);
    (load(to + kLanes) + second).store(to + kLanes);
  };
  const auto gate = [&](int64_t row, int64_t column, const Floats& gate, const Floats& up) {
    const Floats silu = gate / (Floats(1.0f) + gate.neg().exp());
    (silu * up).store(gated + row * hidden + column / 2);
  };
#pragma omp parallel num_threads(threads)
  {
    for (int64_t i = 0; i < num_layers; ++i) {
      const Layer<Number>& layer = layers[i];
      const Comparing how{layer.gain, cosines, sines, turns, heads, HEAD_DIM};
      norm_rows(stream, rows, layer.attention_norm, width, normed);
      multiply_panels(normed, rows, width, layer.to_heads, 3 * width, store);
      attend(how, projected, rows, keys + i * of_layer, values + i * of_layer, room, now, mixed);
      multiply_panels(mixed, rows, width, layer.from_heads, width, add);
      norm_rows(stream, rows, layer.feed_forward_norm, width, normed);
      multiply_panels(normed, rows, width, layer.to_gates, 2 * hidden, gate);
      multiply_panels(gated, rows, hidden, layer.from_gates, width, add);
    }
    norm_rows(stream, rows, weight, width, stream);
  }
}
