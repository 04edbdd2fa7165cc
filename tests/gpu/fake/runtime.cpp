// libcudart.so.13: device memory is host memory, kernels do nothing, and everything is counted.
//
// Counters, by the name given to fake_cuda_count:
//   copies_h2d copies_d2h copies_d2d, bytes_h2d bytes_d2h     whether captured or not
//   pageable_h2d                                              of the copies_h2d, those from memory that is not pinned
//   launches, captured_launches                               all kernels; of those, the ones while a graph was captured
//   synchronisations, syncs_in_capture                        the host waits; a real GPU refuses the second kind
//   captures, replays                                         graphs recorded, graphs launched
//   allocations                                               cudaMalloc
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>

#include "machine.h"

#undef cudaGetDeviceProperties

namespace {

using fake::gpus;

std::mutex lock;
std::map<std::string, long> counts;
std::map<const void*, std::string> kernel_names;
std::map<size_t, std::deque<long>> brought;  // by the size of a copy
bool capturing = false;
thread_local int current_gpu = 0;

FILE* log_file() {
  static FILE* file = [] {
    const char* path = std::getenv("FAKE_CUDA_LOG");
    return path ? std::fopen(path, "a") : nullptr;
  }();
  return file;
}

void write_log(const std::string& line) {
  if (FILE* file = log_file()) {
    std::fprintf(file, "%s\n", line.c_str());
    std::fflush(file);
  }
}

std::map<size_t, long> read_pairs(const char* variable) {
  const char* text = std::getenv(variable);
  std::istringstream parts(text ? text : "");
  std::map<size_t, long> found;
  for (std::string part; std::getline(parts, part, ',');) {
    auto colon = part.find(':');
    if (colon != std::string::npos) found[std::stoul(part)] = std::stol(part.substr(colon + 1));
  }
  return found;
}

void add(const std::string& name, long amount = 1) {
  std::lock_guard<std::mutex> held(lock);
  counts[name] += amount;
}

// Memory of one kind. Pages are only taken when they are touched, so gigabytes may be asked for.
class Memory {
 public:
  void* allocate(size_t size) {
    size_t pages = (size + 4095) / 4096 * 4096;
    if (!pages) pages = 4096;
    void* at = mmap(nullptr, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    std::lock_guard<std::mutex> held(lock);
    blocks_[static_cast<const char*>(at)] = pages;
    return at;
  }

  void release(void* at) {
    std::lock_guard<std::mutex> held(lock);
    auto found = blocks_.find(static_cast<const char*>(at));
    if (found == blocks_.end()) return;
    munmap(at, found->second);
    blocks_.erase(found);
  }

  bool holds(const void* at) const {
    std::lock_guard<std::mutex> held(lock);
    auto next = blocks_.upper_bound(static_cast<const char*>(at));
    if (next == blocks_.begin()) return false;
    --next;
    return static_cast<const char*>(at) < next->first + next->second;
  }

 private:
  std::map<const char*, size_t> blocks_;
};

Memory device_memory, pinned_memory;

cudaError_t allocate(Memory& memory, void** at, size_t size) {
  *at = memory.allocate(size);
  return *at ? cudaSuccess : cudaErrorMemoryAllocation;
}

// The value that a test wants the next copy of this size to bring to the host, put where a kernel would have left it.
// FAKE_CUDA_BRINGS, such as "4:17,8:2509", says what every copy of a size brings that has none of its own.
bool bring_value(void* to, size_t size) {
  std::lock_guard<std::mutex> held(lock);
  auto& waiting = brought[size];
  if (waiting.empty()) {
    static const std::map<size_t, long> always = read_pairs("FAKE_CUDA_BRINGS");
    auto found = always.find(size);
    if (found == always.end()) return false;
    std::memcpy(to, &found->second, size);
    return true;
  }
  std::memcpy(to, &waiting.front(), size);
  waiting.pop_front();
  return true;
}

// The direction is that of the addresses: callers may say cudaMemcpyDefault.
cudaError_t copy(void* to, const void* from, size_t size) {
  bool from_device = device_memory.holds(from), to_device = device_memory.holds(to);
  if (from_device || to_device) {
    std::string way = from_device ? (to_device ? "d2d" : "d2h") : "h2d";
    bool pageable = way == "h2d" && !pinned_memory.holds(from);
    add("copies_" + way);
    add("bytes_" + way, static_cast<long>(size));
    if (pageable) add("pageable_h2d");
    write_log(way + (pageable ? " pageable " : " ") + std::to_string(size) + (capturing ? " captured" : ""));
    if (way == "d2h" && bring_value(to, size)) return cudaSuccess;
  }
  if (to && from) std::memmove(to, from, size);
  return cudaSuccess;
}

cudaError_t launch(const void* kernel) {
  add("launches");
  if (capturing) add("captured_launches");
  if (log_file()) {
    auto found = kernel_names.find(kernel);
    write_log((capturing ? "captured kernel " : "kernel ") + (found == kernel_names.end() ? "?" : found->second));
  }
  return cudaSuccess;
}

cudaError_t synchronise() {
  add("synchronisations");
  if (capturing) add("syncs_in_capture");
  write_log(capturing ? "synchronisation in capture" : "synchronisation");
  return cudaSuccess;
}

// What a handle stands for is never asked; it must only be one of its own.
template <typename Handle>
cudaError_t make(Handle* handle) {
  *handle = static_cast<Handle>(std::malloc(8));
  return cudaSuccess;
}

int attribute_of(cudaDeviceAttr attribute, int sm) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: return sm / 10;
    case cudaDevAttrComputeCapabilityMinor: return sm % 10;
    case cudaDevAttrMultiProcessorCount: return 132;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return 32;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 48 << 10;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 227 << 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 228 << 10;
    case cudaDevAttrReservedSharedMemoryPerBlock: return 1 << 10;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrL2CacheSize: return 50 << 20;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrUnifiedAddressing: return 1;
    default: return 0;
  }
}

