// Self-attention of all heads on AMX, from the product of a layer's inputs with its three
// projections to the heads' outputs side by side, without the scores ever leaving the
// second cache; and its gradient, which makes them again. fused.py says what it computes.
// Blocks of scores between different sequences of a row, and padding, are left out; the
// padding behind a row's tokens need not be there (see Places).

#include <limits>

#include "parallel.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tiles.h"

#ifdef BERT_TF_TILES

namespace bert_tf {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;

// Numbers between rows of scores: a stride of 2 KB would leave but two sets of the cache.
constexpr int64_t kApart = 16;
constexpr float kLn2 = 0.69314718f;

// Sizes, inputs and dropout of one call. Scores here are those of fused.py over ln 2, so
// that their exponentials are powers of two.
struct Call {
  Call(const Tensor& x, const Tensor& bias, const Tensor& input_mask, const Tensor& key,
       int64_t heads, int64_t stream, int64_t kept)
      : batch(input_mask.dim_size(0)),
        heads(heads),
        head(bias.NumElements() / 3 / heads),
        scale(1.0f / std::sqrt(static_cast<float>(head))),
        x(Bfloats(x)),
        bias(Floats(bias)),
        sequences(Integers(input_mask)),
        places(input_mask, x.NumElements() / bias.NumElements()),
        dropout(key, stream, kept, heads * places.length() * places.length()) {}

  int64_t width() const { return heads * head; }

  int64_t batch, heads, head;
  float scale;
  const bfloat* x;           // [..., 3 H]
  const float* bias;         // [3 H]
  const int32_t* sequences;  // [B, S]
  Places places;
  DropoutMask dropout;
};

// One head of one row.
struct Task {
  Task(const Call& call, int64_t number)
      : call(call),
        number(number),
        row(number / call.heads),
        n(number % call.heads),
        begin(call.places.begin(row)),
        length(call.places.count(row)),
        padded(RoundUp(length)),
        head(call.head),
        width(call.width()) {}

  // Query, key or value (0, 1, 2), the query scaled -> [padded, D].
  void Project(int part, bfloat* out) const {
    const int64_t column = part * width + n * head;
    const float factor = part == 0 ? call.scale / kLn2 : 1.0f;
    const float* b = call.bias + column;
    for (int64_t s = 0; s < length; ++s) {
      const bfloat* a = call.x + (begin + s) * 3 * width + column;
      bfloat* o = out + s * head;
      for (int64_t i = 0; i < head; i += 16) {
        const __m512 sum = _mm512_add_ps(Widen(a + i), _mm512_loadu_ps(b + i));
        StoreRounded(o + i, _mm512_mul_ps(sum, _mm512_set1_ps(factor)));
      }
    }
    std::fill(out + length * head, out + padded * head, 0);
  }

  // Calls 32 places of the next one to the second cache. A row of x is longer than a
  // page, so that the processor does not foresee what is read next.
  void PrefetchNext(int64_t first) const {
    if (number + 1 < call.batch * call.heads) Task(call, number + 1).Prefetch(first);
  }

  void Prefetch(int64_t first) const {
    for (int64_t s = first; s < std::min(first + kBlock, length); ++s) {
      for (int part = 0; part < 3; ++part) {
        const bfloat* a = call.x + ((begin + s) * 3 + part) * width + n * head;
        for (int64_t i = 0; i < head; i += kBlock) _mm_prefetch(a + i, _MM_HINT_T1);
      }
    }
  }

