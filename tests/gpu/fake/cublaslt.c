// cuBLASLt: what must return more than success. make_environment.py generates the rest.
#include <string.h>

// One algorithm, whatever is asked.
int cublasLtMatmulAlgoGetHeuristic(void* handle, void* operation, void* a, void* b, void* c, void* d, void* preference,
                                   int wanted, void* results, int* found) {
  *found = 1;
  memset(results, 0, 64);
  return 0;
}
