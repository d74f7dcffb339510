// The norm of all gradients, and one step of LAMB or Adam on one variable, in place, as
// TensorFlow operations; optimizer.h has the arithmetic.

#include <functional>

#include "operation.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace bert_tf {

using tensorflow::Var;

// The sum of the squares of all tensors: per block, then over the blocks in order, so that
// it is the same for any number of threads.
class SquareSumOp : public Operation {
 public:
  using Operation::Operation;

 private:
  static constexpr int64_t kBlockSize = 1 << 16;

  struct Block {
    const float* data;
    int64_t count;
  };

  void Run(OpKernelContext* context) override {
    OpInputList tensors;
    OP_REQUIRES_OK(context, context->input_list("tensors", &tensors));
    std::vector<Block> blocks;
    for (const Tensor& tensor : tensors) {
      const int64_t count = tensor.NumElements();
      for (int64_t first = 0; first < count; first += kBlockSize)
        blocks.push_back(
            {Data<float>(tensor) + first, std::min(kBlockSize, count - first)});
    }
    std::vector<double> sums(blocks.size());
    const Isa& isa = CurrentIsa();
    const auto add = [&](int64_t i) {
      sums[i] = isa.square_sum(blocks[i].data, blocks[i].count);
    };
    const Loop loop = MakeLoop(context);
    loop.run(
        loop, blocks.size(), kBlockSize,
        [](const void* f, int64_t i) { (*static_cast<const decltype(add)*>(f))(i); }, &add);
    double sum = 0.0;
    for (const double part : sums) sum += part;
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, {}, &output));
    output->scalar<float>()() = static_cast<float>(sum);
  }
};

REGISTER_OP("BertSquareSum")
    .Input("tensors: count * float")
    .Output("sum: float")
    .Attr("count: int >= 1")
    .SetShapeFn(tensorflow::shape_inference::ScalarShape);
REGISTER_KERNEL_BUILDER(Name("BertSquareSum").Device(DEVICE_CPU), SquareSumOp);

class AdamStepOp : public Operation {
 public:
  explicit AdamStepOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("beta_1", &beta_1_));
    OP_REQUIRES_OK(context, context->GetAttr("beta_2", &beta_2_));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(context, context->GetAttr("weight_decay_rate", &decay_));
    OP_REQUIRES_OK(context, context->GetAttr("layer_adaptation", &adapts_));
  }

 private:
  // Learning rate, factor of the gradient, 1 / (1 - beta^step) of m and of v, 1 - beta_1
  // and 1 - beta_2, which float32 cannot take from its own betas.
  static constexpr int64_t kScalars = 6;

  void Run(OpKernelContext* context) override {
    static const char* const kNames[3] = {"weights", "first_moment", "second_moment"};
    const Tensor &gradient = context->input(3), &scalars = context->input(4);
    OP_REQUIRES_OK(context, RequireShape(scalars, "scalars", {kScalars}));
    tensorflow::core::RefCountPtr<Var> variables[3];
    for (int i = 0; i < 3; ++i) {
      OP_REQUIRES_OK(context, RequireShape(context->input(i), kNames[i], {}));
      OP_REQUIRES_OK(context,
                     tensorflow::LookupResource(
                         context, tensorflow::HandleFromInput(context, i),
                         &variables[i]));
    }
    // In order of address, so that two steps that share variables do not deadlock.
    Var* in_order[3] = {variables[0].get(), variables[1].get(), variables[2].get()};
    std::sort(in_order, in_order + 3, std::less<Var*>());
    OP_REQUIRES(context, in_order[0] != in_order[1] && in_order[1] != in_order[2],
                InvalidArgument("weights, first_moment and second_moment must be three "
                                "variables, not one of them twice"));
    tensorflow::mutex_lock first(*in_order[0]->mu());
    tensorflow::mutex_lock second(*in_order[1]->mu());
    tensorflow::mutex_lock third(*in_order[2]->mu());
    for (int i = 0; i < 3; ++i) {
      const Tensor& tensor = *variables[i]->tensor();
      OP_REQUIRES(context, tensor.dtype() == tensorflow::DT_FLOAT,
                  InvalidArgument(kNames[i], " must be float32, not ",
                                  tensorflow::DataTypeString(tensor.dtype())));
      OP_REQUIRES(context, tensor.IsInitialized(),
                  InvalidArgument(kNames[i], " has no value yet"));
      OP_REQUIRES_OK(context,
                     RequireSameShape(tensor, kNames[i], gradient, "gradient"));
    }
    const int64_t count = gradient.NumElements();
    float* values[3];
    for (int i = 0; i < 3; ++i) {
      Tensor* tensor = variables[i]->tensor();
      if (!tensor->RefCountIsOne()) {  // The old value is still being read.
        Tensor copy;
        OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT,
                                                       tensor->shape(), &copy));
        std::copy_n(Data<float>(*tensor), count, Data<float>(&copy));
        *tensor = copy;
      }
      values[i] = Data<float>(tensor);
    }
    const float* s = Data<float>(scalars);
    CurrentIsa().adam_step(
        MakeLoop(context),
        {values[0], values[1], values[2], Data<float>(gradient), count, s[0], beta_1_,
         beta_2_, epsilon_, decay_, s[1], s[2], s[3], s[4], s[5], adapts_});
  }

  float beta_1_, beta_2_, epsilon_, decay_;
  bool adapts_;
};

REGISTER_OP("BertAdamStep")
    .Input("weights: resource")
    .Input("first_moment: resource")
    .Input("second_moment: resource")
    .Input("gradient: float")
    .Input("scalars: float")
    .Attr("beta_1: float")
    .Attr("beta_2: float")
    .Attr("epsilon: float")
    .Attr("weight_decay_rate: float")
    .Attr("layer_adaptation: bool")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle shape;
      for (int i = 0; i < 3; ++i) TF_RETURN_IF_ERROR(c->WithRank(c->input(i), 0, &shape));
      return c->Merge(c->input(4), c->Vector(6), &shape);
    });
REGISTER_KERNEL_BUILDER(Name("BertAdamStep").Device(DEVICE_CPU), AdamStepOp);

}  // namespace bert_tf