  const Call& call;
  int64_t number, row, n;
  int64_t begin, length;  // The row's first token in x, and how many it has.
  int64_t padded;         // Its length in whole blocks.
  int64_t head, width;    // D, H
};

// [padded, D] -> panels whose columns are its rows.
void PackRows(const Task& task, const bfloat* x, bfloat* panels) {
  for (int64_t s = 0; s < task.padded; s += kBlock) {
    for (int64_t d = 0; d < task.head; d += kBlock) {
      PackStepOfTransposed(x + s * task.head + d, task.head, kBlock, kBlock, panels);
      panels += kStep;
    }
  }
}

// [padded, D] -> panels whose columns are its columns.
void PackColumns(const Task& task, const bfloat* x, bfloat* panels) {
  for (int64_t d = 0; d < task.head; d += kBlock) {
    for (int64_t s = 0; s < task.padded; s += kBlock) {
      PackStep(x + s * task.head + d, task.head, kBlock, kBlock, panels);
      panels += kStep;
    }
  }
}

// Places of a row, in whole blocks of 32.
struct Span {
  int64_t begin, end;
  int64_t steps() const { return (end - begin) / kBlock; }
};

// 32 rows times `steps` steps of a panel -> [32, 32] of float32 `sums`.
inline void MultiplyBlock(const Rows& left, const bfloat* panel, int64_t steps,
                          float* sums, int64_t stride) {
  ZeroTiles();
  MultiplyAdd(left, panel, steps);
  StoreTiles(sums, stride);
}

// 32 rows, as deep as a head, times the panels of the rows of `span`: columns of `sums`.
inline void MultiplyRows(const Task& task, const Rows& left, const bfloat* panels,
                         Span span, float* sums, int64_t stride) {
  for (int64_t j = span.begin; j < span.end; j += kBlock)
    MultiplyBlock(left, panels + j * task.head, task.head / kBlock, sums + j, stride);
}

// 32 rows, whose depth is the places of `span`, times panels -> [32, D].
inline void MultiplyColumns(const Task& task, Rows left, const bfloat* panels, Span span,
                            float* sums) {
  left.data += span.begin / kBlock * left.step;
  for (int64_t d = 0; d < task.head; d += kBlock)
    MultiplyBlock(left, panels + d * task.padded + span.begin * kBlock, span.steps(),
                  sums + d, task.head);
}

// What a head needs besides matrices: which sequence each place belongs to, and which
// blocks of 32 places may see each other.
class Memory {
 public:
  explicit Memory(const Task& task) : blocks_(task.padded / kBlock) {
    static thread_local Scratch numbers, random;
    sequence = numbers.Get<int32_t>(task.padded + 2 * blocks_);
    first_ = sequence + task.padded;
    last_ = first_ + blocks_;
    std::copy_n(task.call.sequences + task.row * task.call.places.length(), task.length,
                sequence);
    std::fill(sequence + task.length, sequence + task.padded, 0);
    // Sequences that stand in order, with padding behind: any other row is one block.
    int32_t before = 1;
    for (int64_t i = 0; i < task.padded; ++i) {
      if (sequence[i] > 0 && sequence[i] < before) is_in_order_ = false;
      before = sequence[i] > 0 ? sequence[i] : std::numeric_limits<int32_t>::max();
    }
    for (int64_t i = 0; i < blocks_; ++i) {
      const int32_t* here = sequence + i * kBlock;
      first_[i] = here[0];
      last_[i] = *std::max_element(here, here + kBlock);
    }
    bytes = random.Get<uint8_t>(task.padded + 16 * (Philox::kBlocksAtOnce + 1));
  }

  // The places that those of the block from `place` on may see; and that may see them.
  Span Seen(int64_t place) const {
    if (!is_in_order_) return {0, blocks_ * kBlock};
    const int64_t block = place / kBlock;
    Span span{place, place};
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
  View(const Task& task, const Memory& memory, Span seen, int64_t place)
      : span(memory.Own(memory.sequence[place], seen)),
        sequence_(memory.sequence),
        own_(_mm512_set1_epi32(sequence_[place])) {
    const DropoutMask& dropout = task.call.dropout;
    if (!dropout.is_on() || span.steps() == 0) return;
    const int64_t count = std::min(span.end, task.length) - span.begin;
    const int64_t length = task.call.places.length();
    bytes_ = dropout.Bytes(task.row, (task.n * length + place) * length + span.begin,
                           count, memory.bytes) -
             span.begin;
    limit_ = _mm_set1_epi8(static_cast<char>(dropout.limit()));
  }

  __mmask16 Seen(int64_t j) const {
    return _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(sequence_ + j), own_);
  }

