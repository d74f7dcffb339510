// Element-wise operations of BERT for CPUs: one pass over memory each, bfloat16 at the
// edges and float32 inside. bert_tf/modeling/fused.py says what each computes.

#include <algorithm>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tiles.h"

namespace bert_tf {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;

// ---------------------------------------------------------------- bias and activation

class BiasGeluOp : public Operation {
 public:
  explicit BiasGeluOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("approximate", &approximate_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    const Tensor& bias = context->input(1);
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(x, "x", &rows, &width));
    OP_REQUIRES_OK(context, RequireShape(bias, "bias", {width}));
    Tensor* y;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    const bfloat* in = Bfloats(x);
    const float* b = Floats(bias);
    bfloat* out = Bfloats(y);
    ForParts(context, rows, width * 8, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const bfloat* a = in + r * width;
        bfloat* o = out + r * width;
        if (approximate_) {
          for (int64_t i = 0; i < width; ++i)
            o[i] = ToBfloat(GeluTanh(ToFloat(a[i]) + b[i]));
        } else {
          for (int64_t i = 0; i < width; ++i)
            o[i] = ToBfloat(Gelu(ToFloat(a[i]) + b[i]));
        }
      }
    });
  }

  bool approximate_;
};

class BiasGeluGradOp : public Operation {
 public:
  explicit BiasGeluGradOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("approximate", &approximate_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    const Tensor& bias = context->input(1);
    const Tensor& dy = context->input(2);
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(x, "x", &rows, &width));
    OP_REQUIRES_OK(context, FirstError({RequireShape(bias, "bias", {width}),
                                        RequireSameShape(dy, "dy", x, "x")}));
    Tensor *dx, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    const bfloat *in = Bfloats(x), *up = Bfloats(dy);
    const float* b = Floats(bias);
    bfloat* out = Bfloats(dx);
    std::vector<float> sums(kParts * width, 0.0f);
    ForParts(context, rows, width * 10, [&](int64_t part, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        Row(in + r * width, up + r * width, b, out + r * width, width,
            sums.data() + part * width);
    });
    AddParts(sums, width, Floats(dbias));
  }

  void Row(const bfloat* __restrict x, const bfloat* __restrict dy,
           const float* __restrict bias, bfloat* __restrict dx, int64_t width,
           float* __restrict sum) const {
    if (approximate_) {
      for (int64_t i = 0; i < width; ++i) {
        const float g = ToFloat(dy[i]) * GeluTanhDerivative(ToFloat(x[i]) + bias[i]);
        dx[i] = ToBfloat(g);
        sum[i] += g;
      }
    } else {
      int64_t i = 0;
#ifdef BERT_TF_TILES  // Rounding by one instruction instead of six: 2.3 times as fast.
      for (; i + 32 <= width; i += 32) {
        __m512 g[2];
        for (int half = 0; half < 2; ++half) {
          const int64_t j = i + 16 * half;
          const __m512 shifted = _mm512_add_ps(Widen(x + j), _mm512_loadu_ps(bias + j));
          g[half] = _mm512_mul_ps(Widen(dy + j), GeluDerivative(shifted));
          _mm512_storeu_ps(sum + j, _mm512_add_ps(_mm512_loadu_ps(sum + j), g[half]));
        }
        _mm512_storeu_si512(dx + i, Round(g[0], g[1]));
      }
#endif
      for (; i < width; ++i) {
        const float g = ToFloat(dy[i]) * GeluDerivative(ToFloat(x[i]) + bias[i]);
        dx[i] = ToBfloat(g);
        sum[i] += g;
      }
    }
  }

  bool approximate_;
};

// ------------------------------------------- bias, dropout, residual, layer normalisation

