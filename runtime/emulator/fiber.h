// Switching between stacks: the registers that a call preserves, and nothing else.
#pragma once
#include <cstdint>
#include <cstring>

extern "C" void emulator_switch(void** from, void* to);

#if defined(__APPLE__)
#define EMULATOR_SYMBOL "_emulator_switch"
#else
#define EMULATOR_SYMBOL "emulator_switch"
#endif

#if defined(__x86_64__)
asm(".text\n.globl " EMULATOR_SYMBOL "\n" EMULATOR_SYMBOL ":\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nretq\n");
constexpr int kSavedWords = 6;
constexpr int kReturnWord = 6;
constexpr int kFrameWords = 8;  // the return address and a word that keeps the stack aligned
#elif defined(__aarch64__)
asm(".text\n.globl " EMULATOR_SYMBOL "\n" EMULATOR_SYMBOL ":\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp, #0]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\n"
    "stp d14, d15, [sp, #144]\n"
    "mov x2, sp\nstr x2, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp, #0]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\n"
    "ldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\nret\n");
constexpr int kReturnWord = 11;
constexpr int kFrameWords = 20;
#else
#error "the emulator runs on x86-64 and aarch64"
#endif

// A stack that begins with a call of `start` when it is first switched to. `top` is a multiple of 16.
inline void* fiber_stack(char* top, void (*start)()) {
  auto* frame = (uint64_t*)top - kFrameWords;
  memset(frame, 0, kFrameWords * 8);
  frame[kReturnWord] = (uint64_t)start;
  return frame;
}
