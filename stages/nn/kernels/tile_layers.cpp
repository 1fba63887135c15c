// The two layers of a block of a transformer, forward and backward, with the tile registers of a CPU
// (AMX); tile_layers.py says what this is for.
//
// A thread takes some rows through all of a layer before it turns to the next: what lies between its
// parts stays in the cache of a core. Backward, all threads together then add what these rows give to
// the gradients of weights. Every sum is added by one thread in one order: results do not depend on
// their number.
//
// What only this file reads of many rows is blocked: its 32 x 32 blocks one after the other, so that
// memory is read and written in its order and not in rows far apart.

#include "tiles.h"
#include "products.h"
#include "rounds.h"
#include "comparing.h"
#include "norms.h"
#include "heads.h"

#include <type_traits>

namespace {

// The residual stream, and the norm before a layer.
struct Stream {
  int64_t width;
  const float* weight;
  float* sum;     // of the stream and what the layer before adds
  Bf16* normed;

  void norm(int64_t begin, int64_t end, const float* stream, const Bf16* added) const {
    for (int64_t at = begin * width; at < end * width; at += width) {
      add_and_norm(stream + at, added == nullptr ? nullptr : added + at, weight, width, sum + at,
                   normed + at);
    }
  }

  // From `by_normed`, of these rows alone.
  void gradient(int64_t begin, int64_t end, const float* by_sum, const Bf16* by_normed,
                float* by_stream, Bf16* by_added, const Pieces& by_weight) const {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * width;
      add_and_norm_gradient(by_sum + at, by_normed + (row - begin) * width, sum + at, weight, width,
                            by_stream + at, by_added + at, by_weight.of(row / kBlock));
    }
  }
};

// m = silu(g) u, from panels of 16 columns of g and of u, and what the gradient will need: dm/dg and
// dm/du, side by side.
struct Gate {
  Matrix by_both, mixed;

  void expect(int64_t block_row, int64_t panel, int64_t row) const {
    ask_to_write(by_both.block(block_row, panel) + row * kBlock);
    if (panel % 2 == 0) ask_to_write(mixed.block(block_row, panel / 2) + row * kBlock);
  }

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

  void expect(int64_t block_row, int64_t panel, int64_t row) const {
    const int64_t at = row * kBlock;
    for (int64_t tile : {0, 1}) {
      ask_for(by_both.block(block_row, 2 * panel + tile) + at);
      ask_to_write(gradients.block(block_row, panel + tile * gradients.blocks() / 2) + at);
    }
  }

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

// Attention of heads: from projections of tokens, (rows, 3, heads, head_dim), to mixed values, (rows,
// heads, head_dim). Queries and keys are made anew, head by head, from what is in the cache. Where the
// tokens of an image are no whole blocks, copies of a head are, with zeros behind: tokens that nobody
// sees, and that nothing comes back of.
class Heads {
 public:
  // `sums` (2, images, heads, tokens of whole blocks): of attention. All else is given of one image.
  Heads(const Comparing& how, int64_t images, int64_t tokens, float* sums)
      : how_(how), tokens_(tokens), padded_(blocks_of(tokens) * kBlock),
        width_(how.heads * how.head_dim), largest_(sums),
        inverse_(sums + images * how.heads * padded_), rooms_(kRooms * padded_ * how.head_dim) {
    if (are_whole()) return;
    std::fill_n(static_cast<Bf16*>(rooms_), kRooms * padded_ * how.head_dim, 0);
  }

  Sizes sizes() const { return {padded_ / kBlock, deep(), true}; }

  void attend(Forward& forward, int64_t image, const Bf16* projected, Bf16* mixed) const {
    for (int64_t head = 0; head < how_.heads; ++head) {
      compare_all(image, head, projected);
      const int64_t at = sums_of(image, head);
      const Matrix found = mixed_of(mixed, head), to = are_whole() ? found : room(kMixed);
      forward.attend(room(kQueries), room(kKeys), whole(values_of(projected, head), kValues), to,
                     largest_ + at, inverse_ + at);
      if (!are_whole()) hand_on(to, found, 0);
    }
  }

