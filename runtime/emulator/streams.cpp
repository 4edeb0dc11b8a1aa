// The entry points of the CUDA driver and of NVRTC that the launcher uses, or with EMULATE_HIP those
// of the HIP runtime and of hiprtc. Everything is done by the time a call returns; streams keep no
// order of their own.
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core.h"
#include "text.h"

#ifdef EMULATE_HIP
#define API(cuda, hip) hip
#else
#define API(cuda, hip) cuda
#endif

using namespace emulator;

namespace {

constexpr bool kHip = API(false, true);

// HIP has a device of each kind: wavefronts of 32 lanes, and of 64.
struct DeviceKind {
  const char *name, *arch;
  int warp, shared_bytes, shared_bytes_asked;
};
constexpr DeviceKind kDevices[] = {
#ifdef EMULATE_HIP
    {"emulated HIP device (wave32)", "gfx1151", 32, 64 * 1024, 64 * 1024},
    {"emulated HIP device (wave64)", "gfx942", 64, 64 * 1024, 64 * 1024},
#else
    {"emulated CUDA device", "sm_90", 32, 48 * 1024, 227 * 1024},
#endif
};
constexpr int kDeviceCount = sizeof kDevices / sizeof kDevices[0];

enum Result {
  Success = 0,
  InvalidValue = 1,
  OutOfMemory = 2,
  InvalidDevice = 101,
  InvalidImage = 200,
  NotFound = 500,
  IllegalAddress = 700,
};

struct Function {
  Module* module;
  void (*entry)(void**);
  std::string name;
};
struct LoadedModule {
  Module* module;
  std::vector<std::unique_ptr<Function>> functions;
};
struct Recorded {
  Function* function;
  Dim grid, block;
  uint32_t shared_bytes;
  std::vector<uint64_t> arguments;
};
struct Graph {
  std::vector<Recorded> launches;
};
struct Stream {
  Graph* capture = nullptr;
};
Stream default_stream;

Stream* stream_of(void* stream) { return stream ? (Stream*)stream : &default_stream; }

int launch_now(const Recorded& r) {
  std::vector<uint64_t> arguments = r.arguments;
  std::vector<void*> params;
  for (uint64_t a : arguments) params.push_back((void*)a);
  Launch launch = {r.function->module, r.function->entry, params.data(), r.grid, r.block, r.shared_bytes};
  std::string why = run(launch);
  if (why.empty()) return Success;
  set_message(r.function->name + ": " + why);
  return IllegalAddress;
}

}  // namespace

extern "C" {

int API(cuInit, hipInit)(unsigned) { return Success; }
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return Success;
}
int API(cuDeviceGetCount, hipGetDeviceCount)(int* count) {
  *count = kDeviceCount;
  return Success;
}
int API(cuDeviceGet, hipDeviceGet)(int* device, int ordinal) {
  if (ordinal < 0 || ordinal >= kDeviceCount) return InvalidDevice;
  *device = ordinal;
  return Success;
}
int API(cuDeviceGetName, hipDeviceGetName)(char* name, int length, int device) {
  snprintf(name, (size_t)length, "%s", kDevices[device].name);
  return Success;
}
int API(cuDeviceTotalMem_v2, hipDeviceTotalMem)(size_t* bytes, int) {
  *bytes = memory_total();
  return Success;
}
int API(cuDeviceGetAttribute, hipDeviceGetAttribute)(int* value, int attribute, int device) {
  const DeviceKind& kind = kDevices[device];
  switch (attribute) {
    case API(1, 56): *value = kThreadsMax; break;                 // threads of a block
    case API(8, 74): *value = kind.shared_bytes; break;           // shared memory of a block
    case API(10, 87): *value = kind.warp; break;                  // warp
    case API(97, 75): *value = kind.shared_bytes_asked; break;    // of a block that asks for more
    case API(75, 23): *value = 9; break;                          // compute capability
    default: *value = 0;
  }
  return Success;
}
#ifdef EMULATE_HIP
int hipSetDevice(int device) { return device >= 0 && device < kDeviceCount ? Success : InvalidDevice; }
int hipGetDevicePropertiesR0600(void* properties, int device) {
  memset(properties, 0, 1472);
  strcpy((char*)properties, kDevices[device].name);
  strcpy((char*)properties + 1160, kDevices[device].arch);
  return Success;
}
#else
int cuDevicePrimaryCtxRetain(void** context, int) {
  static int the_context;
  *context = &the_context;
  return Success;
}
int cuDevicePrimaryCtxRelease_v2(int) { return Success; }
int cuCtxSetCurrent(void*) { return Success; }
#endif
int API(cuMemGetInfo_v2, hipMemGetInfo)(size_t* available, size_t* total) {
  *available = memory_free();
  *total = memory_total();
  return Success;
}
int API(cuMemAlloc_v2, hipMalloc)(uint64_t* at, size_t bytes) {
  if (bytes == 0) return InvalidValue;
  *at = (uint64_t)allocate(bytes);
  return *at ? Success : OutOfMemory;
}
int API(cuMemFree_v2, hipFree)(uint64_t at) { return release((void*)at) ? Success : InvalidValue; }

static int copy(void* to, const void* from, size_t bytes, const void* device_side) {
  if (!inside(device_side, bytes)) {
    set_message("a copy of " + std::to_string(bytes) + " bytes leaves its allocation");
    return InvalidValue;
  }
  memcpy(to, from, bytes);
  return Success;
}
int API(cuMemcpyHtoD_v2, hipMemcpyHtoD)(uint64_t to, const void* from, size_t bytes) {
  return copy((void*)to, from, bytes, (void*)to);
}
int API(cuMemcpyDtoH_v2, hipMemcpyDtoH)(void* to, uint64_t from, size_t bytes) {
  return copy(to, (void*)from, bytes, (void*)from);
}

