// Element-wise operations of BERT: one pass over memory each, bfloat16 or float32 in and
// out, float32 inside. bert_tf/modeling/backends/fused_operations.py defines the results.

#ifndef BERT_TF_FUSED_OPS_ELEMENTWISE_H_
#define BERT_TF_FUSED_OPS_ELEMENTWISE_H_

#include <math.h>

#include "functions.h"
#include "panels.h"

namespace bert_tf {
namespace BERT_TF_ISA {

// Calls function(i, count) for 16 numbers of a row at a time, and for the remainder.
template <typename Function>
BERT_TF_INLINE void ForColumns(int64_t width, const Function& function) {
  int64_t i = 0;
  for (; i + 16 <= width; i += 16) function(i, 16);
  if (i < width) function(i, width - i);
}

// The same with function(i, count, lane) in four lanes: independent sums, which need not
// wait for one another's additions.
template <typename Function>
BERT_TF_INLINE void ForColumnsInLanes(int64_t width, const Function& function) {
  int64_t i = 0;
  for (; i + 64 <= width; i += 64) {
    function(i, 16, 0);
    function(i + 16, 16, 1);
    function(i + 32, 16, 2);
    function(i + 48, 16, 3);
  }
  for (; i < width; i += 16) function(i, Least(16, width - i), 0);
}

// Sixteen numbers, or the first `count` of them and zeros.
BERT_TF_INLINE V ReadSome(const float* x, int64_t count) {
  return count == 16 ? Read(x) : ReadFirst(x, count);
}
BERT_TF_INLINE V ReadSome(const bfloat* x, int64_t count) {
  if (count == 16) return Read(x);
  bfloat all[16] = {};
  memcpy(all, x, count * sizeof(bfloat));
  return Read(all);
}
template <typename T>
BERT_TF_INLINE void WriteSome(T* target, int64_t count, V x) {
  if (count == 16) return Write(target, x);
  T all[16];
  Write(all, x);
  memcpy(target, all, count * sizeof(T));
}
BERT_TF_INLINE void AddSome(float* target, int64_t count, V x) {
  WriteSome(target, count, ReadSome(target, count) + x);
}
// The first `count` numbers of x, then those of `others`.
BERT_TF_INLINE V OnlyFirst(V x, int64_t count, float others = 0.0f) {
  if (count == 16) return x;
  float all[16];
  Write(all, x);
  for (int64_t i = count; i < 16; ++i) all[i] = others;
  return Read(all);
}

// ---------------------------------------------------------------- bias and activation

template <typename T, bool kApproximate>
BERT_TF_INLINE V Activated(V x) {
  if constexpr (kApproximate) return GeluTanh(x);
  return sizeof(T) == sizeof(float) ? ExactGelu(x) : Gelu(x);
}
template <typename T, bool kApproximate>
BERT_TF_INLINE V ActivatedDerivative(V x) {
  if constexpr (kApproximate) return GeluTanhDerivative(x);
  return sizeof(T) == sizeof(float) ? ExactGeluDerivative(x) : GeluDerivative(x);
}

template <typename T, bool kApproximate>
void BiasGeluOf(const Loop& loop, const T* x, const float* bias, int64_t rows,
                int64_t width, T* y) {
  ForParts(loop, rows, width * 8, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      ForColumns(width, [&](int64_t i, int64_t count) {
        const V a = ReadSome(x + r * width + i, count) + ReadSome(bias + i, count);
        WriteSome(y + r * width + i, count, Activated<T, kApproximate>(a));
      });
    }
  });
}

template <typename T>
void BiasGelu(const Loop& loop, const T* x, const float* bias, int64_t rows,
              int64_t width, bool approximate, T* y) {
  if (approximate) {
    BiasGeluOf<T, true>(loop, x, bias, rows, width, y);
  } else {
    BiasGeluOf<T, false>(loop, x, bias, rows, width, y);
  }
}

template <typename T, bool kApproximate>
void BiasGeluGradOf(const Loop& loop, const T* x, const float* bias, const T* dy,
                    int64_t rows, int64_t width, float* partial, T* dx, float* dbias) {
  memset(partial, 0, kParts * width * sizeof(float));
  ForParts(loop, rows, width * 10, [&](int64_t part, int64_t begin, int64_t end) {
    float* sum = partial + part * width;
    for (int64_t r = begin; r < end; ++r) {
      ForColumns(width, [&](int64_t i, int64_t count) {
        const V a = ReadSome(x + r * width + i, count) + ReadSome(bias + i, count);
        const V g = ReadSome(dy + r * width + i, count) *
                    ActivatedDerivative<T, kApproximate>(a);
        WriteSome(dx + r * width + i, count, g);
        AddSome(sum + i, count, g);
      });
    }
  });
  AddParts(partial, width, dbias);
}

