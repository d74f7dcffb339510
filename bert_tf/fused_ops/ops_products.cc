// The matrix products of a dense layer as TensorFlow operations; products.h has the
// arithmetic.

#include "operation.h"

namespace bert_tf {

using tensorflow::OpOutputList;

// Kernels [I, O] side by side -> panels of W and of its transpose.
class PackKernelsOp : public Operation {
 public:
  using Operation::Operation;

 private:
  void Run(OpKernelContext* context) override {
    OpInputList kernels;
    OP_REQUIRES_OK(context, context->input_list("kernels", &kernels));
    OP_REQUIRES(context, kernels[0].dims() == 2 && kernels[0].NumElements() > 0,
                InvalidArgument("kernels must be matrices that are not empty, not ",
                                kernels[0].shape().DebugString()));
    const int64_t rows = kernels[0].dim_size(0), width = kernels[0].dim_size(1);
    const int64_t count = kernels.size();
    for (const Tensor& kernel : kernels)
      OP_REQUIRES_OK(context, RequireShape(kernel, "each of kernels", {rows, width}));
    OP_REQUIRES(context, count == 1 || width % kBlock == 0,
                InvalidArgument("kernels side by side must be 32 n wide, not ", width));
    Tensor* outputs[2];
    const TensorShape shape({RoundUp(rows) * RoundUp(count * width)});
    for (int i = 0; i < 2; ++i)
      OP_REQUIRES_OK(context, context->allocate_output(i, shape, &outputs[i]));
    std::vector<const float*> data;
    for (const Tensor& kernel : kernels) data.push_back(Data<float>(kernel));
    CurrentIsa().pack_kernels(MakeLoop(context), data.data(), count, rows, width,
                              Data<bfloat>(outputs[0]), Data<bfloat>(outputs[1]));
  }
};

class ProductBase : public Operation {
 public:
  explicit ProductBase(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
  }

 protected:
  // Checks the inputs.
  absl::Status Start(OpKernelContext* context, Product* product) {
    const Tensor &x = context->input(0), &panels = context->input(1);
    int64_t rows, depth;
    TF_RETURN_IF_ERROR(RequireRows(x, "x", &rows, &depth));
    if (depth % kBlock != 0)
      return InvalidArgument("x must have a depth of 32 n, not ", depth);
    // Compared before it is rounded up, which might overflow.
    if (panels.dims() != 1 || width_ > panels.NumElements() ||
        panels.NumElements() % depth != 0 ||
        panels.NumElements() / depth != RoundUp(width_))
      return InvalidArgument("panels must be those of a [", depth, ", ", width_,
                             "] matrix, not ", panels.shape().DebugString());
    *product = {Data<bfloat>(x), Data<bfloat>(panels), rows, depth, width_};
    return absl::OkStatus();
  }

  // Allocates an output [..., width], or none if it is not needed.
  absl::Status Allocate(OpKernelContext* context, int output, bfloat** y) {
    *y = nullptr;
    if (!context->output_required(output)) return absl::OkStatus();
    TensorShape shape = context->input(0).shape();
    TF_RETURN_IF_ERROR(shape.SetDimWithStatus(shape.dims() - 1, width_));
    Tensor* tensor;
    TF_RETURN_IF_ERROR(context->allocate_output(output, shape, &tensor));
    *y = Data<bfloat>(tensor);
    return absl::OkStatus();
  }

  int64_t width_;
};

// x [..., depth] times panels -> y [..., width], plus a matrix like y if there is one.
class PlainProductOp : public ProductBase {
 public:
  using ProductBase::ProductBase;

