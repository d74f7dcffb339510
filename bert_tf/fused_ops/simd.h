// Sixteen float32 numbers at a time: one register of AVX-512, or two of AVX2.
//
// Compiled once for each instruction set, in the namespace BERT_TF_ISA.

#ifndef BERT_TF_FUSED_OPS_SIMD_H_
#define BERT_TF_FUSED_OPS_SIMD_H_

#include <immintrin.h>
#include <string.h>

#include "isa.h"

#define BERT_TF_INLINE __attribute__((always_inline)) inline

namespace bert_tf {
namespace BERT_TF_ISA {

#ifdef __AVX512F__

using V = __m512;
using Mask = __mmask16;

BERT_TF_INLINE V Zero() { return _mm512_setzero_ps(); }
BERT_TF_INLINE V Set(float x) { return _mm512_set1_ps(x); }
BERT_TF_INLINE V Read(const float* x) { return _mm512_loadu_ps(x); }
BERT_TF_INLINE void Write(float* target, V x) { _mm512_storeu_ps(target, x); }
BERT_TF_INLINE V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
BERT_TF_INLINE V Fms(V a, V b, V c) { return _mm512_fmsub_ps(a, b, c); }
BERT_TF_INLINE V Fnma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
// The second argument if either is NaN.
BERT_TF_INLINE V Min(V a, V b) { return _mm512_min_ps(a, b); }
BERT_TF_INLINE V Max(V a, V b) { return _mm512_max_ps(a, b); }
BERT_TF_INLINE V Abs(V x) { return _mm512_abs_ps(x); }
BERT_TF_INLINE V Round(V x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
}
BERT_TF_INLINE V TimesPowerOfTwo(V x, V n) { return _mm512_scalef_ps(x, n); }
BERT_TF_INLINE V ApproximateReciprocal(V x) { return _mm512_rcp14_ps(x); }
BERT_TF_INLINE V Root(V x) { return _mm512_sqrt_ps(x); }
BERT_TF_INLINE V Quotient(V x, V y) { return _mm512_div_ps(x, y); }
BERT_TF_INLINE float LargestOf(V x) { return _mm512_reduce_max_ps(x); }
BERT_TF_INLINE float SumOf(V x) { return _mm512_reduce_add_ps(x); }

BERT_TF_INLINE Mask NotAtMost(V a, V b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ);
}
BERT_TF_INLINE Mask Below(V a, V b) { return _mm512_cmplt_ps_mask(a, b); }
BERT_TF_INLINE Mask EqualTo(const int32_t* x, int32_t y) {
  return _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(x), _mm512_set1_epi32(y));
}
BERT_TF_INLINE Mask BytesBelow(const uint8_t* x, int limit) {
  return _mm_cmplt_epu8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)),
                             _mm_set1_epi8(static_cast<char>(limit)));
}
BERT_TF_INLINE Mask All() { return 0xffff; }
// x where the mask is set, y elsewhere.
BERT_TF_INLINE V Where(Mask mask, V x, V y) { return _mm512_mask_mov_ps(y, mask, x); }
BERT_TF_INLINE V Where(Mask mask, V x) { return _mm512_maskz_mov_ps(mask, x); }

// Thirty-two bfloat16 numbers.
using H = __m512i;

BERT_TF_INLINE V Read(const bfloat* x) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

#ifdef __AVX512BF16__

BERT_TF_INLINE H Rounded(V low, V high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}
BERT_TF_INLINE void Write(bfloat* target, V x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      (__m256i)_mm512_cvtneps_pbh(x));
}
// The numbers that `Write` leaves in memory.
BERT_TF_INLINE V AsBfloat(V x) {
  const __m512i bits = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

#else

// Rounds to nearest, ties to even; NaN stays NaN. The result is in the upper halves.
BERT_TF_INLINE __m512i RoundedBits(V x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_srli_epi32(
      _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x400000)), 16);
}
BERT_TF_INLINE H Rounded(V low, V high) {
  const __m512i first =
      _mm512_castsi256_si512(_mm512_cvtepi32_epi16(RoundedBits(low)));
  return _mm512_inserti64x4(first, _mm512_cvtepi32_epi16(RoundedBits(high)), 1);
}
BERT_TF_INLINE void Write(bfloat* target, V x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      _mm512_cvtepi32_epi16(RoundedBits(x)));
}
// The numbers that `Write` leaves in memory.
BERT_TF_INLINE V AsBfloat(V x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(RoundedBits(x), 16));
}

#endif

