// cuBLAS: what must return more than success. make_environment.py generates the rest.
int cublasGetMathMode(void* handle, int* mode) { return *mode = 0; }
const char* cublasGetStatusName(int status) { return "fake cuBLAS"; }
const char* cublasGetStatusString(int status) { return "fake cuBLAS"; }
