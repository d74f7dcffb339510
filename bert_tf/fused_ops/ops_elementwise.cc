// The element-wise operations of BERT as TensorFlow operations; elementwise.h has the
// arithmetic.

#include "operation.h"

namespace bert_tf {

// ---------------------------------------------------------------- bias and activation

template <typename T>
class BiasGeluOp : public Operation {
 public:
  explicit BiasGeluOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("approximate", &approximate_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(x, "x", &rows, &width));
    OP_REQUIRES_OK(context, RequireShape(bias, "bias", {width}));
    Tensor* y;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    CurrentOperations<T>().bias_gelu(MakeLoop(context), Data<T>(x), Data<float>(bias),
                                     rows, width, approximate_, Data<T>(y));
  }

  bool approximate_;
};

template <typename T>
class BiasGeluGradOp : public Operation {
 public:
  explicit BiasGeluGradOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("approximate", &approximate_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    const Tensor& dy = context->input(2);
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(x, "x", &rows, &width));
    OP_REQUIRES_OK(context, FirstError({RequireShape(bias, "bias", {width}),
                                        RequireSameShape(dy, "dy", x, "x")}));
    Tensor *dx, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    std::vector<float> partial(kParts * width);
    CurrentOperations<T>().bias_gelu_grad(
        MakeLoop(context), Data<T>(x), Data<float>(bias), Data<T>(dy), rows, width,
        approximate_, partial.data(), Data<T>(dx), Data<float>(dbias));
  }

  bool approximate_;
};

// ------------------------------------------- bias, dropout, residual, layer normalisation

template <typename T>
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
    const Tensor& seed = context->input(6);
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(x, "x", &rows, &width));
    const TokenPositions positions = TokenPositions::Of(input_mask, rows);
    OP_REQUIRES_OK(
        context,
        FirstError({positions.Check(rows), RequireShape(bias, "bias", {width}),
                    RequireSameShape(residual, "residual", x, "x"),
                    RequireShape(gamma, "gamma", {width}),
                    RequireShape(beta, "beta", {width}), RequireSeed(seed, input_mask)}));
    Tensor *y, *sum = nullptr, *statistics;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &y));
    // Only the gradient reads the sums: a prediction does not write them.
    if (context->output_required(1))
      OP_REQUIRES_OK(context, context->allocate_output(1, x.shape(), &sum));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({rows, 2}),
                                                     &statistics));
    const Norm<T> norm = {Data<T>(x),         Data<T>(residual),
                          Data<float>(bias),  Data<float>(gamma),
                          Data<float>(beta),  positions.positions(),
                          MakeDropout(seed, stream_, kept_),
                          width,              epsilon_};
    CurrentOperations<T>().dropout_add_norm(MakeLoop(context), norm, Data<T>(y),
                                            sum == nullptr ? nullptr : Data<T>(sum),
                                            Data<float>(statistics));
  }

  int64_t stream_, kept_;
  float epsilon_;
};

template <typename T>
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
    const Tensor& seed = context->input(5);
    int64_t rows, width;
    OP_REQUIRES_OK(context, RequireRows(dy, "dy", &rows, &width));
    const TokenPositions positions = TokenPositions::Of(input_mask, rows);
    OP_REQUIRES_OK(
        context,
        FirstError({positions.Check(rows), RequireSameShape(sum, "sum", dy, "dy"),
                    RequireShape(statistics, "statistics", {rows, 2}),
                    RequireShape(gamma, "gamma", {width}), RequireSeed(seed, input_mask)}));
    Tensor* outputs[5];
    for (int i = 0; i < 5; ++i) {
      const TensorShape& shape = i < 2 ? dy.shape() : gamma.shape();
      OP_REQUIRES_OK(context, context->allocate_output(i, shape, &outputs[i]));
    }
    std::vector<float> partial(3 * kParts * width);
    const NormGrad<T> norm = {Data<T>(dy),
                              Data<T>(sum),
                              Data<float>(statistics),
                              Data<float>(gamma),
                              positions.positions(),
                              MakeDropout(seed, stream_, kept_),
                              width,
                              partial.data(),
                              Data<T>(outputs[0]),
                              Data<T>(outputs[1]),
                              Data<float>(outputs[2]),
                              Data<float>(outputs[3]),
                              Data<float>(outputs[4])};
    CurrentOperations<T>().dropout_add_norm_grad(MakeLoop(context), norm);
  }

  int64_t stream_, kept_;
};

