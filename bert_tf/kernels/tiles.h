// Products of bfloat16 matrices on the tile registers of AMX, summed in float32.
//
// The left matrix is read as it lies in memory. The right one is packed into panels of 32
// columns: for every 32 rows two tiles side by side, [16 pairs of rows][16 columns][2].

#ifndef BERT_TF_KERNELS_TILES_H_
#define BERT_TF_KERNELS_TILES_H_

#ifdef __AMX_BF16__
#define BERT_TF_TILES 1

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>

#include "arithmetic.h"

namespace bert_tf {

constexpr int64_t kBlock = 32;             // Rows, columns and depth of one step.
constexpr int64_t kTile = 512;             // bfloat16 numbers of a tile.
constexpr int64_t kStep = kBlock * kBlock;  // Those of a panel for 32 rows of depth.

inline int64_t RoundUp(int64_t x) { return (x + kBlock - 1) / kBlock * kBlock; }

// Memory of one thread that grows and is kept. Throws std::bad_alloc where there is none.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  template <typename T>
  T* Get(int64_t count) {
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    if (bytes > size_) {
      std::free(data_);
      size_ = 0;
      data_ = std::aligned_alloc(64, bytes);
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = bytes;
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Sets up the eight tiles of this thread, 16 rows of 64 bytes each, while it lives.
class TileScope {
 public:
  TileScope() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  ~TileScope() { _tile_release(); }
};

// 32 rows of a left matrix.
struct Rows {
  const bfloat* data;
  int64_t stride;  // Numbers from one row to the next.
  int64_t step;    // Numbers from one step of depth to the next.
  int64_t half;    // Numbers from row 0 to row 16.
};

inline Rows RowMajor(const bfloat* data, int64_t stride) {
  return {data, stride, kBlock, 16 * stride};
}
// What PackTransposed makes.
inline Rows Packed(const bfloat* data) { return {data, kBlock, kStep, kTile}; }

inline void ZeroTiles() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void LoadTiles(const float* c, int64_t stride) {
  _tile_loadd(0, c, 4 * stride);
  _tile_loadd(1, c + 16, 4 * stride);
  _tile_loadd(2, c + 16 * stride, 4 * stride);
  _tile_loadd(3, c + 16 * stride + 16, 4 * stride);
}

inline void StoreTiles(float* c, int64_t stride) {
  _tile_stored(0, c, 4 * stride);
  _tile_stored(1, c + 16, 4 * stride);
  _tile_stored(2, c + 16 * stride, 4 * stride);
  _tile_stored(3, c + 16 * stride + 16, 4 * stride);
}

// Adds a product to tiles 0..3, the quarters of 32 x 32 sums. Reading the left side past
// the first cache, where the panel is, makes it 1.3 times as fast. between() is called
// before each step: what vectors do meanwhile costs little.
template <typename Between>
void MultiplyAdd(const Rows& a, const bfloat* panel, int64_t steps,
                 const Between& between) {
  const bfloat* left = a.data;
  for (int64_t i = 0; i < steps; ++i, left += a.step, panel += kStep) {
    between();
    _tile_stream_loadd(4, left, 2 * a.stride);
    _tile_loadd(6, panel, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, panel + kTile, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_stream_loadd(5, left + a.half, 2 * a.stride);
    _tile_dpbf16ps(3, 5, 7);
    _tile_dpbf16ps(2, 5, 6);
  }
}

inline void MultiplyAdd(const Rows& a, const bfloat* panel, int64_t steps) {
  MultiplyAdd(a, panel, steps, [] {});
}

// 2^x to two units in the last place: 2^n times a polynomial on [-1/2, 1/2] with the least
// largest relative error. What is not finite stays so.
inline __m512 PowerOfTwo(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.326468001e-3f);
  for (const float coefficient : {9.671503010e-3f, 5.550733769e-2f, 2.402224224e-1f,
                                  6.931469777e-1f, 1.0f})
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(coefficient));
  return _mm512_scalef_ps(p, n);
}

// 1 / x by a step of Newton's method: a third of the time of a division.
inline __m512 Reciprocal(__m512 x) {
  const __m512 r = _mm512_rcp14_ps(x);
  return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.0f)), r);
}

// What arithmetic.h has one number at a time.
inline __m512 HalfAndOdd(__m512 x, const float* coefficients) {
  // A bound comes first: what is not a number stays so.
  const __m512 near = _mm512_min_ps(_mm512_set1_ps(5.0f),
                                    _mm512_max_ps(_mm512_set1_ps(-5.0f), x));
  const __m512 v = _mm512_fmsub_ps(near, near, _mm512_set1_ps(12.5f));
  __m512 p = _mm512_set1_ps(coefficients[0]);
  for (int i = 1; i < kTerms; ++i)
    p = _mm512_fmadd_ps(p, v, _mm512_set1_ps(coefficients[i]));
  return _mm512_fmadd_ps(p, near, _mm512_set1_ps(0.5f));
}

inline __m512 Gelu(__m512 x) {
  const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-5.0f), _CMP_NLE_UQ);
  return _mm512_maskz_mul_ps(counts, x, HalfAndOdd(x, kNormalCdf));
}

inline __m512 GeluDerivative(__m512 x) { return HalfAndOdd(x, kGeluDerivative); }

