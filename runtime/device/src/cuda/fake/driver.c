// A driver, cuBLASLt and NVRTC for tests on machines without a GPU, in one library with a made-up NCCL: memory is the host's,
// streams and graphs are those of streams.c, and matmuls are plain loops. Of the first argument that it may write, a kernel
// sets the first float to its number of blocks along x and what the first floats of those that it only reads come to; without
// such, it adds the number. One of 96 threads adds the rows of its second argument too, a tensor map of the first. Only what
// linc calls is here. FAKE_GPUS says how many there are.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

static float element(const float *x, const layout *l, int transposed, int64_t row, int64_t col) {
  return transposed ? x[row * l->leading + col] : x[col * l->leading + row];
}

static void multiply(const op *o) {
  const layout *a = &o->layouts[0], *b = &o->layouts[1], *c = &o->layouts[2];
  int64_t inner = o->desc.transposed[0] ? a->rows : a->cols;
  for (int64_t col = 0; col < c->cols; col++)
    for (int64_t row = 0; row < c->rows; row++) {
      float sum = 0, *to = (float *)o->c + col * c->leading + row;
      for (int64_t k = 0; k < inner; k++)
        sum += element(o->a, a, o->desc.transposed[0], row, k) * element(o->b, b, o->desc.transposed[1], k, col);
      *to = o->beta == 0 ? sum : sum + o->beta * *to;
    }
}

int run(op *o) {
  switch (o->kind) {
    case COPY: return memcpy(o->c, o->a, o->bytes), 1;
    case SET:
      for (size_t i = 0; i < o->bytes / 4; i++) ((uint32_t *)o->c)[i] = o->value;
      memset((char *)o->c + o->bytes / 4 * 4, o->value, o->bytes % 4);
      return 1;
    case ADD: {
      float sum = 0;
      int reads = 0;
      for (int i = 0; i < o->ranges; i++)
        if (!o->touched[i].writes) sum += *(const float *)o->touched[i].from, reads++;
      // Of whatever type it is, a number that stays small.
      if (reads) *(float *)o->c = isfinite(sum) ? fmodf(sum, 1000) : 0;
      return *(float *)o->c += o->add, 1;
    }
    case MATMUL: return multiply(o), 1;
    case EXCHANGE: return run_exchange(o->exchange);
    default: return 1;
  }
}

static status copy(void *to, const void *from, size_t bytes, struct stream *s, int on_device) {
  op o = {.kind = COPY, .c = to, .a = (void *)from, .bytes = bytes};
  if (on_device & 1) touch(&o, from, bytes, 0);
  if (on_device & 2) touch(&o, to, bytes, 1);
  return queue(s, o);
}

// ---- the driver ----

status cuInit(unsigned flags) { return 0; }
status cuDriverGetVersion(int *version) { return *version = 13000, 0; }
status cuGetErrorName(status s, const char **name) { return *name = "FAKE_ERROR", 0; }
status cuGetErrorString(status s, const char **text) { return *text = "a made-up error", 0; }
status cuDeviceGetCount(int *count) {
  const char *text = getenv("FAKE_GPUS");
  return *count = text ? atoi(text) : 1, 0;
}
status cuDeviceGet(int *device, int number) { return *device = number, 0; }
status cuDeviceGetName(char *name, int len, int device) { return snprintf(name, len, "Fake H200"), 0; }
status cuDeviceGetAttribute(int *value, int which, int device) {
  switch (which) {
    case 13: return *value = 1980000, 0;  // clock, kHz
    case 16: return *value = 132, 0;      // multiprocessors
    case 75: return *value = 9, 0;        // compute capability
    case 76: return *value = 0, 0;
    case 97: return *value = 227 << 10, 0;  // shared memory of a block
    default: return *value = 1, 0;
  }
}
static int *current;
int current_device(void) { return current ? *current : -1; }
static void *contexts[16];
status cuDevicePrimaryCtxRetain(int **context, int device) {
  *context = contexts[device] = make(sizeof **context), **context = device;
  return 0;
}
status cuDevicePrimaryCtxRelease_v2(int device) { return drop(contexts[device]); }
status cuCtxSetCurrent(void *context) { return current = context, 0; }
status cuCtxGetCurrent(void **context) { return *context = current, 0; }

