// How threads share rows: some at a time, all that is to be done with them, then the next. Included
// behind tiles.h.

#include <numeric>

namespace {

// Rows that go through all of a kernel together, about.
constexpr int64_t kRowsOfChunk = 16 * kBlock;

// Some rows at a time, images and blocks whole.
struct Chunks {
  int64_t rows, threads, at_once;

  Chunks(int64_t rows, int64_t tokens, int threads) : rows(rows), threads(threads) {
    const int64_t whole = std::lcm(tokens, kBlock), of_thread = (rows / whole + threads - 1) / threads;
    at_once = std::clamp<int64_t>(kRowsOfChunk / whole, 1, of_thread) * whole;
  }

  int64_t count() const { return (rows + at_once - 1) / at_once; }
  int64_t begin(int64_t chunk) const { return chunk * at_once; }
  int64_t end(int64_t chunk) const { return std::min(rows, (chunk + 1) * at_once); }

  // A round is a chunk for every thread.
  int64_t of_round() const { return std::min(rows, at_once * threads); }

  // By all threads together: `of_chunk(begin, end)` of every chunk.
  template <class OfChunk>
  void for_each(OfChunk of_chunk) const {
#pragma omp for schedule(static)
    for (int64_t chunk = 0; chunk < count(); ++chunk) of_chunk(begin(chunk), end(chunk));
  }

  // By all threads together: `of_chunk(begin, end, first)` of the chunks of a round, whose rows begin at
  // `first`, then `of_round(first, count)` of all its rows; round after round.
  template <class OfChunk, class OfRound>
  void in_rounds(OfChunk of_chunk, OfRound of_round) const {
    for (int64_t round = 0; round < count(); round += threads) {
      const int64_t first = begin(round), last = std::min(round + threads, count());
#pragma omp for schedule(static)
      for (int64_t chunk = round; chunk < last; ++chunk) of_chunk(begin(chunk), end(chunk), first);
      of_round(first, end(last - 1) - first);
    }
  }
};

// What pieces of rows add up to, one after the other; by all threads together.
class Pieces {
 public:
  Pieces(int64_t count, int64_t width) : count_(count), width_(width), sums_(count * width) {}

  void clear() const {
#pragma omp for schedule(static)
    for (int64_t piece = 0; piece < count_; ++piece) std::fill_n(of(piece), width_, 0.0f);
  }

  float* of(int64_t piece) const { return sums_ + piece * width_; }

  void add_up(float* to) const {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < width_; i += kHalf) {
      __m512 sum = _mm512_setzero_ps();
      for (int64_t piece = 0; piece < count_; ++piece) {
        sum = _mm512_add_ps(sum, _mm512_loadu_ps(of(piece) + i));
      }
      _mm512_storeu_ps(to + i, sum);
    }
  }

 private:
  const int64_t count_, width_;
  const Room<float> sums_;
};

}  // namespace