int API(cuModuleLoadData, hipModuleLoadData)(void** module, const void* image) {
  std::string library, why;
  uint32_t warp;
  if (!unpack(image, library, warp)) {
    set_message("module: expected a binary of the emulated compiler");
    return InvalidImage;
  }
  Module* loaded = load(library, warp, why);
  if (!loaded) {
    set_message(why);
    return InvalidImage;
  }
  *module = new LoadedModule{loaded, {}};
  return Success;
}
int API(cuModuleUnload, hipModuleUnload)(void* module) {
  auto* m = (LoadedModule*)module;
  unload(m->module);
  delete m;
  return Success;
}
int API(cuModuleGetFunction, hipModuleGetFunction)(void** function, void* module, const char* name) {
  auto* m = (LoadedModule*)module;
  auto* found = entry(m->module, name);
  if (!found) return NotFound;
  m->functions.push_back(std::make_unique<Function>(Function{m->module, found, name}));
  *function = m->functions.back().get();
  return Success;
}
int API(cuFuncSetAttribute, hipFuncSetAttribute)(void*, int, int value) { return value <= kDevices[0].shared_bytes_asked ? Success : InvalidValue; }

int API(cuStreamCreate, hipStreamCreateWithFlags)(void** stream, unsigned) {
  *stream = new Stream;
  return Success;
}
int API(cuStreamDestroy_v2, hipStreamDestroy)(void* stream) {
  delete (Stream*)stream;
  return Success;
}
int API(cuStreamSynchronize, hipStreamSynchronize)(void*) { return Success; }
int API(cuStreamBeginCapture_v2, hipStreamBeginCapture)(void* stream, int) {
  Stream* s = stream_of(stream);
  if (s->capture) return InvalidValue;
  s->capture = new Graph;
  return Success;
}
int API(cuStreamEndCapture, hipStreamEndCapture)(void* stream, void** graph) {
  Stream* s = stream_of(stream);
  if (!s->capture) return InvalidValue;
  *graph = s->capture;
  s->capture = nullptr;
  return Success;
}
int API(cuGraphInstantiateWithFlags, hipGraphInstantiateWithFlags)(void** exec, void* graph, unsigned long long) {
  *exec = new Graph(*(Graph*)graph);
  return Success;
}
int API(cuGraphDestroy, hipGraphDestroy)(void* graph) {
  delete (Graph*)graph;
  return Success;
}
int API(cuGraphExecDestroy, hipGraphExecDestroy)(void* exec) {
  delete (Graph*)exec;
  return Success;
}
int API(cuGraphLaunch, hipGraphLaunch)(void* exec, void*) {
  for (const Recorded& r : ((Graph*)exec)->launches) {
    if (int code = launch_now(r)) return code;
  }
  return Success;
}

int API(cuLaunchKernel, hipModuleLaunchKernel)(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared_bytes, void* stream, void** params, void**) {
  Recorded r{(Function*)function, {gx, gy, gz}, {bx, by, bz}, shared_bytes, {}};
  // The launcher ends its list of arguments with a null pointer; a driver knows their number.
  for (void** p = params; *p; p++) r.arguments.push_back(*(uint64_t*)*p);
  Stream* s = stream_of(stream);
  if (!s->capture) return launch_now(r);
  s->capture->launches.push_back(std::move(r));
  return Success;
}

int API(cuGetErrorString, hipDrvGetErrorString)(int code, const char** text) {
  switch (code) {
    case Success: *text = "no error"; break;
    case InvalidValue: *text = "invalid argument"; break;
    case OutOfMemory: *text = "out of memory"; break;
    case InvalidDevice: *text = "invalid device ordinal"; break;
    case InvalidImage: *text = "device kernel image is invalid"; break;
    case NotFound: *text = "named symbol not found"; break;
    default: *text = "an illegal memory access was encountered";
  }
  return Success;
}

// The compiler of texts.
struct Program {
  std::string text;
  Compiled compiled;
  std::string image;
};
int API(nvrtcCreateProgram, hiprtcCreateProgram)(void** program, const char* text, const char*, int, const char**, const char**) {
  *program = new Program{text, {}, ""};
  return 0;
}
int API(nvrtcDestroyProgram, hiprtcDestroyProgram)(void** program) {
  delete (Program*)*program;
  *program = nullptr;
  return 0;
}
int API(nvrtcCompileProgram, hiprtcCompileProgram)(void* program, int count, const char** options) {
  auto* p = (Program*)program;
  uint32_t warp = 32;
  for (int i = 0; i < count; i++) {
    if (strncmp(options[i], "--offload-arch=gfx9", 19) == 0) warp = 64;
  }
  p->compiled = compile(kHip ? Language::Hip : Language::Cuda, p->text, warp);
  if (!p->compiled.ok) return 6;
  p->image = pack(p->compiled);
  return 0;
}
int API(nvrtcGetProgramLogSize, hiprtcGetProgramLogSize)(void* program, size_t* bytes) {
  *bytes = ((Program*)program)->compiled.log.size() + 1;
  return 0;
}
int API(nvrtcGetProgramLog, hiprtcGetProgramLog)(void* program, char* log) {
  strcpy(log, ((Program*)program)->compiled.log.c_str());
  return 0;
}
int API(nvrtcGetCUBINSize, hiprtcGetCodeSize)(void* program, size_t* bytes) {
  *bytes = ((Program*)program)->image.size();
  return 0;
}
int API(nvrtcGetCUBIN, hiprtcGetCode)(void* program, char* image) {
  const std::string& from = ((Program*)program)->image;
  memcpy(image, from.data(), from.size());
  return 0;
}
}