BERT_TF_INLINE void Write(bfloat* target, H x) { _mm512_storeu_si512(target, x); }
// A non-temporal store; the target is aligned to 64 bytes.
BERT_TF_INLINE void Stream(bfloat* target, H x) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(target), x);
}
// The first or the second of each of sixteen pairs.
BERT_TF_INLINE V ReadFirstOfPairs(const bfloat* x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(x), 16));
}
BERT_TF_INLINE V ReadSecondOfPairs(const bfloat* x) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_loadu_si512(x), _mm512_set1_epi32(0xffff0000)));
}
BERT_TF_INLINE __mmask32 FirstColumns(int64_t count) {
  return count >= 32 ? 0xffffffffu : count <= 0 ? 0u : (1u << count) - 1u;
}
// The first `count` of them, at most 32, then zeros.
BERT_TF_INLINE H ReadFirst(const bfloat* x, int64_t count) {
  return _mm512_maskz_loadu_epi16(FirstColumns(count), x);
}
BERT_TF_INLINE void WriteFirst(bfloat* target, int64_t count, H x) {
  _mm512_mask_storeu_epi16(target, FirstColumns(count), x);
}
// The first `count` of 16 numbers, then zeros.
BERT_TF_INLINE V ReadFirst(const float* x, int64_t count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(FirstColumns(count)), x);
}

#else  // AVX2 with FMA

struct V {
  __m256 a, b;
};
struct Mask {
  __m256i a, b;
};
struct H {
  __m256i a, b;
};

BERT_TF_INLINE V operator+(V x, V y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
BERT_TF_INLINE V operator-(V x, V y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
BERT_TF_INLINE V operator*(V x, V y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
BERT_TF_INLINE V Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
BERT_TF_INLINE V Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
BERT_TF_INLINE V Read(const float* x) {
  return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)};
}
BERT_TF_INLINE void Write(float* target, V x) {
  _mm256_storeu_ps(target, x.a);
  _mm256_storeu_ps(target + 8, x.b);
}
BERT_TF_INLINE V Fma(V x, V y, V z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
BERT_TF_INLINE V Fms(V x, V y, V z) {
  return {_mm256_fmsub_ps(x.a, y.a, z.a), _mm256_fmsub_ps(x.b, y.b, z.b)};
}
BERT_TF_INLINE V Fnma(V x, V y, V z) {
  return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
// The second argument if either is NaN.
BERT_TF_INLINE V Min(V x, V y) {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
BERT_TF_INLINE V Max(V x, V y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
BERT_TF_INLINE V Abs(V x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
BERT_TF_INLINE V Round(V x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
}
// n is an integer; outside of the range of exponents the result is 0 or infinite.
BERT_TF_INLINE __m256 TimesPowerOfTwo(__m256 x, __m256 n) {
  // In two steps, so that subnormal results are not flushed to 0.
  const __m256 bounded =
      _mm256_min_ps(_mm256_set1_ps(252.0f), _mm256_max_ps(_mm256_set1_ps(-252.0f), n));
  const __m256i whole = _mm256_cvtps_epi32(bounded);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 first =
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 second =
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(x, first), second);
}
BERT_TF_INLINE V TimesPowerOfTwo(V x, V n) {
  return {TimesPowerOfTwo(x.a, n.a), TimesPowerOfTwo(x.b, n.b)};
}
BERT_TF_INLINE V ApproximateReciprocal(V x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return {_mm256_div_ps(one, x.a), _mm256_div_ps(one, x.b)};
}
BERT_TF_INLINE V Root(V x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
BERT_TF_INLINE V Quotient(V x, V y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
BERT_TF_INLINE float LargestOf(V x) {
  const __m256 y = _mm256_max_ps(x.a, x.b);
  __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_max_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_max_ss(z, _mm_shuffle_ps(z, z, 1)));
}
BERT_TF_INLINE float SumOf(V x) {
  const __m256 y = _mm256_add_ps(x.a, x.b);
  __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_add_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_add_ss(z, _mm_shuffle_ps(z, z, 1)));
}

BERT_TF_INLINE Mask NotAtMost(V x, V y) {
  return {_mm256_castps_si256(_mm256_cmp_ps(x.a, y.a, _CMP_NLE_UQ)),
          _mm256_castps_si256(_mm256_cmp_ps(x.b, y.b, _CMP_NLE_UQ))};
}
BERT_TF_INLINE Mask Below(V x, V y) {
  return {_mm256_castps_si256(_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
          _mm256_castps_si256(_mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
BERT_TF_INLINE Mask EqualTo(const int32_t* x, int32_t y) {
  const __m256i* in = reinterpret_cast<const __m256i*>(x);
  const __m256i own = _mm256_set1_epi32(y);
  return {_mm256_cmpeq_epi32(_mm256_loadu_si256(in), own),
          _mm256_cmpeq_epi32(_mm256_loadu_si256(in + 1), own)};
}
BERT_TF_INLINE Mask BytesBelow(const uint8_t* x, int limit) {
  const __m256i bound = _mm256_set1_epi32(limit);
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return {_mm256_cmpgt_epi32(bound, _mm256_cvtepu8_epi32(bytes)),
          _mm256_cmpgt_epi32(bound, _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}
BERT_TF_INLINE Mask All() { return {_mm256_set1_epi32(-1), _mm256_set1_epi32(-1)}; }
// x where the mask is set, y elsewhere.
BERT_TF_INLINE V Where(Mask mask, V x, V y) {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(mask.a)),
          _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(mask.b))};
}
BERT_TF_INLINE V Where(Mask mask, V x) {
  return {_mm256_and_ps(x.a, _mm256_castsi256_ps(mask.a)),
          _mm256_and_ps(x.b, _mm256_castsi256_ps(mask.b))};
}

BERT_TF_INLINE V Read(const bfloat* x) {
  const __m128i* in = reinterpret_cast<const __m128i*>(x);
  const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(in));
  const __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(in + 1));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
// Rounds to nearest, ties to even; NaN stays NaN. The result is in the lower halves.
BERT_TF_INLINE __m256i RoundedBits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_srli_epi32(
      _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan)), 16);
}
// Sixteen of them in order.
BERT_TF_INLINE __m256i RoundedHalf(V x) {
  const __m256i packed = _mm256_packus_epi32(RoundedBits(x.a), RoundedBits(x.b));
  return _mm256_permute4x64_epi64(packed, 0xd8);
}
BERT_TF_INLINE H Rounded(V low, V high) {
  return {RoundedHalf(low), RoundedHalf(high)};
}
BERT_TF_INLINE void Write(bfloat* target, V x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), RoundedHalf(x));
}
BERT_TF_INLINE void Write(bfloat* target, H x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target) + 1, x.b);
}
// A non-temporal store; the target is aligned to 64 bytes.
BERT_TF_INLINE void Stream(bfloat* target, H x) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(target), x.a);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(target) + 1, x.b);
}
// The numbers that `Write` leaves in memory.
BERT_TF_INLINE V AsBfloat(V x) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(RoundedBits(x.a), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(RoundedBits(x.b), 16))};
}
// The first or the second of each of sixteen pairs.
BERT_TF_INLINE V ReadFirstOfPairs(const bfloat* x) {
  const __m256i* in = reinterpret_cast<const __m256i*>(x);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(in), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(in + 1), 16))};
}
BERT_TF_INLINE V ReadSecondOfPairs(const bfloat* x) {
  const __m256i* in = reinterpret_cast<const __m256i*>(x);
  const __m256i mask = _mm256_set1_epi32(0xffff0000);
  return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(in), mask)),
          _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(in + 1), mask))};
}
// The first `count` of 32 numbers, then zeros.
BERT_TF_INLINE H ReadFirst(const bfloat* x, int64_t count) {
  if (count >= 32) {
    const __m256i* in = reinterpret_cast<const __m256i*>(x);
    return {_mm256_loadu_si256(in), _mm256_loadu_si256(in + 1)};
  }
  alignas(32) bfloat all[32] = {};
  if (count > 0) memcpy(all, x, count * sizeof(bfloat));
  const __m256i* in = reinterpret_cast<const __m256i*>(all);
  return {_mm256_load_si256(in), _mm256_load_si256(in + 1)};
}
BERT_TF_INLINE void WriteFirst(bfloat* target, int64_t count, H x) {
  if (count >= 32) return Write(target, x);
  alignas(32) bfloat all[32];
  Write(all, x);
  if (count > 0) memcpy(target, all, count * sizeof(bfloat));
}
// The first `count` of 16 numbers, then zeros.
BERT_TF_INLINE V ReadFirst(const float* x, int64_t count) {
  if (count >= 16) return Read(x);
  alignas(32) float all[16] = {};
  if (count > 0) memcpy(all, x, count * sizeof(float));
  return Read(all);
}