  __mmask16 Kept(int64_t j) const {
    if (bytes_ == nullptr) return 0xffff;
    const void* here = bytes_ + j;
    return _mm_cmplt_epu8_mask(_mm_loadu_si128(static_cast<const __m128i*>(here)),
                               limit_);
  }

  // 2^(score - offset) of 16 keys; 0 for those that the query does not see.
  __m512 Exponential(int64_t j, const float* scores, __m512 offset) const {
    return _mm512_maskz_mov_ps(
        Seen(j), PowerOfTwo(_mm512_sub_ps(_mm512_loadu_ps(scores + j), offset)));
  }

  // Zeros for what the block of 32 queries sees, but not this one.
  void FillOthers(Span seen, bfloat* row) const {
    std::fill(row + seen.begin, row + span.begin, 0);
    std::fill(row + span.end, row + seen.end, 0);
  }

  const Span span;  // Where it sees anything.

 private:
  const int32_t* sequence_;
  __m512i own_;
  const uint8_t* bytes_ = nullptr;
  __m128i limit_;
};

// Checks what both operations read.
absl::Status Check(const Tensor& x, const Tensor& bias, const Tensor& input_mask,
                   const Tensor& key, int64_t heads) {
  int64_t tokens, width;
  TF_RETURN_IF_ERROR(RequireRows(x, "x", &tokens, &width));
  if (heads > width || width % (3 * heads * kBlock) != 0)
    return InvalidArgument("x must be [..., 3 H], H being ", heads,
                           " heads of 32 n, not ", x.shape().DebugString());
  TF_RETURN_IF_ERROR(RequireShape(bias, "bias", {width}));
  TF_RETURN_IF_ERROR(Places(input_mask, tokens).Check());
  TF_RETURN_IF_ERROR(RequireKey(key, input_mask));
  // Numbers of places are squared, and up to 16 bytes or cycles are spent on each.
  const int64_t length = input_mask.dim_size(1);
  return RequireProduct("input_mask", {16, heads, length + kBlock, length + kBlock});
}

// What the operation and its gradient share: the attributes, and a call that is checked.
class AttentionKernel : public Operation {
 public:
  explicit AttentionKernel(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
    OP_REQUIRES_OK(context, GetDropout(context, &stream_, &kept_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    const Tensor &input_mask = context->input(2), &key = context->input(3);
    OP_REQUIRES_OK(context, Check(x, bias, input_mask, key, heads_));
    Attend(context, Call(x, bias, input_mask, key, heads_, stream_, kept_));
  }

  virtual void Attend(OpKernelContext* context, const Call& call) = 0;

  int64_t heads_, stream_, kept_;
};

class AttentionOp : public AttentionKernel {
 public:
  using AttentionKernel::AttentionKernel;

 private:
  void Attend(OpKernelContext* context, const Call& call) override {
    Tensor *y, *normalisers;
    TensorShape shape = context->input(0).shape();
    shape.set_dim(shape.dims() - 1, call.width());
    const int64_t length = call.places.length();
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &y));
    OP_REQUIRES_OK(context, context->allocate_output(
                                1, TensorShape({call.batch, call.heads, length}),
                                &normalisers));
    bfloat* out = Bfloats(y);
    float* normaliser = Floats(normalisers);
    if (context->input(0).NumElements() == 0) {
      std::fill_n(normaliser, normalisers->NumElements(), 0.0f);
      return;
    }
    ForEach(context, call.batch * call.heads, length * length * 4, [&](int64_t number) {
      Head(Task(call, number), out, normaliser + number * length);
    });
  }