static size_t in_use;
#define TOTAL ((size_t)1 << 30)
status cuMemGetInfo_v2(size_t *unused, size_t *total) { return *unused = TOTAL - in_use, *total = TOTAL, 0; }
status cuMemAlloc_v2(void **p, size_t bytes) {
  if (bytes > TOTAL - in_use) return 2;
  in_use += bytes;
  return *p = make_aligned(bytes), *p ? 0 : 2;
}
status cuMemFree_v2(void *p) { return drop(p); }
status cuMemHostAlloc(void **p, size_t bytes, unsigned flags) { return *p = make(bytes), 0; }
status cuMemFreeHost(void *p) { return drop(p); }
status cuMemsetD32Async(void *p, unsigned value, size_t n, struct stream *s) {
  op o = {.kind = SET, .c = p, .bytes = 4 * n, .value = value};
  return touch(&o, p, 4 * n, 1), queue(s, o);
}
status cuMemsetD8Async(void *p, unsigned char value, size_t n, struct stream *s) {
  op o = {.kind = SET, .c = p, .bytes = n, .value = value * 0x01010101u};
  return touch(&o, p, n, 1), queue(s, o);
}
status cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t n, struct stream *s) { return copy(to, from, n, s, 2); }
status cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t n, struct stream *s) { return copy(to, from, n, s, 1); }
status cuMemcpyDtoDAsync_v2(void *to, void *from, size_t n, struct stream *s) { return copy(to, from, n, s, 3); }

// A function knows which of its arguments are pointers that it reads, and which it writes, from its source.
typedef struct { char *source; int params, writes[16]; } module;
status cuModuleLoadData(module **made, const char *image) {
  if (strncmp(image, "FAKE", 4)) return 200;
  *made = make(sizeof **made), (*made)->source = strdup(image);
  return 0;
}
status cuModuleUnload(module *m) { return free(m->source), drop(m); }
status cuModuleGetFunction(module **function, module *m, const char *name) {
  *function = m;
  char head[512], *at, *end;
  snprintf(head, sizeof head, " %s(", name);
  if (!(at = strstr(m->source, head)) || !(end = strchr(at, ')'))) return 500;
  at += strlen(head) - 1, m->params = 0;
  for (char *param = at + 1, *next; param < end && m->params < 16; param = next + 1) {
    next = param + strcspn(param, ",)");
    if (memchr(param, '*', next - param)) m->writes[m->params++] = !strstr(param, "const") || strstr(param, "const") > next;
  }
  return 0;
}
// Dynamic shared memory beyond what needs no word, and the share of it that a kernel prefers, in percent.
status cuFuncSetAttribute(void *function, int attribute, int value) {
  int known = (attribute == 8 && value > 48 << 10) || (attribute == 9 && value == 100);
  return known ? 0 : 1;
}
// A map of two axes of 16-bit elements; what the real one would refuse, and what linc does not ask for, is refused. It
// remembers the buffer and its rows.
status cuTensorMapEncodeTiled(uint64_t *map, int type, uint32_t rank, void *address, const uint64_t *sizes,
                              const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                              int swizzle, int promotion, int fill) {
  uint32_t row = box[0] * 2;
  int fine = (uintptr_t)map % 64 == 0 && (type == 6 || type == 9) && rank == 2 && (uintptr_t)address % 16 == 0 &&
             sizes[0] > 0 && sizes[1] > 0 && sizes[0] <= 1ull << 32 && sizes[1] <= 1ull << 32 && strides[0] % 16 == 0 &&
             strides[0] >= sizes[0] * 2 && strides[0] < 1ull << 40 && box[0] > 0 && box[0] <= 256 && box[1] > 0 &&
             box[1] <= 256 && steps[0] == 1 && steps[1] == 1 && interleave == 0 && row == 16u << swizzle && swizzle >= 1 &&
             swizzle <= 3 && fill == 0;
  if (!fine) return 1;
  map[0] = (uintptr_t)address, map[1] = sizes[1];
  return 0;
}

status cuLaunchKernel(module *f, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                      unsigned shared, struct stream *s, void **args, void **extra) {
  if (tx % 32 || ty != 1 || tz != 1) return 1;
  int target = 0;
  while (target + 1 < f->params && !f->writes[target]) target++;
  op o = {.kind = ADD, .c = *(void **)args[target], .add = x};
  if (tx == 96 && f->params == 1) {
    const uint64_t *map = args[1];
    if (map[0] != (uintptr_t)o.c) return 1;
    o.add += map[1];
  }
  for (int i = 0; i < f->params; i++) touch(&o, *(void **)args[i], 4, f->writes[i]);
  return queue(s, o);
}

