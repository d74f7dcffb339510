// Functions of sixteen numbers at a time, and the random bits of dropout.
//
// Where accuracy depends on it, products and sums are explicit FMAs, which no compiler
// flag can split.

#ifndef BERT_TF_FUSED_OPS_FUNCTIONS_H_
#define BERT_TF_FUSED_OPS_FUNCTIONS_H_

#include "simd.h"

namespace bert_tf {
namespace BERT_TF_ISA {

// 2^x to 2 ulp: 2^n times the minimax polynomial on [-1/2, 1/2] (relative error).
// Infinities and NaN stay so.
BERT_TF_INLINE V PowerOfTwo(V x) {
  const V n = Round(x);
  const V f = x - n;
  V p = Set(1.326468001e-3f);
  p = Fma(p, f, Set(9.671503010e-3f));
  p = Fma(p, f, Set(5.550733769e-2f));
  p = Fma(p, f, Set(2.402224224e-1f));
  p = Fma(p, f, Set(6.931469777e-1f));
  p = Fma(p, f, Set(1.0f));
  return TimesPowerOfTwo(p, n);
}

// e^x to 2 ulp: 2^n e^f, f in [-ln2/2, ln2/2]. Infinite above the range of float32, 0
// below; NaN stays NaN.
BERT_TF_INLINE V Exp(V x) {
  x = Min(Set(89.0f), Max(Set(-104.0f), x));
  const V n = Round(x * Set(1.44269504f));
  // ln 2 in two parts; the first has so few bits that n times it is exact.
  const V f = Fma(n, Set(2.12194440e-4f), Fma(n, Set(-0.693359375f), x));
  V p = Set(1.9875691500e-4f);
  p = Fma(p, f, Set(1.3981999507e-3f));
  p = Fma(p, f, Set(8.3334519073e-3f));
  p = Fma(p, f, Set(4.1665795894e-2f));
  p = Fma(p, f, Set(1.6666665459e-1f));
  p = Fma(p, f, Set(5.0000001201e-1f));
  p = Fma(p * f, f, f) + Set(1.0f);
  return TimesPowerOfTwo(p, n);
}

// 1 / x with one step of Newton's method: a third of the time of a division.
BERT_TF_INLINE V Reciprocal(V x) {
  const V r = ApproximateReciprocal(x);
  return Fma(r, Fnma(x, r, Set(1.0f)), r);
}

// P of 1/2 + x P(x^2 - 12.5), highest power first: the minimax polynomial that is exact at
// +-5, beyond which the function is taken as 0 and 1. Half the time of formulas with an
// exponential and a division.
constexpr int kTerms = 12;
// The standard normal distribution function; the error of x times it is at most 3e-6.
constexpr float kNormalCdf[kTerms] = {
    -8.975046760e-16f, 3.407785664e-14f, -5.379359068e-13f, 8.649941007e-12f,
    -2.110466663e-10f, 4.425067424e-9f,  -7.753524045e-8f,  1.284711971e-6f,
    -2.067796049e-5f,  3.297575458e-4f,  -5.623875652e-3f,  1.413637549e-1f};
// The derivative of x times it; the error is at most 2e-5.
constexpr float kGeluDerivative[kTerms] = {
    -1.765925798e-14f, 4.996370613e-13f, -3.775217985e-12f, 3.554759959e-11f,
    -1.427784113e-9f,  2.494337537e-8f,  -2.801597816e-7f,  3.157174888e-6f,
    -3.661805385e-5f,  4.276944092e-4f,  -6.009899080e-3f,  1.421305686e-1f};

BERT_TF_INLINE V HalfAndOdd(V x, const float* coefficients) {
  // Min and Max return their second argument for NaN: NaN stays NaN.
  const V near = Min(Set(5.0f), Max(Set(-5.0f), x));
  const V v = Fms(near, near, Set(12.5f));
  V p = Set(coefficients[0]);
#pragma GCC unroll 16
  for (int i = 1; i < kTerms; ++i) p = Fma(p, v, Set(coefficients[i]));
  return Fma(p, near, Set(0.5f));
}

BERT_TF_INLINE V Gelu(V x) {
  return Where(NotAtMost(x, Set(-5.0f)), x * HalfAndOdd(x, kNormalCdf));
}

BERT_TF_INLINE V GeluDerivative(V x) { return HalfAndOdd(x, kGeluDerivative); }

// The standard normal distribution function, relative error 1e-7 at 0 and 1e-5 at -8:
// erfc(z) = t e^(P(t) - z^2) with t = 1 / (1 + z / 2), P minimax.
BERT_TF_INLINE V NormalCdf(V x) {
  constexpr float kFit[10] = {1.215651611e-1f,  -5.514440996e-1f, 8.465341571e-1f,
                              -2.746410436e-1f, -4.373535958e-1f, 1.961515308e-1f,
                              -3.374779727e-2f, 4.014542051e-1f,  9.968369060e-1f,
                              -1.265355390f};
  const V z = Min(Set(20.0f), Abs(x) * Set(0.70710678f));
  const V t = Reciprocal(Fma(z, Set(0.5f), Set(1.0f)));
  V p = Set(kFit[0]);
#pragma GCC unroll 16
  for (int i = 1; i < 10; ++i) p = Fma(p, t, Set(kFit[i]));
  const V tail = Set(0.5f) * t * Exp(Fnma(z, z, p));
  return Where(Below(x, Zero()), tail, Set(1.0f) - tail);
}

// For float32 activations; the polynomials above are exact enough for bfloat16 only.
BERT_TF_INLINE V ExactGelu(V x) { return Max(Set(-100.0f), x) * NormalCdf(x); }

BERT_TF_INLINE V ExactGeluDerivative(V x) {
  const V bounded = Min(Set(20.0f), Max(Set(-20.0f), x));
  const V density = Set(0.39894228f) * Exp(bounded * bounded * Set(-0.5f));
  return Fma(bounded, density, NormalCdf(x));
}

BERT_TF_INLINE V Tanh(V x) {
  const V one = Set(1.0f);
  const V bounded = Min(Set(20.0f), Abs(x));
  const V e = PowerOfTwo(bounded * Set(-2.88539008f));
  const V y = (one - e) * Reciprocal(one + e);
  return Where(Below(x, Zero()), Zero() - y, y);
}

constexpr float kRootOf2OverPi = 0.79788456f, kCubic = 0.044715f;

BERT_TF_INLINE V GeluTanh(V x) {
  const V factor = Fma(x * x, Set(kRootOf2OverPi * kCubic), Set(kRootOf2OverPi));
  const V half = x * Set(0.5f);
  return Fma(half, Tanh(x * factor), half);
}

BERT_TF_INLINE V GeluTanhDerivative(V x) {
  // Beyond the bound it is 0 or 1. Min and Max as above: NaN stays NaN.
  x = Min(Set(20.0f), Max(Set(-20.0f), x));
  const V square = x * x, one = Set(1.0f), half = Set(0.5f);
  const V t = Tanh(x * Fma(square, Set(kRootOf2OverPi * kCubic), Set(kRootOf2OverPi)));
  const V inner = Fma(square, Set(3.0f * kRootOf2OverPi * kCubic), Set(kRootOf2OverPi));
  return Fma(half * x * Fnma(t, t, one), inner, Fma(half, t, half));
}

// Philox4x32-10 (Salmon et al. 2011), with the output of TensorFlow's
// StatelessRandomUniformFullIntV2. A block is 16 bytes.
class Philox {
 public:
  static constexpr int kBlocksAtOnce = 16;

