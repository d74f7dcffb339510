#define BERT_TF_ISA amx
#define BERT_TF_ISA_NAME "amx"
#define BERT_TF_TABLE kAmx
#include "isa.inc"