class DropoutAddNormOp : public Operation {
 public:
  explicit DropoutAddNormOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, GetDropout(context, &stream_, &kept_));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES(context, epsilon_ >= 0.0f,
                InvalidArgument("epsilon must be at least 0, not ", epsilon_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& x = context->input(0);  // [..., H]
    const Tensor& bias = context->input(1);
    const Tensor& residual = context->input(2);
    const Tensor& gamma = context->input(3);
    const Tensor& beta = context->input(4);
    const Tensor& input_mask = context->input(5);
    const Tensor& key = context->input(6);
    Tensor *y, *sum, *statistics;
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(x, "x", &rows, &width));
    const Places places(input_mask, rows);
    OP_REQUIRES_OK(
        context,
        FirstError({places.Check(), RequireShape(bias, "bias", {width}),
                    RequireSameShape(residual, "residual", x, "x"),
                    RequireShape(gamma, "gamma", {width}),
                    RequireShape(beta, "beta", {width}), RequireKey(key, input_mask)}));
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    // Only the gradient reads the sums: a prediction does not write them.
    bfloat* kept_sum = nullptr;
    if (context->output_required(1)) {
      OP_REQUIRES_OK(context, context->allocate_output(1, x.shape(), &sum));
      kept_sum = Bfloats(sum);
    }
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({rows, 2}),
                                                     &statistics));
    const DropoutMask dropout(key, stream_, kept_, places.length() * width);
    const bfloat *in = Bfloats(x), *res = Bfloats(residual);
    const float *b = Floats(bias), *g = Floats(gamma), *shift = Floats(beta);
    bfloat* out = Bfloats(y);
    float* stat = Floats(statistics);
    ForParts(context, rows, width * 6, [&](int64_t, int64_t begin, int64_t end) {
      std::vector<float> h(width), mask(width);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = places.RowOf(r);
        const bfloat *a = in + r * width, *c = res + r * width;
        dropout.Fill(row, (r - places.begin(row)) * width, width, mask.data());
        float total = 0.0f;
        for (int64_t i = 0; i < width; ++i) {
          h[i] = (ToFloat(a[i]) + b[i]) * mask[i] + ToFloat(c[i]);
          total += h[i];
        }
        const float mean = total / width;
        float squares = 0.0f;
        for (int64_t i = 0; i < width; ++i) {
          squares += (h[i] - mean) * (h[i] - mean);
        }
        const float factor = 1.0f / std::sqrt(squares / width + epsilon_);
        bfloat* o = out + r * width;
        for (int64_t i = 0; i < width; ++i)
          o[i] = ToBfloat((h[i] - mean) * factor * g[i] + shift[i]);
        if (kept_sum != nullptr) {
          bfloat* s = kept_sum + r * width;
          for (int64_t i = 0; i < width; ++i) s[i] = ToBfloat(h[i]);
        }
        stat[2 * r] = mean;
        stat[2 * r + 1] = factor;
      }
    });
  }

  int64_t stream_, kept_;
  float epsilon_;
};

class DropoutAddNormGradOp : public Operation {
 public:
  explicit DropoutAddNormGradOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, GetDropout(context, &stream_, &kept_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& dy = context->input(0);
    const Tensor& sum = context->input(1);
    const Tensor& statistics = context->input(2);
    const Tensor& gamma = context->input(3);
    const Tensor& input_mask = context->input(4);
    const Tensor& key = context->input(5);
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(dy, "dy", &rows, &width));
    const Places places(input_mask, rows);
    OP_REQUIRES_OK(
        context,
        FirstError({places.Check(), RequireSameShape(sum, "sum", dy, "dy"),
                    RequireShape(statistics, "statistics", {rows, 2}),
                    RequireShape(gamma, "gamma", {width}), RequireKey(key, input_mask)}));
    Tensor *dx, *dresidual, *dbias, *dgamma, *dbeta;
    OP_REQUIRES_OK(context, context->allocate_output(0, dy.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, dy.shape(), &dresidual));
    OP_REQUIRES_OK(context, context->allocate_output(2, gamma.shape(), &dbias));
    OP_REQUIRES_OK(context, context->allocate_output(3, gamma.shape(), &dgamma));
    OP_REQUIRES_OK(context, context->allocate_output(4, gamma.shape(), &dbeta));
    const DropoutMask dropout(key, stream_, kept_, places.length() * width);
    const bfloat *up = Bfloats(dy), *kept_sum = Bfloats(sum);
    const float *stat = Floats(statistics), *g = Floats(gamma);
    bfloat *out = Bfloats(dx), *res = Bfloats(dresidual);
    std::vector<float> bias_sums(kParts * width, 0.0f), gamma_sums(bias_sums),
        beta_sums(bias_sums);
    ForParts(context, rows, width * 8, [&](int64_t part, int64_t begin, int64_t end) {
      std::vector<float> normal(width), scaled(width), mask(width);
      float* db = bias_sums.data() + part * width;
      float* dg = gamma_sums.data() + part * width;
      float* dt = beta_sums.data() + part * width;
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = places.RowOf(r);
        const bfloat *u = up + r * width, *s = kept_sum + r * width;
        const float mean = stat[2 * r], factor = stat[2 * r + 1];
        dropout.Fill(row, (r - places.begin(row)) * width, width, mask.data());
        float first = 0.0f, second = 0.0f;
        for (int64_t i = 0; i < width; ++i) {
          const float d = ToFloat(u[i]);
          normal[i] = (ToFloat(s[i]) - mean) * factor;
          scaled[i] = d * g[i];
          first += scaled[i];
          second += scaled[i] * normal[i];
          dg[i] += d * normal[i];
          dt[i] += d;
        }
        first /= width;
        second /= width;
        bfloat *o = out + r * width, *c = res + r * width;
        for (int64_t i = 0; i < width; ++i) {
          const float d = factor * (scaled[i] - first - normal[i] * second);
          const float masked = d * mask[i];
          c[i] = ToBfloat(d);
          o[i] = ToBfloat(masked);
          db[i] += masked;
        }
      }
    });
    AddParts(bias_sums, width, Floats(dbias));
    AddParts(gamma_sums, width, Floats(dgamma));
    AddParts(beta_sums, width, Floats(dbeta));
  }

  int64_t stream_, kept_;
};

