// Products of blocks with the tile registers of a CPU (AMX), in bfloat16 with sums in float32.
//
// A product of a block is 32 x 32 sums in four tiles, of two tiles of rows by two tiles of columns.
// What comes from the right is packed first: of 32 columns and 32 rows two tiles of 16 columns, whose
// rows are pairs of rows of the matrix.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace {

using Bf16 = uint16_t;

constexpr int64_t kHalf = 16;         // rows or columns of a tile
constexpr int64_t kBlock = 32;        // rows or columns of a block; the depth of a tile
constexpr int64_t kTile = 16 * 32;    // numbers of a tile in bfloat16
constexpr int64_t kPair = 2 * kTile;  // of the two of a block

struct alignas(64) TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// Not on a stack: compilers do not see that all of it is read, and leave out what is written there.
const TileShapes kShapes;

// Of this thread, while this lives.
class TileRegisters {
 public:
  TileRegisters() { _tile_loadconfig(&kShapes); }
  ~TileRegisters() { _tile_release(); }
};

// Ask for the cache line of a number: memory is waited for while something is computed.
template <class Number>
inline void ask_for(const Number* number) {
  _mm_prefetch(reinterpret_cast<const char*>(number), _MM_HINT_T0);
}

// The same for one that will be written: a store that has to wait for its line keeps others from being
// read. Compilers leave the instruction out unless told that there is one.
inline void ask_to_write(const Bf16* number) { asm volatile("prefetchw %0" : : "m"(*number)); }

// Blocks that hold so many rows, the last one perhaps not full.
inline int64_t blocks_of(int64_t rows) { return (rows + kBlock - 1) / kBlock; }

inline __m512i loaded(const Bf16* from) { return _mm512_loadu_si512(from); }

inline __m512i rounded(__m512 first, __m512 second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}

inline __m512i loaded(const float* from) {
  return rounded(_mm512_loadu_ps(from), _mm512_loadu_ps(from + kHalf));
}

inline __m256i rounded(__m512 numbers) {
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(numbers));
}

inline __m512 widened(const Bf16* from) {
  const __m256i numbers = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16));
}

inline float number(Bf16 from) {
  return std::bit_cast<float>(static_cast<uint32_t>(from) << 16);
}

inline void store(Bf16* to, __m512i numbers) { _mm512_storeu_si512(to, numbers); }

inline void store(Bf16* to, __m256i numbers) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), numbers);
}

// e^x to 3 of a million: 2^(n + f) with f within a half, the power of f by a polynomial fitted there.
inline __m512 exponential(__m512 x) {
  const __m512 power = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
  const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(power, whole);
  __m512 sum = _mm512_set1_ps(0.00957008647f);
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.0559179012f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.240247455f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.69312181f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.999999261f));
  return _mm512_scalef_ps(sum, whole);
}

// 1 / (1 + e^-x); the reciprocal to 14 bits, of which 8 are kept.
inline __m512 sigmoid(__m512 x) {
  const __m512 inverse = exponential(_mm512_sub_ps(_mm512_setzero_ps(), x));
  return _mm512_rcp14_ps(_mm512_add_ps(inverse, _mm512_set1_ps(1.0f)));
}

