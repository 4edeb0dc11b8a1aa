// The part of the Objective-C runtime and of Metal's classes that the launcher uses: objects that
// answer selectors, and `objc_msgSend`, which finds the function of a selector and jumps to it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core.h"
#include "text.h"

using namespace emulator;

namespace {

constexpr unsigned long kBuffersMax = 31;
constexpr unsigned kSharedBytesMax = 32 * 1024;
constexpr unsigned long kPage = 4096;

struct Object;
using Method = void (*)();
using Methods = std::map<std::string, Method>;

struct Object {
  const Methods* methods;
  long references = 1;
  explicit Object(const Methods* m) : methods(m) {}
  virtual ~Object() = default;
};

Object* retain(Object* self, const char*) {
  if (self) self->references++;
  return self;
}
void release_object(Object* self, const char*) {
  if (self && --self->references == 0) delete self;
}

// Objects of one class share a table, to which every class adds what all objects can.
Methods with_common(Methods own) {
  own["retain"] = (Method)retain;
  own["release"] = (Method)release_object;
  return own;
}

struct String : Object {
  std::string text;
  explicit String(std::string t);
};
const char* string_utf8(String* self, const char*) { return self->text.c_str(); }
const Methods& string_methods() {
  static const Methods m = with_common({{"UTF8String", (Method)string_utf8}});
  return m;
}
String::String(std::string t) : Object(&string_methods()), text(std::move(t)) {}

struct Failure : Object {
  std::string text;
  explicit Failure(std::string t);
};
String* kept(String* string);
String* failure_description(Failure* self, const char*) { return kept(new String(self->text)); }
const Methods& failure_methods() {
  static const Methods m = with_common({{"localizedDescription", (Method)failure_description}});
  return m;
}
Failure::Failure(std::string t) : Object(&failure_methods()), text(std::move(t)) {}

struct Buffer : Object {
  void* memory;
  unsigned long bytes;
  bool is_lent;
  Buffer(void* at, unsigned long n, bool lent);
  ~Buffer() override {
    if (is_lent) take_back(memory, bytes);
    if (!is_lent) release(memory);
  }
};
void* buffer_contents(Buffer* self, const char*) { return self->memory; }
unsigned long buffer_length(Buffer* self, const char*) { return self->bytes; }
const Methods& buffer_methods() {
  static const Methods m =
      with_common({{"contents", (Method)buffer_contents}, {"length", (Method)buffer_length}});
  return m;
}
Buffer::Buffer(void* at, unsigned long n, bool lent)
    : Object(&buffer_methods()), memory(at), bytes(n), is_lent(lent) {}

struct Function : Object {
  Module* module;
  std::string name;
  void (*call)(void**);
  Function(Module* m, std::string n, void (*c)(void**));
};
const Methods& plain_methods() {
  static const Methods m = with_common({});
  return m;
}
Function::Function(Module* m, std::string n, void (*c)(void**))
    : Object(&plain_methods()), module(m), name(std::move(n)), call(c) {}

struct Library : Object {
  Module* module;
  explicit Library(Module* m);
};
Function* library_function(Library* self, const char*, String* name) {
  auto* call = entry(self->module, name->text);
  return call ? new Function(self->module, name->text, call) : nullptr;
}
const Methods& library_methods() {
  static const Methods m = with_common({{"newFunctionWithName:", (Method)library_function}});
  return m;
}
// Modules stay loaded: pipelines hold their functions.
Library::Library(Module* m) : Object(&library_methods()), module(m) {}

struct Pipeline : Object {
  Function* function;
  explicit Pipeline(Function* f);
  ~Pipeline() override { release_object(function, nullptr); }
};
unsigned long pipeline_threads(Pipeline*, const char*) { return kThreadsMax; }
unsigned long pipeline_width(Pipeline*, const char*) { return 32; }
unsigned long pipeline_shared(Pipeline* self, const char*) {
  const Module* m = self->function->module;
  return m->shared_end - m->shared_start;
}
const Methods& pipeline_methods() {
  static const Methods m = with_common({{"maxTotalThreadsPerThreadgroup", (Method)pipeline_threads},
                                        {"threadExecutionWidth", (Method)pipeline_width},
                                        {"staticThreadgroupMemoryLength", (Method)pipeline_shared}});
  return m;
}
Pipeline::Pipeline(Function* f) : Object(&pipeline_methods()), function(f) { retain(f, nullptr); }

// Three extents, passed by value as Metal does.
struct Size {
  unsigned long width, height, depth;
};
struct Recorded {
  Pipeline* pipeline;
  void* buffers[kBuffersMax];
  Size grid, block;
};

struct CommandBuffer : Object {
  std::vector<Recorded> launches;
  unsigned long status = 0;
  Failure* failure = nullptr;
  CommandBuffer();
  ~CommandBuffer() override { release_object(failure, nullptr); }
};
struct Encoder : Object {
  CommandBuffer* commands;
  Recorded next = {};
  explicit Encoder(CommandBuffer* c);
};
void encoder_pipeline(Encoder* self, const char*, Pipeline* pipeline) { self->next.pipeline = pipeline; }
void encoder_buffer(Encoder* self, const char*, Buffer* buffer, unsigned long offset, unsigned long index) {
  if (index < kBuffersMax) self->next.buffers[index] = (char*)buffer->memory + offset;
}
void encoder_dispatch(Encoder* self, const char*, Size grid, Size block) {
  self->next.grid = grid;
  self->next.block = block;
  self->commands->launches.push_back(self->next);
}
void encoder_end(Encoder*, const char*) {}
const Methods& encoder_methods() {
  static const Methods m =
      with_common({{"setComputePipelineState:", (Method)encoder_pipeline},
                   {"setBuffer:offset:atIndex:", (Method)encoder_buffer},
                   {"dispatchThreadgroups:threadsPerThreadgroup:", (Method)encoder_dispatch},
                   {"endEncoding", (Method)encoder_end}});
  return m;
}
Encoder::Encoder(CommandBuffer* c) : Object(&encoder_methods()), commands(c) {}

std::vector<Object*>& pool();

Encoder* commands_encoder(CommandBuffer* self, const char*) {
  auto* encoder = new Encoder(self);
  pool().push_back(encoder);
  return encoder;
}
Dim dim(const Size& s) { return {(uint32_t)s.width, (uint32_t)s.height, (uint32_t)s.depth}; }
void commands_commit(CommandBuffer* self, const char*) {
  for (Recorded& r : self->launches) {
    const Function& f = *r.pipeline->function;
    Launch launch = {f.module, f.call, r.buffers, dim(r.grid), dim(r.block), 0};
    std::string why = run(launch);
    if (why.empty()) continue;
    self->status = 5;
    self->failure = new Failure(f.name + ": " + why);
    return;
  }
  self->status = 4;
}
void commands_wait(CommandBuffer*, const char*) {}
unsigned long commands_status(CommandBuffer* self, const char*) { return self->status; }
Failure* commands_error(CommandBuffer* self, const char*) { return self->failure; }
const Methods& commands_methods() {
  static const Methods m = with_common({{"computeCommandEncoder", (Method)commands_encoder},
                                        {"commit", (Method)commands_commit},
                                        {"waitUntilCompleted", (Method)commands_wait},
                                        {"status", (Method)commands_status},
                                        {"error", (Method)commands_error}});
  return m;
}
CommandBuffer::CommandBuffer() : Object(&commands_methods()) {}

struct Queue : Object {
  Queue();
};
CommandBuffer* queue_commands(Queue*, const char*) {
  auto* commands = new CommandBuffer;
  pool().push_back(commands);
  return commands;
}
const Methods& queue_methods() {
  static const Methods m = with_common({{"commandBuffer", (Method)queue_commands}});
  return m;
}
Queue::Queue() : Object(&queue_methods()) {}

struct Options : Object {
  Options();
};
void options_fast(Options*, const char*, signed char) {}
const Methods& options_methods() {
  static const Methods m = with_common({{"setFastMathEnabled:", (Method)options_fast}});
  return m;
}
Options::Options() : Object(&options_methods()) {}

struct Device : Object {
  Device();
};
String* device_name(Device*, const char*) {
  return kept(new String("emulated Metal device"));
}
unsigned long device_shared(Device*, const char*) { return kSharedBytesMax; }
unsigned long device_memory(Device*, const char*) { return memory_total(); }
unsigned long device_used(Device*, const char*) { return memory_total() - memory_free(); }
Buffer* device_buffer(Device*, const char*, unsigned long bytes, unsigned long) {
  void* at = allocate(bytes);
  return at ? new Buffer(at, bytes, false) : nullptr;
}
signed char device_unified(Device*, const char*) { return 1; }
// Whole pages only, as Metal wants them.
Buffer* device_lent(Device*, const char*, void* at, unsigned long bytes, unsigned long, void*) {
  if ((uintptr_t)at % kPage || bytes % kPage || !bytes) return nullptr;
  lend(at, bytes);
  return new Buffer(at, bytes, true);
}
Library* device_library(Device*, const char*, String* source, Options*, Failure** failure) {
  Compiled compiled = compile(Language::Metal, source->text, 32);
  std::string why = compiled.log;
  Module* module = compiled.ok ? load(compiled.library, 32, why) : nullptr;
  if (module) return new Library(module);
  *failure = new Failure(why);
  return nullptr;
}
Pipeline* device_pipeline(Device*, const char*, Function* function, Failure** failure) {
  const Module* m = function->module;
  if (m->shared_end - m->shared_start <= kSharedBytesMax) return new Pipeline(function);
  *failure = new Failure("expected at most " + std::to_string(kSharedBytesMax) + " bytes of threadgroup memory, got " +
                         std::to_string(m->shared_end - m->shared_start));
  return nullptr;
}
Queue* device_queue(Device*, const char*) { return new Queue; }
const Methods& device_methods() {
  static const Methods m =
      with_common({{"name", (Method)device_name},
                   {"maxThreadgroupMemoryLength", (Method)device_shared},
                   {"recommendedMaxWorkingSetSize", (Method)device_memory},
                   {"maxBufferLength", (Method)device_memory},
                   {"currentAllocatedSize", (Method)device_used},
                   {"newBufferWithLength:options:", (Method)device_buffer},
                   {"hasUnifiedMemory", (Method)device_unified},
                   {"newBufferWithBytesNoCopy:length:options:deallocator:", (Method)device_lent},
                   {"newLibraryWithSource:options:error:", (Method)device_library},
                   {"newComputePipelineStateWithFunction:error:", (Method)device_pipeline},
                   {"newCommandQueue", (Method)device_queue}});
  return m;
}
Device::Device() : Object(&device_methods()) {}

struct Class : Object {
  using Object::Object;
};
String* string_from(Class*, const char*, const char* text) { return kept(new String(text)); }
Options* options_new(Class*, const char*) { return new Options; }

// What a call hands out without being asked to keep it dies with the pool.
std::vector<Object*>& pool() {
  thread_local std::vector<Object*> objects;
  return objects;
}
String* kept(String* string) {
  pool().push_back(string);
  return string;
}

}  // namespace