// ----------------------------------------------------------------- attention heads

class SplitHeadsOp : public OpKernel {
 public:
  explicit SplitHeadsOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& x = context->input(0);  // [B, S, 3H]
    const Tensor& bias = context->input(1);
    const int64_t batch = x.dim_size(0), length = x.dim_size(1);
    const int64_t width = bias.NumElements() / 3, head = width / heads_;
    const TensorShape shape({batch, heads_, length, head});
    bfloat* outputs[3];
    for (int part = 0; part < 3; ++part) {
      Tensor* output;
      OP_REQUIRES_OK(context, context->allocate_output(part, shape, &output));
      outputs[part] = Bfloats(output);
    }
    const bfloat* in = Bfloats(x);
    const float* b = Floats(bias);
    const float query_scale = 1.0f / std::sqrt(static_cast<float>(head));
    ForParts(context, batch * length, width * 4, [&](int64_t, int64_t begin,
                                                     int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = r / length, place = r % length;
        for (int part = 0; part < 3; ++part) {
          const float scale = part == 0 ? query_scale : 1.0f;
          for (int64_t n = 0; n < heads_; ++n) {
            const int64_t column = part * width + n * head;
            const bfloat* a = in + r * 3 * width + column;
            const float* c = b + column;
            bfloat* o = outputs[part] + ((row * heads_ + n) * length + place) * head;
            for (int64_t i = 0; i < head; ++i)
              o[i] = ToBfloat((ToFloat(a[i]) + c[i]) * scale);
          }
        }
      }
    });
  }

 private:
  int64_t heads_;
};

class SplitHeadsGradOp : public OpKernel {
 public:
  explicit SplitHeadsGradOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& first = context->input(0);  // [B, N, S, D]
    const int64_t batch = first.dim_size(0), heads = first.dim_size(1);
    const int64_t length = first.dim_size(2), head = first.dim_size(3);
    const int64_t width = heads * head;
    Tensor *dx, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, TensorShape({batch, length, 3 * width}), &dx));
    OP_REQUIRES_OK(context,
                   context->allocate_output(1, TensorShape({3 * width}), &dbias));
    const bfloat* inputs[3] = {Bfloats(first), Bfloats(context->input(1)),
                               Bfloats(context->input(2))};
    bfloat* out = Bfloats(dx);
    const float query_scale = 1.0f / std::sqrt(static_cast<float>(head));
    std::vector<float> sums(kParts * 3 * width, 0.0f);
    ForParts(context, batch * length, width * 4, [&](int64_t part, int64_t begin,
                                                     int64_t end) {
      float* sum = sums.data() + part * 3 * width;
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = r / length, place = r % length;
        for (int source = 0; source < 3; ++source) {
          const float scale = source == 0 ? query_scale : 1.0f;
          for (int64_t n = 0; n < heads; ++n) {
            const int64_t column = source * width + n * head;
            const bfloat* a =
                inputs[source] + ((row * heads + n) * length + place) * head;
            bfloat* o = out + r * 3 * width + column;
            float* c = sum + column;
            for (int64_t i = 0; i < head; ++i) {
              const float d = ToFloat(a[i]) * scale;
              o[i] = ToBfloat(d);
              c[i] += d;
            }
          }
        }
      }
    });
    AddParts(sums, 3 * width, Floats(dbias));
  }
};

