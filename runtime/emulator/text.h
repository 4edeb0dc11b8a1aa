// From a kernel text to a library that can be loaded.
#pragma once
#include "core.h"

namespace emulator {

enum class Language { Cuda, Hip, Metal };

struct Compiled {
  bool ok = false;
  std::string log;      // what the compiler said
  std::string library;  // path in the cache
  uint32_t warp = 32;
};

// Compiles `text`, or finds what was compiled before. May be called from several threads.
Compiled compile(Language language, const std::string& text, uint32_t warp);

// Loads such a library. Null, with a reason, if that fails.
Module* load(const std::string& library, uint32_t warp, std::string& why);
void unload(Module* module);

// The function of that name as a launch calls it; null if the text has none.
void (*entry(const Module* module, const std::string& name))(void**);

// The binary that the emulated compilers hand out: where the library lies.
std::string pack(const Compiled& compiled);
bool unpack(const void* image, std::string& library, uint32_t& warp);

}  // namespace emulator