#endif

// Writes two times sixteen numbers as either type.
BERT_TF_INLINE void Write(float* target, V low, V high) {
  Write(target, low);
  Write(target + 16, high);
}
BERT_TF_INLINE void Write(bfloat* target, V low, V high) {
  Write(target, Rounded(low, high));
}

inline int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Most(int64_t a, int64_t b) { return a > b ? a : b; }

// Calls function(i) for each i in [0, total), in parallel; cost: cycles of each.
template <typename Function>
inline void ForEach(const Loop& loop, int64_t total, int64_t cost,
                    const Function& function) {
  loop.run(
      loop, total, cost,
      [](const void* f, int64_t i) { (*static_cast<const Function*>(f))(i); }, &function);
}

// Calls function(part, begin, end) for every part of [0, total), in parallel; cost:
// cycles of each of the `total`.
template <typename Function>
inline void ForParts(const Loop& loop, int64_t total, int64_t cost,
                     const Function& function) {
  ForEach(loop, kParts, total * cost / kParts, [&](int64_t part) {
    function(part, total * part / kParts, total * (part + 1) / kParts);
  });
}

// Adds up the rows of partial sums [kParts, width], in order.
inline void AddParts(const float* parts, int64_t width, float* sums) {
  for (int64_t i = 0; i < width; ++i) sums[i] = 0.0f;
  for (int64_t part = 0; part < kParts; ++part) {
    for (int64_t i = 0; i < width; ++i) sums[i] += parts[part * width + i];
  }
}

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_SIMD_H_
