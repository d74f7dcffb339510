// Self-attention of all heads, from the product of a layer's inputs with its three
// projections to the heads' outputs side by side, without the scores ever leaving the
// second cache; and its gradient, which makes them again. fused.py says what it computes.
// Blocks of scores between different sequences of a row, and padding, are left out; the
// padding behind a row's tokens need not be there (see Places).

#ifndef BERT_TF_KERNELS_ATTENTION_H_
#define BERT_TF_KERNELS_ATTENTION_H_

#include <math.h>

#include "functions.h"
#include "panels.h"

namespace bert_tf {
namespace BERT_TF_ISA {

// Numbers between rows of scores: a stride of 2 KB would leave but two sets of the cache.
constexpr int64_t kApart = 16;
constexpr float kLn2 = 0.69314718f;

// One head of one row. Scores here are those of fused.py over ln 2, so that their
// exponentials are powers of two.
template <typename T>
struct Head {
  Head(const Attention<T>& call, const DropoutMask& dropout, int64_t number)
      : call(call),
        dropout(dropout),
        number(number),
        row(number / call.heads),
        n(number % call.heads),
        begin(call.places.begins[row]),
        length(call.places.begins[row + 1] - begin),
        padded(RoundUp(length)),
        head(call.head),
        width(call.heads * call.head),
        scale(1.0f / sqrtf(static_cast<float>(head))) {}

  // Query, key or value (0, 1, 2), the query scaled -> [padded, D].
  void Project(int part, T* out) const {
    const int64_t column = part * width + n * head;
    const V factor = Set(part == 0 ? scale / kLn2 : 1.0f);
    const float* b = call.bias + column;
    for (int64_t s = 0; s < length; ++s) {
      const T* a = call.x + (begin + s) * 3 * width + column;
      T* o = out + s * head;
      for (int64_t i = 0; i < head; i += 16)
        Write(o + i, (Read(a + i) + Read(b + i)) * factor);
    }
    memset(out + length * head, 0, (padded - length) * head * sizeof(T));
  }

  // Calls 32 positions of the next one to the second cache. A row of x is longer than a
  // page, so that the processor does not foresee what is read next.
  void PrefetchNext(int64_t first) const {
    if (number + 1 < call.places.rows * call.heads)
      Head(call, dropout, number + 1).Prefetch(first);
  }

  void Prefetch(int64_t first) const {
    for (int64_t s = first; s < Least(first + kBlock, length); ++s) {
      for (int part = 0; part < 3; ++part) {
        const T* a = call.x + ((begin + s) * 3 + part) * width + n * head;
        for (int64_t i = 0; i < head; i += 64 / sizeof(T))
          _mm_prefetch(reinterpret_cast<const char*>(a + i), _MM_HINT_T1);
      }
    }
  }

  const Attention<T>& call;
  const DropoutMask& dropout;
  int64_t number, row, n;
  int64_t begin, length;  // The row's first token in x, and how many it has.
  int64_t padded;         // Its length in whole blocks.
  int64_t head, width;    // D, H
  float scale;
};

// [padded, D] -> panels whose columns are its rows.
template <typename T>
void PackRows(const Head<T>& task, const T* x, T* panels) {
  for (int64_t s = 0; s < task.padded; s += kBlock) {
    for (int64_t d = 0; d < task.head; d += kBlock, panels += kStep)
      PackStepOfTransposed(x + s * task.head + d, task.head, panels);
  }
}

// [padded, D] -> panels whose columns are its columns.
template <typename T>
void PackColumns(const Head<T>& task, const T* x, T* panels) {
  for (int64_t d = 0; d < task.head; d += kBlock) {
    for (int64_t s = 0; s < task.padded; s += kBlock, panels += kStep)
      PackStep(x + s * task.head + d, task.head, panels);
  }
}

// Positions of a row, in whole blocks of 32.
struct Span {
  int64_t begin, end;
  int64_t steps() const { return (end - begin) / kBlock; }
};

// 32 rows, as deep as a head, times the panels of the rows of `span`: columns of `sums`.
template <typename T>
inline void MultiplyRows(const Head<T>& task, const Rows<T>& left, const T* panels,
                         Span span, float* sums, int64_t stride) {
  for (int64_t j = span.begin; j < span.end; j += kBlock)
    Multiply(left, panels + j * task.head, task.head / kBlock, sums + j, stride, false);
}

// 32 rows, whose depth is the positions of `span`, times panels -> [32, D].
template <typename T>
inline void MultiplyColumns(const Head<T>& task, Rows<T> left, const T* panels, Span span,
                            float* sums) {
  left.data += span.begin / kBlock * left.step;
  for (int64_t d = 0; d < task.head; d += kBlock)
    Multiply(left, panels + d * task.padded + span.begin * kBlock, span.steps(), sums + d,
             task.head, false);
}

// What a head needs besides matrices: which sequence each position belongs to, and which
// blocks of 32 positions may see each other.
class Memory {
 public:
  template <typename T>
  explicit Memory(const Head<T>& task) : blocks_(task.padded / kBlock) {
    static thread_local Scratch numbers, random;
    sequence = numbers.Get<int32_t>(task.padded + 2 * blocks_);
    first_ = sequence + task.padded;
    last_ = first_ + blocks_;
    const int64_t row_length = task.call.places.length;
    memcpy(sequence, task.call.sequences + task.row * row_length,
           task.length * sizeof(int32_t));
    for (int64_t i = task.length; i < task.padded; ++i) sequence[i] = 0;
    // Sequences that stand in order, with padding behind: any other row is one block.
    int32_t before = 1;
    for (int64_t i = 0; i < task.padded; ++i) {
      if (sequence[i] > 0 && sequence[i] < before) is_in_order_ = false;
      before = sequence[i] > 0 ? sequence[i] : INT32_MAX;
    }
    for (int64_t i = 0; i < blocks_; ++i) {
      const int32_t* here = sequence + i * kBlock;
      first_[i] = here[0];
      last_[i] = here[0];
      for (int64_t j = 1; j < kBlock; ++j)
        last_[i] = here[j] > last_[i] ? here[j] : last_[i];
    }
    bytes = random.Get<uint8_t>(DropoutMask::Room(task.padded));
  }