  static void Head(const Task& task, bfloat* out, float* normalisers) {
    static thread_local Scratch bfloats, floats;
    const int64_t size = task.padded * task.head;
    bfloat* query = bfloats.Get<bfloat>(4 * size + kBlock * task.padded);
    bfloat *plain = query + size, *keys = plain + size, *values = keys + size;
    bfloat* probabilities = values + size;
    const int64_t stride = task.padded + kApart;
    float* scores = floats.Get<float>(kBlock * std::max(stride, task.head));
    const Memory memory(task);
    const TileScope scope;
    task.Project(1, plain);
    PackRows(task, plain, keys);
    task.Project(2, plain);
    PackColumns(task, plain, values);
    task.Project(0, query);
    for (int64_t first = 0; first < task.length; first += kBlock) {
      const int64_t count = std::min(kBlock, task.length - first);
      const Span span = memory.Seen(first);
      task.PrefetchNext(first);
      MultiplyRows(task, RowMajor(query + first * task.head, task.head), keys, span,
                   scores, stride);
      float factors[kBlock] = {};
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t place = first + i;
        bfloat* exponentials = probabilities + i * task.padded;
        if (memory.sequence[place] > 0) {
          const View view(task, memory, span, place);
          view.FillOthers(span, exponentials);
          factors[i] =
              task.call.dropout.scale() /
              Row(view, scores + i * stride, exponentials, normalisers + place);
        } else {
          std::fill(exponentials + span.begin, exponentials + span.end, 0);
          if (i < count) normalisers[place] = 0.0f;
        }
      }
      MultiplyColumns(task, RowMajor(probabilities, task.padded), values, span, scores);
      for (int64_t i = 0; i < count; ++i) {
        bfloat* o = out + (task.begin + first + i) * task.width + task.n * task.head;
        const __m512 factor = _mm512_set1_ps(factors[i]);
        for (int64_t d = 0; d < task.head; d += 16)
          StoreRounded(
              o + d, _mm512_mul_ps(_mm512_loadu_ps(scores + i * task.head + d), factor));
      }
    }
  }

  // One query: scores -> exponentials, those that dropout keeps. Returns the sum of all;
  // the normaliser is the logarithm to base 2 of the sum of the powers of the scores.
  static float Row(const View& view, const float* scores, bfloat* exponentials,
                   float* normaliser) {
    const Span span = view.span;
    const __m512 lowest = _mm512_set1_ps(-3e38f);
    __m512 most = lowest;
    for (int64_t j = span.begin; j < span.end; j += 16)
      most = _mm512_max_ps(most, _mm512_mask_loadu_ps(lowest, view.Seen(j), scores + j));
    const float largest = _mm512_reduce_max_ps(most);
    const __m512 offset = _mm512_set1_ps(largest);
    __m512 low_sums = _mm512_setzero_ps(), high_sums = low_sums;
    for (int64_t j = span.begin; j < span.end; j += kBlock) {
      const __m512 low = view.Exponential(j, scores, offset);
      const __m512 high = view.Exponential(j + 16, scores, offset);
      low_sums = _mm512_add_ps(low_sums, low);
      high_sums = _mm512_add_ps(high_sums, high);
      _mm512_storeu_si512(exponentials + j,
                          Round(_mm512_maskz_mov_ps(view.Kept(j), low),
                                _mm512_maskz_mov_ps(view.Kept(j + 16), high)));
    }
    const float total = _mm512_reduce_add_ps(_mm512_add_ps(low_sums, high_sums));
    *normaliser = largest + std::log2(total);
    return total;
  }
};

class AttentionGradOp : public AttentionKernel {
 public:
  using AttentionKernel::AttentionKernel;