  Philox(uint64_t key, uint64_t counter_high) : key_(key), high_(counter_high) {}

  // The bytes of `kBlocksAtOnce` blocks from block `first` on.
  void Fill(uint64_t first, uint8_t* bytes) const {
    for (int i = 0; i < kBlocksAtOnce; i += kLanes)
      FillLanes(first + i, bytes + 16 * i);
  }

 private:
  static constexpr uint32_t kMultipliers[2] = {0xD2511F53u, 0xCD9E8D57u};
  static constexpr uint32_t kIncrements[2] = {0x9E3779B9u, 0xBB67AE85u};
  static constexpr int kRounds = 10;

#ifdef __AVX512F__
  // One block in each 64-bit lane: four times as fast as one by one.
  static constexpr int kLanes = 8;

  void FillLanes(uint64_t first, uint8_t* bytes) const {
    const __m512i low = _mm512_set1_epi64(0xFFFFFFFF);
    const __m512i m0 = _mm512_set1_epi64(kMultipliers[0]);
    const __m512i m1 = _mm512_set1_epi64(kMultipliers[1]);
    const __m512i block = _mm512_add_epi64(_mm512_set1_epi64(first),
                                           _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    __m512i c0 = _mm512_and_si512(block, low), c1 = _mm512_srli_epi64(block, 32);
    __m512i c2 = _mm512_set1_epi64(high_ & 0xFFFFFFFF);
    __m512i c3 = _mm512_set1_epi64(high_ >> 32);
    uint32_t k0 = static_cast<uint32_t>(key_), k1 = static_cast<uint32_t>(key_ >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const __m512i a = _mm512_mul_epu32(m0, c0), b = _mm512_mul_epu32(m1, c2);
      constexpr int kXor = 0x96;  // The truth table of a ^ b ^ c.
      c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(b, 32), c1,
                                     _mm512_set1_epi64(k0), kXor);
      c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(a, 32), c3,
                                     _mm512_set1_epi64(k1), kXor);
      c1 = _mm512_and_si512(b, low);
      c3 = _mm512_and_si512(a, low);
      k0 += kIncrements[0];
      k1 += kIncrements[1];
    }
    const __m512i first_half = _mm512_or_si512(c0, _mm512_slli_epi64(c1, 32));
    const __m512i second_half = _mm512_or_si512(c2, _mm512_slli_epi64(c3, 32));
    const __m512i begin = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i end = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    _mm512_storeu_si512(bytes,
                        _mm512_permutex2var_epi64(first_half, begin, second_half));
    _mm512_storeu_si512(bytes + 64,
                        _mm512_permutex2var_epi64(first_half, end, second_half));
  }
#else
  static constexpr int kLanes = 4;