  // `back` comes back of `mixed`; what is found goes into rows from this one on of `by_projected`. Adds
  // to the gradient of the gain.
  void gradient(Backward& backward, int64_t image, const Bf16* projected, const Bf16* mixed,
                const Bf16* back, const Matrix& by_projected, int64_t row, float* by_gain) const {
    expect(projected, 3 * tokens_ * width_);
    expect(mixed, tokens_ * width_);
    for (int64_t head = 0; head < how_.heads; ++head) {
      compare_all(image, head, projected);
      const int64_t at = sums_of(image, head);
      const Matrix found = by_projected.columns(place_of(0, 2, head) / kBlock);
      const Matrix to = are_whole() ? found.from(row) : room(kByValues);
      backward.gradient(room(kQueries), room(kKeys), whole(values_of(projected, head), kValues),
                        whole(mixed_of(mixed, head), kMixed), whole(mixed_of(back, head), kBack),
                        largest_ + at, inverse_ + at, room(kByQueries), room(kByKeys), to);
      if (!are_whole()) hand_on(to, found, row);
      for_all(head, [&](auto head_dim, int64_t token, int64_t key, int64_t place) {
        compare_gradient<head_dim>(how_, image * tokens_ + token, key * how_.heads + head,
                                   room(kByQueries + key).numbers + token * head_dim,
                                   projected + place,
                                   by_projected.at(row + token, place_of(0, key, head) / kBlock),
                                   by_projected.apart, by_gain + key * head_dim);
      });
    }
  }

 private:
  // What there is room for, of one head.
  enum { kQueries, kKeys, kByQueries, kByKeys, kValues, kMixed, kBack, kByValues, kRooms };

  bool are_whole() const { return tokens_ == padded_; }
  int64_t deep() const { return how_.head_dim / kBlock; }

  Matrix room(int64_t which) const {
    return Matrix::plain(rooms_ + which * padded_ * how_.head_dim, how_.head_dim);
  }

  Matrix whole(const Matrix& head, int64_t which) const {
    if (are_whole()) return head;
    hand_on(head, room(which), 0);
    return room(which);
  }

  // The tokens of a head, to rows from this one on.
  void hand_on(const Matrix& from, const Matrix& to, int64_t row) const {
    for (int64_t token = 0; token < tokens_; ++token) {
      for (int64_t k = 0; k < deep(); ++k) {
        std::copy_n(from.at(token, k), kBlock, to.at(row + token, k));
      }
    }
  }

  // Of a query (0), a key (1) or a value (2) among projections.
  int64_t place_of(int64_t token, int64_t which, int64_t head) const {
    return (token * 3 + which) * width_ + head * how_.head_dim;
  }

  int64_t sums_of(int64_t image, int64_t head) const {
    return (image * how_.heads + head) * padded_;
  }

  Matrix values_of(const Bf16* projected, int64_t head) const {
    return Matrix::plain(projected + place_of(0, 2, head), 3 * width_);
  }

  Matrix mixed_of(const Bf16* mixed, int64_t head) const {
    return Matrix::plain(mixed + head * how_.head_dim, width_);
  }

  // Ask for numbers in their order, as memory is fast, and not head by head.
  static void expect(const Bf16* numbers, int64_t count) {
    for (int64_t i = 0; i < count; i += kBlock) ask_for(numbers + i);
  }

  template <class Use>
  void for_all(int64_t head, Use use) const {
    with_constant(how_.head_dim, [&](auto head_dim) {
      for (int64_t token = 0; token < tokens_; ++token) {
        for (int64_t key = 0; key < 2; ++key) use(head_dim, token, key, place_of(token, key, head));
      }
    });
  }

  // The sizes that Python lets in.
  template <class Use>
  static void with_constant(int64_t head_dim, Use use) {
    switch (head_dim) {
      case 32: return use(std::integral_constant<int, 32>());
      case 64: return use(std::integral_constant<int, 64>());
      case 96: return use(std::integral_constant<int, 96>());
      case 128: return use(std::integral_constant<int, 128>());
    }
  }

  void compare_all(int64_t image, int64_t head, const Bf16* projected) const {
    for_all(head, [&](auto head_dim, int64_t token, int64_t key, int64_t place) {
      compare<head_dim>(how_, image * tokens_ + token, key * how_.heads + head, projected + place,
                        room(kQueries + key).numbers + token * head_dim);
    });
  }

  const Comparing how_;
  const int64_t tokens_, padded_, width_;
  float *const largest_, *const inverse_;
  const Room<Bf16> rooms_;
};

}  // namespace

