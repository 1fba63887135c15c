// What the kernels for tile registers (AMX) ask of a CPU, in plain C++: put in front of one, it runs, slowly,
// on any. Instructions are as in Intel's manual but for reciprocals, which are exact here, and the order of
// a horizontal sum.

// Compiling takes longer than running.
#pragma GCC optimize("O2")

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {
namespace {

using Floats = float __attribute__((vector_size(64)));
using Ints = uint32_t __attribute__((vector_size(64)));
using Longs = uint64_t __attribute__((vector_size(64)));
using Shorts = uint16_t __attribute__((vector_size(64)));

template <class To, class From>
To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class Vector, class Of>
Vector lanes(Of of) {
  constexpr int kCount = sizeof(Vector) / sizeof(Vector{}[0]);
  Vector found;
  for (int i = 0; i < kCount; ++i) found[i] = of(i);
  return found;
}

template <class Vector>
Vector load(const void* from) {
  Vector found;
  std::memcpy(&found, from, sizeof found);
  return found;
}

template <class Vector>
void store(void* to, const Vector& numbers) {
  std::memcpy(to, &numbers, sizeof numbers);
}

// To the nearest number in bfloat16, the even one of two.
uint16_t rounded(float number) {
  const uint32_t bits = std::bit_cast<uint32_t>(number);
  if (std::isnan(number)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float widened(uint16_t number) { return std::bit_cast<float>(static_cast<uint32_t>(number) << 16); }

__m512 select(__mmask16 mask, __m512 yes, __m512 no) {
  return lanes<Floats>([&](int i) { return mask >> i & 1 ? yes[i] : no[i]; });
}

__m512 larger(__m512 a, __m512 b) {
  return lanes<Floats>([&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
}

// a 2^(b rounded down)
float scaled(float a, float b) {
  if (std::isinf(b)) return b < 0 ? 0.0f : INFINITY;
  return std::isnan(b) ? b : std::ldexp(a, static_cast<int>(std::floor(std::fmin(std::fmax(b, -999), 999))));
}

// Halves of all groups of four, in turns.
template <class Vector>
__m512i unpacked(__m512i a, __m512i b, bool high) {
  constexpr int kGroup = 16 / sizeof(Vector{}[0]);
  const Vector first = as<Vector>(a), second = as<Vector>(b);
  return as<__m512i>(lanes<Vector>([&](int i) {
    const int from = i / kGroup * kGroup + i % kGroup / 2 + (high ? kGroup / 2 : 0);
    return i % 2 ? second[from] : first[from];
  }));
}

// Groups of four, two of either.
__m512i shuffled(__m512i a, __m512i b, int which) {
  const Ints first = as<Ints>(a), second = as<Ints>(b);
  return as<__m512i>(lanes<Ints>([&](int i) {
    const int from = (which >> (i / 4 * 2) & 3) * 4 + i % 4;
    return i < 8 ? first[from] : second[from];
  }));
}

__m512i permuted(__m512i a, __m512i which, __m512i b) {
  const Shorts first = as<Shorts>(a), second = as<Shorts>(b), from = as<Shorts>(which);
  return as<__m512i>(
      lanes<Shorts>([&](int i) { return (from[i] & 32 ? second : first)[from[i] & 31]; }));
}

template <class Of>
float reduced(__m512 numbers, Of of) {
  float found[16];
  store(found, numbers);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) found[i] = of(found[i], found[i + half]);
  }
  return found[0];
}

__m512i widened_shorts(__m256i numbers) {
  uint16_t from[16];
  store(from, numbers);
  return as<__m512i>(lanes<Ints>([&](int i) { return from[i]; }));
}

__m256i rounded_one(__m512 numbers) {
  uint16_t to[16];
  for (int i = 0; i < 16; ++i) to[i] = rounded(numbers[i]);
  return load<__m256i>(to);
}

__m512i rounded_both(__m512 high, __m512 low) {
  return as<__m512i>(lanes<Shorts>([&](int i) { return rounded(i < 16 ? low[i] : high[i - 16]); }));
}

// Of the calling thread: eight tiles of 16 rows of 64 bytes.
thread_local uint8_t tiles[8][16][64];

void load_tile(int tile, const void* from, int64_t stride) {
  for (int i = 0; i < 16; ++i) {
    std::memcpy(tiles[tile][i], static_cast<const uint8_t*>(from) + i * stride, 64);
  }
}

void store_tile(int tile, void* to, int64_t stride) {
  for (int i = 0; i < 16; ++i) {
    std::memcpy(static_cast<uint8_t*>(to) + i * stride, tiles[tile][i], 64);
  }
}

void multiply_tiles(int sums, int left, int right) {
  Floats first[16], second[16];
  for (int i = 0; i < 16; ++i) {
    const Ints columns = load<Ints>(tiles[right][i]);
    first[i] = as<Floats>(columns << 16);
    second[i] = as<Floats>(columns & 0xffff0000u);
  }
  for (int row = 0; row < 16; ++row) {
    const Shorts numbers = load<Shorts>(tiles[left][row]);
    Floats sum = load<Floats>(tiles[sums][row]);
    for (int i = 0; i < 16; ++i) {
      sum += widened(numbers[2 * i]) * first[i];
      sum += widened(numbers[2 * i + 1]) * second[i];
    }
    store(tiles[sums][row], sum);
  }
}

}  // namespace
}  // namespace emulated

// The process may always use them.
#define syscall(...) 0L

#define _tile_loadconfig(shapes) static_cast<void>(shapes)
#define _tile_release() static_cast<void>(0)
#define _tile_zero(tile) std::memset(emulated::tiles[tile], 0, sizeof emulated::tiles[tile])
#define _tile_loadd(tile, from, stride) emulated::load_tile(tile, from, stride)
#define _tile_stream_loadd(tile, from, stride) emulated::load_tile(tile, from, stride)
#define _tile_stored(tile, to, stride) emulated::store_tile(tile, to, stride)
#define _tile_dpbf16ps(sums, left, right) emulated::multiply_tiles(sums, left, right)

#define _mm512_setzero_ps() (__m512{})
#define _mm512_set1_ps(number) (emulated::Floats{} + static_cast<float>(number))
#define _mm512_set1_epi32(number) emulated::as<__m512i>(emulated::Ints{} + uint32_t{number})
#define _mm512_set1_epi16(number) emulated::as<__m512i>(emulated::Shorts{} + uint16_t{number})
#define _mm512_load_ps(from) emulated::load<__m512>(from)
#define _mm512_loadu_ps(from) emulated::load<__m512>(from)
#define _mm512_loadu_si512(from) emulated::load<__m512i>(from)
#define _mm512_storeu_ps(to, numbers) emulated::store<__m512>(to, numbers)
#define _mm512_store_si512(to, numbers) emulated::store<__m512i>(to, numbers)
#define _mm512_storeu_si512(to, numbers) emulated::store<__m512i>(to, numbers)

#define _mm512_add_ps(a, b) ((a) + (b))
#define _mm512_sub_ps(a, b) ((a) - (b))
#define _mm512_mul_ps(a, b) ((a) * (b))
#define _mm512_max_ps(a, b) emulated::larger(a, b)
#define _mm512_fmadd_ps(a, b, c) ((a) * (b) + (c))
#define _mm512_fmsub_ps(a, b, c) ((a) * (b) - (c))
#define _mm512_fnmadd_ps(a, b, c) ((c) - (a) * (b))
#define _mm512_mask_sub_ps(no, mask, a, b) emulated::select(mask, (a) - (b), no)
#define _mm512_mask_max_ps(no, mask, a, b) emulated::select(mask, emulated::larger(a, b), no)
#define _mm512_maskz_mul_ps(mask, a, b) emulated::select(mask, (a) * (b), __m512{})
#define _mm512_maskz_mov_ps(mask, a) emulated::select(mask, a, __m512{})
#define _mm512_rcp14_ps(a) (1.0f / (a))
#define _mm512_rsqrt14_ps(a) \
  emulated::lanes<__m512>([numbers = a](int i) { return 1.0f / std::sqrt(numbers[i]); })
#define _mm512_roundscale_ps(a, how) \
  emulated::lanes<__m512>([numbers = a](int i) { return std::nearbyint(numbers[i]); })
#define _mm512_scalef_ps(a, b) \
  emulated::lanes<__m512>([first = a, second = b](int i) { return emulated::scaled(first[i], second[i]); })

#define _mm512_reduce_add_ps(a) emulated::reduced(a, [](float a, float b) { return a + b; })
#define _mm512_reduce_max_ps(a) emulated::reduced(a, [](float a, float b) { return a > b ? a : b; })

#define _mm512_castsi512_ps(a) emulated::as<__m512>(a)
#define _mm512_or_si512(a, b) ((a) | (b))
#define _mm512_slli_epi32(a, count) emulated::as<__m512i>(emulated::as<emulated::Ints>(a) << count)
#define _mm512_add_epi32(a, b) \
  emulated::as<__m512i>(emulated::as<emulated::Ints>(a) + emulated::as<emulated::Ints>(b))
#define _mm512_add_epi16(a, b) \
  emulated::as<__m512i>(emulated::as<emulated::Shorts>(a) + emulated::as<emulated::Shorts>(b))
#define _mm512_cvtepu16_epi32(a) emulated::widened_shorts(a)
#define _mm512_cvtneps_pbh(a) emulated::rounded_one(a)
#define _mm512_cvtne2ps_pbh(high, low) emulated::rounded_both(high, low)
#define _mm512_unpacklo_epi32(a, b) emulated::unpacked<emulated::Ints>(a, b, false)
#define _mm512_unpackhi_epi32(a, b) emulated::unpacked<emulated::Ints>(a, b, true)
#define _mm512_unpacklo_epi64(a, b) emulated::unpacked<emulated::Longs>(a, b, false)
#define _mm512_unpackhi_epi64(a, b) emulated::unpacked<emulated::Longs>(a, b, true)
#define _mm512_shuffle_i32x4(a, b, which) emulated::shuffled(a, b, which)
#define _mm512_permutex2var_epi16(a, which, b) emulated::permuted(a, which, b)
