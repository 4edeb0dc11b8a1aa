// What of a kernel text cannot be C++ as it stands, and the calls of its entry points.
#pragma once
#include <string>
#include <vector>

#include "text.h"

namespace emulator {

// The text with its declarations of shared memory in the emulator's words, and behind it one
// function `simt_entry_NAME(void** params)` per kernel. Nothing else of the text changes.
std::string rewrite(Language language, const std::string& text, std::vector<std::string>& entries);

}  // namespace emulator