// sum = stream + added; attended = mixed weight_out^T, mixed the attention of the heads of projected =
// norm(sum) weight_in^T. weight_in (3 width, width), weight_out (width, width); gain (2, head_dim),
// cosines and sines (turns, 2, head_dim / 2). Null: added, gain, cosines and sines that there are not.
extern "C" void attention_layer(const float* stream, const Bf16* added, const float* norm,
                                const float* weight_in, const float* gain, const float* cosines,
                                const float* sines, const float* weight_out, float* sum,
                                Bf16* attended, Bf16* normed, Bf16* projected, Bf16* mixed,
                                float* sums, int64_t images, int64_t tokens, int64_t heads,
                                int64_t head_dim, int64_t turns, int threads) {
  const int64_t width = heads * head_dim;
  const Comparing how{gain, cosines, sines, turns, heads, head_dim};
  const Chunks chunks(images * tokens, tokens, threads);
  const Stream before{width, norm, sum, normed};
  const Matrix inner = Matrix::plain(normed, width), middle = Matrix::plain(mixed, width);
  const Matrix to_heads = Matrix::plain(projected, 3 * width);
  const Matrix outer = Matrix::plain(attended, width);
  const Room<Bf16> packed_in(3 * width * width), packed_out(width * width);
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    pack_right_turned(weight_in, weight_in + kHalf * width, kBlock, 3 * width / kBlock, width,
                      packed_in);
    pack_right_turned(weight_out, weight_out + kHalf * width, kBlock, width / kBlock, width,
                      packed_out);
    const Heads all_heads(how, images, tokens, sums);
    Forward forward(all_heads.sizes());
    chunks.for_each([&](int64_t begin, int64_t end) {
      const int64_t rows = end - begin;
      before.norm(begin, end, stream, added);
      multiply_rows(inner.from(begin), rows, packed_in, 3 * width / kBlock,
                    Store{to_heads.from(begin)});
      for (int64_t row = begin; row < end; row += tokens) {
        all_heads.attend(forward, row / tokens, to_heads.from(row).numbers,
                         middle.from(row).numbers);
      }
      multiply_rows(middle.from(begin), rows, packed_out, width / kBlock, Store{outer.from(begin)});
    });
  }
}

// The gradients of stream, of added (the same, rounded), norm, weight_in, gain and weight_out from those
// of sum and attended.
extern "C" void attention_layer_gradient(
    const float* by_sum, const Bf16* by_attended, const float* norm, const float* weight_in,
    const float* gain, const float* cosines, const float* sines, const float* weight_out,
    const float* sum, const Bf16* normed, const Bf16* projected, const Bf16* mixed,
    const float* sums, float* by_stream, Bf16* by_added, float* by_norm, float* by_weight_in,
    float* by_gain, float* by_weight_out, int64_t images, int64_t tokens, int64_t heads,
    int64_t head_dim, int64_t turns, int threads) {
  const int64_t width = heads * head_dim, all_rows = images * tokens;
  const Comparing how{gain, cosines, sines, turns, heads, head_dim};
  const Chunks chunks(all_rows, tokens, threads);
  const Stream before{width, norm, const_cast<float*>(sum), const_cast<Bf16*>(normed)};
  const Pieces of_norm(all_rows / kBlock, width), of_gain(images, 2 * head_dim);
  const Matrix outer = Matrix::plain(by_attended, width);
  const Matrix inner = Matrix::plain(normed, width), middle = Matrix::plain(mixed, width);
  const Matrix to_heads = Matrix::plain(projected, 3 * width);
  const Room<Bf16> of_round(3 * chunks.of_round() * width);
  const Matrix by_heads = Matrix::blocked(of_round, 3 * width);
  const WeightGradient of_in(3 * width, width, chunks.of_round(), by_weight_in);
  const WeightGradient of_out(width, width, chunks.of_round(), by_weight_out);
  const Room<Bf16> packed_in(3 * width * width), packed_out(width * width);
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    of_norm.clear();
    of_gain.clear();
    pack_right(weight_out, width, width, packed_out);
    pack_right(weight_in, 3 * width, width, packed_in);
    const Room<Bf16> room(chunks.at_once * width);
    const Matrix back = Matrix::plain(room, width);
    const Heads all_heads(how, images, tokens, const_cast<float*>(sums));
    Backward backward(all_heads.sizes());
    chunks.in_rounds(
        [&](int64_t begin, int64_t end, int64_t first) {
          const int64_t rows = end - begin;
          multiply_rows(outer.from(begin), rows, packed_out, width / kBlock, Store{back});
          for (int64_t row = begin; row < end; row += tokens) {
            all_heads.gradient(backward, row / tokens, to_heads.from(row).numbers,
                               middle.from(row).numbers, back.from(row - begin).numbers, by_heads,
                               row - first, of_gain.of(row / tokens));
          }
          multiply_rows(by_heads.from(begin - first), rows, packed_in, width / kBlock, Store{back});
          before.gradient(begin, end, by_sum, back.numbers, by_stream, by_added, of_norm);
        },
        [&](int64_t first, int64_t count) {
          of_out.add(outer.from(first), middle.from(first), count, first == 0);
          of_in.add(by_heads, inner.from(first), count, first == 0);
        });
    of_out.finish();
    of_in.finish();
    of_norm.add_up(by_norm);
    if (gain != nullptr) of_gain.add_up(by_gain);
  }
}

