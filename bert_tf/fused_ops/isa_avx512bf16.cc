#define BERT_TF_ISA avx512bf16
#define BERT_TF_ISA_NAME "avx512bf16"
#define BERT_TF_TABLE kAvx512Bf16
#include "isa.inc"
