// Attention of whole sequences by tiles, head by head. Included behind tiles.h.
//
// One thread computes a head from beginning to end, 32 queries or 32 keys at a time; nothing of tokens
// by tokens is written to memory that other threads or a later call would read. Where positions see
// what comes before them only, blocks that lie behind are not computed.

#include <cmath>

namespace {

// Numbers of (batch, heads, tokens, head_dim), the last ones side by side.
struct PerHead {
  Bf16* numbers;
  int64_t batch, head, token;  // strides

  Matrix of(int64_t in_batch, int64_t in_heads) const {
    return Matrix::plain(numbers + in_batch * batch + in_heads * head, token);
  }
};

struct Sizes {
  int64_t blocks;  // of 32 tokens
  int64_t deep;    // head_dim / 32
  bool causal;

  int64_t tokens() const { return blocks * kBlock; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(deep * kBlock)); }
  int64_t numbers() const { return blocks * deep * kPair; }
  // The blocks of queries that see a block of keys begin here, and the blocks of keys that a block of
  // queries sees end there.
  int64_t first_query(int64_t keys) const { return causal ? keys : 0; }
  int64_t end_of_keys(int64_t queries) const { return causal ? queries + 1 : blocks; }
};

// Right X^T, for products over head_dim.
void pack_turned(const Matrix& x, const Sizes& sizes, Bf16* to) {
  for (int64_t block = 0; block < sizes.blocks; ++block) {
    for (int64_t k = 0; k < sizes.deep; ++k, to += kPair) {
      const Bf16* const from = x.block(block, k);
      pack_columns(from, x.stride, to);
      pack_columns(from + kHalf * x.stride, x.stride, to + kTile);
    }
  }
}

// Right X, for products over tokens.
void pack_plain(const Matrix& x, const Sizes& sizes, Bf16* to) {
  for (int64_t panel = 0; panel < sizes.deep; ++panel) {
    for (int64_t block = 0; block < sizes.blocks; ++block, to += kPair) {
      pack_rows(x.block(block, panel), x.stride, to);
    }
  }
}

// The sums of one block.
inline void product(const Bf16* left, int64_t apart, int64_t stride, const Bf16* right, int64_t deep,
                    float* sums, int64_t sums_stride = kBlock) {
  clear_sums();
  multiply(left, apart, stride, right, deep, [](int64_t) {});
  store_sums(sums, sums_stride);
}

// 32 rows of a left factor: its blocks so far apart, rows so far.
struct Strip {
  const Bf16* numbers;
  int64_t apart, stride;
};

inline Strip blocked(const Bf16* numbers) { return {numbers, kPair, kBlock}; }

// A block of rows of `to`: `count` blocks of left times as many of right from `start` on; row by row
// times `scale(row)`.
template <class Scale>
void mix(const Strip& left, const Bf16* right, int64_t start, int64_t count, const Sizes& sizes,
         const Matrix& to, int64_t block_row, Scale scale) {
  alignas(64) float sums[kBlock * kBlock];
  for (int64_t panel = 0; panel < sizes.deep; ++panel) {
    product(left.numbers, left.apart, left.stride,
            right + (panel * sizes.blocks + start) * kPair, count, sums);
    for (int64_t row = 0; row < kBlock; ++row) {
      const __m512 by = _mm512_set1_ps(scale(row));
      const float* const from = sums + row * kBlock;
      store(to.block(block_row, panel) + row * to.stride,
            rounded(_mm512_mul_ps(_mm512_load_ps(from), by),
                    _mm512_mul_ps(_mm512_load_ps(from + kHalf), by)));
    }
  }
}

// The lanes below `count`.
inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>((1 << std::clamp<int64_t>(count, 0, kHalf)) - 1);
}