cudaDeviceProp properties_of(const fake::Gpu& gpu) {
  cudaDeviceProp found{};
  std::strncpy(found.name, gpu.name.c_str(), sizeof found.name - 1);
  found.major = gpu.sm / 10;
  found.minor = gpu.sm % 10;
  found.totalGlobalMem = gpu.memory;
  found.totalConstMem = 64 << 10;
  found.multiProcessorCount = 132;
  found.warpSize = 32;
  found.sharedMemPerBlock = 48 << 10;
  found.sharedMemPerBlockOptin = 227 << 10;
  found.sharedMemPerMultiprocessor = 228 << 10;
  found.reservedSharedMemPerBlock = 1 << 10;
  found.regsPerBlock = found.regsPerMultiprocessor = 65536;
  found.maxThreadsPerBlock = found.maxThreadsDim[0] = found.maxThreadsDim[1] = 1024;
  found.maxThreadsDim[2] = 64;
  found.maxThreadsPerMultiProcessor = 2048;
  found.maxBlocksPerMultiProcessor = 32;
  found.maxGridSize[0] = 2147483647;
  found.maxGridSize[1] = found.maxGridSize[2] = 65535;
  found.l2CacheSize = 50 << 20;
  found.concurrentKernels = found.cooperativeLaunch = found.unifiedAddressing = found.memoryPoolsSupported = 1;
  return found;
}

// What <<<...>>> leaves behind for the stub that launches the kernel.
struct CallConfiguration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local CallConfiguration pushed;

int driver_entry_point() { return 0; }

}  // namespace

