#include "rewrite.h"

#include <cctype>

namespace emulator {

namespace {

bool word_character(char c) { return isalnum((unsigned char)c) || c == '_'; }

// Where the word `word` stands at or after `from`; npos if nowhere.
size_t find_word(const std::string& text, const std::string& word, size_t from) {
  for (size_t at = text.find(word, from); at != std::string::npos; at = text.find(word, at + 1)) {
    bool before = at > 0 && word_character(text[at - 1]);
    size_t end = at + word.size();
    if (!before && (end == text.size() || !word_character(text[end]))) return at;
  }
  return std::string::npos;
}

// The matching parenthesis of the one at `open`.
size_t closing(const std::string& text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); i++) {
    if (text[i] == '(') depth++;
    if (text[i] == ')' && --depth == 0) return i;
  }
  return std::string::npos;
}

// `extern __shared__ ... NAME[];` names memory whose size the launch gives.
std::string dynamic_shared(const std::string& text) {
  std::string out;
  size_t done = 0;
  for (;;) {
    size_t at = find_word(text, "__shared__", done);
    if (at == std::string::npos) break;
    size_t start = at;
    while (start > done && isspace((unsigned char)text[start - 1])) start--;
    size_t end = text.find(';', at), bracket = text.find("[]", at);
    bool is_extern = start >= 6 && text.compare(start - 6, 6, "extern") == 0;
    if (!is_extern || bracket == std::string::npos || bracket > end) {
      out += text.substr(done, at + 10 - done);
      done = at + 10;
      continue;
    }
    size_t name = bracket;
    while (word_character(text[name - 1])) name--;
    // The element type lies between an optional alignment and the name.
    std::string type = text.substr(at + 10, name - at - 10);
    size_t align = find_word(type, "__align__", 0);
    if (align != std::string::npos) type = type.substr(closing(type, align) + 1);
    out += text.substr(done, start - 6 - done);
    out += type + "* const " + text.substr(name, bracket - name) + " = (" + type + "*)simt_dynamic_shared()";
    done = bracket + 2;
  }
  return out + text.substr(done);
}

// `threadgroup T name[...]` declares memory of the block; `threadgroup T*` only qualifies a pointer.
std::string threadgroup_memory(const std::string& text) {
  std::string out;
  size_t done = 0;
  const std::string word = "threadgroup";
  for (;;) {
    size_t at = find_word(text, word, done);
    if (at == std::string::npos) break;
    out += text.substr(done, at - done);
    done = at + word.size();
    int angles = 0;
    bool declares = false;
    for (size_t i = done; i < text.size(); i++) {
      char c = text[i];
      angles += c == '<' ? 1 : c == '>' ? -1 : 0;
      if (angles < 0) break;
      if (angles > 0 || !(c == '[' || c == ';' || c == '*' || c == '&' || c == ')' || c == ',')) continue;
      declares = c == '[' || c == ';';
      break;
    }
    out += declares ? "SIMT_SHARED" : word;
  }
  return out + text.substr(done);
}

std::string trim(const std::string& s) {
  size_t start = s.find_first_not_of(" \t\r\n"), end = s.find_last_not_of(" \t\r\n");
  return start == std::string::npos ? "" : s.substr(start, end - start + 1);
}

std::vector<std::string> split_parameters(const std::string& list) {
  std::vector<std::string> parts;
  int depth = 0;
  size_t start = 0;
  for (size_t i = 0; i <= list.size(); i++) {
    char c = i < list.size() ? list[i] : ',';
    if (c == '(' || c == '<' || c == '[') depth++;
    if (c == ')' || c == '>' || c == ']') depth--;
    if ((c == ',' && depth == 0) || i == list.size()) {
      std::string part = trim(list.substr(start, i - start));
      if (!part.empty()) parts.push_back(part);
      start = i + 1;
    }
  }
  return parts;
}

// The expression that a launch passes for a parameter of a Metal kernel.
std::string metal_argument(const std::string& parameter, int& next_buffer) {
  struct Builtin {
    const char *attribute, *value;
  };
  static const Builtin builtins[] = {
      {"thread_position_in_grid",
       "simt::Dim{simt_block(0) * simt_block_size(0) + simt_thread(0), simt_block(1) * simt_block_size(1) + "
       "simt_thread(1), simt_block(2) * simt_block_size(2) + simt_thread(2)}"},
      {"thread_position_in_threadgroup", "simt::dim(simt_thread)"},
      {"threadgroup_position_in_grid", "simt::dim(simt_block)"},
      {"threadgroups_per_grid", "simt::dim(simt_grid_size)"},
      {"threads_per_threadgroup", "simt::dim(simt_block_size)"},
      {"thread_index_in_threadgroup", "simt_linear()"},
      {"thread_index_in_simdgroup", "simt_lane()"},
      {"simdgroup_index_in_threadgroup", "simt_warp()"},
      {"threads_per_simdgroup", "simt_warp_size()"},
  };
  for (const Builtin& b : builtins) {
    if (parameter.find(std::string("[[") + b.attribute + "]]") == std::string::npos) continue;
    bool vector = parameter.find("uint3") != std::string::npos || parameter.find("uint2") != std::string::npos;
    bool is_dim = std::string(b.value).find("simt::") == 0;
    return is_dim && !vector ? "(" + std::string(b.value) + ").x" : b.value;
  }
  size_t buffer = parameter.find("[[buffer(");
  int index = buffer == std::string::npos ? next_buffer : atoi(parameter.c_str() + buffer + 9);
  next_buffer = index + 1;
  std::string value = "simt::Arg{params[" + std::to_string(index) + "]}";
  return parameter.find('&') == std::string::npos ? value : "*" + value;
}

// Name and parameters of the function whose qualifiers end at `at`; where its list ends.
bool signature(const std::string& text, size_t at, std::string& name, std::vector<std::string>& parameters) {
  for (;;) {
    size_t open = text.find('(', at);
    if (open == std::string::npos) return false;
    size_t end = closing(text, open);
    if (end == std::string::npos) return false;
    size_t last = open;
    while (last > at && isspace((unsigned char)text[last - 1])) last--;
    size_t first = last;
    while (first > at && word_character(text[first - 1])) first--;
    name = text.substr(first, last - first);
    at = end + 1;
    // Attributes of a kernel have parentheses too.
    if (name.empty() || name.rfind("__", 0) == 0) continue;
    parameters = split_parameters(text.substr(open + 1, end - open - 1));
    return true;
  }
}

}  // namespace

std::string rewrite(Language language, const std::string& text, std::vector<std::string>& entries) {
  bool metal = language == Language::Metal;
  std::string out = metal ? threadgroup_memory(text) : dynamic_shared(text);
  const std::string mark = metal ? "kernel" : "__global__";
  std::string calls;
  for (size_t at = find_word(text, mark, 0); at != std::string::npos; at = find_word(text, mark, at + 1)) {
    std::string name;
    std::vector<std::string> parameters;
    if (!signature(text, at + mark.size(), name, parameters)) continue;
    entries.push_back(name);
    // The list of arguments is the driver's memory, not the kernel's.
    calls += "extern \"C\" __attribute__((no_sanitize(\"thread\"))) void simt_entry_" + name + "(void** params) {\n  " + name + "(";
    int next_buffer = 0;
    for (size_t i = 0; i < parameters.size(); i++) {
      std::string value = metal ? metal_argument(parameters[i], next_buffer)
                                : "simt::Arg{params[" + std::to_string(i) + "]}";
      calls += (i ? ", " : "") + value;
    }
    calls += ");\n}\n";
  }
  return out + "\n" + calls;
}

}  // namespace emulator
