// Self-attention of all heads as TensorFlow operations; attention.h has the arithmetic.

#include "operation.h"

namespace bert_tf {

// Checks the inputs that both operations have.
absl::Status CheckAttention(const Tensor& x, const Tensor& bias, const Tensor& input_mask,
                            const TokenPositions& positions, const Tensor& seed,
                            int64_t tokens, int64_t width, int64_t heads,
                            const Tensor& queries,
                            const TokenPositions& query_positions) {
  if (heads > width || width % (3 * heads * kBlock) != 0)
    return InvalidArgument("x must be [..., 3 H], H being ", heads,
                           " heads of 32 n, not ", x.shape().DebugString());
  TF_RETURN_IF_ERROR(RequireShape(bias, "bias", {width}));
  TF_RETURN_IF_ERROR(positions.Check(tokens));
  TF_RETURN_IF_ERROR(RequireSeed(seed, input_mask));
  if (queries.NumElements() > 0) TF_RETURN_IF_ERROR(query_positions.CheckAmong(positions));
  // The number of positions is squared, times up to 16 bytes or cycles for each pair.
  const int64_t length = input_mask.dim_size(1);
  return RequireProduct("input_mask", {16, heads, length + kBlock, length + kBlock});
}

// The operation and its gradient share attributes, inputs and checks.
template <typename T>
class AttentionBase : public Operation {
 public:
  explicit AttentionBase(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
    OP_REQUIRES_OK(context, GetDropout(context, &stream_, &kept_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    const Tensor &input_mask = context->input(2), &seed = context->input(3);
    int64_t tokens, width;
    OP_REQUIRES_OK(context, RequireRows(x, "x", &tokens, &width));
    const TokenPositions positions = TokenPositions::WithoutGaps(input_mask, tokens);
    const Tensor& queries = context->input(4);
    const bool are_all = queries.NumElements() == 0;
    const TokenPositions query_positions =
        are_all ? positions : TokenPositions::Marked(queries);
    OP_REQUIRES_OK(context, CheckAttention(x, bias, input_mask, positions, seed, tokens,
                                           width, heads_, queries, query_positions));
    TensorShape shape = x.shape();
    if (!are_all) shape = TensorShape({query_positions.size(), width});
    shape.set_dim(shape.dims() - 1, width / 3);
    Attend(context,
           {Data<T>(x), Data<float>(bias), Data<int32_t>(input_mask), positions.positions(),
            query_positions.positions(), MakeDropout(seed, stream_, kept_), heads_,
            width / 3 / heads_},
           shape);
  }

  // shape: of the outputs.
  virtual void Attend(OpKernelContext* context, const Attention<T>& call,
                      const TensorShape& shape) = 0;

  int64_t heads_, stream_, kept_;
};

template <typename T>
class AttentionOp : public AttentionBase<T> {
 public:
  using AttentionBase<T>::AttentionBase;

 private:
  void Attend(OpKernelContext* context, const Attention<T>& call,
              const TensorShape& shape) override {
    Tensor *y, *normalisers;
    const int64_t length = context->input(2).dim_size(1);
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &y));
    OP_REQUIRES_OK(
        context, context->allocate_output(
                     1, TensorShape({context->input(2).dim_size(0), call.heads, length}),
                     &normalisers));
    if (context->input(0).NumElements() == 0) {
      std::fill_n(Data<float>(normalisers), normalisers->NumElements(), 0.0f);
      return;
    }
    CurrentOperations<T>().attention(MakeLoop(context), call, Data<T>(y),
                                     Data<float>(normalisers));
  }
};

template <typename T>
class AttentionGradOp : public AttentionBase<T> {
 public:
  using AttentionBase<T>::AttentionBase;

 private:
  void Attend(OpKernelContext* context, const Attention<T>& call,
              const TensorShape& shape) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    const Tensor &normalisers = context->input(5), &dy = context->input(6);
    OP_REQUIRES_OK(
        context,
        FirstError({RequireShape(normalisers, "normalisers",
                                 {context->input(2).dim_size(0), call.heads,
                                  context->input(2).dim_size(1)}),
                    RequireShape(dy, "dy", shape.dim_sizes())}));
    Tensor *dx, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    if (x.NumElements() == 0) {
      std::fill_n(Data<float>(dbias), dbias->NumElements(), 0.0f);
      return;
    }
    // Rows without tokens write nothing.
    std::vector<float> row_sums(call.positions.rows * bias.NumElements());
    CurrentOperations<T>().attention_grad(MakeLoop(context), call,
                                          Data<float>(normalisers), Data<T>(dy),
                                          row_sums.data(), Data<T>(dx),
                                          Data<float>(dbias));
  }
};

// [..., H] for x [..., 3 H]; [queries, H] unless all positions are queries.
absl::Status InferOutput(InferenceContext* c, ShapeHandle* y) {
  ShapeHandle x, queries;
  DimensionHandle width;
  TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
  TF_RETURN_IF_ERROR(InferMaskAndSeed(c, 2, 3));
  TF_RETURN_IF_ERROR(c->Divide(c->Dim(x, -1), 3, true, &width));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(4), 2, &queries));
  if (!c->ValueKnown(c->Dim(queries, 0))) {
    *y = c->UnknownShape();
  } else if (c->Value(c->Dim(queries, 0)) > 0) {
    *y = c->Matrix(InferenceContext::kUnknownDim, width);
  } else {
    return c->ReplaceDim(x, -1, width, y);
  }
  return absl::OkStatus();
}

REGISTER_OP("BertAttention")
    .Input("x: T")
    .Input("bias: float")
    .Input("input_mask: int32")
    .Input("seed: int32")
    .Input("queries: int32")
    .Output("y: T")
    .Output("normalisers: float")
    .Attr("T: {bfloat16, float}")
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
BERT_TF_REGISTER("BertAttention", AttentionOp);

REGISTER_OP("BertAttentionGrad")
    .Input("x: T")
    .Input("bias: float")
    .Input("input_mask: int32")
    .Input("seed: int32")
    .Input("queries: int32")
    .Input("normalisers: float")
    .Input("dy: T")
    .Output("dx: T")
    .Output("dbias: float")
    .Attr("T: {bfloat16, float}")
    .Attr("heads: int >= 1")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle y, normalisers;
      TF_RETURN_IF_ERROR(InferOutput(c, &y));
      TF_RETURN_IF_ERROR(InferSame(c, 6, &y));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(5), 3, &normalisers));
      for (int i = 0; i < 2; ++i) c->set_output(i, c->input(i));
      return absl::OkStatus();
    });
BERT_TF_REGISTER("BertAttentionGrad", AttentionGradOp);

}  // namespace bert_tf
