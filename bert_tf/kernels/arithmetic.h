// Scalar functions that the compiler turns into vector code, and Philox.

#ifndef BERT_TF_KERNELS_ARITHMETIC_H_
#define BERT_TF_KERNELS_ARITHMETIC_H_

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace bert_tf {

using bfloat = uint16_t;  // The upper half of a float32.

inline float ToFloat(bfloat x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Rounds to the nearest, ties to even; a NaN stays one.
inline bfloat ToBfloat(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const bool is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return static_cast<bfloat>(is_nan ? (bits >> 16) | 0x40 : rounded);
}

// exp to two units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2], of all
// that begin with 1 + f the one with the least largest relative error. 0 below -87.68,
// where no float32 but denormal ones is left, and infinite above 88.37. With fused
// multiplications and additions throughout: sums and products of their own are reordered
// by -fassociative-math, which took n ln2, in two parts, for n times the sum of both.
inline float Exp(float x) {
  const float bounded = x < -88.0f ? -88.0f : x;
  // Beyond this number there are no fractions. The last bits of the sum are n + 127, which
  // is the exponent of 2^n.
  constexpr float kWhole = 12582912.0f + 127.0f;
  const float sum = std::fma(bounded, 1.44269504f, kWhole);
  const float n = sum - kWhole;
  const float f = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, bounded));
  float p = 1.381459995e-3f;
  p = std::fma(p, f, 8.368716575e-3f);
  p = std::fma(p, f, 4.166838899e-2f);
  p = std::fma(p, f, 1.666652113e-1f);
  p = std::fma(p, f, 4.999999404e-1f);
  p = std::fma(p, f, 1.0f);
  p = std::fma(p, f, 1.0f);
  uint32_t bits;
  std::memcpy(&bits, &sum, sizeof(bits));
  bits <<= 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  const float y = p * scale;
  return x > 88.37f ? std::numeric_limits<float>::infinity() : y;
}

// P of 1/2 + x P(x^2 - 12.5), the highest power first: of all that make it right at +-5,
// beyond which it is taken as 0 and 1, the polynomial with the least largest error. Half
// the time of formulas with an exponential and a division.
constexpr int kTerms = 12;
// The standard normal distribution function; x times it is off by at most 3e-6.
constexpr float kNormalCdf[kTerms] = {
    -8.975046760e-16f, 3.407785664e-14f, -5.379359068e-13f, 8.649941007e-12f,
    -2.110466663e-10f, 4.425067424e-9f,  -7.753524045e-8f,  1.284711971e-6f,
    -2.067796049e-5f,  3.297575458e-4f,  -5.623875652e-3f,  1.413637549e-1f};
// The derivative of x times it, off by at most 2e-5.
constexpr float kGeluDerivative[kTerms] = {
    -1.765925798e-14f, 4.996370613e-13f, -3.775217985e-12f, 3.554759959e-11f,
    -1.427784113e-9f,  2.494337537e-8f,  -2.801597816e-7f,  3.157174888e-6f,
    -3.661805385e-5f,  4.276944092e-4f,  -6.009899080e-3f,  1.421305686e-1f};

inline float HalfAndOdd(float x, const float* coefficients) {
  // Written so that what is not a number stays so.
  const float above = x < -5.0f ? -5.0f : x;
  const float near = above > 5.0f ? 5.0f : above;
  const float v = near * near - 12.5f;
  float p = coefficients[0];
  for (int i = 1; i < kTerms; ++i) p = p * v + coefficients[i];
  return p * near + 0.5f;
}

inline float Gelu(float x) {
  const float y = x * HalfAndOdd(x, kNormalCdf);
  return x <= -5.0f ? 0.0f : y;
}

inline float GeluDerivative(float x) { return HalfAndOdd(x, kGeluDerivative); }

inline float Tanh(float x) {
  const float e = Exp(-2.0f * std::fabs(x));
  const float y = (1.0f - e) / (1.0f + e);
  return x < 0.0f ? -y : y;
}

inline float GeluTanh(float x) {
  return 0.5f * x * (1.0f + Tanh(0.79788456f * (x + 0.044715f * x * x * x)));
}

inline float GeluTanhDerivative(float x) {
  const float t = Tanh(0.79788456f * (x + 0.044715f * x * x * x));
  const float inner = 0.79788456f * (1.0f + 0.134145f * x * x);
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

// Philox4x32-10 (Salmon et al. 2011), the numbers of TensorFlow's
// StatelessRandomUniformFullIntV2. A block is 16 bytes.
class Philox {
 public:
  static constexpr int kBlocksAtOnce = 16;

  Philox(uint64_t key, uint64_t counter_high) : key_(key), high_(counter_high) {}

  // The bytes of `kBlocksAtOnce` blocks from number `first` on.
  void Fill(uint64_t first, uint8_t* bytes) const {
#ifdef __AVX512F__
    for (int i = 0; i < kBlocksAtOnce; i += 8) Fill8(first + i, bytes + 16 * i);
#else
    for (int i = 0; i < kBlocksAtOnce; ++i) FillOne(first + i, bytes + 16 * i);
#endif
  }

 private:
  static constexpr uint32_t kMultipliers[2] = {0xD2511F53u, 0xCD9E8D57u};
  static constexpr uint32_t kIncrements[2] = {0x9E3779B9u, 0xBB67AE85u};
  static constexpr int kRounds = 10;

  void FillOne(uint64_t block, uint8_t* bytes) const {
    uint32_t c[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                     static_cast<uint32_t>(high_), static_cast<uint32_t>(high_ >> 32)};
    uint32_t k[2] = {static_cast<uint32_t>(key_), static_cast<uint32_t>(key_ >> 32)};
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t a = static_cast<uint64_t>(kMultipliers[0]) * c[0];
      const uint64_t b = static_cast<uint64_t>(kMultipliers[1]) * c[2];
      c[0] = static_cast<uint32_t>(b >> 32) ^ c[1] ^ k[0];
      c[2] = static_cast<uint32_t>(a >> 32) ^ c[3] ^ k[1];
      c[1] = static_cast<uint32_t>(b);
      c[3] = static_cast<uint32_t>(a);
      for (int i = 0; i < 2; ++i) k[i] += kIncrements[i];
    }
    std::memcpy(bytes, c, sizeof(c));
  }

#ifdef __AVX512F__
  // Eight blocks, one in each 64-bit lane: four times as fast as one by one.
  void Fill8(uint64_t first, uint8_t* bytes) const {
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
      constexpr int kXor = 0x96;  // Of three.
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
#endif

  uint64_t key_;
  uint64_t high_;
};

}  // namespace bert_tf

#endif  // BERT_TF_KERNELS_ARITHMETIC_H_
