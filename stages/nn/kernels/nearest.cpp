// The nearest entry of a codebook for each vector, and how far it is:
//
//     code_i = argmin over k of |e_k|^2 / 2 - <v_i, e_k>,    of equal ones the first
//
// DIM, the numbers of a vector, is set by nearest.py, which says what this is for. A tile of vectors
// is multiplied with a tile of entries in registers and looked through there: no distance is written.
// Each vector is looked up by one thread: results do not depend on their number.

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

using Floats = at::vec::Vectorized<float>;
constexpr int64_t kLanes = Floats::size();
// As many sums as there are registers for: 16 of 32 with AVX-512, 8 of 16 with AVX2.
constexpr int64_t kRows = 4;
constexpr int64_t kParts = kLanes >= 16 ? 4 : 2;
constexpr int64_t kEntries = kParts * kLanes;

struct Codebook {
  int64_t tiles;
  std::vector<float> halves;   // |e|^2 / 2 of every entry; infinite where there is none
  std::vector<float> numbers;  // -e, tile after tile, in it number after number of its entries
};

Codebook packed(const float* entries, int64_t codes) {
  const int64_t tiles = (codes + kEntries - 1) / kEntries;
  Codebook book{tiles, std::vector<float>(tiles * kEntries, INFINITY),
                std::vector<float>(tiles * kEntries * DIM, 0.0f)};
  for (int64_t k = 0; k < codes; ++k) {
    float square = 0.0f;
    float* column = &book.numbers[k / kEntries * kEntries * DIM + k % kEntries];
    for (int64_t d = 0; d < DIM; ++d) {
      const float number = entries[k * DIM + d];
      column[d * kEntries] = -number;
      square += number * number;
    }
    book.halves[k] = square / 2;
  }
  return book;
}

// The least number of each lane so far, and the code it belongs to.
struct Least {
  Floats value{INFINITY};
  Floats code{0.0f};

  void look_at(const Floats& values, const Floats& codes) {
    const Floats less = values < value;
    value = Floats::blendv(value, values, less);
    code = Floats::blendv(code, codes, less);
  }
};

inline void look_up(const float* const (&rows)[kRows], const Codebook& book,
                    Least (&least)[kRows]) {
  const Floats step(static_cast<float>(kLanes));
  Floats codes = Floats::arange(0.0f, 1.0f);
  for (int64_t tile = 0; tile < book.tiles; ++tile) {
    const float* halves = &book.halves[tile * kEntries];
    const float* numbers = &book.numbers[tile * kEntries * DIM];
    Floats sums[kRows][kParts];
#pragma GCC unroll 4
    for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int64_t p = 0; p < kParts; ++p) sums[r][p] = Floats::loadu(halves + p * kLanes);
    }
    for (int64_t d = 0; d < DIM; ++d, numbers += kEntries) {
      Floats parts[kParts];
#pragma GCC unroll 4
      for (int64_t p = 0; p < kParts; ++p) parts[p] = Floats::loadu(numbers + p * kLanes);
#pragma GCC unroll 4
      for (int64_t r = 0; r < kRows; ++r) {
        const Floats number(rows[r][d]);
#pragma GCC unroll 4
        for (int64_t p = 0; p < kParts; ++p) {
          sums[r][p] = at::vec::fmadd(number, parts[p], sums[r][p]);
        }
      }
    }
#pragma GCC unroll 4
    for (int64_t p = 0; p < kParts; ++p) {
#pragma GCC unroll 4
      for (int64_t r = 0; r < kRows; ++r) least[r].look_at(sums[r][p], codes);
      codes = codes + step;
    }
  }
}

}  // namespace

extern "C" void nearest(const float* vectors, int64_t count, const float* entries, int64_t codes,
                        int64_t* found, float* distances, int threads) {
  const Codebook book = packed(entries, codes);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t start = 0; start < count; start += kRows) {
    const float* rows[kRows];
    for (int64_t r = 0; r < kRows; ++r) rows[r] = vectors + std::min(start + r, count - 1) * DIM;
    Least least[kRows];
    look_up(rows, book, least);
    for (int64_t r = 0; r < std::min(kRows, count - start); ++r) {
      float values[kLanes], numbers[kLanes];
      least[r].value.store(values);
      least[r].code.store(numbers);
      int64_t best = 0;
      for (int64_t lane = 1; lane < kLanes; ++lane) {
        const bool less = values[lane] < values[best];
        const bool first = values[lane] == values[best] && numbers[lane] < numbers[best];
        if (less || first) best = lane;
      }
      float square = 0.0f;
      for (int64_t d = 0; d < DIM; ++d) square += rows[r][d] * rows[r][d];
      found[start + r] = static_cast<int64_t>(numbers[best]);
      distances[start + r] = std::max(0.0f, 2 * values[best] + square);
    }
  }
}