// sum = stream + added; output = (silu(gate) * up) weight_out^T, gate and up = norm(sum) weight_in^T;
// weight_in (2 hidden, width), weight_out (width, hidden). `kept` (3, rows, hidden): what Gate gives,
// blocked.
extern "C" void feed_forward_layer(const float* stream, const Bf16* added, const float* norm,
                                   const float* weight_in, const float* weight_out, float* sum,
                                   Bf16* output, Bf16* normed, Bf16* kept, int64_t rows,
                                   int64_t width, int64_t hidden, int threads) {
  const Chunks chunks(rows, kBlock, threads);
  const Stream before{width, norm, sum, normed};
  const Matrix inner = Matrix::plain(normed, width), outer = Matrix::plain(output, width);
  const Matrix by_both = Matrix::blocked(kept, 2 * hidden);
  const Matrix mixed = Matrix::blocked(kept + 2 * rows * hidden, hidden);
  const Room<Bf16> packed_in(2 * hidden * width), packed_out(hidden * width);
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    pack_right_turned(weight_in, weight_in + hidden * width, kHalf, hidden / kHalf, width,
                      packed_in);
    pack_right_turned(weight_out, weight_out + kHalf * hidden, kBlock, width / kBlock, hidden,
                      packed_out);
    chunks.for_each([&](int64_t begin, int64_t end) {
      const int64_t count = end - begin;
      before.norm(begin, end, stream, added);
      multiply_rows(inner.from(begin), count, packed_in, hidden / kHalf,
                    Gate{by_both.from(begin), mixed.from(begin)});
      multiply_rows(mixed.from(begin), count, packed_out, width / kBlock, Store{outer.from(begin)});
    });
  }
}

// The gradients of stream, of added (the same, rounded), norm, weight_in and weight_out from those of
// sum and output.
extern "C" void feed_forward_layer_gradient(
    const float* by_sum, const Bf16* by_output, const float* norm, const float* weight_in,
    const float* weight_out, const float* sum, const Bf16* normed, const Bf16* kept,
    float* by_stream, Bf16* by_added, float* by_norm, float* by_weight_in, float* by_weight_out,
    int64_t rows, int64_t width, int64_t hidden, int threads) {
  const Chunks chunks(rows, kBlock, threads);
  const Stream before{width, norm, const_cast<float*>(sum), const_cast<Bf16*>(normed)};
  const Pieces of_norm(rows / kBlock, width);
  const Matrix inner = Matrix::plain(normed, width), outer = Matrix::plain(by_output, width);
  const Matrix by_both = Matrix::blocked(kept, 2 * hidden);
  const Matrix mixed = Matrix::blocked(kept + 2 * rows * hidden, hidden);
  const Room<Bf16> of_round(2 * chunks.of_round() * hidden);
  const Matrix gradients = Matrix::blocked(of_round, 2 * hidden);
  const WeightGradient of_in(2 * hidden, width, chunks.of_round(), by_weight_in);
  const WeightGradient of_out(width, hidden, chunks.of_round(), by_weight_out);
  const Room<Bf16> packed_in(2 * hidden * width), packed_out(hidden * width);
#pragma omp parallel num_threads(threads)
  {
    const TileRegisters registers;
    of_norm.clear();
    pack_right(weight_out, width, hidden, packed_out);
    pack_right(weight_in, 2 * hidden, width, packed_in);
    const Room<Bf16> room(chunks.at_once * width);
    const Matrix back = Matrix::plain(room, width);
    chunks.in_rounds(
        [&](int64_t begin, int64_t end, int64_t first) {
          const Matrix of_chunk = gradients.from(begin - first);
          multiply_rows(outer.from(begin), end - begin, packed_out, hidden / kBlock,
                        GateGradient{by_both.from(begin), of_chunk});
          multiply_rows(of_chunk, end - begin, packed_in, width / kBlock, Store{back});
          before.gradient(begin, end, by_sum, back.numbers, by_stream, by_added, of_norm);
        },
        [&](int64_t first, int64_t count) {
          of_out.add(outer.from(first), mixed.from(first), count, first == 0);
          of_in.add(gradients, inner.from(first), count, first == 0);
        });
    of_out.finish();
    of_in.finish();
    of_norm.add_up(by_norm);
  }
}
