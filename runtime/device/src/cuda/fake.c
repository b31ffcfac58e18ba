// A driver, cuBLASLt and NVRTC in one library for tests on machines without a GPU: memory is the host's, streams run
// at once or record a graph, matmuls are plain loops, and every kernel adds its number of blocks along x to the first
// float of its first argument; one of 96 threads adds the rows of its second argument too, a tensor map of the first.
// Only what linc calls is here. Live objects are counted: `fake_live`.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int status;
static int live;
int fake_live(void) { return live; }
static void *make(size_t bytes) { return live++, calloc(1, bytes ? bytes : 1); }
static status drop(void *p) { return free(p), live--, 0; }

// ---- what streams do ----

typedef struct { int64_t rows, cols, leading; int type; } layout;
typedef struct { int transposed[2]; } description;
typedef struct op {
  struct op *next;
  enum { COPY, ADD, MATMUL } kind;
  float *c, *a, *b;
  size_t bytes;
  float beta, add;
  layout layouts[3];
  description desc;
} op;
typedef struct { op *first, **last; } graph;
static graph *capturing;
static int launches, graph_launches;
int fake_graph_launches(void) { return graph_launches; }

static float element(const float *x, const layout *l, int transposed, int64_t row, int64_t col) {
  return transposed ? x[row * l->leading + col] : x[col * l->leading + row];
}

static void run(const op *o) {
  if (o->kind == COPY) memcpy(o->c, o->a, o->bytes);
  if (o->kind == ADD) *o->c += o->add;
  if (o->kind != MATMUL) return;
  const layout *a = &o->layouts[0], *b = &o->layouts[1], *c = &o->layouts[2];
  int64_t inner = o->desc.transposed[0] ? a->rows : a->cols;
  for (int64_t col = 0; col < c->cols; col++)
    for (int64_t row = 0; row < c->rows; row++) {
      float sum = 0, *to = &o->c[col * c->leading + row];
      for (int64_t k = 0; k < inner; k++)
        sum += element(o->a, a, o->desc.transposed[0], row, k) * element(o->b, b, o->desc.transposed[1], k, col);
      *to = o->beta == 0 ? sum : sum + o->beta * *to;
    }
}

static status queue(op o) {
  if (!capturing) return run(&o), 0;
  op *kept = make(sizeof o);
  *kept = o, kept->next = NULL;
  *capturing->last = kept, capturing->last = &kept->next;
  return 0;
}

// ---- the driver ----

status cuInit(unsigned flags) { return 0; }
status cuDriverGetVersion(int *version) { return *version = 13000, 0; }
status cuGetErrorName(status s, const char **name) { return *name = "FAKE_ERROR", 0; }
status cuGetErrorString(status s, const char **text) { return *text = "a made-up error", 0; }
status cuDeviceGetCount(int *count) { return *count = 1, 0; }
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
static void *current;
status cuDevicePrimaryCtxRetain(void **context, int device) { return *context = make(1), 0; }
status cuDevicePrimaryCtxRelease_v2(int device) { return live--, 0; }
status cuCtxSetCurrent(void *context) { return current = context, 0; }
status cuCtxGetCurrent(void **context) { return *context = current, 0; }
status cuCtxSynchronize(void) { return 0; }
status cuStreamCreate(void **stream, unsigned flags) { return *stream = make(1), 0; }
status cuStreamDestroy_v2(void *stream) { return drop(stream); }
status cuStreamSynchronize(void *stream) { return capturing ? 900 : 0; }

static size_t in_use;
#define TOTAL ((size_t)1 << 30)
status cuMemGetInfo_v2(size_t *unused, size_t *total) { return *unused = TOTAL - in_use, *total = TOTAL, 0; }
status cuMemAlloc_v2(void **p, size_t bytes) {
  if (bytes > TOTAL - in_use) return 2;
  in_use += bytes, live++;
  return posix_memalign(p, 256, bytes);
}
status cuMemFree_v2(void *p) { return drop(p); }
status cuMemHostAlloc(void **p, size_t bytes, unsigned flags) { return *p = make(bytes), 0; }
status cuMemFreeHost(void *p) { return drop(p); }
status cuMemsetD8Async(void *p, unsigned char value, size_t n, void *stream) { return memset(p, value, n), 0; }
status cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t n, void *s) { return memcpy(to, from, n), 0; }
status cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t n, void *s) { return memcpy(to, from, n), 0; }
status cuMemcpyDtoDAsync_v2(void *to, void *from, size_t bytes, void *stream) {
  return queue((op){.kind = COPY, .c = to, .a = from, .bytes = bytes});
}

status cuModuleLoadData(char **module, const char *image) {
  return strncmp(image, "FAKE", 4) ? 200 : (*module = make(1), 0);
}
status cuModuleUnload(void *module) { return drop(module); }
status cuModuleGetFunction(void **function, void *module, const char *name) { return *function = module, 0; }
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

status cuLaunchKernel(void *f, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                      unsigned shared, void *stream, void **args, void **extra) {
  if (tx % 32 || ty != 1 || tz != 1) return 1;
  float *first = *(float **)args[0], add = x;
  if (tx == 96) {
    const uint64_t *map = args[1];
    if (map[0] != (uintptr_t)first) return 1;
    add += map[1];
  }
  return queue((op){.kind = ADD, .c = first, .add = add});
}

status cuStreamBeginCapture_v2(void *stream, int mode) {
  capturing = make(sizeof *capturing);
  capturing->last = &capturing->first;
  return 0;
}
status cuStreamEndCapture(void *stream, graph **g) { return *g = capturing, capturing = NULL, 0; }
status cuGraphInstantiateWithFlags(graph **exec, graph *g, uint64_t flags) { return live++, *exec = g, 0; }
status cuGraphLaunch(graph *g, void *stream) {
  graph_launches++;
  for (op *o = g->first; o; o = o->next) run(o);
  return 0;
}
status cuGraphExecDestroy(graph *g) { return live--, 0; }
status cuGraphDestroy(graph *g) {
  for (op *o = g->first, *next; o; o = next) next = o->next, drop(o);
  return drop(g);
}

status cuEventCreate(void **event, unsigned flags) { return *event = make(1), 0; }
status cuEventDestroy_v2(void *event) { return drop(event); }
status cuEventRecord(void *event, void *stream) { return capturing ? 900 : 0; }
status cuEventElapsedTime(float *time, void *from, void *to) { return *time = 0.5f, 0; }

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
                      size_t workspace_bytes, void *stream) {
  if (*alpha != 1 || c != d || lc != ld || la->type || lb->type || lc->type) return 7;
  return queue((op){.kind = MATMUL, .a = a, .b = b, .c = c, .beta = *beta, .layouts = {*la, *lb, *lc}, .desc = *desc});
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
