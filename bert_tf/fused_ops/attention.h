// Self-attention of all heads, from the projected queries, keys and values to the heads'
// outputs side by side. Scores never leave the second-level cache; the gradient recomputes
// them. `attention` in bert_tf/modeling/backends/fused_operations.py defines the result.
// Blocks of scores between different sequences of a row, and of padding, are skipped; the
// padding after a row's tokens may be left out of the inputs (see Positions).

#ifndef BERT_TF_FUSED_OPS_ATTENTION_H_
#define BERT_TF_FUSED_OPS_ATTENTION_H_

#include <math.h>

#include "functions.h"
#include "panels.h"

namespace bert_tf {
namespace BERT_TF_ISA {

// Added to the stride of scores: with 2 KB, all rows would share two sets of the cache.
constexpr int64_t kApart = 16;
constexpr float kLn2 = 0.69314718f;

// One head of one row. Scores are divided by ln 2 here, so that their exponentials are
// powers of two.
template <typename T>
struct Head {
  Head(const Attention<T>& call, const DropoutMask& dropout, int64_t number)
      : call(call),
        dropout(dropout),
        number(number),
        row(number / call.heads),
        n(number % call.heads),
        begin(call.positions.begins[row]),
        length(call.positions.begins[row + 1] - begin),
        padded(RoundUp(length)),
        first_query(call.queries.begins[row]),
        num_queries(call.queries.begins[row + 1] - first_query),
        padded_queries(RoundUp(num_queries)),
        head(call.head),
        width(call.heads * call.head),
        scale(1.0f / sqrtf(static_cast<float>(head))) {}

  // The position of query i in its row.
  int64_t Position(int64_t i) const {
    return call.queries.offsets == nullptr ? i : call.queries.offsets[first_query + i];
  }

  // The queries, scaled -> [padded_queries, D].
  void ProjectQueries(T* out) const {
    for (int64_t i = 0; i < num_queries; ++i)
      ProjectToken(Position(i), 0, scale / kLn2, out + i * head);
    memset(out + num_queries * head, 0,
           (padded_queries - num_queries) * head * sizeof(T));
  }

  // The keys or the values (1, 2) -> [padded, D].
  void Project(int part, T* out) const {
    for (int64_t s = 0; s < length; ++s) ProjectToken(s, part, 1.0f, out + s * head);
    memset(out + length * head, 0, (padded - length) * head * sizeof(T));
  }

  BERT_TF_INLINE void ProjectToken(int64_t position, int part, float factor,
                                   T* out) const {
    const int64_t column = part * width + n * head;
    const T* a = call.x + (begin + position) * 3 * width + column;
    const float* b = call.bias + column;
    for (int64_t i = 0; i < head; i += 16)
      Write(out + i, (Read(a + i) + Read(b + i)) * Set(factor));
  }