  void FillLanes(uint64_t first, uint8_t* bytes) const {
    const __m256i low = _mm256_set1_epi64x(0xFFFFFFFF);
    const __m256i m0 = _mm256_set1_epi64x(kMultipliers[0]);
    const __m256i m1 = _mm256_set1_epi64x(kMultipliers[1]);
    const __m256i block =
        _mm256_add_epi64(_mm256_set1_epi64x(first), _mm256_set_epi64x(3, 2, 1, 0));
    __m256i c0 = _mm256_and_si256(block, low), c1 = _mm256_srli_epi64(block, 32);
    __m256i c2 = _mm256_set1_epi64x(high_ & 0xFFFFFFFF);
    __m256i c3 = _mm256_set1_epi64x(high_ >> 32);
    uint32_t k0 = static_cast<uint32_t>(key_), k1 = static_cast<uint32_t>(key_ >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const __m256i a = _mm256_mul_epu32(m0, c0), b = _mm256_mul_epu32(m1, c2);
      c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), c1),
                            _mm256_set1_epi64x(k0));
      c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), c3),
                            _mm256_set1_epi64x(k1));
      c1 = _mm256_and_si256(b, low);
      c3 = _mm256_and_si256(a, low);
      k0 += kIncrements[0];
      k1 += kIncrements[1];
    }
    const __m256i first_half = _mm256_or_si256(c0, _mm256_slli_epi64(c1, 32));
    const __m256i second_half = _mm256_or_si256(c2, _mm256_slli_epi64(c3, 32));
    const __m256i even = _mm256_unpacklo_epi64(first_half, second_half);
    const __m256i odd = _mm256_unpackhi_epi64(first_half, second_half);
    __m256i* out = reinterpret_cast<__m256i*>(bytes);
    _mm256_storeu_si256(out, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
  }
#endif

  uint64_t key_;
  uint64_t high_;
};

// The dropout of one layer: the random byte of each number.
class DropoutMask {
 public:
  DropoutMask(const Dropout& dropout, int64_t row_size)
      : philox_(dropout.key, dropout.step),
        first_row_(dropout.first_row),
        blocks_((row_size + 15) / 16),
        kept_(dropout.kept) {}

  bool is_on() const { return kept_ < 256; }
  float scale() const { return is_on() ? 256.0f / kept_ : 1.0f; }
  int limit() const { return static_cast<int>(kept_); }  // Bytes below keep a number.

  // How many bytes `Bytes` writes for `count` numbers.
  static constexpr int64_t Room(int64_t count) {
    return count + 16 * (Philox::kBlocksAtOnce + 1);
  }

  // The bytes of `count` numbers of a row of the batch from `begin` on: a pointer into
  // `memory`.
  const uint8_t* Bytes(int64_t row, int64_t begin, int64_t count,
                       uint8_t* memory) const {
    const uint64_t first = (first_row_ + row) * blocks_ + begin / 16;
    const int64_t offset = begin % 16;
    for (int64_t i = 0; 16 * i < offset + count; i += Philox::kBlocksAtOnce)
      philox_.Fill(first + i, memory + 16 * i);
    return memory + offset;
  }

 private:
  Philox philox_;
  uint64_t first_row_;
  uint64_t blocks_;
  int64_t kept_;
};

// The row of the batch that a token belongs to.
inline int64_t RowOf(const Positions& positions, int64_t token) {
  int64_t low = 0, high = positions.rows;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (positions.begins[middle] <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_FUNCTIONS_H_