  // The positions that those of the block from `position` on may see; and that may see
  // them.
  Span Seen(int64_t position) const {
    if (!is_in_order_) return {0, blocks_ * kBlock};
    const int64_t block = position / kBlock;
    Span span{position, position};
    if (last_[block] == 0) return span;
    const int32_t first = first_[block], last = last_[block];
    while (span.begin > 0 && last_[span.begin / kBlock - 1] == first)
      span.begin -= kBlock;
    do {
      span.end += kBlock;
    } while (span.end < blocks_ * kBlock && first_[span.end / kBlock] == last);
    return span;
  }

  // The blocks of what a query sees that hold its own sequence; none for padding.
  Span Own(int32_t own, Span seen) const {
    if (own <= 0) return {seen.begin, seen.begin};
    if (!is_in_order_) return seen;
    while (last_[seen.begin / kBlock] < own) seen.begin += kBlock;
    while (first_[seen.end / kBlock - 1] > own) seen.end -= kBlock;
    return seen;
  }

  int32_t* sequence;  // [padded]; 0 is padding.
  uint8_t* bytes;     // For dropout.

 private:
  int64_t blocks_;
  int32_t *first_, *last_;  // Sequences of each block; 0 if all of it is padding.
  bool is_in_order_ = true;
};

// What one query sees, and which of its probabilities dropout keeps. Padding sees nothing.
class View {
 public:
  template <typename T>
  View(const Head<T>& task, const Memory& memory, Span seen, int64_t position)
      : span(memory.Own(memory.sequence[position], seen)),
        sequence_(memory.sequence),
        own_(sequence_[position]) {
    if (!task.dropout.is_on() || span.steps() == 0) return;
    const int64_t count = Least(span.end, task.length) - span.begin;
    const int64_t length = task.call.places.length;
    bytes_ = task.dropout.Bytes(task.row,
                                (task.n * length + position) * length + span.begin,
                                count, memory.bytes) -
             span.begin;
    limit_ = task.dropout.limit();
  }

  Mask Seen(int64_t j) const { return EqualTo(sequence_ + j, own_); }

  Mask Kept(int64_t j) const {
    return bytes_ == nullptr ? All() : BytesBelow(bytes_ + j, limit_);
  }

  // 2^(score - offset) of 16 keys; 0 for those that the query does not see.
  V Exponential(int64_t j, const float* scores, V offset) const {
    return Where(Seen(j), PowerOfTwo(Read(scores + j) - offset));
  }

  // Zeros for what the block of 32 queries sees, but not this one.
  template <typename T>
  void FillOthers(Span seen, T* row) const {
    memset(row + seen.begin, 0, (span.begin - seen.begin) * sizeof(T));
    memset(row + span.end, 0, (seen.end - span.end) * sizeof(T));
  }

  const Span span;  // Where it sees anything.

 private:
  const int32_t* sequence_;
  int32_t own_;
  const uint8_t* bytes_ = nullptr;
  int limit_ = 0;
};

template <typename T>
class AttentionForward {
 public:
  static void Run(const Loop& loop, const Attention<T>& call, T* y, float* normalisers) {
    const int64_t length = call.places.length;
    const DropoutMask dropout(call.dropout, call.heads * length * length);
    ForEach(loop, call.places.rows * call.heads, length * length * 4,
            [&](int64_t number) {
              Compute(Head<T>(call, dropout, number), y, normalisers + number * length);
            });
  }