  // Prefetches 32 positions of the next head into the second-level cache. The rows of x
  // are longer than a page, and the hardware prefetcher does not cross pages.
  void PrefetchNext(int64_t first) const {
    if (number + 1 < call.positions.rows * call.heads)
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
  int64_t begin, length;  // The row's first token in x, and its number of tokens.
  int64_t padded;         // The length rounded up to whole blocks.
  int64_t first_query, num_queries, padded_queries;  // The same for its queries.
  int64_t head, width;    // D, H
  float scale;
};

// [rows, D] -> panels whose columns are the rows.
template <typename T>
void PackRows(const T* x, int64_t rows, int64_t head, T* panels) {
  for (int64_t s = 0; s < rows; s += kBlock) {
    for (int64_t d = 0; d < head; d += kBlock, panels += kStep)
      PackStepOfTransposed(x + s * head + d, head, panels);
  }
}

// [rows, D] -> panels whose columns are the columns.
template <typename T>
void PackColumns(const T* x, int64_t rows, int64_t head, T* panels) {
  for (int64_t d = 0; d < head; d += kBlock) {
    for (int64_t s = 0; s < rows; s += kBlock, panels += kStep)
      PackStep(x + s * head + d, head, panels);
  }
}

// A range of keys (positions in the row), or of queries, in whole blocks of 32.
struct Span {
  int64_t begin, end;
  int64_t steps() const { return (end - begin) / kBlock; }
};

// 32 rows of depth D times the panels of the rows in `span` -> columns of `sums`.
template <typename T>
inline void MultiplyRows(const Head<T>& task, const Rows<T>& left, const T* panels,
                         Span span, float* sums, int64_t stride) {
  for (int64_t j = span.begin; j < span.end; j += kBlock)
    Multiply(left, panels + j * task.head, task.head / kBlock, sums + j, stride, false);
}

// 32 rows with depth `span` times panels with `depth` rows -> [32, D].
template <typename T>
inline void MultiplyColumns(const Head<T>& task, Rows<T> left, const T* panels,
                            int64_t depth, Span span, float* sums) {
  left.data += span.begin / kBlock * left.step;
  for (int64_t d = 0; d < task.head; d += kBlock)
    Multiply(left, panels + d * depth + span.begin * kBlock, span.steps(), sums + d,
             task.head, false);
}

// Per row: the sequence of each position, and the blocks of 32 positions whose scores are
// needed.
class Memory {
 public:
  template <typename T>
  explicit Memory(const Head<T>& task)
      : blocks_(task.padded / kBlock), query_blocks_(task.padded_queries / kBlock) {
    static thread_local Scratch numbers, random, spans;
    sequence = numbers.Get<int32_t>(task.padded + 1 + 2 * blocks_);
    first_ = sequence + task.padded + 1;
    last_ = first_ + blocks_;
    const int64_t row_length = task.call.positions.length;
    memcpy(sequence, task.call.sequences + task.row * row_length,
           task.length * sizeof(int32_t));
    for (int64_t i = task.length; i <= task.padded; ++i) sequence[i] = 0;
    // Blocks are skipped only where sequences are in order and padding comes last.
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
    seen_ = spans.Get<Span>(query_blocks_);
    for (int64_t i = 0; i < query_blocks_; ++i) {
      const int64_t last = Least((i + 1) * kBlock, task.num_queries) - 1;
      const Span from = SeenBy(task.Position(i * kBlock) / kBlock * kBlock);
      const Span to = SeenBy(task.Position(last) / kBlock * kBlock);
      // Padding attends to nothing.
      seen_[i] = from.steps() == 0 ? to : to.steps() == 0 ? from : Span{from.begin, to.end};
    }
  }

  // The keys that the 32 queries from `first` on may attend to.
  Span Keys(int64_t first) const { return seen_[first / kBlock]; }

  // The queries that may attend to the 32 keys from position `first` on.
  Span Queries(int64_t first) const {
    Span span{0, 0};
    for (int64_t i = 0; i < query_blocks_; ++i) {
      if (first < seen_[i].begin || first >= seen_[i].end) continue;
      if (span.end == 0) span.begin = i * kBlock;
      span.end = (i + 1) * kBlock;
    }
    return span;
  }

  // The blocks with a query's own sequence; none for padding.
  Span Own(int32_t own, Span seen) const {
    if (own <= 0) return {seen.begin, seen.begin};
    if (!is_in_order_) return seen;
    while (last_[seen.begin / kBlock] < own) seen.begin += kBlock;
    while (first_[seen.end / kBlock - 1] > own) seen.end -= kBlock;
    return seen;
  }

  int32_t* sequence;  // [padded + 1]; 0 is padding.
  uint8_t* bytes;     // For dropout.

 private:
  // The positions that the block from `position` on may attend to.
  Span SeenBy(int64_t position) const {
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

  int64_t blocks_, query_blocks_;
  int32_t *first_, *last_;  // Of the sequences in each block; 0 if it is all padding.
  Span* seen_;              // The keys of each block of queries.
  bool is_in_order_ = true;
};

// The keys of one query, and the probabilities that dropout keeps.
class View {
 public:
  template <typename T>
  View(const Head<T>& task, const Memory& memory, Span seen, int64_t position)
      : span(memory.Own(memory.sequence[position], seen)),
        sequence_(memory.sequence),
        own_(sequence_[position]) {
    if (!task.dropout.is_on() || span.steps() == 0) return;
    const int64_t count = Least(span.end, task.length) - span.begin;
    const int64_t length = task.call.positions.length;
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

  // 2^(score - offset) of 16 keys; 0 for those of other sequences.
  V Exponential(int64_t j, const float* scores, V offset) const {
    return Where(Seen(j), PowerOfTwo(Read(scores + j) - offset));
  }

  // Zeros for keys of the block of 32 queries that are not this query's.
  template <typename T>
  void FillOthers(Span seen, T* row) const {
    memset(row + seen.begin, 0, (span.begin - seen.begin) * sizeof(T));
    memset(row + span.end, 0, (seen.end - span.end) * sizeof(T));
  }

  const Span span;  // The blocks with keys of the query.

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
    const int64_t length = call.positions.length;
    const DropoutMask dropout(call.dropout, call.heads * length * length);
    ForEach(loop, call.positions.rows * call.heads, length * length * 4,
            [&](int64_t number) {
              Compute(Head<T>(call, dropout, number), y, normalisers + number * length);
            });
  }