extern "C" {

// For tests, and for the other libraries.
long fake_cuda_count(const char* name) {
  std::lock_guard<std::mutex> held(lock);
  auto found = counts.find(name);
  return found == counts.end() ? 0 : found->second;
}

void fake_cuda_called(const char* function) {
  add(function);
  write_log(std::string("call ") + function);
}

// The next copy of 4 or 8 bytes from a device that nothing was asked of yet brings `value`.
void fake_cuda_bring(size_t bytes, long value) {
  std::lock_guard<std::mutex> held(lock);
  brought[bytes].push_back(value);
}

void fake_cuda_note(const char* line) { write_log(std::string("note ") + line); }

// Memory
cudaError_t cudaMalloc(void** at, size_t size) {
  add("allocations");
  write_log("allocation " + std::to_string(size) + " on GPU " + std::to_string(current_gpu));
  return allocate(device_memory, at, size);
}
cudaError_t cudaMallocFromPoolAsync(void** at, size_t size, cudaMemPool_t, cudaStream_t) { return cudaMalloc(at, size); }
cudaError_t cudaFree(void* at) { return device_memory.release(at), cudaSuccess; }
cudaError_t cudaFreeAsync(void* at, cudaStream_t) { return cudaFree(at); }
cudaError_t cudaMallocHost(void** at, size_t size) { return allocate(pinned_memory, at, size); }
cudaError_t cudaHostAlloc(void** at, size_t size, unsigned) { return allocate(pinned_memory, at, size); }
cudaError_t cudaFreeHost(void* at) { return pinned_memory.release(at), cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) { return copy(to, from, size); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t) {
  return copy(to, from, size);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                              cudaMemcpyKind, cudaStream_t) {
  for (size_t row = 0; row < height; row++)
    std::memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
  add("copies_d2d");
  return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void*, size_t size, size_t, cudaMemcpyKind) {
  std::memset(to, 0, size);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* at, int value, size_t size) { return std::memset(at, value, size), cudaSuccess; }
cudaError_t cudaMemsetAsync(void* at, int value, size_t size, cudaStream_t) { return cudaMemset(at, value, size); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = gpus().at(current_gpu).memory;
  *free = *total - (2ul << 30);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* at) {
  *found = {};
  found->type = device_memory.holds(at)   ? cudaMemoryTypeDevice
                : pinned_memory.holds(at) ? cudaMemoryTypeHost
                                          : cudaMemoryTypeUnregistered;
  found->devicePointer = const_cast<void*>(at);
  return cudaSuccess;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) { return make(reinterpret_cast<void**>(pool)); }
cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<unsigned long long*>(value) = 0;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

// Devices
cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(gpus().size());
  return *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* device) { return *device = current_gpu, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= static_cast<int>(gpus().size())) return cudaErrorInvalidDevice;
  current_gpu = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return synchronise(); }
cudaError_t cudaDriverGetVersion(int* version) { return *version = fake::driver_version(), cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int device) {
  *found = properties_of(gpus().at(device));
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  *value = attribute_of(attribute, gpus().at(device).sm);
  return cudaSuccess;
}

// Events and streams: everything has happened when the call returns.
cudaError_t cudaEventCreate(cudaEvent_t* event) { return make(reinterpret_cast<void**>(event)); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return std::free(event), cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) { return *milliseconds = 1, cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t, cudaStream_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return synchronise(); }
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  write_log("stream on GPU " + std::to_string(current_gpu));
  return make(reinterpret_cast<void**>(stream));
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return std::free(stream), cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return synchronise(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }

// Graphs
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  capturing = true;
  add("captures");
  write_log("capture begins");
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  capturing = false;
  write_log("capture ends");
  return make(reinterpret_cast<void**>(graph));
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* runnable, cudaGraph_t, unsigned long long) {
  return make(reinterpret_cast<void**>(runnable));
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  add("replays");
  write_log("replay");
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return std::free(graph), cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t runnable) { return std::free(runnable), cudaSuccess; }

// Kernels
cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void**, size_t, cudaStream_t) { return launch(kernel); }
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t) {
  return launch(reinterpret_cast<const void*>(kernel));
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* kernel, void**) { return launch(kernel); }
cudaError_t cudaLaunchCooperativeKernel(const void* kernel, dim3, dim3, void**, size_t, cudaStream_t) {
  return launch(kernel);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* data) { return function(data), cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
  *found = {};
  found->maxThreadsPerBlock = 1024;
  found->numRegs = 32;
  found->binaryVersion = found->ptxVersion = gpus().at(current_gpu).sm;
  found->maxDynamicSharedSizeBytes = 48 << 10;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t, cudaFuncAttribute, int, int) { return cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
  return *blocks = 2, cudaSuccess;
}
cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void*, cudaJitOption*, void**, unsigned, cudaLibraryOption*,
                                void**, unsigned) {
  return make(reinterpret_cast<void**>(library));
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t, const char*) {
  return make(reinterpret_cast<void**>(kernel));
}
cudaError_t cudaLibraryUnload(cudaLibrary_t) { return cudaSuccess; }
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *function = reinterpret_cast<void*>(driver_entry_point);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// What nvcc's code calls when a library with kernels is loaded, and around <<<...>>>
void** __cudaRegisterFatBinary(void*) {
  static void* handle[4];
  return handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* kernel, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  kernel_names[kernel] = name;
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  pushed = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<cudaStream_t*>(stream) = pushed.stream;
  return cudaSuccess;
}

// Nothing fails, except what is refused above by its own result.
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "fakeError"; }
const char* cudaGetErrorString(cudaError_t) { return "an error of the fake CUDA runtime"; }

}