template <typename T>
void BiasGeluGrad(const Loop& loop, const T* x, const float* bias, const T* dy,
                  int64_t rows, int64_t width, bool approximate, float* partial, T* dx,
                  float* dbias) {
  if (approximate) {
    BiasGeluGradOf<T, true>(loop, x, bias, dy, rows, width, partial, dx, dbias);
  } else {
    BiasGeluGradOf<T, false>(loop, x, bias, dy, rows, width, partial, dx, dbias);
  }
}

// ------------------------------------------- bias, dropout, residual, layer normalisation

// The random bytes of a token, [width] and 16 more to read past the end: dropout keeps
// the numbers whose byte is below the limit.
inline const uint8_t* TokenBytes(const DropoutMask& dropout, const Positions& positions,
                                 int64_t token, int64_t width, uint8_t* memory) {
  if (!dropout.is_on()) return nullptr;
  const int64_t row = RowOf(positions, token);
  const int64_t position = positions.offsets == nullptr ? token - positions.begins[row]
                                                        : positions.offsets[token];
  return dropout.Bytes(row, position * width, width, memory);
}

BERT_TF_INLINE V KeepSome(const DropoutMask& dropout, const uint8_t* bytes, int64_t i,
                          V x) {
  if (bytes == nullptr) return x;
  return Where(BytesBelow(bytes + i, dropout.limit()), x * Set(dropout.scale()));
}

template <typename T>
void DropoutAddNorm(const Loop& loop, const Norm<T>& n, T* y, T* sum, float* statistics) {
  const int64_t width = n.width, rows = n.positions.begins[n.positions.rows];
  const DropoutMask dropout(n.dropout, n.positions.length * width);
  ForParts(loop, rows, width * 6, [&](int64_t, int64_t begin, int64_t end) {
    static thread_local Scratch floats, random;
    float* h = floats.Get<float>(width + 16);
    uint8_t* memory = random.Get<uint8_t>(DropoutMask::Room(width));
    for (int64_t r = begin; r < end; ++r) {
      const uint8_t* bytes = TokenBytes(dropout, n.positions, r, width, memory);
      V total = Zero();
      ForColumns(width, [&](int64_t i, int64_t count) {
        const V x = ReadSome(n.x + r * width + i, count) + ReadSome(n.bias + i, count);
        const V kept = KeepSome(dropout, bytes, i, x);
        const V z = OnlyFirst(kept, count) + ReadSome(n.residual + r * width + i, count);
        Write(h + i, z);
        total = total + z;
      });
      const float mean = SumOf(total) / width;
      V squares = Zero();
      ForColumns(width, [&](int64_t i, int64_t count) {
        const V d = OnlyFirst(Read(h + i) - Set(mean), count);
        squares = Fma(d, d, squares);
      });
      const float factor = 1.0f / sqrtf(SumOf(squares) / width + n.epsilon);
      ForColumns(width, [&](int64_t i, int64_t count) {
        const V normal = (Read(h + i) - Set(mean)) * Set(factor);
        const V scaled = Fma(normal, ReadSome(n.gamma + i, count),
                             ReadSome(n.beta + i, count));
        WriteSome(y + r * width + i, count, scaled);
        if (sum != nullptr) WriteSome(sum + r * width + i, count, Read(h + i));
      });
      statistics[2 * r] = mean;
      statistics[2 * r + 1] = factor;
    }
  });
}