// [B, N, S, D] -> [B, S, N * D], or back.
class MergeHeadsOp : public OpKernel {
 public:
  explicit MergeHeadsOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
    OP_REQUIRES_OK(context, context->GetAttr("invert", &invert_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    const int64_t batch = x.dim_size(0);
    const int64_t length = invert_ ? x.dim_size(1) : x.dim_size(2);
    const int64_t head = invert_ ? x.dim_size(2) / heads_ : x.dim_size(3);
    const TensorShape split({batch, heads_, length, head});
    const TensorShape merged({batch, length, heads_ * head});
    Tensor* y;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, invert_ ? split : merged, &y));
    const bfloat* in = Bfloats(x);
    bfloat* out = Bfloats(y);
    ForParts(context, batch * length, heads_ * head, [&](int64_t, int64_t begin,
                                                         int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t n = 0; n < heads_; ++n) {
          const int64_t s = ((r / length * heads_ + n) * length + r % length) * head;
          const int64_t m = (r * heads_ + n) * head;
          std::memcpy(out + (invert_ ? s : m), in + (invert_ ? m : s),
                      head * sizeof(bfloat));
        }
      }
    });
  }

 private:
  int64_t heads_;
  bool invert_;
};

// ------------------------------------------------------- mask, softmax and dropout

class MaskedSoftmaxOp : public OpKernel {
 public:
  explicit MaskedSoftmaxOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("stream", &stream_));
    OP_REQUIRES_OK(context, context->GetAttr("kept", &kept_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& scores = context->input(0);      // [B, N, S, S]
    const Tensor& input_mask = context->input(1);  // [B, S]
    const Tensor& key = context->input(2);
    Tensor *probabilities, *dropped;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, scores.shape(), &probabilities));
    OP_REQUIRES_OK(context, context->allocate_output(1, scores.shape(), &dropped));
    const int64_t heads = scores.dim_size(1), length = scores.dim_size(3);
    const int64_t rows = scores.NumElements() / std::max<int64_t>(1, length);
    const DropoutMask dropout(key, stream_, kept_, heads * length * length);
    const bfloat* in = Bfloats(scores);
    const int32_t* sequences = input_mask.flat<int32_t>().data();
    bfloat *out = Bfloats(probabilities), *kept = Bfloats(dropped);
    ForParts(context, rows, length * 8, [&](int64_t, int64_t begin, int64_t end) {
      std::vector<float> e(length), mask(length);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = r / (heads * length), query = r % length;
        const int32_t* sequence = sequences + row * length;
        const int32_t own = sequence[query];
        const bfloat* a = in + r * length;
        float largest = -3e38f;
        // Far below every score: its exp is 0 beside the others'. A query that sees
        // nothing, padding, sees everything alike.
        for (int64_t i = 0; i < length; ++i) {
          const float x = sequence[i] == own ? ToFloat(a[i]) : -1e30f;
          e[i] = x;
          largest = x > largest ? x : largest;
        }
        const float hidden = own > 0 ? 0.0f : 1.0f;
        float total = 0.0f;
        for (int64_t i = 0; i < length; ++i) {
          const float x = e[i] < -1e29f ? hidden : Exp(e[i] - largest);
          e[i] = own > 0 ? x : 1.0f;
          total += e[i];
        }
        const float factor = 1.0f / total;
        dropout.Fill(row, r % (heads * length) * length, length, mask.data());
        bfloat *o = out + r * length, *d = kept + r * length;
        for (int64_t i = 0; i < length; ++i) {
          const float p = e[i] * factor;
          o[i] = ToBfloat(p);
          d[i] = ToBfloat(p * mask[i]);
        }
      }
    });
  }

 private:
  int64_t stream_, kept_;
};

