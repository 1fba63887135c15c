// Products of many rows, and those over many rows, by tiles. Included behind tiles.h.
//
// Every sum is added by one thread in one order.

namespace {

// Rows added up at once in a gradient of weights: a strip of them stays in the first cache.
constexpr int64_t kRowsAtOnce = 16 * kBlock;
// Bytes of packed columns that stay in the cache of a core.
constexpr int64_t kKeptBytes = 1 << 20;

// left times packed panels: as many of these at once as stay in the cache of a core.
template <class Finish>
void multiply_rows(const Matrix& left, int64_t rows, const Bf16* right, int64_t panels,
                   Finish finish) {
  const int64_t deep = left.blocks(), panel_size = deep * kPair;
  const int64_t kept = std::max<int64_t>(1, kKeptBytes / (panel_size * sizeof(Bf16)));
  for (int64_t start = 0; start < panels; start += kept) {
    Blocks<Finish> blocks(finish, deep);
    const int64_t end = std::min(start + kept, panels);
    for (int64_t block_row = 0; block_row < rows / kBlock; ++block_row) {
      for (int64_t panel = start; panel < end; ++panel) {
        blocks.multiply_block(left, right + panel * panel_size, block_row, panel);
      }
    }
  }
}

// The panels of right (deep, width), by all threads together; read in its order.
void pack_right(const float* right, int64_t deep, int64_t width, Bf16* to) {
#pragma omp for schedule(static)
  for (int64_t k = 0; k < deep / kBlock; ++k) {
    for (int64_t panel = 0; panel < width / kBlock; ++panel) {
      const float* from = right + k * kBlock * width + panel * kBlock;
      pack_rows(from, width, to + (panel * (deep / kBlock) + k) * kPair);
    }
  }
}

// left^T right over all rows, added to sums (widths of both) or, the first of all, put there; `packed`
// with room for right; by all threads together.
void product_over_rows(const Matrix& left, const Matrix& right, int64_t rows, bool first,
                       Bf16* packed, float* sums) {
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
        if (first && start == 0) {
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
            ask_for(left.at(start + asked_for, next_column));
          }
        });
        store_sums(block, right.width);
      }
    }
  }
#pragma omp barrier
}

// A gradient (out, in) = left^T right, (rows, out) and (rows, in), added up over pieces of the rows as is
// faster: of what is packed as it stands little, of what is turned much.
class WeightGradient {
 public:
  WeightGradient(int64_t out, int64_t in, int64_t most_rows, float* gradient)
      : out_(out), in_(in), gradient_(gradient), packed_(most_rows * std::min(in, out)),
        turned_(turns() ? in * out : 0) {}

  // By all threads together, as what follows.
  void add(const Matrix& left, const Matrix& right, int64_t rows, bool first) const {
    if (turns()) {
      product_over_rows(right, left, rows, first, packed_, turned_);
    } else {
      product_over_rows(left, right, rows, first, packed_, gradient_);
    }
  }

  // After the last piece.
  void finish() const {
    if (!turns()) return;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < out_; i += kHalf) {
      for (int64_t j = 0; j < in_; j += kHalf) {
        __m512i numbers[16];
        for (int64_t k = 0; k < kHalf; ++k) {
          numbers[k] = _mm512_loadu_si512(turned_ + (j + k) * out_ + i);
        }
        transpose(numbers);
        for (int64_t k = 0; k < kHalf; ++k) {
          _mm512_storeu_si512(gradient_ + (i + k) * in_ + j, numbers[k]);
        }
      }
    }
  }

 private:
  bool turns() const { return in_ > out_; }

  const int64_t out_, in_;
  float* const gradient_;
  const Room<Bf16> packed_;
  const Room<float> turned_;
};

struct Store {
  Matrix to;

  void expect(int64_t block_row, int64_t panel, int64_t row) const {
    ask_to_write(to.block(block_row, panel) + row * to.stride);
  }

  void operator()(int64_t block_row, int64_t panel, int64_t row, __m512 first,
                  __m512 second) const {
    store(to.block(block_row, panel) + row * to.stride, rounded(first, second));
  }
};

}  // namespace
