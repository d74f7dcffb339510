// Self-attention of all heads on AMX, from the product of a layer's inputs with its three
// projections to the heads' outputs side by side, without the scores ever leaving the
// second cache; and its gradient, which makes them again. fused.py says what it computes.
// Blocks of scores between different sequences of a row, and padding, are left out.

#include <limits>

#include "parallel.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tiles.h"

#ifdef BERT_TF_TILES

namespace bert_tf {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;

// Numbers between rows of scores: a stride of 2 KB would leave but two sets of the cache.
constexpr int64_t kApart = 16;
constexpr float kLn2 = 0.69314718f;

// Sizes, inputs and dropout of one call. Scores here are those of fused.py over ln 2, so
// that their exponentials are powers of two.
struct Call {
  Call(const Tensor& x, const Tensor& bias, const Tensor& input_mask, const Tensor& key,
       int64_t heads, int64_t stream, int64_t kept)
      : batch(x.dim_size(0)),
        length(x.dim_size(1)),
        heads(heads),
        head(bias.NumElements() / 3 / heads),
        padded(RoundUp(length)),
        scale(1.0f / std::sqrt(static_cast<float>(head))),
        x(Bfloats(x)),
        bias(Floats(bias)),
        sequences(input_mask.flat<int32_t>().data()),
        dropout(key, stream, kept, heads * length * length) {}

  int64_t width() const { return heads * head; }

  // Query, key or value (0, 1, 2) of a head, the query scaled -> [padded, D].
  void Project(int64_t row, int64_t n, int part, bfloat* out) const {
    const int64_t column = part * width() + n * head;
    const float factor = part == 0 ? scale / kLn2 : 1.0f;
    const float* b = bias + column;
    for (int64_t s = 0; s < length; ++s) {
      const bfloat* a = x + (row * length + s) * 3 * width() + column;
      bfloat* o = out + s * head;
      for (int64_t i = 0; i < head; i += 16) {
        const __m512 sum = _mm512_add_ps(Widen(a + i), _mm512_loadu_ps(b + i));
        StoreRounded(o + i, _mm512_mul_ps(sum, _mm512_set1_ps(factor)));
      }
    }
    std::fill(out + length * head, out + padded * head, 0);
  }

  // Calls 32 places of a head's query, key and value to the second cache. A row of x is
  // longer than a page, so that the processor does not foresee what is read next.
  void Prefetch(int64_t task, int64_t first) const {
    if (task >= batch * heads) return;
    const int64_t row = task / heads, column = task % heads * head;
    for (int64_t s = first; s < std::min(first + kBlock, length); ++s) {
      for (int part = 0; part < 3; ++part) {
        const bfloat* a = x + ((row * length + s) * 3 + part) * width() + column;
        for (int64_t i = 0; i < head; i += kBlock) _mm_prefetch(a + i, _MM_HINT_T1);
      }
    }
  }

