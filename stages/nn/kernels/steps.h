// What the kernels that take a step of a transformer are given.

#include <cstdint>

namespace {

// Weights of a block. Those of products are packed.
template <class Number>
struct Layer {
  const float* attention_norm;
  const Number* to_heads;
  const float* gain;  // null: queries and keys are not normalised
  const Number* from_heads;
  const float* feed_forward_norm;
  const Number* to_gates;
  const Number* from_gates;
};

}  // namespace