 private:
  static void Compute(const Head<T>& task, T* out, float* normalisers) {
    // Positions without a query get 0.
    for (int64_t s = 0; s < task.call.positions.length; ++s) normalisers[s] = 0.0f;
    if (task.num_queries == 0) return;
    static thread_local Scratch halves, floats;
    const int64_t size = task.padded * task.head;
    T* keys = halves.Get<T>(3 * size + task.padded_queries * task.head +
                            kBlock * task.padded);
    T *values = keys + size, *plain = values + size, *query = plain + size;
    T* probabilities = query + task.padded_queries * task.head;
    const int64_t stride = task.padded + kApart;
    float* scores = floats.Get<float>(kBlock * Most(stride, task.head));
    const Memory memory(task);
    const TileScope scope;
    task.Project(1, plain);
    PackRows(plain, task.padded, task.head, keys);
    task.Project(2, plain);
    PackColumns(plain, task.padded, task.head, values);
    task.ProjectQueries(query);
    for (int64_t first = 0; first < task.num_queries; first += kBlock) {
      const int64_t count = Least(kBlock, task.num_queries - first);
      const Span span = memory.Keys(first);
      task.PrefetchNext(first);
      MultiplyRows(task, RowMajor<T>(query + first * task.head, task.head),
                   keys, span, scores, stride);
      float factors[kBlock] = {};
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t position = i < count ? task.Position(first + i) : task.padded;
        T* exponentials = probabilities + i * task.padded;
        if (memory.sequence[position] > 0) {
          const View view(task, memory, span, position);
          view.FillOthers(span, exponentials);
          factors[i] = task.dropout.scale() / Row(view, scores + i * stride,
                                                  exponentials, normalisers + position);
        } else {
          memset(exponentials + span.begin, 0, (span.end - span.begin) * sizeof(T));
        }
      }
      MultiplyColumns(task, RowMajor<T>(probabilities, task.padded), values, task.padded,
                      span, scores);
      for (int64_t i = 0; i < count; ++i) {
        T* o = out + (task.first_query + first + i) * task.width + task.n * task.head;
        const V factor = Set(factors[i]);
        for (int64_t d = 0; d < task.head; d += 16)
          Write(o + d, Read(scores + i * task.head + d) * factor);
      }
    }
  }