// ------------------------------------------------- cross entropy of masked tokens

// Checks the inputs that both operations have.
absl::Status CheckLogits(const Tensor& logits, const Tensor& bias, const Tensor& labels) {
  TF_RETURN_IF_ERROR(RequireShape(bias, "bias", {kAnySize}));
  TF_RETURN_IF_ERROR(RequireWideMatrix(logits, "logits", bias.NumElements()));
  TF_RETURN_IF_ERROR(RequireShape(labels, "labels", {logits.dim_size(0)}));
  return RequireIndices(labels, "labels", bias.NumElements());
}

template <typename T>
CrossEntropy<T> MakeCrossEntropy(OpKernelContext* context) {
  const Tensor &logits = context->input(0), &bias = context->input(1);
  return {Data<T>(logits),    Data<float>(bias),  Data<int32_t>(context->input(2)),
          logits.dim_size(0), logits.dim_size(1), bias.NumElements()};
}

template <typename T>
class CrossEntropyOp : public Operation {
 public:
  using Operation::Operation;

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& labels = context->input(2);
    OP_REQUIRES_OK(context,
                   CheckLogits(context->input(0), context->input(1), labels));
    Tensor *losses, *normalisers;
    OP_REQUIRES_OK(context, context->allocate_output(0, labels.shape(), &losses));
    OP_REQUIRES_OK(context, context->allocate_output(1, labels.shape(), &normalisers));
    CurrentOperations<T>().cross_entropy(MakeLoop(context), MakeCrossEntropy<T>(context),
                                         Data<float>(losses), Data<float>(normalisers));
  }
};

template <typename T>
class CrossEntropyGradOp : public Operation {
 public:
  using Operation::Operation;

 private:
  void Run(OpKernelContext* context) override {
    const Tensor &logits = context->input(0), &bias = context->input(1);
    const Tensor& labels = context->input(2);
    const Tensor &normalisers = context->input(3), &dlosses = context->input(4);
    OP_REQUIRES_OK(
        context,
        FirstError({CheckLogits(logits, bias, labels),
                    RequireSameShape(normalisers, "normalisers", labels, "labels"),
                    RequireSameShape(dlosses, "dlosses", labels, "labels")}));
    Tensor *dlogits, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, logits.shape(), &dlogits));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    std::vector<float> partial(kParts * bias.NumElements());
    CurrentOperations<T>().cross_entropy_grad(
        MakeLoop(context), MakeCrossEntropy<T>(context), Data<float>(normalisers),
        Data<float>(dlosses), partial.data(), Data<T>(dlogits), Data<float>(dbias));
  }
};

// ----------------------------------------------------------------- registrations

REGISTER_OP("BertBiasGelu")
    .Input("x: T")
    .Input("bias: float")
    .Output("y: T")
    .Attr("T: {bfloat16, float}")
    .Attr("approximate: bool")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x;
      TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
      c->set_output(0, x);
      return absl::OkStatus();
    });
BERT_TF_REGISTER("BertBiasGelu", BiasGeluOp);

REGISTER_OP("BertBiasGeluGrad")
    .Input("x: T")
    .Input("bias: float")
    .Input("dy: T")
    .Output("dx: T")
    .Output("dbias: float")
    .Attr("T: {bfloat16, float}")
    .Attr("approximate: bool")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x;
      TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
      TF_RETURN_IF_ERROR(InferSame(c, 2, &x));
      c->set_output(0, x);
      c->set_output(1, c->input(1));
      return absl::OkStatus();
    });
