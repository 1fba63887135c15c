// How queries and keys of a token are made from their projections. Null: not normalised, not turned.

#include <cstdint>

namespace {

struct Comparing {
  const float *gain, *cosines, *sines;
  int64_t turns;  // rows of them; one for every token of an image, or of all
  int64_t heads, head_dim;

  bool is_query(int64_t head) const { return head < heads; }
  const float* gain_of(int64_t head) const {
    return gain == nullptr ? nullptr : gain + (is_query(head) ? 0 : head_dim);
  }
  int64_t turn_of(int64_t row, int64_t head) const {
    return (row % turns * 2 + (is_query(head) ? 0 : 1)) * (head_dim / 2);
  }
};

}  // namespace