 private:
  static void Compute(const Head<T>& task, T* out, float* normalisers) {
    static thread_local Scratch halves, floats;
    const int64_t size = task.padded * task.head;
    T* query = halves.Get<T>(4 * size + kBlock * task.padded);
    T *plain = query + size, *keys = plain + size, *values = keys + size;
    T* probabilities = values + size;
    const int64_t stride = task.padded + kApart;
    float* scores = floats.Get<float>(kBlock * Most(stride, task.head));
    const Memory memory(task);
    const TileScope scope;
    task.Project(1, plain);
    PackRows(task, plain, keys);
    task.Project(2, plain);
    PackColumns(task, plain, values);
    task.Project(0, query);
    for (int64_t first = 0; first < task.length; first += kBlock) {
      const int64_t count = Least(kBlock, task.length - first);
      const Span span = memory.Seen(first);
      task.PrefetchNext(first);
      MultiplyRows(task, RowMajor<T>(query + first * task.head, task.head),
                   keys, span, scores, stride);
      float factors[kBlock] = {};
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t position = first + i;
        T* exponentials = probabilities + i * task.padded;
        if (memory.sequence[position] > 0) {
          const View view(task, memory, span, position);
          view.FillOthers(span, exponentials);
          factors[i] = task.dropout.scale() / Row(view, scores + i * stride,
                                                  exponentials, normalisers + position);
        } else {
          memset(exponentials + span.begin, 0, (span.end - span.begin) * sizeof(T));
          if (i < count) normalisers[position] = 0.0f;
        }
      }
      MultiplyColumns(task, RowMajor<T>(probabilities, task.padded), values,
                      span, scores);
      for (int64_t i = 0; i < count; ++i) {
        T* o = out + (task.begin + first + i) * task.width + task.n * task.head;
        const V factor = Set(factors[i]);
        for (int64_t d = 0; d < task.head; d += 16)
          Write(o + d, Read(scores + i * task.head + d) * factor);
      }
    }
    // Positions that the batch has and its rows of tokens do not.
    for (int64_t s = task.length; s < task.call.places.length; ++s) normalisers[s] = 0.0f;
  }