class MaskedSoftmaxGradOp : public OpKernel {
 public:
  explicit MaskedSoftmaxGradOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("stream", &stream_));
    OP_REQUIRES_OK(context, context->GetAttr("kept", &kept_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& probabilities = context->input(0);
    const Tensor& dy = context->input(1);
    const Tensor& key = context->input(2);
    Tensor* dx;
    OP_REQUIRES_OK(context, context->allocate_output(0, dy.shape(), &dx));
    const int64_t heads = dy.dim_size(1), length = dy.dim_size(3);
    const int64_t rows = dy.NumElements() / std::max<int64_t>(1, length);
    const DropoutMask dropout(key, stream_, kept_, heads * length * length);
    const bfloat *p = Bfloats(probabilities), *up = Bfloats(dy);
    bfloat* out = Bfloats(dx);
    ForParts(context, rows, length * 6, [&](int64_t, int64_t begin, int64_t end) {
      std::vector<float> d(length), mask(length);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = r / (heads * length);
        dropout.Fill(row, r % (heads * length) * length, length, mask.data());
        const bfloat *q = p + r * length, *u = up + r * length;
        float total = 0.0f;
        for (int64_t i = 0; i < length; ++i) {
          d[i] = ToFloat(u[i]) * mask[i];
          total += d[i] * ToFloat(q[i]);
        }
        bfloat* o = out + r * length;
        for (int64_t i = 0; i < length; ++i)
          o[i] = ToBfloat(ToFloat(q[i]) * (d[i] - total));
      }
    });
  }

 private:
  int64_t stream_, kept_;
};

// ------------------------------------------------- cross entropy of masked tokens

// The largest a[i] + b[i]. In lanes: one after another takes four times as long, and the
// compiler may not reorder comparisons, which a NaN would tell apart.
inline float Largest(const bfloat* a, const float* b, int64_t count) {
  constexpr int64_t kLanes = 64;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -3e38f);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t here = std::min(kLanes, count - i);
    for (int64_t j = 0; j < here; ++j) {
      const float x = ToFloat(a[i + j]) + b[i + j];
      lanes[j] = x > lanes[j] ? x : lanes[j];
    }
  }
  return *std::max_element(lanes, lanes + kLanes);
}

// Checks what both operations read.
absl::Status CheckLogits(const Tensor& logits, const Tensor& bias, const Tensor& labels) {
  TF_RETURN_IF_ERROR(RequireShape(bias, "bias", {kAnySize}));
  TF_RETURN_IF_ERROR(RequireWideMatrix(logits, "logits", bias.NumElements()));
  TF_RETURN_IF_ERROR(RequireShape(labels, "labels", {logits.dim_size(0)}));
  return RequireIndices(labels, "labels", bias.NumElements());
}

class CrossEntropyOp : public Operation {
 public:
  using Operation::Operation;

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& logits = context->input(0);  // [R, V or more]
    const Tensor& bias = context->input(1);
    const Tensor& labels = context->input(2);
    OP_REQUIRES_OK(context, CheckLogits(logits, bias, labels));
    const int64_t rows = logits.dim_size(0), stride = logits.dim_size(1);
    const int64_t width = bias.NumElements();  // What follows is padding.
    Tensor *losses, *normalisers;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, TensorShape({rows}), &losses));
    OP_REQUIRES_OK(context,
                   context->allocate_output(1, TensorShape({rows}), &normalisers));
    const bfloat* in = Bfloats(logits);
    const float* b = Floats(bias);
    const int32_t* label = Integers(labels);
    float *loss = Floats(losses), *normaliser = Floats(normalisers);
    ForParts(context, rows, width * 6, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const bfloat* a = in + r * stride;
        const float largest = Largest(a, b, width);
        float total = 0.0f;
        for (int64_t i = 0; i < width; ++i)
          total += Exp(ToFloat(a[i]) + b[i] - largest);
        normaliser[r] = largest + std::log(total);
        loss[r] = normaliser[r] - ToFloat(a[label[r]]) - b[label[r]];
      }
    });
  }
};