inline __m512 Tanh(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 bounded = _mm512_min_ps(_mm512_set1_ps(20.0f), _mm512_abs_ps(x));
  const __m512 e = PowerOfTwo(_mm512_mul_ps(bounded, _mm512_set1_ps(-2.88539008f)));
  const __m512 y = _mm512_mul_ps(_mm512_sub_ps(one, e), Reciprocal(_mm512_add_ps(one, e)));
  const __mmask16 negative = _mm512_cmplt_ps_mask(x, _mm512_setzero_ps());
  return _mm512_mask_sub_ps(y, negative, _mm512_setzero_ps(), y);
}

inline __m512 GeluTanh(__m512 x) {
  const __m512 factor = _mm512_fmadd_ps(_mm512_mul_ps(x, x),
                                        _mm512_set1_ps(0.79788456f * 0.044715f),
                                        _mm512_set1_ps(0.79788456f));
  const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
  return _mm512_fmadd_ps(half, Tanh(_mm512_mul_ps(x, factor)), half);
}

inline __m512 Widen(__m256bh x) {
  const __m512i bits = _mm512_cvtepu16_epi32((__m256i)x);
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

inline __m512 Widen(const bfloat* x) {
  return Widen((__m256bh)_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
}

inline void StoreRounded(bfloat* target, __m512 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      (__m256i)_mm512_cvtneps_pbh(x));
}

// 32 float32 -> 32 bfloat16, rounded to the nearest.
inline __m512i Round(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Two rows of 32 -> pairs of their columns 0..15 and 16..31.
inline void Interleave(__m512i first, __m512i second, __m512i* low, __m512i* high) {
  alignas(64) static const uint16_t kLow[32] = {
      0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i index = _mm512_load_si512(kLow);
  const __m512i upper = _mm512_add_epi16(index, _mm512_set1_epi16(16));
  *low = _mm512_permutex2var_epi16(first, index, second);
  *high = _mm512_permutex2var_epi16(first, upper, second);
}

// Transposes 16 x 16 numbers of 32 bits.
inline void Transpose(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 16; i += 8) {
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + 4 + j], 0x88);
      t[i + 4 + j] = _mm512_shuffle_i32x4(r[i + j], r[i + 4 + j], 0xdd);
    }
  }
  for (int j = 0; j < 8; ++j) {
    r[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
    r[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
  }
}

inline __mmask32 FirstColumns(int64_t count) {
  return count >= 32 ? 0xffffffffu : count <= 0 ? 0u : (1u << count) - 1u;
}

// Stores 32 numbers; past the caches where a step packs all of its kernels before it reads
// them: that saves reading the memory first.
template <bool kPastCaches>
inline void Store(bfloat* target, __m512i value) {
  if constexpr (kPastCaches) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), value);
  } else {
    _mm512_store_si512(target, value);
  }
}

// 32 x 32 of a right matrix -> one step of a panel. Beyond `rows` and `columns` it is 0.
template <bool kPastCaches = false>
inline void PackStep(const bfloat* x, int64_t stride, int64_t rows, int64_t columns,
                     bfloat* panel) {
  const __mmask32 mask = FirstColumns(columns);
  for (int64_t i = 0; i < kBlock; i += 2) {
    const __m512i first = _mm512_maskz_loadu_epi16(i < rows ? mask : 0, x + i * stride);
    const __m512i second =
        _mm512_maskz_loadu_epi16(i + 1 < rows ? mask : 0, x + (i + 1) * stride);
    __m512i low, high;
    Interleave(first, second, &low, &high);
    Store<kPastCaches>(panel + i / 2 * kBlock, low);
    Store<kPastCaches>(panel + kTile + i / 2 * kBlock, high);
  }
}

// 32 rows of x, 32 numbers of each -> one step of the panel of x transposed: depth is
// along the rows of x, and its rows are the panel's columns.
template <bool kPastCaches = false>
inline void PackStepOfTransposed(const bfloat* x, int64_t stride, int64_t rows,
                                 int64_t columns, bfloat* panel) {
  const __mmask32 mask = FirstColumns(columns);
  for (int64_t half = 0; half < 2; ++half) {
    __m512i r[16];
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t row = 16 * half + i;
      r[i] = _mm512_maskz_loadu_epi16(row < rows ? mask : 0, x + row * stride);
    }
    Transpose(r);
    for (int64_t i = 0; i < 16; ++i)
      Store<kPastCaches>(panel + half * kTile + i * kBlock, r[i]);
  }
}

// 32 x 32 of x -> one step of x transposed as a left matrix, see Packed: depth is along
// the columns of x.
inline void PackTransposed(const bfloat* x, int64_t stride, int64_t rows,
                           int64_t columns, bfloat* packed) {
  const __mmask32 mask = FirstColumns(columns);
  __m512i low[16], high[16];
  for (int64_t i = 0; i < 16; ++i) {
    const bfloat* row = x + 2 * i * stride;
    const __m512i first = _mm512_maskz_loadu_epi16(2 * i < rows ? mask : 0, row);
    const __m512i second =
        _mm512_maskz_loadu_epi16(2 * i + 1 < rows ? mask : 0, row + stride);
    Interleave(first, second, &low[i], &high[i]);
  }
  Transpose(low);
  Transpose(high);
  for (int64_t i = 0; i < 16; ++i) {
    _mm512_store_si512(packed + i * kBlock, low[i]);
    _mm512_store_si512(packed + kTile + i * kBlock, high[i]);
  }
}

}  // namespace bert_tf

#endif  // __AMX_BF16__
#endif  // BERT_TF_KERNELS_TILES_H_