 private:
  void Run(OpKernelContext* context) override {
    Product product;
    bfloat* y;
    OP_REQUIRES_OK(context, Start(context, &product));
    OpInputList added;
    OP_REQUIRES_OK(context, context->input_list("added", &added));
    OP_REQUIRES(context, added.size() <= 1,
                InvalidArgument("what is added must be one matrix, not ", added.size()));
    for (const Tensor& tensor : added) {
      // The gradient of x [B, S, H] may come as [T, H].
      OP_REQUIRES(context,
                  width_ % kBlock == 0 && tensor.dims() > 0 &&
                      tensor.dim_size(tensor.dims() - 1) == width_ &&
                      tensor.NumElements() / width_ == product.rows,
                  InvalidArgument("what is added must be [", product.rows, ", ", width_,
                                  "], 32 n wide, not ", tensor.shape().DebugString()));
    }
    OP_REQUIRES_OK(context, Allocate(context, 0, &y));
    if (product.rows == 0 || y == nullptr) return;
    CurrentIsa().product(MakeLoop(context), product,
                         added.size() > 0 ? Data<bfloat>(added[0]) : nullptr, y);
  }
};

// The product, and the activation of product + bias. Only the gradient reads the product:
// a prediction does not write it.
class GeluProductOp : public ProductBase {
 public:
  explicit GeluProductOp(OpKernelConstruction* context) : ProductBase(context) {
    OP_REQUIRES_OK(context, context->GetAttr("approximate", &approximate_));
  }

 private:
  void Run(OpKernelContext* context) override {
    Product product;
    bfloat *y, *activated;
    const Tensor& bias = context->input(2);
    OP_REQUIRES(context, width_ % kBlock == 0,
                InvalidArgument("width must be 32 n, not ", width_));
    OP_REQUIRES_OK(context, RequireShape(bias, "bias", {width_}));
    OP_REQUIRES_OK(context, Start(context, &product));
    OP_REQUIRES_OK(context, Allocate(context, 0, &y));
    OP_REQUIRES_OK(context, Allocate(context, 1, &activated));
    if (product.rows == 0) return;
    CurrentIsa().product_gelu(MakeLoop(context), product, Data<float>(bias), approximate_,
                              y, activated);
  }

  bool approximate_;
};

// x [rows, I] and dy [rows, n O] -> n gradients [I', O], x transposed times dy, added to
// the sums that are given and not empty. Columns of x from I' on are padding.
class KernelGradientsOp : public Operation {
 public:
  explicit KernelGradientsOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("height", &height_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &dy = context->input(1);
    OpOutputList outputs;
    OP_REQUIRES_OK(context, context->output_list("gradients", &outputs));
    int64_t rows, depth, dy_rows, total;
    OP_REQUIRES_OK(context, FirstError({RequireRows(x, "x", &rows, &depth),
                                        RequireRows(dy, "dy", &dy_rows, &total)}));
    OP_REQUIRES(context, rows == dy_rows,
                InvalidArgument("dy must have the rows of x, but for its last axis: ",
                                "shape ", dy.shape().DebugString(), " and shape ",
                                x.shape().DebugString()));
    OP_REQUIRES(context, height_ <= depth,
                InvalidArgument("height must be at most the depth of x, ", depth,
                                ", not ", height_));
    OP_REQUIRES(context, total % outputs.size() == 0,
                InvalidArgument("dy must be as wide as ", outputs.size(),
                                " gradients side by side, not ", total));
    const int64_t width = total / outputs.size();
    TensorShape shape;
    OP_REQUIRES_OK(context, TensorShape::BuildTensorShape({height_, width}, &shape));
    OpInputList sums;
    OP_REQUIRES_OK(context, context->input_list("sums", &sums));
    const bool adds = sums.size() > 0 && sums[0].NumElements() > 0;
    OP_REQUIRES(context, sums.size() == 0 || sums.size() == outputs.size(),
                InvalidArgument("there must be a sum for each gradient, or none"));
    std::vector<float*> gradients;
    for (int i = 0; i < outputs.size(); ++i) {
      Tensor* gradient;
      if (adds) {
        OP_REQUIRES_OK(context,
                       RequireShape(sums[i], "each sum in sums", {height_, width}));
        // In place, unless the sum is still being read elsewhere.
        OP_REQUIRES_OK(context, context->forward_input_or_allocate_output(
                                    {2 + i}, i, shape, &gradient));
        if (Data<float>(gradient) != Data<float>(sums[i]))
          std::copy_n(Data<float>(sums[i]), height_ * width, Data<float>(gradient));
      } else {
        OP_REQUIRES_OK(context, outputs.allocate(i, shape, &gradient));
        OP_REQUIRES(context, sums.size() == 0 || sums[i].NumElements() == 0,
                    InvalidArgument("either all sums are empty or none"));
        if (rows == 0) std::fill_n(Data<float>(gradient), height_ * width, 0.0f);
      }
      gradients.push_back(Data<float>(gradient));
    }
    if (rows == 0) return;
    CurrentIsa().kernel_gradients(
        MakeLoop(context),
        {Data<bfloat>(x), Data<bfloat>(dy), rows, depth, height_,
         static_cast<int64_t>(outputs.size()), width, adds, gradients.data()});
  }