class CrossEntropyGradOp : public Operation {
 public:
  using Operation::Operation;

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& logits = context->input(0);
    const Tensor& bias = context->input(1);
    const Tensor& labels = context->input(2);
    const Tensor& normalisers = context->input(3);
    const Tensor& dlosses = context->input(4);
    OP_REQUIRES_OK(context, CheckLogits(logits, bias, labels));
    OP_REQUIRES_OK(context,
                   FirstError({RequireSameShape(normalisers, "normalisers", labels, "labels"),
                               RequireSameShape(dlosses, "dlosses", labels, "labels")}));
    const int64_t rows = logits.dim_size(0), stride = logits.dim_size(1);
    const int64_t width = bias.NumElements();
    Tensor *dlogits, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, logits.shape(), &dlogits));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    const bfloat* in = Bfloats(logits);
    const float *b = Floats(bias), *normaliser = Floats(normalisers);
    const float* up = Floats(dlosses);
    const int32_t* label = Integers(labels);
    bfloat* out = Bfloats(dlogits);
    std::vector<float> sums(kParts * width, 0.0f);
    ForParts(context, rows, width * 6, [&](int64_t part, int64_t begin, int64_t end) {
      float* sum = sums.data() + part * width;
      for (int64_t r = begin; r < end; ++r) {
        const bfloat* a = in + r * stride;
        bfloat* o = out + r * stride;
        const float d = up[r], n = normaliser[r];
        if (d == 0.0f) {  // Padding.
          std::memset(o, 0, stride * sizeof(bfloat));
          continue;
        }
        for (int64_t i = 0; i < width; ++i) {
          const float g = Exp(ToFloat(a[i]) + b[i] - n) * d;
          o[i] = ToBfloat(g);
          sum[i] += g;
        }
        const float hit = Exp(ToFloat(a[label[r]]) + b[label[r]] - n) * d - d;
        o[label[r]] = ToBfloat(hit);
        sum[label[r]] -= d;
        std::memset(o + width, 0, (stride - width) * sizeof(bfloat));
      }
    });
    AddParts(sums, width, Floats(dbias));
  }
};

// ----------------------------------------------------------------- registrations

absl::Status SameAsFirst(InferenceContext* c) {
  for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, c->input(0));
  return absl::OkStatus();
}

REGISTER_OP("BertBiasGelu")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Output("y: bfloat16")
    .Attr("approximate: bool")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x;
      TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
      c->set_output(0, x);
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertBiasGelu").Device(DEVICE_CPU), BiasGeluOp);

REGISTER_OP("BertBiasGeluGrad")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Input("dy: bfloat16")
    .Output("dx: bfloat16")
    .Output("dbias: float")
    .Attr("approximate: bool")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x;
      TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
      TF_RETURN_IF_ERROR(InferSame(c, 2, &x));
      c->set_output(0, x);
      c->set_output(1, c->input(1));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertBiasGeluGrad").Device(DEVICE_CPU), BiasGeluGradOp);

REGISTER_OP("BertDropoutAddNorm")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Input("residual: bfloat16")
    .Input("gamma: float")
    .Input("beta: float")
    .Input("input_mask: int32")
    .Input("key: int32")
    .Output("y: bfloat16")
    .Output("sum: bfloat16")
    .Output("statistics: float")
    .Attr("stream: int")
    .Attr("kept: int")
    .Attr("epsilon: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x, vector = c->input(1);
      TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
      TF_RETURN_IF_ERROR(InferSame(c, 2, &x));
      for (int i = 3; i < 5; ++i) TF_RETURN_IF_ERROR(InferSame(c, i, &vector));
      TF_RETURN_IF_ERROR(InferMaskAndKey(c, 5, 6));
      for (int i = 0; i < 2; ++i) c->set_output(i, x);
      c->set_output(2, c->Matrix(InferenceContext::kUnknownDim, 2));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertDropoutAddNorm").Device(DEVICE_CPU),
                        DropoutAddNormOp);

