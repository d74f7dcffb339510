// The interface between the operations and the instruction sets: structs of arguments, and
// a table of functions that each instruction set fills in.
//
// The functions of an instruction set are compiled with its flags, in a separate translation
// unit and namespace. That unit must not include a header with inline functions outside of
// the namespace: the linker keeps one copy of such a function, which could be the one with
// instructions that this processor lacks.

#ifndef BERT_TF_FUSED_OPS_ISA_H_
#define BERT_TF_FUSED_OPS_ISA_H_

#include <stdint.h>

namespace bert_tf {

using bfloat = uint16_t;  // The upper half of a float32.

// Sums over rows are split into this many parts for any number of threads, so that they
// round equally.
constexpr int64_t kParts = 32;
constexpr int64_t kBlock = 32;  // Rows, columns and depth of one step of a product.

__attribute__((always_inline)) constexpr int64_t RoundUp(int64_t x) {
  return (x + kBlock - 1) / kBlock * kBlock;
}

// Calls function(i) for each i in [0, total), in parallel; cost: cycles of each.
struct Loop {
  void (*run)(const Loop& loop, int64_t total, int64_t cost,
              void (*call)(const void* function, int64_t i), const void* function);
  void* context;  // TensorFlow's OpKernelContext.
  int64_t num_threads;
};

// The positions of a batch [B, S] that have a token in [T, ...]: all of them, all up to the
// last token of each row, or any others. The tokens of a row are consecutive.
struct Positions {
  int64_t rows, length;    // B, S
  const int64_t* begins;   // [B + 1]: the first token of each row, and T.
  const int32_t* offsets;  // [T]: each token's position in its row. Null: 0, 1, 2, ...
};

// The dropout of one layer: one Philox stream for seed, layer and step.
struct Dropout {
  uint64_t key, step, first_row;
  int64_t kept;  // A number is kept if its random byte is below; 256: no dropout.
};

// The inputs of a layer's attention.
template <typename T>
struct Attention {
  const T* x;                // [tokens, 3 H]
  const float* bias;         // [3 H]
  const int32_t* sequences;  // [B, S], 0 is padding.
  Positions positions;             // Of x, without offsets.
  Positions queries;            // The outputs to compute, [queries, H]; all are in x.
  Dropout dropout;
  int64_t heads, head;  // N, D
};

// The inputs of dropout, residual and normalisation.
template <typename T>
struct Norm {
  const T *x, *residual;             // [tokens, H]
  const float *bias, *gamma, *beta;  // [H]
  Positions positions;
  Dropout dropout;
  int64_t width;  // H
  float epsilon;
};

template <typename T>
struct NormGrad {
  const T *dy, *sum;         // [tokens, H]
  const float *statistics;   // [tokens, 2]
  const float *gamma;        // [H]
  Positions positions;
  Dropout dropout;
  int64_t width;
  float* partial;                    // [3, kParts, H]
  T *dx, *dresidual;                 // [tokens, H]
  float *dbias, *dgamma, *dbeta;     // [H]
};

template <typename T>
struct CrossEntropy {
  const T* logits;    // [rows, stride]
  const float* bias;  // [width]; the columns from `width` on are padding.
  const int32_t* labels;
  int64_t rows, stride, width;
};

// Operations on activations of one type.
template <typename T>
struct Operations {
  void (*bias_gelu)(const Loop&, const T* x, const float* bias, int64_t rows,
                    int64_t width, bool approximate, T* y);
  // partial: [kParts, width].
  void (*bias_gelu_grad)(const Loop&, const T* x, const float* bias, const T* dy,
                         int64_t rows, int64_t width, bool approximate, float* partial,
                         T* dx, float* dbias);
  // sum: of x, bias and residual; null if it is not needed.
  void (*dropout_add_norm)(const Loop&, const Norm<T>&, T* y, T* sum, float* statistics);
  void (*dropout_add_norm_grad)(const Loop&, const NormGrad<T>&);
  void (*attention)(const Loop&, const Attention<T>&, T* y, float* normalisers);
  // row_sums: [B, 3 H].
  void (*attention_grad)(const Loop&, const Attention<T>&, const float* normalisers,
                         const T* dy, float* row_sums, T* dx, float* dbias);
  void (*cross_entropy)(const Loop&, const CrossEntropy<T>&, float* losses,
                        float* normalisers);
  // partial: [kParts, width].
  void (*cross_entropy_grad)(const Loop&, const CrossEntropy<T>&,
                             const float* normalisers, const float* dlosses,
                             float* partial, T* dlogits, float* dbias);
};

// x [rows, depth], panels of a matrix [depth, width].
struct Product {
  const bfloat *x, *panels;
  int64_t rows, depth, width;
};

struct KernelGradients {
  const bfloat *x, *dy;  // [rows, depth], [rows, count * width]
  int64_t rows, depth, height, count, width;
  bool adds;                 // Add to the gradients instead of overwriting them.
  float* const* gradients;  // count of [height, width]
};

struct AdamStep {
  float *w, *m, *v;
  const float* g;
  int64_t count;
  float rate, beta_1, beta_2, epsilon, decay, factor, m_scale, v_scale, m_rest, v_rest;
  bool adapts;  // LAMB's trust ratio.
};

// The functions of one instruction set.
struct Isa {
  const char* name;
  Operations<bfloat> bf16;
  Operations<float> fp32;
  void (*pack_kernels)(const Loop&, const float* const* kernels, int64_t count,
                       int64_t rows, int64_t width, bfloat* forward, bfloat* backward);
  void (*product)(const Loop&, const Product&, const bfloat* added, bfloat* y);
  // y and activated: null if not needed.
  void (*product_gelu)(const Loop&, const Product&, const float* bias, bool approximate,
                       bfloat* y, bfloat* activated);
  void (*kernel_gradients)(const Loop&, const KernelGradients&);
  double (*square_sum)(const float* data, int64_t count);
  void (*adam_step)(const Loop&, const AdamStep&);
};

extern const Isa kAmx, kAvx512Bf16, kAvx512, kAvx2;

// The instruction set in use.
const Isa& CurrentIsa();

// Throws std::bad_alloc.
[[noreturn]] void OutOfMemory();

}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_ISA_H_
