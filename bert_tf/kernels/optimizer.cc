// The norm of all gradients, and one step of LAMB or Adam on one variable, in place: two
// passes over memory, or one. The formulas are those of bert_tf/training/updates.py.

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "parallel.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace bert_tf {

using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::Var;

constexpr int64_t kRun = 2048;  // Numbers summed in float32: few enough.

// The sum of the squares of all tensors: float32 within a run, float64 over the runs of a
// block, and over blocks in their order, so that it is the same for any number of threads.
class SquareSumOp : public Operation {
 public:
  using Operation::Operation;

 private:
  void Run(OpKernelContext* context) override {
    OpInputList tensors;
    OP_REQUIRES_OK(context, context->input_list("tensors", &tensors));
    struct Block {
      const float* data;
      int64_t count;
    };
    std::vector<Block> blocks;
    for (const Tensor& tensor : tensors) {
      const int64_t count = tensor.NumElements();
      for (int64_t first = 0; first < count; first += kBlock)
        blocks.push_back({Floats(tensor) + first, std::min(kBlock, count - first)});
    }
    std::vector<double> sums(blocks.size());
    ForEach(context, blocks.size(), kBlock, [&](int64_t i) {
      for (int64_t first = 0; first < blocks[i].count; first += kRun) {
        const int64_t last = std::min(first + kRun, blocks[i].count);
        float sum = 0.0f;
        for (int64_t j = first; j < last; ++j)
          sum += blocks[i].data[j] * blocks[i].data[j];
        sums[i] += sum;
      }
    });
    double sum = 0.0;
    for (const double part : sums) sum += part;
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, {}, &output));
    output->scalar<float>()() = static_cast<float>(sum);
  }

  static constexpr int64_t kBlock = 1 << 16;
};

REGISTER_OP("BertSquareSum")
    .Input("tensors: count * float")
    .Output("sum: float")
    .Attr("count: int >= 1")
    .SetShapeFn(tensorflow::shape_inference::ScalarShape);
REGISTER_KERNEL_BUILDER(Name("BertSquareSum").Device(tensorflow::DEVICE_CPU),
                        SquareSumOp);

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
    // By address: two steps that share variables do not wait for each other.
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
      if (!tensor->RefCountIsOne()) {  // Somebody still reads the old value.
        Tensor copy;
        OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT,
                                                       tensor->shape(), &copy));
        std::copy_n(Floats(*tensor), count, Floats(&copy));
        *tensor = copy;
      }
      values[i] = Floats(tensor);
    }
    Step(context, values[0], values[1], values[2], Floats(gradient), count,
         Floats(scalars));
  }

  static constexpr int64_t kScalars = 6;

  // scalars: learning rate, factor of the gradient, 1 / (1 - beta^step) of m and of v,
  // 1 - beta_1 and 1 - beta_2, which float32 cannot take from its own betas.
  void Step(OpKernelContext* context, float* w, float* m, float* v, const float* g,
            int64_t count, const float* scalars) const {
    const Formula formula = {beta_1_,    beta_2_,    epsilon_,   decay_,
                             scalars[1], scalars[2], scalars[3], scalars[4], scalars[5]};
    const float rate = scalars[0];
    if (!adapts_) {
      ForParts(context, count, 8, [=](int64_t, int64_t begin, int64_t end) {
        Adam(formula, rate, end - begin, w + begin, m + begin, v + begin, g + begin);
      });
      return;
    }
    std::vector<Sums> sums(kParts);
    ForParts(context, count, 8, [=, &sums](int64_t part, int64_t begin, int64_t end) {
      sums[part] =
          Moments(formula, end - begin, w + begin, m + begin, v + begin, g + begin);
    });
    double w_square = 0.0, u_square = 0.0;
    for (const Sums& part : sums) {
      w_square += part.w;
      u_square += part.u;
    }
    const bool has_ratio = w_square > 0.0 && u_square > 0.0;
    const float step =
        rate * (has_ratio ? static_cast<float>(std::sqrt(w_square / u_square)) : 1.0f);
    ForParts(context, count, 8, [=](int64_t, int64_t begin, int64_t end) {
      Move(formula, step, end - begin, w + begin, m + begin, v + begin);
    });
  }

  // By value, and pointers restricted: a number behind a reference might be one of those
  // that a loop writes, which then is not vector code and takes 2.2 times as long.
  struct Formula {
    float beta_1, beta_2, epsilon, decay, factor, m_scale, v_scale, m_rest, v_rest;

    float Direction(float w, float m, float v) const {
      return m * m_scale / (std::sqrt(v * v_scale) + epsilon) + decay * w;
    }
    float FirstMoment(float m, float d) const { return beta_1 * m + m_rest * d; }
    float SecondMoment(float v, float d) const { return beta_2 * v + v_rest * d * d; }
  };

  struct Sums {
    double w = 0.0, u = 0.0;
  };

  static void Adam(const Formula f, const float rate, int64_t count, float* __restrict w,
                   float* __restrict m, float* __restrict v, const float* __restrict g) {
    for (int64_t i = 0; i < count; ++i) {
      const float d = g[i] * f.factor;
      m[i] = f.FirstMoment(m[i], d);
      v[i] = f.SecondMoment(v[i], d);
      w[i] -= rate * f.Direction(w[i], m[i], v[i]);
    }
  }

  // The new moments, and what the trust ratio is made of.
  static Sums Moments(const Formula f, int64_t count, const float* __restrict w,
                      float* __restrict m, float* __restrict v,
                      const float* __restrict g) {
    Sums sums;
    for (int64_t first = 0; first < count; first += kRun) {
      const int64_t last = std::min(first + kRun, count);
      float w_part = 0.0f, u_part = 0.0f;
      for (int64_t i = first; i < last; ++i) {
        const float d = g[i] * f.factor;
        m[i] = f.FirstMoment(m[i], d);
        v[i] = f.SecondMoment(v[i], d);
        const float u = f.Direction(w[i], m[i], v[i]);
        w_part += w[i] * w[i];
        u_part += u * u;
      }
      sums.w += w_part;
      sums.u += u_part;
    }
    return sums;
  }

  static void Move(const Formula f, const float step, int64_t count,
                   float* __restrict w, const float* __restrict m,
                   const float* __restrict v) {
    for (int64_t i = 0; i < count; ++i) w[i] -= step * f.Direction(w[i], m[i], v[i]);
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
REGISTER_KERNEL_BUILDER(Name("BertAdamStep").Device(tensorflow::DEVICE_CPU),
                        AdamStepOp);

}  // namespace bert_tf