 private:
  void Attend(OpKernelContext* context, const Call& call) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    const int64_t length = call.places.length();
    TensorShape shape = x.shape();
    shape.set_dim(shape.dims() - 1, call.width());
    OP_REQUIRES_OK(context,
                   FirstError({RequireShape(context->input(4), "normalisers",
                                            {call.batch, call.heads, length}),
                               RequireShape(context->input(5), "dy", shape.dim_sizes())}));
    const float* normalisers = Floats(context->input(4));
    const bfloat* dy = Bfloats(context->input(5));
    Tensor *dx, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    const int64_t width = bias.NumElements();
    float* total = Floats(dbias);
    std::fill(total, total + width, 0.0f);
    if (x.NumElements() == 0) return;
    std::vector<float> sums(call.batch * width);
    ForEach(context, call.batch * call.heads, length * length * 10,
            [&](int64_t number) {
              const Task task(call, number);
              Head(task, normalisers + number * length, dy, Bfloats(dx),
                   sums.data() + task.row * width);
            });
    for (int64_t row = 0; row < call.batch; ++row) {
      for (int64_t i = 0; i < width; ++i) total[i] += sums[row * width + i];
    }
  }

  static void Head(const Task& task, const float* normalisers, const bfloat* dy,
                   bfloat* dx, float* dbias) {
    static thread_local Scratch bfloats, floats;
    const int64_t size = task.padded * task.head, square = task.padded * task.padded;
    bfloat* query = bfloats.Get<bfloat>(8 * size + 2 * square + kBlock * task.padded);
    bfloat *plain = query + size, *upstream = plain + size;
    bfloat *key_rows = upstream + size, *key_columns = key_rows + size;
    bfloat *value_rows = key_columns + size, *query_columns = value_rows + size;
    bfloat* upstream_columns = query_columns + size;
    bfloat *dropped = upstream_columns + size, *dscores = dropped + square;
    bfloat* turned = dscores + square;
    const int64_t stride = task.padded + kApart;
    const int64_t strip = kBlock * std::max(stride, task.head);
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
      std::memcpy(upstream + s * task.head,
                  dy + (task.begin + s) * task.width + task.n * task.head,
                  task.head * sizeof(bfloat));
    }
    std::fill(upstream + task.length * task.head, upstream + size, 0);
    PackColumns(task, upstream, upstream_columns);
    const int64_t columns[3] = {task.n * task.head, task.width + task.n * task.head,
                                2 * task.width + task.n * task.head};
    for (int part = 0; part < 3; ++part)
      std::fill_n(dbias + columns[part], task.head, 0.0f);
    for (int64_t first = 0; first < task.length; first += kBlock) {
      const Span span = memory.Seen(first);
      task.PrefetchNext(first);
      MultiplyRows(task, RowMajor(query + first * task.head, task.head), key_rows, span,
                   scores, stride);
      MultiplyRows(task, RowMajor(upstream + first * task.head, task.head), value_rows,
                   span, dprobabilities, stride);
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t place = first + i;
        const View view(task, memory, span, place);
        bfloat* dscore = dscores + place * task.padded;
        bfloat* probabilities = dropped + place * task.padded;
        view.FillOthers(span, dscore);
        view.FillOthers(span, probabilities);
        Row(view, task.call.dropout.scale(),
            place < task.length ? normalisers[place] : 0.0f, scores + i * stride,
            dprobabilities + i * stride, probabilities, dscore);
      }
      MultiplyColumns(task, RowMajor(dscores + first * task.padded, task.padded),
                      key_columns, span, scores);
      Write(task, first, columns[0], task.call.scale, scores, dx, dbias);
    }
    for (int64_t first = 0; first < task.length; first += kBlock) {
      const Span span = memory.Seen(first);
      Turn(task, dscores + first, span, turned);
      MultiplyColumns(task, Packed(turned), query_columns, span, scores);
      Write(task, first, columns[1], kLn2, scores, dx, dbias);
      Turn(task, dropped + first, span, turned);
      MultiplyColumns(task, Packed(turned), upstream_columns, span, scores);
      Write(task, first, columns[2], 1.0f, scores, dx, dbias);
    }
  }

  // One query: its probabilities after dropout, and the gradient of its scores.
  static void Row(const View& view, float dropout_scale, float normaliser, float* scores,
                  float* dprobabilities, bfloat* dropped, bfloat* dscores) {
    const Span span = view.span;
    const __m512 scale = _mm512_set1_ps(dropout_scale);
    const __m512 offset = _mm512_set1_ps(normaliser);
    __m512 sums = _mm512_setzero_ps();
    for (int64_t j = span.begin; j < span.end; j += 16) {
      const __m512 p = view.Exponential(j, scores, offset);
      const __mmask16 kept = view.Kept(j);
      const __m512 dp =
          _mm512_mul_ps(_mm512_maskz_loadu_ps(kept, dprobabilities + j), scale);
      sums = _mm512_fmadd_ps(dp, p, sums);
      _mm512_storeu_ps(scores + j, p);
      _mm512_storeu_ps(dprobabilities + j, dp);
      StoreRounded(dropped + j, _mm512_maskz_mul_ps(kept, p, scale));
    }
    const __m512 total = _mm512_set1_ps(_mm512_reduce_add_ps(sums));
    for (int64_t j = span.begin; j < span.end; j += 16) {
      const __m512 dp = _mm512_loadu_ps(dprobabilities + j);
      const __m512 p = _mm512_loadu_ps(scores + j);
      StoreRounded(dscores + j, _mm512_mul_ps(p, _mm512_sub_ps(dp, total)));
    }
  }

  // 32 columns of [padded, padded], the rows of `span`, as 32 rows of a left matrix.
  static void Turn(const Task& task, const bfloat* x, Span span, bfloat* turned) {
    for (int64_t s = span.begin; s < span.end; s += kBlock)
      PackTransposed(x + s * task.padded, task.padded, kBlock, kBlock,
                     turned + s * kBlock);
  }

  // Rows of one head's [S, D] times `factor` into dx, and their sum into dbias.
  static void Write(const Task& task, int64_t first, int64_t column,
                    float factor, const float* sums, bfloat* dx, float* dbias) {
    for (int64_t i = 0; i < std::min(kBlock, task.length - first); ++i) {
      bfloat* o = dx + (task.begin + first + i) * 3 * task.width + column;
      for (int64_t d = 0; d < task.head; d += 16) {
        const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(sums + i * task.head + d),
                                           _mm512_set1_ps(factor));
        StoreRounded(o + d, value);
        float* sum = dbias + column + d;
        _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), value));
      }
    }
  }
};