// 16 x 16 of 32 bits each.
inline void transpose(__m512i (&rows)[16]) {
  __m512i other[16];
  for (int i = 0; i < 8; ++i) {
    other[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    other[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(other[i], other[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(other[i], other[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(other[i + 1], other[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(other[i + 1], other[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    for (int half = 0; half < 16; half += 8) {
      const __m512i first = rows[half + i], second = rows[half + 4 + i];
      other[half + i] = _mm512_shuffle_i32x4(first, second, 0x88);
      other[half + 4 + i] = _mm512_shuffle_i32x4(first, second, 0xdd);
    }
  }
  for (int i = 0; i < 8; ++i) {
    rows[i] = _mm512_shuffle_i32x4(other[i], other[8 + i], 0x88);
    rows[8 + i] = _mm512_shuffle_i32x4(other[i], other[8 + i], 0xdd);
  }
}

inline void store_tile(const __m512i (&rows)[16], Bf16* to) {
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * kBlock, rows[i]);
}

// Two rows of 32 as pairs: those of the first 16 columns, and of the others.
inline void pair(__m512i upper, __m512i lower, __m512i& first, __m512i& second) {
  const __m512i columns = _mm512_cvtepu16_epi32(
      _mm256_set_epi16(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  const __m512i of_both = _mm512_or_si512(
      columns, _mm512_slli_epi32(_mm512_add_epi32(columns, _mm512_set1_epi32(32)), 16));
  first = _mm512_permutex2var_epi16(upper, of_both, lower);
  second = _mm512_permutex2var_epi16(
      upper, _mm512_add_epi16(of_both, _mm512_set1_epi16(16)), lower);
}

// A block of a right matrix that is stored row by row.
template <class Number>
inline void pack_rows(const Number* from, int64_t stride, Bf16* to) {
  for (int64_t i = 0; i < kHalf; ++i) {
    __m512i first, second;
    pair(loaded(from + 2 * i * stride), loaded(from + (2 * i + 1) * stride), first, second);
    _mm512_store_si512(to + i * kBlock, first);
    _mm512_store_si512(to + kTile + i * kBlock, second);
  }
}

// One tile of a right matrix that is stored column by column.
template <class Number>
inline void pack_columns(const Number* from, int64_t stride, Bf16* to) {
  __m512i columns[16];
  for (int64_t i = 0; i < kHalf; ++i) columns[i] = loaded(from + i * stride);
  transpose(columns);
  store_tile(columns, to);
}

// A block of a left matrix that is stored column by column: two tiles.
inline void pack_left(const Bf16* from, int64_t stride, Bf16* to) {
  __m512i first[16], second[16];
  for (int64_t i = 0; i < kHalf; ++i) {
    pair(loaded(from + 2 * i * stride), loaded(from + (2 * i + 1) * stride), first[i], second[i]);
  }
  transpose(first);
  store_tile(first, to);
  transpose(second);
  store_tile(second, to + kTile);
}

// Adds to tiles 0 to 3 the products of `deep` blocks of the left, side by side, and `deep` packed
// ones of the right; `meanwhile` is called with each. The right passes by (stream): put into the first
// cache, it would drive out the left, which the next block reads again.
template <class Meanwhile>
inline void multiply(const Bf16* left, int64_t apart, int64_t stride, const Bf16* right,
                     int64_t deep, Meanwhile meanwhile) {
  const int64_t bytes = stride * sizeof(Bf16);
  for (int64_t k = 0; k < deep; ++k, left += apart, right += kPair) {
    _tile_loadd(4, left, bytes);
    _tile_stream_loadd(6, right, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, right + kTile, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + kHalf * stride, bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    meanwhile(k);
  }
}

inline void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void load_sums(const float* from, int64_t stride) {
  const int64_t bytes = stride * sizeof(float);
  _tile_loadd(0, from, bytes);
  _tile_loadd(1, from + kHalf, bytes);
  _tile_loadd(2, from + kHalf * stride, bytes);
  _tile_loadd(3, from + kHalf * stride + kHalf, bytes);
}

inline void store_sums(float* to, int64_t stride) {
  const int64_t bytes = stride * sizeof(float);
  _tile_stored(0, to, bytes);
  _tile_stored(1, to + kHalf, bytes);
  _tile_stored(2, to + kHalf * stride, bytes);
  _tile_stored(3, to + kHalf * stride + kHalf, bytes);
}

// Room for numbers, not set.
template <class Number>
class Room {
 public:
  explicit Room(int64_t count)
      : numbers_(static_cast<Number*>(std::aligned_alloc(64, (count * sizeof(Number) + 63) / 64 * 64)),
                 std::free) {}
  operator Number*() const { return numbers_.get(); }

 private:
  std::unique_ptr<Number, decltype(&std::free)> numbers_;
};

// A matrix in bfloat16, stored row by row or block by block.
class Matrix {
 public:
  static Matrix plain(Bf16* numbers, int64_t width) { return {numbers, width, kBlock, width}; }
  static Matrix plain(const Bf16* numbers, int64_t width) {
    return plain(const_cast<Bf16*>(numbers), width);
  }
  static Matrix blocked(Bf16* numbers, int64_t width) { return {numbers, width, kPair, kBlock}; }
  static Matrix blocked(const Bf16* numbers, int64_t width) {
    return blocked(const_cast<Bf16*>(numbers), width);
  }

  Bf16* block(int64_t row, int64_t column) const {
    return numbers + row * kBlock * width + column * apart;
  }
  // The 32 numbers of a row in a column of blocks.
  Bf16* at(int64_t row, int64_t column) const {
    return block(row / kBlock, column) + row % kBlock * stride;
  }
  int64_t blocks() const { return width / kBlock; }
  // Some columns of blocks of it, from this one on: looked at by who knows how many.
  Matrix columns(int64_t first) const { return {numbers + first * apart, width, apart, stride}; }
  // Without the rows before this one; of a blocked matrix the first of a block.
  Matrix from(int64_t row) const { return {numbers + row * width, width, apart, stride}; }

  Bf16* numbers;
  int64_t width;
  int64_t apart;   // of a block and the next one of its rows
  int64_t stride;  // of the rows of a block
};

// Blocks one after the other, each finished while the next is multiplied.
//
// `finish(block row, panel, row, first, second)` gets the sums of a row: of the 16 columns of either
// tile of a panel. What it will read and write is asked for a block before, by `finish.expect(block row,
// panel, row)` if there is that.
template <class Finish>
class Blocks {
 public:
  Blocks(Finish finish, int64_t deep)
      : finish_(finish), deep_(deep), at_once_((kBlock + deep - 2) / std::max<int64_t>(1, deep - 1)) {}
  ~Blocks() { finish_until(kBlock); }

  void multiply_block(const Matrix& left, const Bf16* right, int64_t block_row, int64_t panel) {
    clear_sums();
    multiply(left.block(block_row, 0), left.apart, left.stride, right, deep_, [&](int64_t k) {
      // Not at once: to read what a tile has just stored is to wait for it.
      if (k > 0) finish_until(finished_ + at_once_);
      if constexpr (requires { finish_.expect(block_row, panel, k); }) {
        for (int64_t row = k * kBlock / deep_; row < (k + 1) * kBlock / deep_; ++row) {
          finish_.expect(block_row, panel, row);
        }
      }
    });
    finish_until(kBlock);
    store_sums(sums_, kBlock);
    block_row_ = block_row;
    panel_ = panel;
    finished_ = 0;
  }

 private:
  void finish_until(int64_t end) {
    for (; finished_ < std::min(end, kBlock); ++finished_) {
      const float* sums = sums_ + finished_ * kBlock;
      finish_(block_row_, panel_, finished_, _mm512_load_ps(sums), _mm512_load_ps(sums + kHalf));
    }
  }

  const Finish finish_;
  const int64_t deep_, at_once_;
  int64_t block_row_ = 0, panel_ = 0, finished_ = kBlock;
  alignas(64) float sums_[kBlock * kBlock];
};

// The panels of right^T, by all threads together; `second` is where the other tile of a panel comes
// from, as `right` the first.
template <class Number>
void pack_right_turned(const Number* right, const Number* second, int64_t apart, int64_t panels,
                       int64_t deep, Bf16* to) {
#pragma omp for schedule(static)
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t k = 0; k < deep / kBlock; ++k) {
      const int64_t from = panel * apart * deep + k * kBlock;
      Bf16* const pair_of_tiles = to + (panel * (deep / kBlock) + k) * kPair;
      pack_columns(right + from, deep, pair_of_tiles);
      pack_columns(second + from, deep, pair_of_tiles + kTile);
    }
  }
}

}  // namespace

// Whether this process may use tile registers from now on.
extern "C" bool ask_for_tiles() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