  int64_t height_;
};

// ------------------------------------------------------------------- registrations

REGISTER_OP("BertPackKernels")
    .Input("kernels: count * float")
    .Output("forward: bfloat16")
    .Output("backward: bfloat16")
    .Attr("count: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle kernel;
      for (int i = 0; i < c->num_inputs(); ++i) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(i), 2, &kernel));
        TF_RETURN_IF_ERROR(InferSame(c, 0, &kernel));
      }
      for (int i = 0; i < 2; ++i)
        c->set_output(i, c->Vector(InferenceContext::kUnknownDim));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertPackKernels").Device(DEVICE_CPU), PackKernelsOp);

absl::Status WidthOfAttribute(InferenceContext* c) {
  int64_t width;
  TF_RETURN_IF_ERROR(c->GetAttr("width", &width));
  ShapeHandle shape;
  TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 1, &shape));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &shape));
  TF_RETURN_IF_ERROR(c->ReplaceDim(c->input(0), -1, c->MakeDim(width), &shape));
  c->set_output(0, shape);
  return absl::OkStatus();
}

REGISTER_OP("BertProduct")
    .Input("x: bfloat16")
    .Input("panels: bfloat16")
    .Input("added: num_added * bfloat16")
    .Output("y: bfloat16")
    .Attr("num_added: int >= 0")
    .Attr("width: int >= 1")
    .SetShapeFn(WidthOfAttribute);
REGISTER_KERNEL_BUILDER(Name("BertProduct").Device(DEVICE_CPU), PlainProductOp);

REGISTER_OP("BertProductGelu")
    .Input("x: bfloat16")
    .Input("panels: bfloat16")
    .Input("bias: float")
    .Output("y: bfloat16")
    .Output("activated: bfloat16")
    .Attr("width: int >= 1")
    .Attr("approximate: bool")
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(WidthOfAttribute(c));
      ShapeHandle bias;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 1, &bias));
      c->set_output(1, c->output(0));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertProductGelu").Device(DEVICE_CPU), GeluProductOp);

REGISTER_OP("BertKernelGradients")
    .Input("x: bfloat16")
    .Input("dy: bfloat16")
    .Input("sums: num_sums * float")
    .Output("gradients: count * float")
    .Attr("num_sums: int >= 0")
    .Attr("count: int >= 1")
    .Attr("height: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      int64_t height;
      TF_RETURN_IF_ERROR(c->GetAttr("height", &height));
      ShapeHandle x, dy;
      DimensionHandle width;
      TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 1, &x));
      TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(1), 1, &dy));
      TF_RETURN_IF_ERROR(c->Divide(c->Dim(dy, -1), c->num_outputs(), true, &width));
      for (int i = 0; i < c->num_outputs(); ++i)
        c->set_output(i, c->Matrix(height, width));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertKernelGradients").Device(DEVICE_CPU),
                        KernelGradientsOp);

}  // namespace bert_tf