  // One query: scores -> exponentials, 0 where dropped. Returns the sum of all of them;
  // the normaliser is log2(sum(2^score)).
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
    const int64_t length = call.positions.length, rows = call.positions.rows;
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
    const int64_t columns[3] = {task.n * task.head, task.width + task.n * task.head,
                                2 * task.width + task.n * task.head};
    for (int part = 0; part < 3; ++part) {
      for (int64_t d = 0; d < task.head; ++d) dbias[columns[part] + d] = 0.0f;
    }
    // Positions without a query have no gradient.
    for (int64_t s = 0; task.num_queries < task.length && s < task.length; ++s)
      memset(dx + (task.begin + s) * 3 * task.width + columns[0], 0,
             task.head * sizeof(T));
    static thread_local Scratch halves, floats;
    const int64_t size = task.padded * task.head;
    const int64_t query_size = task.padded_queries * task.head;
    const int64_t square = task.padded_queries * task.padded;
    T* plain = halves.Get<T>(4 * size + 4 * query_size + 2 * square +
                             kBlock * task.padded_queries);
    T *key_rows = plain + size, *key_columns = key_rows + size;
    T *value_rows = key_columns + size, *query = value_rows + size;
    T *query_columns = query + query_size, *upstream = query_columns + query_size;
    T* upstream_columns = upstream + query_size;
    T *dropped = upstream_columns + query_size, *dscores = dropped + square;
    T* turned = dscores + square;
    const int64_t stride = task.padded + kApart;
    const int64_t strip = kBlock * Most(stride, task.head);
    float* scores = floats.Get<float>(2 * strip);
    float* dprobabilities = scores + strip;
    const Memory memory(task);
    const TileScope scope;
    task.Project(1, plain);
    PackRows(plain, task.padded, task.head, key_rows);
    PackColumns(plain, task.padded, task.head, key_columns);
    task.Project(2, plain);
    PackRows(plain, task.padded, task.head, value_rows);
    task.ProjectQueries(query);
    PackColumns(query, task.padded_queries, task.head, query_columns);
    for (int64_t i = 0; i < task.num_queries; ++i) {
      memcpy(upstream + i * task.head,
             dy + (task.first_query + i) * task.width + task.n * task.head,
             task.head * sizeof(T));
    }
    memset(upstream + task.num_queries * task.head, 0,
           (task.padded_queries - task.num_queries) * task.head * sizeof(T));
    PackColumns(upstream, task.padded_queries, task.head, upstream_columns);
    for (int64_t first = 0; first < task.num_queries; first += kBlock) {
      const int64_t count = Least(kBlock, task.num_queries - first);
      const Span span = memory.Keys(first);
      task.PrefetchNext(first);
      MultiplyRows(task, RowMajor<T>(query + first * task.head, task.head),
                   key_rows, span, scores, stride);
      MultiplyRows(task, RowMajor<T>(upstream + first * task.head, task.head),
                   value_rows, span, dprobabilities, stride);
      int64_t positions[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) {
        positions[i] = i < count ? task.Position(first + i) : task.padded;
        const View view(task, memory, span, positions[i]);
        T* dscore = dscores + (first + i) * task.padded;
        T* probabilities = dropped + (first + i) * task.padded;
        view.FillOthers(span, dscore);
        view.FillOthers(span, probabilities);
        Row(view, task.dropout.scale(), i < count ? normalisers[positions[i]] : 0.0f,
            scores + i * stride, dprobabilities + i * stride, probabilities, dscore);
      }
      MultiplyColumns(task, RowMajor<T>(dscores + first * task.padded, task.padded),
                      key_columns, task.padded, span, scores);
      for (int64_t i = 0; i < count; ++i)
        WriteHead(task, positions[i], columns[0], task.scale, scores + i * task.head, dx,
                  dbias);
    }
    for (int64_t first = 0; first < task.length; first += kBlock) {
      const Span span = memory.Queries(first);
      const int64_t end = Least(first + kBlock, task.length);
      Turn(task, dscores + first, span, turned);
      MultiplyColumns(task, Packed<T>(turned), query_columns, task.padded_queries, span,
                      scores);
      for (int64_t s = first; s < end; ++s)
        WriteHead(task, s, columns[1], kLn2, scores + (s - first) * task.head, dx, dbias);
      Turn(task, dropped + first, span, turned);
      MultiplyColumns(task, Packed<T>(turned), upstream_columns, task.padded_queries,
                      span, scores);
      for (int64_t s = first; s < end; ++s)
        WriteHead(task, s, columns[2], 1.0f, scores + (s - first) * task.head, dx, dbias);
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

  // Transposes 32 columns of [queries, keys], rows `span`, into a left matrix of 32 rows.
  static void Turn(const Head<T>& task, const T* x, Span span, T* turned) {
    for (int64_t s = span.begin; s < span.end; s += kBlock)
      PackTransposed(x + s * task.padded, task.padded, turned + s * kBlock);
  }

  // Writes the gradient of one position, [D], times `factor` to dx, adds it to dbias.
  static void WriteHead(const Head<T>& task, int64_t position, int64_t column,
                        float factor, const float* x, T* dx, float* dbias) {
    T* o = dx + (task.begin + position) * 3 * task.width + column;
    for (int64_t d = 0; d < task.head; d += 16) {
      const V value = Read(x + d) * Set(factor);
      Write(o + d, value);
      float* sum = dbias + column + d;
      Write(sum, Read(sum) + value);
    }
  }
};

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_ATTENTION_H_