  // One query: scores -> exponentials, those that dropout keeps. Returns the sum of all;
  // the normaliser is the logarithm to base 2 of the sum of the powers of the scores.
  static float Row(const View& view, const float* scores, T* exponentials,
                   float* normaliser) {
    const Span span = view.span;
    const V lowest = Set(-3e38f);
    V most = lowest;
    for (int64_t j = span.begin; j < span.end; j += 16)
      most = Max(most, Where(view.Seen(j), Read(scores + j), lowest));
    const float largest = LargestOf(most);
    const V offset = Set(largest);
    V low_sums = Zero(), high_sums = Zero();
    for (int64_t j = span.begin; j < span.end; j += kBlock) {
      const V low = view.Exponential(j, scores, offset);
      const V high = view.Exponential(j + 16, scores, offset);
      low_sums = low_sums + low;
      high_sums = high_sums + high;
      Write(exponentials + j, Where(view.Kept(j), low), Where(view.Kept(j + 16), high));
    }
    const float total = SumOf(low_sums + high_sums);
    *normaliser = largest + log2f(total);
    return total;
  }
};

template <typename T>
class AttentionBackward {
 public:
  static void Run(const Loop& loop, const Attention<T>& call, const float* normalisers,
                  const T* dy, float* row_sums, T* dx, float* dbias) {
    const int64_t length = call.places.length, rows = call.places.rows;
    const int64_t width = 3 * call.heads * call.head;
    const DropoutMask dropout(call.dropout, call.heads * length * length);
    ForEach(loop, rows * call.heads, length * length * 10, [&](int64_t number) {
      const Head<T> task(call, dropout, number);
      Compute(task, normalisers + number * length, dy, dx, row_sums + task.row * width);
    });
    for (int64_t i = 0; i < width; ++i) dbias[i] = 0.0f;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < width; ++i) dbias[i] += row_sums[row * width + i];
    }
  }

 private:
  static void Compute(const Head<T>& task, const float* normalisers, const T* dy, T* dx,
                      float* dbias) {
    static thread_local Scratch halves, floats;
    const int64_t size = task.padded * task.head, square = task.padded * task.padded;
    T* query = halves.Get<T>(8 * size + 2 * square + kBlock * task.padded);
    T *plain = query + size, *upstream = plain + size;
    T *key_rows = upstream + size, *key_columns = key_rows + size;
    T *value_rows = key_columns + size, *query_columns = value_rows + size;
    T* upstream_columns = query_columns + size;
    T *dropped = upstream_columns + size, *dscores = dropped + square;
    T* turned = dscores + square;
    const int64_t stride = task.padded + kApart;
    const int64_t strip = kBlock * Most(stride, task.head);
    float* scores = floats.Get<float>(2 * strip);
    float* dprobabilities = scores + strip;
    const Memory memory(task);
    const TileScope scope;
    task.Project(1, plain);
    PackRows(task, plain, key_rows);
    PackColumns(task, plain, key_columns);
    task.Project(2, plain);
    PackRows(task, plain, value_rows);
    task.Project(0, query);
    PackColumns(task, query, query_columns);
    for (int64_t s = 0; s < task.length; ++s) {
      memcpy(upstream + s * task.head,
             dy + (task.begin + s) * task.width + task.n * task.head,
             task.head * sizeof(T));
    }
    memset(upstream + task.length * task.head, 0,
           (task.padded - task.length) * task.head * sizeof(T));
    PackColumns(task, upstream, upstream_columns);
    const int64_t columns[3] = {task.n * task.head, task.width + task.n * task.head,
                                2 * task.width + task.n * task.head};
    for (int part = 0; part < 3; ++part) {
      for (int64_t d = 0; d < task.head; ++d) dbias[columns[part] + d] = 0.0f;
    }
    for (int64_t first = 0; first < task.length; first += kBlock) {
      const Span span = memory.Seen(first);
      task.PrefetchNext(first);
      MultiplyRows(task, RowMajor<T>(query + first * task.head, task.head),
                   key_rows, span, scores, stride);
      MultiplyRows(task, RowMajor<T>(upstream + first * task.head, task.head),
                   value_rows, span, dprobabilities, stride);
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t position = first + i;
        const View view(task, memory, span, position);
        T* dscore = dscores + position * task.padded;
        T* probabilities = dropped + position * task.padded;
        view.FillOthers(span, dscore);
        view.FillOthers(span, probabilities);
        Row(view, task.dropout.scale(),
            position < task.length ? normalisers[position] : 0.0f, scores + i * stride,
            dprobabilities + i * stride, probabilities, dscore);
      }
      MultiplyColumns(task, RowMajor<T>(dscores + first * task.padded, task.padded),
                      key_columns, span, scores);
      WriteHead(task, first, columns[0], task.scale, scores, dx, dbias);
    }
    for (int64_t first = 0; first < task.length; first += kBlock) {
      const Span span = memory.Seen(first);
      Turn(task, dscores + first, span, turned);
      MultiplyColumns(task, Packed<T>(turned), query_columns, span, scores);
      WriteHead(task, first, columns[1], kLn2, scores, dx, dbias);
      Turn(task, dropped + first, span, turned);
      MultiplyColumns(task, Packed<T>(turned), upstream_columns, span, scores);
      WriteHead(task, first, columns[2], 1.0f, scores, dx, dbias);
    }
  }

  // One query: its probabilities after dropout, and the gradient of its scores.
  static void Row(const View& view, float dropout_scale, float normaliser, float* scores,
                  float* dprobabilities, T* dropped, T* dscores) {
    const Span span = view.span;
    const V scale = Set(dropout_scale), offset = Set(normaliser);
    V sums = Zero();
    for (int64_t j = span.begin; j < span.end; j += 16) {
      const V p = view.Exponential(j, scores, offset);
      const Mask kept = view.Kept(j);
      const V dp = Where(kept, Read(dprobabilities + j)) * scale;
      sums = Fma(dp, p, sums);
      Write(scores + j, p);
      Write(dprobabilities + j, dp);
      Write(dropped + j, Where(kept, p * scale));
    }
    const V total = Set(SumOf(sums));
    for (int64_t j = span.begin; j < span.end; j += 16)
      Write(dscores + j, Read(scores + j) * (Read(dprobabilities + j) - total));
  }

  // 32 columns of [padded, padded], the rows of `span`, as 32 rows of a left matrix.
  static void Turn(const Head<T>& task, const T* x, Span span, T* turned) {
    for (int64_t s = span.begin; s < span.end; s += kBlock)
      PackTransposed(x + s * task.padded, task.padded, turned + s * kBlock);
  }

  // Rows of one head's [S, D] times `factor` into dx, and their sum into dbias.
  static void WriteHead(const Head<T>& task, int64_t first, int64_t column, float factor,
                        const float* sums, T* dx, float* dbias) {
    for (int64_t i = 0; i < Least(kBlock, task.length - first); ++i) {
      T* o = dx + (task.begin + first + i) * 3 * task.width + column;
      for (int64_t d = 0; d < task.head; d += 16) {
        const V value = Read(sums + i * task.head + d) * Set(factor);
        Write(o + d, value);
        float* sum = dbias + column + d;
        Write(sum, Read(sum) + value);
      }
    }
  }
};

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_KERNELS_ATTENTION_H_