template <typename T>
void DropoutAddNormGrad(const Loop& loop, const NormGrad<T>& n) {
  const int64_t width = n.width, rows = n.positions.begins[n.positions.rows];
  const DropoutMask dropout(n.dropout, n.positions.length * width);
  float *biases = n.partial, *gammas = biases + kParts * width;
  float* betas = gammas + kParts * width;
  memset(n.partial, 0, 3 * kParts * width * sizeof(float));
  ForParts(loop, rows, width * 8, [&](int64_t part, int64_t begin, int64_t end) {
    static thread_local Scratch floats, random;
    float* normal = floats.Get<float>(2 * (width + 16));
    float* scaled = normal + width + 16;
    uint8_t* memory = random.Get<uint8_t>(DropoutMask::Room(width));
    float *db = biases + part * width, *dg = gammas + part * width;
    float* dt = betas + part * width;
    for (int64_t r = begin; r < end; ++r) {
      const uint8_t* bytes = TokenBytes(dropout, n.positions, r, width, memory);
      const V mean = Set(n.statistics[2 * r]), factor = Set(n.statistics[2 * r + 1]);
      V first = Zero(), second = Zero();
      ForColumns(width, [&](int64_t i, int64_t count) {
        const V d = ReadSome(n.dy + r * width + i, count);
        const V z = (ReadSome(n.sum + r * width + i, count) - mean) * factor;
        const V s = d * ReadSome(n.gamma + i, count);
        Write(normal + i, z);
        Write(scaled + i, s);
        first = first + s;  // Past the end of the row d is 0.
        second = Fma(s, z, second);
        AddSome(dg + i, count, d * z);
        AddSome(dt + i, count, d);
      });
      const V shift = Set(SumOf(first) / width), slope = Set(SumOf(second) / width);
      ForColumns(width, [&](int64_t i, int64_t count) {
        const V d = factor * (Fnma(Read(normal + i), slope, Read(scaled + i)) - shift);
        const V kept = KeepSome(dropout, bytes, i, d);
        WriteSome(n.dresidual + r * width + i, count, d);
        WriteSome(n.dx + r * width + i, count, kept);
        AddSome(db + i, count, kept);
      });
    }
  });
  AddParts(biases, width, n.dbias);
  AddParts(gammas, width, n.dgamma);
  AddParts(betas, width, n.dbeta);
}

// ------------------------------------------------- cross entropy of masked tokens

template <typename T>
void CrossEntropyLosses(const Loop& loop, const CrossEntropy<T>& c, float* losses,
                        float* normalisers) {
  ForParts(loop, c.rows, c.width * 6, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* a = c.logits + r * c.stride;
      constexpr float kLowest = -3e38f;
      V most[4] = {Set(kLowest), Set(kLowest), Set(kLowest), Set(kLowest)};
      ForColumnsInLanes(c.width, [&](int64_t i, int64_t count, int lane) {
        const V x = ReadSome(a + i, count) + ReadSome(c.bias + i, count);
        // Max returns its second argument for NaN: a NaN reaches the loss.
        most[lane] = Max(most[lane], OnlyFirst(x, count, kLowest));
      });
      const float largest =
          LargestOf(Max(Max(most[0], most[1]), Max(most[2], most[3])));
      V total[4] = {Zero(), Zero(), Zero(), Zero()};
      ForColumnsInLanes(c.width, [&](int64_t i, int64_t count, int lane) {
        const V x = ReadSome(a + i, count) + ReadSome(c.bias + i, count);
        total[lane] = total[lane] + OnlyFirst(Exp(x - Set(largest)), count);
      });
      const int32_t label = c.labels[r];
      float hit[16];
      Write(hit, ReadSome(a + label, 1) + Set(c.bias[label]));
      const V sum = (total[0] + total[1]) + (total[2] + total[3]);
      normalisers[r] = largest + logf(SumOf(sum));
      losses[r] = normalisers[r] - hit[0];
    }
  });
}

template <typename T>
void CrossEntropyGradients(const Loop& loop, const CrossEntropy<T>& c,
                           const float* normalisers, const float* dlosses,
                           float* partial, T* dlogits, float* dbias) {
  memset(partial, 0, kParts * c.width * sizeof(float));
  ForParts(loop, c.rows, c.width * 6, [&](int64_t part, int64_t begin, int64_t end) {
    float* sum = partial + part * c.width;
    for (int64_t r = begin; r < end; ++r) {
      const T* a = c.logits + r * c.stride;
      T* o = dlogits + r * c.stride;
      const float d = dlosses[r];
      if (d == 0.0f) {  // Padding.
        memset(o, 0, c.stride * sizeof(T));
        continue;
      }
      const V offset = Set(normalisers[r]), factor = Set(d);
      ForColumns(c.width, [&](int64_t i, int64_t count) {
        const V x = ReadSome(a + i, count) + ReadSome(c.bias + i, count);
        const V g = Exp(x - offset) * factor;
        WriteSome(o + i, count, g);
        AddSome(sum + i, count, g);
      });
      const int32_t label = c.labels[r];
      const V x = ReadSome(a + label, 1) + Set(c.bias[label]);
      WriteSome(o + label, 1, Exp(x - offset) * factor - factor);
      sum[label] -= d;
      memset(o + c.width, 0, (c.stride - c.width) * sizeof(T));
    }
  });
  AddParts(partial, c.width, dbias);
}

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_ELEMENTWISE_H_