// ---- cuBLASLt ----

size_t cublasLtGetVersion(void) { return 130100; }
status cublasLtCreate(void **handle) { return *handle = make(1), 0; }
status cublasLtDestroy(void *handle) { return drop(handle); }
status cublasLtMatmulDescCreate(void **desc, int compute, int scale) {
  return compute == 68 && scale == 0 ? (*desc = make(sizeof(description)), 0) : 7;
}
status cublasLtMatmulDescDestroy(void *desc) { return drop(desc); }
status cublasLtMatmulDescSetAttribute(description *desc, int which, const int *value, size_t bytes) {
  return (which == 3 || which == 4) && bytes == 4 ? (desc->transposed[which - 3] = *value, 0) : 7;
}
status cublasLtMatrixLayoutCreate(void **made, int type, uint64_t rows, uint64_t cols, int64_t leading) {
  layout *l = *made = make(sizeof *l);
  *l = (layout){rows, cols, leading, type};
  return 0;
}
status cublasLtMatrixLayoutDestroy(void *layout) { return drop(layout); }
status cublasLtMatmulPreferenceCreate(void **preference) { return *preference = make(1), 0; }
status cublasLtMatmulPreferenceDestroy(void *preference) { return drop(preference); }
status cublasLtMatmulPreferenceSetAttribute(void *preference, int which, const void *value, size_t bytes) {
  int number = which == 3 || (which >= 5 && which <= 8);
  return (which == 1 && bytes == 8) || (number && bytes == 4) ? 0 : 7;
}
static int heuristics;
int fake_heuristics(void) { return heuristics; }
status cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,
                                      int wanted, void *results, int *found) {
  // Algorithm (64 bytes), workspace size, state, waves, reserved.
  return heuristics++, memset(results, 0, 96), *found = 1, 0;
}
status cublasLtMatmul(void *handle, description *desc, const float *alpha, float *a, layout *la, float *b, layout *lb,
                      const float *beta, float *c, layout *lc, float *d, layout *ld, void *algorithm, void *workspace,
                      size_t workspace_bytes, struct stream *stream) {
  if (*alpha != 1 || c != d || lc != ld || la->type || lb->type || lc->type) return 7;
  op o = {.kind = MATMUL, .a = a, .b = b, .c = c, .beta = *beta, .layouts = {*la, *lb, *lc}, .desc = *desc};
  const layout *all[] = {la, lb, lc};
  const void *places[] = {a, b, c};
  for (int i = 0; i < 3; i++) {
    int64_t last = (all[i]->cols - 1) * all[i]->leading + all[i]->rows;
    touch(&o, places[i], 4 * (all[i]->cols ? last : 0), i == 2);
  }
  return queue(stream, o);
}

// ---- NVRTC: the code is the source behind a mark ----

typedef struct { char *source, log[512]; } program;
status nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
const char *nvrtcGetErrorString(status s) { return "a made-up error"; }
status nvrtcCreateProgram(program **p, const char *source, const char *name, int n, void *headers, void *names) {
  *p = make(sizeof **p);
  (*p)->source = malloc(strlen(source) + 5);
  sprintf((*p)->source, "FAKE%s", source);
  snprintf((*p)->log, sizeof (*p)->log, "Compiling entry function '%.*s' for\nUsed 8 registers\n",
           (int)strcspn(name, "."), name);
  return 0;
}
status nvrtcDestroyProgram(program **p) { return free((*p)->source), drop(*p); }
status nvrtcCompileProgram(program *p, int n, void *options) { return 0; }
status nvrtcGetProgramLogSize(program *p, size_t *n) { return *n = strlen(p->log) + 1, 0; }
status nvrtcGetProgramLog(program *p, char *log) { return strcpy(log, p->log), 0; }
status nvrtcGetCUBINSize(program *p, size_t *n) { return *n = strlen(p->source), 0; }
status nvrtcGetCUBIN(program *p, char *code) { return memcpy(code, p->source, strlen(p->source)), 0; }
status nvrtcGetPTXSize(program *p, size_t *n) { return nvrtcGetCUBINSize(p, n); }
status nvrtcGetPTX(program *p, char *code) { return nvrtcGetCUBIN(p, code); }