REGISTER_OP("BertDropoutAddNormGrad")
    .Input("dy: bfloat16")
    .Input("sum: bfloat16")
    .Input("statistics: float")
    .Input("gamma: float")
    .Input("input_mask: int32")
    .Input("key: int32")
    .Output("dx: bfloat16")
    .Output("dresidual: bfloat16")
    .Output("dbias: float")
    .Output("dgamma: float")
    .Output("dbeta: float")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle dy;
      TF_RETURN_IF_ERROR(InferRows(c, 0, 3, &dy));
      TF_RETURN_IF_ERROR(InferSame(c, 1, &dy));
      TF_RETURN_IF_ERROR(InferMaskAndKey(c, 4, 5));
      for (int i = 0; i < 2; ++i) c->set_output(i, dy);
      for (int i = 2; i < 5; ++i) c->set_output(i, c->input(3));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertDropoutAddNormGrad").Device(DEVICE_CPU),
                        DropoutAddNormGradOp);

REGISTER_OP("BertSplitHeads")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Output("query: bfloat16")
    .Output("key: bfloat16")
    .Output("value: bfloat16")
    .Attr("heads: int")
    .SetShapeFn([](InferenceContext* c) {
      for (int i = 0; i < 3; ++i) c->set_output(i, c->UnknownShapeOfRank(4));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertSplitHeads").Device(DEVICE_CPU), SplitHeadsOp);

REGISTER_OP("BertSplitHeadsGrad")
    .Input("dquery: bfloat16")
    .Input("dkey: bfloat16")
    .Input("dvalue: bfloat16")
    .Output("dx: bfloat16")
    .Output("dbias: float")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->UnknownShapeOfRank(3));
      c->set_output(1, c->UnknownShapeOfRank(1));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertSplitHeadsGrad").Device(DEVICE_CPU),
                        SplitHeadsGradOp);

REGISTER_OP("BertMergeHeads")
    .Input("x: bfloat16")
    .Output("y: bfloat16")
    .Attr("heads: int")
    .Attr("invert: bool")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->UnknownShape());
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertMergeHeads").Device(DEVICE_CPU), MergeHeadsOp);

REGISTER_OP("BertMaskedSoftmax")
    .Input("scores: bfloat16")
    .Input("input_mask: int32")
    .Input("key: int32")
    .Output("probabilities: bfloat16")
    .Output("dropped: bfloat16")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn(SameAsFirst);
REGISTER_KERNEL_BUILDER(Name("BertMaskedSoftmax").Device(DEVICE_CPU), MaskedSoftmaxOp);

REGISTER_OP("BertMaskedSoftmaxGrad")
    .Input("probabilities: bfloat16")
    .Input("dy: bfloat16")
    .Input("key: int32")
    .Output("dx: bfloat16")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn(SameAsFirst);
REGISTER_KERNEL_BUILDER(Name("BertMaskedSoftmaxGrad").Device(DEVICE_CPU),
                        MaskedSoftmaxGradOp);

// The shape of one number for each row of logits [R, V or more].
absl::Status InferLosses(InferenceContext* c, ShapeHandle* losses) {
  ShapeHandle logits, bias;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &logits));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &bias));
  *losses = c->Vector(c->Dim(logits, 0));
  return InferSame(c, 2, losses);
}

REGISTER_OP("BertCrossEntropy")
    .Input("logits: bfloat16")
    .Input("bias: float")
    .Input("labels: int32")
    .Output("losses: float")
    .Output("normalisers: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle losses;
      TF_RETURN_IF_ERROR(InferLosses(c, &losses));
      for (int i = 0; i < 2; ++i) c->set_output(i, losses);
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertCrossEntropy").Device(DEVICE_CPU), CrossEntropyOp);

REGISTER_OP("BertCrossEntropyGrad")
    .Input("logits: bfloat16")
    .Input("bias: float")
    .Input("labels: int32")
    .Input("normalisers: float")
    .Input("dlosses: float")
    .Output("dlogits: bfloat16")
    .Output("dbias: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle losses;
      TF_RETURN_IF_ERROR(InferLosses(c, &losses));
      for (int i = 3; i < 5; ++i) TF_RETURN_IF_ERROR(InferSame(c, i, &losses));
      for (int i = 0; i < 2; ++i) c->set_output(i, c->input(i));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertCrossEntropyGrad").Device(DEVICE_CPU),
                        CrossEntropyGradOp);

}  // namespace bert_tf