  int64_t batch, length, heads, head, padded;
  float scale;
  const bfloat* x;           // [B, S, 3 H]
  const float* bias;         // [3 H]
  const int32_t* sequences;  // [B, S]
  DropoutMask dropout;
};

// [padded, D] -> panels whose columns are its rows.
void PackRows(const Call& call, const bfloat* x, bfloat* panels) {
  for (int64_t s = 0; s < call.padded; s += kBlock) {
    for (int64_t d = 0; d < call.head; d += kBlock) {
      PackStepOfTransposed(x + s * call.head + d, call.head, kBlock, kBlock, panels);
      panels += kStep;
    }
  }
}

// [padded, D] -> panels whose columns are its columns.
void PackColumns(const Call& call, const bfloat* x, bfloat* panels) {
  for (int64_t d = 0; d < call.head; d += kBlock) {
    for (int64_t s = 0; s < call.padded; s += kBlock) {
      PackStep(x + s * call.head + d, call.head, kBlock, kBlock, panels);
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
inline void MultiplyRows(const Call& call, const Rows& left, const bfloat* panels,
                         Span span, float* sums, int64_t stride) {
  for (int64_t j = span.begin; j < span.end; j += kBlock)
    MultiplyBlock(left, panels + j * call.head, call.head / kBlock, sums + j, stride);
}

// 32 rows, whose depth is the places of `span`, times panels -> [32, D].
inline void MultiplyColumns(const Call& call, Rows left, const bfloat* panels, Span span,
                            float* sums) {
  left.data += span.begin / kBlock * left.step;
  for (int64_t d = 0; d < call.head; d += kBlock)
    MultiplyBlock(left, panels + d * call.padded + span.begin * kBlock, span.steps(),
                  sums + d, call.head);
}

// What a head needs besides matrices: which sequence each place belongs to, and which
// blocks of 32 places may see each other.
class Memory {
 public:
  Memory(const Call& call, int64_t row) : blocks_(call.padded / kBlock) {
    static thread_local Scratch numbers, random;
    sequence = numbers.Get<int32_t>(call.padded + 2 * blocks_);
    first_ = sequence + call.padded;
    last_ = first_ + blocks_;
    std::copy_n(call.sequences + row * call.length, call.length, sequence);
    std::fill(sequence + call.length, sequence + call.padded, 0);
    // Sequences that stand in order, with padding behind: any other row is one block.
    int32_t before = 1;
    for (int64_t i = 0; i < call.padded; ++i) {
      if (sequence[i] > 0 && sequence[i] < before) is_in_order_ = false;
      before = sequence[i] > 0 ? sequence[i] : std::numeric_limits<int32_t>::max();
    }
    for (int64_t i = 0; i < blocks_; ++i) {
      const int32_t* here = sequence + i * kBlock;
      first_[i] = here[0];
      last_[i] = *std::max_element(here, here + kBlock);
    }
    bytes = random.Get<uint8_t>(call.padded + 16 * (Philox::kBlocksAtOnce + 1));
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
  View(const Call& call, const Memory& memory, Span span, int64_t row, int64_t n,
       int64_t place)
      : sequence_(memory.sequence) {
    const int32_t own = sequence_[place];
    own_ = _mm512_set1_epi32(own > 0 ? own : -1);
    if (!call.dropout.is_on() || own <= 0) return;
    const int64_t count = std::min(span.end, call.length) - span.begin;
    bytes_ = call.dropout.Bytes(
                 row, (n * call.length + place) * call.length + span.begin, count,
                 memory.bytes) -
             span.begin;
    limit_ = _mm_set1_epi8(static_cast<char>(call.dropout.limit()));
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

 private:
  const int32_t* sequence_;
  __m512i own_;
  const uint8_t* bytes_ = nullptr;
  __m128i limit_;
};

// Checks what both operations read.
absl::Status Check(const Tensor& x, const Tensor& bias, const Tensor& input_mask,
                   int64_t heads) {
  const int64_t width = bias.NumElements();
  if (x.dims() != 3 || x.dim_size(2) != width || width % (3 * heads * kBlock) != 0)
    return InvalidArgument("attention needs [B, S, 3 H] and heads of 32 n");
  if (input_mask.dims() != 2 || input_mask.dim_size(0) != x.dim_size(0) ||
      input_mask.dim_size(1) != x.dim_size(1))
    return InvalidArgument("the mask must be [B, S]");
  return absl::OkStatus();
}

// What the operation and its gradient share: the attributes, and a call that is checked.
class AttentionKernel : public OpKernel {
 public:
  explicit AttentionKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
    OP_REQUIRES_OK(context, context->GetAttr("stream", &stream_));
    OP_REQUIRES_OK(context, context->GetAttr("kept", &kept_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    OP_REQUIRES_OK(context, Check(x, bias, context->input(2), heads_));
    Run(context, Call(x, bias, context->input(2), context->input(3), heads_, stream_,
                      kept_));
  }

 private:
  virtual void Run(OpKernelContext* context, const Call& call) = 0;

  int64_t heads_, stream_, kept_;
};

class AttentionOp : public AttentionKernel {
 public:
  using AttentionKernel::AttentionKernel;

 private:
  void Run(OpKernelContext* context, const Call& call) override {
    Tensor *y, *normalisers;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, TensorShape({call.batch, call.length, call.width()}),
                                &y));
    OP_REQUIRES_OK(context, context->allocate_output(
                                1, TensorShape({call.batch, call.heads, call.length}),
                                &normalisers));
    bfloat* out = Bfloats(y);
    float* normaliser = Floats(normalisers);
    ForEach(context, call.batch * call.heads, call.length * call.length * 4,
            [&](int64_t task) {
              Head(call, task / call.heads, task % call.heads, out,
                   normaliser + task * call.length);
            });
  }

  static void Head(const Call& call, int64_t row, int64_t n, bfloat* out,
                   float* normalisers) {
    static thread_local Scratch bfloats, floats;
    const int64_t size = call.padded * call.head;
    bfloat* query = bfloats.Get<bfloat>(4 * size + kBlock * call.padded);
    bfloat *plain = query + size, *keys = plain + size, *values = keys + size;
    bfloat* probabilities = values + size;
    const int64_t stride = call.padded + kApart;
    float* scores = floats.Get<float>(kBlock * std::max(stride, call.head));
    const Memory memory(call, row);
    const TileScope scope;
    call.Project(row, n, 1, plain);
    PackRows(call, plain, keys);
    call.Project(row, n, 2, plain);
    PackColumns(call, plain, values);
    call.Project(row, n, 0, query);
    for (int64_t first = 0; first < call.length; first += kBlock) {
      const int64_t count = std::min(kBlock, call.length - first);
      const Span span = memory.Seen(first);
      call.Prefetch(row * call.heads + n + 1, first);
      MultiplyRows(call, RowMajor(query + first * call.head, call.head), keys, span,
                   scores, stride);
      float factors[kBlock] = {};
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t place = first + i;
        bfloat* exponentials = probabilities + i * call.padded;
        if (memory.sequence[place] > 0) {
          const View view(call, memory, span, row, n, place);
          factors[i] =
              call.dropout.scale() /
              Row(view, span, scores + i * stride, exponentials, normalisers + place);
        } else {
          std::fill(exponentials + span.begin, exponentials + span.end, 0);
          if (i < count) normalisers[place] = 0.0f;
        }
      }
      MultiplyColumns(call, RowMajor(probabilities, call.padded), values, span, scores);
      for (int64_t i = 0; i < count; ++i) {
        bfloat* o = out + (row * call.length + first + i) * call.width() + n * call.head;
        const __m512 factor = _mm512_set1_ps(factors[i]);
        for (int64_t d = 0; d < call.head; d += 16)
          StoreRounded(
              o + d, _mm512_mul_ps(_mm512_loadu_ps(scores + i * call.head + d), factor));
      }
    }
  }

  // One query: scores -> exponentials, those that dropout keeps. Returns the sum of all;
  // the normaliser is the logarithm to base 2 of the sum of the powers of the scores.
  static float Row(const View& view, Span span, const float* scores, bfloat* exponentials,
                   float* normaliser) {
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
  void Run(OpKernelContext* context, const Call& call) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    const float* normalisers = Floats(context->input(4));
    const bfloat* dy = Bfloats(context->input(5));
    Tensor *dx, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    const int64_t width = bias.NumElements();
    std::vector<float> sums(call.batch * width);
    ForEach(context, call.batch * call.heads, call.length * call.length * 10,
            [&](int64_t task) {
              const int64_t row = task / call.heads;
              Head(call, row, task % call.heads, normalisers + task * call.length, dy,
                   Bfloats(dx), sums.data() + row * width);
            });
    float* total = Floats(dbias);
    std::fill(total, total + width, 0.0f);
    for (int64_t row = 0; row < call.batch; ++row) {
      for (int64_t i = 0; i < width; ++i) total[i] += sums[row * width + i];
    }
  }

  static void Head(const Call& call, int64_t row, int64_t n, const float* normalisers,
                   const bfloat* dy, bfloat* dx, float* dbias) {
    static thread_local Scratch bfloats, floats;
    const int64_t size = call.padded * call.head, square = call.padded * call.padded;
    bfloat* query = bfloats.Get<bfloat>(8 * size + 2 * square + kBlock * call.padded);
    bfloat *plain = query + size, *upstream = plain + size;
    bfloat *key_rows = upstream + size, *key_columns = key_rows + size;
    bfloat *value_rows = key_columns + size, *query_columns = value_rows + size;
    bfloat* upstream_columns = query_columns + size;
    bfloat *dropped = upstream_columns + size, *dscores = dropped + square;
    bfloat* turned = dscores + square;
    const int64_t stride = call.padded + kApart;
    const int64_t strip = kBlock * std::max(stride, call.head);
    float* scores = floats.Get<float>(2 * strip);
    float* dprobabilities = scores + strip;
    const Memory memory(call, row);
    const TileScope scope;
    call.Project(row, n, 1, plain);
    PackRows(call, plain, key_rows);
    PackColumns(call, plain, key_columns);
    call.Project(row, n, 2, plain);
    PackRows(call, plain, value_rows);
    call.Project(row, n, 0, query);
    PackColumns(call, query, query_columns);
    for (int64_t s = 0; s < call.length; ++s) {
      std::memcpy(upstream + s * call.head,
                  dy + (row * call.length + s) * call.width() + n * call.head,
                  call.head * sizeof(bfloat));
    }
    std::fill(upstream + call.length * call.head, upstream + size, 0);
    PackColumns(call, upstream, upstream_columns);
    const int64_t columns[3] = {n * call.head, call.width() + n * call.head,
                                2 * call.width() + n * call.head};
    for (int part = 0; part < 3; ++part)
      std::fill_n(dbias + columns[part], call.head, 0.0f);
    for (int64_t first = 0; first < call.length; first += kBlock) {
      const Span span = memory.Seen(first);
      call.Prefetch(row * call.heads + n + 1, first);
      MultiplyRows(call, RowMajor(query + first * call.head, call.head), key_rows, span,
                   scores, stride);
      MultiplyRows(call, RowMajor(upstream + first * call.head, call.head), value_rows,
                   span, dprobabilities, stride);
      for (int64_t i = 0; i < kBlock; ++i) {
        const int64_t place = first + i;
        const View view(call, memory, span, row, n, place);
        Row(view, span, call.dropout.scale(),
            place < call.length ? normalisers[place] : 0.0f, scores + i * stride,
            dprobabilities + i * stride, dropped + place * call.padded,
            dscores + place * call.padded);
      }
      MultiplyColumns(call, RowMajor(dscores + first * call.padded, call.padded),
                      key_columns, span, scores);
      Write(call, row, first, columns[0], call.scale, scores, dx, dbias);
    }
    for (int64_t first = 0; first < call.length; first += kBlock) {
      const Span span = memory.Seen(first);
      Turn(call, dscores + first, span, turned);
      MultiplyColumns(call, Packed(turned), query_columns, span, scores);
      Write(call, row, first, columns[1], kLn2, scores, dx, dbias);
      Turn(call, dropped + first, span, turned);
      MultiplyColumns(call, Packed(turned), upstream_columns, span, scores);
      Write(call, row, first, columns[2], 1.0f, scores, dx, dbias);
    }
  }

  // One query: its probabilities after dropout, and the gradient of its scores.
  static void Row(const View& view, Span span, float dropout_scale, float normaliser,
                  float* scores, float* dprobabilities, bfloat* dropped,
                  bfloat* dscores) {
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
  static void Turn(const Call& call, const bfloat* x, Span span, bfloat* turned) {
    for (int64_t s = span.begin; s < span.end; s += kBlock)
      PackTransposed(x + s * call.padded, call.padded, kBlock, kBlock,
                     turned + s * kBlock);
  }

  // Rows of one head's [S, D] times `factor` into dx, and their sum into dbias.
  static void Write(const Call& call, int64_t row, int64_t first, int64_t column,
                    float factor, const float* sums, bfloat* dx, float* dbias) {
    for (int64_t i = 0; i < std::min(kBlock, call.length - first); ++i) {
      bfloat* o = dx + (row * call.length + first + i) * 3 * call.width() + column;
      for (int64_t d = 0; d < call.head; d += 16) {
        const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(sums + i * call.head + d),
                                           _mm512_set1_ps(factor));
        StoreRounded(o + d, value);
        float* sum = dbias + column + d;
        _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), value));
      }
    }
  }
};

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
      c->set_output(0, c->UnknownShapeOfRank(3));
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
      c->set_output(0, c->input(0));
      c->set_output(1, c->input(1));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertAttentionGrad").Device(DEVICE_CPU), AttentionGradOp);

}  // namespace bert_tf

#endif  // BERT_TF_TILES