extern "C" {

void* objc_getClass(const char* name) {
  static const Methods string_class = {{"stringWithUTF8String:", (Method)string_from}};
  static const Methods options_class = {{"new", (Method)options_new}};
  static Class strings(&string_class), options(&options_class);
  if (strcmp(name, "NSString") == 0) return &strings;
  if (strcmp(name, "MTLCompileOptions") == 0) return &options;
  return nullptr;
}

const char* sel_registerName(const char* name) {
  static std::mutex lock;
  static std::map<std::string, int> names;
  std::lock_guard<std::mutex> guard(lock);
  return names.emplace(name, 0).first->first.c_str();
}

void* objc_autoreleasePoolPush() { return (void*)(pool().size() + 1); }
void objc_autoreleasePoolPop(void* mark) {
  std::vector<Object*>& objects = pool();
  while (objects.size() + 1 > (size_t)mark) {
    Object* last = objects.back();
    objects.pop_back();
    release_object(last, nullptr);
  }
}

void* MTLCreateSystemDefaultDevice() { return new Device; }

static void answer_nothing() {}

// The function that a message means. A message to nobody answers zero.
Method emulator_method(Object* self, const char* selector) {
  if (!self) return answer_nothing;
  auto found = self->methods->find(selector);
  if (found != self->methods->end()) return found->second;
  fprintf(stderr, "emulated Metal: an object does not answer %s\n", selector);
  abort();
}
}

