// The norm of all gradients, and one step of LAMB or Adam on one variable: two passes over
// memory, or one. bert_tf/training has the formulas.

#ifndef BERT_TF_FUSED_OPS_OPTIMIZER_H_
#define BERT_TF_FUSED_OPS_OPTIMIZER_H_

#include <math.h>

#include "elementwise.h"

namespace bert_tf {
namespace BERT_TF_ISA {

constexpr int64_t kRun = 2048;  // So few numbers are summed in float32.

// The sum of squares: float32 within a run, float64 over the runs.
inline double SquareSum(const float* data, int64_t count) {
  double total = 0.0;
  for (int64_t first = 0; first < count; first += kRun) {
    V sum = Zero();
    ForColumns(Least(kRun, count - first), [&](int64_t i, int64_t here) {
      const V x = ReadSome(data + first + i, here);
      sum = Fma(x, x, sum);
    });
    total += SumOf(sum);
  }
  return total;
}

// The direction of a weight's update.
BERT_TF_INLINE V Direction(const AdamStep& s, V w, V m, V v) {
  const V denominator = Root(v * Set(s.v_scale)) + Set(s.epsilon);
  return Fma(Set(s.decay), w, Quotient(m * Set(s.m_scale), denominator));
}

struct Squares {
  double w = 0.0, u = 0.0;
};

// Updates the moments begin .. end; returns the sums of squares of the trust ratio.
inline Squares Moments(const AdamStep& s, int64_t begin, int64_t end) {
  Squares squares;
  for (int64_t first = begin; first < end; first += kRun) {
    V w_sum = Zero(), u_sum = Zero();
    ForColumns(Least(kRun, end - first), [&](int64_t i, int64_t count) {
      const int64_t j = first + i;
      const V d = ReadSome(s.g + j, count) * Set(s.factor);
      const V m = Fma(Set(s.beta_1), ReadSome(s.m + j, count), Set(s.m_rest) * d);
      const V v = Fma(Set(s.beta_2), ReadSome(s.v + j, count), Set(s.v_rest) * d * d);
      WriteSome(s.m + j, count, m);
      WriteSome(s.v + j, count, v);
      const V w = ReadSome(s.w + j, count);
      const V u = OnlyFirst(Direction(s, w, m, v), count);
      if (s.adapts) {
        w_sum = Fma(w, w, w_sum);
        u_sum = Fma(u, u, u_sum);
      } else {
        WriteSome(s.w + j, count, Fnma(Set(s.rate), u, w));
      }
    });
    squares.w += SumOf(w_sum);
    squares.u += SumOf(u_sum);
  }
  return squares;
}

inline void TakeAdamStep(const Loop& loop, const AdamStep& s) {
  Squares parts[kParts];
  ForParts(loop, s.count, 8, [&](int64_t part, int64_t begin, int64_t end) {
    parts[part] = Moments(s, begin, end);
  });
  if (!s.adapts) return;
  Squares squares;
  for (const Squares& part : parts) {
    squares.w += part.w;
    squares.u += part.u;
  }
  const bool has_ratio = squares.w > 0.0 && squares.u > 0.0;
  const float ratio = has_ratio ? static_cast<float>(sqrt(squares.w / squares.u)) : 1.0f;
  const V step = Set(s.rate * ratio);
  ForParts(loop, s.count, 8, [&](int64_t, int64_t begin, int64_t end) {
    ForColumns(end - begin, [&](int64_t i, int64_t count) {
      const int64_t j = begin + i;
      const V w = ReadSome(s.w + j, count);
      const V u =
          Direction(s, w, ReadSome(s.m + j, count), ReadSome(s.v + j, count));
      WriteSome(s.w + j, count, Fnma(step, u, w));
    });
  });
}

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_OPTIMIZER_H_