BERT_TF_REGISTER("BertBiasGeluGrad", BiasGeluGradOp);

REGISTER_OP("BertDropoutAddNorm")
    .Input("x: T")
    .Input("bias: float")
    .Input("residual: T")
    .Input("gamma: float")
    .Input("beta: float")
    .Input("input_mask: int32")
    .Input("seed: int32")
    .Output("y: T")
    .Output("sum: T")
    .Output("statistics: float")
    .Attr("T: {bfloat16, float}")
    .Attr("stream: int")
    .Attr("kept: int")
    .Attr("epsilon: float")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle x, vector = c->input(1);
      TF_RETURN_IF_ERROR(InferRows(c, 0, 1, &x));
      TF_RETURN_IF_ERROR(InferSame(c, 2, &x));
      for (int i = 3; i < 5; ++i) TF_RETURN_IF_ERROR(InferSame(c, i, &vector));
      TF_RETURN_IF_ERROR(InferMaskAndSeed(c, 5, 6));
      for (int i = 0; i < 2; ++i) c->set_output(i, x);
      c->set_output(2, c->Matrix(InferenceContext::kUnknownDim, 2));
      return absl::OkStatus();
    });
BERT_TF_REGISTER("BertDropoutAddNorm", DropoutAddNormOp);

REGISTER_OP("BertDropoutAddNormGrad")
    .Input("dy: T")
    .Input("sum: T")
    .Input("statistics: float")
    .Input("gamma: float")
    .Input("input_mask: int32")
    .Input("seed: int32")
    .Output("dx: T")
    .Output("dresidual: T")
    .Output("dbias: float")
    .Output("dgamma: float")
    .Output("dbeta: float")
    .Attr("T: {bfloat16, float}")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle dy;
      TF_RETURN_IF_ERROR(InferRows(c, 0, 3, &dy));
      TF_RETURN_IF_ERROR(InferSame(c, 1, &dy));
      TF_RETURN_IF_ERROR(InferMaskAndSeed(c, 4, 5));
      for (int i = 0; i < 2; ++i) c->set_output(i, dy);
      for (int i = 2; i < 5; ++i) c->set_output(i, c->input(3));
      return absl::OkStatus();
    });
BERT_TF_REGISTER("BertDropoutAddNormGrad", DropoutAddNormGradOp);

// The shape of one number for each row of logits [R, V or more].
absl::Status InferLosses(InferenceContext* c, ShapeHandle* losses) {
  ShapeHandle logits, bias;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &logits));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &bias));
  *losses = c->Vector(c->Dim(logits, 0));
  return InferSame(c, 2, losses);
}

REGISTER_OP("BertCrossEntropy")
    .Input("logits: T")
    .Input("bias: float")
    .Input("labels: int32")
    .Output("losses: float")
    .Output("normalisers: float")
    .Attr("T: {bfloat16, float}")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle losses;
      TF_RETURN_IF_ERROR(InferLosses(c, &losses));
      for (int i = 0; i < 2; ++i) c->set_output(i, losses);
      return absl::OkStatus();
    });
BERT_TF_REGISTER("BertCrossEntropy", CrossEntropyOp);

REGISTER_OP("BertCrossEntropyGrad")
    .Input("logits: T")
    .Input("bias: float")
    .Input("labels: int32")
    .Input("normalisers: float")
    .Input("dlosses: float")
    .Output("dlogits: T")
    .Output("dbias: float")
    .Attr("T: {bfloat16, float}")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle losses;
      TF_RETURN_IF_ERROR(InferLosses(c, &losses));
      for (int i = 3; i < 5; ++i) TF_RETURN_IF_ERROR(InferSame(c, i, &losses));
      for (int i = 0; i < 2; ++i) c->set_output(i, c->input(i));
      return absl::OkStatus();
    });
BERT_TF_REGISTER("BertCrossEntropyGrad", CrossEntropyGradOp);

}  // namespace bert_tf
