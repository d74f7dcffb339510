// The micro-kernels: products of 32 rows and 32 columns, summed in float32, with AMX's
// tiles, with AVX512-BF16's products of pairs, or in float32.
//
// The left matrix is read in place. The right one is prepacked into panels of 32 columns:
// for every 32 rows two halves side by side, [16 pairs of rows][16 columns][2] of bfloat16,
// or [32 rows][16 columns] of float32.

#ifndef BERT_TF_FUSED_OPS_PANELS_H_
#define BERT_TF_FUSED_OPS_PANELS_H_

#include <stdlib.h>

#include "simd.h"

namespace bert_tf {
namespace BERT_TF_ISA {

constexpr int64_t kStep = kBlock * kBlock;  // Numbers of a panel per 32 rows of depth.
constexpr int64_t kHalf = kStep / 2;

// A buffer of one thread that grows and is reused; throws through OutOfMemory.
class Scratch {
 public:
  ~Scratch() { free(data_); }
  template <typename T>
  T* Get(int64_t count) {
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    if (bytes > size_) {
      free(data_);
      size_ = 0;
      data_ = aligned_alloc(64, bytes);
      if (data_ == nullptr) OutOfMemory();
      size_ = bytes;
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// 32 rows of a left matrix.
template <typename T>
struct Rows {
  const T* data;
  int64_t stride;  // Numbers from one row to the next.
  int64_t step;    // Numbers from one step of depth to the next.
  int64_t half;    // Numbers from row 0 to row 16.
};

template <typename T>
inline Rows<T> RowMajor(const T* data, int64_t stride) {
  return {data, stride, kBlock, 16 * stride};
}
// The result of PackTransposed.
template <typename T>
inline Rows<T> Packed(const T* data) {
  return {data, kBlock, kStep, kHalf};
}

// ------------------------------------------------------------------ float32

// Adds the product of [kRows, 32 steps] and half a panel or all of it.
template <int kRows, int kHalves, typename Between>
BERT_TF_INLINE void MultiplySomeRows(const Rows<float>& a, const float* panel,
                                     int64_t steps, float* sums, int64_t stride,
                                     bool adds, const Between& between) {
  V c[kHalves][kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h)
      c[h][r] = adds ? Read(sums + r * stride + 16 * h) : Zero();
  }
  const float* left = a.data;
  for (int64_t i = 0; i < steps; ++i, left += a.step, panel += kStep) {
    between();
    for (int64_t d = 0; d < kBlock; ++d) {
      V b[kHalves];
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) b[h] = Read(panel + h * kHalf + 16 * d);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V x = Set(left[r * a.stride + d]);
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h) c[h][r] = Fma(x, b[h], c[h][r]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) Write(sums + r * stride + 16 * h, c[h][r]);
  }
}

template <int kRows, int kHalves>
inline void MultiplySomeRows(const Rows<float>& a, int64_t first, const float* panel,
                             int64_t steps, float* sums, int64_t stride, bool adds) {
  Rows<float> rows = a;
  rows.data += first * a.stride;
  MultiplySomeRows<kRows, kHalves>(rows, panel, steps, sums + first * stride, stride,
                                   adds, [] {});
}

// [32, 32 steps] times a panel -> 32 x 32 of `sums`, overwritten or added to. between() is
// called before each step, to interleave the writing of the previous product.
template <typename Between>
inline void Multiply(const Rows<float>& a, const float* panel, int64_t steps, float* sums,
                     int64_t stride, bool adds, const Between& between) {
#ifdef __AVX512F__
  // 32 registers: 22 sums, two of the panel and one of the left matrix.
  MultiplySomeRows<11, 2>(a, panel, steps, sums, stride, adds, between);
  MultiplySomeRows<11, 2>(a, 11, panel, steps, sums, stride, adds);
  MultiplySomeRows<10, 2>(a, 22, panel, steps, sums, stride, adds);
#else
  // 16 registers: 12 sums, two of the panel and one of the left matrix.
  for (int64_t h = 0; h < 2; ++h, panel += kHalf, sums += 16) {
    if (h == 0) {
      MultiplySomeRows<6, 1>(a, panel, steps, sums, stride, adds, between);
    } else {
      MultiplySomeRows<6, 1>(a, 0, panel, steps, sums, stride, adds);
    }
    for (int64_t first = 6; first < 30; first += 6)
      MultiplySomeRows<6, 1>(a, first, panel, steps, sums, stride, adds);
    MultiplySomeRows<2, 1>(a, 30, panel, steps, sums, stride, adds);
  }
#endif
}

// ----------------------------------------------------------------- bfloat16

#if defined(__AMX_BF16__)

// Configures this thread's eight tiles, 16 rows of 64 bytes each, for its lifetime.
class TileScope {
 public:
  TileScope() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    // Not every compiler declares that the intrinsic reads this memory.
    asm volatile("" ::: "memory");
    _tile_loadconfig(&config);
  }
  ~TileScope() { _tile_release(); }
};

// As in float32. Loading the left tiles with a hint that bypasses the first-level cache,
// which holds the panel, is 1.3 times as fast.
template <typename Between>
inline void Multiply(const Rows<bfloat>& a, const bfloat* panel, int64_t steps,
                     float* sums, int64_t stride, bool adds, const Between& between) {
  asm volatile("" ::: "memory");  // As above, for the loads of tiles.
  if (adds) {
    _tile_loadd(0, sums, 4 * stride);
    _tile_loadd(1, sums + 16, 4 * stride);
    _tile_loadd(2, sums + 16 * stride, 4 * stride);
    _tile_loadd(3, sums + 16 * stride + 16, 4 * stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const bfloat* left = a.data;
  for (int64_t i = 0; i < steps; ++i, left += a.step, panel += kStep) {
    between();
    _tile_stream_loadd(4, left, 2 * a.stride);
    _tile_loadd(6, panel, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, panel + kHalf, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_stream_loadd(5, left + a.half, 2 * a.stride);
    _tile_dpbf16ps(3, 5, 7);
    _tile_dpbf16ps(2, 5, 6);
  }
  _tile_stored(0, sums, 4 * stride);
  _tile_stored(1, sums + 16, 4 * stride);
  _tile_stored(2, sums + 16 * stride, 4 * stride);
  _tile_stored(3, sums + 16 * stride + 16, 4 * stride);
}

#else

class TileScope {  // No tiles to configure.
 public:
  TileScope() {}
  ~TileScope() {}
};

#if defined(__AVX512BF16__)

template <int kRows, typename Between>
BERT_TF_INLINE void MultiplySomeRows(const Rows<bfloat>& a, int64_t first,
                                     const bfloat* panel, int64_t steps, float* sums,
                                     int64_t stride, bool adds, const Between& between) {
  sums += first * stride;
  V low[kRows], high[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    low[r] = adds ? Read(sums + r * stride) : Zero();
    high[r] = adds ? Read(sums + r * stride + 16) : Zero();
  }
  const bfloat* left = a.data + first * a.stride;
  for (int64_t i = 0; i < steps; ++i, left += a.step, panel += kStep) {
    between();
    for (int64_t p = 0; p < 16; ++p) {
      const __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel + 32 * p);
      const __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + kHalf + 32 * p);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        memcpy(&pair, left + r * a.stride + 2 * p, sizeof(pair));
        const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
        low[r] = _mm512_dpbf16_ps(low[r], x, b0);
        high[r] = _mm512_dpbf16_ps(high[r], x, b1);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    Write(sums + r * stride, low[r]);
    Write(sums + r * stride + 16, high[r]);
  }
}

// As in float32; 32 registers: 22 sums, two of the panel and one of the left matrix.
template <typename Between>
inline void Multiply(const Rows<bfloat>& a, const bfloat* panel, int64_t steps,
                     float* sums, int64_t stride, bool adds, const Between& between) {
  MultiplySomeRows<11>(a, 0, panel, steps, sums, stride, adds, between);
  MultiplySomeRows<11>(a, 11, panel, steps, sums, stride, adds, [] {});
  MultiplySomeRows<10>(a, 22, panel, steps, sums, stride, adds, [] {});
}

#else

// One step of a panel, widened to float32.
inline void WidenStep(const bfloat* panel, float* wide) {
  for (int64_t p = 0; p < kBlock; ++p, panel += 32, wide += 32) {  // Both halves.
    Write(wide, ReadFirstOfPairs(panel));
    Write(wide + 16, ReadSecondOfPairs(panel));
  }
}

// As in float32, but each step of 32 x 32 x 32 is widened first, which costs a fifth. Data
// that is used again should be widened once, see WidenPanel.
template <typename Between>
inline void Multiply(const Rows<bfloat>& a, const bfloat* panel, int64_t steps,
                     float* sums, int64_t stride, bool adds, const Between& between) {
  alignas(64) float left[kStep];
  alignas(64) float right[kStep];
  // Without any step the sums must be 0 too.
  for (int64_t r = 0; steps == 0 && !adds && r < kBlock; ++r)
    memset(sums + r * stride, 0, kBlock * sizeof(float));
  const bfloat* x = a.data;
  for (int64_t i = 0; i < steps; ++i, x += a.step, panel += kStep) {
    between();
    for (int64_t r = 0; r < kBlock; ++r) {
      Write(left + r * kBlock, Read(x + r * a.stride));
      Write(left + r * kBlock + 16, Read(x + r * a.stride + 16));
    }
    WidenStep(panel, right);
    Multiply(RowMajor<float>(left, kBlock), right, 1, sums, stride, adds || i > 0,
             [] {});
  }
}

#endif
#endif

template <typename T>
inline void Multiply(const Rows<T>& a, const T* panel, int64_t steps, float* sums,
                     int64_t stride, bool adds) {
  Multiply(a, panel, steps, sums, stride, adds, [] {});
}

// Factor: the type in which operands that are used many times are kept. Without bfloat16
// instructions they are widened to float32 once, by Widen and WidenPanel.
#if defined(__AMX_BF16__)
constexpr int64_t kMultiplyAdds = 1000;  // Per cycle, roughly.
#elif defined(__AVX512BF16__)
constexpr int64_t kMultiplyAdds = 32;
#else
constexpr int64_t kMultiplyAdds = 16;
#endif
#if defined(__AMX_BF16__) || defined(__AVX512BF16__)
using Factor = bfloat;
inline const bfloat* Widen(const bfloat* x, int64_t, Scratch*) { return x; }
inline const bfloat* WidenPanel(const bfloat* panel, int64_t, Scratch*) { return panel; }
#else
using Factor = float;
// `count` numbers, a multiple of 16.
inline const float* Widen(const bfloat* x, int64_t count, Scratch* memory) {
  float* wide = memory->Get<float>(count);
  for (int64_t i = 0; i < count; i += 16) Write(wide + i, Read(x + i));
  return wide;
}
// `steps` steps of panels.
inline const float* WidenPanel(const bfloat* panel, int64_t steps, Scratch* memory) {
  float* wide = memory->Get<float>(steps * kStep);
  for (int64_t i = 0; i < steps; ++i) WidenStep(panel + i * kStep, wide + i * kStep);
  return wide;
}
#endif

// ------------------------------------------------------------------ packing

// Non-temporal stores, which bypass the caches, if kernels are prepacked for a whole step:
// they are read much later, and the old content of the memory need not be loaded.
#ifdef __AVX512F__

template <bool kPastCaches>
inline void Store(void* target, __m512i value) {
  if constexpr (kPastCaches) {
    _mm512_stream_si512(static_cast<__m512i*>(target), value);
  } else {
    _mm512_store_si512(target, value);
  }
}

// Two rows of 32 -> pairs for columns 0..15 and 16..31.
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

// 32 x 32 of a right matrix -> one step of a panel, 0 beyond `rows` and `columns`.
template <bool kPastCaches = false>
inline void PackStep(const bfloat* x, int64_t stride, int64_t rows, int64_t columns,
                     bfloat* panel) {
  for (int64_t i = 0; i < kBlock; i += 2) {
    const __m512i first = ReadFirst(x + i * stride, i < rows ? columns : 0);
    const __m512i second = ReadFirst(x + (i + 1) * stride, i + 1 < rows ? columns : 0);
    __m512i low, high;
    Interleave(first, second, &low, &high);
    Store<kPastCaches>(panel + i / 2 * kBlock, low);
    Store<kPastCaches>(panel + kHalf + i / 2 * kBlock, high);
  }
}

// 32 rows of x, 32 numbers of each -> one step of the panel of x transposed: depth is
// along the rows of x, and its rows are the panel's columns.
template <bool kPastCaches = false>
inline void PackStepOfTransposed(const bfloat* x, int64_t stride, int64_t rows,
                                 int64_t columns, bfloat* panel) {
  for (int64_t half = 0; half < 2; ++half) {
    __m512i r[16];
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t row = 16 * half + i;
      r[i] = ReadFirst(x + row * stride, row < rows ? columns : 0);
    }
    Transpose(r);
    for (int64_t i = 0; i < 16; ++i)
      Store<kPastCaches>(panel + half * kHalf + i * kBlock, r[i]);
  }
}

// 32 x 32 of x -> one step of x transposed as a left matrix, see Packed: depth is along
// the columns of x.
inline void PackTransposed(const bfloat* x, int64_t stride, int64_t rows,
                           int64_t columns, bfloat* packed) {
  __m512i low[16], high[16];
  for (int64_t i = 0; i < 16; ++i) {
    const bfloat* row = x + 2 * i * stride;
    const __m512i first = ReadFirst(row, 2 * i < rows ? columns : 0);
    const __m512i second = ReadFirst(row + stride, 2 * i + 1 < rows ? columns : 0);
    Interleave(first, second, &low[i], &high[i]);
  }
  Transpose(low);
  Transpose(high);
  for (int64_t i = 0; i < 16; ++i) {
    _mm512_store_si512(packed + i * kBlock, low[i]);
    _mm512_store_si512(packed + kHalf + i * kBlock, high[i]);
  }
}

// 32 x 32 of x, transposed, in two halves: rows have a stride of `row` numbers, and columns
// from 16 on begin `half` numbers after the others. All 32 x 32 numbers of x exist.
inline void TransposeFloats(const float* x, int64_t stride, float* target, int64_t row,
                            int64_t half) {
  for (int64_t i = 0; i < kBlock; i += 16) {
    for (int64_t j = 0; j < kBlock; j += 16) {
      __m512i r[16];
      for (int64_t k = 0; k < 16; ++k)
        r[k] = _mm512_loadu_si512(x + (i + k) * stride + j);
      Transpose(r);
      for (int64_t k = 0; k < 16; ++k)
        _mm512_store_si512(target + (j + k) * row + i / 16 * half, r[k]);
    }
  }
}

#else

template <bool kPastCaches = false>
inline void PackStep(const bfloat* x, int64_t stride, int64_t rows, int64_t columns,
                     bfloat* panel) {
  for (int64_t i = 0; i < kBlock; ++i) {
    for (int64_t j = 0; j < kBlock; ++j) {
      panel[j / 16 * kHalf + i / 2 * kBlock + j % 16 * 2 + i % 2] =
          i < rows && j < columns ? x[i * stride + j] : 0;
    }
  }
}

template <bool kPastCaches = false>
inline void PackStepOfTransposed(const bfloat* x, int64_t stride, int64_t rows,
                                 int64_t columns, bfloat* panel) {
  for (int64_t j = 0; j < kBlock; ++j) {
    for (int64_t i = 0; i < kBlock; ++i) {
      panel[j / 16 * kHalf + i / 2 * kBlock + j % 16 * 2 + i % 2] =
          j < rows && i < columns ? x[j * stride + i] : 0;
    }
  }
}

inline void PackTransposed(const bfloat* x, int64_t stride, int64_t rows,
                           int64_t columns, bfloat* packed) {
  for (int64_t i = 0; i < kBlock; ++i) {
    for (int64_t j = 0; j < kBlock; ++j)
      packed[j * kBlock + i] = i < rows && j < columns ? x[i * stride + j] : 0;
  }
}

inline void TransposeFloats(const float* x, int64_t stride, float* target, int64_t row,
                            int64_t half) {
  for (int64_t i = 0; i < kBlock; ++i) {
    for (int64_t j = 0; j < kBlock; ++j)
      target[j * row + i / 16 * half + i % 16] = x[i * stride + j];
  }
}

#endif

// The same for float32; all 32 x 32 numbers of x exist.
inline void PackStep(const float* x, int64_t stride, float* panel) {
  for (int64_t i = 0; i < kBlock; ++i) {
    Write(panel + 16 * i, Read(x + i * stride));
    Write(panel + kHalf + 16 * i, Read(x + i * stride + 16));
  }
}
inline void PackStepOfTransposed(const float* x, int64_t stride, float* panel) {
  TransposeFloats(x, stride, panel, 16, kHalf);
}
inline void PackTransposed(const float* x, int64_t stride, float* packed) {
  TransposeFloats(x, stride, packed, kBlock, 16);
}
inline void PackStep(const bfloat* x, int64_t stride, bfloat* panel) {
  PackStep(x, stride, kBlock, kBlock, panel);
}
inline void PackStepOfTransposed(const bfloat* x, int64_t stride, bfloat* panel) {
  PackStepOfTransposed(x, stride, kBlock, kBlock, panel);
}
inline void PackTransposed(const bfloat* x, int64_t stride, bfloat* packed) {
  PackTransposed(x, stride, kBlock, kBlock, packed);
}

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_PANELS_H_
