#define BERT_TF_ISA avx2
#define BERT_TF_ISA_NAME "avx2"
#define BERT_TF_TABLE kAvx2
#include "isa.inc"
