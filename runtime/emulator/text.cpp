#include "text.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#include <mach-o/getsect.h>
#else
#include <link.h>
#endif

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "rewrite.h"

namespace emulator {

namespace {

std::string read_file(const std::string& path) {
  std::string all;
  if (FILE* f = fopen(path.c_str(), "rb")) {
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) all.append(part, n);
    fclose(f);
  }
  return all;
}

bool write_file(const std::string& path, const std::string& content) {
  FILE* f = fopen(path.c_str(), "wb");
  if (!f) return false;
  bool ok = fwrite(content.data(), 1, content.size(), f) == content.size();
  return fclose(f) == 0 && ok;
}

// This library lies in the emulator's folder, beside the shims and the name of the compiler.
std::string own_path() {
  Dl_info info;
  return dladdr((void*)&own_path, &info) && info.dli_fname ? info.dli_fname : "";
}
std::string folder() {
  std::string path = own_path();
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string hash(const std::string& text) {
  // Two FNV-1a hashes of different starts: no adversary here, only different texts.
  uint64_t a = 0xcbf29ce484222325ull, b = 0x84222325cbf29ce4ull;
  for (unsigned char c : text) {
    a = (a ^ c) * 0x100000001b3ull;
    b = (b ^ (c + 1)) * 0x100000001b3ull;
  }
  char out[40];
  snprintf(out, sizeof out, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
  return out;
}

const char* flags() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("fma") ? "-mfma " : "";
#else
  return "";
#endif
}

std::string quoted(const std::string& s) { return "'" + s + "'"; }

const char* name_of(Language language) {
  return language == Language::Cuda ? "cuda" : language == Language::Hip ? "hip" : "metal";
}

}  // namespace

Compiled compile(Language language, const std::string& text, uint32_t warp) {
  Compiled result;
  result.warp = warp;
  std::string home = folder(), clang = read_file(home + "/clang");
  while (!clang.empty() && clang.back() == '\n') clang.pop_back();
  std::string shim = home + "/shim/" + name_of(language);
  std::string prelude = language == Language::Metal ? "" : "-include " + quoted(shim + "/prelude.h");
  // The hooks of the thread sanitizer without its library.
  std::string command = quoted(clang) + " -std=c++20 -O1 -g0 -w -fPIC -shared -ffp-contract=off " +
                        "-fno-exceptions -fno-rtti -fno-math-errno -Xclang -fsanitize=thread " + flags() +
                        "-DSIMT_WAVE=" + std::to_string(warp) + " -I " + quoted(shim) + " " + prelude;
  std::vector<std::string> entries;
  std::string source = rewrite(language, text, entries);
  std::string base = home + "/texts/" + hash(command + "\n" + source);
  result.library = base + ".so";
  if (access(result.library.c_str(), R_OK) == 0) {
    result.ok = true;
    return result;
  }
  mkdir((home + "/texts").c_str(), 0755);
  static std::atomic<uint32_t> number{0};
  std::string temp = base + "." + std::to_string(getpid()) + "." + std::to_string(number++);
  if (!write_file(temp + ".cpp", source)) {
    result.log = temp + ".cpp: cannot be written";
    return result;
  }
  std::string full = command + " -o " + quoted(temp + ".so") + " " + quoted(temp + ".cpp") + " " +
                     quoted(own_path()) + " -lm > " + quoted(temp + ".log") + " 2>&1";
  int status = system(full.c_str());
  result.log = read_file(temp + ".log");
  unlink((temp + ".log").c_str());
  if (status != 0) {
    rename((temp + ".cpp").c_str(), (base + ".failed.cpp").c_str());
    result.log += "(the text as it was compiled: " + base + ".failed.cpp)\n";
    return result;
  }
  unlink((temp + ".cpp").c_str());
  result.ok = rename((temp + ".so").c_str(), result.library.c_str()) == 0;
  return result;
}

#ifndef __APPLE__
static int note_image(dl_phdr_info* info, size_t, void* data) {
  auto* module = (Module*)data;
  auto* own = (link_map*)module->library;
  if (info->dlpi_addr != own->l_addr) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& h = info->dlpi_phdr[i];
    if (h.p_type == PT_LOAD) {
      module->image.push_back({info->dlpi_addr + h.p_vaddr, info->dlpi_addr + h.p_vaddr + h.p_memsz});
    }
  }
  return 1;
}
#endif

Module* load(const std::string& library, uint32_t warp, std::string& why) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    why = dlerror();
    return nullptr;
  }
  auto* module = new Module;
  module->library = handle;
  module->warp = warp;
#ifdef __APPLE__
  for (uint32_t i = 0; i < _dyld_image_count(); i++) {
    if (library != _dyld_get_image_name(i)) continue;
    auto* header = (const mach_header_64*)_dyld_get_image_header(i);
    for (const char* segment : {"__TEXT", "__DATA", "__DATA_CONST"}) {
      unsigned long size = 0;
      if (auto* at = getsegmentdata(header, segment, &size)) {
        module->image.push_back({(uintptr_t)at, (uintptr_t)at + size});
      }
    }
    unsigned long size = 0;
    if (auto* at = getsectiondata(header, "__DATA", "ds4_shared", &size)) {
      module->shared_start = (uintptr_t)at;
      module->shared_end = (uintptr_t)at + size;
    }
  }
#else
  dl_iterate_phdr(note_image, module);
  module->shared_start = (uintptr_t)dlsym(handle, "simt_shared_start");
  module->shared_end = (uintptr_t)dlsym(handle, "simt_shared_end");
  if (module->shared_start) {
    module->shared_start = *(uintptr_t*)module->shared_start;
    module->shared_end = *(uintptr_t*)module->shared_end;
  }
#endif
  return module;
}

void unload(Module* module) {
  dlclose(module->library);
  delete module;
}

void (*entry(const Module* module, const std::string& name))(void**) {
  return (void (*)(void**))dlsym(module->library, ("simt_entry_" + name).c_str());
}

static const char kMagic[] = "ds4-emulated-kernel\n";

std::string pack(const Compiled& compiled) {
  std::string image = kMagic + std::to_string(compiled.warp) + "\n" + compiled.library;
  image.push_back('\0');
  return image;
}

bool unpack(const void* image, std::string& library, uint32_t& warp) {
  const char* text = (const char*)image;
  if (strncmp(text, kMagic, sizeof kMagic - 1) != 0) return false;
  text += sizeof kMagic - 1;
  warp = (uint32_t)atoi(text);
  const char* line = strchr(text, '\n');
  if (!line) return false;
  library = line + 1;
  return true;
}

}  // namespace emulator