// e^(scale s - m) of the first `seen` numbers of a row, rounded, with the largest scale s for m; the
// others, up to `width`, become zero. Returns the sum; `largest` becomes m.
float exponentials(const float* scores, int64_t seen, int64_t width, float scale, Bf16* to,
                   float& largest) {
  const int64_t whole = seen / kHalf * kHalf;
  const __mmask16 last = first_lanes(seen - whole);
  __m512 high = _mm512_set1_ps(-INFINITY);
  for (int64_t k = 0; k < whole; k += kHalf) high = _mm512_max_ps(high, _mm512_load_ps(scores + k));
  if (last != 0) high = _mm512_mask_max_ps(high, last, high, _mm512_load_ps(scores + whole));
  largest = scale * _mm512_reduce_max_ps(high);
  const __m512 by = _mm512_set1_ps(scale), less = _mm512_set1_ps(-largest);
  const auto weights = [&](int64_t k) {
    return exponential(_mm512_fmadd_ps(_mm512_load_ps(scores + k), by, less));
  };
  __m512 sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < whole; k += kHalf) {
    const __m512 numbers = weights(k);
    sum = _mm512_add_ps(sum, numbers);
    store(to + k, rounded(numbers));
  }
  if (whole < width) {
    const __m512 numbers = _mm512_maskz_mov_ps(last, weights(whole));
    sum = _mm512_add_ps(sum, numbers);
    store(to + whole, rounded(numbers));
  }
  for (int64_t k = whole + kHalf; k < width; k += kHalf) store(to + k, _mm256_setzero_si256());
  return _mm512_reduce_add_ps(sum);
}

// What a thread holds of a head: P V from Q, K and V.
class Forward {
 public:
  explicit Forward(const Sizes& sizes)
      : sizes_(sizes), scale_(sizes.scale()), keys_(sizes.numbers()), values_(sizes.numbers()),
        scores_(kBlock * scores_stride()), weights_(kBlock * weights_stride()) {}

  void attend(const Matrix& queries, const Matrix& keys, const Matrix& values, const Matrix& mixed,
              float* largest, float* inverse) {
    pack_turned(keys, sizes_, keys_);
    pack_plain(values, sizes_, values_);
    for (int64_t block = 0; block < sizes_.blocks; ++block) {
      const int64_t end = sizes_.end_of_keys(block), first = block * kBlock;
      for (int64_t other = 0; other < end; ++other) {
        product(queries.block(block, 0), queries.apart, queries.stride,
                keys_ + other * sizes_.deep * kPair, sizes_.deep, scores_ + other * kBlock,
                scores_stride());
      }
      for (int64_t row = 0; row < kBlock; ++row) {
        const int64_t seen = sizes_.causal ? first + row + 1 : sizes_.tokens();
        inverse[first + row] =
            1.0f / exponentials(scores_ + row * scores_stride(), seen, end * kBlock, scale_,
                                weights_ + row * weights_stride(), largest[first + row]);
      }
      mix({weights_, kBlock, weights_stride()}, values_, 0, end, sizes_, mixed, block,
          [&](int64_t row) { return inverse[first + row]; });
    }
  }

 private:
  // A line more than a row has: rows do not all fall into the same places of a cache.
  int64_t scores_stride() const { return sizes_.tokens() + kHalf; }
  int64_t weights_stride() const { return sizes_.tokens() + kBlock; }

  const Sizes sizes_;
  const float scale_;
  const Room<Bf16> keys_, values_;
  const Room<float> scores_;
  const Room<Bf16> weights_;
};

// With P = softmax(S), O = P V and what comes back of O, G:
//
//     dV = P^T G,    dS = P * (G V^T - rowsum(G * O)) / sqrt(d),    dQ = dS K,    dK = dS^T Q
//
// (Dao et al. 2022, arXiv:2205.14135, appendix B.2), P anew from S and what is kept of its rows. Keys are
// rows here and queries columns, so that P^T and dS^T are left factors as they come.
class Backward {
 public:
  explicit Backward(const Sizes& sizes)
      : sizes_(sizes), scale_(sizes.scale()), queries_turned_(sizes.numbers()), queries_(sizes.numbers()),
        back_turned_(sizes.numbers()), back_(sizes.numbers()), keys_(sizes.numbers()),
        weights_(sizes.blocks * kPair), slopes_(sizes.blocks * sizes.blocks * kPair),
        strip_(sizes.blocks * kPair), offsets_(sizes.tokens()) {}