// [..., H] for x [..., 3 H].
absl::Status InferOutput(InferenceContext* c, ShapeHandle* y) {
  ShapeHandle x;
  DimensionHandle width;
  TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
  TF_RETURN_IF_ERROR(InferMaskAndKey(c, 2, 3));
  TF_RETURN_IF_ERROR(c->Divide(c->Dim(x, -1), 3, true, &width));
  return c->ReplaceDim(x, -1, width, y);
}

REGISTER_OP("BertAttention")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Input("input_mask: int32")
    .Input("key: int32")
    .Output("y: bfloat16")
    .Output("normalisers: float")
    .Attr("heads: int >= 1")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle y;
      TF_RETURN_IF_ERROR(InferOutput(c, &y));
      c->set_output(0, y);
      c->set_output(1, c->UnknownShapeOfRank(3));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertAttention").Device(DEVICE_CPU), AttentionOp);

REGISTER_OP("BertAttentionGrad")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Input("input_mask: int32")
    .Input("key: int32")
    .Input("normalisers: float")
    .Input("dy: bfloat16")
    .Output("dx: bfloat16")
    .Output("dbias: float")
    .Attr("heads: int >= 1")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle y, normalisers;
      TF_RETURN_IF_ERROR(InferOutput(c, &y));
      TF_RETURN_IF_ERROR(InferSame(c, 5, &y));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(4), 3, &normalisers));
      for (int i = 0; i < 2; ++i) c->set_output(i, c->input(i));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertAttentionGrad").Device(DEVICE_CPU), AttentionGradOp);

}  // namespace bert_tf

#endif  // BERT_TF_TILES