#if defined(__APPLE__)
#define SYMBOL(name) "_" name
#define CALL(name) "_" name
#else
#define SYMBOL(name) name
#define CALL(name) name "@PLT"
#endif

// Keeps the registers of arguments, asks for the function, and jumps there.
#if defined(__x86_64__)
asm(".text\n.globl " SYMBOL("objc_msgSend") "\n" SYMBOL("objc_msgSend") ":\n"
    "pushq %rdi\npushq %rsi\npushq %rdx\npushq %rcx\npushq %r8\npushq %r9\nsubq $8, %rsp\n"
    "call " CALL("emulator_method") "\n"
    "addq $8, %rsp\npopq %r9\npopq %r8\npopq %rcx\npopq %rdx\npopq %rsi\npopq %rdi\n"
    "movq %rax, %r11\nxorl %eax, %eax\njmpq *%r11\n");
#elif defined(__aarch64__)
asm(".text\n.globl " SYMBOL("objc_msgSend") "\n" SYMBOL("objc_msgSend") ":\n"
    "stp x29, x30, [sp, #-80]!\nstp x0, x1, [sp, #16]\nstp x2, x3, [sp, #32]\n"
    "stp x4, x5, [sp, #48]\nstp x6, x7, [sp, #64]\n"
    "bl " SYMBOL("emulator_method") "\n"
    "mov x9, x0\nldp x0, x1, [sp, #16]\nldp x2, x3, [sp, #32]\n"
    "ldp x4, x5, [sp, #48]\nldp x6, x7, [sp, #64]\nldp x29, x30, [sp], #80\nbr x9\n");
#endif
