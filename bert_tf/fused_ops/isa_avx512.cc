#define BERT_TF_ISA avx512
#define BERT_TF_ISA_NAME "avx512"
#define BERT_TF_TABLE kAvx512
#include "isa.inc"