  void gradient(const Matrix& queries, const Matrix& keys, const Matrix& values, const Matrix& mixed,
                const Matrix& back, const float* largest, const float* inverse,
                const Matrix& by_queries, const Matrix& by_keys, const Matrix& by_values) {
    pack_turned(queries, sizes_, queries_turned_);
    pack_plain(queries, sizes_, queries_);
    pack_turned(back, sizes_, back_turned_);
    pack_plain(back, sizes_, back_);
    pack_plain(keys, sizes_, keys_);
    set_offsets(mixed, back);
    const auto as_it_is = [](int64_t) { return 1.0f; };
    for (int64_t block = 0; block < sizes_.blocks; ++block) {
      const int64_t start = sizes_.first_query(block), count = sizes_.blocks - start;
      for (int64_t other = start; other < sizes_.blocks; ++other) {
        weigh(keys, values, largest, inverse, block, other);
      }
      mix(blocked(weights_ + start * kPair), back_, start, count, sizes_, by_values, block, as_it_is);
      mix(blocked(slopes(block, start)), queries_, start, count, sizes_, by_keys, block, as_it_is);
    }
    for (int64_t block = 0; block < sizes_.blocks; ++block) {
      const int64_t end = sizes_.end_of_keys(block);
      for (int64_t other = 0; other < end; ++other) {
        pack_left(slopes(other, block), kBlock, strip_ + other * kPair);
      }
      mix(blocked(strip_), keys_, 0, end, sizes_, by_queries, block, as_it_is);
    }
  }

 private:
  Bf16* slopes(int64_t keys, int64_t queries) const {
    return slopes_ + (keys * sizes_.blocks + queries) * kPair;
  }

  // rowsum(G * O).
  void set_offsets(const Matrix& mixed, const Matrix& back) {
    for (int64_t token = 0; token < sizes_.tokens(); ++token) {
      __m512 sum = _mm512_setzero_ps();
      for (int64_t k = 0; k < sizes_.deep; ++k) {
        const Bf16 *const one = mixed.at(token, k), *const other = back.at(token, k);
        sum = _mm512_fmadd_ps(widened(one), widened(other), sum);
        sum = _mm512_fmadd_ps(widened(one + kHalf), widened(other + kHalf), sum);
      }
      offsets_[token] = _mm512_reduce_add_ps(sum);
    }
  }

  // P^T and dS^T of a block.
  void weigh(const Matrix& keys, const Matrix& values, const float* largest, const float* inverse,
             int64_t block, int64_t other) {
    alignas(64) float scores[kBlock * kBlock], returned[kBlock * kBlock];
    product(keys.block(block, 0), keys.apart, keys.stride,
            queries_turned_ + other * sizes_.deep * kPair, sizes_.deep, scores);
    product(values.block(block, 0), values.apart, values.stride,
            back_turned_ + other * sizes_.deep * kPair, sizes_.deep, returned);
    const __m512 by = _mm512_set1_ps(scale_);
    const bool partly_seen = sizes_.causal && block == other;
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t query = other * kBlock + half * kHalf;
      const __m512 highest = _mm512_loadu_ps(largest + query);
      const __m512 share = _mm512_loadu_ps(inverse + query);
      const __m512 offset = _mm512_loadu_ps(offsets_ + query);
      for (int64_t key = 0; key < kBlock; ++key) {
        const int64_t at = key * kBlock + half * kHalf;
        // A query sees the keys up to its own.
        const __mmask16 seen =
            partly_seen ? static_cast<__mmask16>(~first_lanes(key - half * kHalf)) : 0xffff;
        const __m512 weights = _mm512_maskz_mul_ps(
            seen, share, exponential(_mm512_fmsub_ps(_mm512_load_ps(scores + at), by, highest)));
        const __m512 change = _mm512_sub_ps(_mm512_load_ps(returned + at), offset);
        store(weights_ + other * kPair + at, rounded(weights));
        store(slopes(block, other) + at,
              rounded(_mm512_mul_ps(_mm512_mul_ps(weights, change), by)));
      }
    }
  }

  const Sizes sizes_;
  const float scale_;
  const Room<Bf16> queries_turned_, queries_, back_turned_, back_, keys_, weights_, slopes_, strip_;
  const Room<float> offsets_;
};

// Ask for the tokens of an image, all heads of it, into the cache next to a core: in their order, as
// memory is fast, and not head by head.
inline void expect(const PerHead& all, int64_t in_batch, int64_t heads, int64_t tokens,
                   int64_t head_dim) {
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t k = 0; k < head_dim / kBlock; ++k) ask_for(all.of(in_batch, head).at(token, k));
    }
  }
}

}  // namespace
