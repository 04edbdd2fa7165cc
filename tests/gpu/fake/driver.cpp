// libcuda.so.1: what this project asks the driver, and the one function that ONNX Runtime links.
#include <cstring>

#include "machine.h"

using fake::gpus;

extern "C" {

int cuInit(unsigned) { return gpus().empty() ? 100 /* CUDA_ERROR_NO_DEVICE */ : 0; }

int cuDriverGetVersion(int* version) {
  *version = fake::driver_version();
  return 0;
}

int cuDeviceGetCount(int* count) {
  *count = static_cast<int>(gpus().size());
  return 0;
}

int cuDeviceGet(int* device, int index) {
  *device = index;
  return 0;
}

int cuDeviceGetName(char* name, int length, int device) {
  std::strncpy(name, gpus().at(device).name.c_str(), length);
  return 0;
}

int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  *bytes = gpus().at(device).memory;
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const int major = 75, minor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
  int sm = gpus().at(device).sm;
  *value = attribute == major ? sm / 10 : attribute == minor ? sm % 10 : 0;
  return 0;
}

int cuTensorMapEncodeTiled() { return 0; }

}
