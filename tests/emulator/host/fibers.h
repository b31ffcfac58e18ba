// Fibers: a stack for each CUDA thread, and the switch from one to another. Hand-written for the usual machines, since
// `swapcontext` asks the kernel for the signal mask on each switch and is an order of magnitude slower.
#pragma once
#include <cstddef>
#include <cstdint>
#include <sys/mman.h>
#include <unistd.h>

#include "fault.h"

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(LINC_UCONTEXT)
#define LINC_UCONTEXT
#endif

#ifdef LINC_UCONTEXT
#include <ucontext.h>
#else
// Saves the registers that a call preserves on the running stack, leaves its top in `*save`, and goes on where the
// stack `to` was left.
extern "C" void linc_switch_stack(void** save, void* to) asm("linc_switch_stack");
#endif

#if defined(__x86_64__) && !defined(LINC_UCONTEXT)
asm(R"(
.text
.p2align 4
.globl linc_switch_stack
linc_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#elif defined(__aarch64__) && !defined(LINC_UCONTEXT)
asm(R"(
.text
.p2align 4
.globl linc_switch_stack
linc_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#endif

namespace linc {

// A place to go on from: a fiber that does not run.
struct Context {
#ifdef LINC_UCONTEXT
  ucontext_t state;
#else
  void* top;
#endif
};

inline void switch_context(Context& from, Context& to) {
#ifdef LINC_UCONTEXT
  swapcontext(&from.state, &to.state);
#else
  linc_switch_stack(&from.top, to.top);
#endif
}

// Makes `context` begin with `entry`, which must not return, on the stack of `bytes` bytes at `stack`.
inline void prepare_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
#ifdef LINC_UCONTEXT
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = bytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
#elif defined(__x86_64__)
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // where a return address would be: keeps the alignment that a function expects on entry
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  context.top = top;
#else
  void** top = reinterpret_cast<void**>(stack + bytes) - 20;
  for (int saved = 0; saved < 20; saved++) top[saved] = nullptr;
  top[11] = reinterpret_cast<void*>(entry);  // the link register
  context.top = top;
#endif
}

// Stacks for the fibers of a block, used again by each block. Below each lies a page that nobody may touch.
class Stacks {
 public:
  static constexpr size_t BYTES = 256 << 10;

  explicit Stacks(unsigned count) {
    size_t page = sysconf(_SC_PAGESIZE);
    void* all = mmap(nullptr, BYTES * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) fault("crash", NO_THREAD, "no memory for %u stacks", count);
    memory = static_cast<char*>(all);
    for (unsigned i = 0; i < count; i++) mprotect(memory + i * BYTES, page, PROT_NONE);
  }

  // The tops differ in their place within a page: fibers touch the same depth of their stacks, which would otherwise
  // fall into one set of the cache.
  size_t usable(unsigned i) const { return BYTES - (i % 61) * 64; }
  char* at(unsigned i) const { return memory + i * BYTES; }

 private:
  char* memory;
};

}  // namespace linc
